"""The line of progress and the tables: true on any terminal, and in a pipe."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from test_golden import BASE, make_policy

from lang_agent.cli import main as cli
from lang_agent.cli import progress
from lang_agent.evaluation.summary import Evaluation, as_table, columned
from lang_agent.train.trainer import resume, start

LONG = "BabyAI-GoToImpUnlockWithAVeryLongNameIndeed-v0 task=goto num_dists=0"
COMMAND = str(Path(sys.executable).with_name("lang-agent"))
SMALL = ["--env", "BabyAI-GoToObjS4-v0", "--prompt", "minimal", "--env-args", "max_steps=4"]


def row(task: str, **others) -> Evaluation:
    return Evaluation(task, 200, 0.123, 0.084, 0.176, 0.098, 12.34, 0.015, **others)


# -- the line --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (80, "12/99 steps  1:05 left  success 0.50  été"),
        (35, "12/99 steps  1:05 left  été"),
        (20, "12/99 steps  été"),
        (5, "été"),
        (2, ""),
    ],
)
def test_what_does_not_fit_is_left_out_whole(width, line):
    parts = ["12/99 steps", "1:05 left", "success 0.50", "été"]
    assert progress.fit(parts, width) == line


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.2, "0:00"), (65, "1:05"), (7265.4, "2:01:05"), (-3, "0:00")]
)
def test_durations(seconds, shown):
    assert progress.clock(seconds) == shown


def test_a_terminal_shows_no_more_than_it_is_wide():
    console = Console(file=io.StringIO(), force_terminal=True, width=30, color_system=None)
    with progress.Line(console, lambda: ["12/99 steps", "success 0.50", "x" * 40]) as line:
        line.changed()
    shown = console.file.getvalue()
    assert "12/99 steps  success 0.50" in shown
    assert "..." not in shown
    assert "…" not in shown
    assert "x" not in shown


def test_a_pipe_gets_a_line_now_and_then_though_nothing_happens(monkeypatch, capsys):
    monkeypatch.setattr(progress, "FIRST", 0.1)
    monkeypatch.setattr(progress, "EVERY", 1.0)
    console = Console(file=io.StringIO(), force_terminal=False)
    with progress.Line(console, lambda: ["still here"]) as line:
        line.changed()  # no reason to print
        time.sleep(2.7)
    assert 2 <= capsys.readouterr().out.count("still here") <= 3


def watching(tmp_path, **metrics) -> progress.Watching:
    run = start(replace(BASE, steps=100, rollout_steps=48), tmp_path / "run", make_policy(False))
    found = progress.Watching(run)
    found.updated({"steps": 50, "success": 0.9, "return": 0.8, "steps_per_second": 9.0, **metrics})
    return found


@pytest.mark.parametrize(
    ("metrics", "told", "untold"),
    [
        ({}, ["success 0.90"], ["expert"]),
        ({"expert_share": 1.0}, ["expert's success 0.90"], ["policy's"]),
        (
            {"expert_share": 0.4, "policy_success": 0.2},
            ["policy's success 0.20", "expert plays 40%"],
            ["0.90"],
        ),
        ({"expert_share": 0.0, "policy_success": 0.2}, ["policy's success 0.20"], ["expert"]),
    ],
)
def test_a_success_is_said_to_be_his_who_played(tmp_path, metrics, told, untold):
    line = "  ".join(watching(tmp_path, **metrics).parts())
    assert all(words in line for words in told)
    assert not any(words in line for words in untold)


def test_the_time_left_is_that_of_the_steps_that_will_be_trained(tmp_path):
    found = watching(tmp_path)
    found.began -= 50
    found.updated(found.metrics)  # 50 steps in 50 seconds
    assert found.parts()[:2] == ["50/144 steps", "1:34 left"]


# -- what is trained -------------------------------------------------------------------------------


def test_what_will_be_trained_is_said_before_and_what_was_after(tmp_path):
    run = start(replace(BASE, steps=20, rollout_steps=48), tmp_path / "run", make_policy(False))
    assert "until 20 steps are reached: about 48 in all." in progress.plan(run)
    run.run()
    assert progress.trained(run).startswith(f"Trained {run.progress.steps} steps in one update")
    assert progress.plan(run) == "All 20 steps are trained already."
    more = resume(tmp_path / "run", steps=run.progress.steps + 96)
    assert f"about {more.config.steps} in all" in progress.plan(more)


# -- tables ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("failed", [0, 3])
@pytest.mark.parametrize("width", [80, 66])
def test_tables_keep_every_column_and_every_name(failed, width):
    text = as_table([row(LONG), row("A-v0", env_errors=failed)], "Before", width)
    lines = text.splitlines()
    assert lines[0] == "Before"
    assert max(len(line) for line in lines) <= width
    assert LONG.split()[0] in lines
    for line in lines[1:]:
        if "0.123" in line:
            assert "0.084-0.176" in line
            assert "1.5%" in line
            assert not failed or line[-1] in "03"
    assert ("errors" in lines[1]) is bool(failed)


# -- runs ------------------------------------------------------------------------------------------


def run_of(*arguments: str, cwd: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [COMMAND, *arguments], cwd=cwd, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


def test_ctrl_c_while_demonstrations_are_collected_leaves_a_run_that_resumes(tmp_path):
    arguments = ["imitate", "--env", "BabyAI-GoToObjS4-v0", "--rollout-steps", "100000"]
    arguments += ["--steps", "100000", "--eval-episodes", "0", "--out", "run"]
    with run_of(*arguments, cwd=tmp_path) as run:
        for line in run.stdout:
            if "collecting" in line:
                break
        run.send_signal(signal.SIGINT)
        assert "Stopping after this update" in run.stdout.readline()
        run.send_signal(signal.SIGINT)
        rest = run.stdout.read()
    assert run.returncode == 130
    assert "saved as of 0 steps" in rest
    assert "lang-agent train --resume run" in rest
    assert resume(tmp_path / "run").progress.steps == 0


def test_demonstrations_that_are_recorded_show_progress(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(progress, "FIRST", 0.0)
    monkeypatch.setattr(progress, "TICK", 0.01)
    cli.run(["demos", *SMALL[1:2], "--episodes", "30", "--out", "d.jsonl"])
    out = capsys.readouterr().out
    assert "expert: " in out
    assert "/30 episodes" in out
    assert "30 episodes, " in out


def test_lines_in_a_pipe_are_few_and_the_first_is_early(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cli.run(["train", *SMALL, "--steps", "360", "--rollout-steps", "12", "--eval-episodes", "0",
             "--envs", "2", "--out", "run"])  # fmt: skip
    lines = [line for line in capsys.readouterr().out.splitlines() if " left" in line]
    updates = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert len(updates) >= 25
    assert 10 <= len(lines) <= 22
    assert lines[0].startswith(f"{updates[0]['steps']}/")


def test_a_comparison_keeps_every_column_and_every_name():
    name = "runs/" + "a-very-long-name-" * 5
    head = ["n", "progression", "95% CI"]
    rows = [("agent", head), (name, ["20", "0.500", "0.1-0.9"]), ("b", ["20", "0.400", "0.0-0.8"])]
    lines = columned(rows, width=40)
    assert lines == [
        "agent  n progression  95% CI",
        name,
        "      20       0.500 0.1-0.9",
        "b     20       0.400 0.0-0.8",
    ]
