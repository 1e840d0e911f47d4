"""Those who act: the policy, and the ones it is compared with."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import gymnasium
import torch

from lang_agent.cache import RaggedCache
from lang_agent.errors import LangAgentError
from lang_agent.policy import LanguagePolicy, sample
from lang_agent.rollout import Decision, TextObservation
from lang_agent.scoring import lay_out


class PolicyAgent:
    """A language policy acting in up to ``slots`` episodes at once.

    While an episode's prompt only grows, its keys and values stay and each token is encoded once;
    a prompt that starts anew keeps whatever it shares with the one before it.

    Args:
        temperature: of the draw among the phrases; 0 takes the most likely one.
        generator: of the draws.
    """

    def __init__(
        self,
        policy: LanguagePolicy,
        slots: int,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        if temperature < 0:
            raise LangAgentError(f"temperature={temperature} must be 0 (greedy) or more.")
        self.policy, self.temperature = policy, temperature
        self.generator = generator or torch.Generator().manual_seed(0)
        self._cache = RaggedCache(slots)
        self._contexts: list[list[int]] = [[] for _ in range(slots)]
        self._cached = [0] * slots  # how many of the context's tokens have keys in the cache
        self._texts = [""] * slots  # the context as text: prompt and action taken

    def begin(self, slot: int, env: gymnasium.Env[str, str]) -> None:
        """Keep the environment's prompts within the model's context."""
        limit = getattr(env.unwrapped, "limit_prompt", None)
        if limit is not None:
            limit(self.policy.prompt_budget(env.unwrapped.phrases), self.policy.count_tokens)  # type: ignore[attr-defined]

    @torch.no_grad()
    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        policy = self.policy
        rows, starts, trees = [], [], []
        for slot, observation in zip(slots, observations, strict=True):
            if observation.actions is None:
                raise LangAgentError("This environment gives no admissible actions to score.")
            start = self._read(slot, observation.prompt.rstrip(" "))
            policy.check_fits(len(self._contexts[slot]), observation.actions)
            rows.append(self._contexts[slot][start:])
            starts.append(start)
            trees.append(policy.tree(observation.actions))
        ends = [[len(row) - 1] for row in rows]
        layout = lay_out(rows, starts, ends, [[tree] for tree in trees], policy.device)
        where = torch.tensor(slots, device=policy.device)
        hidden = policy.hidden_states(layout, self._cache, where)
        log_probs = policy.log_policy(hidden, layout, trees).cpu()  # (B, A)
        values = policy.values(hidden, layout).tolist()
        choices = sample(log_probs, self.temperature, self.generator)
        chosen = log_probs.gather(1, choices[:, None]).squeeze(1).tolist()
        decisions = []
        for row, (slot, observation) in enumerate(zip(slots, observations, strict=True)):
            choice = int(choices[row])
            action = observation.actions[choice]  # type: ignore[index]
            context = self._contexts[slot]
            position = len(context) - 1
            self._cached[slot] = len(context)
            context += policy.encode_action(action)
            self._texts[slot] = f"{observation.prompt.rstrip(' ')} {action}"
            decisions.append(Decision(action, context, position, choice, chosen[row], values[row]))
        return decisions

    def _read(self, slot: int, prompt: str) -> int:
        """Make the slot's context that of the prompt; returns how much of it is in the cache."""
        before, text = self._contexts[slot], self._texts[slot]
        if text and prompt.startswith(text):
            before += self.policy.encode(prompt[len(text) :])
            return min(self._cached[slot], len(before) - 1)
        context = self.policy.encode_prompt(prompt)
        limit = min(self._cached[slot], len(context) - 1)
        shared = 0
        while shared < limit and context[shared] == before[shared]:
            shared += 1
        self._contexts[slot] = context
        return shared


class RandomAgent:
    """Every admissible phrase equally likely."""

    def __init__(self, seed: int = 0) -> None:
        self._draw = random.Random(seed)

    def begin(self, slot: int, env: gymnasium.Env[str, str]) -> None:
        pass

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        return [Decision(self._draw.choice(seen.actions or ("",))) for seen in observations]


class ConstantAgent:
    """The same answer to everything."""

    def __init__(self, action: str) -> None:
        self.action = action

    def begin(self, slot: int, env: gymnasium.Env[str, str]) -> None:
        pass

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        return [Decision(self.action) for _ in observations]


class BotAgent:
    """The world's own expert, where it has one (BabyAI's bot)."""

    def __init__(self) -> None:
        self._experts: dict[int, Callable[[str | None], str]] = {}
        self._last: dict[int, str | None] = {}

    def begin(self, slot: int, env: gymnasium.Env[str, str]) -> None:
        expert = getattr(env.unwrapped, "expert_action", None)
        if expert is None:
            raise LangAgentError("This environment has no expert for the bot to follow.")
        self._experts[slot], self._last[slot] = expert, None

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        for slot in slots:
            self._last[slot] = self._experts[slot](self._last[slot])
        return [Decision(self._last[slot] or "") for slot in slots]
