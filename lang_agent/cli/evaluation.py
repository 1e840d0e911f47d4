"""The commands ``lang-agent evaluate``, ``replay``, ``suites`` and ``ask``."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
from rich.text import Text

from lang_agent.cli.agents import named_agent
from lang_agent.cli.console import as_text, console, say
from lang_agent.cli.evaluation_workers import playing
from lang_agent.cli.options import Ask, Evaluate, Replay, Suites, agent_of
from lang_agent.cli.parse import trained_config
from lang_agent.cli.progress import SPINNER, clock, fit
from lang_agent.config import from_dict, load_config
from lang_agent.episode import Agent, TextObservation
from lang_agent.errors import LangAgentError, SpentError
from lang_agent.evaluation.film import check_film, drawing, film
from lang_agent.evaluation.records import (
    Record,
    Results,
    Spec,
    first_difference,
    read_results,
    versions,
)
from lang_agent.evaluation.replay import Replayed, StoredAgent
from lang_agent.evaluation.replay import replay as play_again
from lang_agent.evaluation.run import TaskPlayer, evaluate_panel
from lang_agent.evaluation.summary import (
    ALL,
    COLUMNS,
    Evaluation,
    as_families,
    cells,
    family_means,
    mean_of_families,
    summarise_all,
    with_parts,
)
from lang_agent.evaluation.tasks import (
    Suite,
    Task,
    into_tasks,
    load_suite,
    read_task,
    suite_names,
)
from lang_agent.files import try_place, write_whole
from lang_agent.language_env import PromptLimit
from lang_agent.models.decide import DecideConfig
from lang_agent.text_env.config import TextConfig, describe
from lang_agent.train.config import TrainConfig
from lang_agent.trust import Source, names_from, names_in

DEFAULT = "BabyAI-GoToLocal-v0"
SHOWN = 4  # seeds that failed, of a task, where most did not
EVERY = 10.0  # seconds between two lines of progress where there is no terminal


def evaluate(args: Evaluate) -> None:
    """How often an agent succeeds on held-out seeds, with 95% intervals; every episode is kept."""
    if args.json:
        try_place(Path(args.json))
    asked = prepare(args)
    suite, agent = asked.suite, asked.agent
    spec = Spec(
        agent={**agent.about, "words": describe(asked.text)},
        tasks=suite.tasks,
        first_seed=args.seed,
        episodes=args.episodes,
        suite=suite.name,
        versions=versions(),
        families=suite.families,
    )
    folder = Path(args.out or _own_folder(args, suite))
    about = f"{args.agent}: {suite.name or f'{len(suite.tasks)} task(s)'}, panel {spec.panel}"
    say(f"{about}, seeds {spec.seeds[0]} to {spec.seeds[-1]}")
    for note in asked.notes:
        say((note, "dim"))
    viewer = Table(suite, asked.player.slots)
    try:
        with playing(args, asked.player, prepare) as play_task:
            evaluate_panel(spec, folder, play_task, viewer=viewer)
    except (KeyboardInterrupt, SpentError) as stopped:
        viewer.close()
        if isinstance(stopped, SpentError):
            say(str(stopped))
        left = len(read_results(folder).missing)
        say(f"Stopped with {left} episodes left. The same command with --out {folder} goes on.")
        if isinstance(stopped, KeyboardInterrupt):
            raise
    finally:
        viewer.close()
    results = read_results(folder)
    rows = summarise_all(spec, results.records)
    if len(rows) > 1:
        viewer.row(ALL, cells(rows[-1]))
    _say_families(results)
    for system, figure in suite.published.items():
        say((f"published, mean of the tasks: {figure:.3f} {system}", "dim"))
    if args.json:
        data = {**spec.as_data(), "evaluations": [asdict(row) for row in rows]}
        data["parts"] = {
            task.name: [asdict(row) for row in parts[1:]]
            for task in spec.tasks
            if len(parts := with_parts(task.name, results.of_task(task.name))) > 1
        }
        data |= as_families(spec, results.records)
        data["unplayed"] = dict(results.unplayed)
        write_whole(Path(args.json), json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    say((str(folder), "bold"))
    if all(record.error for record in results.records):
        errors = [*results.unplayed.values(), *(record.error for record in results.records)]
        raise LangAgentError(f"Nothing could be played: {(errors or ['there is no episode'])[0]}")


@dataclass(frozen=True)
class Prepared:
    """What an evaluation's options come to."""

    suite: Suite
    text: TextConfig
    agent: Agent
    player: TaskPlayer
    notes: Sequence[str]
    """What should stand beside the figures."""


