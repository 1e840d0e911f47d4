"""The world Baba: recorded episodes, every rule of play, every level, the expert."""

from __future__ import annotations

import gzip
import json
import random
import warnings
from pathlib import Path

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env
from lang_agent.envs.baba import BabaEnv
from lang_agent.envs.baba_levels import LEVELS
from lang_agent.envs.baba_rules import (
    ACTIONS,
    DOWN,
    IDLE,
    LEFT,
    RIGHT,
    UP,
    board_of,
    play,
    read_rules,
)

import lang_agent
from lang_agent import LangAgentError
from lang_agent.evaluation.tasks import load_suite

YOU = "baba is you"


@pytest.fixture(scope="module")
def traces():
    file = Path(__file__).parent / "data" / "baba_traces.json.gz"
    episodes = json.loads(gzip.decompress(file.read_bytes()))["episodes"]
    # A record's cells are the top ones. In this episode the word door lies under the word ball, as
    # its 15th step shows.
    episodes["two_room-make_win-distr_win_rule/2"]["cells"].insert(0, [9, 4, "text", "door"])
    return episodes


def test_the_recorded_episodes_replay_equal(traces):
    assert len(traces) == 120
    assert {key.rsplit("/", 1)[0] for key in traces} == set(LEVELS)
    for key, episode in traces.items():
        given = {name: episode[name] for name in ("cells", "width", "height", "max_steps")}
        env = lang_agent.make("Baba-v0", **given)
        _, info = env.reset(seed=0)
        assert "\n".join(info["descriptions"]) == episode["start"], key
        for number, (action, description, reward, done, *_) in enumerate(episode["steps"]):
            _, seen_reward, terminated, truncated, info = env.step(action)
            assert seen_reward == pytest.approx(reward), (key, number)
            if description is None:  # nothing is "you" any more
                assert terminated
                assert not info["success"]
            else:
                assert "\n".join(info["descriptions"]) == description, (key, number)
                assert (terminated or truncated) == done, (key, number)
                assert info["success"] == (reward > 0)


def board(*rows, rules=YOU):
    """A board: a row of letters a line (. nothing, b baba, k red key, d blue door, o green ball,
    w grey wall, D red door), and below them a row for each rule, its words in line."""
    letters = {
        "b": ("baba", "white"),
        "k": ("key", "red"),
        "d": ("door", "blue"),
        "D": ("door", "red"),
        "o": ("ball", "green"),
        "w": ("wall", "grey"),
        "t": ("text", "lose"),  # a word that makes no rule
    }
    cells = [
        (x, y, *letters[letter], False)
        for y, row in enumerate(rows, start=1)
        for x, letter in enumerate(row, start=1)
        if letter != "."
    ]
    lines = rules.split(", ")
    cells += [
        (x, len(rows) + y, "text", word, False)
        for y, line in enumerate(lines, start=1)
        for x, word in enumerate(line.split(), start=1)
    ]
    width = max(len(rows[0]), *(len(line.split()) for line in lines)) + 2
    return board_of(width, len(rows) + len(lines) + 2, cells)


def letters(board, rows=1):
    """The first rows as :func:`board` takes them; a stack is shown by its top."""
    shown = {"baba": "b", "key": "k", "door": "d", "ball": "o", "wall": "w", "text": "t"}
    lines = []
    for y in range(1, rows + 1):
        inner = range(y * board.width + 1, (y + 1) * board.width - 1)
        tops = [board.top(at) for at in inner]
        lines.append("".join("." if top is None else shown[top.kind] for top in tops).rstrip("."))
    return lines[0] if rows == 1 else lines


def after(start, *actions):
    ending = ""
    for action in actions:
        assert ending == "", "the game is over already"
        start, ending = play(start, action)
    return start, ending


