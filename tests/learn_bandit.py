"""The bandit's rollouts and updates, which the tests of learning share."""

from __future__ import annotations

from dataclasses import replace

import torch
from conftest import make_bandit

from lang_agent import LanguagePolicy, PolicyAgent
from lang_agent.learn.algorithm import LearnState
from lang_agent.learn.algorithms import ALGORITHMS, resolve
from lang_agent.learn.config import LearnConfig
from lang_agent.learn.credit import compute_advantages
from lang_agent.learn.learner import Learner
from lang_agent.learn.optimizer import Optimizer
from lang_agent.models.decide import DecideConfig
from lang_agent.rollout import play


def texts(prompt="minimal"):
    return [make_bandit(prompt=prompt).reset(seed=seed)[0] for seed in range(16)]


def rollout(policy, seed=0, count=32, group_size=1, **options):
    envs = [make_bandit(prompt="minimal", invalid_action="end") for _ in range(16)]
    agent = PolicyAgent(policy, 16, DecideConfig(**options))
    seeds = range(count // group_size)
    played = play(agent, envs, seeds, group_size=group_size, draw_seed=seed)
    return sorted(played, key=lambda e: e.index)


def new_policy():
    return LanguagePolicy.from_scratch("nano", seed=1, texts=texts())


def learn(policy, episodes, state=None, reference=None, decide=DecideConfig(), **options):  # noqa: B008
    rate, name = options.pop("learning_rate", 1e-3), options.get("optimizer", "muon")
    optimizer = Optimizer(policy, name, rate, 0.0)
    row = ALGORITHMS[options.get("algorithm", "ppo")]
    if "minibatch_decisions" in row.uses:
        options = {"minibatch_decisions": 16, **options}
    config = LearnConfig(**options)
    learner = Learner(policy, config, decide, optimizer=optimizer, state=state, reference=reference)
    return learner.update(episodes)


def assess_samples(policy, episodes, reference=None, state=None, **options):
    config = resolve(LearnConfig(**options))
    row = ALGORITHMS[config.algorithm]
    state = state or LearnState()
    return compute_advantages(policy, episodes, row, config, DecideConfig(), state, reference, {})


def put_tokens(step, **changes):
    """The step with other tokens, as if they had been played so."""
    step.decision = replace(step.decision, tokens=replace(step.decision.tokens, **changes))


def written(policy, count=8):
    return rollout(policy, count=count, decide="generate", max_new_tokens=3)


def token_credit(policy, episodes, reference=None, **options):
    """(advantages, returns) of each episode's tokens, where each has its own."""
    options = {"credit": "tokens", "normalise": "none", **options}
    config, decide = resolve(LearnConfig(**options)), DecideConfig("generate", max_new_tokens=3)
    row = ALGORITHMS["ppo"]
    samples = compute_advantages(policy, episodes, row, config, decide, LearnState(), reference, {})
    found = {s.places[0][0]: (s.advantages[0], s.returns[0]) for s in samples}
    return [found[at] for at in range(len(episodes))]


def parameters(policy):
    return torch.cat([p.detach().flatten() for p in policy.parameters()])
