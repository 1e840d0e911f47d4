"""Evaluating on a panel of tasks and seeds: every episode is on disk as it ends, and a rerun plays
what is missing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import gymnasium

from lang_agent.episode import Agent, Decision, Episode, TextObservation, Watched
from lang_agent.errors import LangAgentError, SpentError
from lang_agent.evaluation import trajectories
from lang_agent.evaluation.records import (
    EPISODES_FILE,
    SCHEMA,
    SPEC_FILE,
    SUMMARY_FILE,
    TRAJECTORIES_FILE,
    Record,
    Results,
    Spec,
    as_line,
    first_difference,
    json_line,
    ordered,
    place_of,
    read_lines,
    read_records,
    read_results,
    read_spec,
    write_spec,
)
from lang_agent.evaluation.summary import Evaluation, as_families, summarise_all, with_parts
from lang_agent.evaluation.tasks import Task
from lang_agent.files import write_whole, writing
from lang_agent.language_env import language_env
from lang_agent.lock import FolderLock
from lang_agent.rollout import play
from lang_agent.stepping import EnvErrors, as_reward

MakeEnv = Callable[[Task], gymnasium.Env[str, str]]
Take = Callable[[Record, dict[str, Any] | None], None]
"""What becomes of an episode that has ended: its record, and its trajectory where it is kept."""
PlayTask = Callable[[Task, Sequence[int], Take], str]
"""(task, seeds, take): plays an episode of each seed; returns why not all of them were, if so."""


class Viewer(Protocol):
    """Who is told how an evaluation goes."""

    def begun(self, task: Task, left: int, episodes: int) -> None:
        """A task is about to be played: so many of its episodes are left."""

    def played(self, task: Task, record: Record) -> None:
        """An episode has ended."""

    def done(self, task: Task, rows: Sequence[Evaluation], reason: str) -> None:
        """A task is over: its row, and those of its parts where it has several; and why there is
        none or the row is not whole, if so."""


class Silent:
    """Nobody."""

    def begun(self, task: Task, left: int, episodes: int) -> None: ...

    def played(self, task: Task, record: Record) -> None: ...

    def done(self, task: Task, rows: Sequence[Evaluation], reason: str) -> None: ...


def evaluate_panel(
    spec: Spec,
    folder: Path,
    play_task: PlayTask,
    *,
    viewer: Viewer | None = None,
) -> Results:
    """Play what is missing of a panel in ``folder``, and return all of it.

    Args:
        play_task: a :class:`TaskPlayer`, or whoever has several of them play.

    Raises:
        LangAgentError: a folder with results of another spec, with the first difference; or one
            that another process writes to.
        SpentError: an agent that may spend no more. Whatever was played is in the folder.
    """
    viewer = viewer or Silent()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with FolderLock(folder):
        _go_on(folder, spec)
        _trim(folder / EPISODES_FILE)
        _trim(folder / TRAJECTORIES_FILE)
        known = {record.place: record for record in ordered(spec, read_records(folder))}
        unplayed: dict[str, str] = {}
        try:
            for task in spec.tasks:
                whole = {place for place, record in known.items() if not record.error}
                seeds = [seed for seed in spec.seeds if (task.name, seed) not in whole]
                viewer.begun(task, len(seeds), spec.episodes)
                kept = _Kept(task, folder, known, viewer.played)
                reason = play_task(task, seeds, kept.take) if seeds else ""
                found = [record for (name, _), record in known.items() if name == task.name]
                if reason:
                    unplayed[task.name] = reason
                viewer.done(task, with_parts(task.name, found), reason)
        finally:
            _tidy(folder, spec, unplayed)
    return read_results(folder)


def _go_on(folder: Path, spec: Spec) -> None:
    """Begin a folder, or refuse to mix two evaluations in one."""
    if not (folder / SPEC_FILE).exists():
        if (folder / EPISODES_FILE).exists():
            raise LangAgentError(
                f"'{folder}' holds episodes without their {SPEC_FILE}: choose another --out."
            )
        write_spec(folder, spec)
        return
    now = json.loads(json.dumps(spec.as_data()))  # as JSON has it: tuples are lists there
    difference = first_difference(now, read_spec(folder).as_data())
    if difference:
        raise LangAgentError(
            f"'{folder}' holds another evaluation's results: {difference}. Choose another --out, "
            "or ask for the same as before to go on with it."
        )


def _trim(file: Path) -> None:
    """Take off what was being written when a process was killed: the part after the last line."""
    if not file.is_file():
        return
    with writing(file), file.open("rb+") as handle:
        end = handle.seek(0, 2)
        while end:
            start = max(end - 65536, 0)
            handle.seek(start)
            at = handle.read(end - start).rfind(b"\n")
            if at >= 0:
                handle.truncate(start + at + 1)
                return
            end = start
        handle.truncate(0)


def _tidy(folder: Path, spec: Spec, unplayed: Mapping[str, str]) -> None:
    """Leave the records that count, in their order, and what they come to."""
    records = ordered(spec, read_records(folder))
    write_whole(folder / EPISODES_FILE, "".join(map(as_line, records)))
    if (folder / TRAJECTORIES_FILE).is_file():
        last = {place_of(data): data for _, data in read_lines(folder / TRAJECTORIES_FILE)}
        kept = [last[record.place] for record in records if record.place in last]
        lines = [json_line(data) for data in kept]
        write_whole(folder / TRAJECTORIES_FILE, "".join(lines))
    rows = summarise_all(spec, records)
    data = {
        "schema": SCHEMA,
        "panel": spec.panel,
        "rows": [asdict(row) for row in rows],
        **as_families(spec, records),
        "unplayed": dict(unplayed),
    }
    write_whole(folder / SUMMARY_FILE, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


@dataclass(frozen=True)
class _Kept:
    """Writes each episode of a task as it ends."""

    task: Task
    folder: Path
    known: dict[tuple[str, int], Record]
    """What is in the folder already, and what is taken."""
    played: Callable[[Task, Record], None]

    def take(self, record: Record, trajectory: dict[str, Any] | None) -> None:
        if trajectory is not None:
            self._append(TRAJECTORIES_FILE, json_line(trajectory))
        self._append(EPISODES_FILE, as_line(record))
        self.known[record.place] = record
        self.played(self.task, record)

    def _append(self, name: str, line: str) -> None:
        with writing(self.folder / name), (self.folder / name).open("a", encoding="utf-8") as file:
            file.write(line)


class TaskPlayer:
    """Has an agent play tasks, as many episodes at once as there are slots: a :data:`PlayTask`.

    Args:
        agent: with at least ``slots`` slots.
        make_env: an environment of a task in the agent's words; it is called once a slot.
        keep_trajectories: also give every step (:mod:`lang_agent.evaluation.trajectories`).
    """

    def __init__(
        self, agent: Agent, make_env: MakeEnv, *, slots: int = 16, keep_trajectories: bool = False
    ) -> None:
        self.agent, self.make_env, self.slots = agent, make_env, slots
        self.keep_trajectories = keep_trajectories
        self._expert: gymnasium.Env[str, str] | None = None
        self._notes: _Notes | None = None

    def __call__(self, task: Task, seeds: Sequence[int], take: Take) -> str:
        self.task, self.take = task, take
        envs: list[gymnasium.Env[str, str]] = []
        errors = EnvErrors("skip")
        try:
            for _ in range(min(self.slots, len(seeds))):
                envs.append(self.make_env(self.task))
            self._expert = self._with_expert(seeds[0])
            has_expert = self._expert is not None
            self._notes = _Notes(self.agent, envs, self.keep_trajectories, has_expert)
            for _ in play(self._notes, envs, seeds, on_end=self._ended, errors=errors):
                self._crashed(errors)
        except SpentError:
            raise
        except LangAgentError as error:
            return str(error)
        finally:
            self._crashed(errors)
            for env in (*envs, *filter(None, [self._expert])):
                env.close()
        return ""

    def _with_expert(self, seed: int) -> gymnasium.Env[str, str] | None:
        """An environment of its own for the expert, where the world has one."""
        env = self.make_env(self.task)
        try:
            env.reset(seed=seed)
            language_env(env).expert_action(None)
        except Exception:  # whatever it is, the episodes will tell of it, or have no expert
            env.close()
            return None
        return env

    def _ended(self, episode: Episode, env: gymnasium.Env[str, str]) -> None:
        assert self._notes is not None
        slot = self._notes.slot_of(env)
        seconds = time.perf_counter() - self._notes.began[slot]
        record = record_of(self.task.name, episode, env, seconds)
        if self._expert is not None:
            record = replace(record, expert_steps=expert_steps(self._expert, episode.seed))
        data = None
        if self.keep_trajectories:
            cells = [*self._notes.cells[slot], language_env(env).cells]
            data = trajectories.as_data(self.task.name, episode, cells, self._notes.agent)
        self.take(record, data)

    def _crashed(self, errors: EnvErrors) -> None:
        """Record the episodes that the environment's errors have ended since."""
        while errors.seen:
            error = errors.seen.pop(0)
            assert error.seed is not None
            self.take(Record(self.task.name, error.seed, error=str(error)), None)


