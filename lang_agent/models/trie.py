"""Admissible phrases as a token trie: phrases that share a first token share its computation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lang_agent.errors import LangAgentError


@dataclass(frozen=True, eq=False)
class TokenTrie:
    """The token trie of A phrases: M inner nodes below the root in depth-first order, E edges."""

    tokens: np.ndarray  # (M,) the token of each inner node
    depth: np.ndarray  # (M,) 1 for a child of the root
    last: np.ndarray  # (M,) the last node of its subtree
    edge_node: np.ndarray  # (E,) the edge's upper end: 0 for the root, m + 1 for node m
    edge_token: np.ndarray  # (E,) the token at its lower end
    uses: np.ndarray  # (A, E) float32: 1 where the phrase passes the edge
    path: np.ndarray  # (A, L) the edges that choose the phrase, in order, -1 where padded
    divisor: np.ndarray  # (A,) float32: what a phrase's log-probability is divided by
    rule: str = "sum"


def build_trie(
    phrases: Sequence[Sequence[int]],
    rule: str = "sum",
    *,
    words: Sequence[int] | None = None,
    end: int = 0,
) -> TokenTrie:
    """The trie of A token sequences under one of ``config.RULES``.

    Equal phrases, and one inside another, keep a score each. In constrained decoding they cannot:
    there a phrase that begins another is followed by the token ``end``, and none may be equal. A
    token that is the only one to follow decides nothing there, and is left out of ``path``; a
    phrase that is the only one keeps its first.

    Args:
        words: A counts, for the rule ``word-mean``.
        end: a token that ends a phrase, for the rule ``constrained``.
    """
    if rule == "constrained":
        phrases = _told_apart([tuple(phrase) for phrase in phrases], end)
    edges: dict[tuple[int, ...], int] = {}  # the path that ends with the edge -> its index
    for phrase in phrases:
        for stop in range(1, len(phrase) + 1):
            edges.setdefault(tuple(phrase[:stop]), len(edges))
    inner = sorted({path[:-1] for path in edges if len(path) > 1})  # depth first: sorted prefixes
    node = {(): 0, **{path: index + 1 for index, path in enumerate(inner)}}
    last = list(range(len(inner)))
    for index in reversed(range(len(inner))):  # children come after their parents
        parent = node[inner[index][:-1]] - 1
        if parent >= 0:
            last[parent] = max(last[parent], last[index])
    uses = np.zeros((len(phrases), len(edges)), dtype=np.float32)
    lengths = [len(phrase) for phrase in phrases]
    siblings = Counter(path[:-1] for path in edges)
    paths = []
    for row, phrase in enumerate(phrases):
        passed = [tuple(phrase[:stop]) for stop in range(1, len(phrase) + 1)]
        uses[row, [edges[prefix] for prefix in passed]] = 1.0
        if rule == "constrained":
            passed = [prefix for prefix in passed if siblings[prefix[:-1]] > 1] or passed[:1]
        paths.append([edges[prefix] for prefix in passed])
    path = np.full((len(phrases), max(map(len, paths), default=0)), -1, dtype=np.int64)
    for row, chosen in enumerate(paths):
        path[row, : len(chosen)] = chosen
    divisors = {"token-mean": lengths, "word-mean": words}.get(rule) or [1] * len(phrases)
    return TokenTrie(
        tokens=np.array([path[-1] for path in inner], dtype=np.int64),
        depth=np.array([len(path) for path in inner], dtype=np.int64),
        last=np.array(last, dtype=np.int64),
        edge_node=np.array([node[path[:-1]] for path in edges], dtype=np.int64),
        edge_token=np.array([path[-1] for path in edges], dtype=np.int64),
        uses=uses,
        path=path,
        divisor=np.array(divisors, dtype=np.float32),
        rule=rule,
    )


def decisions_in(trie: TokenTrie, choice: int) -> int:
    """How many decisions a phrase is: one, or in constrained decoding one for each token that had
    others beside it."""
    return int((trie.path[choice] >= 0).sum()) if trie.rule == "constrained" else 1


def refuse_equal(actions: Sequence[str], phrases: Sequence[Sequence[int]]) -> None:
    """Raise :class:`LangAgentError` where two of the actions are the same tokens: constrained
    decoding, which draws tokens, would take them for one."""
    said: dict[tuple[int, ...], str] = {}
    for action, tokens in zip(actions, phrases, strict=True):
        other = said.get(tuple(tokens))
        if other is not None:
            raise LangAgentError(
                f"Constrained decoding cannot tell {other!r} from {action!r}, which are the same "
                "tokens to this model: rename one, or use --decide sum."
            )
        said[tuple(tokens)] = action


def _told_apart(phrases: list[tuple[int, ...]], end: int) -> list[tuple[int, ...]]:
    """Phrases of which none begins another."""
    begun = {phrase[:stop] for phrase in phrases for stop in range(1, len(phrase))}
    return [(*phrase, end) if phrase in begun else phrase for phrase in phrases]


@dataclass(frozen=True, eq=False)
class TrieBatch:
    """U different tries under one rule, padded to a common M, E, A and L, as tensors."""

    edge_node: Tensor  # (U, E) int64
    edge_token: Tensor  # (U, E) int64
    is_edge: Tensor  # (U, E) bool
    uses: Tensor  # (U, A, E) float32, 0 where padded
    path: Tensor  # (U, A, L) int64, as in TokenTrie
    divisor: Tensor  # (U, A) float32, 1 where padded
    is_action: Tensor  # (U, A) bool
    rule: str


def batch_tries(tries: Sequence[TokenTrie], device: torch.device) -> TrieBatch:
    """Pad different tries of one rule into one :class:`TrieBatch`."""

    def padded(name: str, value: float) -> Tensor:
        arrays = [getattr(trie, name) for trie in tries]
        shape = [max(sizes) for sizes in zip(*(array.shape for array in arrays), strict=True)]
        out = np.full((len(arrays), *shape), value, dtype=arrays[0].dtype)
        for index, array in enumerate(arrays):
            out[index][tuple(map(slice, array.shape))] = array
        return torch.from_numpy(out).to(device)

    edge_token = padded("edge_token", -1)
    divisor = padded("divisor", 0)
    return TrieBatch(
        edge_node=padded("edge_node", 0),
        edge_token=edge_token.clamp(min=0),
        is_edge=edge_token >= 0,
        uses=padded("uses", 0),
        path=padded("path", -1),
        divisor=divisor.where(divisor > 0, 1.0),
        is_action=divisor > 0,
        rule=tries[0].rule,
    )


NO_PHRASES = build_trie([])