@pytest.mark.parametrize(
    ("row", "rules", "seen", "ending"),
    [
        pytest.param("b....", YOU, ".b", "", id="a free cell"),
        pytest.param("...b", YOU, "...b", "", id="the border stops"),
        pytest.param("bt...", YOU, ".bt", "", id="a word is pushed"),
        pytest.param("bttt..", YOU, ".bttt", "", id="a row of words is pushed"),
        pytest.param("..btt", YOU, "..btt", "", id="a row before the border is not"),
        pytest.param("btw..", f"{YOU}, wall is stop", "btw", "", id="nor one before a stop"),
        pytest.param("btk..", YOU, ".bt", "", id="a word is pushed onto a thing"),
        pytest.param("bk...", YOU, ".b", "", id="onto a thing"),
        pytest.param("bw...", f"{YOU}, wall is stop", "bw", "", id="a stop stops"),
        pytest.param("bk...", f"{YOU}, key is push", ".bk", "", id="a push is pushed"),
        pytest.param("bkt.", f"{YOU}, key is push", ".bkt", "", id="it pushes words"),
        pytest.param("..bkk", f"{YOU}, key is push", "...bk", "", id="a row that cannot go stays"),
        pytest.param(
            "..btk", f"{YOU}, key is push", "..btk", "", id="a word before a push that cannot go"
        ),
        pytest.param("kb...", f"{YOU}, key is pull", ".kb", "", id="a pull follows"),
        pytest.param("okb..", f"{YOU}, key is pull, ball is pull", ".okb", "", id="two follow"),
        pytest.param("k.b..", f"{YOU}, key is pull", "k..b", "", id="not from afar"),
        pytest.param("bd...", f"{YOU}, baba is open, door is shut", "", "", id="open and shut"),
        pytest.param("bd...", f"{YOU}, baba is shut, door is open", "", "", id="shut and open"),
        pytest.param(
            "bkd..", f"{YOU}, key is push, key is open, door is shut, door is stop", ".b", "",
            id="a pushed key opens",
        ),
        pytest.param("bd...", f"{YOU}, door is win", ".b", "win", id="win"),
        pytest.param("bd...", f"{YOU}, door is lose", ".b", "lose", id="lose"),
        pytest.param("bd...", f"{YOU}, door is win, door is stop", "bd", "", id="win behind stop"),
        pytest.param("btd..", f"{YOU}, door is win", ".bt", "", id="a word does not win"),
        pytest.param("bD...", f"{YOU}, red door is win", ".b", "win", id="a colour's rule"),
        pytest.param("bd...", f"{YOU}, red door is win", ".b", "", id="of that colour alone"),
        pytest.param("b.b.", YOU, ".b.b", "", id="two go"),
        pytest.param("bb..", f"{YOU}, baba is push", ".bb", "", id="each once"),
    ],
)  # fmt: skip
def test_a_step_to_the_right(row, rules, seen, ending):
    end, how = after(board(row, rules=rules), RIGHT)
    assert (letters(end), how) == (seen, ending)


@pytest.mark.parametrize(
    ("action", "rows"),
    [
        (IDLE, ["", ".b", ""]),
        (UP, [".b", "", ""]),
        (RIGHT, ["", "..b", ""]),
        (DOWN, ["", "", ".b"]),
        (LEFT, ["", "b", ""]),
    ],
)
def test_the_actions_in_their_order(action, rows):
    end, _ = after(board("...", ".b.", "..."), action)
    assert letters(end, rows=3) == rows


def test_what_moves_goes_the_way_it_last_went_and_first_to_the_right():
    start = board("...k...", "....bt", rules=f"{YOU}, key is move")
    one, _ = after(start, IDLE)
    assert letters(one) == "....k"
    two, _ = after(one, UP)  # baba walks onto the key, which goes on
    assert letters(two) == "....bk"
    # A pushed thing faces the way it was pushed.
    start = board("..kb.", rules=f"{YOU}, key is push, key is move")
    end, _ = after(start, LEFT, IDLE)
    assert letters(end) == "k.b"


def test_one_wins_where_it_moves_by_itself_too():
    start = board("b..d.", rules=f"{YOU}, baba is move, door is win")
    first, ending = after(start, IDLE)
    assert (letters(first), ending) == (".b.d", "")
    assert after(first, RIGHT)[1] == "win"


def test_rules_are_broken_and_made_by_pushing_words():
    cells = [(1, 1, "baba", "white"), (3, 4, "text", "win"), (2, 4, "text", "is")]
    cells += [(1, 2, "text", "door"), (5, 2, "door", "red")]
    cells += [(x, 6, "text", word) for x, word in enumerate(YOU.split(), start=3)]
    made = board_of(8, 8, [(*cell, False) for cell in cells])
    made, _ = after(made, DOWN)
    assert [str(rule) for rule in made.rules] == [YOU]
    made, _ = after(made, DOWN)
    assert [str(rule) for rule in made.rules] == ["door is win", YOU]
    broken, _ = after(made, DOWN)
    assert [str(rule) for rule in broken.rules] == [YOU]
    assert after(made, UP, UP, RIGHT, RIGHT, RIGHT, DOWN, RIGHT)[1] == "win"


