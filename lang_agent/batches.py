"""From episodes to batches of token sequences with decisions on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lang_agent.policy import LanguagePolicy
from lang_agent.rollout import Episode
from lang_agent.scoring import ActionTree, Layout, lay_out


@dataclass
class Sample:
    """One token sequence and the decisions made along it, with all that learning needs of them.

    A transcript's episode is one sample (or a few, where it outgrew the context); with a window
    prompt every step is its own.
    """

    token_ids: list[int]
    columns: list[int] = field(default_factory=list)  # of each decision's last prompt token
    trees: list[ActionTree] = field(default_factory=list)
    choices: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    advantages: list[float] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)


def to_samples(
    policy: LanguagePolicy,
    episodes: Sequence[Episode],
    advantages: Sequence[Sequence[float]],
    returns: Sequence[Sequence[float]],
) -> list[Sample]:
    """Gather the steps that share a context into one sample each."""
    samples = []
    for episode, advantage, target in zip(episodes, advantages, returns, strict=True):
        context: list[int] | None = None
        for step, a, r in zip(episode.steps, advantage, target, strict=True):
            decision = step.decision
            if decision.context is not context:
                context = decision.context
                samples.append(Sample(context))
            sample = samples[-1]
            sample.columns.append(decision.position)
            sample.trees.append(policy.tree(step.observation.actions or ()))
            sample.choices.append(decision.choice)
            sample.log_probs.append(decision.log_prob)
            sample.values.append(decision.value)
            sample.advantages.append(a)
            sample.returns.append(r)
    for sample in samples:  # what follows the last decision was never a prompt's
        sample.token_ids = sample.token_ids[: sample.columns[-1] + 1]
    return samples


def minibatches(
    samples: Sequence[Sample], decisions: int, generator: torch.Generator
) -> Iterator[list[Sample]]:
    """Random parts of about ``decisions`` decisions each; a small remainder joins the last."""
    order = torch.randperm(len(samples), generator=generator).tolist()
    left = sum(len(sample.columns) for sample in samples)
    batch: list[Sample] = []
    size = 0
    for index in order:
        batch.append(samples[index])
        size += len(samples[index].columns)
        if size >= decisions and left - size >= decisions // 2:
            left -= size
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def by_length(samples: Sequence[Sample], max_tokens: int) -> Iterator[list[Sample]]:
    """Samples of similar length together, at most ``max_tokens`` a batch, padding included."""
    batch: list[Sample] = []
    for sample in sorted(samples, key=lambda sample: -len(sample.token_ids)):
        if batch and len(batch[0].token_ids) * (len(batch) + 1) > max_tokens:
            yield batch
            batch = []
        batch.append(sample)
    if batch:
        yield batch


@dataclass(frozen=True, eq=False)
class Batch:
    """B sequences with D decisions on them, as tensors."""

    layout: Layout
    trees: list[ActionTree]  # D
    choices: Tensor  # (D,) int64
    log_probs: Tensor  # (D,) of the policy that acted
    values: Tensor  # (D,) likewise
    advantages: Tensor  # (D,)
    returns: Tensor  # (D,)

    def __len__(self) -> int:
        return len(self.trees)


def collate(samples: Sequence[Sample], device: torch.device) -> Batch:
    """Samples as one :class:`Batch`."""

    def flat(name: str) -> list[float]:
        return [value for sample in samples for value in getattr(sample, name)]

    return Batch(
        layout=lay_out(
            [sample.token_ids for sample in samples],
            [0] * len(samples),
            [sample.columns for sample in samples],
            [sample.trees for sample in samples],
            device,
        ),
        trees=[tree for sample in samples for tree in sample.trees],
        choices=torch.tensor(flat("choices"), dtype=torch.int64, device=device),
        **{
            name: torch.tensor(flat(name), dtype=torch.float32, device=device)
            for name in ("log_probs", "values", "advantages", "returns")
        },
    )
