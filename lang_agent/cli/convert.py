"""The command ``lang-agent convert``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lang_agent.bridges.hf_datasets import read_dataset, write_dataset
from lang_agent.bridges.minari_data import read_minari, write_minari
from lang_agent.bridges.trl_training import write_sft
from lang_agent.cli.console import as_text, say
from lang_agent.cli.options import FORMATS, Convert
from lang_agent.episode import Episode
from lang_agent.errors import LangAgentError, shown, unknown
from lang_agent.evaluation.balrog import write_balrog
from lang_agent.evaluation.records import SPEC_FILE, TRAJECTORIES_FILE, read_results
from lang_agent.evaluation.records import read_lines as read_objects
from lang_agent.evaluation.trajectories import as_episode
from lang_agent.learn.demonstrations import read_lines, write_demonstrations


def convert(args: Convert) -> None:
    """Write demonstrations or results in another format."""
    source, out = as_text(args.source), as_text(args.out)
    if args.to not in FORMATS:
        raise unknown("format", args.to, FORMATS)
    if args.to == "balrog":
        if Path(out).exists():
            raise LangAgentError(f"'{out}' is there already: choose another.")
        write_balrog(read_results(source), Path(out))
        say((out, "bold"))
        return
    episodes = _read(source)
    if args.to == "datasets":
        count = write_dataset(Path(out), episodes)
    elif args.to == "sft":
        rows = write_sft(Path(out), (episode for _, episode in episodes))
        say(f"{rows} prompts with completions: {out}")
        return
    elif args.to == "minari":
        count = write_minari(out, episodes)
    else:
        if Path(out).exists():
            raise LangAgentError(f"'{out}' is there already: choose another.")
        count = sum(write_demonstrations(Path(out), env, [one]) for env, one in episodes)
    say(f"{count} episodes: {out}")


def _read(source: str) -> Sequence[tuple[str, Episode]]:
    """Episodes with their environments' ids: of a file of demonstrations, results with
    trajectories, a dataset's folder, or a Minari dataset."""
    path = Path(source)
    if path.is_file():
        return read_lines(path)
    if (path / SPEC_FILE).is_file():
        return _stored(path)
    if path.is_dir():
        return read_dataset(path)
    return read_minari(source)


def _stored(folder: Path) -> list[tuple[str, Episode]]:
    """The episodes of results, of which each step was kept."""
    results = read_results(folder)
    tasks = {task.name: task.env for task in results.spec.tasks}
    won = {record.place: record.success for record in results.records}
    found = []
    for number, data in read_objects(folder / TRAJECTORIES_FILE):
        try:
            place = data["task"], data["seed"]
            found.append((tasks[place[0]], as_episode(data, won[place])))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise LangAgentError(
                f"'{folder / TRAJECTORIES_FILE}', line {number}, is damaged: {shown(error)}."
            ) from None
    if not found:
        raise LangAgentError(f"'{folder}' has no steps: evaluate with --trajectories.")
    return found
