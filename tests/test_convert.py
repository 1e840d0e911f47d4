"""Demonstrations and results in the formats of others, and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lang_agent import LangAgentError
from lang_agent.bridges.hf_datasets import read_dataset, write_dataset
from lang_agent.bridges.minari_data import read_minari, write_minari
from lang_agent.cli import main as cli
from lang_agent.episode import Decision, Episode, Step, TextObservation
from lang_agent.evaluation.balrog import mean_and_error, read_balrog, write_balrog
from lang_agent.evaluation.records import read_results
from lang_agent.learn.demonstrations import as_data, read_lines, write_demonstrations


def episode(seed, wanted="go", success=True):
    steps = [
        Step(TextObservation(f"Goal: é {seed}\nAction: ", ("go", "stay"), expert=wanted),
             Decision("go"), 0.0, {}),
        Step(TextObservation("free", None), Decision("a word"), 0.5, {"success": success}),
    ]  # fmt: skip
    return Episode(seed, seed, steps, terminated=True)


EPISODES = [("A-v0", episode(3)), ("B-v0", episode(4, wanted=None, success=False))]


def plain(found):
    return [as_data(env, one) for env, one in found]


@pytest.fixture
def minari_folder(tmp_path, monkeypatch):
    pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))


def test_a_dataset_of_steps_comes_back_as_the_same_episodes(tmp_path):
    datasets = pytest.importorskip("datasets")
    assert write_dataset(tmp_path / "d", EPISODES) == 2
    assert plain(read_dataset(tmp_path / "d")) == plain(EPISODES)
    rows = datasets.load_from_disk(str(tmp_path / "d"))
    assert rows.column_names == [
        "env", "seed", "success", "return", "episode", "step", "prompt", "actions", "action",
        "wanted", "reward",
    ]  # fmt: skip
    assert rows["wanted"][:2] == ["go", ""]
    with pytest.raises(LangAgentError, match="is there already"):
        write_dataset(tmp_path / "d", EPISODES)
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(LangAgentError, match="no dataset of demonstrations"):
            read_dataset(folder)
    datasets.Dataset.from_list([{"x": 1}]).save_to_disk(str(tmp_path / "other"))
    with pytest.raises(LangAgentError, match="no dataset of demonstrations"):
        read_dataset(tmp_path / "other")


def test_a_minari_dataset_comes_back_as_the_same_episodes(minari_folder):
    import minari

    assert write_minari("words/demos-v0", EPISODES) == 2
    assert plain(read_minari("words/demos-v0")) == plain(EPISODES)
    whole = minari.load_dataset("words/demos-v0")
    assert (whole.total_episodes, whole.total_steps) == (2, 4)
    with pytest.raises(LangAgentError, match="Minari refuses"):
        write_minari("words/demos-v0", EPISODES)
    with pytest.raises(LangAgentError, match="no dataset"):
        read_minari("words/none-v0")


def test_the_command_converts_there_and_back(tmp_path, monkeypatch, minari_folder, capsys):
    pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    for env, one in EPISODES:
        write_demonstrations(Path("a.jsonl"), env, [one])
    cli.run(["convert", "a.jsonl", "d", "--to", "datasets"])
    cli.run(["convert", "d", "words/c-v0", "--to", "minari"])
    cli.run(["convert", "words/c-v0", "b.jsonl.gz"])
    assert plain(read_lines(Path("b.jsonl.gz"))) == plain(EPISODES)
    assert "2 episodes: b.jsonl.gz" in capsys.readouterr().out
    with pytest.raises(LangAgentError, match="Unknown format"):
        cli.run(["convert", "a.jsonl", "x", "--to", "balrock"])


def test_results_are_written_and_read_as_balrog_does(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(
        "\n".join(
            f"[[task]]\nname = '{task}'\nenv = 'BabyAI-MixedLocal-v0'\n"
            f"arguments = {{ task = '{task}', num_dists = 0, max_steps = 20 }}"
            for task in ("goto", "pickup")
        )
    )
    for agent in ("random", "constant:fly"):
        out = agent.partition(":")[0]
        cli.run(["evaluate", "--suite", "mine.toml", "--agent", agent, "--episodes", "4",
                 "--out", out, "--trajectories"])  # fmt: skip
    results = read_results("random")
    write_balrog(results, Path("there"))
    summary = json.loads(Path("there/summary.json").read_text())
    family = json.loads(Path("there/babyai/babyai_summary.json").read_text())
    wins = [record.progression for record in results.records]
    assert summary["average_progress"] == pytest.approx(100 * sum(wins) / 8)
    assert summary["environments"]["babyai"]["episodes_played"] == 8
    assert list(family["tasks"]) == [f"BabyAI-MixedTrainLocal-v0/{t}" for t in ("goto", "pickup")]
    name = "BabyAI-MixedTrainLocal-v0/goto"
    one = json.loads(Path(f"there/babyai/{name}/{name}_run_02.json").read_text())
    record = results.of_task("goto")[2]
    assert (one["seed"], one["num_steps"], one["progression"]) == (
        record.seed, record.steps, record.progression,
    )  # fmt: skip
    assert sum(one["action_frequency"].values()) == record.steps
    lines = Path(f"there/babyai/{name}/{name}_run_02.csv").read_text().splitlines()
    assert lines[0] == "Step,Action,Reasoning,Observation,Reward,Done"
    found = read_balrog(Path("there"))
    assert found.progressions == {
        task: [record.progression for record in results.of_task(task)]
        for task in ("goto", "pickup")
    }
    cli.run(["convert", "constant", "flies", "--to", "balrog"])
    flies = json.loads(Path(f"flies/babyai/{name}/{name}_run_00.json").read_text())
    assert flies["failed_candidates"] == ["fly"] * flies["num_steps"]
    capsys.readouterr()
    cli.run(["compare", "random", "flies"])
    said = capsys.readouterr().out
    assert "constant:fly" in said
    (tmp_path / "flies" / "babyai" / f"{name}_run_09.json").write_text("{}")
    with pytest.raises(LangAgentError, match="is damaged"):
        read_balrog(Path("flies"))


def test_stored_steps_become_a_dataset_and_no_demonstrations_to_learn_from(
    tmp_path, monkeypatch, capsys
):
    pytest.importorskip("datasets")
    monkeypatch.chdir(tmp_path)
    cli.run(["evaluate", "BabyAI-GoToObjS4-v0", "--episodes", "3", "--out", "r", "--trajectories"])
    cli.run(["convert", "r", "d", "--to", "datasets"])
    found = read_dataset(Path("d"))
    results = read_results("r")
    assert [len(one.steps) for _, one in found] == [record.steps for record in results.records]
    assert [one.success for _, one in found] == [record.success for record in results.records]
    with pytest.raises(LangAgentError, match="kept for evaluation"):
        cli.run(["convert", "r", "d.jsonl"])


def test_balrogs_error_by_hand():
    mean, error = mean_and_error([1.0, 0.0, 0.0, 1.0])
    assert (mean, error) == (50.0, 25.0)
