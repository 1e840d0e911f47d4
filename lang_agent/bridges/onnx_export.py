"""A model as an ONNX graph; extra ``onnx``."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from lang_agent.errors import LangAgentError
from lang_agent.models.load import no_progress_bars

ONNX_FILE = "model.onnx"


class _Logits(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        return output.logits


def write_onnx(folder: Path, *, trust: bool = False) -> Path:
    """Write ``model.onnx`` beside the model of transformers in ``folder``, and return its place.

    Its inputs are ``input_ids`` and ``attention_mask``, (B, L) of int64 each, its output is
    ``logits``, (B, L, V) of float32. There is no cache of keys and values. Raises
    :class:`LangAgentError` without the extra, and for a model that torch's exporter does not take.
    """
    require_onnx()
    with no_progress_bars():
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", trust_remote_code=trust
        )
    ids = torch.tensor([[0, 1, 2], [2, 1, 0]])
    most = getattr(model.config, "max_position_embeddings", None)
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=most)
    said = logging.getLogger("torch.onnx")
    level = said.level
    said.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Logits(model).eval(),
                (ids, torch.ones_like(ids)),
                folder / ONNX_FILE,
                input_names=["input_ids", "attention_mask"],
                output_names=["logits"],
                dynamic_shapes=[{0: batch, 1: length}] * 2,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise LangAgentError(
            f"torch's exporter does not take {type(model).__name__} ({reason}): export without "
            "--format onnx."
        ) from None
    finally:
        said.setLevel(level)
    return folder / ONNX_FILE


def require_onnx() -> None:
    """Raise :class:`LangAgentError` without the extra."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise LangAgentError("ONNX needs an extra: pip install 'lang_agent[onnx]'.") from None
