"""Models from folders and from the hub: whole, without code, and found or not found at once."""

from __future__ import annotations

import json
import socket
import time

import numpy as np
import pytest
import torch
from families import LLAMA, byte_tokenizer, make
from safetensors.torch import load_file, save_file

from lang_agent import LangAgentError, LanguagePolicy
from lang_agent.errors import PromptError
from lang_agent.models import architecture, hub
from lang_agent.models.lora import add_lora
from lang_agent.models.store import load_policy
from lang_agent.models.trie import build_trie


@pytest.fixture
def folder(tmp_path):
    policy = LanguagePolicy(make("llama", LLAMA), byte_tokenizer())
    policy.save_pretrained(tmp_path / "policy")
    return tmp_path / "policy"


def change(file, edit):
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file, {"format": "pt"})


NAME = "model.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda t: t.pop(NAME), rf"missing: {NAME}"),
        (lambda t: t.pop("model.embed_tokens.weight"), "missing: .*embed_tokens"),
        (lambda t: t.update(extra=torch.ones(2)), "not the model's: extra"),
        (lambda t: t.update({NAME: torch.ones(2, 2)}), NAME),
    ],
)
def test_a_checkpoint_with_other_tensors_than_its_models_is_refused(folder, edit, told):
    change(folder / "model.safetensors", edit)
    with pytest.raises(LangAgentError, match=told) as caught:
        LanguagePolicy.from_pretrained(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tied_weights_are_not_missing(tmp_path):
    policy = LanguagePolicy(make("gpt2", {"n_embd": 32, "n_layer": 1, "n_head": 2}),
                            byte_tokenizer())  # fmt: skip
    policy.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    LanguagePolicy.from_pretrained(tmp_path)


@pytest.mark.parametrize("training", [False, True])
def test_a_policys_folder_without_its_value_head_is_refused(folder, training):
    (folder / "value_head.safetensors").unlink()
    if training:
        (folder / "policy.json").unlink()
        (folder / "trainer.json").write_text("{}")
    with pytest.raises(LangAgentError, match=r"without its value_head\.safetensors"):
        LanguagePolicy.from_pretrained(folder)


def test_a_plain_model_gets_a_value_head_that_says_nothing(folder):
    (folder / "value_head.safetensors").unlink()
    (folder / "policy.json").unlink()
    policy = LanguagePolicy.from_pretrained(folder)
    assert policy.value_layer == -1
    assert not policy.value_head.weight.any()


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:40]),
        lambda file: file.write_bytes(b""),
        lambda file: save_file({"weight": torch.ones(1, 32)}, file),
        lambda file: save_file({"weight": torch.ones(1, 8), "bias": torch.ones(1)}, file),
        lambda file: save_file(load_file(file), file, {"layer": "two"}),
        lambda file: save_file(load_file(file), file, {"layer": "7"}),
    ],
)
def test_a_damaged_value_head_is_refused(folder, damage):
    damage(folder / "value_head.safetensors")
    with pytest.raises(LangAgentError):
        LanguagePolicy.from_pretrained(folder)


def test_an_adapter_without_a_tensor_is_refused(folder):
    policy = LanguagePolicy.from_pretrained(folder)
    add_lora(policy.model, 2, str(folder))
    adapted = folder.parent / "adapted"
    policy.save_pretrained(adapted)
    LanguagePolicy.from_pretrained(adapted)
    change(adapted / "adapter_model.safetensors", lambda t: t.pop(sorted(t)[0]))
    with pytest.raises(LangAgentError, match=r"missing: .*lora_A"):
        LanguagePolicy.from_pretrained(adapted)


@pytest.mark.parametrize("base", ["itself", "another adapter", 3])
def test_an_adapter_of_an_adapter_is_refused(tmp_path, base):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        named = {"itself": str(tmp_path / "one"), "another adapter": str(tmp_path / "two")}
        record = {"base_model_name_or_path": named.get(base, base)}
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(record))
    with pytest.raises(LangAgentError, match=r"names .* as its base"):
        LanguagePolicy.from_pretrained(tmp_path / "one")


