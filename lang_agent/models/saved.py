"""What a policy's folder holds beside the model and its tokenizer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lang_agent.errors import LangAgentError

VALUE_FILE = "value_head.safetensors"
POLICY_FILE = "policy.json"
_TRAINING = "trainer.json"  # in every checkpoint of a run


@dataclass(frozen=True, eq=False)
class Saved:
    """A value head's tensors (None: the folder is a plain model's), the layer that it reads, and
    whether prompts are chat messages (None: nobody said)."""

    head: dict[str, Tensor] | None = None
    layer: int = -1
    chat: bool | None = None


def write(folder: Path, record: Saved) -> None:
    """Put a record into the folder."""
    save_file(record.head or {}, folder / VALUE_FILE, {"layer": str(record.layer)})
    data = {"value_head": VALUE_FILE, "chat": record.chat}
    (folder / POLICY_FILE).write_text(json.dumps(data) + "\n", encoding="utf-8")


def read(folder: Path) -> Saved:
    """The record in a folder. Raises :class:`LangAgentError` where a value head should be and is
    none, or is damaged."""
    about, file = folder / POLICY_FILE, folder / VALUE_FILE
    chat = False  # folders from before this was recorded are of policies that read plain text
    try:
        if about.is_file():
            chat = bool(json.loads(about.read_text(encoding="utf-8"))["chat"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LangAgentError(
            f"'{about}' is damaged ({error!r}): take an older checkpoint."
        ) from None
    if not file.is_file():
        if about.is_file() or (folder / _TRAINING).is_file():
            raise LangAgentError(
                f"'{folder}' is a policy's folder without its {VALUE_FILE}: copy all of its files, "
                "or take an older checkpoint."
            )
        return Saved()
    try:
        with safe_open(file, "pt") as opened:
            layer = int((opened.metadata() or {}).get("layer", -1))
            head = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as error:
        raise LangAgentError(
            f"The value head '{file}' is damaged ({error}): take an older checkpoint."
        ) from None
    return Saved(head, layer, chat)


def put_back(head: dict[str, Tensor], layer: nn.Linear, folder: str | Path) -> None:
    """Load a value head; raises :class:`LangAgentError` where it is none for this model."""
    wanted = {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in head.items()}
    if wanted != found:
        raise LangAgentError(
            f"The value head in '{folder}' is not this model's: it holds {found} where {wanted} is "
            "needed. Take an older checkpoint."
        )
    layer.load_state_dict(head)
