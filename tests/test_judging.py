"""Texts are judged within their environment's step, through all wrappers, alone or as a group."""

from __future__ import annotations

import asyncio
import threading
import time

import gymnasium
import pytest
from gymnasium.wrappers import TimeLimit, TransformReward
from lang_agent.envs.text_generation import DialogueEnv, TextGenerationEnv

from lang_agent import LangAgentError
from lang_agent.episode import Agent, Decision, TokenTrace
from lang_agent.rewards.rubric import Part, Rubric
from lang_agent.rollout import play
from lang_agent.stepping import EnvError, EnvErrors
from lang_agent.text_env.mixture import Mixture

LENGTH = {"length": {"target": 3}}


class Say(Agent):
    """Says, in each episode, one more "la" than in the one before."""

    def __init__(self, texts=None):
        self.texts, self.said = texts, 0

    def act(self, slots, observations):
        decisions = []
        for _ in slots:
            self.said += 1
            text = " ".join(["la"] * self.said) if self.texts is None else self.texts
            decisions.append(Decision(text, tokens=TokenTrace([], 0, [*range(len(text.split()))])))
        return decisions


class Bonus(gymnasium.Wrapper):
    def step(self, action):
        prompt, reward, terminated, truncated, info = self.env.step(action)
        return prompt, reward + 100, terminated, truncated, info


class Shouting(gymnasium.ActionWrapper):
    def action(self, action):
        return f"{action} AND MORE"


def rank(texts):
    """How many of the group's texts are shorter."""
    return [float(sum(len(other) < len(text) for other in texts)) for text in texts]


def words(text):
    return float(len(text.split()))


def returns(agent, envs, seeds=(0,), **options):
    return sorted(episode.total_reward for episode in play(agent, envs, seeds, **options))


def test_a_wrappers_reward_counts_and_what_the_rubric_said_is_reported():
    for env in (
        Bonus(TextGenerationEnv(["x"], LENGTH)),
        Bonus(Bonus(TextGenerationEnv(["x"], LENGTH))),
    ):
        env.reset(seed=0)
        expected = env.step("la la la")[1]
        (episode,) = play(Say("la la la"), [env], [0])
        assert episode.total_reward == expected in (101.0, 201.0)
        info = episode.steps[0].info
        assert (info["rewards"], info["success"], info["judged"]) == ({"length": 1.0}, True, True)
        assert info["reward_seconds"]["length"] >= 0


def test_any_transformation_of_the_reward_is_of_the_whole_reward():
    env = TransformReward(TextGenerationEnv(["x"], {"test_judging:words": 1}), lambda r: r**2 + 1)
    assert returns(Say("la la la"), [env]) == [10.0]
    group = [
        TransformReward(TextGenerationEnv(["x"], Rubric([Part("rank", rank)])), lambda r: r**2 + 1)
        for _ in range(4)
    ]
    assert returns(Say(), group, group_size=4) == [1.0, 2.0, 5.0, 10.0]  # of ranks 0, 1, 2, 3


def test_a_time_limit_ends_the_episode():
    env = TimeLimit(DialogueEnv(["x"], LENGTH, turns=3), max_episode_steps=2)
    (episode,) = play(Say("la la la"), [env], [0])
    assert [len(episode.steps), episode.truncated, episode.terminated] == [2, True, False]
    assert episode.total_reward == 2.0


def test_what_a_wrapper_makes_of_a_text_is_what_is_judged():
    heard = []

    def hears(texts):
        heard.append(list(texts))
        return rank(texts)

    envs = [Shouting(TextGenerationEnv(["x"], Rubric([Part("hears", hears)]))) for _ in range(3)]
    assert returns(Say(), envs, group_size=3) == [0.0, 1.0, 2.0]
    assert heard == [["la AND MORE", "la la AND MORE", "la la la AND MORE"]]


@pytest.mark.parametrize("count", [4, 5, 9])
def test_groups_are_judged_together_alone_and_in_a_mixture(count):
    def together(texts):
        return [float(len(texts))] * len(texts)

    def writing():
        return TextGenerationEnv(["x"], Rubric([Part("together", together)]))

    alone = [writing() for _ in range(count)]
    assert returns(Say("la"), alone, range(5), group_size=4) == [4.0] * 20
    mixed = [Mixture([writing(), Bonus(writing())], "ab", [1.0, 1.0]) for _ in range(count)]
    found = returns(Say("la"), mixed, range(12), group_size=4)
    assert set(found) == {4.0, 104.0}
    assert all(found.count(value) % 4 == 0 for value in set(found))