def prepare(args: Evaluate, slots: int | None = None) -> Prepared:
    """What the options ask for, with so many episodes at once, or as many as they say."""
    suite = _suite(args)
    file = trained_config(args.agent)
    trained = None if file is None else load_config(file, TrainConfig, trust=True)
    text, tasks = into_tasks(_text(args, suite, trained), suite.tasks)
    slots = slots or args.slots
    agent = agent_of(args, args.agent, slots)

    def make_env(task: Task) -> gymnasium.Env[str, str]:
        return text.with_args(task.env_args).make(task.env)

    notes: Sequence[str] = ()
    if file is not None and trained is not None:
        notes = _notes(text, trained.text.carried(file), args.decide, trained.decide)
        agent.words = None  # what differs is said
    slots = min(slots, agent.slots or slots)
    player = TaskPlayer(agent, make_env, slots=slots, keep_trajectories=args.trajectories)
    return Prepared(replace(suite, tasks=tasks), text, agent, player, notes)


def _say_families(results: Results) -> None:
    """The means of families of tasks, and which of them have none, and why."""
    spec = results.spec
    means = family_means(spec, results.records)
    for mean in means:
        other = "" if mean.so_far == mean.progression else (
            f" ({mean.so_far:.3f} with the progress of episodes that were cut off)"
        )  # fmt: skip
        figure = f"{mean.progression:.3f} ± {mean.standard_error:.3f}"
        say(f"progress in {mean.family}: {figure}, {mean.episodes} episodes{other}")
    for family in spec.families:
        if all(family.name != mean.family for mean in means):
            reasons = [results.unplayed[task] for task in family.tasks if task in results.unplayed]
            say((f"{family.name} is left out: {(reasons or ['it was not played.'])[0]}", "yellow"))
    if len(spec.families) > 1 and means:
        progress, error = mean_of_families(means)
        count = f"{len(means)} of {len(spec.families)} families"
        say((f"progress, mean of {count}: {progress:.3f} ± {error:.3f} (standard errors)", "bold"))


def _suite(args: Evaluate) -> Suite:
    tasks = tuple(read_task(as_text(task)) for task in args.tasks)
    if args.suite is None:
        tasks = tasks or (read_task(DEFAULT),)
        names = [task.name for task in tasks]
        if len({*names}) < len(names):
            raise LangAgentError(f"The task {max(names, key=names.count)!r} stands there twice.")
        return Suite("", tasks)
    if tasks:
        raise LangAgentError("Give either tasks or a --suite, not both.")
    return load_suite(as_text(args.suite))


def _text(args: Evaluate, suite: Suite, trained: TrainConfig | None) -> TextConfig:
    """The agent's words. Arguments for the world that it was trained on go to that world alone;
    what the tasks name is the person's word."""
    if trained is None:
        return args.text
    source = args.text.source
    if source is not None:
        named = names_in(entry for task in suite.tasks for entry in (task.env, *task.env_args))
        source = replace(source, given=source.given | named)
    same = all(task.env == trained.env and not trained.mixture for task in suite.tasks)
    if same or args.text.env_args != trained.text.env_args:
        return replace(args.text, source=source)
    return replace(args.text, env_args=(), source=source)


