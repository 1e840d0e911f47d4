"""The command ``lang-agent report``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.progress import Progress

from lang_agent.cli.console import as_text, console, say
from lang_agent.cli.options import Report
from lang_agent.config import from_dict
from lang_agent.errors import LangAgentError
from lang_agent.evaluation.records import EPISODES_FILE
from lang_agent.evaluation.run_records import EVALUATION_FILE, METRICS_FILE, SNAPSHOTS
from lang_agent.files import try_place
from lang_agent.models.decide import DecideConfig
from lang_agent.report.episodes import shown_places
from lang_agent.report.explain import (
    ASKED_AT_ONCE,
    MOST_STEPS,
    Explained,
    explain,
    steps_to_explain,
)
from lang_agent.report.page import write_report
from lang_agent.report.sources import Agent, read_sources

LOOKS = 5.0  # seconds between two looks at a run that goes on
RELOADS = 30  # seconds after which a page that is watched loads itself anew


def report(args: Report) -> None:
    """One page to look at: results, curves, and every episode step by step."""
    out = Path(as_text(args.out))
    if out.suffix not in (".html", ".htm"):
        raise LangAgentError(f"'{out}' is no page: its name must end in .html.")
    folders = [Path(as_text(folder)) for folder in args.folders]
    try_place(out)
    started = time.perf_counter()
    agents, runs = read_sources(folders)
    explained = _explained(agents, args) if args.explain else {}
    write_report(
        out,
        agents,
        runs,
        most_episodes=args.episodes,
        explained=explained,
        refresh=RELOADS if args.watch else None,
    )
    size = out.stat().st_size / 2**10
    said = f"{size:.0f} KiB" if size < 1000 else f"{size / 2**10:.1f} MiB"
    say(f"{said} in {time.perf_counter() - started:.1f} s: open it in a browser.")
    say((str(out), "bold"))
    if args.watch:
        _watch(folders, out, args)


def _watch(folders: Sequence[Path], out: Path, args: Report) -> None:
    """Make the page anew whenever something was added; at the end, one that stays as it is."""
    say(("Made anew as the run goes on; Ctrl-C ends this.", "dim"))
    seen = _state(folders)
    try:
        while True:
            time.sleep(LOOKS)
            now = _state(folders)
            if now != seen:
                seen = now
                agents, runs = read_sources(folders)
                write_report(out, agents, runs, most_episodes=args.episodes, refresh=RELOADS)
    finally:
        agents, runs = read_sources(folders)
        write_report(out, agents, runs, most_episodes=args.episodes)


def _state(folders: Sequence[Path]) -> list[tuple[str, int]]:
    """The sizes of the files that a report is made from."""
    names = (METRICS_FILE, EVALUATION_FILE, EPISODES_FILE, f"{SNAPSHOTS}/*/{EPISODES_FILE}")
    found = []
    for path in (path for folder in folders for name in names for path in folder.glob(name)):
        with suppress(FileNotFoundError):  # a run that is resumed makes some anew
            found.append((str(path), path.stat().st_size))
    return sorted(found)


def _explained(agents: Sequence[Agent], args: Report) -> dict[tuple[str, str, int, int], Explained]:
    """What moved the choices of the agents that can still be asked, 200 steps in all."""
    from lang_agent.cli.agents import named_agent

    places = shown_places(agents, args.episodes)
    found: dict[tuple[str, str, int, int], Explained] = {}
    asked = [agent for agent in agents if not agent.group]
    for number, agent in enumerate(asked):
        share = (MOST_STEPS - len(found)) // (len(asked) - number)
        wanted = steps_to_explain(agent, places[agent.results.spec.panel], share)
        if not wanted:
            continue
        spec = agent.results.spec.agent
        try:
            decide = from_dict(DecideConfig, spec.get("decide", {}), "the results' way to decide")
            player = named_agent(str(spec.get("name")), ASKED_AT_ONCE, decide, trust=args.trust)
        except LangAgentError as error:
            say((f"{agent.label} is not explained: {error}", "dim"))
            continue
        if player.about.get("weights") != spec.get("weights"):
            say((f"{agent.label} is not explained: it has other weights than then.", "dim"))
            continue
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(f"Asking {agent.label} again", total=len(wanted))
            found |= dict(explain(agent, player, wanted, lambda: bar.advance(task)))  # noqa: B023
    say(f"{len(found)} choices that were close, or not the expert's, are explained.")
    return found
