"""Runs, checkpoints and the command line, small but whole."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from conftest import make_bandit
from transformers import AutoModelForCausalLM, AutoTokenizer

from lang_agent import LangAgentError
from lang_agent.agents.expert import ExpertAgent
from lang_agent.agents.scripted import ConstantAgent, RandomAgent
from lang_agent.cli import main as cli
from lang_agent.config import load_config, save_config
from lang_agent.evaluation.evaluate import evaluate
from lang_agent.evaluation.summary import wilson
from lang_agent.models.policy import LanguagePolicy
from lang_agent.models.store import list_checkpoints, load_policy
from lang_agent.rollout import play
from lang_agent.seeding import EVALUATION_SEED
from lang_agent.text_env.config import TextConfig
from lang_agent.text_env.mixture import make_mixture
from lang_agent.train import trainer
from lang_agent.train.collect import training_seeds
from lang_agent.train.config import TrainConfig

RECIPES = Path(__file__).parent.parent / "recipes"
SMALL = [
    "--env", "BabyAI-GoToRedBallNoDists-v0", "--prompt", "minimal", "--rollout-steps", "60",
    "--envs", "4", "--eval-episodes", "4", "--checkpoint-every", "1", "--env-args", "max_steps=12",
]  # fmt: skip


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    cli.run(["train", *SMALL, "--steps", "200", "--out", str(folder)])
    return folder


def test_a_run_leaves_everything_there_is_to_look_at(run_folder):
    names = {file.name for file in run_folder.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "evaluation.json", "learning_curve.png"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    metrics = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    assert metrics[-1]["steps"] >= 200
    assert {"success", "return", "entropy", "approx_kl", "steps_per_second"} <= set(metrics[0])
    assert len(list_checkpoints(run_folder)) == 2
    evaluation = json.loads((run_folder / "evaluation.json").read_text())
    assert evaluation["before"][0]["episodes"] == evaluation["after"][0]["episodes"] == 4
    assert yaml.safe_load((run_folder / "config.yaml").read_text())["text"]["prompt"] == "minimal"


def test_a_checkpoint_loads_with_plain_transformers(run_folder):
    checkpoint = list_checkpoints(run_folder)[-1]
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    policy = load_policy(run_folder)
    text = "Goal: go to the red ball\nYou see a wall 3 steps forward\nAction:"
    ids = tokenizer(text, return_tensors="pt").input_ids
    assert ids[0].tolist() == policy.encode_prompt(text)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, policy.model(ids).logits)
    assert not list(checkpoint.glob("*.bin")) + list(checkpoint.glob("*.pkl"))


def test_resume_goes_on_from_the_last_whole_checkpoint(tmp_path):
    config = TrainConfig(
        env="BabyAI-GoToRedBallNoDists-v0", text=TextConfig(prompt="minimal"), steps=360,
        rollout_steps=60, envs=4, eval_episodes=0, checkpoint_every=1,
    )  # fmt: skip

    def stop(metrics):
        cut.stop = metrics["updates"] == 2

    whole = trainer.start(config, tmp_path / "whole")
    whole.run()
    cut = trainer.start(config, tmp_path / "cut")
    cut.run(stop)
    (tmp_path / "cut" / "checkpoints" / ".step-9999999999.1").mkdir()  # a write that never ended
    again = trainer.resume(tmp_path / "cut")
    assert again.progress.updates == 2
    again.run()
    for a, b in zip(whole.policy.parameters(), again.policy.parameters(), strict=True):
        assert torch.equal(a, b)
    logs = [
        (tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "cut")
    ]
    pairs = [[json.loads(line)["policy_loss"] for line in log] for log in logs]
    assert pairs[0] == pairs[1]


def test_ctrl_c_saves_and_a_second_one_is_not_needed(tmp_path):
    run = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", "from lang_agent.cli.main import main; main()",
         "train", *SMALL, "--steps", "100000", "--out", str(tmp_path / "run")],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    metrics = tmp_path / "run" / "metrics.jsonl"
    while run.poll() is None and not (metrics.exists() and metrics.read_text()):
        time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=120)
    assert run.returncode == 130
    assert "lang-agent train --resume" in output
    updates = [json.loads(line)["updates"] for line in metrics.read_text().splitlines()]
    assert trainer.resume(tmp_path / "run").progress.updates == updates[-1]
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert [row["episodes"] for row in evaluation["before"]] == [4]


def test_a_saved_policy_keeps_its_scores_and_values(tmp_path):
    policy = LanguagePolicy.from_scratch("nano", seed=5)
    torch.nn.init.normal_(policy.value_head.weight)
    policy.save_pretrained(tmp_path)
    loaded = LanguagePolicy.from_pretrained(tmp_path)
    prompts, actions = ["Goal: go\nAction: "], ["turn left", "drop"]
    with torch.no_grad():
        ours, theirs = (p.action_log_probs(prompts, actions) for p in (policy, loaded))
    torch.testing.assert_close(ours, theirs)
    assert torch.equal(policy.value_head.weight, loaded.value_head.weight)


def test_the_same_seed_gives_the_same_policy_and_another_does_not():
    weights = [
        LanguagePolicy.from_scratch("nano", seed=seed).model.transformer.h[0].attn.c_attn.weight
        for seed in (3, 3, 4)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_run_is_never_written_over(run_folder):
    with pytest.raises(LangAgentError, match="holds a run already"):
        cli.run(["train", *SMALL, "--out", str(run_folder)])


def test_configurations_survive_the_file_and_mistakes_in_it_are_named(tmp_path):
    file = tmp_path / "c.yaml"
    config = TrainConfig(text=TextConfig(actions=("drop",)), seed=3)
    save_config(config, file)
    assert load_config(file, TrainConfig) == config
    for text, message in (
        ("sed: 1", "Did you mean 'seed'"),
        ("learn: {epochs: many}", "epochs: expected int, got 'many'"),
        ("learn: {epochs: 0}", "epochs=0 must be 1 or more"),
        ("text: {actions: drop}", "expected a list"),
        ("a: [", "is not YAML"),
        ("- 1", "expected names with values"),
    ):
        file.write_text(text)
        with pytest.raises(LangAgentError, match=message):
            load_config(file, TrainConfig)
    file.write_text("learn: {learning_rate: 1e-4, target_kl: null}")
    loaded = load_config(file, TrainConfig).learn
    assert (loaded.learning_rate, loaded.target_kl) == (1e-4, None)


@pytest.mark.parametrize("file", sorted(RECIPES.glob("*.yaml")), ids=lambda file: file.stem)
def test_recipes_are_configurations_of_worlds_that_exist(file):
    config = load_config(file, TrainConfig)
    if config.model != "writer":  # which another command makes first, and the world's rewards need
        for env in make_mixture(config.text, config.mixture or (config.env,)).envs:
            assert env.reset(seed=0)[0]


def test_wilson_by_hand():
    # 8 of 10: centre (8 + 1.9208) / (10 + 3.8415), Wikipedia's formula
    low, high = wilson(8, 10)
    assert (low, high) == (pytest.approx(0.4902, abs=1e-3), pytest.approx(0.9433, abs=1e-3))


def test_evaluation_counts_success_return_length_and_invalid_actions():
    envs = [make_bandit(invalid_action="default:go left") for _ in range(4)]
    (good,) = evaluate(ConstantAgent("go left"), envs, 40, name="bandit")
    (bad,) = evaluate(ConstantAgent("dance"), envs, 40)
    assert (good.task, good.episodes, good.mean_length) == ("bandit", 40, 1.0)
    assert 0.2 < good.success < 0.8
    assert good.mean_return == good.success
    assert (good.invalid_rate, bad.invalid_rate, bad.success) == (0.0, 1.0, good.success)
    assert good.success_low < good.success < good.success_high


def test_training_seeds_stay_below_the_evaluation_seeds():
    for seed in (0, 1, 17, 10**6):
        assert next(training_seeds(seed, 99_999_999)) < EVALUATION_SEED


def test_play_finishes_every_episode_it_began():
    envs = [make_bandit() for _ in range(3)]
    episodes = list(play(RandomAgent(), envs, range(10)))
    assert sorted(episode.seed for episode in episodes) == list(range(10))


def test_output_that_nobody_reads_any_more_is_no_traceback():
    command = [sys.executable, "-m", "lang_agent.cli.main", "evaluate", "--help"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        running.stdout.close()
        assert running.stderr.read() == ""
    assert running.returncode == 141


def test_the_bot_needs_a_world_with_an_expert():
    with pytest.raises(LangAgentError, match="no expert"):
        list(play(ExpertAgent(), [make_bandit()], range(1)))


# -- the command line ------------------------------------------------------------------------------


def lang_agent(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess:
    code = "from lang_agent.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        capture_output=True,
        text=True,
        input=stdin,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize("command", ["train", "evaluate", "play", "envs", "prompt"])
def test_every_command_explains_itself(command, capsys):
    cli.run([command, "--help"])
    assert f"lang-agent {command}" in capsys.readouterr().out


def test_a_person_can_play():
    run = lang_agent("play", "BabyAI-GoToRedBallNoDists-v0", stdin="turn left\nfly\n")
    assert run.returncode == 0
    for told in ("Goal: go to the red ball", "exact, reward 0.000", "'fly' is none of"):
        assert told in run.stdout


def test_watch_the_bot_play_and_film_it(tmp_path):
    run = lang_agent("play", "BabyAI-GoToRedBallNoDists-v0", "--agent", "expert")
    assert "The goal was reached. " in run.stdout
    gif = tmp_path / "bot.gif"
    run = lang_agent(
        "play", "BabyAI-GoToRedBallNoDists-v0", "--agent", "expert", "--film", str(gif)
    )
    assert run.returncode == 0, run.stderr
    assert gif.read_bytes()[:3] == b"GIF"


def test_evaluate_writes_json(tmp_path, run_folder):
    file = tmp_path / "e.json"
    run = lang_agent(
        "evaluate", "BabyAI-GoToRedBallNoDists-v0", "BabyAI-MixedLocal-v0", "--agent",
        str(run_folder), "--episodes", "6", "--json", str(file), "--out", str(tmp_path / "r"),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    rows = json.loads(file.read_text())["evaluations"]
    assert rows[0]["task"] == "BabyAI-GoToRedBallNoDists-v0"
    assert [row["task"] for row in rows[1:]] == ["BabyAI-MixedLocal-v0", "(all)"]
    parts = json.loads(file.read_text())["parts"]["BabyAI-MixedLocal-v0"]
    assert sum(row["episodes"] for row in parts) == 6
    assert {row["task"] for row in parts} <= {"goto", "pickup", "open", "putnext",
                                              "pick_up_seq_go_to"}  # fmt: skip


def test_envs_and_prompt():
    assert "BabyAI-MixedLocal-v0" in lang_agent("envs", "mixed").stdout
    run = lang_agent("prompt", "BabyAI-GoToLocal-v0", "--renderer", "json", "--do", "turn left")
    assert '"objects"' in run.stdout
    assert "tokens of nano" in run.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fly"], "Unknown command 'fly'"),
        (["play", "BabyAI-GoToLocl-v0"], "Did you mean 'BabyAI-GoToLocal-v0'"),
        (["evaluate", "--agent", "/no/such/model"], "no model directory"),
        (["evaluate", "--agent", "constant"], "no model|Cannot load|needs its action"),
        (["train", "--config", "/no/such.yaml"], "Cannot read the configuration"),
        (["train", "--resume", "/no/such/run"], "is no run folder"),
        (["train", "--steps", "0"], "steps=0 must be 1 or more"),
        (["train", "--env-args", "max_steps"], "must read name=value"),
        (["prompt", "--prompt", "nope"], "Unknown prompt template 'nope'"),
        (["envs", "zzz"], "No environment has 'zzz'"),
    ],
)
def test_mistakes_are_one_sentence(arguments, message):
    with pytest.raises(LangAgentError) as mistake:
        cli.run(arguments)
    assert re.search(message, str(mistake.value))


def test_a_mistake_ends_with_its_sentence_and_status_2():
    run = lang_agent("train", "--steps", "0")
    assert run.returncode == 2
    assert run.stderr == "lang-agent: steps=0 must be 1 or more. See lang-agent train --help.\n"