def _notes(
    text: TextConfig, words: TextConfig, decide: DecideConfig, own_decide: DecideConfig
) -> list[str]:
    """What should stand beside the figures: other words, or another way to decide, than those that
    the policy was trained with."""
    found = []
    for name in ("prompt", "renderer", "wording", "invalid_action", "actions"):
        mine, own = getattr(text, name), getattr(words, name)
        if mine != own:
            found.append(f"in other words than it was trained in: {name} {mine or 'the default'}, "
                         f"not {own or 'the default'}")  # fmt: skip
    if decide != own_decide:
        found.append("deciding otherwise than it was trained to")
    return found


def _own_folder(args: Evaluate, suite: Suite) -> str:
    agent = re.sub(r"[^\w.-]+", "-", Path(args.agent).name if "/" in args.agent else args.agent)
    tasks = suite.name or re.sub(r"[^\w.-]+", "-", suite.tasks[0].name)[:40]
    name = f"results/{tasks}-{agent}-{time.strftime('%Y%m%d-%H%M%S')}"
    names = (f"{name}-{number}" if number > 1 else name for number in itertools.count(1))
    return next(name for name in names if not Path(name).exists())


class Table:
    """The table of an evaluation, row by row as tasks are done, with a line of progress below."""

    def __init__(self, suite: Suite, slots: int) -> None:
        names = [task.name for task in suite.tasks]
        widths = sum(width + 1 for _, width in COLUMNS)
        room = max(console.width - widths, 20) if console.is_terminal else 60
        self.width = min(max(20, *map(len, names)), room)
        self.slots = slots
        self._done = self._solved = 0
        self._began = self._shown = time.monotonic()
        self._left = 0
        self._error = self._reason = ""
        self._status: Any = None
        self.row("task", [name for name, _ in COLUMNS])

    def row(self, name: str, entries: list[str]) -> None:
        """A row of the table, whose name has a line of its own where it is too long."""
        if len(name) > self.width:
            say(name)
            name = ""
        columns = zip(entries, (width for _, width in COLUMNS), strict=True)
        say(name.ljust(self.width), *(f" {entry:>{width}}" for entry, width in columns))

    def begun(self, task: Task, left: int, episodes: int) -> None:
        self._left = left
        self._done = self._solved = 0
        self._error = ""
        self._failed: list[int] = []
        self._began = self._shown = time.monotonic()
        if left and console.is_terminal:
            begun = fit([f"0/{left}", task.name], console.width - SPINNER)
            self._status = console.status(Text(begun))
            self._status.start()

    def played(self, task: Task, record: Record) -> None:
        self._done += 1
        self._error = self._error or record.error
        self._solved += record.success
        if not record.success:
            self._failed.append(record.seed)
        now = time.monotonic()
        left = max(self._left - self._done, 0)
        behind = self._done + min(self.slots, left) / 2  # those under way are half over
        rest = (now - self._began) / behind * (self._left - behind)
        success = f"success so far {self._solved / self._done:.3f}"
        line = f"{task.name}: {self._done}/{self._left}, {success}, {clock(rest)} left"
        if self._status is not None:
            parts = [f"{self._done}/{self._left}", f"{clock(rest)} left", success, task.name]
            self._status.update(Text(fit(parts, console.width - SPINNER)))
        elif now - self._shown >= EVERY and not console.is_terminal:
            self._shown = now
            say(line)

    def done(self, task: Task, rows: Sequence[Evaluation], reason: str) -> None:
        self.close()
        for at, row in enumerate(rows):
            self.row(f"  {row.task}" if at else task.name, cells(row))
            if 0 < len(self._failed) < row.episodes / 2 and not at:
                several = ", ..." if len(self._failed) > SHOWN else ""
                seeds = ", ".join(map(str, sorted(self._failed)[:SHOWN]))
                say((f"  failed seeds: {seeds}{several}", "dim"))
            if row.env_errors and not at:
                say((f"  {row.env_errors} ended by errors, the first: {self._error}", "red"))
        if reason:
            again = reason == self._reason
            say((f"{task.name}: {'for the same reason' if again else reason}", "red"))
            self._reason = reason
        for system, figure in task.published.items():
            say((f"  published: {figure:.3f} {system}", "dim"))

    def close(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


def suites(args: Suites) -> None:
    """The suites of tasks that there are, or the tasks of one."""
    for name in [as_text(args.name)] if args.name else suite_names():
        suite = load_suite(name)
        say((name, "bold"), f" ({len(suite.tasks)} tasks)  {suite.about}")
        if args.name:
            for task in suite.tasks:
                say(f"  {task.name}: {' '.join([task.env, *task.env_args])}")


def ask(args: Ask) -> None:
    """What an agent would say to one prompt."""
    agent = agent_of(args, args.agent, 1)
    actions = tuple(map(as_text, args.actions)) or None
    agent.begin(0, args.seed)
    (decision,) = agent.act([0], [TextObservation(as_text(args.prompt), actions)])
    if decision.probabilities and actions:
        for phrase, probability in zip(actions, decision.probabilities, strict=True):
            say(f"{probability:6.3f}  {phrase}")
    if decision.tokens is not None and agent.critic:
        say(f"value {decision.tokens.value:.3f}")
    say((decision.action, "bold"))


def replay(args: Replay) -> None:
    """Play stored actions again, and check prompts and rewards."""
    results = read_results(args.folder)
    text = _stored_words(results.spec, Path(args.folder))

    def make_env(task: Task, **drawn: str) -> gymnasium.Env[str, str]:
        return text.with_args(task.env_args).make(task.env, **drawn)

    if args.film:
        check_film(Path(args.film))
    tasks = {task.name: task for task in results.spec.tasks}
    same = differing = 0
    with names_from(None if args.trust else Source(str(Path(args.folder) / "spec.json"))):
        limit = _stored_limit(results.spec, args.trust)
        for one in play_again(results, make_env, limit, args.episode):
            if args.episode is not None:
                _show(one)
            if args.film and one.step is None:
                env = drawing(partial(make_env, tasks[one.trajectory["task"]]))
                film(StoredAgent(one.trajectory), env, [one.trajectory["seed"]], Path(args.film))
                say((args.film, "bold"))
            if one.step is None:
                same += 1
                continue
            differing += 1
            where = f"{one.trajectory['task']}, seed {one.trajectory['seed']}, step {one.step}"
            say(f"{where}: {one.difference}")
    say(f"{same} of {same + differing} episodes are the same again.")
    if differing:
        now = {"words": describe(text), "versions": versions()}
        before = {"words": results.spec.agent.get("words", {}), "versions": results.spec.versions}
        changed = first_difference(now, json.loads(json.dumps(before)))
        why = changed or "versions and words are the same, so the world is not"
        raise LangAgentError(f"{differing} episodes differ: {why}.")


def _stored_words(spec: Spec, folder: Path) -> TextConfig:
    """The words that an evaluation was made in."""
    words = spec.agent.get("words", {})
    if isinstance(words, dict):
        words = {name: value for name, value in words.items() if name != "template"}
    return from_dict(TextConfig, words, f"'{folder / 'spec.json'}', words")


def _stored_limit(spec: Spec, trust: bool) -> PromptLimit | None:
    """How much the policy that played could read, where it can still be had."""
    if "weights" not in spec.agent:
        return None
    try:
        decide = from_dict(DecideConfig, spec.agent.get("decide"), "the results' way to decide")
        return named_agent(str(spec.agent.get("name")), 1, decide, trust=trust).prompt_limit
    except LangAgentError as error:
        say((f"Without the agent prompts are as long as they come: {error}", "dim"))
        return None


def _show(one: Replayed) -> None:
    """An episode, step by step."""
    before = ""
    for prompt, step in zip(one.prompts, one.trajectory["steps"], strict=True):
        new = prompt[len(before) :] if prompt.startswith(before) else prompt
        say(new.strip("\n"))
        chances = zip(step["actions"] or (), step["probabilities"], strict=False)
        likely = "  ".join(f"{phrase} {p:.2f}" for phrase, p in chances)
        if likely:
            say((likely, "dim"))
        say((f"> {step['action']}", "bold"), (f"  {step['verdict']}, {step['reward']:g}", "dim"))
        before = prompt + step["action"]
