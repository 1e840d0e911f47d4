"""MiniHack and NetHack in words. The games themselves take an environment with nle and minihack
(`make test-minihack`); without them the words, the answers and the table are tested alone."""

from __future__ import annotations

import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from lang_agent.envs.nethack_progress import BY_DEPTH, BY_LEVEL, progression
from lang_agent.envs.nethack_view import ENTER, ESCAPE, look, menu, overlay, question
from lang_agent.envs.nethack_words import where

import lang_agent
from lang_agent import LangAgentError
from lang_agent.evaluation.tasks import load_suite

needs_games = pytest.mark.skipif(
    find_spec("nle") is None or find_spec("minihack") is None,
    reason="needs nle and minihack, in an environment of their own: make test-minihack",
)
MAZE = {"task": "MazeWalk-9x9"}


def make(name="MiniHack-v0", **options):
    return lang_agent.make(name, **options).unwrapped


@pytest.fixture
def made():
    """Makes environments that are closed in the end."""
    envs = []

    def make_one(name="MiniHack-v0", **options):
        envs.append(make(name, **options))
        return envs[-1]

    yield make_one
    for env in envs:
        env.close()


# -- without the games -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MiniHack-v0", "NetHack-v0"])
def test_without_the_packages_it_is_said_what_to_install(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "minihack", None)
    with pytest.raises(LangAgentError, match=r"pip install 'lang_agent\[minihack\]'") as caught:
        lang_agent.make(name)
    assert "\n" not in str(caught.value)


def test_the_progression_is_the_larger_share_of_depth_and_experience():
    assert (len(BY_DEPTH), len(BY_LEVEL)) == (50, 30)
    for table in (BY_DEPTH, BY_LEVEL):
        assert table[0] == 0
        assert list(table) == sorted(table)
    assert progression({"depth": 1, "level": 1}) == 0
    assert progression({"depth": 10, "level": 2}) == pytest.approx(0.1256, abs=5e-5)
    assert progression({"depth": 2, "level": 10}) == pytest.approx(0.1791, abs=5e-5)
    assert progression({"depth": 40, "level": 1}) == pytest.approx(0.7610, abs=5e-5)
    assert progression({"depth": 51, "level": 0}) == 0


@pytest.mark.parametrize(
    ("asked", "kind", "letters"),
    [
        ("In what direction?", "direction", "kljhunby<>."),
        ("What do you want to zap? [f or ?*]", "letter", "f"),
        ("What do you want to eat? [b-dg or ?*]", "letter", "bcdg"),
        ("What do you want to write with? [- or ?*]", "letter", "-"),
        ("What do you want to throw? [*]", "letter", "xy"),  # whatever is carried
        ("Really attack the gnome? [yn] (n)", "letter", "yn"),
        ("There are 5 cookies here; eat one? [ynq] (n)", "letter", "ynq"),
    ],
)
def test_the_answers_that_a_question_allows(asked, kind, letters):
    found = question(asked, [ord("x"), ord("y")])
    assert found.kind == kind
    assert found.keys == (*map(ord, letters), ESCAPE)


def test_a_menu_is_read_beside_the_map_that_it_covers():
    screen = [
        "      Pick up what?",
        "",
        "--.---Wands",
        "|@....a - a brass wand",
        "|.....b + a horn",
        "------(1 of 2)",
    ]
    found = menu(screen)
    assert found.lines == ("Pick up what?", "Wands", "a - a brass wand", "b + a horn")
    assert [chr(key) for key in found.keys[:-2]] == ["a", "b", ">", "<"]
    assert found.keys[-2:] == (ENTER, ESCAPE)
    assert menu(["", "|@...|"]) is None
    assert overlay(["|..There is a fork here.", "|..There is a cat here.", "|..--More--"]) == [
        "There is a fork here.",
        "There is a cat here.",
    ]


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ((4, 5), "1 step north"),
        ((5, 2), "3 steps west"),
        ((8, 8), "3 steps southeast"),
        ((3, 9), "2 steps north and 4 steps east"),
    ],
)
def test_where_a_cell_lies(cell, said):
    assert where((5, 5), cell) == said


