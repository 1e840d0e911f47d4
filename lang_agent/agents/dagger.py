"""Imitation: the world's expert says what to do, and the policy learns to say the same.

Whoever plays, every decision is labelled with the expert's. Where the expert plays this is
behaviour cloning (Pomerleau 1989), and the policy sees only the expert's states; where the policy
plays it is DAgger (Ross et al. 2011, arXiv 1011.0686): the states it gets itself into are labelled
too. Episodes are the expert's or the policy's as a whole; within an expert's episode the
policy takes a share of the steps, a mixture that the paper draws at every step (alg. 3.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lang_agent.agents.expert import follow_expert
from lang_agent.agents.policy_agent import PolicyAgent
from lang_agent.episode import Decision, TextObservation
from lang_agent.models.decide import DecideConfig
from lang_agent.models.policy import LanguagePolicy


class DAggerAgent(PolicyAgent):
    """Plays as the expert or as the policy, episode by episode; its observations have the expert's
    phrase, which is what is learned.

    Args:
        expert_share: of the episodes, how many the expert plays.
        noise: where the expert plays, how many of its actions are replaced by the policy's (random
            ones at first, its own mistakes later), so that recoveries are seen.
    """

    asks_expert = True

    def __init__(
        self,
        policy: LanguagePolicy,
        slots: int,
        decide: DecideConfig,
        *,
        expert_share: float,
        noise: float,
    ) -> None:
        super().__init__(policy, slots, decide)
        self.expert_share = expert_share
        self.noise = noise
        self._by_expert = [False] * slots

    def begin(self, slot: int, seed: int) -> None:
        super().begin(slot, seed)
        self._by_expert[slot] = self._draws[slot].random() < self.expert_share

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        strays = [self._draws[slot].random() < self.noise for slot in slots]
        own = [at for at, slot in enumerate(slots) if strays[at] or not self._by_expert[slot]]
        played = super().act([slots[at] for at in own], [observations[at] for at in own])
        decisions = dict(zip(own, played, strict=True))
        for at, (slot, seen) in enumerate(zip(slots, observations, strict=True)):
            if at not in decisions:
                chosen = follow_expert(seen, self._draws[slot])
                decisions[at] = self.record(slot, seen, chosen.action, chosen.choice)
        return [
            replace(decisions[at], by_expert=self._by_expert[slot]) for at, slot in enumerate(slots)
        ]
