"""Learning from episodes: what goes on from update to update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from lang_agent.episode import Episode
from lang_agent.learn.advantages import returns_to_go
from lang_agent.learn.algorithm import LearnState
from lang_agent.learn.algorithms import algorithm_of, at_progress, resolve
from lang_agent.learn.config import LearnConfig
from lang_agent.learn.credit import compute_advantages, flat_groups, scaled_reward
from lang_agent.learn.optimizer import Optimizer
from lang_agent.learn.reference import Reference, adapted
from lang_agent.learn.sequences import Sample, to_samples
from lang_agent.learn.steps import epochs_step
from lang_agent.learn.workers import ALONE, Workers
from lang_agent.models.decide import DecideConfig
from lang_agent.models.policy import LanguagePolicy
from lang_agent.models.sharding import learning
from lang_agent.seeding import derive
from lang_agent.trust import names_from


class Learner:
    """A policy and what it learns with.

    Args:
        policy: what is learned.
        config: the settings; those that nobody chose are the algorithm's own.
        decide: how the policy decided in the episodes that it learns from.
        optimizer: one that keeps its own learning rate; unless given, the configuration's.
        reference: what a KL penalty keeps the policy near to.
        state: what was remembered from earlier updates.
        updates: how many there were.
        seed: of the minibatches.
        workers: who learns together, each with all of the episodes.

    Raises:
        LangAgentError: an unknown algorithm, or an option that it has no use for.
    """

    def __init__(
        self,
        policy: LanguagePolicy,
        config: LearnConfig | None = None,
        decide: DecideConfig | None = None,
        *,
        optimizer: Optimizer | None = None,
        reference: Reference | None = None,
        state: LearnState | None = None,
        updates: int = 0,
        seed: int = 0,
        workers: Workers = ALONE,
    ) -> None:
        self.policy, self.decide = policy, decide or DecideConfig()
        self.resolved = resolve(config or LearnConfig())
        self.config = self.resolved
        """The settings of the update under way."""
        self.algorithm = algorithm_of(self.resolved)
        self.optimizer = optimizer or self.new_optimizer()
        self._own_rate = optimizer is not None
        self.reference, self.state = reference, state or LearnState()
        self.seed, self.updates, self.workers = seed, updates, workers
        self.generator = torch.Generator()
        """Of the minibatches; seeded anew for every update."""

    def update(
        self, episodes: Sequence[Episode], relabelled: Sequence[Episode] = (), *, done: float = 0.0
    ) -> dict[str, float]:
        """Learn from episodes; returns the means of what was measured over the decisions.

        A step whose loss or gradient is not finite is skipped and counted; after ``MAX_SKIPPED`` in
        a row :class:`LangAgentError` is raised. Where no decision has anything to learn (none is
        labelled, or no group's returns differ) nothing moves.

        Args:
            relabelled: parts of episodes with goals that they reached
                (:mod:`lang_agent.learn.hindsight`), which have a share in every step.
            done: the part of the training that lies behind, by which the learning rate and the
                entropy bonus move.
        """
        now = at_progress(self.resolved, done)
        if not self._own_rate:
            self.optimizer.set_rate(self.learning_rate(done))
        self.generator.manual_seed(derive(self.seed, "minibatches", self.updates))
        metrics: dict[str, float] = {}
        if episodes and now.group_size != 1:
            flat = flat_groups(episodes, now)
            metrics["flat_groups"] = len(flat) / len({episode.seed for episode in episodes})
            if now.drop_flat_groups:
                episodes = [episode for episode in episodes if episode.seed not in flat]
        moved = self.state.kl_coef
        self.config = now if moved is None else replace(now, kl_coef=moved)
        with learning(self.policy):
            metrics |= self._learn(episodes, relabelled, metrics)
        if "reference_kl" in metrics and now.kl_target is not None:
            decisions = sum(len(episode.steps) for episode in episodes)
            divergence = metrics["reference_kl"]
            self.state.kl_coef = adapted(self.config.kl_coef, divergence, decisions, now)
        self.updates += 1
        return metrics

    def _learn(
        self,
        episodes: Sequence[Episode],
        relabelled: Sequence[Episode],
        metrics: dict[str, float],
    ) -> dict[str, float]:
        """Credit and the steps of one update, in the settings of the moment; ``metrics`` will have
        what was measured of the credit, and what is returned is of the steps."""
        samples: list[Sample] = []
        if episodes:
            samples = compute_advantages(
                self.policy,
                episodes,
                self.algorithm,
                self.config,
                self.decide,
                self.state,
                self.reference,
                metrics,
                self.workers,
            )
        step = self.algorithm.step or epochs_step
        model = self.policy.model
        # Dropout is 0: only checkpointing of activations asks for training.
        model.train(self.config.recompute_activations)
        try:
            return step(self, samples, self.relabelled_samples(relabelled))
        finally:
            model.eval()

    def new_optimizer(self) -> Optimizer:
        """The configuration's, of the policy's parameters as they are now."""
        config, rate = self.resolved, self.learning_rate()
        with names_from(config.source):
            return Optimizer(self.policy, config.optimizer, rate, config.weight_decay)

    def learning_rate(self, done: float = 0.0) -> float:
        """The optimizer's, when the part ``done`` of the training lies behind."""
        rate = self.resolved.learning_rate
        assert rate is not None  # it is resolved
        return rate * (1 - (1 - self.resolved.lr_final) * done)

    def relabelled_samples(self, episodes: Sequence[Episode]) -> list[Sample]:
        """Relabelled episodes as samples, whose returns are of rewards scaled and clipped like all
        others."""
        config, returns = self.config, []
        for episode in episodes:
            rewards = [scaled_reward(step.reward, config) for step in episode.steps]
            to_go = returns_to_go(rewards, episode.last_value, config.discount)
            returns.append([[value] for value in to_go])
        return to_samples(self.policy, episodes, returns, returns, self.decide.decide)
