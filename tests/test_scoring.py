"""Scores against the plain computation: one phrase, one sequence, one forward pass at a time."""

from __future__ import annotations

import pytest
import torch
from conftest import gpt2_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel

import lang_agent
from lang_agent import LangAgentError
from lang_agent.agents.policy_agent import PolicyAgent
from lang_agent.errors import PromptError
from lang_agent.models.decide import DecideConfig
from lang_agent.models.phrase_scoring import lay_out
from lang_agent.models.policy import LanguagePolicy
from lang_agent.models.sampling import sample
from lang_agent.models.trie import build_trie
from lang_agent.rollout import play


@torch.no_grad()
def one_at_a_time(policy: LanguagePolicy, prompt: str, actions) -> torch.Tensor:
    """log-softmax over phrases of the sum of their tokens' log-probabilities, nothing shared."""
    start = policy.tokenizer.encode(prompt.rstrip(" "), add_special_tokens=False)
    scores = []
    for action in actions:
        phrase = policy.tokenizer.encode(f" {action}", add_special_tokens=False)
        logits = policy.model(torch.tensor([start + phrase])).logits[0]
        log_probs = logits.log_softmax(-1)
        scores.append(sum(log_probs[len(start) + i - 1, t] for i, t in enumerate(phrase)))
    return torch.stack(scores).log_softmax(0)


@pytest.fixture(scope="module")
def gpt2() -> LanguagePolicy:
    """GPT-2's own tokenizer over a small model with random weights."""
    tokenizer = gpt2_tokenizer()
    assert len(tokenizer) == 50257
    assert tokenizer.encode("!") == [0]
    torch.manual_seed(0)
    config = GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=256, initializer_range=0.3,
                        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)  # fmt: skip
    return LanguagePolicy(GPT2LMHeadModel(config).eval(), tokenizer).eval()


PHRASES = (
    "turn left", "turn right", "go", "go forward", "go forward twice", "pick up the red ball",
    "drop", "toggle", "turn", "!", "wait ! now", "unfathomably",
)  # fmt: skip
PROMPTS = ("Goal: x\nAction: ", "A", "", "Goal: go to the red ball\nYou see a wall\nAction: ")


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.sampled_from(PROMPTS), st.text(alphabet="ab \n!é:", max_size=30)),
            st.lists(st.sampled_from(PHRASES), min_size=1, max_size=8),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_scores_equal_the_plain_computation_in_any_batch(gpt2, cases):
    cases = [(prompt or "x", actions) for prompt, actions in cases if (prompt or "x").strip()]
    if not cases:
        return
    prompts, actions = [case[0] for case in cases], [case[1] for case in cases]
    with torch.no_grad():
        together = gpt2.action_log_probs(prompts, actions)
    for row, (prompt, names) in enumerate(cases):
        expected = one_at_a_time(gpt2, prompt, names)
        # A phrase may stand at -40, where float32 itself is 4e-6 wide: a few roundings are allowed.
        torch.testing.assert_close(together[row, : len(names)], expected, atol=1e-5, rtol=5e-7)
        assert torch.isinf(together[row, len(names) :]).all()


def test_scores_with_a_tokenizer_of_our_own(policy):
    prompts = [f"Goal: go to the {'red ' * n}ball\nYou see a wall\nAction: " for n in range(1, 6)]
    names = ["turn left", "go forward", "levitate", "levitate gently"]
    with torch.no_grad():
        together = policy.action_log_probs(prompts, names)
    for row, prompt in enumerate(prompts):
        expected = one_at_a_time(policy, prompt, names)
        # Some phrases stand at -70, where float32 itself is 8e-6 wide: a few roundings are allowed.
        torch.testing.assert_close(together[row], expected, atol=1e-5, rtol=5e-7)


def test_a_tree_shares_prefixes_and_keeps_every_phrase():
    trie = build_trie([[5], [5, 6], [5, 6, 7], [5, 8], [9, 6], [5, 6]])
    assert trie.tokens.tolist() == [5, 6, 9]  # what must be read: 5, then 5 6, and 9
    assert trie.depth.tolist() == [1, 2, 1]
    assert trie.last.tolist() == [1, 1, 2]
    assert trie.uses.sum(axis=1).tolist() == [1, 2, 3, 2, 2, 2]
    assert (trie.uses[1] == trie.uses[5]).all()


def test_single_token_phrases_need_no_forward_pass_of_their_own(policy):
    names = ("turn left", "turn right", "go forward", "pick up", "drop", "toggle")
    assert len(policy.trie(names).tokens) == 0


