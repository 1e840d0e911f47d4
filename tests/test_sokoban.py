"""Sokoban: rooms that can be solved, what moves do, how it reads, and the shortest solutions."""

from __future__ import annotations

import time
from collections import deque

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from lang_agent.envs.sokoban import PHRASES, Sokoban, draw_room, drawn, read_level
from lang_agent.envs.sokoban_solver import MOVES, Solver

import lang_agent
from lang_agent import LangAgentError
from lang_agent.agents.expert import ExpertAgent
from lang_agent.language_env import ExpertLostError
from lang_agent.rollout import play

CORRIDOR = "#######\n#@ $ .#\n#######"
TWO = "######|#.$ ##|# @$.#|#    #|######"
STUCK = "#####|#$  #|# @.#|#####"


def solve(room):
    return Solver(room.floor, room.targets).solve(room.player, room.boxes)


def fewest_moves(room):
    """By looking at every room that moves lead to, breadth first; None where none is solved."""
    seen, waiting = {(room.player, room.boxes)}, deque([(room, 0)])
    while waiting:
        one, steps = waiting.popleft()
        if one.boxes == one.targets:
            return steps
        for action in range(len(MOVES)):
            after = one.after(action)
            if (after.player, after.boxes) not in seen:
                seen.add((after.player, after.boxes))
                waiting.append((after, steps + 1))
    return None


def test_the_expert_solves_every_level_of_200_seeds():
    env = lang_agent.make("Sokoban-v0")
    slowest = 0.0
    for seed in range(200):
        _, info = env.reset(seed=seed)
        assert info["progression"] == 0
        last, terminated, steps = None, False, 0
        while not terminated:
            begun = time.perf_counter()
            phrase = env.unwrapped.expert_action(last)
            slowest = max(slowest, time.perf_counter() - begun)
            assert phrase in info["actions"]
            _, _, terminated, truncated, info = env.step(phrase)
            last, steps = phrase, steps + 1
            assert not truncated
        assert (info["success"], info["progression"]) == (True, 1.0)
        assert steps > 1
    assert slowest < 1


def test_levels_differ_and_hang_on_the_seed_alone():
    def levels(env, seeds):
        return [tuple(drawn(_room(env, seed), env.unwrapped.env.size)) for seed in seeds]

    env, other = lang_agent.make("Sokoban-v0"), lang_agent.make("Sokoban-v0")
    first = levels(env, range(30))
    for phrase in PHRASES:
        env.step(phrase)
    assert levels(other, reversed(range(30)))[::-1] == first == levels(env, range(30))
    assert len(set(first)) == 30


def _room(env, seed):
    env.reset(seed=seed)
    return env.unwrapped.env.room


@pytest.mark.parametrize(
    ("shape", "boxes"), [((5, 5), 1), ((6, 9), 1), ((7, 7), 2), ((8, 8), 3), ((20, 20), 8)]
)
def test_rooms_are_of_the_size_and_boxes_asked_for(shape, boxes):
    room = draw_room(np.random.default_rng(3), shape, boxes)
    assert len(room.boxes) == len(room.targets) == boxes
    assert not room.done
    assert room.player in room.floor - room.boxes
    assert room.boxes | room.targets <= room.floor
    assert all(0 < r < shape[0] - 1 and 0 < c < shape[1] - 1 for r, c in room.floor)


@pytest.mark.parametrize("seed", range(12))
def test_solutions_are_the_shortest(seed):
    room = draw_room(np.random.default_rng(seed), (6, 6), 2)
    plan = solve(room)
    assert len(plan) == fewest_moves(room)
    for action in plan:
        room = room.after(action)
    assert room.boxes == room.targets


@pytest.mark.parametrize(
    ("level", "plan"),
    [
        (CORRIDOR, "right right right"),
        ("#####|#@$.#|#####", "right"),
        ("#####|#@  #|# $ #|# . #|#####", "right down"),
        ("######|#.$@*#|######", "left"),
    ],
)
def test_hand_made_levels(level, plan):
    names = [phrase.removeprefix("move ") for phrase in PHRASES]
    assert [names[action] for action in solve(read_level(level))] == plan.split()


