"""Whether a model's scores are what its own plain passes say: found out by asking it.

A policy reads a model's rows padded, with branches, and from a cache of its own. That is right for
models whose layers attend to earlier tokens by their positions; it is wrong for those that keep a
running state, or weigh tokens by their places in the tensors. Some forty tokens show which: every
policy begins with reading them both ways.

A window of attention is longer than that. While it is probed it is made shorter, by the setting
that the model itself makes its masks from; one that cannot be is probed at its full length.
"""

from __future__ import annotations

import inspect
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from lang_agent.errors import LangAgentError
from lang_agent.models.architecture import base_of, context_of, vocabulary_of
from lang_agent.models.kv_cache import RaggedCache
from lang_agent.models.masks import has_own_window
from lang_agent.models.phrase_scoring import lay_out
from lang_agent.models.trie import TokenTrie, build_trie

if TYPE_CHECKING:
    from lang_agent.models.policy import LanguagePolicy

LENGTHS = (12, 5)  # tokens of the two prompts
BRANCH = 2  # tokens of each path of inner nodes below them
TOLERANCE = 1e-3  # nats
SHORT = 4  # tokens of a window while it is probed
WINDOWS = ("sliding_window", "attention_chunk_size", "window_size")
"""The settings that transformers makes masks from at every pass."""
_WINDOW = re.compile(r"window(?!_layers|_pattern)|attention_chunk|local_attention")
_RECURRENT = re.compile(
    r"Mamba|SSM|Rwkv|Recurrent|RGLRU|Delta|xLSTM|ShortConv|Linear[A-Z]|Lightning|H1Mixer"
)


class Expected:
    """What a model says by itself: for two prompts and two phrases that begin alike, the
    log-probabilities after every token, from one plain pass for each prompt and phrase."""

    def __init__(self, model: PreTrainedModel, lengths: Sequence[int] = LENGTHS) -> None:
        vocabulary = vocabulary_of(model)
        most = context_of(model.config.get_text_config(decoder=True)) - BRANCH
        draw = random.Random(0)
        self.prompts = [
            tuple(draw.randrange(vocabulary) for _ in range(max(min(length, most), 1)))
            for length in lengths
        ]
        start, one, other = (draw.randrange(vocabulary) for _ in range(3))
        self.phrases = [(start, one, 0), (start, other, 0)]
        self.log_probs = {
            (prompt, phrase): _plain(model, (*prompt, *phrase[:BRANCH]))
            for prompt in self.prompts
            for phrase in self.phrases
        }

    def within(self, prompt: tuple[int, ...]) -> Tensor:
        """(L, V) after each token of a prompt."""
        return self.log_probs[prompt, self.phrases[0]][: len(prompt)]

    def nodes(self, prompt: tuple[int, ...]) -> Tensor:
        """(M, V) after each inner node of the phrases' trie, in its order."""
        after = {
            phrase[:depth]: self.log_probs[prompt, phrase][len(prompt) + depth - 1]
            for phrase in self.phrases
            for depth in range(1, BRANCH + 1)
        }
        return torch.stack([after[path] for path in sorted(after)])

    def looks_ahead(self) -> bool:
        """Whether what follows a prompt changes what the model says within it."""
        for prompt in self.prompts:
            one, other = [self.log_probs[prompt, phrase][: len(prompt)] for phrase in self.phrases]
            if _away(one, other) > 0:
                return True
        return False


def expect(model: PreTrainedModel) -> Expected:
    """What the model says before anything is made ready in it."""
    try:
        return Expected(model.eval())
    except Exception as error:
        raise _refusal(model, f"it fails on a plain sequence ({_told(error)})") from None


def check(policy: LanguagePolicy, expected: Expected) -> None:
    """Raise :class:`LangAgentError` with the reason where a policy's scores differ from
    ``expected``, or, in a model with windows, from its plain passes beyond them."""
    model = policy.model
    config = model.config.get_text_config(decoder=True)
    if expected.looks_ahead():
        raise _refusal(model, "what it says of a token depends on later ones: it is not causal")
    try:
        _compare(policy, expected)
        for name in _windows(config):
            if name in WINDOWS:
                with _shortened(model, config, name):
                    _compare(policy, Expected(model))
            else:
                _compare(policy, Expected(model, (getattr(config, name) + LENGTHS[0], LENGTHS[1])))
    except LangAgentError:
        raise
    except Exception as error:
        reason = _because(model) or f"its layers do not take what a policy gives ({_told(error)})"
        raise _refusal(model, reason) from None


@torch.no_grad()
def _plain(model: PreTrainedModel, tokens: Sequence[int]) -> Tensor:
    """(L, V) log-probabilities after each of L tokens, by the model's own pass."""
    ids = torch.tensor([tokens], device=model.device)
    return model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)