def view_of(rows, **stats):
    """A view of a drawn map: # rock, . floor, + closed door, / open door, @ player."""
    names = {".": 19, "@": 19, "+": 15, "/": 13, "-": 2, " ": 0}
    glyphs = np.zeros((21, 79), np.int16)
    player = (0, 0)
    for row, line in enumerate(rows, 1):
        for column, sign in enumerate(line, 1):
            glyphs[row, column] = names[sign]
            player = (row, column) if sign == "@" else player
    blstats = np.zeros(27, np.int64)
    blstats[:2] = player[1], player[0]
    seen = {
        "glyphs": glyphs,
        "chars": np.zeros((21, 79), np.uint8),
        "blstats": blstats,
        "inv_letters": np.zeros(0, np.uint8),
        "inv_strs": np.zeros((0, 80), np.uint8),
        "screen_descriptions": np.zeros((21, 79, 80), np.uint8),
    }
    return look(seen, 0, ["stone"] * 87, np.zeros(6000, bool), {}, [], None, over=False)


def test_what_can_be_walked_to_and_what_is_not_explored():
    view = view_of(["-----", "-@..-", "-../.", "-----"])
    cells = [cell for cell, _ in view.walk()]
    assert cells[0] == (2, 2)
    assert (3, 5) in cells  # behind the open door
    before = dict(view.walk())
    assert before[3, 4] == (3, 3)  # not through the door's corner, from (2, 3)
    assert [cell for cell in cells if view.unexplored[cell]] == [(3, 5)]
    assert view.felt[1:4, 1:4].all()
    assert not view.felt[:, 4:].any()


def test_the_suites_are_of_balrogs_settings():
    tasks = {task.name: task.arguments for task in load_suite("balrog-minihack").tasks}
    assert list(tasks) == [
        "MazeWalk-9x9",
        "MazeWalk-15x15",
        "Corridor-R3",
        "CorridorBattle-Dark",
        "Quest-Easy",
        "Quest-Medium",
    ]
    for name, arguments in tasks.items():
        assert arguments["task"] == name
        assert arguments["max_steps"] == 100
        assert arguments["invalid_action"] == "default:north"
    (game,) = load_suite("balrog-nle").tasks
    assert game.arguments["max_steps"] == 100_000
    assert game.arguments["no_progress_timeout"] == 150
    assert game.arguments["invalid_action"] == "default:esc"


# -- with the games --------------------------------------------------------------------------------


def play(env, seed, steps=40):
    """What is told in an episode of actions that hang on the seed alone."""
    prompt, info = env.reset(seed=seed)
    told = [prompt]
    random = np.random.default_rng(seed)
    for _ in range(steps):
        action = info["actions"][random.integers(len(info["actions"]))]
        prompt, *end, info = env.step(action)
        told.append((prompt, *end, info["progression"]))
        if end[1] or end[2]:
            break
    return told


@needs_games
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("MiniHack-v0", MAZE),
        ("MiniHack-v0", {"task": "Quest-Easy"}),
        ("MiniHack-v0", {"task": "MultiRoom-N2"}),  # whose rooms minigrid draws
        ("NetHack-v0", {}),
    ],
)
def test_a_seed_is_an_episode_also_after_others_and_in_a_second_environment(made, name, options):
    env = made(name, **options)
    first = [play(env, seed) for seed in (5, 10**9)]
    assert first[0] != first[1]
    assert play(env, 10**9) == first[1]
    other = made(name, **options)
    assert play(other, 5) == first[0]
    assert play(env, 5) == first[0]


@needs_games
def test_two_games_of_one_process_do_not_disturb_each_other(made):
    envs = [made(**MAZE), made(**MAZE)]
    alone = [play(env, seed) for env, seed in zip(envs, (1, 2), strict=True)]
    told, infos = [[], []], [None, None]
    for at, env in enumerate(envs):
        prompt, infos[at] = env.reset(seed=at + 1)
        told[at].append(prompt)
    randoms = [np.random.default_rng(at + 1) for at in range(2)]
    for step in range(1, max(map(len, alone))):
        for at, env in enumerate(envs):
            if step < len(alone[at]):
                actions = infos[at]["actions"]
                prompt, *end, infos[at] = env.step(actions[randoms[at].integers(len(actions))])
                told[at].append((prompt, *end, infos[at]["progression"]))
    assert told == alone


