"""The benchmark's baselines do the same work as the policy."""

from __future__ import annotations

import pytest
import torch

from lang_agent import LanguagePolicy
from lang_agent.cli import bench
from lang_agent.cli.baselines import EachPhraseAgent, as_published, score_cached, score_each


@pytest.fixture(scope="module")
def policy():
    return LanguagePolicy.from_scratch("nano", seed=0)


def test_the_baselines_give_the_same_scores(policy):
    prompts = bench._prompts(policy, 5, 40)
    rows = [policy.encode_prompt(prompt) for prompt in prompts]
    phrases = [policy.encode_action(phrase) for phrase in (*bench.PHRASES, "pick up the red ball")]
    published = as_published(policy)
    with torch.no_grad():
        ours = policy.action_log_probs(prompts, (*bench.PHRASES, "pick up the red ball"))
        each = score_each(published, rows, phrases)
        cached = score_cached(published, rows, phrases)
    torch.testing.assert_close(each, ours, atol=1e-4, rtol=0)
    torch.testing.assert_close(cached, ours, atol=1e-4, rtol=0)


def test_the_baseline_agent_records_what_it_did(policy):
    agent = EachPhraseAgent(policy, as_published(policy))
    _, windows = bench._play(agent, "glam", 2, 3)
    assert windows > 0
    (episode, *_), _ = bench._play(agent, "glam", 1, 3)
    for step in episode.steps:
        with torch.no_grad():
            exact = policy.action_log_probs([step.observation.prompt], step.observation.actions)
        (log_prob,) = step.decision.tokens.log_probs
        assert log_prob == pytest.approx(exact[0, step.decision.choice].item(), abs=1e-4)


def test_what_learning_is_measured_on_are_whole_episodes_or_single_windows(policy):
    transcripts = bench._record(policy, "transcript", 2, 6)
    assert sum(len(sample.columns) for sample in transcripts) == 12
    assert len(transcripts) == 2
    windows = bench._record(policy, "glam", 1, 6)  # full from the third observation on
    assert [len(sample.columns) for sample in windows[-3:]] == [1] * 3


def test_flops_are_counted_by_hand(policy):
    layers, width = policy.model.config.n_layer, policy.model.config.n_embd
    assert bench._flops(policy, 10) == 2 * 10 * layers * 12 * width**2
