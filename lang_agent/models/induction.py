"""Random weights that can already look things up.

"What follows *red ball* here is what followed *red ball* before" takes two layers: heads that bring
each token the words before it, and a head that attends to where the same words came before
(induction heads: Olsson et al. 2022, arXiv 2209.11895). To find a goal among the things in view is
just that. From plain random weights such heads form late or not at all, since either half earns
nothing without the other, and a small model settles for an average over all that it sees. Here
they are there from the start, in random directions and without a word learned; training does the
rest. (Starting from a mechanism instead of from noise: Trockman and Kolter 2023, arXiv 2305.09828.)

Where other words may stand for a world's own, a head of the last layer says the word that it looks
at (a copying head: Elhage et al. 2021, https://transformer-circuits.pub/2021/framework), and looks
at what stands behind a number and a colon. Of phrases that are new in every episode, a policy then
has only to learn which of the list to look at.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2LMHeadModel

# How many tokens are looked back at, one head each, and how loud what is there: where a name is one
# token ("red ball"), and where words may be spelled with several.
WHOLE = {1: 1.0}
SPELLED = {1: 1.0, 2: 0.8, 3: 0.6, 4: 0.4}
PERIOD = 1000.0  # tokens, of the slowest wave, over 2 pi
POSITIONS = 2.0  # size of positions over that of words; at 1, neighbours are not distinguished
SHARPNESS = 4.0  # of looking back
LOUDNESS = 4.0  # of what is found
COPIED = 2.0  # loudness of what the last layer says again
FOCUS = 4.0  # on what stands behind a number
QUIET = 0.1  # everything else that a block adds, so that what is found is heard
ENDS = " :,"  # of a token, which belong to no word of it
NUMBER = re.compile(r" ?\d+:")  # of a list


@torch.no_grad()
def start_with_induction(
    model: GPT2LMHeadModel,
    look_back: Mapping[int, float] = SPELLED,
    tokens: Sequence[str] = (),
    *,
    copying: bool = False,
) -> None:
    """Give a new GPT-2 of two layers or more its induction heads, in place; with ``copying`` also a
    head that says what it looks at.

    ``tokens`` are the texts of its tokens, in their order: those of several words begin near one
    another where they share some, so that *a key* is not far from *red key*, nor that from the
    *red door* which it opens.

    The channels are shared out: the first ``size`` (a head's width) hold positions, half of the
    others words, and the rest the words before. Those of all offsets lie in the same channels, on
    top of one another, each turned by a random map of its own (as in Plate 1995's holographic
    memories): four words then find the room of one, and places match the better the more of the
    words before them, in order, are the same. Nearer words are louder, so that two alike are not
    outdone by the four that a token shares with itself; for the same reason no more tokens are
    looked at than a name has. Positions are sinusoids (Vaswani et al. 2017, sec. 3.5), whose
    shift by an offset is a rotation: a query turned by it is the key of the token there. The
    matching head's queries and keys are one and the same random projection of the words before.
    All words have one length, since a layer norm would else turn a shorter word's position into
    a louder key.
    """
    width, size = model.config.n_embd, model.config.n_embd // model.config.n_head
    half = (width - size) // 2
    words, before = slice(size, size + half), slice(size + half, width)
    transformer: Any = model.transformer
    std = model.config.initializer_range

    rates = torch.exp(-torch.arange(0, size, 2) / size * math.log(PERIOD))
    waves = torch.arange(model.config.n_positions)[:, None] * rates
    circles = torch.stack([waves.sin(), waves.cos()], dim=2).flatten(1)
    transformer.wpe.weight.zero_()
    transformer.wpe.weight[:, :size] = circles * POSITIONS * std * math.sqrt(width / size)
    drawn = alike(nn.functional.normalize(transformer.wte.weight[:, words], dim=1), tokens)
    numbers = [at for at, token in enumerate(tokens) if copying and NUMBER.fullmatch(token)]
    if numbers:  # they begin near one another, too
        shared = nn.functional.normalize(torch.randn(half), dim=0)
        drawn[numbers] = nn.functional.normalize(drawn[numbers] + shared, dim=1)
    transformer.wte.weight.zero_()
    transformer.wte.weight[:, words] = drawn * std * math.sqrt(width / 2)
    for block in transformer.h:
        for output in (block.attn.c_proj.weight, block.mlp.c_proj.weight):
            output *= QUIET
            output[:, :size] = 0

    looking, matching = transformer.h[0].attn, transformer.h[1].attn
    for head, (offset, loudness) in enumerate(look_back.items()):
        query, key, value, output = _zeroed(looking, head, size)
        query[:size] = SHARPNESS * torch.block_diag(*_rotations(offset * rates))
        key[:size] = SHARPNESS * torch.eye(size)
        value[words] = torch.randn(half, size) / math.sqrt(half)
        output[:, before] = loudness * torch.randn(size, width - before.start)
        output[:, before] /= math.sqrt(width - before.start)
    query, key, value, output = _zeroed(matching, 0, size)
    query[before] = key[before] = nn.init.orthogonal_(torch.empty(width - before.start, size))
    value[words] = LOUDNESS * nn.init.orthogonal_(torch.empty(half, size))
    output[:, size:] = torch.randn(size, width - size) * std
    if copying:
        saying = transformer.h[-1].attn
        _, key, value, output = _zeroed(saying, 1, size)
        key[before] = nn.init.orthogonal_(torch.empty(width - before.start, size))
        value[words] = nn.init.orthogonal_(torch.empty(half, size))
        output[:, words] = COPIED * value[words].T
        if numbers:
            _, _, found, brought = _parts(looking, 0, size)
            behind = transformer.wte.weight[numbers][:, words] @ found[words] @ brought[:, before]
            asked = nn.functional.normalize((behind @ key[before]).mean(0), dim=0)
            saying.c_attn.bias.unflatten(0, (3, -1, size))[0, 1] = FOCUS * asked


def alike(own: Tensor, tokens: Sequence[str]) -> Tensor:
    """Vectors of length one (tokens, channels), each token's ``own``; to that of a token of several
    words, the sum of these words' vectors is added at the same length."""
    vectors: dict[str, Tensor] = {}
    for token, vector in zip(tokens, own, strict=False):
        vectors.setdefault(token.strip(ENDS), vector)
    made = own.clone()
    for at, token in enumerate(tokens):
        words = token.strip(ENDS).split(" ")
        if len(words) == 1:
            continue
        for word in words:
            if word not in vectors:
                vectors[word] = nn.functional.normalize(torch.randn(own.shape[1]), dim=0)
        shared = torch.stack([vectors[word] for word in words]).sum(0)
        made[at] = nn.functional.normalize(own[at] + nn.functional.normalize(shared, dim=0), dim=0)
    return made


def _rotations(angles: Tensor) -> list[Tensor]:
    """For each angle the matrix that turns (sin a, cos a), from the right, into those of
    a - angle."""
    sines, cosines = angles.sin(), angles.cos()
    return [
        torch.stack([torch.stack([cos, sin]), torch.stack([-sin, cos])])
        for sin, cos in zip(sines, cosines, strict=True)
    ]


def _zeroed(attention: Any, head: int, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The weights of one head, set to zero."""
    query, key, value, output = _parts(attention, head, size)
    return query.zero_(), key.zero_(), value.zero_(), output.zero_()


def _parts(attention: Any, head: int, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One head's weights: query, key and value (width, size), output (size, width)."""
    columns = attention.c_attn.weight.unflatten(1, (3, -1, size))  # (width, 3, heads, size)
    query, key, value = (columns[:, part, head] for part in range(3))
    return query, key, value, attention.c_proj.weight[head * size : (head + 1) * size]