def test_rules_are_read_from_top_to_bottom_too_and_listed_across_first():
    words = [(3, 2, "door"), (2, 3, "baba"), (3, 3, "is"), (4, 3, "you"), (3, 4, "win")]
    cells = [(x, y, "text", word, False) for x, y, word in words]
    board = board_of(7, 7, [*cells, (1, 1, "baba", "white", False)])
    assert [str(rule) for rule in board.rules] == [YOU, "door is win"]


def test_a_color_before_a_rule_takes_it_from_the_others():
    (rule, _) = board("b", rules=f"blue door is win, {YOU}").rules
    assert str(rule) == "blue door is win"


def test_a_thing_becomes_what_words_say_it_is_and_keeps_its_color():
    start = board("b.dD.", rules=f"{YOU}, door is key, key is win")
    assert letters(start) == "b.kk"
    assert [start.top(at).name for at in (start.width + 3, start.width + 4)] == ["blue", "red"]
    swapped = board("bkd", rules=f"{YOU}, door is key, key is door")
    assert letters(swapped) == "bdk"
    red = board("bdD", rules=f"{YOU}, red door is ball")
    assert letters(red) == "bdo"


def test_a_fixed_word_cannot_be_pushed():
    cells = [(1, 1, "baba", "white", False), (2, 1, "text", "win", True)]
    cells += [(x, 2, "text", word, False) for x, word in enumerate(YOU.split(), start=1)]
    end, _ = after(board_of(6, 4, cells), RIGHT)
    assert letters(end) == "bt"


CELLS = [
    [1, 1, "baba", "white"], [3, 3, "text", "baba"], [4, 3, "text", "is"], [5, 3, "text", "you"],
    [4, 2, "door", "red"], [2, 2, "wall", "grey"],
]  # fmt: skip


def own_board(**options):
    return lang_agent.make("Baba-v0", cells=CELLS, width=7, height=6, **options)


def test_the_episode_ends_where_nothing_is_you_any_more_or_begins_anew():
    actions = ["right", "right", "right", "down", "down"]
    env = own_board()
    env.reset(seed=0)
    steps = [env.step(action) for action in actions]
    assert [step[2] for step in steps] == [False] * 4 + [True]
    _, reward, _, truncated, info = steps[-1]
    assert (reward, truncated, info["success"]) == (0, False, False)
    assert info["descriptions"][0] == "Active rules:"
    env = own_board(restart=True, max_steps=7)
    _, first = env.reset(seed=0)
    steps = [env.step(action) for action in [*actions, "idle", "idle"]]
    assert [step[2:4] for step in steps] == [(False, False)] * 6 + [(False, True)]
    message, empty, *rest = steps[4][4]["descriptions"]
    assert message == "Nothing was you any more: the level begins anew."
    assert (empty, rest) == ("", first["descriptions"])
    assert steps[5][4]["descriptions"] == first["descriptions"]


def test_the_plain_renderer_says_colors_the_border_and_all_in_good_grammar():
    env = own_board(renderer="plain")
    _, info = env.reset(seed=0)
    assert info["descriptions"] == [
        "Rule: baba is you.",
        "You are the white baba; the border is 1 step up, 5 steps right, 4 steps down, "
        "1 step left.",
        "You see a grey wall 1 step right and 1 step down.",
        "You see a red door 3 steps right and 1 step down.",
        'You see the word "baba" 2 steps right and 2 steps down.',
        'You see the word "is" 3 steps right and 2 steps down.',
        'You see the word "you" 4 steps right and 2 steps down.',
    ]


@pytest.mark.parametrize("level", LEVELS)
def test_every_level_is_won_by_the_expert_and_is_its_seeds_alone(level):
    env, again = (lang_agent.make("Baba-v0", level=level) for _ in range(2))
    starts = set()
    for seed in range(2):
        prompt, info = env.reset(seed=seed)
        assert again.reset(seed=seed)[0] == prompt
        starts.add(prompt)
        rules = {str(rule) for rule in env.unwrapped.env.board.rules}
        to_win = str(env.unwrapped.env.plan[-1].rule)
        assert (to_win in rules) == ("goto_win" in level or level == "two_room-make_you")
        holds = any(part in level for part in ("break_stop", "make_you", "make_wall_win"))
        assert ("wall is stop" in rules) == holds
        action, ended = None, False
        while not ended:
            action = env.unwrapped.expert_action(action)
            _, reward, terminated, truncated, info = env.step(action)
            ended = terminated or truncated
        assert info["success"]
        assert reward > 0.6
    assert len(starts) == 2