CODE = """
import pathlib
pathlib.Path({mark!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_code_that_comes_with_a_model_is_run_only_if_trusted(folder, tmp_path):
    mark = tmp_path / "ran"
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {
        "AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(CODE.format(mark=str(mark)))
    with pytest.raises(LangAgentError, match=r"--trust") as caught:
        load_policy(folder)
    assert "\n" not in str(caught.value)
    assert not mark.exists()
    assert type(load_policy(folder, trust=True).model).__name__ == "OwnModel"
    assert mark.exists()


def test_a_classifier_may_bring_no_code(folder, tmp_path):
    from lang_agent.rewards.model_scores import classified

    mark = tmp_path / "ran"
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(CODE.format(mark=str(mark)))
    with pytest.raises(LangAgentError, match="Cannot load a classifier"):
        classified(["x"], model=str(folder))
    assert not mark.exists()


def test_a_tokenizer_larger_than_its_model_is_refused():
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["<more>"])
    with pytest.raises(LangAgentError, match="has 258 tokens and the model 257"):
        LanguagePolicy(make("llama", LLAMA), tokenizer)


def test_a_model_in_sixteen_bits_is_computed_in_thirty_two():
    model = make("llama", LLAMA).bfloat16()
    policy = LanguagePolicy(model, byte_tokenizer())
    assert {weight.dtype for weight in policy.parameters()} == {torch.float32}


# -- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["./typo", "/no/such", "runs/typo", "a/b/c", "~/typo", "two words", "a--b", "../typo",
             "runs\\typo", "x" * 300, "name:with", "a/"])  # fmt: skip
def test_what_looks_like_a_path_is_never_asked_for(name, tmp_path, monkeypatch):
    def ask(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "type").mkdir(parents=True)
    monkeypatch.setattr(socket, "create_connection", ask)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    started = time.perf_counter()
    with pytest.raises(LangAgentError, match="There is no model") as caught:
        load_policy(name)
    assert time.perf_counter() - started < 2
    if name == "runs/typo":
        assert "Did you mean 'runs/type'?" in str(caught.value)


@pytest.mark.parametrize("name", ["babayi", "owner/model"])
def test_without_a_network_the_hub_is_given_up_at_once(name, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no route")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "getproxies", dict)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "create_connection", fail)
    started = time.perf_counter()
    with pytest.raises(LangAgentError, match="hub cannot be reached") as caught:
        load_policy(name)
    assert time.perf_counter() - started < 5
    if name == "babayi":
        assert "Did you mean 'babyai'" in str(caught.value)


@pytest.mark.parametrize("name", ["gpt2", "HuggingFaceTB/SmolLM2-360M", "a.b/c_d"])
def test_a_hub_id_is_no_path(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not hub.looks_like_path(name)


# -- long phrases --------------------------------------------------------------------------------


def test_a_phrase_too_long_is_refused_at_once(policy):
    started = time.perf_counter()
    with pytest.raises(PromptError, match="context"):
        policy.trie(("go", "wander " * 1600))
    with pytest.raises(PromptError, match="context"):
        policy.action_log_probs(["x"], ["go", "x" * 200_000])
    assert time.perf_counter() - started < 5


def test_a_tree_of_long_phrases_is_built_quickly_and_right():
    draw = np.random.default_rng(0)
    phrases = [draw.integers(0, 3, size).tolist() for size in (1000, 900, 12, 5, 5, 1)]
    started = time.perf_counter()
    trie = build_trie(phrases)
    assert time.perf_counter() - started < 2
    inner = sorted({tuple(p[:stop]) for p in phrases for stop in range(1, len(p))})
    for at in draw.integers(0, len(inner), 30).tolist():
        below = [index for index, path in enumerate(inner) if path[: len(inner[at])] == inner[at]]
        assert trie.last[at] == below[-1]


def test_rotary_positions_that_change_with_length_bound_the_context():
    model = make("phi3", {
        **LLAMA, "pad_token_id": 0, "max_position_embeddings": 256,
        "original_max_position_embeddings": 64, "rope_parameters": {
            "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4,
            "long_factor": [3.0] * 4,
        },
    })  # fmt: skip
    assert LanguagePolicy(model, byte_tokenizer()).context == 64
    assert architecture.context_of(make("llama", LLAMA).config) == 128
