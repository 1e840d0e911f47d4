"""The same code on a CUDA device; skipped where there is none (`pytest -m gpu`)."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import make_bandit

from lang_agent import LanguagePolicy, PolicyAgent, TrainConfig, evaluate
from lang_agent.learn.config import LearnConfig
from lang_agent.models.decide import DecideConfig
from lang_agent.rollout import play
from lang_agent.text_env.config import TextConfig
from lang_agent.train.trainer import resume, start

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
PROMPTS = ["Goal: go to the red ball\nYou see a wall\nAction: ", "Goal: x\nAction: "]
ACTIONS = ("turn left", "go forward", "levitate gently")


@torch.no_grad()
def scores(policy):
    return policy.action_log_probs(PROMPTS, ACTIONS).cpu()


def test_scores_are_those_of_the_processor():
    policy = LanguagePolicy.from_scratch("nano", seed=0)
    expected = scores(policy)
    policy.to(torch.device("cuda"))
    policy.set_precision("fp32")
    torch.testing.assert_close(scores(policy), expected, atol=1e-4, rtol=0)
    policy.set_precision("bf16")
    torch.testing.assert_close(scores(policy), expected, atol=0.1, rtol=0)


def test_acting_through_the_cache_scores_as_without_it():
    policy = LanguagePolicy.from_scratch("nano", seed=0).to(torch.device("cuda"))
    policy.set_precision("fp32")
    envs = [TextConfig(env_args=("max_steps=12",)).make("BabyAI-MixedLocal-v0") for _ in range(4)]
    for episode in play(PolicyAgent(policy, 4), envs, range(6)):
        for step in episode.steps:
            with torch.no_grad():
                exact = policy.action_log_probs([step.observation.prompt], step.observation.actions)
            (log_prob,) = step.decision.tokens.log_probs
            assert log_prob == pytest.approx(exact[0, step.decision.choice].item(), abs=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_on_the_device_learns_saves_and_resumes(tmp_path, precision):
    config = TrainConfig(
        env="BabyAI-GoToLocalS5N2-v0",
        text=TextConfig(prompt="minimal"),
        device="cuda",
        precision=precision,
        steps=400,
        rollout_steps=200,
        eval_episodes=0,
    )
    start(config, tmp_path / "run").run()
    trainer = resume(tmp_path / "run")
    assert trainer.policy.device.type == "cuda"
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").open()]
    assert abs(lines[0]["approx_kl"]) < 0.2
    (row,) = trainer.evaluate(4)
    assert row.episodes == 4


def test_the_bandit_is_learned_on_the_device():
    from lang_agent.learn.learner import Learner
    from lang_agent.learn.optimizer import Optimizer

    envs = [make_bandit(prompt="minimal") for _ in range(16)]
    texts = [env.reset(seed=seed)[0] for seed, env in enumerate(envs)]
    policy = LanguagePolicy.from_scratch("nano", seed=1, texts=texts).to(torch.device("cuda"))
    optimizer = Optimizer(policy, "muon", 1e-3, 0.0)
    learner = Learner(policy, LearnConfig(minibatch_decisions=64), optimizer=optimizer)
    for round_ in range(30):
        agent = PolicyAgent(policy, 16)
        episodes = list(play(agent, envs, range(64 * round_, 64 * round_ + 64)))
        learner.update(episodes)
    (row,) = evaluate(PolicyAgent(policy, 16, DecideConfig(temperature=0)), envs, 100)
    assert row.success > 0.95
