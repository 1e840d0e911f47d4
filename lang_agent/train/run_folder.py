"""The folder of a training run: who may write to it, how it begins, what is read back from it.

``config.yaml`` is what makes a folder a run. It is the last thing that a start puts in its place,
after the first checkpoint: a start that was killed can be made again, and from then on the run can
be resumed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lang_agent.config import as_data, from_dict, load_config, save_config
from lang_agent.errors import LangAgentError
from lang_agent.evaluation.run_records import EVALUATION_FILE, METRICS_FILE, read_evaluations
from lang_agent.files import (
    CARRIED,
    aside_name,
    discard,
    json_lines,
    partials,
    remove,
    tell,
    whole,
    write_whole,
    writing,
)
from lang_agent.learn.algorithm import LearnState
from lang_agent.lock import LOCK_FILE, FolderLock
from lang_agent.models.store import CONFIG_FILE, FOLDER, list_checkpoints, read_record
from lang_agent.train.alarms import Watch
from lang_agent.train.config import TrainConfig

REFERENCE_FOLDER = "reference"
BASE_FOLDER = "base"


@dataclass
class Progress:
    """How far a run is: all that a resumed run needs beside its tensors."""

    steps: int = 0
    episodes: int = 0
    updates: int = 0
    seconds: float = 0.0
    recent: list[list[float]] = field(default_factory=list)
    """[success, return, part of the mixture, steps] of late episodes."""
    learning: LearnState = field(default_factory=LearnState)
    watch: Watch = field(default_factory=Watch)
    precision: str = ""
    """What the run computes in."""


@contextmanager
def beginning(folder: Path, config: TrainConfig) -> Iterator[FolderLock]:
    """A new run's folder, locked; at the end of the block, which saves the start, it is a run.

    Where the block raises, what it made is removed again. Raises :class:`LangAgentError` for a
    folder that holds a run or the remains of one, and for a place that cannot be written to.
    """
    with writing(folder):
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(folder)
    try:
        with lock:
            _refuse_remains(folder)
            try:
                with whole(folder / CONFIG_FILE) as beside:
                    with writing(folder):
                        save_config(config, beside)
                    yield lock
            except BaseException:
                _remove_start(folder)
                raise
    except BaseException:
        if made:  # nobody else's: it was made here
            remove(folder / LOCK_FILE)
        with suppress(OSError):  # where another run has begun in it since
            for path in made:
                path.rmdir()
        raise


def _refuse_remains(folder: Path) -> None:
    """Clear away a start that was killed; raise for anything that a run has learned."""
    if (folder / CONFIG_FILE).exists():
        raise LangAgentError(
            f"'{folder}' holds a run already: --resume it or choose another --out."
        )
    unfinished = partials(folder, CONFIG_FILE)  # nobody is at it: the folder is locked
    if unfinished:
        _remove_start(folder)
        for path in unfinished:
            remove(path)
    names = (FOLDER, METRICS_FILE, EVALUATION_FILE, REFERENCE_FOLDER)
    remains = [name for name in names if (folder / name).exists()]
    if remains:
        raise LangAgentError(
            f"'{folder}' holds {' and '.join(remains)} of a run whose {CONFIG_FILE} is gone: put "
            "it back, move them away, or choose another --out."
        )
    _sweep(folder)


def _remove_start(folder: Path) -> None:
    for name in (FOLDER, REFERENCE_FOLDER, BASE_FOLDER, CARRIED):
        with suppress(LangAgentError):
            discard(folder / name)


def _sweep(folder: Path) -> None:
    """Remove what dead processes left half-written; the folder is locked."""
    for where in (folder, folder / FOLDER):
        for path in partials(where):
            remove(path)
    for path in (folder / FOLDER).glob(".step-*.*"):  # as version 0.1.0 named them
        remove(path)


def reopen(folder: Path, *, trust: bool = False) -> TrainConfig:
    """The configuration of a run that is to go on, whose folder is locked and cleared of what the
    dead left; raises :class:`LangAgentError` where there is none."""
    file = folder / CONFIG_FILE
    if not file.is_file():
        killed = bool(partials(folder, CONFIG_FILE))
        hint = ": it was stopped while it was made, so begin it again" if killed else ""
        raise LangAgentError(f"'{folder}' is no run folder: it has no {CONFIG_FILE}{hint}.")
    with suppress(OSError, UnicodeDecodeError):
        if not file.read_text(encoding="utf-8").strip():
            raise LangAgentError(
                f"'{file}' is empty: put back what was in it (the newest checkpoint's trainer.json "
                "has its values under 'config')."
            )
    config = load_config(file, TrainConfig, trust=trust)
    _sweep(folder)
    return config


def refuse_edits(folder: Path, config: TrainConfig, checkpoint: Path) -> None:
    """Raise :class:`LangAgentError` where ``config.yaml`` is not what the checkpoint was made
    with: the run would go on as another one. ``steps``, which :func:`extend` sets, and ``workers``,
    by whom it is the same run, may differ."""
    saved = from_dict(TrainConfig, read_record(checkpoint)["config"], str(checkpoint))
    ours, theirs = _leaves(as_data(config)), _leaves(as_data(saved))
    changed = [f"{name} from {theirs[name]} to {ours[name]}" for name in ours
               if ours[name] != theirs[name] and name not in ("steps", "workers")]  # fmt: skip
    if changed:
        raise LangAgentError(
            f"'{folder / CONFIG_FILE}' has changed since the run was saved ({'; '.join(changed)}): "
            "change it back, or give --as-edited to go on so."
        )


def extend(folder: Path, steps: int, done: int) -> None:
    """Write the new number of steps into a run's ``config.yaml``, and keep the evaluation that the
    run ended with, after ``done`` steps, under another name than the new end's."""
    config = load_config(folder / CONFIG_FILE, TrainConfig, trust=True)
    known = read_evaluations(folder)
    if config.steps != steps and "after" in known:
        known[f"after {done} steps"] = known.pop("after")
        write_whole(folder / EVALUATION_FILE, json.dumps(known, indent=1) + "\n")
    save_config(replace(config, steps=steps), folder / CONFIG_FILE)