def test_a_level_with_two_boxes_takes_what_it_takes():
    room = read_level(TWO)
    assert len(solve(room)) == fewest_moves(room) == 3


def test_a_level_that_cannot_be_solved_has_no_expert():
    assert solve(read_level(STUCK)) is None
    assert fewest_moves(read_level(STUCK)) is None
    env = lang_agent.make("Sokoban-v0", level=STUCK)
    env.reset(seed=0)
    with pytest.raises(ExpertLostError, match="no way"):
        env.unwrapped.expert_action(None)


def test_the_expert_goes_on_from_wherever_the_room_stands():
    env = lang_agent.make("Sokoban-v0", level="######|#    #|# @$.#|#    #|######")
    env.reset(seed=0)
    assert env.unwrapped.expert_action(None) == "move right"
    env.step("move down")
    said = "move down"
    for _ in range(2):
        said = env.unwrapped.expert_action(said)
        *_, info = env.step(said)
    assert info["success"]


# -- what moves do ---------------------------------------------------------------------------------


def test_pushing_and_what_it_pays():
    env = Sokoban(level=TWO)
    env.reset(seed=0)
    lines = []
    rewards = []
    for action in (1, 2, 3, 0, 0, 0):  # right (a push), down, left, up, up, up
        _, reward, terminated, truncated, info = env.step(action)
        rewards.append(reward)
        lines.append(drawn(env.room, env.size))
        assert not terminated
        assert not truncated
    assert rewards == [0.5, 0, 0, 0, 0, 0]
    assert info["progression"] == 0.5
    assert lines[0] == ["######", "#.$ ##", "#  @*#", "#    #", "######"]
    assert lines[3] == ["######", "#.$ ##", "# @ *#", "#    #", "######"]
    assert lines[5] == lines[3]  # a wall is behind the box


def test_a_box_pushed_off_its_target_costs_what_it_paid():
    env = Sokoban(level="#######|#@$.  #|#    ##|####$.#|#######", max_steps=5)
    env.reset(seed=0)
    assert [env.step(1)[1] for _ in range(2)] == [0.5, -0.5]


def test_two_boxes_in_a_row_do_not_move():
    room = read_level("#######|#@$$..#|#######")
    assert room.after(1) is room


def test_an_episode_ends_solved_or_cut_off():
    env = lang_agent.make("Sokoban-v0", level=CORRIDOR, max_steps=2)
    env.reset(seed=0)
    assert env.step("move right")[2:4] == (False, False)
    assert env.step("move right")[2:4] == (False, True)
    env = lang_agent.make("Sokoban-v0", level=CORRIDOR)
    env.reset(seed=0)
    ends = [env.step("move right") for _ in range(3)]
    assert [end[1] for end in ends] == [0, 0, 1]
    assert ends[-1][2:4] == (True, False)
    assert ends[-1][4]["success"]


# -- how it reads ----------------------------------------------------------------------------------


def test_a_room_reads_like_this():
    env = lang_agent.make("Sokoban-v0", level="######|#. $##|#*@#.#|# $  #|######")
    prompt, info = env.reset(seed=0)
    assert info["mission"] == "push every box onto a target"
    assert info["descriptions"] == [
        "You stand in row 3, column 3",
        "A box stands in row 2, column 4",
        "A box stands on a target in row 3, column 2",
        "A box stands in row 4, column 3",
        "A target is free in row 2, column 2",
        "A target is free in row 3, column 5",
        "Row 2 has floor in columns 2 to 4",
        "Row 3 has floor in columns 2 to 3 and column 5",
        "Row 4 has floor in columns 2 to 5",
        "You can move up",
    ]
    assert info["actions"] == ("move up",)
    assert env.step("move up")[4]["actions"] == ("move down", "move left")
    assert "Goal: push every box" in prompt


