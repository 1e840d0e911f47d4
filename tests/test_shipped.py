"""The policy that comes with the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from lang_agent.agents.policy_agent import PolicyAgent
from lang_agent.cli.main import run
from lang_agent.evaluation.evaluate import evaluate
from lang_agent.models.decide import DecideConfig
from lang_agent.models.hub import SHIPPED
from lang_agent.models.policy import LanguagePolicy
from lang_agent.text_env.config import TextConfig


def successes(policy, level, wording=None, *arguments):
    """Of 20 episodes."""
    text = TextConfig(
        prompt="rooms",
        renderer="rooms",
        wording=wording and f"lang_agent.envs.wordings:{wording}",
        env_args=arguments,
    )
    envs = [text.make(f"BabyAI-{level}-v0") for _ in range(20)]
    (row,) = evaluate(PolicyAgent(policy, 20, DecideConfig(decide="constrained")), envs, 20)
    return row.success


def test_it_plays_what_it_was_made_for():
    policy = LanguagePolicy.from_pretrained("babyai")
    assert sum(parameter.numel() for parameter in policy.model.parameters()) <= 5_000_000
    for level in ("GoToLocal", "PickupLoc", "PutNextLocal", "OpenDoorLoc"):
        assert successes(policy, level) >= 0.9, level
    for task in ("goto", "pickup", "putnext"):
        assert successes(policy, "MixedLocal", None, f"task={task}", "num_dists=0") >= 0.9, task
    for wording in ("new_nouns", "invented", "synonyms", "french"):
        found = successes(policy, "MixedLocal", wording, "task=goto", "num_dists=4")
        assert found >= 0.8, wording


@pytest.mark.parametrize("name", SHIPPED)
def test_each_is_small_and_safe(name):
    files = {file.name: file.stat().st_size for file in Path(SHIPPED[name]).iterdir()}
    assert "model.safetensors" in files
    assert sum(files.values()) < 8e6
    assert all(name.endswith((".safetensors", ".json", ".yaml")) for name in files)


def test_commands_know_it_by_name_and_speak_its_words(capsys):
    run(["evaluate", "BabyAI-MixedLocal-v0", "--agent", "babyai", "--episodes", "10",
         "--env-args", "num_dists=0", "task=goto"])  # fmt: skip
    assert "1.000" in capsys.readouterr().out
    run(["play", "BabyAI-MixedLocal-v0", "--agent", "babyai", "--env-args", "num_dists=0",
         "task=goto"])  # fmt: skip
    told = capsys.readouterr().out
    assert "\ngo to the" in told
    assert "The goal was reached. " in told


def test_it_can_be_gone_on_from(tmp_path):
    run(["train", "--model", "babyai", "--env", "BabyAI-GoToLocal-v0", "--prompt", "rooms",
         "--renderer", "rooms", "--steps", "60", "--rollout-steps", "30", "--envs", "4",
         "--eval-episodes", "0", "--out", str(tmp_path / "run")])  # fmt: skip
    assert (tmp_path / "run/metrics.jsonl").stat().st_size > 0
