"""Scoring phrases: log p(phrase | prompt) for every admissible phrase, in one forward pass.

log p(phrase | prompt) is the sum of the log-probabilities of the phrase's tokens, each given the
prompt and the tokens before it. Phrases that share a first token share its computation: together
they form a token trie. Only the trie's inner nodes need a forward pass of their own (a leaf's
log-probability is read off its parent), and they follow the prompt in the same sequence, each
attending to the prompt and to its own ancestors alone. Where every phrase is one token there is no
inner node and the prompt's own forward pass is all.

From the trie a policy over the phrases is made by one of the rules in ``config.RULES``:

``sum``          softmax of the phrases' log-probabilities (Carta et al. 2023, GLAM, arXiv
                 2302.02662, sec. 3.1). Every phrase holds the root's log-normaliser exactly once,
                 so it cancels and is not computed.
``token-mean``   softmax of the same divided by the phrase's number of tokens, and
``word-mean``    by its number of words (Tan et al. 2024, TWOSOME, arXiv 2401.14151, eq. 3-5).
``constrained``  a token at a time among those that still lead to an admissible phrase: at every
                 node a softmax over its edges, so that a phrase's probability is the product of
                 its tokens' (grammar-constrained decoding). Each token is a decision of its own,
                 where there is more than one edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise

import numpy as np
import torch
from torch import Tensor

from lang_agent.models.trie import TokenTrie, TrieBatch


@dataclass(frozen=True, eq=False)
class Layout:
    """B rows of W tokens for one forward pass: each row's own tokens, then its tries' inner nodes.

    A row's own tokens are one sequence, or a beginning with several branches.

    ``slot`` is a token's index in the row's keys (in the cache, where there is one), ``position``
    the model's position id. A token sees the keys up to ``base`` and, in a trie, its ancestors:
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
    branching: bool  # whether anything but plain causal attention is needed

    def seen(self, keys: int) -> Tensor:
        """(B, W, keys) bool: which of a cache's ``keys`` slots each token attends to, as far as it
        is up to the rows and tries (a layer may see less: :mod:`lang_agent.models.masks`)."""
        key = torch.arange(keys, device=self.slot.device)
        seen = key <= self.base[:, :, None]
        if self.branching:
            last = key.expand(len(self.slot), keys).scatter(1, self.slot, self.last)
            slot = self.slot[:, :, None]
            seen = seen | ((key <= slot) & (slot <= last[:, None, :]))
        return seen

    def asked(self) -> Tensor:
        """(B, W) bool: the tokens that decisions are read off, by :func:`score_phrases` and a
        critic: the prompts' last ones and the tries' inner nodes."""
        asked = torch.zeros_like(self.token_ids, dtype=torch.bool)
        asked[self.decision_row, self.decision_column] = True
        asked[self.decision_row[:, None], self.node_column] = True
        return asked

    def filled_up(self, rows: int = 4, columns: int = 16) -> Layout:
        """The same, with padding up to a whole number of so many rows and columns; of a layout that
        follows nothing in a cache. Batches have ever new shapes, and so they have few, for devices
        that write a program for each."""
        height, width = self.token_ids.shape
        more = (0, -width % columns, 0, -height % rows)
        column = torch.arange(width + more[1], device=self.slot.device)
        added = torch.nn.functional.pad(torch.zeros_like(self.slot), more, value=1) == 1

        def padded(part: Tensor, filling: Tensor) -> Tensor:
            return torch.where(added, filling, torch.nn.functional.pad(part, more))

        return replace(
            self,
            token_ids=padded(self.token_ids, torch.zeros_like(column)),
            position=padded(self.position, torch.zeros_like(column)),
            slot=padded(self.slot, column),
            base=padded(self.base, column),
            last=padded(self.last, column),
        )

    def key_position(self, keys: int) -> Tensor:
        """(B, keys) the positions of the keys: of those in the cache before, their slots."""
        key = torch.arange(keys, device=self.slot.device).expand(len(self.slot), keys)
        return key.scatter(1, self.slot, self.position)


