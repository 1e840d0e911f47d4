"""The reference policy: what a KL penalty keeps the policy near to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from lang_agent.batches import Sample, by_length, collate
from lang_agent.config import DecideConfig, LearnConfig
from lang_agent.lora import has_lora, without_lora
from lang_agent.objective import decision_log_probs, token_values
from lang_agent.policy import LanguagePolicy


class Reference:
    """A policy that stays as it is; or, with LoRA, the model without its adapter."""

    def __init__(self, policy: LanguagePolicy) -> None:
        self.frozen = None if has_lora(policy.model) else policy.eval().requires_grad_(False)

    @contextmanager
    def of(self, policy: LanguagePolicy) -> Iterator[LanguagePolicy]:
        """The reference of ``policy``, to compute with."""
        if self.frozen is not None:
            yield self.frozen
            return
        with without_lora(policy.model):
            yield policy


@torch.no_grad()
def read_reference(
    policy: LanguagePolicy,
    reference: Reference,
    samples: Sequence[Sample],
    config: LearnConfig,
    decide: DecideConfig,
) -> None:
    """Write the reference's log-probabilities of each decision's tokens beside it."""
    with reference.of(policy) as other:
        for part in by_length(samples, config.batch_tokens):
            batch = collate(part, policy.device)
            states = other.hidden_states(batch.layout)
            log_probs, _ = decision_log_probs(other, states, batch, decide)
            rows = iter(log_probs.tolist())
            for sample in part:
                for decision in sample.decisions:
                    decision.reference = next(rows)[: len(decision.log_probs)]


@torch.no_grad()
def read_token_values(
    policy: LanguagePolicy, samples: Sequence[Sample], config: LearnConfig
) -> None:
    """Write the value before each token of each decision beside it."""
    for part in by_length(samples, config.batch_tokens):
        batch = collate(part, policy.device)
        rows = iter(token_values(policy, policy.hidden_states(batch.layout), batch).tolist())
        for sample in part:
            for decision in sample.decisions:
                decision.token_values = next(rows)[: len(decision.log_probs)]


def adapted(coefficient: float, divergence: float, decisions: int, config: LearnConfig) -> float:
    """The KL coefficient after an update (Ziegler et al. 2019, arXiv 1909.08593, sec. 2.2).

    It moves by the relative error of the divergence, at most a fifth for every ``kl_horizon``
    decisions.
    """
    if config.kl_target is None:
        return coefficient
    error = min(max(divergence / config.kl_target - 1, -0.2), 0.2)
    return coefficient * (1 + error * decisions / config.kl_horizon)
