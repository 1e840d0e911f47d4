"""Options are read or refused: each algorithm with each option that not all algorithms share."""

from __future__ import annotations

import copy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_golden import make_policy

import lang_agent
from lang_agent import LangAgentError
from lang_agent.agents.policy_agent import PolicyAgent
from lang_agent.cli.imitation import IMITATE
from lang_agent.config import load_config, save_config
from lang_agent.episode import Episode
from lang_agent.learn.algorithms import ALGORITHMS, NEEDS, resolve
from lang_agent.learn.config import ImitationConfig, LearnConfig
from lang_agent.learn.learner import Learner
from lang_agent.learn.optimizer import Optimizer
from lang_agent.learn.reference import Reference
from lang_agent.models.decide import DecideConfig
from lang_agent.rollout import play
from lang_agent.text_env.config import TextConfig
from lang_agent.train.config import TrainConfig

RECIPES = Path(__file__).parents[1] / "recipes"
WRITE = DecideConfig("generate", max_new_tokens=5)

# option -> (what else must be set for it to have a use, a value that is not its default)
TRIED: dict[str, tuple[dict[str, Any], Any]] = {
    "optimizer": ({}, "adamw"),
    "max_grad_norm": ({}, 0.01),
    "normalise": ({"reward_scale": 3.0}, "none"),
    "drop_flat_groups": ({"group_size": 4}, True),
    "kl_coef": ({}, 0.5),
    "kl_in": ({"kl_coef": 0.5}, "reward"),
    "kl_estimator": ({"kl_coef": 0.5}, "k2"),
    "kl_target": ({"kl_coef": 0.5}, 0.001),
    "kl_horizon": ({"kl_coef": 0.5, "kl_target": 0.001}, 50),
    "gae_lambda": ({}, 0.3),
    "credit": ({}, "tokens"),
    "token_gae_lambda": ({"credit": "tokens"}, 0.3),
    "clip_low": ({}, 0.001),
    "clip_high": ({}, 0.001),
    "epochs": ({}, 1),
    "minibatch_decisions": ({}, 8),
    "target_kl": ({}, 1e-6),
    "fisher_fraction": ({}, 1.0),
    "value_coef": ({}, 5.0),
    "baseline": ({}, "value"),
}
HINDSIGHT = "hindsight_coef"  # is tried with what is told in test_hindsight.py
WRITTEN = {"credit", "token_gae_lambda"}


def shared_by_all() -> set[str]:
    return {item.name for item in fields(LearnConfig)} - {
        o for r in ALGORITHMS.values() for o in r.uses
    }


def test_every_option_that_not_all_share_is_tried_here():
    told = {option for row in ALGORITHMS.values() for option in row.uses}
    assert told == {*TRIED, HINDSIGHT}
    assert set(NEEDS) <= told
    assert {"algorithm", "learning_rate", "discount", "entropy_coef"} <= shared_by_all()


def rollout(written: bool) -> list[Episode]:
    """Sixteen episodes of four seeds, with a reward now and then; one group's are all alike."""
    policy = make_policy(prose=written)
    if written:
        envs = [
            lang_agent.make("TextGeneration-v0", prompts=["Today I", "We"], rewards="length")
        ] * 2
        envs = [
            TextConfig(env_args=("rewards={length: {target: 4}}",)).make("TextGeneration-v0")
            for _ in range(2)
        ]
    else:
        options = {"prompt": "minimal", "max_steps": 4, "actions": ["turn left", "turn right"]}
        envs = [lang_agent.make("BabyAI-GoToObjS4-v0", **options) for _ in range(4)]
    decide = WRITE if written else DecideConfig()
    agent = PolicyAgent(policy, 4, decide)
    episodes = sorted(play(agent, envs, range(4), group_size=4), key=lambda e: e.index)
    draw = torch.Generator().manual_seed(1)
    for episode in episodes:
        for step in episode.steps:
            step.reward = float(torch.rand((), generator=draw)) if episode.seed else 0.0
            step.token_rewards = []
            step.observation = replace(step.observation, expert=step.decision.action)
    return episodes


@pytest.fixture(scope="module")
def rollouts() -> dict[bool, list[Episode]]:
    return {written: rollout(written) for written in (False, True)}


def learned(episodes: list[Episode], written: bool, **options: Any) -> torch.Tensor:
    """The parameters after two updates from the episodes."""
    policy, reference = make_policy(prose=written), None
    if "epochs" in ALGORITHMS[options["algorithm"]].uses and options["algorithm"] != "trpo":
        options = {"target_kl": None, **options}  # all epochs are learned, unless it is tried
    config = LearnConfig(learning_rate=1e-2, **options)
    if config.kl_coef:
        other = make_policy(prose=written)
        with torch.no_grad():
            other.model.transformer.ln_f.weight.mul_(0.5)
        reference = Reference(other)
    optimizer = Optimizer(policy, config.optimizer, config.learning_rate, config.weight_decay)
    decide = WRITE if written else DecideConfig()
    learner = Learner(policy, config, decide, optimizer=optimizer, reference=reference)
    for _ in range(2):
        learner.update(copy.deepcopy(episodes))
    return torch.cat([parameter.detach().flatten() for parameter in policy.parameters()])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("option", TRIED)
