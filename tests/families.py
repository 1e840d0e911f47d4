"""Tiny models of many families, with random weights and one tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

WINDOW = 6
_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
LLAMA = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, **_HEADS}
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4}
_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW}

SERVED: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT-2": ("gpt2", {**_GPT2}),
    "GPT-2, scaled by layer": ("gpt2", {**_GPT2, "scale_attn_by_inverse_layer_idx": True}),
    "GPT-Neo, local layers": ("gpt_neo", {
        "hidden_size": 32, "num_layers": 2, "num_heads": 4, "window_size": WINDOW,
        "attention_types": [[["global", "local"], 1]],
    }),
    "GPT-J": ("gptj", {**_GPT2, "rotary_dim": 4}),
    "GPT-NeoX (Pythia)": ("gpt_neox", {**LLAMA}),
    "GPT-BigCode (one key head)": ("gpt_bigcode", {**_GPT2}),
    "OPT": ("opt", {**LLAMA, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "OPT, narrow embeddings": ("opt", {**LLAMA, "ffn_dim": 48, "word_embed_proj_dim": 16}),
    "Llama": ("llama", {**LLAMA}),
    "Llama, one key head": ("llama", {**LLAMA, "num_key_value_heads": 1}),
    "Llama 4, chunked": ("llama4_text", {
        **LLAMA, "intermediate_size_mlp": 48, "num_local_experts": 2, "head_dim": 8,
        "attention_chunk_size": WINDOW, "no_rope_layers": [1, 0],
    }),
    "Mistral": ("mistral", {**LLAMA, "sliding_window": None}),
    "Mistral, window": ("mistral", {**LLAMA, "sliding_window": WINDOW}),
    "Mixtral (experts)": ("mixtral", {**LLAMA, "num_local_experts": 4}),
    "Qwen2": ("qwen2", {**LLAMA}),
    "Qwen2, window in some layers": ("qwen2", {
        **LLAMA, "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1,
    }),
    "Qwen2-MoE": ("qwen2_moe", {**LLAMA, **_MOE, "shared_expert_intermediate_size": 24}),
    "Qwen3": ("qwen3", {**LLAMA, "head_dim": 8}),
    "Qwen3-MoE": ("qwen3_moe", {**LLAMA, **_MOE, "head_dim": 8}),
    "Phi": ("phi", {**LLAMA}),
    "Phi-3": ("phi3", {**LLAMA, "pad_token_id": 0}),
    "Phi-3, window": ("phi3", {**LLAMA, "pad_token_id": 0, "sliding_window": WINDOW}),
    "Gemma": ("gemma", {**LLAMA, "head_dim": 8}),
    "Gemma 2 (window, caps)": ("gemma2", {
        **LLAMA, **_MIXED, "head_dim": 8, "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
    }),
    "Gemma 3 (window)": ("gemma3_text", {**LLAMA, **_MIXED, "head_dim": 8}),
    "Falcon (rotary)": ("falcon", {**LLAMA, "alibi": False}),
    "StableLM": ("stablelm", {**LLAMA}),
    "OLMo": ("olmo", {**LLAMA}),
    "OLMo 2": ("olmo2", {**LLAMA}),
    "OLMo 3 (window)": ("olmo3", {**LLAMA, **_MIXED}),
    "OLMoE": ("olmoe", {**LLAMA, "num_experts": 4, "num_experts_per_tok": 2}),
    "Cohere (scaled logits)": ("cohere", {**LLAMA, "logit_scale": 0.5}),
    "Cohere 2 (window)": ("cohere2", {**LLAMA, **_MIXED, "logit_scale": 0.5, "head_dim": 8}),
    "Granite (scaled logits)": ("granite", {
        **LLAMA, "logits_scaling": 4.0, "embedding_multiplier": 2.0,
        "residual_multiplier": 0.5, "attention_multiplier": 0.3,
    }),
    "Starcoder 2": ("starcoder2", {**LLAMA}),
    "Starcoder 2, window": ("starcoder2", {**LLAMA, "sliding_window": WINDOW}),
    "CodeGen": ("codegen", {**_GPT2, "rotary_dim": 4}),
    "XGLM": ("xglm", {"d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4}),
    "BioGPT": ("biogpt", {**LLAMA}),
    "SmolLM3 (some layers without positions)": ("smollm3", {
        **LLAMA, "no_rope_layers": [1, 0], "pad_token_id": 0,
    }),
    "ERNIE 4.5": ("ernie4_5", {**LLAMA, "head_dim": 8}),
    "GLM-4": ("glm4", {**LLAMA, "head_dim": 8, "pad_token_id": 0}),
    "Nemotron": ("nemotron", {**LLAMA}),
    "DeepSeek V3 (latent keys)": ("deepseek_v3", {
        **LLAMA, "num_key_value_heads": 4, "moe_intermediate_size": 24, "n_routed_experts": 4,
        "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "kv_lora_rank": 8,
        "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 6,
        "first_k_dense_replace": 1, "n_shared_experts": 1,
    }),
    "GPT-OSS (window, sinks)": ("gpt_oss", {
        **LLAMA, **_MIXED, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2,
    }),
}  # fmt: skip

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "BLOOM": ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}, "ALiBi"),
    "MPT": ("mpt", {"d_model": 32, "n_layers": 2, "n_heads": 4}, "ALiBi"),
    "Falcon, ALiBi": ("falcon", {**LLAMA, "alibi": True}, "ALiBi"),
    "Mamba": ("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}, "state"),
    "Mamba 2": ("mamba2", {
        "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "num_heads": 4, "head_dim": 16,
        "n_groups": 1,
    }, "state"),
    "RWKV": ("rwkv", {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32},
             "state"),
    "RecurrentGemma": ("recurrent_gemma", {
        **LLAMA, "lru_width": 32, "attention_window_size": WINDOW,
        "block_types": ["recurrent", "attention"], "num_key_value_heads": 1,
    }, "state"),
    "Jamba": ("jamba", {
        **LLAMA, "num_experts": 2, "attn_layer_offset": 1, "attn_layer_period": 2,
        "use_mamba_kernels": False, "mamba_d_state": 4,
    }, "state"),
    "Qwen3-Next": ("qwen3_next", {
        **LLAMA, **_MOE, "head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 2,
        "linear_key_head_dim": 8, "linear_value_head_dim": 8,
        "shared_expert_intermediate_size": 24,
        "layer_types": ["linear_attention", "full_attention"],
    }, "state"),
    "LFM2": ("lfm2", {**LLAMA, "layer_types": ["conv", "full_attention"]}, "state"),
}  # fmt: skip


def table() -> str:
    """The table in docs/models.md."""
    lines = ["| family | `model_type` | |", "| --- | --- | --- |"]
    lines += [f"| {name} | `{kind}` | served |" for name, (kind, _) in SERVED.items()]
    lines += [
        f"| {name} | `{kind}` | refused: {REASONS[word]} |"
        for name, (kind, _, word) in REFUSED.items()
    ]
    return "\n".join(lines) + "\n"


REASONS = {
    "ALiBi": "weighs tokens by their distance in the tensors (ALiBi)",
    "state": "keeps a running state, which cannot branch",
    "not causal": "is not causal: a later token changes what is said of an earlier one",
    "no positions": "takes no positions",
    "last states": "has more than a head between its last states and its logits",
}


def make(kind: str, options: dict[str, Any], seed: int = 0) -> PreTrainedModel:
    """A model of a family with random weights, large enough that its scores differ."""
    torch.manual_seed(seed)
    common = {"vocab_size": VOCABULARY, "max_position_embeddings": 128, "bos_token_id": 0,
              "eos_token_id": 0}  # fmt: skip
    config = AutoConfig.for_model(kind, **{**common, **options})
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim >= 2:
                weight.normal_(0.0, 1.5 * weight.shape[-1] ** -0.5)
            elif name.endswith("bias"):
                weight.normal_(0.0, 0.3)
    return model


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Every byte a token, and one for the end."""
    letters = {letter: at for at, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE({"<end>": 256} | letters, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<end>", bos_token="<end>", pad_token="<end>"
    )


VOCABULARY = 257


if __name__ == "__main__":
    page = Path(__file__).parent.parent / "docs" / "models.md"
    text = page.read_text(encoding="utf-8")
    begin, end = text.index("| family |"), text.index("\n\n", text.index("| family |")) + 1
    page.write_text(text[:begin] + table() + text[end:], encoding="utf-8")
