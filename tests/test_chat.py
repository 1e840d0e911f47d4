"""Chat models by their template, the ends of texts, and special tokens."""

from __future__ import annotations

import pytest
import tokenizers_of_kinds as kinds
import torch
from families import VOCABULARY, byte_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from lang_agent import LangAgentError, LanguagePolicy, PolicyAgent, TrainConfig
from lang_agent.episode import TextObservation
from lang_agent.learn.config import LearnConfig
from lang_agent.models.codec import Codec
from lang_agent.models.decide import GENERATE, DecideConfig
from lang_agent.models.store import load_policy
from lang_agent.train.trainer import start

CHATML = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
INST = (  # Llama 2's
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}"
)
PHRASES = ("turn left", "go")


def small(tokenizer, **options):
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16,
                         num_hidden_layers=1, num_attention_heads=2, initializer_range=0.6,
                         max_position_embeddings=512, eos_token_id=tokenizer.eos_token_id,
                         **options)  # fmt: skip
    return LlamaForCausalLM(config)


@pytest.fixture
def tokenizer():
    made = byte_tokenizer()
    made.chat_template = CHATML
    return made


@pytest.fixture
def policy(tokenizer):
    return LanguagePolicy(small(tokenizer), tokenizer)


def asked(prompt):
    return f"<|user|>\n{prompt}<end>\n<|assistant|>\n"


def test_a_prompt_is_a_message_and_a_phrase_what_the_assistant_says(policy, tokenizer):
    assert policy.chat
    ids = [*policy.encode_prompt("Where? "), *policy.encode_action("turn left")]
    assert ids == tokenizer.encode(asked("Where?") + "turn left")
    with torch.no_grad():
        scores = policy.action_log_probs(["Where? "], PHRASES)[0]
        plain = []
        for phrase in PHRASES:
            start, said = tokenizer.encode(asked("Where?")), tokenizer.encode(phrase)
            after = policy.model(torch.tensor([start + said])).logits[0].log_softmax(-1)
            plain.append(sum(after[len(start) + at - 1, token] for at, token in enumerate(said)))
    torch.testing.assert_close(scores, torch.stack(plain).log_softmax(0), atol=1e-4, rtol=0)


def test_a_phrase_stands_where_the_template_puts_it():
    tokenizer = kinds.KINDS["Llama 2"]()
    tokenizer.chat_template = INST
    codec = Codec(tokenizer)
    assert codec.lead == " "
    ids = [*codec.encode_prompt("turn"), *codec.encode_answer("left")]
    assert ids == tokenizer.encode("<s>[INST] turn [/INST] left", add_special_tokens=False)
    assert ids.count(tokenizer.bos_token_id) == 1  # the template's own


def test_a_growing_prompt_is_read_as_its_message_at_every_turn(policy, tokenizer):
    agent = PolicyAgent(policy, 1)
    prompt = "Goal: x\nAction: "
    for turn in ("\nA wall\nAction: ", "\nA key\nAction: ", ""):
        (decision,) = agent.act([0], [TextObservation(prompt, PHRASES)])
        acted = decision.tokens.context[: decision.tokens.position + 1]
        assert tokenizer.decode(acted) == asked(prompt.rstrip(" "))
        with torch.no_grad():
            scores = policy.action_log_probs([prompt], PHRASES)[0]
        assert decision.tokens.log_probs[0] == pytest.approx(
            scores[decision.choice].item(), abs=1e-4
        )
        prompt += decision.action + turn


def test_plain_text_is_read_where_chat_is_off_or_there_is_no_template(tokenizer):
    model = small(tokenizer)
    plain = LanguagePolicy(model, tokenizer, chat=False)
    assert plain.encode_prompt("Where? ") == tokenizer.encode("Where?")
    assert plain.encode_action("go") == tokenizer.encode(" go")
    tokenizer.chat_template = None
    assert not LanguagePolicy(model, tokenizer).chat
    with pytest.raises(LangAgentError, match="no chat template"):
        LanguagePolicy(model, tokenizer, chat=True)
    tokenizer.chat_template = "{{ raise_exception('system first') }}"
    with pytest.raises(LangAgentError, match="system first"):
        LanguagePolicy(model, tokenizer)


