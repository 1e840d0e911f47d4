"""Policies of Stable-Baselines3 and sb3-contrib as agents: in suites, reports and on the screen."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lang_agent.agents.make import SB3
from lang_agent.bridges.sb3_env import PhraseSpace, TokenSpace
from lang_agent.episode import Agent, Decision, TextObservation, TokenTrace
from lang_agent.errors import LangAgentError
from lang_agent.models.decide import RULES, DecideConfig
from lang_agent.models.sampling import sample


class SB3Agent(Agent):
    """A policy that was trained in :class:`lang_agent.bridges.sb3_env.TokenEnv`;
    ``lang_agent.make(id, like=agent)`` makes a world with its prompt and its phrases.

    Of an actor and critic (PPO, A2C, TRPO, MaskablePPO) decisions have the phrases' probabilities
    and the value; DQN says the phrase of the highest value. A policy that masks weighs the
    admissible phrases alone; any other may say one that is not admissible, as it did in training.

    Args:
        model: an algorithm of Stable-Baselines3 or sb3-contrib, or its policy.
        decide: temperature 0 takes the most likely phrase, 1 draws as in training.

    Raises:
        LangAgentError: a policy of other spaces, or one that remembers (RecurrentPPO).
    """

    config_file: Path | None = None

    def __init__(self, model: Any, decide: DecideConfig = DecideConfig(temperature=0)) -> None:  # noqa: B008
        policy = getattr(model, "policy", model)
        seen, said = policy.observation_space, policy.action_space
        if not (isinstance(seen, TokenSpace) and isinstance(said, PhraseSpace)):
            raise LangAgentError(
                f"A policy of {type(seen).__name__} and {type(said).__name__} knows no words: only "
                "what was trained in a TokenEnv is an agent here."
            )
        if hasattr(policy, "lstm_actor") or not hasattr(policy, "get_distribution") | hasattr(
            policy, "q_net"
        ):
            raise LangAgentError(
                f"A {type(policy).__name__} is no agent here: those of PPO, A2C, TRPO, MaskablePPO "
                "and DQN are."
            )
        if decide.decide != RULES[0]:
            raise LangAgentError(
                f"decide={decide.decide} is for language models: a policy of Stable-Baselines3 "
                "chooses one of its phrases."
            )
        policy.set_training_mode(False)
        self.policy, self.tokens, self.phrases = policy, seen, said.phrases
        self.temperature = decide.temperature
        self.prompt_limit = seen.prompt_limit
        self._actor_critic = hasattr(policy, "predict_values")
        self.words = {"prompt": seen.prompt_name, "actions": list(self.phrases)}
        self._masks = "Maskable" in type(policy).__name__
        self._draws: dict[int, random.Random] = {}

    def begin(self, slot: int, seed: int) -> None:
        self._draws[slot] = random.Random(seed)

    @torch.no_grad()
    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        if not slots:
            return []
        masks = np.array([self._mask(seen) for seen in observations])  # (B, A)
        batch = self._batch(observations)
        scores = self._scores(batch, masks)
        chosen = sample(scores, self.temperature, [self._draws[slot].random() for slot in slots])
        valued = self._actor_critic
        values = self.policy.predict_values(batch).flatten().tolist() if valued else None
        decisions = []
        for at, (seen, number) in enumerate(zip(observations, chosen.tolist(), strict=True)):
            actions = seen.actions or ()
            phrase = self.phrases[number]
            numbers = [self.phrases.index(action) for action in actions]
            ids = self.tokens.codec.encode_prompt(seen.prompt)
            decisions.append(
                Decision(
                    phrase,
                    actions.index(phrase) if phrase in actions else None,
                    TokenTrace(ids, len(ids) - 1, value=values[at] if values else 0.0),
                    scores[at, numbers].exp().tolist() if self._actor_critic else (),
                )
            )
        return decisions

    def _batch(self, observations: Sequence[TextObservation]) -> Tensor:
        rows = np.stack([self.tokens.encode(seen.prompt) for seen in observations])
        return torch.as_tensor(rows, device=self.policy.device)

    def _mask(self, seen: TextObservation) -> list[bool]:
        unknown = [phrase for phrase in seen.actions or () if phrase not in self.phrases]
        if unknown or seen.actions is None:
            offered = "free text" if seen.actions is None else repr(unknown[0])
            raise LangAgentError(
                f"The policy learned the phrases {', '.join(map(repr, self.phrases))}, and this "
                f"world offers {offered}: give it those phrases alone (--actions), or the world "
                "that it learned."
            )
        return [phrase in seen.actions for phrase in self.phrases]

    def _scores(self, batch: Tensor, masks: np.ndarray) -> Tensor:
        """(B, A) log-probabilities of the phrases, by the temperature; of DQN the values."""
        temperature = self.temperature or 1.0
        if not self._actor_critic:
            return self.policy.q_net(batch)
        more = (masks,) if self._masks else ()
        logits = self.policy.get_distribution(batch, *more).distribution.logits
        return (logits / temperature).log_softmax(-1)


def load_sb3_agent(
    file: str | Path,
    decide: DecideConfig = DecideConfig(temperature=0),  # noqa: B008
    *,
    trust: bool = False,
    device: str = "cpu",
) -> SB3Agent:
    """The policy in an archive that ``model.save`` of Stable-Baselines3 wrote, whatever its
    algorithm.

    Raises:
        LangAgentError: without ``trust``, since such an archive holds pickled Python objects, which
            run code when they are loaded; without the extra ``sb3``; or for another file.
    """
    file = Path(file)
    if not os.path.isfile(file):
        raise LangAgentError(f"There is no file '{file}': an agent sb3:FILE.zip is a saved model.")
    if not trust:
        raise LangAgentError(
            f"'{file}' holds pickled Python objects, which can run anything when they are loaded: "
            "if you trust that file, say --trust (in Python trust=True)."
        )
    try:
        from stable_baselines3.common.save_util import load_from_zip_file
    except ImportError:
        raise LangAgentError(
            "Stable-Baselines3 needs an extra: pip install 'lang_agent[sb3]'."
        ) from None
    with suppress(ImportError):  # its classes are imported by the archive, too
        import sb3_contrib  # noqa: F401
    try:
        data, parameters, _ = load_from_zip_file(file, device=device)
        policy = _rebuilt(data or {}, parameters["policy"]).to(device)
    except (ValueError, KeyError, RuntimeError, TypeError, AttributeError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise LangAgentError(
            f"'{file}' cannot be loaded as a policy of Stable-Baselines3: {reason}."
        ) from error
    agent = SB3Agent(policy, decide)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    agent.about = {"name": f"{SB3}{file}", "weights": digest, "decide": asdict(decide)}
    return agent


def _rebuilt(data: Mapping[str, Any], weights: Any) -> Any:
    """The policy that an archive describes, without the algorithm around it."""
    options = dict(data["policy_kwargs"])
    policy = data["policy_class"](
        data["observation_space"], data["action_space"], lambda _: 0.0, **options
    )
    policy.load_state_dict(weights)
    return policy
