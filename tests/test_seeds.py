"""Several seeds in one command."""

import json

import pytest
from test_workers import RUN

from lang_agent import LangAgentError
from lang_agent.cli import main as cli
from lang_agent.config import load_config
from lang_agent.train.config import TrainConfig
from lang_agent.train.trainer import start


def train(folder, *options):
    (folder / "run.yaml").write_text(RUN)
    out = str(folder / "out")
    cli.run(
        ["train", "--config", str(folder / "run.yaml"), "--steps", "60", "--out", out, *options]
    )


def test_a_run_for_each_seed_is_the_run_of_that_seed(tmp_path, capsys):
    train(tmp_path, "--seeds", "3", "4")
    said = capsys.readouterr().out
    rows = {}
    for seed in (3, 4):
        evaluated = json.loads((tmp_path / "out" / f"seed-{seed}" / "evaluation.json").read_text())
        rows[seed] = evaluated["after"][0]["success"]
        assert f"{seed}    " in said
        assert f"{rows[seed]:.3f}" in said
    assert f"{sum(rows.values()) / 2:.3f}" in said.rpartition("mean")[2]
    assert (tmp_path / "out" / "learning_curve.png").is_file()
    config = load_config(tmp_path / "out" / "seed-4.yaml", TrainConfig, trust=True)
    alone, theirs = start(config, tmp_path / "alone"), []
    alone.run(lambda metrics: theirs.append(metrics["return"]))
    lines = (tmp_path / "out" / "seed-4" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["return"] for line in lines] == theirs


@pytest.mark.slow
def test_runs_that_fail_are_named_and_the_others_are_told_of(tmp_path, capsys):
    train(tmp_path, "--seeds", "3")
    with pytest.raises(LangAgentError, match="The run of seed 3 failed"):
        train(tmp_path, "--seeds", "3", "4")
    said = capsys.readouterr().out
    assert "holds a run already" in said
    assert "Success on held-out seeds" in said.rpartition("holds a run already")[2]


@pytest.mark.parametrize(
    ("given", "reason"),
    [(["x"], "'x' is not a whole number"), (["1", "1"], "stands there twice"), ([], "needs values"),
     (["-1"], "seed=-1 must be")],
)  # fmt: skip
def test_seeds_that_are_none_are_a_sentence(given, reason, tmp_path):
    with pytest.raises(LangAgentError, match=reason):
        train(tmp_path, "--seeds", *given)
