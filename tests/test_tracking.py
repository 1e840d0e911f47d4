"""What a run tells while it trains: its metrics, and whoever draws curves from them."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_golden import BASE, LEVEL, make_policy

from lang_agent import LangAgentError
from lang_agent.cli import main as cli
from lang_agent.episode import Decision, Episode, Step, TextObservation
from lang_agent.learn.config import ImitationConfig, LearnConfig
from lang_agent.text_env.config import TextConfig
from lang_agent.train.config import TrainConfig
from lang_agent.train.run_log import part_metrics, world_metrics
from lang_agent.train.tracking import grouped
from lang_agent.train.trainer import resume, start

SHORT = replace(BASE, steps=60, rollout_steps=24, checkpoint_every=1)
ENV = "BabyAI-GoToObjS4-v0"
LINE = ["--env", ENV, "--prompt", "minimal", "--env-args", "max_steps=4", "--envs", "2"]
LINE += ["--steps", "12", "--rollout-steps", "12", "--eval-episodes", "2"]


def metrics_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def board(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    return events


class Kept:
    """A tracker of one's own: keeps what it is told."""

    made: list[Kept] = []  # noqa: RUF012

    def __init__(self, config, folder):
        self.config, self.folder = config, folder
        self.told = []
        Kept.made.append(self)

    def start(self, step):
        self.told.append(("start", step))

    def scalars(self, values, step):
        self.told.append(("scalars", step, dict(values)))

    def text(self, name, text, step):
        self.told.append(("text", step, name, text))

    def close(self):
        self.told.append(("close",))


def no_tracker(config, folder):
    return object()


@pytest.fixture
def kept():
    Kept.made.clear()
    return Kept.made


# -- metrics ---------------------------------------------------------------------------------------


def test_each_part_of_a_mixture_has_its_success_and_its_weight(tmp_path):
    mixture = (f"{ENV} weight=3", "BabyAI-GoToRedBallNoDists-v0 max_steps=5")
    config = replace(
        SHORT, mixture=mixture, curriculum="learnable", text=replace(LEVEL, env_args=())
    )
    start(config, tmp_path / "run", make_policy(False)).run()
    rows = metrics_of(tmp_path / "run")
    names = (ENV, "BabyAI-GoToRedBallNoDists-v0 max_steps=5")
    assert {name for row in rows for name in row if name.startswith("weight/")} == {
        f"weight/{name}" for name in names
    }
    for row in rows:
        assert sum(row[f"weight/{name}"] for name in names) == pytest.approx(1)
    assert rows[0][f"weight/{ENV}"] == pytest.approx(0.75)
    assert rows[-1][f"weight/{ENV}"] != pytest.approx(0.75)  # the curriculum has moved it
    assert any(f"success/{names[1]}" in row for row in rows)
    assert f"part/weight/{ENV}" in board(tmp_path / "run").Tags()["scalars"]


def test_part_metrics_are_means_of_the_late_episodes_of_each_part():
    recent = [[1.0, 0.9, 0, 5], [0.0, 0.0, 0, 9], [1.0, 0.5, 2, 3]]
    assert part_metrics(("a", "b", "c"), (1.0, 1.0, 2.0), recent) == {
        "success/a": 0.5, "weight/a": 0.25, "weight/b": 0.25, "success/c": 1.0, "weight/c": 0.5,
    }  # fmt: skip


class Speaks(gymnasium.Env):
    """A world with a metric of its own, on every other step."""

    observation_space = gymnasium.spaces.Text(9)
    action_space = gymnasium.spaces.Text(9)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return "a", {"actions": ("go", "stay")}

    def step(self, action):
        self.steps += 1
        metrics = {"metrics": {"steps so far": self.steps}} if self.steps % 2 else {}
        return "a", 0.0, self.steps == 4, False, {"actions": ("go", "stay"), **metrics}


def test_a_worlds_own_metrics_and_a_callbacks_are_kept(tmp_path):
    gymnasium.register("Speaks-v0", entry_point=Speaks)
    config = replace(SHORT, env="Speaks-v0", text=TextConfig())

    def add(metrics):
        metrics["mine"] = np.float32(0.5)

    start(config, tmp_path / "run", make_policy(False)).run(add)
    for row in metrics_of(tmp_path / "run"):
        assert row["metric/steps so far"] == 2.0  # the mean of 1 and 3
        assert row["metric/mine"] == 0.5
    tags = board(tmp_path / "run").Tags()["scalars"]
    assert {"metric/steps so far", "metric/mine"} <= set(tags)


