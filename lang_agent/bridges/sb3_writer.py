"""Writing for Stable-Baselines3: the state is the text so far, an action is the next token, and a
causal language model is the policy network; extra ``sb3``.

It is the token-level decision process that RLHF is often drawn as (Ramamurthy et al. 2022, arXiv
2210.01241, sec. 3). Every step reads the whole text again: Stable-Baselines3 keeps no keys and
values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from lang_agent.bridges.sb3_env import TokenSpace
from lang_agent.bridges.sb3_features import check_tokenizer, read_rows, token_rows
from lang_agent.errors import LangAgentError
from lang_agent.language_env import language_env
from lang_agent.models.policy import LanguagePolicy

try:
    from stable_baselines3.common.distributions import Distribution
    from stable_baselines3.common.policies import ActorCriticPolicy
except ImportError:
    raise LangAgentError(
        "Stable-Baselines3 needs an extra: pip install 'lang_agent[sb3]'."
    ) from None


class TokenWritingEnv(gymnasium.Env[np.ndarray, int]):
    """An environment of free text (``TextGeneration-v0``, ``Dialogue-v0``), a token at a time.

    Observations are the token ids of the prompt and of what was written so far
    (:class:`TokenSpace`). A text ends with an end token or after ``max_new_tokens``; it is the
    action of the environment within, whose reward comes with that step, and 0 with all before.

    Args:
        policy: the language model whose tokens are written.
        length: the most tokens of a prompt and a text together.
        tokens: the ids that may be written, in the order of the actions; by default all. Without
            an end token among them every text has ``max_new_tokens``.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        env: gymnasium.Env[str, str],
        policy: LanguagePolicy,
        *,
        max_new_tokens: int = 24,
        length: int = 64,
        tokens: Sequence[int] | None = None,
    ) -> None:
        self.env, self.codec, self.ends = env, policy.codec, policy.end_tokens
        self.max_new_tokens = max_new_tokens
        self.tokens = list(range(len(policy.tokenizer)) if tokens is None else tokens)
        self._space = TokenSpace(policy.tokenizer, length)
        self.observation_space = self._space
        self.action_space = spaces.Discrete(len(self.tokens))  # type: ignore[assignment]
        self._prompt: list[int] = []
        self._written: list[int] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        prompt, info = self.env.reset(seed=seed, options=options)
        if info.get("actions") is not None:
            raise LangAgentError(
                f"{language_env(self.env).name} has phrases to choose from, not texts to write: "
                "use TokenEnv."
            )
        return self._asked(prompt), info

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        token = self.tokens[int(action)]
        ended = token in self.ends
        if not ended:
            self._written.append(token)
        if not ended and len(self._written) < self.max_new_tokens:
            return self._space.fill([*self._prompt, *self._written]), 0.0, False, False, {}
        text = self.codec.decode(self._written)
        whole = self._space.fill([*self._prompt, *self._written])
        prompt, reward, terminated, truncated, info = self.env.step(text)
        info["text"], info["is_success"] = text, bool(info.get("success", False))
        over = terminated or truncated
        return (
            whole if over else self._asked(prompt),
            float(reward),
            terminated,
            truncated,
            info,
        )

    def _asked(self, prompt: str) -> np.ndarray:
        self._prompt, self._written = self.codec.encode_prompt(prompt), []
        room = self._space.length - self.max_new_tokens
        if len(self._prompt) > room:
            raise LangAgentError(
                f"The prompt {prompt[:40]!r}... has {len(self._prompt)} tokens, and beside a text "
                f"of max_new_tokens={self.max_new_tokens} there is room for {room}: make the "
                f"environment with length={len(self._prompt) + self.max_new_tokens} or more."
            )
        return self._space.fill(self._prompt)


class LanguageModelPolicy(ActorCriticPolicy):
    """A causal language model as the policy of PPO or A2C: an action's logit is that of its token
    as the next one, and the value is the model's own value head's, of the last token's state.

    The model is the one that is given, not a copy: once it has learned,
    ``model.policy.language.save_pretrained(folder)`` writes what ``lang-agent generate`` reads.

    Args:
        language: a :class:`LanguagePolicy`; in ``policy_kwargs``.
        tokens: the ids of the environment's actions, where they are not all.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Any,
        *,
        language: LanguagePolicy,
        tokens: Sequence[int] | None = None,
        use_sde: bool = False,
        **options: Any,
    ) -> None:
        check_tokenizer(observation_space, language)
        super().__init__(observation_space, action_space, lr_schedule, **options)
        self.language = language
        chosen = range(len(language.tokenizer)) if tokens is None else tokens
        if not isinstance(action_space, spaces.Discrete) or action_space.n != len(chosen):
            raise LangAgentError(
                f"The environment's actions are {action_space}, and the policy's {len(chosen)} "
                "tokens: give both the same tokens=[...]."
            )
        self.tokens: Tensor
        self.register_buffer("tokens", torch.tensor(list(chosen)))
        trained = [one for one in language.parameters() if one.requires_grad]
        self.optimizer = self.optimizer_class(trained, lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def _build(self, lr_schedule: Any) -> None:
        """There is no network beside the language model."""

    def _read(self, obs: Any) -> tuple[Distribution, Tensor]:
        """The distribution of the next token, and (B, 1) values."""
        states, at = read_rows(self.language, token_rows(obs))
        logits = self.language.token_logits(states.last[at])[:, self.tokens]  # (B, A)
        values = self.language.value_head(states.for_value[at])
        return self.action_dist.proba_distribution(action_logits=logits), values

    def forward(self, obs: Any, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        distribution, values = self._read(obs)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, values, distribution.log_prob(actions)

    def evaluate_actions(self, obs: Any, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        distribution, values = self._read(obs)
        return values, distribution.log_prob(actions), distribution.entropy()

    def get_distribution(self, obs: Any) -> Distribution:
        return self._read(obs)[0]

    def predict_values(self, obs: Any) -> Tensor:
        return self._read(obs)[1]

    def set_training_mode(self, mode: bool) -> None:
        """The model has no dropout, so that it is the same in both."""
        nn.Module.train(self, False)
