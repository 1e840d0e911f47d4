"""The reference policy: what a KL penalty keeps the policy near to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch

from lang_agent.learn.config import LearnConfig
from lang_agent.learn.objective import evaluate_actions, token_values
from lang_agent.learn.sequences import ByPlace, Sample, collate, unpadded
from lang_agent.models.decide import DecideConfig
from lang_agent.models.lora import has_lora, without_lora
from lang_agent.models.policy import LanguagePolicy
from lang_agent.models.sharding import learning


class Reference:
    """A policy that stays as it is; or, with LoRA, the model without its adapter."""

    def __init__(self, policy: LanguagePolicy) -> None:
        self.frozen = None if has_lora(policy.model) else policy.eval().requires_grad_(False)

    @contextmanager
    def of(self, policy: LanguagePolicy) -> Iterator[LanguagePolicy]:
        """The reference of ``policy``, to compute with."""
        if self.frozen is not None:
            with learning(self.frozen):
                yield self.frozen
            return
        with without_lora(policy.model):
            yield policy


@torch.no_grad()
def read_reference(
    policy: LanguagePolicy,
    reference: Reference,
    batches: Iterable[Sequence[Sample]],
    decide: DecideConfig,
) -> ByPlace:
    """The reference's log-probabilities of each decision's tokens, by the decision's place."""
    found: ByPlace = {}
    with reference.of(policy) as other:
        for part in batches:
            batch = collate(part, policy.device)
            found |= unpadded(part, evaluate_actions(other, batch, decide).log_probs)
    return found


@torch.no_grad()
def read_token_values(policy: LanguagePolicy, batches: Iterable[Sequence[Sample]]) -> ByPlace:
    """The value before each token of each decision, by the decision's place."""
    found: ByPlace = {}
    for part in batches:
        batch = collate(part, policy.device)
        values = token_values(policy, policy.hidden_states(batch.layout), batch)
        found |= unpadded(part, values)
    return found


COEFFICIENT_RANGE = 1000.0  # times what it began with, and that part of it


def adapted(coefficient: float, divergence: float, decisions: int, config: LearnConfig) -> float:
    """The KL coefficient for the next update (Ziegler et al. 2019, arXiv 1909.08593, sec. 2.2).

    It is multiplied by 1 + e * decisions / ``kl_horizon``, where e, the relative error of the
    divergence, is held between -0.2 and 0.2. Departures: an update of more decisions than the
    horizon moves it as one of so many, or the factor would become negative; and it stays within a
    factor of ``COEFFICIENT_RANGE`` of ``kl_coef``, so that it can come back.

    Args:
        divergence: KL(policy | reference) in nats a decision, measured over the update.
        decisions: how many it had.
    """
    if config.kl_target is None:
        return coefficient
    error = min(max(divergence / config.kl_target - 1, -0.2), 0.2)
    moved = coefficient * (1 + error * min(decisions / config.kl_horizon, 1.0))
    least, most = config.kl_coef / COEFFICIENT_RANGE, config.kl_coef * COEFFICIENT_RANGE
    return min(max(moved, least), most)
