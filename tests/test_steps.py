"""Steps that are not taken: flat groups, target_kl, no label, numbers that are not finite."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from learn_bandit import learn, new_policy, parameters, rollout

from lang_agent import LangAgentError, PolicyAgent
from lang_agent.episode import Episode, Step, TextObservation
from lang_agent.learn import steps
from lang_agent.learn.algorithm import LearnState
from lang_agent.learn.config import LearnConfig
from lang_agent.learn.learner import Learner
from lang_agent.learn.optimizer import Optimizer
from lang_agent.learn.reference import Reference
from lang_agent.learn.steps import MAX_SKIPPED


@pytest.fixture
def policy():
    return new_policy()


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("algorithm", ["grpo", "rloo", "reinforce"])
@pytest.mark.parametrize("reward", [0.0, 0.1, 1.0])
def test_where_no_group_differs_nothing_moves(policy, algorithm, optimizer, reward):
    episodes = rollout(policy, count=24, group_size=3)
    for e in episodes:
        e.steps[0].reward = reward
    options = {"algorithm": algorithm, "group_size": 3, "entropy_coef": 0.1}
    before = parameters(policy).clone()
    metrics = learn(policy, episodes, LearnState(), optimizer=optimizer, **options)
    assert torch.equal(parameters(policy), before)
    assert metrics["flat_groups"] == 1
    assert metrics["epochs"] == metrics["skipped"] == metrics["grad_norm"] == 0
    episodes[0].steps[0].reward = 2.0
    metrics = learn(policy, episodes, LearnState(), optimizer=optimizer, **options)
    assert not torch.equal(parameters(policy), before)
    assert metrics["flat_groups"] == 7 / 8


def test_a_penalty_in_the_loss_holds_on_where_no_group_differs(policy):
    other = copy.deepcopy(policy)
    with torch.no_grad():
        other.model.transformer.ln_f.weight.mul_(2.0)
    episodes = rollout(policy, count=24, group_size=3)
    for e in episodes:
        e.steps[0].reward = 0.0
    options = {"algorithm": "grpo", "group_size": 3, "kl_coef": 0.1}
    before = parameters(policy).clone()
    learn(policy, episodes, LearnState(), Reference(other), **options)
    assert not torch.equal(parameters(policy), before)


def test_target_kl_stops_before_the_step_that_it_is_measured_at(policy):
    episodes = rollout(policy)
    with torch.no_grad():
        policy.model.transformer.ln_f.weight.mul_(3.0)  # no longer the policy that acted
    before = parameters(policy).clone()
    metrics = learn(policy, episodes, target_kl=1e-4)
    assert metrics["approx_kl"] > 1e-4
    assert (metrics["stopped"], metrics["epochs"], metrics["skipped"]) == (1, 0, 0)
    assert torch.equal(parameters(policy), before)
    metrics = learn(policy, episodes, target_kl=1e4)
    assert (metrics["stopped"], metrics["epochs"]) == (0, 3)


def test_the_policy_stays_where_target_kl_was_passed(policy):
    """One step is taken; the second minibatch finds the policy too far away and is not learned."""
    episodes = rollout(policy)
    taken = []

    class Recording(Optimizer):
        def step(self, *workers):
            super().step(*workers)
            taken.append(parameters(policy).clone())

    config = LearnConfig(minibatch_decisions=16, learning_rate=1e-2, target_kl=1e9)
    start = copy.deepcopy(policy.state_dict())
    measured = []
    step = steps.gradient_step
    for bound in (1e9, None):
        policy.load_state_dict(start)
        taken.clear()
        if bound is None:  # between what was measured before the first step and before the second
            assert measured[0] < measured[1]
            config = replace(config, target_kl=(measured[0] + measured[1]) / 2)

        def watch(*args, **kwargs):
            found = step(*args, **kwargs)
            measured.append(found["approx_kl"])
            return found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(steps, "gradient_step", watch)
            optimizer = Recording(policy, "adamw", 1e-2, 0.0)
            metrics = Learner(policy, config, optimizer=optimizer).update(episodes)
    assert len(taken) == 1
    assert torch.equal(parameters(policy), taken[-1])
    assert (metrics["stopped"], metrics["epochs"]) == (1, 0.5)


def test_a_rollout_without_a_label_teaches_nothing_and_ends_nothing(policy):
    agent, seen = PolicyAgent(policy, 1), TextObservation("Goal a\nSee b", ("go", "stay"))
    before = parameters(policy).clone()

    def labelled(wanted, seed):
        step = Step(replace(seen, expert=wanted), agent.record(0, seen, "go", None), 0.0, {})
        return Episode(seed, seed, [step], terminated=True)

    unlabelled = [labelled(None, seed) for seed in range(3)]
    metrics = learn(policy, unlabelled, algorithm="imitation", entropy_coef=0.1)
    assert "policy_loss" not in metrics
    assert torch.equal(parameters(policy), before)
    both = [*unlabelled, labelled("stay", 3)]
    exact = -policy.action_log_probs([seen.prompt], seen.actions)[0, 1].item()
    metrics = learn(policy, both, algorithm="imitation", epochs=1, value_coef=0.0)
    assert metrics["policy_loss"] == pytest.approx(exact, abs=1e-4)
    assert learn(policy, [], algorithm="ppo") == {}
    assert learn(policy, unlabelled, algorithm="trpo") == {"explained_variance": 0.0}


@pytest.mark.parametrize("algorithm", ["ppo", "trpo"])
def test_steps_that_are_not_finite_are_skipped_and_many_end_the_run(policy, algorithm):
    before = copy.deepcopy(policy.model.state_dict())
    episodes = rollout(policy)
    episodes[3].steps[0].reward = float("nan")
    state = LearnState()
    metrics = learn(policy, episodes, state, algorithm=algorithm, epochs=1)
    assert metrics["skipped"] == state.skipped >= 1
    with pytest.raises(LangAgentError, match="not finite"):  # noqa: PT012
        for _ in range(MAX_SKIPPED):
            learn(policy, episodes, state, algorithm=algorithm, epochs=1)
    assert state.skipped == MAX_SKIPPED
    for name, now in policy.model.state_dict().items():
        assert torch.equal(before[name], now), name
    learn(policy, rollout(policy), state, algorithm=algorithm)
    assert state.skipped == 0
