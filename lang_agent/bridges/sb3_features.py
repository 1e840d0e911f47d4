"""What Stable-Baselines3's policies see of a prompt: features extractors over token ids.

Each takes the (B, length) ids of a :class:`lang_agent.bridges.sb3_env.TokenSpace` and gives
(B, features_dim) features that do not depend on how much a prompt is filled up with 0. Name one in
``policy_kwargs=dict(features_extractor_class=...)``; the extra ``sb3`` is needed.
"""

from __future__ import annotations

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lang_agent.bridges.sb3_env import TokenSpace
from lang_agent.errors import LangAgentError
from lang_agent.models.phrase_scoring import lay_out
from lang_agent.models.policy import LanguagePolicy, States
from lang_agent.models.store import load_policy
from lang_agent.models.trie import NO_PHRASES

try:
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
except ImportError:
    raise LangAgentError(
        "Stable-Baselines3 needs an extra: pip install 'lang_agent[sb3]'."
    ) from None


class BagFeatures(BaseFeaturesExtractor):
    """The mean of a prompt's token embeddings: quick, and blind to the order of the tokens."""

    def __init__(self, observation_space: spaces.Box, features_dim: int = 128) -> None:
        super().__init__(observation_space, features_dim)
        self.words = nn.Embedding(_tokens(observation_space) + 1, features_dim, padding_idx=0)

    def forward(self, observations: Tensor) -> Tensor:
        ids, real = real_tokens(observations)
        return mean_state(self.words(ids), real)


class TransformerFeatures(BaseFeaturesExtractor):
    """The mean of a prompt's states in a small transformer, in which every token sees all others
    (Vaswani et al. 2017, arXiv 1706.03762, with the norms before the blocks and no dropout).

    Stable-Baselines3 draws the weights of linear layers anew, as orthogonal matrices, unless its
    policy is told ``ortho_init=False``.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        features_dim: int = 128,
        layers: int = 2,
        heads: int = 4,
    ) -> None:
        super().__init__(observation_space, features_dim)
        self.words = nn.Embedding(_tokens(observation_space) + 1, features_dim, padding_idx=0)
        self.positions = nn.Embedding(observation_space.shape[0], features_dim)
        block = nn.TransformerEncoderLayer(
            features_dim, heads, 4 * features_dim, 0.0, "gelu", batch_first=True, norm_first=True
        )
        norm = nn.LayerNorm(features_dim)
        self.blocks = nn.TransformerEncoder(block, layers, norm, enable_nested_tensor=False)

    def forward(self, observations: Tensor) -> Tensor:
        ids, real = real_tokens(observations)
        places = torch.arange(ids.shape[1], device=ids.device)
        states = self.words(ids) + self.positions(places)  # (B, W, H)
        with sdpa_kernel(SDPBackend.MATH):  # the only one with a second derivative, for TRPO
            states = self.blocks(states, src_key_padding_mask=~real)
        return mean_state(states, real)


class LanguageModelFeatures(BaseFeaturesExtractor):
    """A language model's last hidden state of a prompt's last token, (B, H).

    Args:
        model: what :func:`lang_agent.load_policy` loads, or a policy in memory. The environment
            must have its tokenizer.
        trained: whether the model learns too. If not, it stays as it is, and a saved policy has no
            copy of its weights but loads ``model`` again.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        model: str | LanguagePolicy = "babyai",
        trained: bool = False,
    ) -> None:
        language = load_policy(model) if isinstance(model, str) else model
        super().__init__(observation_space, language.value_head.in_features)
        check_tokenizer(observation_space, language)
        self.trained = trained
        self.network = language if trained else None
        self._language = (language,)  # a tuple hides its weights from the policy that learns
        self._kept: dict[tuple[int, ...], Tensor] = {}

    def forward(self, observations: Tensor) -> Tensor:
        (language,) = self._language
        rows = token_rows(observations)
        if self.trained:
            return last_states(language, rows).to(observations.device)
        new = list({tuple(row) for row in rows} - self._kept.keys())
        if new:
            with torch.no_grad():
                self._kept |= zip(new, last_states(language, new), strict=True)
        features = torch.stack([self._kept[tuple(row)] for row in rows]).to(observations.device)
        if len(self._kept) > KEPT:
            self._kept.clear()
        return features


KEPT = 20_000
"""Prompts whose states a model that does not learn keeps, for the epochs of an update."""


def last_states(language: LanguagePolicy, rows: list[list[int]] | list[tuple[int, ...]]) -> Tensor:
    """(B, H) the last hidden states of B prompts' last tokens."""
    states, (row, column) = read_rows(language, rows)
    return states.last[row, column].float()


def read_rows(
    language: LanguagePolicy, rows: list[list[int]] | list[tuple[int, ...]]
) -> tuple[States, tuple[Tensor, Tensor]]:
    """Hidden states (B, W, H) of B rows of token ids, and where in them their last tokens stand;
    those of other tokens may be anything."""
    ends = [[len(row) - 1] for row in rows]
    none = [[NO_PHRASES]] * len(rows)
    layout = lay_out(rows, [0] * len(rows), ends, none, language.device)
    states = language.hidden_states(layout, decisions_only=True)
    return states, (layout.decision_row, layout.decision_column)


def real_tokens(observations: Tensor) -> tuple[Tensor, Tensor]:
    """(B, W) ids and which of them are tokens (bool); columns that no prompt reaches are left out,
    which saves their time."""
    ids = observations.long()
    width = max(int((ids > 0).sum(1).max()), 1)
    return ids[:, :width], ids[:, :width] > 0


def mean_state(states: Tensor, real: Tensor) -> Tensor:
    """(B, H) the mean over those of (B, W, H) states that are of tokens."""
    counted = states.masked_fill(~real[:, :, None], 0.0).sum(1)
    return counted / real.sum(1, keepdim=True).clamp(min=1)


def token_rows(observations: Tensor) -> list[list[int]]:
    """The token ids of each prompt, as its tokenizer numbers them."""
    rows = observations.long().tolist()
    return [[token - 1 for token in row if token] or [0] for row in rows]


def check_tokenizer(observation_space: spaces.Space, language: LanguagePolicy) -> None:
    """Raise :class:`LangAgentError` where the environment's tokens are not the model's."""
    if not isinstance(observation_space, TokenSpace):
        raise LangAgentError("The observations are no token ids: put a TokenEnv around the world.")
    if observation_space.tokenizer.get_vocab() != language.tokenizer.get_vocab():
        raise LangAgentError(
            "The environment's tokens are not the language model's: make it as "
            "TokenEnv(env, policy.tokenizer)."
        )
    if observation_space.length > language.context:
        raise LangAgentError(
            f"Observations of {observation_space.length} tokens exceed the model's context of "
            f"{language.context}: make the environment with length={language.context} or less."
        )


def _tokens(observation_space: spaces.Box) -> int:
    return int(observation_space.high.max())