@dataclass(frozen=True, eq=False)
class Head:
    """What makes logits of last hidden states."""

    weight: Tensor  # (V, H)
    bias: Tensor | None = None  # (V,)
    scale: float = 1.0
    """What the logits are multiplied by (Cohere, Granite)."""
    cap: float | None = None
    """What they are then kept below, smoothly (Gemma 2, arXiv 2408.00118, sec. 2)."""

    def logits(self, states: Tensor) -> Tensor:
        """(N, V) float32, from (N, H) states of the weight's dtype: one product, since a batch of
        them copies the weight."""
        return self.finished(torch.nn.functional.linear(states, self.weight), self.bias)

    def finished(self, products: Tensor, bias: Tensor | None) -> Tensor:
        """The logits that products of states and weights become. All that comes after them is
        computed in float32, in which the bias is kept whatever products are computed in."""
        logits = products.float()
        if bias is not None:
            logits = logits + bias
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.cap is None else torch.tanh(logits / self.cap) * self.cap


def lay_out(
    rows: Sequence[Sequence[int]],
    starts: Sequence[int],
    decisions: Sequence[Sequence[int]],
    tries: Sequence[Sequence[TokenTrie]],
    device: torch.device,
    branches: Sequence[Sequence[int]] = (),
) -> Layout:
    """Arrange token rows and the decisions on them.

    Args:
        rows: B lists of token ids, those not in the cache yet.
        starts: B counts of tokens in the cache before them (0 without one).
        decisions: per row, the columns of its prompts' last tokens.
        tries: per row, the trie of admissible phrases of each of its decisions.
        branches: per row, the columns where each of several continuations of the row's beginning
            begins, which do not see one another; none where the row is one sequence.
    """
    lengths = np.array([len(row) for row in rows])
    extra = np.array([sum(len(trie.tokens) for trie in row) for row in tries])
    width = int((lengths + extra).max())
    most = max((len(trie.tokens) for row in tries for trie in row), default=0)
    token_ids = np.zeros((len(rows), width), dtype=np.int64)
    column = np.arange(width)
    slot = column + np.asarray(starts, dtype=np.int64)[:, None]
    position, base, last = slot.copy(), slot.copy(), slot.copy()
    counts = [len(row) for row in decisions]
    decision_row = np.repeat(np.arange(len(rows)), counts)
    decision_column = np.concatenate([np.asarray(row, dtype=np.int64) for row in decisions])
    node_column = np.zeros((len(decision_row), most), dtype=np.int64)
    token_ids[column < lengths[:, None]] = list(chain.from_iterable(rows))
    decision = 0
    for index, row in enumerate(rows if most else ()):
        if not extra[index]:
            decision += counts[index]
            continue
        at = len(row)
        for prompt_end, trie in zip(decisions[index], tries[index], strict=True):
            nodes = slice(at, at + len(trie.tokens))
            token_ids[index, nodes] = trie.tokens
            position[index, nodes] = position[index, prompt_end] + trie.depth
            base[index, nodes] = slot[index, prompt_end]
            last[index, nodes] = slot[index, at] + trie.last if len(trie.tokens) else 0
            node_column[decision, : len(trie.tokens)] = column[nodes]
            at += len(trie.tokens)
            decision += 1
        position[index, at:] = 0
    for index, begins in enumerate(branches):
        for begin, end in pairwise([*begins, len(rows[index])]):
            if begin == end:
                continue
            branch = slice(begin, end)
            position[index, branch] -= begin - begins[0]
            base[index, branch] = slot[index, begins[0]] - 1
            last[index, branch] = slot[index, begin] + end - begin - 1
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
        branching=most > 0 or any(branches),
    )


