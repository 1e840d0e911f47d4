"""Checkpoints: directories of safetensors and JSON, written whole or not at all.

A run's checkpoints are ``<run>/checkpoints/step-<n>``. Each is first written beside its place and
then renamed into it, so that a directory of that name is always complete. It loads with plain
``transformers`` as well.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lang_agent.errors import LangAgentError
from lang_agent.models import shipped
from lang_agent.optimizer import Optimizer
from lang_agent.policy import LanguagePolicy

FORMAT = 1
STATE_FILE = "trainer.json"
TENSOR_FILE = "trainer.safetensors"
FOLDER = "checkpoints"


def save_checkpoint(
    run: Path,
    policy: LanguagePolicy,
    optimizer: Optimizer,
    generator: torch.Generator,
    progress: dict[str, Any],
    keep: int = 2,
) -> Path:
    """Write everything a run needs to go on; all but the ``keep`` newest checkpoints are removed.

    ``progress`` (JSON) must have ``steps``, the environment steps taken so far.
    """
    folder = run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"step-{progress['steps']:010d}"
    if place.exists():
        return place
    beside = folder / f".{place.name}.{os.getpid()}"
    shutil.rmtree(beside, ignore_errors=True)
    policy.save_pretrained(beside)
    tensors = {**optimizer.state_tensors(), "generator": generator.get_state()}
    save_file(tensors, beside / TENSOR_FILE)
    record = {"format": FORMAT, "progress": progress}
    (beside / STATE_FILE).write_text(json.dumps(record, indent=1) + "\n")
    for file in beside.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    beside.rename(place)
    for old in list_checkpoints(run)[:-keep]:
        shutil.rmtree(old)
    return place


def save_whole(policy: LanguagePolicy, folder: Path) -> None:
    """Write a policy to ``folder``, which appears whole or not at all."""
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    policy.save_pretrained(beside)
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)


def list_checkpoints(run: Path) -> list[Path]:
    """A run's whole checkpoints, oldest first."""
    return sorted((run / FOLDER).glob("step-*"))


def latest_checkpoint(run: Path) -> Path:
    """The newest whole checkpoint of a run; raises :class:`LangAgentError` when there is none."""
    found = list_checkpoints(run)
    if not found:
        raise LangAgentError(f"'{run}' has no checkpoint: is it a run folder of lang-agent train?")
    return found[-1]


def model_folder(path: str | Path) -> str | Path:
    """Where a policy lies: the newest checkpoint of a run folder, the one that ships under this
    name, else ``path`` itself."""
    path = shipped(path)
    return latest_checkpoint(Path(path)) if (Path(path) / FOLDER).is_dir() else path


def load_policy(path: str | Path, device: str | None = None) -> LanguagePolicy:
    """A policy from a run folder (its newest checkpoint), a model directory or the hub."""
    return LanguagePolicy.from_pretrained(model_folder(path), device=device)


def restore(checkpoint: Path, optimizer: Optimizer, generator: torch.Generator) -> dict[str, Any]:
    """Put optimizer and generator back as they were; returns the progress.

    Raises :class:`LangAgentError` for a checkpoint that is damaged or is not a training run's.
    """
    try:
        record = json.loads((checkpoint / STATE_FILE).read_text())
        tensors = load_file(checkpoint / TENSOR_FILE)
        if record["format"] != FORMAT:
            raise LangAgentError(
                f"'{checkpoint}' has format {record['format']}, this version reads {FORMAT}."
            )
        generator.set_state(tensors.pop("generator"))
        optimizer.load_state_tensors(tensors)
        return record["progress"]
    except FileNotFoundError as error:
        raise LangAgentError(
            f"'{checkpoint}' is not a training checkpoint: it has no {Path(error.filename).name}."
        ) from None
    except (
        OSError,
        KeyError,
        ValueError,
        json.JSONDecodeError,
        SafetensorError,
        RuntimeError,
    ) as error:
        raise LangAgentError(f"The checkpoint '{checkpoint}' is damaged: {error}") from None
