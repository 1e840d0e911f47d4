"""Gymnasium's vector environments of text worlds."""

from __future__ import annotations

from functools import partial

import gymnasium
import numpy as np
import pytest
from conftest import BANDIT, Bandit, make_bandit
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.vector.utils import (
    create_shared_memory,
    read_from_shared_memory,
    write_to_shared_memory,
)

import lang_agent
from lang_agent import LangAgentError, TextEnv, World
from lang_agent.text_env.spaces import AnyText

ROOM = "BabyAI-GoToLocalS5N2-v0"
MOVES = ("turn left", "go forward", "turn right", "go forward")


def played(envs: gymnasium.vector.VectorEnv) -> list:
    """Everything that a vector environment says over a few steps."""
    try:
        heard = [envs.reset(seed=[3, 8])]
        heard += [envs.step((move, "go forward")) for move in MOVES]
        return heard
    finally:
        envs.close()


def one_by_one() -> list[list[str]]:
    """The prompts of the same episodes, played without a vector environment."""
    prompts = []
    for seed, moves in ((3, MOVES), (8, ["go forward"] * len(MOVES))):
        env = lang_agent.make(ROOM, prompt="minimal")
        prompts.append([env.reset(seed=seed)[0], *(env.step(move)[0] for move in moves)])
    return prompts


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_make_vec_says_what_the_environments_say(mode):
    import lang_agent.envs  # noqa: F401

    envs = gymnasium.make_vec(
        f"lang_agent/{ROOM}", num_envs=2, vectorization_mode=mode, prompt="minimal"
    )
    space = envs.observation_space
    heard = played(envs)
    assert all(type(texts) is tuple and texts in space for texts, *_ in heard)
    prompts = [list(texts) for texts in zip(*(texts for texts, *_ in heard), strict=True)]
    assert prompts == one_by_one()
    assert len({*prompts[0]}) > 1  # the texts do change


@pytest.mark.parametrize(
    "make",
    [
        SyncVectorEnv,
        AsyncVectorEnv,
        partial(AsyncVectorEnv, shared_memory=False),
        partial(AsyncVectorEnv, copy=False),
    ],
    ids=["sync", "async", "pipes", "uncopied"],
)
def test_vector_environments_agree(make):
    heard = played(make([partial(lang_agent.make, ROOM, prompt="minimal")] * 2))
    plain = played(SyncVectorEnv([partial(lang_agent.make, ROOM, prompt="minimal")] * 2))
    assert tuple(heard[-1][0]) == plain[-1][0]
    for (_, *one, info), (_, *other, other_info) in zip(heard, plain, strict=True):
        np.testing.assert_equal(one, other)
        np.testing.assert_equal(info, other_info)


def test_texts_that_were_copied_stay_and_those_that_were_not_change():
    for copy in (True, False):
        envs = AsyncVectorEnv([partial(make_bandit, prompt="minimal")] * 2, copy=copy)
        first, _ = envs.reset(seed=[0, 0])
        before = tuple(first)
        others = (envs.reset(seed=[seed, seed])[0] for seed in range(1, 20))
        later = next(tuple(texts) for texts in others if tuple(texts) != before)
        envs.close()
        assert tuple(first) == (before if copy else later)


@pytest.mark.parametrize("make", [SyncVectorEnv, AsyncVectorEnv])
def test_the_phrases_of_each_environment_stand_in_the_vectors_info(make):
    def room(*actions):
        return partial(lang_agent.make, ROOM, actions=actions)

    envs = make([room("turn left", "go forward"), room("turn left")])
    infos = [out[-1] for out in (envs.reset(seed=0), envs.step(["turn left", "fly"]))]
    envs.close()
    for info in infos:
        assert list(info["actions"]) == [("turn left", "go forward"), ("turn left",)]
        assert info["_actions"].all()
    assert list(infos[1]["verdict"]) == ["exact", "invalid"]
    assert infos[1]["invalid_action"].tolist() == [False, True]


class Countdown(Bandit):
    """Two steps; the phrases change with the state."""

    def step(self, action):
        state, reward, _, _, info = super().step(action)
        self.left = getattr(self, "left", 2) - 1
        return state, reward, self.left == 0, False, info


CHANGING = World(
    actions=BANDIT.actions,
    renderers={
        "words": lambda state, env: {
            "descriptions": ["x"],
            "actions": ["go left", "go right"][: 1 + state],
        }
    },
)


@pytest.mark.parametrize("make", [SyncVectorEnv, AsyncVectorEnv])
def test_an_episode_that_ends_leaves_its_phrases_and_its_last_prompt(make):
    envs = make([lambda: TextEnv(Countdown(), CHANGING)] * 2, autoreset_mode="SameStep")
    seen = [envs.reset(seed=[0, 3])[1]]
    for _ in range(2):
        prompts, _, terminated, _, info = envs.step(["go left", "go left"])
        seen.append(info)
    envs.close()
    assert terminated.all()
    assert {len(actions) for info in seen for actions in info["actions"]} == {1, 2}
    assert [text.endswith("Action: ") for text in info["final_obs"]] == [True, True]
    assert info["final_info"]["success"].dtype == bool
    assert list(info["final_info"]["actions"]) != [None, None]
    ends = zip(prompts, info["final_obs"], strict=True)
    assert all(len(new) < len(old) for new, old in ends)  # a new transcript


def test_texts_of_any_script_and_length_pass_through_shared_memory():
    import multiprocessing

    space = AnyText(max_length=20)
    memory = create_shared_memory(space, 2, multiprocessing)
    texts = read_from_shared_memory(space, memory, 2)
    assert tuple(texts) == ("", "")
    for one, other in (("héllo\n", "日本語 🙂"), ("x" * 20, ""), ("", "\ud800")):
        write_to_shared_memory(space, 0, one, memory)
        write_to_shared_memory(space, 1, other, memory)
        assert list(texts) == [one, other]
    with pytest.raises(LangAgentError, match=r"has 21 bytes.*shared_memory=False"):
        write_to_shared_memory(space, 1, "é" * 10 + "x", memory)
    with pytest.raises(IndexError):
        texts[2]


@pytest.mark.filterwarnings("ignore:.*ERROR")
def test_a_prompt_too_long_for_shared_memory_is_a_sentence():
    def long():
        env = make_bandit(prompt="minimal")
        env.observation_space = AnyText(max_length=10)
        return env

    envs = AsyncVectorEnv([long])
    with pytest.raises(LangAgentError, match="shared_memory=False"):
        envs.reset()
    envs.close(terminate=True)
    with_pipes = AsyncVectorEnv([long], shared_memory=False)
    assert "sign" in with_pipes.reset()[0][0]
    with_pipes.close()
