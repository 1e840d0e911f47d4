"""LoRA (Hu et al. 2021, arXiv 2106.09685) by peft, as an adapter inside a transformers model.

Only the adapter is trained and saved. With the adapter switched off the model is the one that
training started from: the reference policy costs no second copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import PreTrainedModel

from lang_agent.errors import LangAgentError
from lang_agent.models.gpt2 import SIZES


def add_lora(model: PreTrainedModel, rank: int, base: str) -> None:
    """Freeze ``model`` and put a LoRA adapter of ``rank`` on every linear layer of its blocks.

    ``base`` is where the model was loaded from: an adapter is saved with that name and nothing
    more. Raises :class:`LangAgentError` without the package peft.
    """
    try:
        from peft import LoraConfig
    except ImportError:
        raise LangAgentError("LoRA needs peft: pip install 'lang_agent[lora]'.") from None
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", bias="none")
    config.fan_in_fan_out = model.config.model_type == "gpt2"  # its Conv1D holds (in, out)
    model.name_or_path = base  # what transformers records as the adapter's base
    model.add_adapter(config)


def base_of(name: str) -> str:
    """How an adapter on the model ``name`` names it. Raises for a model that is kept nowhere."""
    if name in SIZES:
        raise LangAgentError(
            f"lora_rank adapts a trained model, and '{name}' has random weights: train all of it."
        )
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def has_lora(model: PreTrainedModel) -> bool:
    """Whether the model carries an adapter."""
    return bool(getattr(model, "_hf_peft_config_loaded", False))


@contextmanager
def without_lora(model: PreTrainedModel) -> Iterator[None]:
    """The model as it was before the adapter, which comes back at the end."""
    model.disable_adapters()
    try:
        yield
    finally:
        model.enable_adapters()
