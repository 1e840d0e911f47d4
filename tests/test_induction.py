"""A new model looks back, and finds what was said before."""

from __future__ import annotations

import pytest
import torch

import lang_agent
from lang_agent import LanguagePolicy
from lang_agent.models.induction import SPELLED, WHOLE, alike
from lang_agent.models.tokenizer import names_in, train_tokenizer
from lang_agent.train.vocabulary import sample_texts
from lang_agent.words import SLOTS

SEEN = "See: red ball 2 steps left, blue key 1 step right, red key 3 steps forward,\ngo to the "
PLACES = {"red ball": " 2 steps left", "blue key": " 1 step right", "red key": " 3 steps forward"}


@pytest.mark.parametrize("size", ["pico", "nano", "micro", "small"])
@pytest.mark.parametrize("names", [("red", "blue", "ball", "key"), ()])
def test_a_new_model_attends_to_the_words_before_and_to_where_they_were_met(size, names):
    texts = [f"{SEEN}{thing}:" for thing in PLACES for _ in range(300)]
    right, others = 0.0, 0.0
    for seed in range(4):
        policy = LanguagePolicy.from_scratch(size, seed=seed, texts=texts, names=names)
        policy.model.set_attn_implementation("eager")
        for thing, place in PLACES.items():
            ids = torch.tensor([policy.encode_prompt(f"{SEEN}{thing}:")])
            words = [policy.tokenizer.decode([token]) for token in ids[0]]
            with torch.no_grad():
                first, second, *_ = policy.model.transformer(ids, output_attentions=True).attentions
            for head, offset in enumerate(WHOLE):
                assert first[0, head].diagonal(-offset)[offset:].min() > 0.9
            found = second[0, 0, -1, :-1]  # beside itself
            at = [word.rstrip(",") for word in words].index(place)
            right += found[at].item()
            others += found.sum().item() - found[at].item()
    assert right > 2 * others


def test_where_words_may_be_spelled_a_new_model_looks_further_back():
    policy = LanguagePolicy.from_scratch("nano", seed=0, texts=[SEEN], prose=True)
    policy.model.set_attn_implementation("eager")
    ids = torch.tensor([policy.encode("qrstuv" * 8)])
    with torch.no_grad():
        first, *_ = policy.model.transformer(ids, output_attentions=True).attentions
    for head, offset in enumerate(SPELLED):
        assert first[0, head].diagonal(-offset)[offset:].min() > 0.9


@pytest.fixture(scope="module")
def tokenizer():
    env = lang_agent.make("BabyAI-MixedLocal-v0", prompt="goal_last")
    return train_tokenizer(sample_texts([env]), 2048)


@pytest.mark.parametrize(
    ("mission", "names"),
    [
        ("go to the red ball", ["red ball"]),
        ("put the purple key next to the blue box", ["purple key", "blue box"]),
        ("pick up a grey key, then go to the green ball", ["grey key", "green ball"]),
        ("go to the yellow key after you pick up the blue ball", ["yellow key", "blue ball"]),
        ("open the purple door", ["purple door"]),
    ],
)
def test_a_thing_is_the_same_token_in_the_goal_and_in_what_is_seen(tokenizer, mission, names):
    def tokens(text):
        return [tokenizer.decode([token]) for token in tokenizer(text)["input_ids"]]

    goal = tokens(f"\n{mission}:")
    for name in names:
        state = "locked " if name.endswith("door") else ""
        assert f" {name}" in goal
        assert f" {name}" in tokens(f"See: {state}{name} 2 steps left and 1 step forward,")
        assert f" {name}" in tokens(f"\nYou see a {state}{name} 3 steps forward\nAction:")


def test_tokens_that_share_words_begin_alike():
    tokens = [" red key", " red door", " key", " blue box", ":", " red key,"]
    own = torch.nn.functional.normalize(torch.randn(6, 4096, generator=torch.manual_seed(0)), dim=1)
    made = alike(own, tokens)
    near = (made @ made.T).tolist()
    assert near[0][1] == pytest.approx(0.25, abs=0.06)  # half of each is its words', and one of two
    assert near[0][2] == pytest.approx(0.5, abs=0.06)  # whose vector is that of the word
    assert near[0][5] == pytest.approx(0.5, abs=0.06)  # the same words
    assert near[0][3] == pytest.approx(0.0, abs=0.06)
    assert torch.equal(made[2], own[2])
    assert made.norm(dim=1).tolist() == pytest.approx([1.0] * 6)


def test_what_tells_a_thing_from_others_of_its_name_is_part_of_it():
    """The whole of it is then one token, found where the same was said before."""
    said = ("key", "red ball", "box")
    texts = [f"\ngo to a {name}:" for name in (*said, "door")]
    texts += [f"\npick up the {name} on your left, then:" for name in said]
    texts += ["\nput it near the box behind you:"]  # said of one alone
    names, said_of_many = names_in(texts)
    assert names == ["box", "box behind you", "door", "key", "red ball"]
    assert said_of_many == ["on your left"]
    tokenizer = train_tokenizer(texts * 40, 600)
    seen = "red ball on your left 2 left, red ball 1 right, door on your left 3 left"
    ids = tokenizer(f"See: {seen}\npick up the red ball on your left:")["input_ids"]
    told = [tokenizer.decode([token]) for token in ids]
    assert told.count(" red ball on your left") == 2
    assert told.count(" red ball") == told.count(" door on your left") == 1  # though never met


def test_what_is_said_between_two_names_is_part_of_neither():
    assert names_in(["put the red ball next to the blue box:"]) == (["blue box"], [])


def test_where_words_are_renamed_a_head_of_the_last_layer_says_what_stands_behind_a_number():
    listed = "Say: 1: turn left 2: go forward 3: pick up\n"
    texts = [f"{listed}{SEEN}{thing}:" for thing in PLACES for _ in range(300)]
    policy = LanguagePolicy.from_scratch("nano", seed=0, texts=texts, names=("red", "ball"))
    policy.model.set_attn_implementation("eager")
    ids = policy.encode_prompt(f"Say: 1: zarn 2: wug left 3: dax\n{SEEN}red ball:")
    behind = [
        at + 1
        for at, token in enumerate(ids)
        if policy.tokenizer.decode(token).strip() in ("1:", "2:", "3:")
    ]
    assert len(behind) == 3
    with torch.no_grad():
        *_, last = policy.model(torch.tensor([ids]), output_attentions=True).attentions
    assert last[0, 1, -1, behind].sum() > 0.5
    attention = policy.model.transformer.h[-1].attn
    size = attention.head_dim
    value = attention.c_attn.weight.unflatten(1, (3, -1, size))[:, 2, 1]
    output = attention.c_proj.weight[size : 2 * size]
    words = policy.model.get_input_embeddings().weight[-SLOTS:]  # of any phrase
    said = words @ value @ output @ words.T
    assert (said.argmax(1) == torch.arange(SLOTS)).float().mean() > 0.95