def test_gradients_of_scores_equal_those_of_the_plain_computation(gpt2):
    names, prompt = PHRASES[:6], "Goal: x\nAction: "
    weight = gpt2.model.transformer.h[0].attn.c_attn.weight

    def gradient(log_probs):
        gpt2.zero_grad()
        log_probs[2].backward()
        return weight.grad.clone()

    ours = gradient(gpt2.action_log_probs([prompt, "longer " * 9], names)[0])
    start = gpt2.tokenizer.encode(prompt.rstrip(" "))
    scores = []
    for name in names:
        phrase = gpt2.tokenizer.encode(f" {name}")
        log_probs = gpt2.model(torch.tensor([start + phrase])).logits[0].log_softmax(-1)
        scores.append(sum(log_probs[len(start) + i - 1, t] for i, t in enumerate(phrase)))
    plain = gradient(torch.stack(scores).log_softmax(0))
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("phrases", [[(1,), (2,)], [(1, 2, 4), (1, 3), (4,)]], ids=["flat", "trie"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_last_block_is_computed_where_decisions_are(phrases, precision, monkeypatch):
    """Scores, values and gradients are those of the whole block, and less of it is computed."""
    policy = LanguagePolicy.from_scratch("nano", seed=0, context=64, texts=["a b"])
    policy.set_precision(precision)
    torch.manual_seed(0)
    for parameter in policy.parameters():  # away from the quiet start
        parameter.data += 0.05 * torch.randn_like(parameter)
    rows = [list(range(n)) for n in (30, 17, 40, 9)]
    ends = [[29], [8, 16], [39], [8]]
    trie = build_trie(phrases)
    layout = lay_out(rows, [0] * 4, ends, [[trie] * len(row) for row in ends], policy.device)
    widths = []
    norm = policy.model.transformer.h[-1].ln_2
    norm.register_forward_hook(lambda module, inputs, output: widths.append(output.shape[1]))
    weigh = torch.arange(1.0, 1 + 5 * len(phrases)).view(5, -1)
    found = []
    for decisions_only in (False, True):
        policy.zero_grad()
        states = policy.hidden_states(layout, decisions_only=decisions_only)
        scores = policy.scores(states, layout, [trie] * 5).log_policy
        values = policy.values(states, layout)
        ((scores * weigh).sum() + values.square().sum()).backward()
        gradients = [p.grad.flatten() for p in policy.parameters() if p.grad is not None]
        found.append((scores.detach(), values.detach(), torch.cat(gradients)))
    for whole, part in zip(*found, strict=True):
        torch.testing.assert_close(
            part,
            whole,
            rtol=0,
            atol=1e-2 * float(whole.abs().max())
            if precision == "bf16"
            else 1e-5 * float(whole.abs().max()),
        )
    assert widths[1] <= 8 < 40 <= widths[0]


@pytest.mark.parametrize("prompt", ["transcript", "minimal", "glam"])
def test_acting_through_the_cache_scores_as_without_it(gpt2, prompt):
    """Rows of different lengths, phrases of several tokens, episodes that end and begin anew, and
    transcripts cut to the context."""
    names = ["turn left", "go forward", "pick up"]
    envs = [lang_agent.make("BabyAI-GoToLocalS5N2-v0", prompt=prompt, actions=names)
            for _ in range(3)]  # fmt: skip
    agent = PolicyAgent(gpt2, 3)
    worst, contexts = 0.0, set()
    for episode in play(agent, envs, range(4)):
        for step in episode.steps:
            contexts.add(id(step.decision.tokens.context))
            seen = step.observation
            expected = one_at_a_time(gpt2, seen.prompt, seen.actions)[step.decision.choice]
            worst = max(worst, abs(expected.item() - step.decision.tokens.log_probs[0]))
    assert worst < 1e-4
    if prompt == "transcript":
        assert len(contexts) > 4  # some episode outgrew the 256 positions


def test_greedy_play_is_the_same_with_and_without_cache(policy):
    def actions(slots):
        envs = [lang_agent.make("BabyAI-GoToLocalS5N2-v0") for _ in range(slots)]
        agent = PolicyAgent(policy, slots, DecideConfig(temperature=0))
        episodes = sorted(play(agent, envs, range(4)), key=lambda episode: episode.index)
        return [[step.decision.action for step in episode.steps] for episode in episodes]

    assert actions(1) == actions(4)


def test_temperature_flattens_and_sharpens(policy):
    with pytest.raises(LangAgentError, match="temperature=-1"):
        DecideConfig(temperature=-1)
    log_probs = torch.tensor([[0.6, 0.4]]).log().repeat(4000, 1)
    share = {}
    for temperature in (0.0, 0.5, 1.0):
        tempered = (log_probs / (temperature or 1)).log_softmax(-1)
        drawn = sample(tempered, temperature, torch.rand(4000).tolist())
        share[temperature] = (drawn == 0).float().mean().item()
    assert share[0.0] == 1.0
    assert share[0.5] == pytest.approx(0.36 / 0.52, abs=0.03)
    assert share[1.0] == pytest.approx(0.6, abs=0.03)


def test_greedy_text_equals_transformers_own_whatever_the_batch(gpt2):
    prompts = ["Goal: go to the red ball\nAction: ", "A", "one two three four five six"]
    together = gpt2.generate(prompts, max_new_tokens=12, temperature=0, stop=None)
    for prompt, text in zip(prompts, together, strict=True):
        ids = torch.tensor([gpt2.encode_prompt(prompt)])
        out = gpt2.model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)
        assert text == gpt2.tokenizer.decode(out[0, ids.shape[1] :]).strip()


def test_text_stops_where_it_is_told_to(gpt2):
    free = gpt2.generate(["A b c"], max_new_tokens=20, stop=None)[0]
    stop = free[len(free) // 2]
    assert gpt2.generate(["A b c"], max_new_tokens=20, stop=stop)[0] == free.split(stop)[0].rstrip()
    assert gpt2.generate(["word " * 250], max_new_tokens=50, stop=None)  # ends with the context


def test_mistakes_in_scoring_are_clear(policy):
    with pytest.raises(LangAgentError, match="list is empty"):
        policy.action_log_probs(["a"], [[]])
    with pytest.raises(LangAgentError, match="2 prompts but 1 lists"):
        policy.action_log_probs(["a", "b"], [["x"]])
    with pytest.raises(LangAgentError, match="must have words"):
        policy.action_log_probs(["a"], ["  "])
    with pytest.raises(PromptError, match="exceed the model's context of 1024"):
        policy.action_log_probs(["word " * 3000], ["x"])
