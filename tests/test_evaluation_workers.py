"""Evaluating with several processes: the same results, by one writer."""

import pytest

from lang_agent import LangAgentError
from lang_agent.cli import main as cli
from lang_agent.cli.evaluation_workers import _Crew, _started
from lang_agent.cli.options import Evaluate
from lang_agent.evaluation.records import read_results
from lang_agent.evaluation.tasks import Task

TASKS = ["BabyAI-GoToObjS4-v0", "BabyAI-GoToLocalS5N2-v0 max_steps=8"]


def evaluated(folder, *options):
    cli.run(
        ["evaluate", *TASKS, "--episodes", "5", "--trajectories", "--out", str(folder), *options]
    )
    results = read_results(folder)
    kept = (folder / "trajectories.jsonl").read_text().count("\n")
    return [(r.task, r.seed, r.success, r.total_reward, r.steps) for r in results.records], kept


def test_two_workers_find_what_one_process_does_and_go_on_with_what_it_left(tmp_path):
    whole = evaluated(tmp_path / "alone")
    assert evaluated(tmp_path / "two", "--workers", "2") == whole
    assert (tmp_path / "two" / "summary.json").read_text() == (
        tmp_path / "alone" / "summary.json"
    ).read_text()
    file = tmp_path / "two" / "episodes.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:1]))
    assert evaluated(tmp_path / "two") == whole


def test_a_worker_that_is_killed_is_a_sentence():
    worker = _started(Evaluate(tasks=("BabyAI-GoToObjS4-v0",)), 1)
    worker.kill()
    with pytest.raises(LangAgentError, match="A worker of the evaluation ended with status -9"):
        _Crew([worker])(Task("BabyAI-GoToObjS4-v0", "BabyAI-GoToObjS4-v0", {}), [10**9], print)


@pytest.mark.parametrize("agent", ["human", "chat:some-model"])
def test_whom_there_is_one_of_plays_in_one_process(agent, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with pytest.raises(LangAgentError, match=f"workers=2 has no use with {agent}"):
        evaluated(tmp_path / "r", "--agent", agent, "--workers", "2")
