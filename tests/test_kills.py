"""Runs that are killed at any moment end as one that never was: bit for bit, in every kind."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from kill_server import Runs, outcome

KINDS = ("ppo", "mixture", "hindsight", "dagger", "demonstrations", "generate")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    server = Runs(tmp_path_factory.mktemp("kills"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def unkilled(runs):
    """(what a run of a kind leaves that was never killed, its seconds); each is made once."""
    known = {}

    def make(kind: str):
        if kind not in known:
            folder = runs.folder / f"{kind}-whole"
            attempt = runs.attempt(folder, kind)
            assert attempt.status == 0, attempt.said
            known[kind] = outcome(folder), attempt.seconds
        return known[kind]

    return make


def survive(runs: Runs, whole, kind: str, kills: int, folder: Path, seed: int) -> None:
    expected, seconds = whole
    draw = random.Random(seed)
    done = begun = 0
    run = folder / f"run-{begun}"
    while True:
        left = kills - done
        attempt = runs.attempt(run, kind, kill_after=draw.uniform(0, seconds) if left else None)
        assert attempt.status in (0, -9), attempt.said
        if attempt.status == 0:
            assert outcome(run) == expected
            if not left:
                return
            begun += 1  # it was done before it could be killed: kill another one
            run = folder / f"run-{begun}"
        done += attempt.status == -9


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_killed_three_times_ends_as_one_never_killed(runs, unkilled, kind, tmp_path):
    survive(runs, unkilled(kind), kind, 3, tmp_path, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_killed_twenty_times_ends_as_one_never_killed(runs, unkilled, kind, tmp_path):
    survive(runs, unkilled(kind), kind, 20, tmp_path, seed=2)


def survive_at(runs: Runs, whole, kind: str, at: int, folder: Path) -> bool:
    """Kill a run before the ``at``-th change of its folder and then again in its resume; False
    where it makes fewer changes."""
    run = folder / f"at-{at}"
    first = runs.attempt(run, kind, kill_at=at)
    if first.status == 0:
        return False
    assert first.status == -9, first.said
    second = runs.attempt(run, kind, kill_at=1 + at % 7)
    assert second.status in (0, -9), second.said
    last = runs.attempt(run, kind)
    assert last.status == 0, last.said
    assert outcome(run) == whole[0]
    return True


@pytest.mark.parametrize("at", [1, 3, 9, 20])
def test_a_kill_while_the_folder_is_made_is_survived(runs, unkilled, at, tmp_path):
    assert survive_at(runs, unkilled("generate"), "generate", at, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ppo", "generate"])
def test_a_kill_before_any_change_of_the_folder_is_survived(runs, unkilled, kind, tmp_path):
    whole, at = unkilled(kind), 1
    while survive_at(runs, whole, kind, at, tmp_path):
        at += 1
    assert at > 40
