"""How a policy comes to a decision: the options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from lang_agent.errors import LangAgentError, unknown
from lang_agent.ranges import Range, check_ranges, refuse_unused

RULES = ("sum", "token-mean", "word-mean", "constrained")  # by which tokens make phrases
GENERATE = "generate"
COLDEST = 0.01  # a lower temperature than this overflows float32 where logits are divided by it


@dataclass(frozen=True)
class DecideConfig:
    """How the policy comes to a decision."""

    decide: str = "sum"
    """score, which is sum, token-mean or word-mean (weigh every admissible phrase by its
    log-probability, or by that divided by its tokens or words), constrained (a token at a time
    among those that still lead to a phrase) or generate (free text, parsed)."""
    temperature: Annotated[float, Range(0)] = 1.0
    """Of the draws; 0 takes the most likely, which training refuses."""
    max_new_tokens: Annotated[int, Range(1)] = 32
    """The most to write for one decision, for generate."""
    top_k: Annotated[int, Range(0)] = 0
    """Write with the k most likely tokens alone; 0 for all."""
    top_p: Annotated[float, Range(above=0, high=1)] = 1.0
    """Write with the most likely tokens that have this probability together (nucleus)."""
    min_p: Annotated[float, Range(0, 1)] = 0.0
    """Leave out tokens below this part of the most likely one's probability."""

    def __post_init__(self) -> None:
        if self.decide == "score":
            object.__setattr__(self, "decide", RULES[0])
        if self.decide not in (*RULES, GENERATE):
            raise unknown("way to decide", self.decide, (*RULES, GENERATE))
        check_ranges(self)
        if 0 < self.temperature < COLDEST:
            raise LangAgentError(
                f"temperature={self.temperature} must be 0 (greedy), or {COLDEST} or more."
            )
        if self.decide != GENERATE:
            names = ("max_new_tokens", "top_k", "top_p", "min_p")
            refuse_unused(
                self, dict.fromkeys(names, f"with decide={self.decide}: it is for generate")
            )
