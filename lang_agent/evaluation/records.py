"""Results on disk: a folder of ``spec.json``, ``episodes.jsonl``, perhaps ``trajectories.jsonl``.

``spec.json`` says what was asked for: the agent and a digest of its weights, how it decides, its
words (the prompt template by the digest of its text), the tasks, the seeds, the panel of both, and
the versions of what took part. ``episodes.jsonl`` has one :class:`Record` a line, appended as an
episode ends; of several with one task and seed the last counts. ``trajectories.jsonl`` has one
object a line, ``{"task", "seed", "steps", "end"}``: see :mod:`lang_agent.evaluation.trajectories`.
``pandas.read_json(file, lines=True)`` and ``datasets.load_dataset("json", data_files=...)`` read
both as they are.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, get_type_hints

from lang_agent.errors import LangAgentError, shown
from lang_agent.evaluation.tasks import Family, Task, panel
from lang_agent.files import json_lines, lines_of, read_text, tell, write_whole
from lang_agent.ranges import require

SCHEMA = 1
"""The version of the files; a reader of another one refuses them."""
SPEC_FILE, EPISODES_FILE = "spec.json", "episodes.jsonl"
TRAJECTORIES_FILE, SUMMARY_FILE = "trajectories.jsonl", "summary.json"
LARGEST = 2**31  # bytes of a file of episodes
MOST_EPISODES = 10**9
LIBRARIES = ("lang_agent", "gymnasium", "minigrid", "torch", "transformers", "tokenizers", "numpy")


@dataclass(frozen=True)
class Record:
    """One episode. Texts are empty, and numbers 0 or null, where there is nothing to say."""

    task: str
    seed: int
    success: bool = False
    progression: float = 0.0
    """0 to 1: what the world says, or else whether it was a success."""
    total_reward: float = 0.0
    """The undiscounted return; ``return`` in the file."""
    steps: int = 0
    invalid_actions: int = 0
    terminated: bool = False
    truncated: bool = False
    error: str = ""
    """What the environment raised: the episode counts as a failure until a rerun replaces it."""
    tokens_read: int = 0
    tokens_written: int = 0
    seconds: float = 0.0
    """Since the episode began, beside others."""
    mission: str = ""
    part: str = ""
    """Of a mixture, or a level that draws its kind of task: which it was."""
    verb: str = ""
    object: str = ""
    colour: str = ""
    parts: int = 0
    """What the instruction was made of (:attr:`LanguageEnv.instruction`)."""
    expert_steps: int | None = None
    """How many steps the world's expert takes on this seed; null where it has none or fails."""

    @property
    def place(self) -> tuple[str, int]:
        return self.task, self.seed


def as_line(record: Record) -> str:
    """A record as a line of ``episodes.jsonl``."""
    data = asdict(record)
    named = {("return" if name == "total_reward" else name): value for name, value in data.items()}
    return json_line(named)


def json_line(data: Any) -> str:
    """Plain data as a line of JSON; letters that no file can hold are question marks."""
    text = json.dumps(data, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "replace").decode("utf-8")


_TYPES = get_type_hints(Record)


def as_record(data: Any) -> Record:
    """A record from a line; raises ValueError, KeyError or TypeError."""
    if not isinstance(data, Mapping):
        raise TypeError(f"it is {shown(data)}")
    values = dict(data)
    values["total_reward"] = values.pop("return")
    unknown = values.keys() - _TYPES.keys()
    if unknown:
        raise ValueError(f"there is no field {sorted(unknown)[0]!r}")
    for item in fields(Record):
        value = values[item.name]
        wanted = (int, type(None)) if item.name == "expert_steps" else _TYPES[item.name]
        if isinstance(value, bool) and wanted is not bool:
            raise TypeError(f"{item.name} is {shown(value)}")
        if wanted is float and isinstance(value, int):
            values[item.name] = value = float(value)
        if not isinstance(value, wanted):
            raise TypeError(f"{item.name} is {shown(value)}")
    return Record(**values)


@dataclass(frozen=True)
class Spec:
    """What an evaluation was asked for."""

    agent: Mapping[str, Any]
    """``name``, and of a policy the digest of its weights, how it decides and its words."""
    tasks: tuple[Task, ...]
    first_seed: int
    episodes: int
    """Of each task: it is played on the seeds from ``first_seed`` on."""
    suite: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    families: tuple[Family, ...] = ()
    """Of tasks, where the suite has any."""

    @property
    def seeds(self) -> range:
        return range(self.first_seed, self.first_seed + self.episodes)

    @property
    def panel(self) -> str:
        return panel(self.tasks, self.seeds)

    def as_data(self) -> dict[str, Any]:
        tasks = [
            {"name": task.name, "env": task.env, "arguments": dict(task.arguments)}
            for task in self.tasks
        ]
        families = {family.name: _of_family(family) for family in self.families}
        return {
            "schema": SCHEMA,
            **({"families": families} if families else {}),
            "suite": self.suite,
            "agent": dict(self.agent),
            "first_seed": self.first_seed,
            "episodes": self.episodes,
            "tasks": tasks,
            "panel": self.panel,
            "versions": dict(self.versions),
        }


def _of_family(family: Family) -> dict[str, Any]:
    return {"tasks": list(family.tasks), "only_ended": family.only_ended}


def _family(name: str, data: Mapping[str, Any]) -> Family:
    return Family(name, tuple(map(str, data["tasks"])), bool(data["only_ended"]))