def test_an_option_moves_the_parameters_or_is_refused(option, algorithm, rollouts):
    others, value = TRIED[option]
    row, written = ALGORITHMS[algorithm], option in WRITTEN
    if option == "normalise" and row.normalise == "none":
        value = "batch"
    if option not in row.uses:
        users = [name for name, other in ALGORITHMS.items() if option in other.uses]
        with pytest.raises(LangAgentError) as refused:
            resolve(LearnConfig(algorithm=algorithm, **{option: value}))
        assert str(refused.value).startswith(f"{option}={value} has no use with {algorithm}")
        assert all(name in str(refused.value) for name in users)
        return
    others = {"algorithm": algorithm, **others}
    if option == "value_coef" and not row.critic:
        others["baseline"] = "value"
    without = learned(rollouts[written], written, **others)
    assert not torch.equal(
        without, learned(rollouts[written], written, **{**others, option: value})
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kl_horizon": 5, "kl_coef": 0.1},
         "kl_horizon=5 has no use without kl_target; leave it at 10000."),
        ({"kl_in": "reward"}, "kl_in=reward has no use without kl_coef above 0; leave it at loss."),
        ({"kl_estimator": "k2", "kl_in": "reward", "kl_coef": 0.1},
         "kl_estimator=k2 has no use without kl_coef above 0 and kl_in=loss; leave it at k3."),
        ({"kl_target": 0.1}, "kl_target=0.1 has no use without kl_coef above 0; leave it at None."),
        ({"token_gae_lambda": 0.5},
         "token_gae_lambda=0.5 has no use without credit=tokens; leave it at 1.0."),
        ({"drop_flat_groups": True}, "drop_flat_groups=True has no use without groups: "
         "set group_size to 2 or more; leave it at False."),
        ({"algorithm": "reinforce", "value_coef": 1.0},
         "value_coef=1.0 has no use without a critic: set baseline=value; leave it at 0.5."),
        ({"algorithm": "reinforce", "baseline": "moving", "normalise": "batch"},
         "baseline=moving has no use without normalise=group or none: a constant is no baseline "
         "where the batch's mean is taken off; leave it at none."),
    ],
)  # fmt: skip
def test_an_option_without_the_one_that_it_serves_is_refused(options, sentence):
    with pytest.raises(LangAgentError) as refused:
        resolve(LearnConfig(**options))
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DecideConfig(top_k=5), "top_k=5 has no use with decide=sum: it is for generate"),
        (lambda: DecideConfig("constrained", max_new_tokens=8), "max_new_tokens=8 has no use"),
        (lambda: TrainConfig(learn=LearnConfig(credit="tokens")), "credit=tokens has no use"),
        (lambda: TrainConfig(imitation=ImitationConfig(noise=0.5)), "noise=0.5 has no use with p"),
        (lambda: TrainConfig(imitation=ImitationConfig(demonstrations="x")), "for imitation"),
        (lambda: TrainConfig(learn=LearnConfig("imitation"),
                             imitation=ImitationConfig(noise=0.1, demonstrations="x")),
         "noise=0.1 has no use with demonstrations"),
        (lambda: TrainConfig(learn=LearnConfig("imitation"),
                             imitation=ImitationConfig(hand_over=0.5)),
         "hand_over=0.5 has no use where expert_final=1"),
        (lambda: TrainConfig(learn=LearnConfig("imitation"), decide=WRITE), "makes none"),
        (lambda: TrainConfig(learn=LearnConfig(loss_aggregation="sequence-mean")),
         "loss_aggregation=sequence-mean has no use with decide=sum, by which a decision is one"),
        (lambda: TrainConfig(learn=LearnConfig(loss_aggregation="constant"),
                             decide=DecideConfig("constrained")), "a part of max_new_tokens"),
        (lambda: TrainConfig(learn=LearnConfig(hindsight_coef=2.0)), "no use without hindsight"),
    ],
)  # fmt: skip
def test_options_of_a_run_without_a_use_are_refused(make, message):
    with pytest.raises(LangAgentError, match=message):
        make()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_defaults_settled_values_and_none_are_never_refused(algorithm, tmp_path):
    """A saved configuration names every option, and none of them may keep it from being read."""
    resolved = resolve(LearnConfig(algorithm=algorithm))
    assert resolve(resolved) == resolved
    if algorithm != "trpo":
        resolve(LearnConfig(algorithm=algorithm, target_kl=None))
    save_config(TrainConfig(learn=resolved), tmp_path / "config.yaml")
    assert resolve(load_config(tmp_path / "config.yaml", TrainConfig).learn) == resolved


@pytest.mark.parametrize("file", sorted(RECIPES.glob("*.yaml")), ids=lambda file: file.stem)
def test_recipes_set_nothing_without_a_use(file):
    resolve(load_config(file, TrainConfig).learn)


def test_what_imitate_sets_has_a_use():
    resolve(IMITATE.learn)