def _compare(policy: LanguagePolicy, expected: Expected) -> None:
    """Read the prompts and phrases in every way that a policy does."""
    rows = [list(prompt) for prompt in expected.prompts]
    nothing, trie = build_trie([]), build_trie(expected.phrases)
    prompts = [expected.within(prompt) for prompt in expected.prompts]
    nodes = [expected.nodes(prompt) for prompt in expected.prompts]

    found = _read(policy, rows, nothing)
    for at, row in enumerate(rows):
        _same(policy, found[at, : len(row)], prompts[at], "in rows of different length")

    found = _read(policy, rows, trie)
    for at, row in enumerate(rows):
        inner = found[at, len(row) : len(row) + len(nodes[at])]
        _same(policy, inner, nodes[at], "of phrases in a trie")

    one, other = (phrase[:BRANCH] for phrase in expected.phrases)
    begins = [[len(row), len(row) + BRANCH] for row in rows]
    found = _read(policy, [[*row, *one, *other] for row in rows], nothing, branches=begins)
    for at, prompt in enumerate(expected.prompts):
        for begin, phrase in zip(begins[at], expected.phrases, strict=True):
            wanted = expected.log_probs[prompt, phrase][len(prompt) :]
            _same(policy, found[at, begin : begin + BRANCH], wanted, "of texts that share a prompt")

    cache = RaggedCache(3)
    halves = [len(row) // 2 for row in rows]
    if all(halves):  # the first turn's phrases are written over by the next
        first = [row[:half] for row, half in zip(rows, halves, strict=True)]
        _read(policy, first, trie, cache)
    rest = [row[half:] for row, half in zip(rows, halves, strict=True)]
    found = _read(policy, rest, trie, cache, halves)
    for at, part in enumerate(rest):
        inner = found[at, len(part) : len(part) + len(nodes[at])]
        _same(policy, found[at, : len(part)], prompts[at][-len(part) :], "from a cache")
        _same(policy, inner, nodes[at], "of phrases after a cache")


@torch.no_grad()
def _read(
    policy: LanguagePolicy,
    rows: Sequence[Sequence[int]],
    trie: TokenTrie,
    cache: RaggedCache | None = None,
    starts: Sequence[int] = (0, 0),
    branches: Sequence[Sequence[int]] = (),
) -> Tensor:
    """(2, W, V) log-probabilities after every token of two rows and the trie behind each."""
    ends = [[begin[0] - 1] for begin in branches] or [[len(row) - 1] for row in rows]
    layout = lay_out(rows, starts, ends, [[trie]] * 2, policy.device, branches)
    # Not the first rows of the cache in their order: those are read as a slice.
    where = None if cache is None else torch.tensor([2, 0], device=policy.device)
    states = policy.hidden_states(layout, cache, where).last
    log_probs = policy.token_logits(states.flatten(0, 1)).log_softmax(-1)
    return log_probs.view(*states.shape[:2], -1)


def _same(policy: LanguagePolicy, found: Tensor, wanted: Tensor, where: str) -> None:
    away = _away(found, wanted)
    if away <= 0:
        return
    because = _because(policy.model) or _beside_head(policy)
    raise _refusal(
        policy.model,
        f"its scores {where} are off by {away:.2g} nats from its own plain pass"
        + (f", for {because}" if because else ""),
    )


def _away(found: Tensor, wanted: Tensor) -> float:
    """The largest difference of two tensors, 0 where it is one of rounding."""
    exact = torch.get_float32_matmul_precision() == "highest"
    allowed = (TOLERANCE if exact else 100 * TOLERANCE) + 1e-4 * wanted.abs()
    difference = (found - wanted).abs()
    return 0.0 if (difference <= allowed).all() else float(difference.max())


def _windows(config: PreTrainedConfig) -> list[str]:
    """The settings of a model that say how far its layers see, where that is not everything."""
    return [
        name
        for name, value in vars(config).items()
        if _WINDOW.search(name) and type(value) is int and value > 0
    ]


@contextmanager
def _shortened(model: PreTrainedModel, config: PreTrainedConfig, name: str) -> Iterator[None]:
    """A window of few tokens, in the setting of this name, for a while."""
    local: list[Any] = [module for module in model.modules() if has_own_window(module)]
    kept, biases = getattr(config, name), [module.bias for module in local]
    try:
        setattr(config, name, SHORT)
        for module in local:
            whole = torch.ones_like(module.bias).tril()
            module.bias = whole & ~whole.tril(-SHORT)
        yield
    finally:
        setattr(config, name, kept)
        for module, bias in zip(local, biases, strict=True):
            module.bias = bias


def _because(model: PreTrainedModel) -> str:
    """What in a model a policy cannot follow, as far as its parts show it."""
    config = model.config.get_text_config(decoder=True)
    if getattr(config, "alibi", False) or config.model_type in ("bloom", "mpt"):
        return (
            "its attention weighs tokens by their distance in the tensors (ALiBi), which is not "
            "their distance in the text where phrases branch"
        )
    for module in model.modules():
        name = type(module).__name__
        if _RECURRENT.search(name) and not isinstance(module, PreTrainedModel):
            return f"it has layers that keep a running state ({name}), which cannot branch"
    if "position_ids" not in inspect.signature(base_of(model).forward).parameters:
        return "it takes no positions, and counts them by the places in the tensors"
    return ""


@torch.no_grad()
def _beside_head(policy: LanguagePolicy) -> str:
    """Whether logits are something else than a head's products with the last hidden states."""
    model = policy.model
    ids = torch.tensor([[0, 1 % vocabulary_of(model)]], device=policy.device)
    states = base_of(model)(input_ids=ids, use_cache=False).last_hidden_state[0]
    found = policy.token_logits(states).log_softmax(-1)
    if _away(found, _plain(model, ids[0].tolist())) > 0:
        return "between its last states and its logits it has more than a head (a layer, a scale)"
    return ""


def _refusal(model: PreTrainedModel, reason: str) -> LangAgentError:
    return LangAgentError(
        f"{type(model).__name__} cannot be used as a policy: {reason}. "
        "docs/models.md lists the families that can."
    )


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