@dataclass(frozen=True, eq=False)
class Scores:
    """The policy over the admissible phrases of D decisions, and how it came about."""

    log_policy: Tensor  # (D, A) normalised over each decision's phrases; -inf where padded
    tokens: Tensor | None  # (D, E) an edge's log-probability, where each token is a decision
    path: Tensor  # (D, A, L) the edges that choose a phrase, -1 where padded

    def of(self, choices: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the chosen phrases (D,), one a decision: (D, L) and their mask."""
        if self.tokens is None:
            chosen = self.log_policy.gather(1, choices[:, None])
            return chosen, torch.ones_like(chosen, dtype=torch.bool)
        index = choices[:, None, None].expand(-1, 1, self.path.shape[2])
        path = self.path.gather(1, index).squeeze(1)  # (D, L)
        mask = path >= 0
        return self.tokens.gather(1, path.clamp(min=0)).where(mask, 0.0), mask


def score_phrases(
    hidden: Tensor,
    layout: Layout,
    trie_batch: TrieBatch,
    tree_of_decision: Tensor,
    head: Head,
    temperature: float = 1.0,
) -> Scores:
    """The policy over the admissible phrases of every decision.

    Args:
        hidden: (B, W, H) last hidden states of the layout's tokens.
        trie_batch: the U tries in use.
        tree_of_decision: (D,) the index in the trie_batch of each decision's trie.
        head: the language-model head, its weights of the states' dtype.
        temperature: scores (constrained: logits) are divided by it; above 0.
    """
    row, column = layout.decision_row, layout.decision_column
    nodes = hidden[row, column][:, None]  # (D, 1, H)
    if layout.branching:
        inner = hidden[row[:, None], layout.node_column]  # (D, M, H)
        nodes = torch.cat((nodes, inner), dim=1)  # (D, 1 + M, H)
    edge_node = trie_batch.edge_node[tree_of_decision]  # (D, E)
    logits = _edge_logits(nodes, trie_batch, tree_of_decision, head)
    path = trie_batch.path[tree_of_decision]
    if trie_batch.rule == "constrained":
        logits = (logits / temperature).masked_fill(
            ~trie_batch.is_edge[tree_of_decision], -torch.inf
        )
        tokens = logits - _log_sum_exp_by(edge_node, logits, nodes.shape[1])
        tokens = tokens.masked_fill(~trie_batch.is_edge[tree_of_decision], 0.0)
    else:
        tokens = logits - _normalisers(nodes, trie_batch.rule, head).gather(1, edge_node)
    scores = (trie_batch.uses[tree_of_decision] @ tokens[..., None]).squeeze(-1)  # (D, A)
    scores = scores.masked_fill(~trie_batch.is_action[tree_of_decision], -torch.inf)
    if trie_batch.rule == "constrained":
        return Scores(scores, tokens, path)
    scores = scores / trie_batch.divisor[tree_of_decision] / temperature
    return Scores(torch.log_softmax(scores, dim=-1), None, path)


def _edge_logits(
    nodes: Tensor, trie_batch: TrieBatch, tree_of_decision: Tensor, head: Head
) -> Tensor:
    """(D, E) float32 logits of the edges' tokens at their upper ends, from (D, 1 + M, H)."""
    edge_node = trie_batch.edge_node[tree_of_decision]  # (D, E)
    edge_token = trie_batch.edge_token[tree_of_decision]  # (D, E)
    if len(trie_batch.edge_token) == 1:  # one set of phrases for all: a small matrix product
        products = torch.nn.functional.linear(
            nodes.flatten(0, 1), head.weight[trie_batch.edge_token[0]]
        )
        logits = products.view(*nodes.shape[:2], -1)  # (D, 1 + M, E)
        logits = logits.gather(1, edge_node[:, None]).squeeze(1)
    else:
        states = nodes.gather(1, edge_node[..., None].expand(-1, -1, nodes.shape[-1]))
        logits = (states * head.weight[edge_token]).sum(-1, dtype=torch.float32)
    return head.finished(logits, None if head.bias is None else head.bias[edge_token])


def _normalisers(nodes: Tensor, rule: str, head: Head) -> Tensor:
    """(D, 1 + M) log-normalisers over the vocabulary; the root's is 0 where it cancels."""
    counted = nodes[:, 1:] if rule == "sum" else nodes
    root = nodes.new_zeros(len(nodes), nodes.shape[1] - counted.shape[1], dtype=torch.float32)
    if counted.shape[1] == 0:
        return root
    vocabulary = head.logits(counted.flatten(0, 1)).view(*counted.shape[:2], -1)
    return torch.cat((root, torch.logsumexp(vocabulary, dim=-1)), dim=1)


def _log_sum_exp_by(group: Tensor, values: Tensor, groups: int) -> Tensor:
    """(D, E) for every entry, the log-sum-exp of (D, E) ``values`` over its ``group``."""
    most = values.new_full((len(values), groups), -torch.inf)
    most = most.scatter_reduce(1, group, values.detach(), "amax").gather(1, group)
    sums = values.new_zeros(len(values), groups)
    sums = sums.scatter_add(1, group, (values - most).exp())
    return sums.gather(1, group).log() + most