class _Notes(Watched):
    """Notes when episodes begin, and what the grid is like before each decision."""

    def __init__(
        self,
        agent: Agent,
        envs: Sequence[gymnasium.Env[str, str]],
        keep_cells: bool,
        has_expert: bool,
    ) -> None:
        super().__init__(agent)
        self.envs, self.keep_cells = envs, keep_cells
        self.asks_expert = agent.asks_expert or (keep_cells and has_expert)
        self.began = [0.0] * len(envs)
        self.cells: list[list[trajectories.Cells]] = [[] for _ in envs]

    def slot_of(self, env: gymnasium.Env[str, str]) -> int:
        return next(slot for slot, one in enumerate(self.envs) if one is env)

    def begin(self, slot: int, seed: int) -> None:
        self.began[slot] = time.perf_counter()
        self.cells[slot] = []
        super().begin(slot, seed)

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        if self.keep_cells:
            for slot in slots:
                self.cells[slot].append(language_env(self.envs[slot]).cells)
        return super().act(slots, observations)


def record_of(
    task: str, episode: Episode, env: gymnasium.Env[str, str] | None = None, seconds: float = 0.0
) -> Record:
    """What an evaluation keeps of an episode, whose environment stands as it ended."""
    info = episode.steps[-1].info
    usage = [step.decision.usage for step in episode.steps]
    parts = {} if env is None else language_env(env).instruction
    progression = as_reward(info.get("progression", float(episode.success)))
    if not 0 <= progression <= 1:
        raise LangAgentError(f"The world says progression={progression}: it must be 0 to 1.")
    return Record(
        task=task,
        seed=episode.seed,
        success=episode.success,
        progression=progression,
        total_reward=episode.total_reward,
        steps=len(episode.steps),
        invalid_actions=episode.invalid_actions,
        terminated=episode.terminated,
        truncated=episode.truncated,
        tokens_read=sum(one.read for one in usage),
        tokens_written=sum(one.written for one in usage),
        seconds=round(seconds, 3),
        mission=str(info.get("mission", "")),
        part=str(info.get("task", "")),
        verb=str(parts.get("verb", "")),
        object=str(parts.get("object", "")),
        colour=str(parts.get("colour", "")),
        parts=int(parts.get("parts", 0)),
    )


def expert_steps(env: gymnasium.Env[str, str], seed: int) -> int | None:
    """How many steps the world's expert takes from this seed; None where it does not succeed."""
    said: str | None = None
    steps = 0
    try:
        env.reset(seed=seed)
        while True:
            said = language_env(env).expert_action(said)
            _, _, terminated, truncated, info = env.step(said)
            steps += 1
            if terminated or truncated:
                return steps if info.get("success") else None
    except LangAgentError:
        return None
