"""Policies on disk: saved whole, and found by the name of a folder, a run or what ships."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import torch

from lang_agent.errors import LangAgentError
from lang_agent.files import CARRIED, discard, read_text, tell
from lang_agent.models.hub import shipped
from lang_agent.models.policy import LanguagePolicy
from lang_agent.models.sealed import SUMS_FILE, damage, refuse_damaged, write_sealed
from lang_agent.models.sharding import own_part
from lang_agent.yaml_data import read_yaml

STATE_FILE = "trainer.json"
FOLDER = "checkpoints"
CONFIG_FILE = "config.yaml"
_NAME = re.compile(r"step-\d{10,}")  # whatever else lies there is a person's


def save_whole(policy: LanguagePolicy, folder: Path, *, half: bool = False) -> None:
    """Write a policy to ``folder``, which appears whole or not at all."""
    discard(folder)
    write_sealed(folder, lambda beside: policy.save_pretrained(beside, half=half))


def list_checkpoints(run: Path) -> list[Path]:
    """A run's checkpoints, oldest first."""
    folder = run / FOLDER
    found = folder.iterdir() if folder.is_dir() else ()
    ours = [path for path in found if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(ours, key=lambda path: int(path.name.removeprefix("step-")))


def read_record(checkpoint: Path) -> dict[str, Any]:
    """What :func:`save_checkpoint` was given as its record."""
    return json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))


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


def digest(policy: LanguagePolicy) -> str:
    """Sixteen hexadecimal digits that name the weights, the value head's left out; of weights that
    are shared out among processes, this one's part."""
    whole = hashlib.sha256()
    for name, tensor in sorted(policy.model.state_dict().items()):
        whole.update(name.encode())
        whole.update(
            own_part(tensor.detach()).cpu().contiguous().view(torch.uint8).numpy().tobytes()
        )
    return whole.hexdigest()[:16]


def config_beside(path: str | Path) -> Path | None:
    """The configuration that lies with a policy, which says how it was trained: in its folder, in
    the run that the checkpoint is of, or in what ships; None where there is none."""
    folder = Path(shipped(path))
    above = folder.absolute().parents
    run = [above[1]] if _NAME.fullmatch(folder.name) and len(above) > 1 else []
    found = [place / CONFIG_FILE for place in (folder, *run)]
    return next((file for file in found if os.path.isfile(file)), None)


def load_policy(
    path: str | Path, device: str | None = None, *, chat: bool | None = None, trust: bool = False
) -> LanguagePolicy:
    """A policy from a run folder (its newest checkpoint), a model directory or the hub, with the
    words that it was trained in; see :meth:`LanguagePolicy.from_pretrained`.

    Args:
        device: cpu or cuda; by default the processor.
        chat: whether prompts are chat messages; by default as the policy was trained.
        trust: run Python code that comes with the model.

    Raises:
        LangAgentError: there is no such policy, or its files are not what was written.
    """
    folder = model_folder(path)
    if folder == shipped(path) and os.path.isfile(os.path.join(folder, SUMS_FILE)):
        refuse_damaged(Path(folder))
    policy = LanguagePolicy.from_pretrained(folder, device=device, chat=chat, trust=trust)
    policy.config_file = config_beside(path)
    policy.words = None if policy.config_file is None else _read_words(policy.config_file)
    if policy.config_file is None and os.path.isfile(os.path.join(folder, STATE_FILE)):
        tell(
            f"'{folder}' is a checkpoint outside of its run, so that the prompt, renderer and "
            f"actions it was trained with are not known: copy the run's {CONFIG_FILE} into it, "
            "or give them."
        )
    return policy


def _read_words(file: Path) -> Mapping[str, Any] | None:
    """The text options in a configuration; None, with a warning, where it cannot be read."""
    try:
        data = read_yaml(read_text(file, "the configuration"), f"The configuration '{file}'")
        words = data["text"]
        if not isinstance(words, Mapping):
            return None
        folder = file.parent / CARRIED
        if not folder.is_dir():
            return words
        return {**words, "prompt": PurePath(words["prompt"]).stem, "prompt_folder": str(folder)}
    except (LangAgentError, KeyError, TypeError) as error:
        tell(f"In which words the policy was trained cannot be read: {error}")
        return None
