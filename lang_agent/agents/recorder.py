"""An agent in a loop of somebody else's: who asks it, rewards it, and says when an episode ends."""

from __future__ import annotations

from collections.abc import Sequence

from lang_agent.episode import Agent, Episode, Step, TextObservation
from lang_agent.errors import LangAgentError
from lang_agent.seeding import derive
from lang_agent.stepping import as_reward


class Recorder:
    """Asks an agent one prompt at a time, and keeps what came of it as episodes to learn from.

    Args:
        agent: who answers; a critic is also asked for the value where an episode is cut off.
        seed: of the agent's draws; each episode has a stream of its own.
    """

    def __init__(self, agent: Agent, *, seed: int = 0) -> None:
        self.agent, self.seed = agent, seed
        self._finished: list[Episode] = []
        self._begun = 0
        self._episode: Episode | None = None

    def act(self, prompt: str, actions: Sequence[str] | None = None) -> str:
        """The agent's answer to a prompt: one of ``actions``, or free text where there are none.
        The first one begins an episode."""
        if self._episode is None:
            self._episode = Episode(self._begun, self._begun)
            self.agent.begin(0, derive(self.seed, "recorder", self._begun))
            self._begun += 1
        seen = TextObservation(prompt, None if actions is None else tuple(actions))
        (decision,) = self.agent.act([0], [seen])
        self._episode.steps.append(Step(seen, decision, 0.0, {}))
        return decision.action

    def reward(self, value: float) -> None:
        """Add to the reward of the last answer. Raises :class:`LangAgentError` for what is no
        finite number."""
        self._current.steps[-1].reward += as_reward(value)

    def end(self, cut_off_at: str | None = None) -> None:
        """The episode is over; or it was cut off, at a prompt that nobody will answer."""
        episode = self._current
        episode.terminated, episode.truncated = cut_off_at is None, cut_off_at is not None
        if cut_off_at is not None and self.agent.critic:
            seen = TextObservation(cut_off_at, episode.steps[-1].observation.actions)
            (episode.last_value,) = self.agent.values([0], [seen])
        self._finished.append(episode)
        self._episode = None

    def take(self) -> list[Episode]:
        """The episodes that ended since the last call."""
        finished, self._finished = self._finished, []
        return finished

    @property
    def _current(self) -> Episode:
        if self._episode is None:
            raise LangAgentError("There is no episode yet: call act() first.")
        return self._episode
