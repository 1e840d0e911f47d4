"""What an episode is made of: observations, decisions, steps; and what an agent is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lang_agent.errors import LangAgentError
from lang_agent.language_env import PromptLimit


@dataclass(frozen=True)
class TextObservation:
    """What an agent acts on: the prompt, and the admissible phrases (None: free text)."""

    prompt: str
    actions: tuple[str, ...] | None
    line: bool = False
    """Of free text, whether one line is asked for."""
    system: str = ""
    """What a chat model is told before all else, where the prompt template says it."""
    expert: str | None = None
    """What the world's expert would say, for agents that ask for it; None once it is lost."""


@dataclass(frozen=True)
class TokenTrace:
    """The tokens of a decision, for whoever learns from it."""

    context: list[int]
    """Token ids, shared by the steps of an episode that extend it."""
    position: int
    """Of the prompt's last token in the context."""
    token_ids: Sequence[int] = ()
    """(L,) what was written, where the answer was free text."""
    log_probs: Sequence[float] = ()
    """(L,) of the tokens written, or of those that chose a phrase; none where nothing was drawn."""
    value: float = 0.0
    """The critic's, of the state."""


@dataclass(frozen=True)
class Usage:
    """How many tokens a decision took."""

    read: int = 0
    written: int = 0


@dataclass(frozen=True)
class Decision:
    """What an agent answered. Agents that nobody learns from fill in the action alone."""

    action: str
    choice: int | None = None
    """The index of the action among the admissible phrases."""
    tokens: TokenTrace | None = None
    probabilities: Sequence[float] = ()
    """Of each admissible phrase, where they were weighed."""
    by_expert: bool = False
    """Whether it belongs to an episode that the world's expert plays, by imitation."""
    counted: Usage | None = None
    """What a remote model counted."""
    error: str = ""
    """Why there is no answer: the episode ends by it, as by an error of its environment."""

    @property
    def usage(self) -> Usage:
        """The tokens read and written, by the remote model's count or ours."""
        if self.counted is not None or self.tokens is None:
            return self.counted or Usage()
        return Usage(self.tokens.position + 1, len(self.tokens.token_ids))


@dataclass
class Step:
    """One decision and what came of it."""

    observation: TextObservation
    decision: Decision
    reward: float
    info: dict[str, Any]
    token_rewards: list[float] = field(default_factory=list)
    """L, where tokens were rewarded apart; they are part of ``reward``."""

    @property
    def trace(self) -> TokenTrace:
        """The decision's tokens; raises :class:`LangAgentError` where the agent kept none."""
        if self.decision.tokens is None:
            raise LangAgentError(
                f"The action {self.decision.action[:40]!r} has no tokens to learn from: its agent "
                "is no PolicyAgent."
            )
        return self.decision.tokens


@dataclass
class Episode:
    """A whole episode. ``last_value`` estimates what a truncation cut off; 0 once terminated."""

    index: int  # in the order of the seeds
    seed: int
    steps: list[Step] = field(default_factory=list)
    terminated: bool = False
    truncated: bool = False
    last_value: float = 0.0
    judged: bool = True
    """False where a reward could not tell, so that there is nothing to learn."""

    @property
    def total_reward(self) -> float:
        """The undiscounted return."""
        return sum(step.reward for step in self.steps)

    @property
    def success(self) -> bool:
        return bool(self.steps) and bool(self.steps[-1].info.get("success", False))

    @property
    def invalid_actions(self) -> int:
        return sum(bool(step.info.get("invalid_action")) for step in self.steps)


class Agent:
    """Anything that answers prompts, several at a time. A subclass must have :meth:`act`."""

    slots: int | None = None
    """How many episodes it can play at once; None for any number."""
    prompt_limit: PromptLimit | None = None
    """How much it can read."""
    asks_expert = False
    """Whether its observations are to have the expert's phrase."""

    critic = False
    """Whether it is asked for the value of the state where an episode is cut off."""
    words: Mapping[str, Any] | None = None
    """The text options that it was trained with, where it was."""
    about: Mapping[str, Any] = {}
    """What results say of it: its name, and of a policy its weights and how it decides."""

    def begin(self, slot: int, seed: int) -> None:
        """A new episode is about to begin in this slot; ``seed`` is of what is drawn in it."""

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        """One decision for each observation."""
        raise NotImplementedError(f"{type(self).__name__} has no act().")

    def values(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[float]:
        """The return that a critic expects from each observation on."""
        raise NotImplementedError(f"{type(self).__name__} says it is a critic and has no values().")

    def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """What each of the tokens that it wrote says, to be shown."""
        return []


class Watched(Agent):
    """Another agent, by whom somebody stands and looks."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.slots, self.prompt_limit = agent.slots, agent.prompt_limit
        self.asks_expert, self.critic = agent.asks_expert, agent.critic
        self.about, self.words = agent.about, agent.words

    def begin(self, slot: int, seed: int) -> None:
        self.agent.begin(slot, seed)

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        return self.agent.act(slots, observations)

    def values(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[float]:
        return self.agent.values(slots, observations)

    def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        return self.agent.token_texts(token_ids)
