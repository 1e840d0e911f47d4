"""docs/algorithms.md names every algorithm and option, and tests that exist."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from learn_bandit import rollout, texts

from lang_agent import LangAgentError, LanguagePolicy, Learner, PolicyAgent, Recorder
from lang_agent.learn.algorithms import ALGORITHMS, resolve
from lang_agent.learn.config import LearnConfig

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs/algorithms.md").read_text(encoding="utf-8")


def test_every_algorithm_has_its_row_and_every_test_named_exists():
    table = PAGE.partition("## Papers, departures, tests")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in table.splitlines() if line.startswith("| ")][1:]
    assert set(ALGORITHMS) <= {row[0].strip(" `") for row in rows}
    written = "".join(file.read_text(encoding="utf-8") for file in TESTS.glob("test_*.py"))
    known = set(re.findall(r"^def (test_\w+)", written, re.MULTILINE))
    for row in rows:
        assert len(row) == 4
        named = set(re.findall(r"`(test_\w+)`", row[3]))
        assert named, row[0]
        assert named <= known, named - known


def test_every_option_of_learning_is_told():
    told = set(re.findall(r"`--([a-z-]+)", PAGE)) | set(re.findall(r"`([a-z_]+)[`=]", PAGE))
    names = {item.name for item in fields(LearnConfig)}
    plain = {"optimizer", "weight_decay", "batch_tokens", "value_coef", "lr_final"}
    several = {"minibatch_decisions", "epochs", "token_gae_lambda", "baseline", "algorithm"}
    missing = {name for name in names if not {name, name.replace("_", "-")} & told}
    assert missing <= plain | several


ADDED = re.findall(r"```python\n(.*?)```", PAGE.partition("## Adding one")[2], re.DOTALL)


def add_rows(monkeypatch):
    for name in ("sign", "soft-q"):  # what the page sets is taken away after the test
        monkeypatch.setitem(ALGORITHMS, name, ALGORITHMS["ppo"])
    for block in ADDED:
        assert not re.search(r"\._|\b_\w", block)
        exec(compile(block, "docs/algorithms.md", "exec"), {})


@pytest.mark.parametrize("algorithm", ["sign", "soft-q"])
def test_the_algorithms_that_the_page_adds_learn_the_bandit(algorithm, monkeypatch):
    add_rows(monkeypatch)
    policy = LanguagePolicy.from_scratch("nano", seed=3, texts=texts())
    learner = Learner(policy, LearnConfig(algorithm))
    for update in range(90):
        episodes = rollout(policy, seed=update)
        won = sum(episode.success for episode in episodes) / len(episodes)
        if won >= 0.95:
            break
        metrics = learner.update(episodes)
    assert update > 0
    assert won >= 0.95
    assert set(metrics) >= ({"q_error"} if algorithm == "soft-q" else {"policy_loss"})


def test_a_row_that_the_page_adds_refuses_what_it_has_no_use_for(monkeypatch):
    add_rows(monkeypatch)
    assert resolve(LearnConfig("sign", gae_lambda=0.5)).normalise == "batch"
    with pytest.raises(LangAgentError, match="gae_lambda"):
        resolve(LearnConfig("soft-q", gae_lambda=0.5))


OWN = PAGE.partition("## A loop of your own")[2]
LOOPS = re.findall(r"```python\n(.*?)```", OWN, re.DOTALL)[:3]


@pytest.mark.parametrize(("at", "most"), [(0, 20), (1, 20), (2, 15)])
def test_a_loop_of_ones_own_is_short_and_needs_no_private_name(at, most):
    lines = [line for line in LOOPS[at].splitlines() if line.strip()]
    assert len(lines) < most
    assert not re.search(r"\._|\b_\w", LOOPS[at])


def test_the_agent_of_a_loop_of_ones_own_learns_what_it_is_rewarded_for():
    colours = ["red", "green", "blue", "grey"]
    texts = [f"Say {colour}.\nAction: {colour}" for colour in colours]
    policy = LanguagePolicy.from_scratch("nano", seed=0, texts=texts * 4)
    config = LearnConfig(algorithm="reinforce", learning_rate=1e-3)
    learner, agent = Learner(policy, config), Recorder(PolicyAgent(policy, slots=1), seed=3)
    right = []
    for _ in range(60):
        for colour in colours * 4:
            said = agent.act(f"Say {colour}.\nAction:", colours)
            agent.reward(1.0 if said == colour else 0.0)
            agent.end()
        episodes = agent.take()
        right.append(sum(episode.total_reward for episode in episodes))
        learner.update(episodes)
        if right[-1] == 16:
            break
    assert right[0] < 13
    assert right[-1] == 16
    assert agent.take() == []


def test_an_episode_that_was_cut_off_has_the_critics_value_and_one_that_never_began_is_refused():
    policy = LanguagePolicy.from_scratch("nano", seed=0)
    with torch.no_grad():
        policy.value_head.bias.fill_(0.25)
    for critic, value in ((True, 0.25), (False, 0.0)):
        agent = Recorder(PolicyAgent(policy, slots=1, critic=critic))
        agent.act("Goal: a\nAction:", ["go", "stay"])
        agent.reward(0.5)
        agent.reward(0.25)
        agent.end(cut_off_at="Goal: a\nAction: go\nAction:")
        (episode,) = agent.take()
        assert (episode.truncated, episode.terminated, episode.total_reward) == (True, False, 0.75)
        assert episode.last_value == pytest.approx(value)
    with pytest.raises(LangAgentError, match="call act"):
        agent.reward(1.0)
    agent.act("Goal: a\nAction:", ["go", "stay"])
    with pytest.raises(LangAgentError, match="no finite number"):
        agent.reward(float("nan"))