@pytest.mark.parametrize("metrics", [3, {"a": "b"}, {"a": None}, ["a"]])
def test_metrics_of_a_world_that_are_no_numbers_are_a_sentence(metrics):
    seen = TextObservation("a", None)
    episode = Episode(0, 0, [Step(seen, Decision("go"), 0.0, {"metrics": metrics})])
    with pytest.raises(LangAgentError, match="where a dictionary of numbers is expected"):
        world_metrics([episode])


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("success", "rollout/success"),
        ("policy_loss", "learn/policy_loss"),
        ("seconds", "time/seconds"),
        ("reward/length", "reward/length"),
        ("reward_std/length", "reward/std/length"),
        ("reward_seconds/length", "time/reward/length"),
        ("success/A-v0 x=1", "part/success/A-v0 x=1"),
        ("metric/x", "metric/x"),
        ("mine/x", "learn/mine/x"),
    ],
)
def test_every_metric_has_its_group(name, where):
    assert grouped(name) == where


def test_who_plays_by_imitation_is_told(tmp_path):
    learn = LearnConfig(
        algorithm="imitation", optimizer="adamw", learning_rate=1e-3, epochs=1, target_kl=None,
        entropy_coef=0.0,
    )  # fmt: skip
    imitation = ImitationConfig(hand_over=0.5, expert_final=0.0)
    config = replace(SHORT, learn=learn, steps=200, text=LEVEL, imitation=imitation)
    start(config, tmp_path / "run", make_policy(False)).run()
    rows = metrics_of(tmp_path / "run")
    assert rows[0]["expert_share"] == 1
    assert "policy_success" not in rows[0]
    assert rows[-1]["expert_share"] == 0
    assert 0 <= rows[-1]["policy_success"] <= 1


# -- TensorBoard -----------------------------------------------------------------------------------


