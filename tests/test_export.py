"""Exported policies: plain models of transformers, as ONNX, and their model cards."""

from __future__ import annotations

import json
import os

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer

import lang_agent
from lang_agent import LangAgentError, LanguagePolicy
from lang_agent.cli import main as cli
from lang_agent.evaluation.records import read_results

ROOM = "BabyAI-MixedLocal-v0 task=goto num_dists=0 max_steps=4"
PHRASES = ("turn left", "turn right", "go forward", "pick up", "drop", "toggle")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """A folder with the exported policy that ships, and its stored evaluation."""
    folder = tmp_path_factory.mktemp("export")
    cli.run(["evaluate", ROOM, "--agent", "babyai", "--episodes", "4", "--out", f"{folder}/ev"])
    cli.run(["export", "babyai", f"{folder}/model", "--evaluation", f"{folder}/ev"])
    return folder


def prompts(policy):
    env = lang_agent.make("BabyAI-GoToLocal-v0", like=policy)
    first = [env.reset(seed=seed)[0] for seed in range(3)]
    return [*first, env.step("go forward")[0]]


def plain_scores(logits, tokenizer, prompt):
    """The distribution over phrases, of a model that is asked token by token."""
    start = tokenizer.encode(prompt.rstrip(" "))
    scores = []
    for phrase in PHRASES:
        rest = tokenizer.encode(f" {phrase}")
        found = logits([*start, *rest]).log_softmax(-1)
        places = range(len(start) - 1, len(start) - 1 + len(rest))
        scores.append(sum(float(found[at, token]) for at, token in zip(places, rest, strict=True)))
    return torch.tensor(scores).log_softmax(-1)


def same_distribution(policy, logits, tokenizer):
    for prompt in prompts(policy):
        with torch.no_grad():
            (own,) = policy.action_log_probs([prompt], PHRASES)
        other = plain_scores(logits, tokenizer, prompt)
        assert (own.exp() - other.exp()).abs().max() < 1e-4


def test_plain_transformers_gives_the_policys_distribution(evaluated):
    policy = lang_agent.load_policy("babyai")
    model = AutoModelForCausalLM.from_pretrained(evaluated / "model")
    tokenizer = AutoTokenizer.from_pretrained(evaluated / "model")

    def logits(ids):
        with torch.no_grad():
            return model(torch.tensor([ids])).logits[0].float()

    same_distribution(policy, logits, tokenizer)


def test_the_card_says_what_the_evaluation_says(evaluated):
    card = ModelCard.load(evaluated / "model" / "README.md")
    results = read_results(evaluated / "ev")
    found = {result.metric_type: result for result in card.data.eval_results}
    won = sum(record.success for record in results.records) / 4
    assert found["success"].metric_value == won
    assert found["success"].dataset_name == ROOM
    assert card.data.library_name == "transformers"
    for told in (
        results.spec.panel,
        "on the seeds 1000000000 to 1000000003",
        f"lang-agent evaluate '{ROOM}' --agent FOLDER --decide constrained --temperature 1.0 "
        "--episodes 4 --seed 1000000000",
        "algorithm: imitation",
        "prompt: rooms",
        "by the name's hash",
    ):
        assert told in card.text
    assert "out:" not in card.text  # where the run lay is nobody's


def test_the_cards_command_plays_the_same_episodes(evaluated, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink(evaluated / "model", "FOLDER")
    cli.run([
        "evaluate", ROOM, "--agent", "FOLDER", "--decide", "constrained", "--temperature", "1.0",
        "--episodes", "4", "--seed", "1000000000", "--out", "again",
    ])  # fmt: skip
    one, other = (
        [(r.seed, r.steps, r.success, r.total_reward) for r in read_results(folder).records]
        for folder in (evaluated / "ev", "again")
    )
    assert one == other


def test_a_card_may_be_edited_and_weights_may_not(evaluated, tmp_path):
    import shutil

    shutil.copytree(evaluated / "model", tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("mine")
    lang_agent.load_policy(tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    with pytest.raises(LangAgentError, match=r"tokenizer\.json has changed"):
        lang_agent.load_policy(tmp_path / "model")


def test_a_card_of_other_weights_or_of_a_part_is_refused(evaluated, tmp_path):
    LanguagePolicy.from_scratch("nano", seed=0).save_pretrained(tmp_path / "other")
    with pytest.raises(LangAgentError, match="evaluate this one"):
        cli.run(["export", f"{tmp_path}/other", f"{tmp_path}/out", "--evaluation",
                 f"{evaluated}/ev"])  # fmt: skip
    part = tmp_path / "part"
    part.mkdir()
    (part / "spec.json").write_bytes((evaluated / "ev" / "spec.json").read_bytes())
    lines = (evaluated / "ev" / "episodes.jsonl").read_text().splitlines(keepends=True)
    (part / "episodes.jsonl").write_text("".join(lines[:3]))
    with pytest.raises(LangAgentError, match="lacks 1 of its episodes"):
        cli.run(["export", "babyai", f"{tmp_path}/out", "--evaluation", str(part)])
    with pytest.raises(LangAgentError, match="onnx"):
        cli.run(["export", "babyai", f"{tmp_path}/out", "--format", "onxx"])
    assert not (tmp_path / "out").exists()


def test_a_model_that_nobody_evaluated_has_a_card_too(tmp_path):
    LanguagePolicy.from_scratch("nano", seed=0).save_pretrained(tmp_path / "one")
    cli.run(["export", f"{tmp_path}/one", f"{tmp_path}/two"])
    card = ModelCard.load(tmp_path / "two" / "README.md")
    assert "No evaluation came with this export." in card.text
    assert "## Training" not in card.text
    assert not card.data.eval_results
    assert json.loads((tmp_path / "two" / "config.json").read_text())["model_type"] == "gpt2"


@pytest.mark.slow
def test_onnx_gives_the_policys_distribution(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    cli.run(["export", "babyai", f"{tmp_path}/model", "--format", "onnx"])
    policy = lang_agent.load_policy(tmp_path / "model")
    session = onnxruntime.InferenceSession(tmp_path / "model" / "model.onnx")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")

    def run(ids):
        given = {"input_ids": ids.numpy(), "attention_mask": torch.ones_like(ids).numpy()}
        return torch.from_numpy(session.run(None, given)[0])

    same_distribution(policy, lambda ids: run(torch.tensor([ids]))[0], tokenizer)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    for shape in ((1, 1), (3, 40), (2, 512)):
        ids = torch.randint(0, 400, shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            assert (run(ids) - model(ids).logits).abs().max() < 1e-3
