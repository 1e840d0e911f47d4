"""A GPT-2 with random weights, in one of our sizes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, PreTrainedTokenizerBase

from lang_agent.errors import unknown
from lang_agent.models.induction import SPELLED, WHOLE, start_with_induction
from lang_agent.models.tokenizer import default_texts, train_tokenizer
from lang_agent.seeding import derive


@dataclass(frozen=True)
class Size:
    """The shape of a GPT-2 made from scratch."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    context: int


SIZES = {
    "pico": Size(layers=2, width=96, heads=4, vocabulary=2048, context=1024),
    "nano": Size(layers=4, width=128, heads=4, vocabulary=2048, context=1024),
    "mini": Size(layers=6, width=224, heads=7, vocabulary=2048, context=1024),
    "micro": Size(layers=6, width=256, heads=8, vocabulary=2048, context=1024),
    "small": Size(layers=8, width=512, heads=8, vocabulary=4096, context=1024),
}
FINAL_GAIN = 0.2  # of a new model's last norm: its first policy then has near-maximal entropy


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
    (:mod:`lang_agent.models.induction`). GELU is exact and not GPT-2's approximation by tanh,
    which takes processors more than twice as long (`benchmarks/precision.py`).
    """
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
        activation_function="gelu",
        initializer_range=shape.width**-0.5,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=end,
        eos_token_id=end,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights"))
        model = GPT2LMHeadModel(config)
        look_back = SPELLED if prose else WHOLE
        tokens = [str(tokenizer.decode([at])) for at in range(len(tokenizer))]
        start_with_induction(model, look_back, tokens, copying=bool(names))
    nn.init.constant_(model.transformer.ln_f.weight, FINAL_GAIN)
    return model, tokenizer
