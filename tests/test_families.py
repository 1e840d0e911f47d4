"""Every family of models against a plain loop over an untouched copy of it: one row, one phrase and
one forward pass at a time."""

from __future__ import annotations

import copy
from pathlib import Path

import families
import pytest
import torch

from lang_agent import LangAgentError, LanguagePolicy, PolicyAgent
from lang_agent.episode import TextObservation
from lang_agent.models.decide import GENERATE, DecideConfig

PHRASES = ("go", "gone", "turn left", "turn right now")
PROMPTS = ("Goal: the red ball\nAction: ", "x", "You see a wall 3 steps left\nAction: ")
TURNS = ("\nA key\nDo: ", "\nA wall ahead of you\nDo: ", "\n\nDo: ")
served = pytest.mark.parametrize("name", families.SERVED)


@pytest.fixture(scope="module")
def tokenizer():
    return families.byte_tokenizer()


def both(name, tokenizer):
    """A policy, and the model as it was before the policy was made."""
    model = families.make(*families.SERVED[name])
    plain = copy.deepcopy(model)
    return LanguagePolicy(model, tokenizer), plain


def log_probs_after(plain, ids):
    """(L, V) of the model's own pass over one row."""
    return plain(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float().log_softmax(-1)


def one_at_a_time(plain, tokenizer, prompt, phrases):
    start, scores = tokenizer.encode(prompt.rstrip(" ")), []
    for phrase in phrases:
        ids = tokenizer.encode(f" {phrase}")
        after = log_probs_after(plain, start + ids)
        scores.append(sum(after[len(start) + at - 1, token] for at, token in enumerate(ids)))
    return torch.stack(scores).log_softmax(0)


@served
def test_a_family_scores_learns_acts_and_writes_as_a_plain_loop_does(name, tokenizer):
    policy, plain = both(name, tokenizer)
    lists = [PHRASES, PHRASES[:3], PHRASES[1:]]
    weights = torch.linspace(-1, 1, len(PHRASES))

    scores = policy.action_log_probs(PROMPTS, lists)  # in padded rows, with gradients
    expected = [
        one_at_a_time(plain, tokenizer, prompt, phrases)
        for prompt, phrases in zip(PROMPTS, lists, strict=True)
    ]
    found = [row[: len(wanted)] for row, wanted in zip(scores, expected, strict=True)]
    for rows in (found, expected):
        sum((row * weights[: len(row)]).sum() for row in rows).backward()
    for row, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(row, wanted, atol=1e-4, rtol=1e-4)
    ours = dict(policy.model.named_parameters())
    for weight, parameter in plain.named_parameters():
        found = ours[weight].grad
        wanted = parameter.grad
        if wanted is None:
            assert found is None or not found.any()
            continue
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3, msg=weight)

    acts_over_turns(policy, plain, tokenizer)
    writes(policy, plain, tokenizer)


@torch.no_grad()
def acts_over_turns(policy, plain, tokenizer):
    agent = PolicyAgent(policy, len(PROMPTS))
    prompts = list(PROMPTS)
    for turn, more in enumerate((*TURNS, "")):
        slots = [0, 1, 2] if turn % 2 else [2, 0]
        observations = [TextObservation(prompts[slot], PHRASES) for slot in slots]
        for slot, decision in zip(slots, agent.act(slots, observations), strict=True):
            wanted = one_at_a_time(plain, tokenizer, prompts[slot], PHRASES)[decision.choice]
            torch.testing.assert_close(
                torch.tensor(decision.tokens.log_probs[0]), wanted, atol=2e-4, rtol=1e-4
            )
            assert tokenizer.decode(
                decision.tokens.context[: decision.tokens.position + 1]
            ) == prompts[slot].rstrip(" ")
            prompts[slot] += decision.action + more


@torch.no_grad()
def writes(policy, plain, tokenizer):
    agent = PolicyAgent(policy, 2, DecideConfig(GENERATE, temperature=0.0, max_new_tokens=12))
    written = agent.act([1, 0], [TextObservation(prompt, None) for prompt in PROMPTS[:2]])
    for prompt, decision in zip(PROMPTS, written, strict=False):
        ids = tokenizer.encode(prompt.rstrip(" "))
        for token, log_prob in zip(
            decision.tokens.token_ids, decision.tokens.log_probs, strict=True
        ):
            after = log_probs_after(plain, ids)[-1]
            assert after.max() - after[token] < 1e-3
            torch.testing.assert_close(after[token], torch.tensor(log_prob), atol=1e-3, rtol=0)
            ids = [*ids, token]


@pytest.mark.parametrize("name", families.REFUSED)
def test_a_family_that_cannot_be_a_policy_is_refused_by_its_name(name, tokenizer):
    kind, options, reason = families.REFUSED[name]
    model = families.make(kind, options)
    with pytest.raises(LangAgentError, match=reason) as caught:
        LanguagePolicy(model, tokenizer)
    assert str(caught.value).startswith(type(model).__name__)


LONG = {
    "a window of 256 in GPT-Neo": ("gpt_neo", {
        "hidden_size": 32, "num_layers": 2, "num_heads": 4, "window_size": 256,
        "attention_types": [[["global", "local"], 1]],
    }),
    "a window of 300 in Mistral": ("mistral", {**families.LLAMA, "sliding_window": 300}),
}  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("name", LONG)
def test_beyond_a_window_of_real_size(name, tokenizer):
    kind, options = LONG[name]
    model = families.make(kind, {**options, "max_position_embeddings": 512})
    plain = copy.deepcopy(model)
    policy = LanguagePolicy(model, tokenizer)
    prompt = "".join(f"You see a wall {step} steps left\n" for step in range(13)) + "Action: "
    assert len(policy.encode_prompt(prompt)) > 340
    expected = one_at_a_time(plain, tokenizer, prompt, PHRASES)
    together = policy.action_log_probs([PROMPTS[0], prompt], PHRASES)
    torch.testing.assert_close(together[1], expected, atol=1e-4, rtol=1e-4)
    agent = PolicyAgent(policy, 2)
    agent.act([0, 1], [TextObservation(text, PHRASES) for text in (PROMPTS[0], prompt[:-60])])
    for decision in agent.act([1], [TextObservation(prompt, PHRASES)]):
        wanted = expected[decision.choice]
        torch.testing.assert_close(
            torch.tensor(decision.tokens.log_probs[0]), wanted, atol=1e-4, rtol=0
        )


def test_a_model_whose_layers_do_not_hide_as_they_say_is_refused(tokenizer):
    # A window that the model keeps to itself, longer than the probe's rows: said by its setting.
    model = families.make("llama", families.LLAMA)
    model.config.local_attention = 40
    inner = model.model.forward

    def near_only(input_ids=None, **kwargs):
        states = inner(input_ids=input_ids, **kwargs)
        if kwargs.get("attention_mask") is None and kwargs.get("past_key_values") is None:
            states.last_hidden_state[:, 40:] *= -1.0
        return states

    model.model.forward = near_only
    with pytest.raises(LangAgentError, match="in a trie"):
        LanguagePolicy(model, tokenizer)


def test_the_docs_list_what_is_tried_here():
    page = (Path(__file__).parent.parent / "docs" / "models.md").read_text(encoding="utf-8")
    assert families.table() in page, "write it anew: python tests/families.py"
