"""What a transformers model is made of, and what makes it ready to be a policy."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.activations import ACT2FN

from lang_agent.errors import LangAgentError
from lang_agent.models import attention
from lang_agent.models.fused_mlp import fuse
from lang_agent.models.last_block import ask_last_block
from lang_agent.models.masks import take_two_masks


def make_ready(model: PreTrainedModel) -> PreTrainedModel:
    """Dropout off, so that the policy acted with is the policy learned; float32; attention in
    blocks, with our masks; and GPT-2's activation computed in one operation instead of eight
    (``gelu_pytorch_tanh`` is the same function), or together with the product before it; and its
    last block for the tokens alone that are asked about."""
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(attention.NAME)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, child in module.named_children():
            if type(child).__name__ == "NewGELUActivation":
                setattr(module, name, ACT2FN["gelu_pytorch_tanh"])
        fuse(module)
        take_two_masks(module)
        ask_last_block(module)
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
    modules = model.base_model.modules()
    embeddings = [module for module in modules if isinstance(module, nn.Embedding)]
    for module in (*embeddings, *layers_of(model)[:count]):
        module.requires_grad_(False)


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """The model's layers, in their order."""
    layers = int(model.config.get_text_config(decoder=True).num_hidden_layers)
    modules = model.base_model.modules()
    return next(m for m in modules if isinstance(m, nn.ModuleList) and len(m) == layers)