def test_a_folder_remembers_whether_its_policy_chats(tokenizer, tmp_path):
    for chat in (True, False):
        policy = LanguagePolicy(small(tokenizer), tokenizer, chat=chat)
        policy.save_pretrained(tmp_path / str(chat))
        assert load_policy(tmp_path / str(chat)).chat == chat
        assert load_policy(tmp_path / str(chat), chat=not chat).chat != chat
    policy.model.save_pretrained(tmp_path / "plain")
    tokenizer.save_pretrained(tmp_path / "plain")
    assert load_policy(tmp_path / "plain").chat
    (tmp_path / "True" / "policy.json").write_text("[]")
    with pytest.raises(LangAgentError, match=r"policy\.json' is damaged"):
        load_policy(tmp_path / "True")


@pytest.mark.parametrize("chat", [None, False])
def test_a_run_trains_a_chat_model_as_it_is_told(policy, chat, tmp_path):
    policy.model.save_pretrained(tmp_path / "model")
    policy.tokenizer.save_pretrained(tmp_path / "model")
    config = TrainConfig(
        env="BabyAI-GoToLocalS5N2-v0", model=str(tmp_path / "model"), chat=chat, steps=8,
        rollout_steps=8, envs=2, eval_episodes=0, learn=LearnConfig(epochs=1), value_layer=0,
    )  # fmt: skip
    run = start(config, tmp_path / "run")
    run.run()
    assert run.policy.chat == (chat is None)
    assert load_policy(tmp_path / "run").chat == (chat is None)


def write(policy, ids, **options):
    """The decision of an agent whose model says ``ids`` whatever it is asked."""
    logits = policy.token_logits
    said = iter(ids)
    policy.token_logits = lambda states: torch.full((len(states), VOCABULARY), -9.0).index_fill(
        1, torch.tensor([next(said)]), 9.0
    )
    try:
        agent = PolicyAgent(policy, 1, DecideConfig(GENERATE, temperature=0.0, **options))
        (decision,) = agent.act([0], [TextObservation("Say: ", None)])
        return agent, decision
    finally:
        policy.token_logits = logits


@pytest.mark.parametrize("where", ["config", "generation_config", "tokenizer"])
def test_a_text_ends_at_every_end_token(where):
    tokenizer = byte_tokenizer()
    model = small(tokenizer)
    x, end, other = tokenizer.encode("x")[0], tokenizer.encode("!")[0], tokenizer.encode("?")[0]
    if where == "tokenizer":
        ends = {tokenizer.eos_token_id}
    else:
        getattr(model, where).eos_token_id = [end, other]
        ends = {end, other}
    policy = LanguagePolicy(model, tokenizer)
    assert ends <= policy.end_tokens
    for token in ends:
        _, decision = write(policy, [x, token, x, x], max_new_tokens=4)
        assert decision.action == "x"
        assert decision.tokens.token_ids == [x, token]  # what is learned has the end
        assert decision.tokens.context == [*tokenizer.encode("Say:"), x]


def test_no_special_token_stands_in_a_text():
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<tool>"]})
    model = small(tokenizer)
    policy = LanguagePolicy(model, tokenizer)
    x, tool = tokenizer.encode("x")[0], tokenizer.convert_tokens_to_ids("<tool>")
    global VOCABULARY
    before, VOCABULARY = VOCABULARY, len(tokenizer)
    try:
        agent, decision = write(policy, [x, tool, x], max_new_tokens=3)
    finally:
        VOCABULARY = before
    assert decision.action == "xx"
    assert decision.tokens.token_ids == [x, tool, x]
    (following,) = agent.act([0], [TextObservation("Say:xx\nSay: ", None)])
    assert following.tokens.context is decision.tokens.context  # it grew by the turn


def test_generate_writes_the_answer_without_what_ends_it(policy, monkeypatch):
    from lang_agent.cli import text as cli_text

    monkeypatch.setattr("lang_agent.models.store.load_policy", lambda *_, **__: policy)
    args = cli_text.Generate(("Where?",), temperature=0.0, max_new_tokens=5)
    (text,) = cli_text.continuations(args, "Where?")
    ids = torch.tensor([policy.encode_prompt("Where?")])
    out = policy.model.generate(ids, max_new_tokens=5, do_sample=False, pad_token_id=0)
    assert text == policy.decode(out[0, ids.shape[1] :].tolist())
