"""Gymnasium's toy text in words: what can be read, what can be said, and experts at the optimum."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from lang_agent.envs import blackjack, frozen_lake

import lang_agent
from lang_agent import LangAgentError
from lang_agent.agents.expert import ExpertAgent
from lang_agent.rollout import play

TABULAR = [
    ("TextFrozenLake-v0", {}),
    ("TextFrozenLake-v0", {"is_slippery": False}),
    ("TextFrozenLake-v0", {"map_name": "8x8", "max_steps": 200}),
    ("TextTaxi-v0", {}),
    ("TextTaxi-v0", {"is_rainy": True}),
    ("TextCliffWalking-v0", {}),
    ("TextCliffWalking-v0", {"is_slippery": True, "max_steps": 50}),
]
TIGHT = 1e-3  # what the expert may lose by going the shorter of two ways that are all but as sure


def inside(env):
    """The environment that was put into words, in its limit of steps."""
    return env.unwrapped.env


def read(env, state):
    """All that is told in a state."""
    world = env.unwrapped.world
    fields = next(iter(world.renderers.values()))(state, inside(env))
    return fields["mission"], *fields["descriptions"]


# -- what can be read ------------------------------------------------------------------------------


@pytest.mark.parametrize(("env_id", "arguments"), TABULAR)
def test_no_two_states_read_the_same(env_id, arguments):
    env = lang_agent.make(env_id, **arguments)
    states = range(inside(env).observation_space.n)
    assert len(states) in (16, 64, 500, 48)
    assert len({read(env, state) for state in states}) == len(states)


def test_no_two_hands_read_the_same():
    env = lang_agent.make("TextBlackjack-v0")
    hands = [(own, card, ace) for own in range(4, 22) for card in range(1, 11) for ace in (0, 1)]
    assert len({read(env, hand) for hand in hands}) == len(hands) == 360


def test_lakes_with_other_holes_read_otherwise():
    def first(*desc):
        return read(lang_agent.make("TextFrozenLake-v0", desc=list(desc)), 0)

    assert first("SFF", "FFF", "FHG") != first("SFF", "FFF", "HFG")
    assert "Holes are nowhere" in first("SF", "FG")
    assert first("SF", "FG")[0] == "cross the slippery lake to the goal"


def test_a_lake_reads_like_this():
    env = lang_agent.make("TextFrozenLake-v0", is_slippery=False)
    env.reset(seed=0)
    assert env.step("go south")[4]["descriptions"] == [
        "You stand in row 2, column 1",
        "The goal is in row 4, column 4",
        "Holes are in row 2, column 2; in row 2, column 4; in row 3, column 4; in row 4, column 1",
        "To the north is ice",
        "To the east is a hole",
        "To the south is ice",
        "To the west is the shore",
    ]


def test_a_taxi_reads_like_this():
    env = lang_agent.make("TextTaxi-v0")
    world = inside(env).unwrapped
    assert read(env, world.encode(4, 0, 4, 1))[1:] == (
        "The taxi is in row 5, column 1",
        "There is a wall to the south",
        "There is a wall to the east",
        "There is a wall to the west",
        "The passenger sits in the taxi",
        "The passenger wants to go to the green stand in row 1, column 5",
        "You can go north, drop off the passenger",
    )


def test_the_lake_is_a_world_of_at_most_fifteen_lines():
    text = Path(frozen_lake.__file__).read_text(encoding="utf-8")
    tree = ast.parse(text)
    head = [n for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom, ast.Expr))]
    left_out = {line for node in head for line in range(node.lineno, node.end_lineno + 1)}
    lines = [
        line for at, line in enumerate(text.splitlines(), 1) if line.strip() and at not in left_out
    ]
    assert lines[0].startswith("ICE =")
    assert "register_env(" in lines[-1]
    assert len(lines) <= 15


# -- what can be said ------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{}, {"is_rainy": True}])
def test_the_taxis_phrases_are_those_that_change_something(arguments):
    env = lang_agent.make("TextTaxi-v0", **arguments)
    world = inside(env).unwrapped
    (render,) = env.unwrapped.world.renderers.values()
    for state, row in world.P.items():
        said = render(state, inside(env))["actions"]
        changing = [
            phrase
            for phrase, action in env.unwrapped.world.actions.items()
            if any(after != state or ended for _, after, _, ended in row[action])
        ]
        assert said == changing


def test_a_phrase_that_is_not_admissible_is_not_taken():
    env = lang_agent.make("TextTaxi-v0")
    _, info = env.reset(seed=0)
    assert "drop off the passenger" not in info["actions"]
    _, reward, *_, after = env.step("drop off the passenger")
    assert (reward, after["invalid_action"]) == (0.0, True)
    assert after["descriptions"] == info["descriptions"]


@pytest.mark.parametrize(("phrase", "place"), [("go east", "row 1, column 2"),
                                               ("go south", "row 2, column 1")])  # fmt: skip
def test_phrases_do_what_they_say_on_the_lake(phrase, place):
    env = lang_agent.make("TextFrozenLake-v0", is_slippery=False)
    env.reset(seed=0)
    assert f"You stand in {place}" in env.step(phrase)[0]


def test_the_cliff_throws_back_and_the_goal_is_the_only_success():
    env = lang_agent.make("TextCliffWalking-v0")
    _, start = env.reset(seed=0)
    _, reward, terminated, _, info = env.step("go east")
    assert (reward, terminated, info["success"]) == (-100.0, False, False)
    assert info["descriptions"] == start["descriptions"]
    for phrase in ["go north", *["go east"] * 11]:
        info = env.step(phrase)[4]
        assert not info["success"]
    _, reward, terminated, _, info = env.step("go south")
    assert (reward, terminated, info["success"]) == (-1.0, True, True)


# -- arguments -------------------------------------------------------------------------------------


def test_an_episode_is_cut_off_at_max_steps():
    for env_id in ("TextCliffWalking-v0", "TextTaxi-v0", "TextFrozenLake-v0"):
        env = lang_agent.make(env_id, max_steps=3)
        env.reset(seed=0)
        assert [env.step("go north")[3] for _ in range(3)] == [False, False, True] or (
            env_id == "TextTaxi-v0"
        )
    assert inside(lang_agent.make("TextCliffWalking-v0")).spec.max_episode_steps == 200


@pytest.mark.parametrize(
    ("env_id", "arguments", "message"),
    [
        ("TextFrozenLake-v0", {"map_name": "9x9"}, "map_name='9x9'"),
        ("TextTaxi-v0", {"rainy": True}, "no argument 'rainy'"),
        ("TextTaxi-v0", {"max_steps": 0}, "max_steps=0 must be"),
        ("TextBlackjack-v0", {"max_steps": "two"}, "max_steps='two' must be"),
    ],
)
def test_a_mistaken_argument_is_one_sentence(env_id, arguments, message):
    with pytest.raises(LangAgentError, match=message):
        lang_agent.make(env_id, **arguments)


# -- experts ---------------------------------------------------------------------------------------


def arrays(table):
    """Transitions (the last state is the end) and rewards of a table."""
    states, actions = len(table), len(table[0])
    moves, rewards = np.zeros((states, actions, states + 1)), np.zeros((states, actions))
    for state, row in table.items():
        for action, outcomes in row.items():
            for chance, after, reward, ended in outcomes:
                moves[state, action, states if ended else after] += chance
                rewards[state, action] += chance * reward
    return moves, rewards


def best_return(world, steps):
    """What the best play gains in so many steps, by value iteration."""
    moves, rewards = arrays(world.P)
    values = np.zeros(moves.shape[2])
    for _ in range(steps):
        values[:-1] = (rewards + moves @ values).max(axis=1)
    return float(world.initial_state_distrib @ values[:-1])


def experts_return(env, steps):
    """What the expert gains on average, exactly: all that can happen while it plays."""
    world = inside(env).unwrapped
    moves, rewards = arrays(world.P)
    expert = env.unwrapped.world.expert(inside(env), None)
    where, gained, last = np.array(world.initial_state_distrib, dtype=float), 0.0, None
    for _ in range(steps):
        actions = np.zeros(len(where), dtype=int)
        left = expert.left
        for state in range(len(where)):
            world.s, expert.left = state, left
            actions[state] = expert(last)
        every = np.arange(len(where))
        gained += float(where @ rewards[every, actions])
        where, last = (where @ moves[every, actions])[:-1], 0
    return gained


@pytest.mark.parametrize(("env_id", "arguments"), TABULAR)
def test_the_expert_reaches_the_optimum(env_id, arguments):
    env = lang_agent.make(env_id, **arguments)
    steps = inside(env).spec.max_episode_steps
    best = best_return(inside(env).unwrapped, steps)
    assert best - TIGHT < experts_return(env, steps) < best + 1e-9


@pytest.mark.parametrize(("env_id", "arguments"), TABULAR)
def test_what_the_expert_gains_when_it_plays(env_id, arguments):
    """Within four standard errors of the optimum; exactly, where nothing is left to chance."""
    env = lang_agent.make(env_id, **arguments)
    played = list(play(ExpertAgent(), [env], range(300)))
    gained = np.array([episode.total_reward for episode in played])
    best = best_return(inside(env).unwrapped, inside(env).spec.max_episode_steps)
    assert abs(gained.mean() - best) <= 4 * gained.std() / len(gained) ** 0.5 + 1e-9
    if env_id == "TextTaxi-v0":
        assert all(episode.success for episode in played)


CARDS = [(card, 1 / 13 if card < 10 else 4 / 13) for card in range(1, 11)]


def count(own, ace):
    return own + 10 if ace and own <= 11 else own


@cache
def dealers(own, ace):
    """Where the dealer ends -> how likely; 0 is over 21."""
    if count(own, ace) >= 17:
        return {count(own, ace) if own <= 21 else 0: 1.0}
    ends = {}
    for card, chance in CARDS:
        for end, other in dealers(own + card, ace or card == 1).items():
            ends[end] = ends.get(end, 0.0) + chance * other
    return ends


@cache
def sticking(own, card):
    return sum(p * ((own > end) - (own < end)) for end, p in dealers(card, card == 1).items())


@cache
def hitting(own, ace, card):
    worth = 0.0
    for drawn, chance in CARDS:
        total, usable = own + drawn, ace or drawn == 1
        best = -1.0
        if total <= 21:
            best = max(sticking(count(total, usable), card), hitting(total, usable, card))
        worth += chance * best
    return worth


def test_basic_strategy_is_the_best_that_can_be_done():
    for card in range(1, 11):
        for own in range(4, 22):
            for ace in (False, True) if own >= 12 else (False,):
                hard = own - 10 if ace else own
                better = sticking(own, card) >= hitting(hard, ace, card)
                assert blackjack.sticks(own, card, ace) == better, (own, card, ace)


def test_what_the_expert_gains_at_blackjack():
    """By the odds above; a natural wins against all but another one (``sab``)."""
    best = 0.0
    for (a, p), (b, q), (card, r) in ((x, y, z) for x in CARDS for y in CARDS for z in CARDS):
        own, ace = a + b, 1 in (a, b)
        natural = count(own, ace) == 21
        other = {1: 4 / 13, 10: 1 / 13}.get(card, 0.0)
        worth = max(sticking(count(own, ace), card), hitting(own, ace, card))
        best += p * q * r * (1 - other if natural else worth)
    env = lang_agent.make("TextBlackjack-v0")
    gained = np.array([one.total_reward for one in play(ExpertAgent(), [env], range(3000))])
    assert -0.05 < best < -0.04
    assert abs(gained.mean() - best) <= 4 * gained.std() / len(gained) ** 0.5


# -- seeds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", sorted({env_id for env_id, _ in TABULAR} | {"TextBlackjack-v0"}))
def test_a_seed_gives_an_episode_also_after_others(env_id):
    def episode(env, seed):
        prompt, info = env.reset(seed=seed)
        told = [prompt]
        for at in range(20):
            prompt, reward, terminated, truncated, info = env.step(
                info["actions"][at % len(info["actions"])]
            )
            told.append((prompt, reward))
            if terminated or truncated:
                break
        return told

    env = lang_agent.make(env_id)
    first = [episode(env, seed) for seed in range(5)]
    again = [episode(env, seed) for seed in reversed(range(5))][::-1]
    assert first == again == [episode(lang_agent.make(env_id), seed) for seed in range(5)]


def test_gymnasiums_own_ids_are_left_alone():
    assert gymnasium.make("FrozenLake-v1").observation_space.n == 16
    assert gymnasium.make("lang_agent/TextFrozenLake-v0").reset(seed=0)[0].startswith("Goal: cross")