def test_tensorboard_has_groups_evaluations_and_a_sample(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli.run(["train", *LINE, "--out", "run"])
    events = board(tmp_path / "run")
    tags = set(events.Tags()["scalars"])
    assert {"rollout/success", "learn/policy_loss", "time/seconds"} <= tags
    assert all("/" in tag for tag in tags)
    steps = metrics_of(tmp_path / "run")[-1]["steps"]
    rows = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    points = {point.step: point.value for point in events.Scalars("evaluation/success")}
    assert points == {
        0: pytest.approx(rows["before"][0]["success"]),
        steps: pytest.approx(rows["after"][0]["success"]),
    }
    (text,) = events.Tensors("sample/episode/text_summary")
    assert "Goal: go to" in text.tensor_proto.string_val[0].decode()


# -- trackers --------------------------------------------------------------------------------------


def test_a_tracker_of_ones_own_is_told_all_and_again_when_the_run_goes_on(tmp_path, kept):
    config = replace(SHORT, track=("tensorboard", "test_tracking:Kept"))
    run = start(config, tmp_path / "run", make_policy(False))
    run.run(lambda metrics: setattr(run, "stop", True))
    (tracker,) = kept
    assert (tracker.folder, tracker.config["env"]) == (tmp_path / "run", ENV)
    kinds = [told[0] for told in tracker.told]
    assert kinds == ["start", "scalars", "text", "close"]
    assert tracker.told[0] == ("start", 0)
    done = run.progress.steps
    assert tracker.told[1][1] == done
    assert tracker.told[1][2]["rollout/return"] == metrics_of(tmp_path / "run")[0]["return"]
    resume(tmp_path / "run", trust=True).run()
    assert kept[1].told[0] == ("start", done)
    with pytest.raises(LangAgentError, match="test_tracking:Kept"):
        resume(tmp_path / "run")  # whose word is it?
    assert len(board(tmp_path / "run").Scalars("rollout/return")) == len(
        metrics_of(tmp_path / "run")
    )


def test_none_writes_the_metrics_alone(tmp_path):
    start(replace(SHORT, track=("none",)), tmp_path / "run", make_policy(False)).run()
    assert metrics_of(tmp_path / "run")
    assert not list((tmp_path / "run").glob("events*"))


@pytest.mark.parametrize(
    ("track", "message"),
    [
        (("tensorbord",), "Did you mean 'tensorboard'"),
        (("none", "wandb"), "none goes with no other"),
    ],
)
def test_a_tracker_that_is_none_is_refused(track, message):
    with pytest.raises(LangAgentError, match=message):
        TrainConfig(track=track)


def test_what_makes_no_tracker_is_refused_before_anything_is_played(tmp_path):
    config = replace(SHORT, track=("test_tracking:no_tracker",))
    with pytest.raises(LangAgentError, match=r"makes a object, which has no start\(\)"):
        start(config, tmp_path / "run", make_policy(False))
    assert not (tmp_path / "run").exists()


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(LangAgentError, match="pip install trackio"):
        start(replace(SHORT, track=("trackio",)), tmp_path / "run", make_policy(False))


def run_and_go_on(folder: Path, tracker: str) -> str:
    """Train with a tracker, and on from there; the name by which it knows the run."""
    run = start(replace(SHORT, steps=30, track=(tracker,)), folder, make_policy(False))
    with run.logging() as log:
        log.evaluation(run.evaluate(2), 0)
        run.run()
    time.sleep(1)  # wandb's folders are called by the second
    resume(folder, steps=60).run()
    return json.loads((folder / "tracking.json").read_text())["id"]


def test_wandb_is_offline_and_a_resumed_run_keeps_its_name(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    name = run_and_go_on(tmp_path / "run", "wandb")
    first, second = sorted((tmp_path / "run" / "wandb").glob("offline-run-*"))
    for folder, words in ((first, ("evaluation/success", "rollout/success")), (second, ())):
        (file,) = folder.glob("*.wandb")
        wanted = [word.encode() for word in (name, "learn/policy_loss", *words)]
        end = time.monotonic() + 60  # a process of wandb's own writes it, late on a busy machine
        while (missing := [w for w in wanted if w not in file.read_bytes()]) and (
            time.monotonic() < end
        ):
            time.sleep(0.2)
        assert not missing


def test_trackio_keeps_the_curve_of_a_resumed_run_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    name = run_and_go_on(tmp_path / "run", "trackio")
    rows = SQLiteStorage.get_logs("lang_agent", name)
    steps = [row["step"] for row in rows if "rollout/success" in row]
    assert steps == [row["steps"] for row in metrics_of(tmp_path / "run")]
    assert [row["step"] for row in rows if "evaluation/success" in row] == [0]


# -- a run that is made longer ---------------------------------------------------------------------


CONSTANT = replace(SHORT, learn=replace(SHORT.learn, lr_final=1.0))


def test_a_run_that_is_made_longer_is_the_one_that_was_long_from_the_start(tmp_path):
    start(replace(CONSTANT, steps=150), tmp_path / "long", make_policy(False)).run()
    start(CONSTANT, tmp_path / "run", make_policy(False)).run()
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    run = resume(tmp_path / "run", steps=150)
    run.run()
    now = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    assert now.startswith(before)
    assert len(now) > len(before)
    ends = [sorted((tmp_path / name / "checkpoints").iterdir())[-1] for name in ("long", "run")]
    assert ends[0].name == ends[1].name
    for file in ("model.safetensors", "trainer.safetensors"):
        assert (ends[0] / file).read_bytes() == (ends[1] / file).read_bytes()
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["steps"] == 150
    resume(tmp_path / "run")  # the new number is the run's own


def test_the_new_end_is_kept_where_the_run_is_killed_before_its_next_checkpoint(tmp_path):
    run = start(SHORT, tmp_path / "run", make_policy(False))
    run.run()
    done = run.progress.steps
    resume(tmp_path / "run", steps=done + 30)  # and no more: nothing is saved
    again = resume(tmp_path / "run")
    assert again.config.steps == done + 30
    rate = again.learner.learning_rate(done / (done + 30))
    assert rate > run.learner.learning_rate(1.0)  # it falls to the new end
    with pytest.raises(LangAgentError, match=f"steps={done - 1} is less than the {done} that"):
        resume(tmp_path / "run", steps=done - 1)
    assert resume(tmp_path / "run").config.steps == done + 30


def test_evaluations_of_the_old_end_are_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cli.run(["train", *LINE, "--out", "run"])
    done = metrics_of(tmp_path / "run")[-1]["steps"]
    cli.run(["train", "--resume", "run", "--steps", str(done + 10)])
    assert f"Going on from {done} steps in run, to {done + 10}" in capsys.readouterr().out
    known = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert list(known) == ["before", f"after {done} steps", "after"]
    for given in ("many", "0", "-3", "1.5", "²"):
        with pytest.raises(LangAgentError, match="steps"):
            cli.run(["train", "--resume", "run", "--steps", given])