@needs_games
def test_an_episode_ends_at_the_staircase_or_is_cut_off(made):
    env = made(**MAZE, max_steps=30)
    ends = set()
    for seed in range(12):
        env.reset(seed=seed)
        action, steps, over = None, 0, False
        while not over:
            action = env.expert_action(action)
            _, reward, terminated, truncated, info = env.step(action)
            assert info["verdict"] == "exact"
            steps, over = steps + 1, terminated or truncated
        assert terminated != truncated
        assert info["success"] is terminated
        assert info["progression"] == (reward >= 1)  # as BALROG counts: 0.99 is none
        assert reward == pytest.approx(1, abs=0.011) if terminated else reward <= 0
        assert steps <= 30
        ends.add(info["end"])
        said = info["descriptions"]
        assert not any("closer" in line or "Do you want" in line for line in said)
    assert ends == {"task_successful", "aborted"}


@needs_games
def test_what_is_asked_can_be_answered(made):
    env = made(task="Quest-Easy", character="sam-hum-law-fem")
    _, info = env.reset(seed=1)
    commands = info["actions"]
    assert {"north", "far east", "zap", "pickup"} <= {*commands}
    assert not {"a", "more", "esc", "wear"} & {*commands}

    def step(action):
        *_, terminated, _, info = env.step(action)
        assert info["verdict"] == "exact"
        assert not terminated
        return info

    info = step("pickup")
    assert "a - a brass wand" in info["descriptions"] or "Wands" in info["descriptions"]
    assert info["actions"] == ("a", "b", "more", "esc")
    step("a")
    step("b")
    info = step("more")
    assert info["actions"] == commands
    said = next(line for line in info["descriptions"] if line.startswith("The game says: "))
    wand = re.search(r"(\w) - a \w+ wand", said)[1]
    assert re.search(r"\w - a horn", said)
    carried = next(line for line in info["descriptions"] if line.startswith("You carry "))
    assert f"; {wand} - a " in carried
    info = step("zap")
    assert f"The game asks: What do you want to zap? [{wand} or ?*]" in info["descriptions"]
    assert info["actions"] == (wand, "esc")
    info = step(wand)
    assert "The game asks: In what direction?" in info["descriptions"]
    assert {"north", "northwest", "esc"} <= {*info["actions"]}
    info = step("east")
    assert info["actions"] == commands
    assert "The game says: The lava cools and solidifies." in info["descriptions"]


@needs_games
def test_only_the_keys_that_a_task_has_are_phrases(made):
    assert made(**MAZE).reset(seed=0)[1]["actions"] == (
        "north", "east", "south", "west", "northeast", "southeast", "southwest", "northwest",
    )  # fmt: skip
    assert "pickup" in made(task="Sokoban1a").reset(seed=0)[1]["actions"]  # whose version is 1
    corridor = made(task="MiniHack-Corridor-R3-v0")
    assert corridor.reset(seed=0)[1]["actions"][8:] == ("open", "kick", "search")
    _, _, _, _, info = corridor.step("open")
    assert info["actions"][:8] == made(**MAZE).reset(seed=0)[1]["actions"]
    everything = made(task="Wear", all_commands=True).reset(seed=0)[1]["actions"]
    assert {"wear", "takeoff"} <= {*everything}


@needs_games
def test_the_words_tell_what_is_where(made):
    env = made(task="Room-5x5")  # from the upper left to the lower right
    _, info = env.reset(seed=0)
    lines = info["descriptions"]
    assert info["mission"] == "reach the staircase down"
    assert "You see a staircase down 4 steps southeast" in lines
    assert "North: rock" in lines  # which it stands beside
    assert "East: 4 steps, then dark" in lines
    assert "Southeast: 4 steps, then dark" in lines
    drawn = made(task="Room-5x5", renderer="map").reset(seed=0)[1]["descriptions"]
    assert [line for line in drawn if set(line) <= set("@.><")] == [
        "@....", ".....", ".....", ".....", "....>",
    ]  # fmt: skip
    both = made(task="Room-5x5", renderer="words_and_map").reset(seed=0)[1]["descriptions"]
    assert {*lines} | {*drawn} == {*both}
    minimal = made(task="Room-5x5", prompt="minimal").reset(seed=0)[0]
    assert "See: " in minimal
    assert "staircase down 4 steps southeast, unexplored place 1 step east" in minimal
    assert "north rock, east 4 steps then dark," in minimal


