"""Checkpoints: directories of safetensors and JSON, written whole or not at all.

A run's checkpoints are ``<run>/checkpoints/step-<n>``. Each is written beside its place and then
renamed into it, and ``SHA256SUMS`` in it (``sha256sum --check`` reads it too) tells whether its
files are still what was written. It loads with plain ``transformers`` as well.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lang_agent.errors import LangAgentError
from lang_agent.files import cannot_write, discard, set_aside, tell, whole, writing
from lang_agent.hub import shipped
from lang_agent.optimizer import Optimizer
from lang_agent.policy import LanguagePolicy

FORMAT = 2
STATE_FILE = "trainer.json"
TENSOR_FILE = "trainer.safetensors"
SUMS_FILE = "SHA256SUMS"
FOLDER = "checkpoints"
_NAME = re.compile(r"step-\d{10,}")  # whatever else lies there is a person's


def save_checkpoint(
    run: Path,
    policy: LanguagePolicy,
    optimizer: Optimizer,
    generator: torch.Generator,
    record: dict[str, Any],
    keep: int = 2,
) -> Path:
    """Write everything a run needs to go on; all but the ``keep`` newest checkpoints are removed.

    ``record`` (JSON) must have ``progress`` with ``steps``, the environment steps taken so far.
    Raises :class:`LangAgentError`, and leaves what was there, where it cannot be written.
    """
    place = run / FOLDER / f"step-{record['progress']['steps']:010d}"
    if place.exists():
        return place
    tensors = {**optimizer.state_tensors(), "generator": generator.get_state()}

    def write(beside: Path) -> None:
        policy.save_pretrained(beside)
        save_file(tensors, beside / TENSOR_FILE)
        (beside / STATE_FILE).write_text(
            json.dumps({"format": FORMAT, **record}, indent=1) + "\n", encoding="utf-8"
        )

    write_sealed(place, write)
    for old in list_checkpoints(run)[:-keep]:
        discard(old)
    return place


def save_whole(policy: LanguagePolicy, folder: Path, *, half: bool = False) -> None:
    """Write a policy to ``folder``, which appears whole or not at all."""
    discard(folder)
    write_sealed(folder, lambda beside: policy.save_pretrained(beside, half=half))


def write_sealed(place: Path, write: Callable[[Path], object]) -> None:
    """Have ``write`` fill a new folder, which appears whole and with the checksums of its files.

    Raises :class:`LangAgentError` where the disk or the place stands in the way.
    """
    try:
        with writing(place), whole(place) as beside:
            beside.mkdir()
            write(beside)
            seal(beside)
    except SafetensorError as error:  # how its writer tells of a full disk
        number = re.search(r"os error (\d+)", str(error))
        known = OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(error)
        raise cannot_write(place, known) from None


def seal(folder: Path) -> None:
    """Write the checksums of a folder's files, save of the configuration: a person may edit it."""
    left_out = (SUMS_FILE, "config.yaml")
    files = sorted(f for f in folder.rglob("*") if f.is_file() and f.name not in left_out)
    lines = [f"{_digest(file)}  {file.relative_to(folder).as_posix()}\n" for file in files]
    (folder / SUMS_FILE).write_text("".join(lines), encoding="utf-8")


def damage(folder: Path) -> str:
    """What is wrong with a sealed folder, in a few words; nothing where all is as it was written.

    All of its files are read: 2 seconds a gigabyte on a slow core.
    """
    try:
        lines = (folder / SUMS_FILE).read_text(encoding="utf-8").splitlines()
        sums = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except FileNotFoundError:
        return f"it has no {SUMS_FILE}"
    except (OSError, ValueError):
        return f"its {SUMS_FILE} cannot be read"
    if not sums:
        return f"its {SUMS_FILE} is empty"
    for name, digest in sums.items():
        try:
            if _digest(folder / name) != digest:
                return f"its {name} has changed since it was written"
        except OSError as error:
            return f"its {name} cannot be read ({error.strerror})"
        except ValueError:  # a name that is none, with a null byte in it
            return f"its {SUMS_FILE} cannot be read"
    return ""