def test_the_ascii_map_is_the_level_and_says_what_its_signs_mean():
    env = lang_agent.make("Sokoban-v0", level=TWO, renderer="ascii")
    prompt, info = env.reset(seed=0)
    assert info["descriptions"][:-1] == TWO.split("|")
    assert "+ you on a target" in prompt


@pytest.mark.parametrize("renderer", ["sentences", "ascii"])
def test_no_two_positions_read_the_same(renderer):
    """All that moves lead to in a small room, and 300 drawn rooms."""
    env = lang_agent.make("Sokoban-v0", renderer=renderer)
    inner = env.unwrapped.env
    render = env.unwrapped.world.renderers[renderer]
    start = read_level(TWO)
    rooms, waiting = {start}, [start]
    while waiting:
        room = waiting.pop()
        for action in range(len(MOVES)):
            after = room.after(action)
            if after not in rooms:
                rooms.add(after)
                waiting.append(after)
    assert len(rooms) > 200
    rooms |= {draw_room(np.random.default_rng(seed), (7, 7), 2) for seed in range(300)}
    read = set()
    for room in rooms:
        inner.room, inner.size = room, (7, 7)
        read.add("\n".join(render(None, inner)["descriptions"]))
    assert len(read) == len(rooms)


def test_admissible_phrases_are_those_that_change_something():
    env = lang_agent.make("Sokoban-v0")
    for seed in range(30):
        _, info = env.reset(seed=seed)
        room = env.unwrapped.env.room
        changing = [p for action, p in enumerate(PHRASES) if room.after(action) != room]
        assert list(info["actions"]) == changing
        assert changing


def test_the_map_of_the_room():
    env = lang_agent.make("Sokoban-v0", level="#####|#@* #|#$. #|#####")
    env.reset(seed=0)
    cells = env.unwrapped.cells
    assert (cells["size"], cells["agent"], cells["carrying"]) == ([5, 4], [1, 1, 3], None)
    codes = [cells["grid"][at : at + 2] for at in range(0, len(cells["grid"]), 3)]
    assert codes[4 * 1 : 4 * 2] == [[2, 5], [1, 1], [7, 4], [2, 5]]  # the second column, downwards
    assert codes[4 * 2 : 4 * 3] == [[2, 5], [7, 1], [8, 1], [2, 5]]
    directions = []
    for phrase in PHRASES:
        env.step(phrase if phrase in env.unwrapped.actions else "move down")
        directions.append(env.unwrapped.cells["agent"][2])
    assert set(directions) <= {0, 1, 2, 3}


# -- arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 4}, "width=4 must be a whole number from 5 to 20"),
        ({"boxes": True}, "boxes=True must"),
        ({"max_steps": 0}, "max_steps=0 must"),
        ({"width": 5, "height": 5, "boxes": 8}, "ask for fewer boxes"),
        ({"level": "#####|#@$.x|#####"}, "sign 'x'"),
        ({"level": "#####|# $.#|#####"}, "0 players"),
        ({"level": "#####|#@$ #|#####"}, "1 boxes and 0 targets"),
        ({"level": "#####|#@$.|#####"}, "open to the outside"),
        ({"level": "#######|#@$.###|##### #|##$.###|#######"}, "can never come"),
        ({"level": "####|#@*#|####"}, "solved already"),
        ({"colour": 1}, "no argument 'colour'"),
    ],
)
def test_mistakes_are_one_sentence(arguments, message):
    with pytest.raises(LangAgentError, match=message):
        lang_agent.make("Sokoban-v0", **arguments)


def test_gymnasiums_checker_passes():
    check_env(Sokoban(), skip_render_check=True)


def test_the_expert_as_an_agent():
    played = list(play(ExpertAgent(), [lang_agent.make("Sokoban-v0", boxes=1)], range(20)))
    assert all(episode.success and episode.total_reward == 1 for episode in played)
