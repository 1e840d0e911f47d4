"""Scoring phrases: log p(phrase | prompt) for every admissible phrase, in one forward pass.

log p(phrase | prompt) is the sum of the log-probabilities of the phrase's tokens, each given the
prompt and the tokens before it. Phrases that share a first token share its computation: together
they form a token tree. Only the tree's inner nodes need a forward pass of their own (a leaf's
log-probability is read off its parent), and they follow the prompt in the same sequence, each
attending to the prompt and to its own ancestors alone. Where every phrase is one token there is no
inner node and the prompt's own forward pass is all.

The policy is the softmax of these scores over the admissible phrases (Tan et al. 2024, TWOSOME,
arXiv 2401.14151, eq. 2-4; Carta et al. 2023, GLAM, arXiv 2302.02662, sec. 3.1). Every phrase holds
the root's log-normaliser exactly once, so it cancels and is not computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ActionTree:
    """The token tree of A phrases: M inner nodes below the root in depth-first order, E edges."""

    tokens: np.ndarray  # (M,) the token of each inner node
    depth: np.ndarray  # (M,) 1 for a child of the root
    last: np.ndarray  # (M,) the last node of its subtree
    edge_node: np.ndarray  # (E,) the edge's upper end: 0 for the root, m + 1 for node m
    edge_token: np.ndarray  # (E,) the token at its lower end
    uses: np.ndarray  # (A, E) float32: 1 where the phrase passes the edge


def build_tree(phrases: Sequence[Sequence[int]]) -> ActionTree:
    """The tree of token sequences; equal phrases, and one inside another, keep a score each."""
    edges: dict[tuple[int, ...], int] = {}  # the path that ends with the edge -> its index
    for phrase in phrases:
        for end in range(1, len(phrase) + 1):
            edges.setdefault(tuple(phrase[:end]), len(edges))
    inner = sorted({path[:-1] for path in edges if len(path) > 1})  # depth first: sorted prefixes
    node = {(): 0, **{path: index + 1 for index, path in enumerate(inner)}}
    last = [
        max(index for index, below in enumerate(inner) if below[: len(path)] == path)
        for path in inner
    ]
    uses = np.zeros((len(phrases), len(edges)), dtype=np.float32)
    for row, phrase in enumerate(phrases):
        for end in range(1, len(phrase) + 1):
            uses[row, edges[tuple(phrase[:end])]] = 1.0
    return ActionTree(
        tokens=np.array([path[-1] for path in inner], dtype=np.int64),
        depth=np.array([len(path) for path in inner], dtype=np.int64),
        last=np.array(last, dtype=np.int64),
        edge_node=np.array([node[path[:-1]] for path in edges], dtype=np.int64),
        edge_token=np.array([path[-1] for path in edges], dtype=np.int64),
        uses=uses,
    )


@dataclass(frozen=True, eq=False)
class Forest:
    """U different trees, padded to a common M, E and A, as tensors."""

    edge_node: Tensor  # (U, E) int64
    edge_token: Tensor  # (U, E) int64
    uses: Tensor  # (U, A, E) float32, 0 where padded
    is_action: Tensor  # (U, A) bool
    inner_nodes: int  # M, the most inner nodes of any tree


def plant(trees: Sequence[ActionTree], device: torch.device) -> Forest:
    """Pad different trees into one :class:`Forest`."""
    actions = max(tree.uses.shape[0] for tree in trees)
    edges = max(tree.uses.shape[1] for tree in trees)
    edge_node = np.zeros((len(trees), edges), dtype=np.int64)
    edge_token = np.zeros((len(trees), edges), dtype=np.int64)
    uses = np.zeros((len(trees), actions, edges), dtype=np.float32)
    is_action = np.zeros((len(trees), actions), dtype=bool)
    for index, tree in enumerate(trees):
        count = len(tree.edge_node)
        edge_node[index, :count] = tree.edge_node
        edge_token[index, :count] = tree.edge_token
        uses[index, : len(tree.uses), :count] = tree.uses
        is_action[index, : len(tree.uses)] = True
    return Forest(
        edge_node=torch.from_numpy(edge_node).to(device),
        edge_token=torch.from_numpy(edge_token).to(device),
        uses=torch.from_numpy(uses).to(device),
        is_action=torch.from_numpy(is_action).to(device),
        inner_nodes=max(len(tree.tokens) for tree in trees),
    )


@dataclass(frozen=True, eq=False)
class Layout:
    """B rows of W tokens for one forward pass: each row's own tokens, then its trees' inner nodes.

    ``slot`` is a token's index in the row's keys (in the cache, where there is one), ``position``
    the model's position id. A token sees the keys up to ``base`` and, in a tree, its ancestors:
    the keys k with k <= slot <= last(k). Without inner nodes that is plain causal attention.
    """

    token_ids: Tensor  # (B, W) int64
    position: Tensor  # (B, W) int64
    slot: Tensor  # (B, W) int64
    base: Tensor  # (B, W) int64
    last: Tensor  # (B, W) int64, as slots
    decision_row: Tensor  # (D,) int64
    decision_column: Tensor  # (D,) int64, the prompt's last token
    node_column: Tensor  # (D, M) int64, 0 where padded
    has_nodes: bool

    def mask(self, keys: int) -> Tensor:
        """(B, 1, W, keys) bool: which keys each token attends to, for a cache of ``keys`` slots."""
        key = torch.arange(keys, device=self.slot.device)
        mask = key <= self.base[:, :, None]
        if self.has_nodes:
            last = key.expand(len(self.slot), keys).scatter(1, self.slot, self.last)
            slot = self.slot[:, :, None]
            mask = mask | ((key <= slot) & (slot <= last[:, None, :]))
        return mask[:, None]


def lay_out(
    rows: Sequence[Sequence[int]],
    starts: Sequence[int],
    decisions: Sequence[Sequence[int]],
    trees: Sequence[Sequence[ActionTree]],
    device: torch.device,
) -> Layout:
    """Arrange token rows and the decisions on them.

    Args:
        rows: B lists of token ids, those not in the cache yet.
        starts: B counts of tokens in the cache before them (0 without one).
        decisions: per row, the columns of its prompts' last tokens.
        trees: per row, the tree of admissible phrases of each of its decisions.
    """
    lengths = np.array([len(row) for row in rows])
    extra = np.array([sum(len(tree.tokens) for tree in row) for row in trees])
    width = int((lengths + extra).max())
    most = max((len(tree.tokens) for row in trees for tree in row), default=0)
    token_ids = np.zeros((len(rows), width), dtype=np.int64)
    column = np.arange(width)
    slot = column + np.asarray(starts, dtype=np.int64)[:, None]
    position, base, last = slot.copy(), slot.copy(), slot.copy()
    counts = [len(row) for row in decisions]
    decision_row = np.repeat(np.arange(len(rows)), counts)
    decision_column = np.concatenate([np.asarray(row, dtype=np.int64) for row in decisions])
    node_column = np.zeros((len(decision_row), most), dtype=np.int64)
    decision = 0
    for index, row in enumerate(rows):
        token_ids[index, : len(row)] = row
        if not extra[index]:
            decision += counts[index]
            continue
        at = len(row)
        for prompt_end, tree in zip(decisions[index], trees[index], strict=True):
            nodes = slice(at, at + len(tree.tokens))
            token_ids[index, nodes] = tree.tokens
            position[index, nodes] = position[index, prompt_end] + tree.depth
            base[index, nodes] = slot[index, prompt_end]
            last[index, nodes] = slot[index, at] + tree.last if len(tree.tokens) else 0
            node_column[decision, : len(tree.tokens)] = column[nodes]
            at += len(tree.tokens)
            decision += 1
        position[index, at:] = 0
    used = lengths + extra
    position[column >= used[:, None]] = 0  # padding must not run past the model's positions

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    return Layout(
        token_ids=tensor(token_ids),
        position=tensor(position),
        slot=tensor(slot),
        base=tensor(base),
        last=tensor(last),
        decision_row=tensor(decision_row),
        decision_column=tensor(decision_column),
        node_column=tensor(node_column),
        has_nodes=most > 0,
    )


def score_phrases(
    hidden: Tensor,
    layout: Layout,
    forest: Forest,
    tree_of_decision: Tensor,
    head_weight: Tensor,
    head_bias: Tensor | None,
) -> Tensor:
    """The log-policy over the admissible phrases of every decision.

    Args:
        hidden: (B, W, H) last hidden states of the layout's tokens.
        forest: the U trees in use.
        tree_of_decision: (D,) the index in the forest of each decision's tree.
        head_weight, head_bias: the language-model head, (V, H) and (V,).

    Returns:
        (D, A) log-probabilities, normalised over each decision's phrases; -inf where padded.
    """
    row, column = layout.decision_row, layout.decision_column
    nodes = hidden[row, column][:, None]  # (D, 1, H)
    if layout.has_nodes:
        inner = hidden[row[:, None], layout.node_column]  # (D, M, H)
        nodes = torch.cat((nodes, inner), dim=1)  # (D, 1 + M, H)
    edge_node = forest.edge_node[tree_of_decision]  # (D, E)
    edge_token = forest.edge_token[tree_of_decision]  # (D, E)
    if len(forest.edge_token) == 1:  # one set of phrases for all: a small matrix product
        logits = nodes @ head_weight[forest.edge_token[0]].T.to(nodes.dtype)  # (D, 1 + M, E)
        logits = logits.gather(1, edge_node[:, None]).squeeze(1)
    else:
        states = nodes.gather(1, edge_node[..., None].expand(-1, -1, nodes.shape[-1]))
        logits = (states * head_weight[edge_token].to(nodes.dtype)).sum(-1)  # (D, E)
    if head_bias is not None:
        logits = logits + head_bias[edge_token]
    logits = logits.float()
    if layout.has_nodes:
        # The root's normaliser is left out: it is the same in every phrase and cancels.
        vocabulary = torch.nn.functional.linear(inner, head_weight.to(inner.dtype), head_bias)
        normaliser = torch.logsumexp(vocabulary.float(), dim=-1)  # (D, M)
        normaliser = torch.cat((torch.zeros_like(normaliser[:, :1]), normaliser), dim=1)
        logits = logits - normaliser.gather(1, edge_node)
    scores = (forest.uses[tree_of_decision] @ logits[..., None]).squeeze(-1)  # (D, A)
    scores = scores.masked_fill(~forest.is_action[tree_of_decision], float("-inf"))
    return torch.log_softmax(scores, dim=-1)