def _digest(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def list_checkpoints(run: Path) -> list[Path]:
    """A run's checkpoints, oldest first."""
    folder = run / FOLDER
    found = folder.iterdir() if folder.is_dir() else ()
    ours = [path for path in found if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(ours, key=lambda path: int(path.name.removeprefix("step-")))


def unusable(checkpoint: Path) -> str:
    """Why a run cannot go on from a checkpoint, in a few words; nothing where it can."""
    try:
        found = read_record(checkpoint)["format"]
    except FileNotFoundError:
        return f"it is no training checkpoint: it has no {STATE_FILE}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return f"it is damaged: its {STATE_FILE} cannot be read"
    if found != FORMAT:
        return (
            f"it has format {found}, this version reads {FORMAT} (its model can be the --model "
            "of a new run)"
        )
    reason = damage(checkpoint)
    return reason and f"it is damaged: {reason}"


def usable_checkpoint(run: Path) -> Path | None:
    """The newest checkpoint that a run can go on from; newer ones, which are damaged or another
    version's, are set aside and told of. None where there is no checkpoint at all.

    Raises :class:`LangAgentError`, and changes nothing, where there are some and none can be used.
    """
    reasons: dict[Path, str] = {}
    for checkpoint in reversed(list_checkpoints(run)):
        reason = unusable(checkpoint)
        if not reason:
            for newer, why in reasons.items():
                aside = set_aside(newer, "aside")
                tell(
                    f"The checkpoint '{newer}' cannot be used: {why}; going on from "
                    f"'{checkpoint.name}' ('{aside.name}' keeps the other)."
                )
            return checkpoint
        reasons[checkpoint] = reason
    for checkpoint, reason in reasons.items():
        more = f", nor can the {len(reasons) - 1} before it" if len(reasons) > 1 else ""
        raise LangAgentError(f"The checkpoint '{checkpoint}' cannot be used: {reason}{more}.")
    return None


def latest_checkpoint(run: Path) -> Path:
    """The newest checkpoint of a run whose files are what was written; raises
    :class:`LangAgentError` when there is none."""
    reason, found = "", list_checkpoints(run)
    for checkpoint in reversed(found):
        why = "" if _unsealed(checkpoint) else damage(checkpoint)
        if not why:
            if reason:
                tell(f"{reason}; '{checkpoint.name}' is taken.")
            return checkpoint
        reason = reason or f"The checkpoint '{checkpoint}' is damaged: {why}"
    if not found:
        raise LangAgentError(f"'{run}' has no checkpoint: is it a run folder of lang-agent train?")
    raise LangAgentError(f"{reason}.")


def _unsealed(checkpoint: Path) -> bool:
    """Whether a checkpoint is of format 1, which had no checksums."""
    try:
        return read_record(checkpoint)["format"] == 1
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def model_folder(path: str | Path) -> str | Path:
    """Where a policy lies: the newest checkpoint of a run folder, the one that ships under this
    name, else ``path`` itself."""
    path = shipped(path)
    return latest_checkpoint(Path(path)) if os.path.isdir(os.path.join(path, FOLDER)) else path


def load_policy(
    path: str | Path, device: str | None = None, *, chat: bool | None = None, trust: bool = False
) -> LanguagePolicy:
    """A policy from a run folder (its newest checkpoint), a model directory or the hub; see
    :meth:`LanguagePolicy.from_pretrained`.

    Raises :class:`LangAgentError` for one whose files are not what was written.
    """
    folder = model_folder(path)
    if folder == shipped(path) and os.path.isfile(os.path.join(folder, SUMS_FILE)):
        refuse_damaged(Path(folder))
    return LanguagePolicy.from_pretrained(folder, device=device, chat=chat, trust=trust)


def refuse_damaged(folder: Path) -> None:
    """Raise :class:`LangAgentError` unless a sealed folder's files are what was written."""
    reason = damage(folder)
    if reason:
        raise LangAgentError(
            f"The model in '{folder}' is damaged: {reason}. Put back what it was, or (if you "
            f"changed it) remove its {SUMS_FILE}, where no run goes on from it."
        )


def read_record(checkpoint: Path) -> dict[str, Any]:
    """What :func:`save_checkpoint` was given as its record."""
    return json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))


def restore(checkpoint: Path, optimizer: Optimizer, generator: torch.Generator) -> None:
    """Put optimizer and generator back as they were.

    Raises :class:`LangAgentError` where the checkpoint does not fit them.
    """
    try:
        tensors = load_file(checkpoint / TENSOR_FILE)
        generator.set_state(tensors.pop("generator"))
        optimizer.load_state_tensors(tensors)
    except (OSError, KeyError, ValueError, SafetensorError, RuntimeError) as error:
        raise LangAgentError(
            f"The checkpoint '{checkpoint}' does not fit this run's model and optimizer: {error}"
        ) from None
