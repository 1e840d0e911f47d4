"""A new model looks back, and finds what was said before."""

from __future__ import annotations

import pytest
import torch

from lang_agent import LanguagePolicy
from lang_agent.induction import LOOK_BACK, NAMED

SEEN = "See: red ball 2 steps left, blue key 1 step right, red key 3 steps forward,\ngo to the "
PLACES = {"red ball": " 2 steps left", "blue key": " 1 step right", "red key": " 3 steps forward"}


@pytest.mark.parametrize("size", ["nano", "micro", "small"])
def test_a_new_model_attends_to_the_words_before_and_to_where_they_were_met(size):
    names = ("red", "blue", "ball", "key")
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
            for head, offset in enumerate(NAMED):
                assert first[0, head].diagonal(-offset)[offset:].min() > 0.9
            found = second[0, 0, -1, :-1]  # beside itself
            right += found[words.index(place)].item()
            others += found.sum().item() - found[words.index(place)].item()
    assert right > 2 * others


def test_where_words_may_be_spelled_a_new_model_looks_further_back():
    policy = LanguagePolicy.from_scratch("nano", seed=0, texts=[SEEN])
    policy.model.set_attn_implementation("eager")
    ids = torch.tensor([policy.encode("qrstuv" * 8)])
    with torch.no_grad():
        first, *_ = policy.model.transformer(ids, output_attentions=True).attentions
    for head, offset in enumerate(LOOK_BACK):
        assert first[0, head].diagonal(-offset)[offset:].min() > 0.9
