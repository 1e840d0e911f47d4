"""An agent that reads examples before every prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from lang_agent.episode import Agent, Decision, Episode, TextObservation, Watched
from lang_agent.errors import LangAgentError

LEAD, END = "Examples of how it is done:\n\n", "\n\nNow it is your turn.\n\n"


class FewShotAgent(Watched):
    """Another agent, whose prompts begin with examples.

    Args:
        examples: what stands before the prompt.

    Raises:
        LangAgentError: examples that leave no room for a prompt in the agent's context.
    """

    def __init__(self, agent: Agent, examples: str) -> None:
        super().__init__(agent)
        self.examples = f"{LEAD}{examples}{END}"
        limit = agent.prompt_limit
        if limit is not None:
            tokens = limit.count_tokens(self.examples)
            left = limit.max_tokens - tokens
            if left < 1:
                raise LangAgentError(
                    f"The examples take {tokens} tokens, and the model reads {limit.max_tokens}: "
                    "give fewer or shorter ones."
                )
            self.prompt_limit = replace(limit, max_tokens=left)
        digest = hashlib.sha256(examples.encode()).hexdigest()[:16]
        self.about = {**agent.about, "examples": digest}

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        return super().act(slots, [self._with_examples(seen) for seen in observations])

    def values(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[float]:
        return super().values(slots, [self._with_examples(seen) for seen in observations])

    def _with_examples(self, seen: TextObservation) -> TextObservation:
        return replace(seen, prompt=self.examples + seen.prompt)


def as_examples(episodes: Sequence[Episode]) -> str:
    """Episodes as one text: of a transcript the whole of it, of other prompts one after another,
    each with the action that was taken."""
    told = []
    for episode in episodes:
        pieces: list[str] = []
        before = ""
        for step in episode.steps:
            prompt, action = step.observation.prompt, step.decision.action
            if before and prompt.startswith(before):
                pieces.append(prompt[len(before) :])
            else:
                pieces.append(("\n\n" if pieces else "") + prompt)
            pieces.append(action)
            before = prompt + action
        told.append("".join(pieces))
    return "\n\n".join(told)