def test_a_group_of_dialogues_is_judged_turn_by_turn_and_may_end_at_different_times():
    seen = []

    def counted(texts):
        seen.append(len(texts))
        return [1.0] * len(texts)

    def leaves(turns):
        return lambda said: f"line {len(said)}" if len(said) // 2 < turns else None

    envs = [
        Bonus(
            DialogueEnv(["x"], Rubric([Part("counted", counted)]), partner=leaves(turns), turns=9)
        )
        for turns in (1, 2, 3)
    ]
    assert returns(Say("la"), envs, group_size=3) == [101.0, 202.0, 303.0]
    assert seen == [3, 2, 1]
    at_end = [
        DialogueEnv(["x"], Rubric([Part("counted", counted)]), turns=2, reward_at="end")
        for _ in range(3)
    ]
    assert returns(Say("la"), at_end, group_size=3) == [1.0] * 3
    assert seen == [3, 2, 1, 3]


def test_texts_that_are_compared_need_their_group_at_once_and_others_do_not():
    envs = [TextGenerationEnv(["x"], Rubric([Part("rank", rank)])) for _ in range(2)]
    with pytest.raises(LangAgentError, match=r"4 texts of a group.*set envs to 4 or more"):
        returns(Say(), envs, group_size=4)
    envs = [TextGenerationEnv(["x"], Rubric([Part("words", words)])) for _ in range(2)]
    assert returns(Say(), envs, group_size=4) == [1.0, 2.0, 3.0, 4.0]


def test_async_rewards_of_a_group_run_side_by_side():
    async def slow(text):
        await asyncio.sleep(0.2)
        return float(len(text.split()))

    envs = [TextGenerationEnv(["x"], Rubric([Part("slow", slow)])) for _ in range(8)]
    started = time.monotonic()
    assert returns(Say(), envs, group_size=8) == [float(n) for n in range(1, 9)]
    assert time.monotonic() - started < 1.0
    few = [TextGenerationEnv(["x"], Rubric([Part("slow", slow)])) for _ in range(2)]
    assert returns(Say(), few, group_size=4) == [1.0, 2.0, 3.0, 4.0]


def test_rewards_of_tokens_know_the_tokens_through_wrappers_and_groups():
    def by_token(tokens):
        return [float(token) for token in tokens]

    def ranked(texts, tokens_of):
        return [[1.0] * len(tokens) for tokens in tokens_of]

    for part, size in ((Part("tokens", by_token), 1), (Part("ranked", ranked), 2)):
        envs = [Bonus(TextGenerationEnv(["x"], Rubric([part]))) for _ in range(2)]
        for episode in play(Say("la la la"), envs, range(3), group_size=size):
            (step,) = episode.steps
            assert step.token_rewards == ([0.0, 1.0, 2.0] if size == 1 else [1.0] * 3)
            assert step.reward == 103.0
            assert "token_rewards" not in step.info


def test_a_reward_that_fails_is_an_error_of_its_episodes():
    def odd(texts):
        if len(texts[0].split()) == 3:
            raise RuntimeError("an odd text")
        return [1.0] * len(texts)

    envs = [TextGenerationEnv(["x"], Rubric([Part("odd", odd)])) for _ in range(2)]
    with pytest.raises(EnvError, match=r"seed 1.*'odd' failed.*an odd text"):
        returns(Say(), envs, range(3), group_size=2)
    errors = EnvErrors("skip")
    envs = [TextGenerationEnv(["x"], Rubric([Part("odd", odd)])) for _ in range(2)]
    assert returns(Say(), envs, range(3), group_size=2, errors=errors) == [1.0] * 4
    assert (errors.left_out, len(errors.seen)) == (2, 2)


def test_a_game_that_is_given_up_leaves_nothing_behind():
    before = threading.active_count()
    envs = [TextGenerationEnv(["x"], Rubric([Part("rank", rank)])) for _ in range(3)]

    class GivesUp(Say):
        def act(self, slots, observations):
            if len(slots) == 1:
                raise KeyboardInterrupt
            return super().act(slots, observations)

    with pytest.raises(KeyboardInterrupt):
        returns(GivesUp(), envs, range(2), group_size=2)
    assert threading.active_count() == before
    for env in envs:  # and steps by itself again
        env.reset(seed=0)
        assert env.step("la")[1] == 0.0


class Foreign(gymnasium.Env):
    """A world of somebody else's that speaks, and has a judge for a purpose of its own."""

    judge = "a judge that is the world's own business"
    observation_space = action_space = gymnasium.spaces.Text(100)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return "Which way?", {}

    def step(self, action):
        return "Over.", 1.0, True, False, {}


def test_a_world_with_a_judge_of_its_own_keeps_it():
    env = Foreign()
    (episode,) = play(Say("go left"), [env], [0])
    assert episode.total_reward == 1.0
    assert env.judge == "a judge that is the world's own business"