def test_a_level_holds_what_its_name_says():
    """The recipe, by the things and words of the boards drawn."""
    counts = {}
    for level in ("goto_win", "goto_win-distr_obj", "make_win-distr_obj_rule"):
        env = BabaEnv(level=level)
        env.reset(seed=3)
        things = [thing for stack in env.board.cells for thing in stack if thing.kind != "border"]
        objects = {thing.kind for thing in things if thing.kind in ("ball", "key", "door")}
        words = {thing.name for thing in things if thing.name in ("ball", "key", "door")}
        counts[level] = len(objects), len(words), words <= objects
    assert counts["goto_win"] == (1, 1, True)
    assert counts["goto_win-distr_obj"] == (2, 1, True)
    assert counts["make_win-distr_obj_rule"] == (2, 2, True)


def test_the_expert_goes_on_after_what_it_did_not_want_and_says_when_it_is_lost():
    env = lang_agent.make("Baba-v0", level="two_room-break_stop-make_win").unwrapped
    draw = random.Random(0)
    env.reset(seed=1)
    action = None
    for number in range(100):
        wanted = env.expert_action(action)
        action = draw.choice(["up", "down", "idle"]) if number < 6 else wanted
        _, _, terminated, _, info = env.step(action)
        if terminated:
            break
    assert info["success"]
    hopeless = own_board().unwrapped  # no word win
    hopeless.reset(seed=0)
    with pytest.raises(LangAgentError, match="no way to win"):
        hopeless.expert_action(None)


def test_an_expert_without_a_plan_makes_the_rule_that_it_needs(traces):
    for level in ("make_win/0", "two_room-make_you/0"):
        given = {name: traces[level][name] for name in ("cells", "width", "height")}
        env = lang_agent.make("Baba-v0", **given).unwrapped
        env.reset(seed=0)
        action, ended = None, False
        while not ended:
            action = env.expert_action(action)
            _, _, ended, _, info = env.step(action)
        assert info["success"], level


@pytest.mark.parametrize("level", ["make_win-distr_obj_rule", "two_room-make_wall_win"])
def test_random_play_keeps_every_thing_and_reads_every_rule(level):
    """No step of these levels makes or loses a thing, and words always lie alone on top."""
    env = BabaEnv(level=level, max_steps=150)
    draw = random.Random(1)
    for seed in range(6):
        env.reset(seed=seed)
        kept = sorted(thing for stack in env.board.cells for thing in stack)
        ended = False
        while not ended:
            _, reward, terminated, truncated, _ = env.step(draw.randrange(len(ACTIONS)))
            ended = terminated or truncated
            assert sorted(thing for stack in env.board.cells for thing in stack) == kept
            assert all(thing.kind != "text" for stack in env.board.cells for thing in stack[:-1])
            rules = env.board.rules
            read_rules(env.board)
            assert env.board.rules == rules
            assert (reward > 0) <= terminated


def test_gymnasiums_checker_passes():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*render_modes.*|.*render mode.*|.*spec.*")
        check_env(BabaEnv(level="make_win"), skip_render_check=True)
        check_env(gymnasium.make("lang_agent/Baba-v0").unwrapped, skip_render_check=True)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"level": "two_room-make_wim"}, "Did you mean 'two_room-make_win'"),
        ({"level": "make_win", "cells": CELLS}, "not both"),
        ({"cells": CELLS}, "width and a height"),
        ({"width": 7}, "give cells, too"),
        ({"max_steps": 0}, "1 or more"),
        ({"cells": [[1, 1, "bab", "white"]], "width": 4, "height": 4}, "Did you mean 'baba'"),
        ({"cells": [[1, 1, "baba", "pink"]], "width": 4, "height": 4}, "Unknown colour"),
        ({"cells": [[1, 1, "text", "wins"]], "width": 4, "height": 4}, "Did you mean 'win'"),
        ({"cells": [[3, 1, "baba", "white"]], "width": 4, "height": 4}, "outside of the border"),
        ({"cells": [[1, "baba"]], "width": 4, "height": 4}, "none of the form"),
        ({"cells": 3, "width": 4, "height": 4}, "cells=3"),
        ({"cells": [[1, 1, "baba", "white"]], "width": 4, "height": 4}, "Nothing is 'you'"),
    ],
)
def test_mistakes_are_one_sentence(options, reason):
    with pytest.raises(LangAgentError, match=reason) as error:
        lang_agent.make("Baba-v0", **options)
    assert "\n" not in str(error.value)


def test_the_suite_has_all_levels_and_plays_idle_for_what_is_no_action():
    suite = load_suite("balrog-babaisai")
    assert [task.arguments["level"] for task in suite.tasks] == list(LEVELS)
    assert {task.arguments["invalid_action"] for task in suite.tasks} == {"default:idle"}