def _leaves(data: dict[str, Any], where: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, dict):
            found |= _leaves(value, f"{where}{name}.")
        else:
            found[f"{where}{name}"] = value
    return found


def refuse_overtaken(folder: Path, saved: Path) -> None:
    """Raise :class:`LangAgentError` where the run has gone on since ``saved``, elsewhere."""
    newest = list_checkpoints(folder)[-1:]
    if newest and newest[0].name > saved.name:
        raise LangAgentError(
            f"The run in '{folder}' has gone on to {newest[0].name} elsewhere, this one stands at "
            f"{saved.name}: --resume it."
        )


def forget_after(log: Path, updates: int) -> None:
    """Keep the metrics of the first ``updates`` updates alone: a resumed run makes the others
    again. Lines that are damaged are warned of, and kept in a copy."""
    if not log.is_file():
        if updates:
            tell(f"'{log}' is gone, and with it the metrics of {updates} updates.")
        return
    text = log.read_bytes().decode("utf-8", errors="replace")
    lines = text.split("\n")
    kept, damaged = {}, []
    for number, record, reason in json_lines(lines):
        update = record.get("updates") if isinstance(record, dict) else None
        if isinstance(update, int):
            if update <= updates:
                kept[update] = lines[number - 1]
        elif number < len(lines):  # the last line has no end: a kill cut it
            damaged.append(f"line {number} ({reason or 'no record of an update'})")
    if damaged:
        aside = aside_name(log)
        write_whole(aside, log.read_bytes())
        tell(f"'{log}' is damaged in {', '.join(damaged)}: '{aside.name}' keeps it as it was.")
    if len(kept) < updates:
        tell(f"'{log}' lacks the metrics of {updates - len(kept)} of {updates} updates.")
    new = "".join(f"{line}\n" for _, line in sorted(kept.items()))
    if damaged or new != text:
        write_whole(log, new)


def read_progress(checkpoint: Path) -> Progress:
    """A checkpoint's progress; raises :class:`LangAgentError` for another version's."""
    record = dict(read_record(checkpoint)["progress"])
    try:
        learning, watch = LearnState(**record.pop("learning")), Watch(**record.pop("watch"))
        return Progress(**record, learning=learning, watch=watch)
    except (TypeError, KeyError) as error:
        raise LangAgentError(
            f"The checkpoint '{checkpoint}' is of another version of lang_agent ({error}): go on "
            "with that one, or begin a new run with its model."
        ) from None