@needs_games
def test_pictures_show_what_is_around_the_player(made):
    env = made(task="Room-5x5", render_mode="rgb_array")
    env.reset(seed=0)
    before = env.render()
    assert before.shape == (336, 336, 3)
    assert before.any()
    env.step("southeast")
    assert (env.render() != before).any()
    assert made(task="Room-5x5").render() is None


@needs_games
def test_a_game_that_is_lost_tells_how(made):
    env = made(task="CorridorBattle-Dark")
    for seed in range(3):
        env.reset(seed=seed)
        action, over = None, False
        while not over:
            action = env.expert_action(action)
            *_, terminated, truncated, info = env.step(action)
            over = terminated or truncated
        if info["end"] == "death":
            break
    assert info["end"] == "death"
    assert info["progression"] == 0
    assert info["descriptions"][-1] == "The game is over"
    assert any("You die" in line for line in info["descriptions"])
    assert not any("2026" in line or "___" in line for line in info["descriptions"])
    env.reset(seed=0)  # and goes on


@needs_games
def test_nethack_ends_where_no_time_passes(made):
    env = made("NetHack-v0", no_progress_timeout=5)
    env.reset(seed=0)
    steps = [env.step("esc") for _ in range(5)]
    assert [truncated for *_, truncated, _ in steps] == [False] * 4 + [True]
    *_, terminated, _, info = steps[-1]
    assert (terminated, info["end"], info["progression"]) == (False, "aborted", 0.0)


@needs_games
def test_nothing_is_left_open():
    def open_files():
        return len(os.listdir("/proc/self/fd"))

    def folders():
        return {name for name in os.listdir(Path(os.environ.get("TMPDIR", "/tmp")))
                if name.startswith("nle")}  # fmt: skip

    make(**MAZE).close()
    before = open_files(), folders()
    for seed in range(5):
        env = make(**MAZE)
        for again in range(5):
            env.reset(seed=seed + again)
        env.close()
    assert open_files() == before[0]
    assert folders() <= before[1]


@needs_games
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"task": "MazeWalk-9x8"}, "Did you mean"),
        ({"task": "Boxoban-Hard"}, "give levels=FOLDER"),
        ({"task": "Boxoban-Hard", "levels": "no/such"}, "'no/such' is no folder"),
        ({**MAZE, "levels": "."}, "for the tasks of Boxoban"),
        ({**MAZE, "max_steps": 0}, "max_steps=0 must be a whole number"),
        ({**MAZE, "character": "xyz"}, "'xyz'"),
        ({**MAZE, "colour": "red"}, "takes no argument 'colour'"),
        ({"task": "LavaCrossingS9N1"}, "cannot be made with the packages"),
    ],
)
def test_a_mistaken_argument_is_one_sentence(options, said):
    with pytest.raises(LangAgentError) as caught:
        make(**options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@needs_games
def test_boxoban_is_played_from_a_folder_of_levels(made, tmp_path):
    (tmp_path / "hard").mkdir()
    walls = "##########\n"
    level = f"{walls}#@$.     #\n" + "#        #\n" * 7 + f"{walls}\n"
    (tmp_path / "hard" / "000.txt").write_text(f"; 0\n{level}; 1\n{level}", encoding="utf-8")
    env = made(task="Boxoban-Hard", levels=str(tmp_path))
    _, info = env.reset(seed=0)
    assert info["mission"] == "push every boulder onto a fountain"
    assert info["actions"] == ("north", "east", "south", "west")
    assert "You see a boulder 1 step east" in info["descriptions"]
    *_, terminated, truncated, info = env.step("east")
    assert (terminated, truncated, info["success"], info["progression"]) == (True, False, True, 1)