@dataclass(frozen=True)
class Results:
    """What :func:`read_results` finds in a folder."""

    folder: Path
    spec: Spec
    records: tuple[Record, ...]
    """One of each task and seed, in the order of the tasks and of the seeds."""
    unplayed: Mapping[str, str] = field(default_factory=dict)
    """Task -> why the agent could not play it."""

    @property
    def name(self) -> str:
        """What a table calls the agent."""
        return str(self.spec.agent.get("name", self.folder.name))

    def of_task(self, name: str) -> list[Record]:
        return [record for record in self.records if record.task == name]

    @property
    def missing(self) -> list[tuple[str, int]]:
        """The tasks and seeds that are not played yet, or failed by an error of the environment."""
        good = {record.place for record in self.records if not record.error}
        wanted = [(task.name, seed) for task in self.spec.tasks for seed in self.spec.seeds]
        return [place for place in wanted if place not in good]


def versions() -> dict[str, str]:
    """What takes part, and in which version."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_spec(folder: Path, spec: Spec) -> None:
    write_whole(folder / SPEC_FILE, json.dumps(spec.as_data(), indent=1, ensure_ascii=False) + "\n")


def read_spec(folder: Path) -> Spec:
    """A folder's spec; raises :class:`LangAgentError` where there is none of this version."""
    if not (folder / SPEC_FILE).is_file():
        raise LangAgentError(
            f"'{folder}' holds no results: lang-agent evaluate --out writes such a folder."
        )
    text = read_text(folder / SPEC_FILE, "the results' spec")
    try:
        data = json.loads(text)
        if data["schema"] != SCHEMA:
            raise LangAgentError(
                f"'{folder}' holds results of schema {shown(data['schema'])}, and this version "
                f"reads schema {SCHEMA}: evaluate again, or use the version that wrote them."
            )
        tasks = tuple(
            Task(str(task["env"]), str(task["name"]), dict(task["arguments"]))
            for task in data["tasks"]
        )
        spec = Spec(
            dict(data["agent"]),
            tasks,
            int(data["first_seed"]),
            int(data["episodes"]),
            str(data["suite"]),
            dict(data["versions"]),
            tuple(_family(name, told) for name, told in data.get("families", {}).items()),
        )
        said = data["panel"]
        require("episodes", spec.episodes, 0 < spec.episodes <= MOST_EPISODES, "1 to 10^9")
        require("first_seed", spec.first_seed, 0 <= spec.first_seed < 2**63, "0 to 2^63")
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        if isinstance(error, LangAgentError):
            raise
        raise LangAgentError(f"'{folder / SPEC_FILE}' is damaged: {shown(error)}.") from None
    if spec.panel != said:
        raise LangAgentError(
            f"'{folder / SPEC_FILE}' was changed: its tasks and seeds are panel {spec.panel}, not "
            f"{shown(said)} as it says."
        )
    return spec


def read_results(folder: str | Path) -> Results:
    """The results in a folder, of an evaluation that is done or not.

    Damaged lines are left out with a warning. Raises :class:`LangAgentError` for a folder that
    holds no results, or those of another version.
    """
    folder = Path(folder)
    spec = read_spec(folder)
    return Results(folder, spec, tuple(ordered(spec, read_records(folder))), _unplayed(folder))


def read_records(folder: Path) -> list[Record]:
    """The records of a folder as they were appended."""
    found = []
    for number, data in read_lines(folder / EPISODES_FILE):
        try:
            found.append(as_record(data))
        except (ValueError, KeyError, TypeError) as error:
            tell(f"'{folder / EPISODES_FILE}', line {number}, is left out: {error}.")
    return found


def read_lines(file: Path) -> Iterable[tuple[int, Any]]:
    """The objects of a file of JSON lines, with their lines' numbers; none where there is no file.
    Damaged lines are left out with a warning, save for the last where it was not written whole."""
    if not file.is_file():
        return
    text = read_text(file, "the results", LARGEST)
    for number, data, reason in json_lines(lines_of(text)):
        if reason and not (text[-1:] != "\n" and number == text.count("\n") + 1):
            tell(f"'{file}', line {number}, is left out: {reason}.")
        if not reason:
            yield number, data


def ordered(spec: Spec, records: Iterable[Record]) -> list[Record]:
    """Of each task and seed of the spec the last record, in their order; one without an error
    stays, whatever came after it."""
    best: dict[tuple[str, int], Record] = {}
    for record in records:
        known = best.get(record.place)
        if known is None or known.error or not record.error:
            best[record.place] = record
    places = [(task.name, seed) for task in spec.tasks for seed in spec.seeds]
    return [best[place] for place in places if place in best]


def place_of(data: Any) -> tuple[str, int] | None:
    """The task and seed of an object, where it has both."""
    task, seed = (data.get("task"), data.get("seed")) if isinstance(data, Mapping) else (0, 0)
    return (task, seed) if isinstance(task, str) and isinstance(seed, int) else None


def _unplayed(folder: Path) -> dict[str, str]:
    try:
        data = json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8"))
        return {str(task): str(reason) for task, reason in data["unplayed"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def first_difference(now: Any, before: Any, where: str = "") -> str:
    """Where two pieces of plain data first differ, in a few words; empty where they do not."""
    if isinstance(now, list) and isinstance(before, list) and len(now) == len(before):
        now, before = dict(enumerate(now)), dict(enumerate(before))
    if not (isinstance(now, Mapping) and isinstance(before, Mapping)):
        return "" if now == before else f"{where} is {shown(now)} and was {shown(before)}"
    for name in [*now, *(name for name in before if name not in now)]:
        path = f"{where}.{name}" if where else str(name)
        found = first_difference(now.get(name), before.get(name), path)
        if found:
            return found
    return ""
