"""Texts as tokens: the ids of prompt and phrase are those of the whole text, with any tokenizer."""

from __future__ import annotations

import pytest
import tokenizers_of_kinds as kinds
import torch
from conftest import gpt2_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from lang_agent import LanguagePolicy, PolicyAgent
from lang_agent.episode import TextObservation
from lang_agent.models.codec import Codec
from lang_agent.models.decide import GENERATE, DecideConfig

PHRASES = ("turn left", "go forward", "say it is naïve!")
PROMPT = "Goal: go to the red ball\nYou see a wall 3 steps left.\nAction: "
TURNS = ("\nYou see a key!\nAction: ", "\n\nA wall (and 2 balls).\nAction: ", "\nAction: ")
every_kind = pytest.mark.parametrize("kind", kinds.KINDS)
_made: dict[str, object] = {}


def made(kind):
    if kind not in _made:
        _made[kind] = kinds.KINDS[kind]()
    return _made[kind]


def whole(tokenizer, text):
    """A text as its own tokenizer encodes it, but for an end."""
    ids = tokenizer(text)["input_ids"]
    return ids[:-1] if ids[-1] == tokenizer.eos_token_id else ids


def policy_with(tokenizer):
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16,
                         num_hidden_layers=1, num_attention_heads=2, initializer_range=0.4,
                         max_position_embeddings=512)  # fmt: skip
    return LanguagePolicy(LlamaForCausalLM(config), tokenizer)


@every_kind
@settings(max_examples=30, deadline=None)
@given(
    prompt=st.sampled_from([PROMPT, "x", "You see a key!\n", "Is it (3)?", "a\n\nb:"]),
    phrase=st.sampled_from([*PHRASES, "the", "3 steps", "(left)", "left.\nturn"]),
)
def test_prompt_and_phrase_are_the_whole_text(kind, prompt, phrase):
    codec = Codec(made(kind))
    together = [*codec.encode_prompt(prompt), *codec.encode_answer(phrase)]
    assert together == whole(codec.tokenizer, f"{prompt.rstrip(' ')} {phrase}")


@every_kind
def test_a_text_begins_once(kind):
    tokenizer = made(kind)
    codec = Codec(tokenizer)
    begins = tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id
    ids = [*codec.encode_prompt(PROMPT), *codec.encode_answer("go"), *codec.encode("\nYou see")]
    assert ids.count(tokenizer.bos_token_id) == int(begins)
    assert tokenizer.eos_token_id not in ids
    assert codec.overhead >= len(codec.encode_prompt(PROMPT)) - len(codec.encode(PROMPT.strip()))


@every_kind
@pytest.mark.parametrize("decide", ["sum", GENERATE])
def test_a_context_is_its_prompt_after_any_number_of_turns(kind, decide):
    tokenizer = made(kind)
    policy = policy_with(tokenizer)
    agent = PolicyAgent(
        policy, 1, DecideConfig(decide, **({"max_new_tokens": 6} if decide == GENERATE else {}))
    )
    prompt = PROMPT
    for turn in (*TURNS, *TURNS):
        actions = None if decide == GENERATE else PHRASES
        (decision,) = agent.act([0], [TextObservation(prompt, actions)])
        acted = decision.tokens.context[: decision.tokens.position + 1]
        expected = policy.encode_prompt(prompt)
        if decide != GENERATE:  # what was drawn freely may be other tokens of the same text
            assert acted == expected
        if kind not in kinds.LOSSY:
            assert agent._contexts[0]._text.startswith(prompt.rstrip(" "))
            text = tokenizer.decode(acted, skip_special_tokens=True)
            assert text.lstrip(" ") == prompt.rstrip(" ").lstrip(" ")
        prompt += decision.action + turn if decide != GENERATE else decision.action.strip() + turn


@every_kind
def test_acting_and_scoring_read_the_same_tokens(kind):
    policy = policy_with(made(kind))
    agent = PolicyAgent(policy, 1)
    prompt = PROMPT
    for turn in TURNS:
        (decision,) = agent.act([0], [TextObservation(prompt, PHRASES)])
        with torch.no_grad():
            scores = policy.action_log_probs([prompt], PHRASES)[0]
        assert decision.tokens.log_probs[0] == pytest.approx(
            scores[decision.choice].item(), abs=1e-4
        )
        prompt += decision.action + turn


def test_what_is_decoded_goes_on_from_a_text():
    for kind in set(kinds.KINDS) - kinds.LOSSY:
        codec = Codec(made(kind))
        for text in (" turn left", "\nYou see", "left", ".", " (3)"):
            assert codec.decode(codec.encode(text)) == text, kind


def test_gpt2s_own_tokenizer_keeps_its_tokens():
    codec = Codec(gpt2_tokenizer())
    assert codec.joins
    assert codec.by_lines
    assert codec.encode_prompt(PROMPT) == codec.tokenizer.encode(PROMPT.rstrip(" "))


@pytest.mark.parametrize("kind", ["Llama 3", "GPT-2's kind"])
def test_lines_are_read_alone_only_where_no_token_crosses_them(kind):
    tokenizer = made(kind)
    assert Codec(tokenizer).by_lines == (kind != "Llama 3")
    text = "It is left.\nYou see (a wall)!\nAction:\ngo"
    assert Codec(tokenizer).encode(text) == tokenizer.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("text", ["a" * 700_000, " " * 700_000, "ab " * 250_000])
def test_a_line_of_any_length_is_encoded(policy, text):
    ids = policy.encode(text)
    assert policy.tokenizer.decode(ids) == text
