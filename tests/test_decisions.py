"""The ways to decide: by phrases, by constrained tokens, by free text. All score alike acting and
learning, and all learn."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from conftest import BANDIT, gpt2_tokenizer, make_bandit
from test_learning import bandit_texts, samples_of
from transformers import GPT2Config, GPT2LMHeadModel

import lang_agent
from lang_agent import LangAgentError, LanguagePolicy, PolicyAgent, evaluate, play
from lang_agent.agents.policy_agent import _answer
from lang_agent.episode import Episode, Step, TextObservation
from lang_agent.learn.config import LearnConfig
from lang_agent.learn.learner import Learner
from lang_agent.learn.objective import evaluate_actions
from lang_agent.learn.optimizer import Optimizer
from lang_agent.learn.sequences import collate
from lang_agent.models.decide import GENERATE, RULES, DecideConfig
from lang_agent.models.trie import decisions_in
from lang_agent.text_env.action_parser import parse_action

PHRASES = ("turn left", "turn right", "go", "go forward", "drop it here", "unfathomably")


@pytest.fixture(scope="module")
def gpt2() -> LanguagePolicy:
    torch.manual_seed(0)
    config = GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=512, initializer_range=0.3)
    return LanguagePolicy(GPT2LMHeadModel(config), gpt2_tokenizer())


@torch.no_grad()
def token_log_probs(policy, prompt, phrase):
    """The next-token distribution at each token of a phrase, one plain forward pass."""
    start, ids = policy.encode_prompt(prompt), policy.encode_action(phrase)
    logits = policy.model(torch.tensor([start + ids])).logits[0].log_softmax(-1)
    return ids, logits[len(start) - 1 :]


@pytest.mark.parametrize(("rule", "count"), [("token-mean", None), ("word-mean", str.split)])
def test_means_divide_by_tokens_or_words(gpt2, rule, count):
    prompt = "Goal: x\nAction: "
    expected = []
    for phrase in PHRASES:
        ids, log_probs = token_log_probs(gpt2, prompt, phrase)
        total = sum(log_probs[at, token] for at, token in enumerate(ids))
        expected.append(total / (len(ids) if count is None else len(count(phrase))))
    with torch.no_grad():
        ours = gpt2.action_log_probs([prompt, "B " * 9], PHRASES, rule=rule)[0]
    torch.testing.assert_close(ours, torch.stack(expected).log_softmax(0), atol=1e-5, rtol=0)


def test_constrained_decoding_is_a_product_of_softmaxes_over_what_may_follow(gpt2):
    prompt = "Goal: x\nAction: "
    newline = gpt2.encode("\n")[-1]
    phrases = {name: gpt2.encode_action(name) for name in PHRASES}
    phrases["go"] = [*phrases["go"], newline]  # "go" begins "go forward": something must end it
    expected = []
    for name, ids in phrases.items():
        _, log_probs = token_log_probs(gpt2, prompt, name)
        total = 0.0
        for at in range(len(ids)):
            may_follow = {other[at] for other in phrases.values() if other[:at] == ids[:at]
                          and len(other) > at}  # fmt: skip
            allowed = log_probs[at, sorted(may_follow)]
            total = total + log_probs[at, ids[at]] - allowed.logsumexp(0)
        expected.append(total)
    with torch.no_grad():
        ours = gpt2.action_log_probs(["B " * 9, prompt], PHRASES, rule="constrained")[1]
    torch.testing.assert_close(ours, torch.stack(expected), atol=1e-5, rtol=0)
    assert ours.exp().sum().item() == pytest.approx(1, abs=1e-5)


def test_constrained_decoding_refuses_equal_phrases(gpt2):
    with pytest.raises(LangAgentError, match="'go left' from 'go left'"):
        gpt2.action_log_probs(["B"], ["go left", "stay", "go left"], rule="constrained")


def collect(policy, decide, prompt, episodes=6):
    envs = [lang_agent.make("BabyAI-GoToLocalS5N2-v0", prompt=prompt) for _ in range(3)]
    agent = PolicyAgent(policy, 3, decide)
    return sorted(play(agent, envs, range(episodes)), key=lambda episode: episode.index)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("prompt", ["transcript", "glam"])
@pytest.mark.parametrize("way", [*RULES, GENERATE])
def test_ratios_are_one_before_the_first_step(gpt2, way, prompt, temperature):
    decide = DecideConfig(way, temperature, **({"max_new_tokens": 6} if way == GENERATE else {}))
    samples = samples_of(gpt2, collect(gpt2, decide, prompt, 3), decide)
    batch = collate(samples, gpt2.device)
    with torch.no_grad():
        now = evaluate_actions(gpt2, batch, decide)
    assert batch.mask.sum(1).max() == (1 if way in RULES[:3] else batch.mask.shape[1])
    torch.testing.assert_close(now.log_probs, batch.log_probs, atol=1e-4, rtol=0)
    assert (now.entropy > 0).all()
    assert (now.log_probs[batch.mask] <= 1e-6).all()


def test_to_score_is_to_weigh_by_the_sum():
    assert DecideConfig("score") == DecideConfig("sum") == DecideConfig()


def test_a_batch_may_lack_the_longest_phrase(gpt2):
    decide = DecideConfig("constrained")
    samples = samples_of(gpt2, collect(gpt2, decide, "glam", 6), decide)
    counts = [max(map(len, sample.log_probs)) for sample in samples]
    short = [sample for sample, count in zip(samples, counts, strict=True) if count < max(counts)]
    batch = collate(short, gpt2.device)
    with torch.no_grad():
        now = evaluate_actions(gpt2, batch, decide)
    torch.testing.assert_close(now.log_probs, batch.log_probs, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("phrases", "decisions"),
    [
        (("walk onward left", "walk onward right"), [1, 1]),
        (("left", "right now"), [1, 1]),
        (("go", "go left", "go right"), [1, 1, 1]),
        (("go left now", "go left then", "go right"), [2, 2, 1]),
        (("walk onward left",), [1]),
    ],
)  # fmt: skip
def test_a_token_that_is_forced_is_no_decision(gpt2, phrases, decisions):
    """What stands before and after the choice must not make its loss weigh less."""
    trie = gpt2.trie(phrases, "constrained")
    assert [decisions_in(trie, at) for at in range(len(phrases))] == decisions
    decide, seen = DecideConfig("constrained"), TextObservation("Goal: a\nAction:", phrases)
    exact = gpt2.action_log_probs([seen.prompt], phrases, rule="constrained")[0]
    for seed in range(6):
        agent = PolicyAgent(gpt2, 1, decide)
        agent.begin(0, seed)
        (decision,) = agent.act([0], [seen])
        assert len(decision.tokens.log_probs) == decisions[decision.choice]
        assert sum(decision.tokens.log_probs) == pytest.approx(
            exact[decision.choice].item(), abs=1e-5
        )


def test_a_choice_weighs_the_same_however_many_tokens_are_forced(gpt2):
    losses = []
    for phrases in (("left", "right"), ("left", "right of the very old trie over there")):
        decide, seen = DecideConfig("constrained"), TextObservation("Goal: a\nAction:", phrases)
        (decision,) = PolicyAgent(gpt2, 1, decide).act([0], [seen])
        step = Step(replace(seen, expert=phrases[1]), decision, 1.0, {})
        episode = Episode(0, 0, [step], terminated=True)
        config = LearnConfig("imitation", entropy_coef=0.0, value_coef=0.0)
        optimizer = Optimizer(gpt2, "adamw", 1e-30, 0.0)
        metrics = Learner(gpt2, config, decide, optimizer=optimizer).update([episode])
        exact = gpt2.action_log_probs([seen.prompt], phrases, rule="constrained")[0, 1].item()
        losses.append(metrics["policy_loss"] / -exact)
    assert losses == pytest.approx([1, 1], abs=1e-4)


def warm_up(policy, texts, steps=80):
    """Enough plain language modelling to write an action most of the time, either one."""
    optimizer = torch.optim.AdamW(policy.parameters(), lr=2e-3)
    rows = sorted((policy.encode(text) for text in texts), key=len)
    alike = [torch.tensor(list(group)) for _, group in itertools.groupby(rows, len)]
    for _ in range(steps):
        optimizer.zero_grad()
        for ids in alike:
            policy.model(ids, labels=ids).loss.backward()
        optimizer.step()


@pytest.mark.parametrize("way", [*RULES, GENERATE])
def test_every_way_to_decide_learns_the_bandit(way):
    prompt, options, config = "transcript", {}, LearnConfig(minibatch_decisions=64)
    if way != GENERATE:
        options["actions"] = {"go far left": "go left", "go far right": "go right"}
    envs = [make_bandit(prompt=prompt, invalid_action="end", **options) for _ in range(16)]
    policy = LanguagePolicy.from_scratch("nano", seed=1, texts=bandit_texts(prompt))
    if way == GENERATE:
        shown = {envs[0].reset(seed=seed)[0].rstrip() for seed in range(8)}
        assert len(shown) == 2
        warm_up(policy, [f"{text} {name}\n" for text in sorted(shown) for name in BANDIT.actions])
    decide = DecideConfig(way, max_new_tokens=12) if way == GENERATE else DecideConfig(way)
    optimizer = Optimizer(policy, "muon", 1e-3, 0.0)
    learner = Learner(policy, config, decide, optimizer=optimizer)
    successes = []
    for round_ in range(60):  # writing takes ten to twenty
        agent = PolicyAgent(policy, 16, decide)
        episodes = list(play(agent, envs, range(64 * round_, 64 * round_ + 64)))
        learner.update(episodes)
        successes.append(sum(episode.success for episode in episodes))
        if successes[-1] >= 60:
            break
    assert successes[0] < 48
    greedy = replace(decide, temperature=0)
    (row,) = evaluate(PolicyAgent(policy, 16, greedy), envs, 200)
    assert row.success > 0.95


def test_thoughts_come_before_the_marker():
    actions = ("turn left", "go forward")
    text = "The ball is not left of me, so no turn left. Action: go forward"
    assert parse_action(text, actions).action == "go forward"
    assert parse_action("no turn left. Action:", actions).verdict == "invalid"
    assert _answer("I think\nAction: go forward\nYou see", asked=False).endswith("go forward")
    assert _answer("I think\nso I am", asked=False) is None
    assert _answer(" go forward\nYou", asked=True) == " go forward"
    assert _answer("\n\n", asked=True) is None


def test_free_text_keeps_the_tokens_that_were_sampled(gpt2):
    decide = DecideConfig(GENERATE, max_new_tokens=8)
    for episode in collect(gpt2, decide, "think", 3):
        for step in episode.steps:
            decision = step.decision
            assert 1 <= len(decision.tokens.token_ids) == len(decision.tokens.log_probs) <= 8
            begin = decision.tokens.position + 1
            kept = decision.tokens.context[begin : begin + len(decision.tokens.token_ids) - 1]
            assert kept == decision.tokens.token_ids[:-1]
        assert len(episode.steps) == 1 or step.info["invalid_action"]


def test_a_common_beginning_is_encoded_once(gpt2):
    """GLAM's prompts all begin with the list of actions."""
    reads = []
    encode = gpt2.hidden_states

    def spy(layout, *rest, **how):
        reads.append(tuple(layout.token_ids.shape))
        return encode(layout, *rest, **how)

    envs = [lang_agent.make("BabyAI-GoToLocalS5N2-v0", prompt="glam") for _ in range(4)]
    seen = [env.reset(seed=seed) for seed, env in enumerate(envs)]
    agent = PolicyAgent(gpt2, 4, DecideConfig(temperature=0))
    observations = [
        lang_agent.rollout.TextObservation(text, info["actions"]) for text, info in seen
    ]
    gpt2.hidden_states = spy
    try:
        decisions = agent.act(range(4), observations)
    finally:
        del gpt2.hidden_states
    assert reads[0][0] == 1
    assert reads[0][1] >= 20  # "Possible action of the agent: ..." read by one row
    longest = max(decision.tokens.position + 1 for decision in decisions)
    assert reads[1][1] < longest  # and by no other
    with torch.no_grad():
        expected = gpt2.action_log_probs([o.prompt for o in observations], seen[0][1]["actions"])
    for row, decision in enumerate(decisions):
        assert decision.tokens.log_probs[0] == pytest.approx(expected[row].max().item(), abs=1e-5)
