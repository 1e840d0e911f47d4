"""Checkpoints: directories of safetensors and JSON, written whole or not at all.

A run's checkpoints are ``<run>/checkpoints/step-<n>``. Each is written beside its place and then
renamed into it, and ``SHA256SUMS`` in it (``sha256sum --check`` reads it too) tells whether its
files are still what was written. It loads with plain ``transformers`` as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lang_agent.errors import LangAgentError
from lang_agent.files import discard, set_aside, tell
from lang_agent.learn.optimizer import Optimizer
from lang_agent.models.policy import LanguagePolicy
from lang_agent.models.sealed import damage, write_sealed
from lang_agent.models.sharding import whole
from lang_agent.models.store import FOLDER, STATE_FILE, list_checkpoints, read_record

FORMAT = 3
TENSOR_FILE = "trainer{}.safetensors"  # the first without a number
PART = 2**28  # bytes in one of them, about


def save_checkpoint(
    run: Path,
    policy: LanguagePolicy,
    optimizer: Optimizer,
    record: dict[str, Any],
    keep: int = 2,
) -> Path:
    """Write everything a run needs to go on; all but the ``keep`` newest checkpoints are removed.

    ``record`` (JSON) must have ``progress`` with ``steps``, the environment steps taken so far.
    Raises :class:`LangAgentError`, and leaves what was there, where it cannot be written.
    """
    place = place_of(run, record["progress"]["steps"])
    if place.exists():
        return place
    tensors = optimizer.state_tensors()

    def write(beside: Path) -> None:
        policy.save_pretrained(beside)
        for number, part in enumerate(_in_parts(tensors)):
            save_file(part, beside / TENSOR_FILE.format(f"-{number:04}" if number else ""))
        (beside / STATE_FILE).write_text(
            json.dumps({"format": FORMAT, **record}, indent=1) + "\n", encoding="utf-8"
        )

    write_sealed(place, write)
    for old in list_checkpoints(run)[:-keep]:
        discard(old)
    return place


def place_of(run: Path, steps: int) -> Path:
    """Where the checkpoint after so many environment steps lies, or is to."""
    return run / FOLDER / f"step-{steps:010d}"


def give_parts(policy: LanguagePolicy, optimizer: Optimizer) -> None:
    """Give this process's parts of what another one saves, where weights are shared out."""
    policy.whole_weights()
    for _ in _in_parts(optimizer.state_tensors()):
        pass


def _in_parts(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The tensors, whole and on the processor, about so many bytes at a time: nobody needs room
    for all of those that are shared out among processes."""
    part: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        part[name] = whole(tensor).cpu()
        if sum(one.nbytes for one in part.values()) >= PART:
            yield part
            part = {}
    yield part


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
    version's, are set aside with a warning. None where there is no checkpoint at all.

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


def restore(checkpoint: Path, optimizer: Optimizer) -> None:
    """Put the optimizer back as it was.

    Raises :class:`LangAgentError` where the checkpoint does not fit it.
    """
    try:
        tensors: dict[str, Tensor] = {}
        for file in sorted(checkpoint.glob(TENSOR_FILE.format("*"))):
            tensors |= load_file(file)
        optimizer.load_state_tensors(tensors)
    except (OSError, KeyError, ValueError, SafetensorError, RuntimeError) as error:
        raise LangAgentError(
            f"The checkpoint '{checkpoint}' does not fit this run's model and optimizer: {error}"
        ) from None
