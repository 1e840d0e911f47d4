"""Paired comparisons against numbers worked out by hand, and simulated evaluations."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from lang_agent import LangAgentError
from lang_agent.evaluation import statistics
from lang_agent.evaluation.compare import compare, leaderboard, standing
from lang_agent.evaluation.records import Record, Results, Spec
from lang_agent.evaluation.summary import wilson
from lang_agent.evaluation.tasks import Task


def test_mcnemar_by_hand():
    assert statistics.mcnemar(0, 0) == 1.0
    assert statistics.mcnemar(5, 0) == pytest.approx(2 / 32)
    assert statistics.mcnemar(1, 4) == pytest.approx(2 * (1 + 5) / 32)


def test_the_paired_interval_by_hand():
    low, high = statistics.paired_share(7, 2, 50)
    one, other = 8 / 52, 3 / 52
    half = 1.959964 * math.sqrt((one + other - (one - other) ** 2) / 52)
    assert (low, high) == pytest.approx((one - other - half, one - other + half))
    low, high = statistics.paired_share(0, 0, 20)
    assert low < 0 < high


def test_the_permutation_test_by_hand():
    # of the 2^4 signs of four equal differences two are as far from 0
    assert statistics.permutation([1.0, 1.0, 1.0, 1.0]) == pytest.approx(2 / 16)
    assert statistics.permutation([0.0, 0.0]) == 1.0
    # -1 + 2 + 3 = 4 or more in size: 1+2+3, -1+2+3 and their opposites
    assert statistics.permutation([-1.0, 2.0, 3.0]) == pytest.approx(4 / 8)


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert statistics.holm([]) == []


def test_aggregates_over_training_seeds_by_hand():
    scores = np.array([[0.0, 0.5], [0.2, 0.7], [0.4, 0.9], [1.0, 1.0]])
    assert statistics.interquartile_mean(scores) == pytest.approx((0.4 + 0.5 + 0.7 + 0.9) / 4)
    others = np.array([[0.1, 0.5]])
    # first task: 3 of 4 above; second: 3 above and 1 tie
    assert statistics.probability_of_improvement(scores, others) == pytest.approx((3 + 3.5) / 8)
    low, high = statistics.stratified_bootstrap(scores)
    assert 0.0 <= low < statistics.interquartile_mean(scores) < high <= 1.0
    assert statistics.stratified_bootstrap(np.full((3, 2), 0.5)) == (0.5, 0.5)


TASKS = (Task("E-v0", "a"), Task("E-v0", "b", {"x": 1}))


def results(name, outcomes, *, seeds=range(4), tasks=TASKS, verb="go to"):
    records = [
        Record(
            task.name, seed, success=bool(won), progression=float(won), total_reward=float(won) / 2,
            steps=3, verb=verb if task.name == "a" else "open", parts=1, expert_steps=seed + 3,
        )
        for task, wins in zip(tasks, outcomes, strict=True)
        for seed, won in zip(seeds, wins, strict=False)
    ]  # fmt: skip
    spec = Spec({"name": name}, tasks, seeds.start, len(seeds))
    return Results(Path(name), spec, tuple(records))


def test_two_agents_on_the_same_episodes():
    one = results("one", [[1, 1, 1, 0], [1, 0, 0, 0]])
    other = results("other", [[0, 1, 0, 0], [1, 1, 0, 0]])
    found = compare(one, other)
    rows = {(row.what, row.measure): row for row in found.rows}
    overall = rows["all", "success"]
    assert (overall.episodes, overall.first, overall.second) == (8, 0.5, 3 / 8)
    assert overall.p == statistics.mcnemar(2, 1)
    assert rows["all", "return"].difference == pytest.approx(1 / 16)
    assert rows["task a", "success"].difference == pytest.approx(0.5)
    assert rows["verb open", "success"].difference == pytest.approx(-0.25)
    assert rows["task a", "success"].corrected == pytest.approx(1.0)
    paths = [row.what for row in found.rows if row.what.startswith("path")]
    assert paths[:2] == ["path 1 to 5 steps", "path 6 to 10 steps"]
    assert found.apart == (("a", 0, "one"), ("a", 2, "one"), ("b", 1, "other"))
    assert found.missing == 0


def test_what_is_not_of_one_panel_is_refused_with_what_differs():
    one = results("one", [[1], [0]])
    other = results("other", [[1], [0]], seeds=range(1, 5))
    with pytest.raises(LangAgentError, match="first_seed is 1, not 0"):
        compare(one, other)
    tasks = (TASKS[0], Task("E-v0", "b", {"x": 2}))
    with pytest.raises(LangAgentError, match=r"tasks.1.arguments.x is 2, not 1"):
        leaderboard([[one], [results("other", [[1], [0]], tasks=tasks)]])


def test_a_leaderboard_of_agents_and_of_recipes_with_several_seeds():
    weak = results("weak", [[0, 1, 0, 0], [0, 0, 0, 0]])
    runs = [results("recipe", [[1, 1, 1, extra], [1, 0, 1, extra]]) for extra in (0, 1, 1)]
    first, second = leaderboard([[weak], runs])
    assert (first.name, first.runs, second.name) == ("recipe", 3, "weak")
    assert first.progression == pytest.approx((5 / 8 + 7 / 8 + 7 / 8) / 3)
    means = np.array([5 / 8, 7 / 8, 7 / 8])
    half = 4.302653 * means.std(ddof=1) / math.sqrt(3)
    assert first.low == pytest.approx(means.mean() - half, abs=1e-5)
    assert first.interquartile is not None
    assert (second.low, second.high) == wilson(1, 8)
    assert standing([weak]).interquartile is None


def simulated(times, seed=0):
    """(coverage of Wilson, of the paired interval, false positives of McNemar) over evaluations of
    200 episodes, success 0.2 to 0.8, the two agents alike in a part of the episodes."""
    rng = np.random.default_rng(seed)
    inside = paired = wrong = 0
    for _ in range(times):
        share, alike = rng.uniform(0.2, 0.8), rng.uniform(0, 0.9)
        common = rng.random(200) < share
        one, other = (
            np.where(rng.random(200) < alike, common, rng.random(200) < share) for _ in range(2)
        )
        low, high = wilson(int(one.sum()), 200)
        inside += low <= share <= high
        only, others = int((one & ~other).sum()), int((other & ~one).sum())
        low, high = statistics.paired_share(only, others, 200)
        paired += low <= 0 <= high
        wrong += statistics.mcnemar(only, others) < 0.05
    return inside / times, paired / times, wrong / times


def test_intervals_cover_and_tests_do_not_cry_wolf():
    wilson_covers, paired_covers, false_positives = simulated(2000)
    print(wilson_covers, paired_covers, false_positives)
    assert wilson_covers >= 0.93
    assert paired_covers >= 0.93
    assert false_positives <= 0.06


def test_permutation_tests_do_not_cry_wolf(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 499)
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(300):
        share = rng.uniform(0.2, 0.8)
        one, other = (np.where(rng.random(200) < share, rng.random(200), 0) for _ in range(2))
        wrong += statistics.permutation((one - other).tolist()) < 0.05
    assert wrong / 300 <= 0.085  # 0.05 and two and a half standard errors


def test_one_episode_shows_nothing_of_which_agent_is_better():
    assert statistics.permutation([1.0]) == 1.0
