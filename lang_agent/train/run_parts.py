"""What a run is made of before it begins: its environments and its first policy."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium

from lang_agent.errors import LangAgentError
from lang_agent.language_env import language_env
from lang_agent.learn.algorithms import ALGORITHMS, algorithm_of
from lang_agent.models.architecture import freeze_layers
from lang_agent.models.gpt2 import SIZES
from lang_agent.models.lora import add_lora, base_of, has_lora
from lang_agent.models.policy import LanguagePolicy
from lang_agent.models.sealed import refuse_damaged
from lang_agent.models.store import load_policy, model_folder, save_whole
from lang_agent.ray_connection import LOCAL, connected
from lang_agent.text_env.mixture import make_mixture
from lang_agent.text_env.remote_env import Make, RemoteEnv
from lang_agent.train.config import TrainConfig
from lang_agent.train.run_folder import BASE_FOLDER
from lang_agent.train.vocabulary import STEPS, sample_texts


def make_env(config: TrainConfig, **env_kwargs: Any) -> gymnasium.Env[str, str]:
    """The environment of a run, or its mixture of them."""
    if config.mixture:
        return make_mixture(config.text, config.mixture, **env_kwargs)
    return config.text.make(config.env, **env_kwargs)


@contextmanager
def remote_envs(config: TrainConfig) -> Iterator[list[RemoteEnv]]:
    """Each of a run's environments in a process of its own, as a context: of the cluster that
    RAY_ADDRESS names, or of this machine.

    Raises:
        LangAgentError: Ray is not installed, or cannot be used.
    """
    make: Make = partial(config.text.make, config.env)
    if config.mixture:
        make = partial(make_mixture, config.text, config.mixture)
    with connected(os.environ.get("RAY_ADDRESS") or LOCAL), ExitStack() as ending:
        envs: list[RemoteEnv] = []
        for _ in range(config.envs):
            envs.append(RemoteEnv(make))
            ending.callback(envs[-1].close)
        yield envs


def watch_achieved(envs: Sequence[gymnasium.Env[str, str]], config: TrainConfig) -> None:
    """Have the worlds say what episodes fulfil, for hindsight."""
    ours = algorithm_of(config.learn)
    if ours.trust_region or ours.imitates:
        takes = [name for name, row in ALGORITHMS.items() if not row.trust_region | row.imitates]
        raise LangAgentError(
            f"{config.learn.algorithm} has no place for hindsight={config.hindsight}: set "
            f"it to 0, or choose one of {', '.join(takes)}."
        )
    for env in envs:
        language_env(env).watch(config.symmetries)


def first_policy(
    config: TrainConfig,
    folder: Path,
    envs: Sequence[gymnasium.Env[str, str]],
    checkpoint: Path | None,
    given: LanguagePolicy | None,
    *,
    trust: bool = False,
) -> LanguagePolicy:
    """The policy to go on with from a checkpoint, or to begin with: the one given, or the
    configuration's; with the layers frozen and the adapter that the configuration asks for."""
    if checkpoint is not None:
        if (folder / BASE_FOLDER).exists():
            refuse_damaged(folder / BASE_FOLDER)
        policy = load_policy(checkpoint, trust=trust)
    elif given is not None:
        policy = given
    elif config.model in SIZES:
        read = [make_env(config), *map(config.text.make, config.vocabulary_from)]
        policy = LanguagePolicy.from_scratch(
            config.model,
            seed=config.seed,
            texts=sample_texts(read, steps=STEPS * len(read)),
            names=language_env(envs[0]).renamed_words,
            context=config.context,
        )
    else:
        policy = load_policy(config.model, chat=config.chat, trust=trust)
    if config.chat not in (None, policy.chat):
        raise LangAgentError(
            f"chat={config.chat}, but the policy reads its prompts with chat={policy.chat}: leave "
            "chat out, or make the policy so."
        )
    if checkpoint is None:
        policy = _with_value_layer(policy, config, given is not None)
    if config.lora_rank and not has_lora(policy.model):
        add_lora(policy.model, config.lora_rank, base=_base(policy, config, folder, given))
    freeze_layers(policy.model, config.freeze_layers)
    if config.learn.recompute_activations:
        policy.model.gradient_checkpointing_enable({"use_reentrant": False})
    return policy


def _with_value_layer(policy: LanguagePolicy, config: TrainConfig, given: bool) -> LanguagePolicy:
    """The policy with its value head where the configuration wants it."""
    wanted = config.value_layer
    if wanted == policy.value_layer or (given and wanted == -1):  # it was made with another
        return policy
    if given or policy.value_layer != -1:
        name = "the policy given" if given else f"'{config.model}'"
        raise LangAgentError(
            f"value_layer={wanted}, but the value head of {name} was trained on "
            f"layer {policy.value_layer}."
        )
    return LanguagePolicy(policy.model, policy.tokenizer, value_layer=wanted, chat=policy.chat)


def _base(
    policy: LanguagePolicy, config: TrainConfig, folder: Path, given: LanguagePolicy | None
) -> str:
    """Where the model lies that an adapter belongs to; one given in memory is put there."""
    if given is not None:
        save_whole(policy, folder / BASE_FOLDER)
        return base_of(str(folder / BASE_FOLDER))
    return base_of(config.model if config.model in SIZES else str(model_folder(config.model)))
