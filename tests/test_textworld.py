"""TextWorld: games by seed, both ways to say commands, experts, files of one's own, and what is
refused. The games are small: one takes a second to compile."""

from __future__ import annotations

import copy
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lang_agent.envs import textworld_games as games

import lang_agent
from lang_agent import LangAgentError
from lang_agent.agents.expert import ExpertAgent
from lang_agent.evaluation.tasks import load_suite
from lang_agent.language_env import ExpertLostError
from lang_agent.rollout import play
from lang_agent.seeding import EVALUATION_SEED
from lang_agent.text_env.config import TextConfig

WALK = {"challenge": "coin_collector", "rooms": 4, "quest_length": 3}
COOK = {"challenge": "the_cooking_game", "rooms": 1, "ingredients": 2}
HUNT = {"challenge": "treasure_hunter", "level": 12}


def test_without_the_package_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "textworld", None)
    with pytest.raises(LangAgentError, match=r"pip install 'lang_agent\[textworld\]'"):
        lang_agent.make("TextWorld-v0")


@pytest.fixture(autouse=True)
def _package(request):
    if "without" not in request.node.name:
        pytest.importorskip("textworld")


def make(**arguments):
    return lang_agent.make("TextWorld-v0", **arguments)


def by_expert(env, seed, noise=0.0):
    """An episode in which the expert is asked at every step, and obeyed at most."""
    draw = random.Random(seed)
    prompt, info = env.reset(seed=seed)
    said, told, total, over = None, [prompt], 0.0, False
    while not over:
        said = env.unwrapped.expert_action(said)
        if draw.random() < noise:
            said = draw.choice(info["actions"])
        prompt, reward, terminated, truncated, info = env.step(said)
        total, over = total + reward, terminated or truncated
        told.append((said, info["descriptions"], reward, info["progression"]))
    return told, total, info


# -- games -----------------------------------------------------------------------------------------

ELSEWHERE = """
import sys
sys.path.insert(0, {tests!r})
from test_textworld import COOK, WALK, by_expert, games, make
print(repr([by_expert(make(**kind), 7)[:2] for kind in (WALK, COOK)]))
print(games.FILES._folder.name)
"""


def test_a_seed_is_a_game_anywhere_and_the_files_go_with_the_process():
    code = ELSEWHERE.format(tests=str(Path(__file__).parent))
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "1"},
    )
    played, folder = run.stdout.strip().split("\n")
    here = [by_expert(make(**kind), 7)[:2] for kind in (WALK, COOK)]
    assert played == repr(here)
    assert not Path(folder).exists()


def test_seeds_have_games_of_their_own_whatever_was_played_before():
    env = make(**WALK)
    first = [by_expert(env, seed) for seed in (7, 8)]
    assert first[0][0] != first[1][0]
    games.FILES._kept.clear()  # so that it is made again
    assert by_expert(env, 7) == first[0]
    env.close()
    assert by_expert(env, 8) == first[1]


def test_games_are_few_where_that_is_asked_and_others_are_held_out():
    assert games.number_of(EVALUATION_SEED + 7, None) == EVALUATION_SEED + 7
    training = {games.number_of(seed, 3) for seed in range(50)}
    held_out = {games.number_of(EVALUATION_SEED + seed, 3) for seed in range(50)}
    assert training == {0, 1, 2}
    assert len(held_out) == 3
    assert not training & held_out


def test_no_more_games_are_kept_than_have_room(monkeypatch, tmp_path):
    files = games.GameFiles()
    monkeypatch.setattr(games, "KEPT", 2)

    def written(game, folder):
        (folder / "game.z8").write_text(game)
        return folder / "game.z8"

    monkeypatch.setattr(games, "compiled", written)
    found = [files.get((name,), lambda name=name: name) for name in "abac"]
    assert found[0] == found[2]
    assert [file.exists() for file in found] == [True, False, True, True]
    assert files.get(("b",), lambda: "again").read_text() == "again"


# -- playing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "noise"), [(WALK, 0), (COOK, 0), (HUNT, 0), (WALK, 0.3), (HUNT, 0.1)]
)
def test_the_expert_wins_from_wherever_the_game_stands(kind, noise):
    told, total, info = by_expert(make(**kind), 7, noise)
    assert info["success"]
    assert total == pytest.approx(1)
    assert info["progression"] == 1
    assert "*** The End ***" in told[-1][1]


def test_what_can_be_done_is_told_and_the_goal_is_cut_from_what_is_seen():
    env = make(**WALK)
    prompt, info = env.reset(seed=7)
    assert "coin" in info["mission"]
    assert not {"north", "east", "south", "west"} & {*info["mission"].split()}  # no hints
    assert prompt.count(info["mission"]) == 1
    assert info["descriptions"][0].startswith("-= ")
    assert info["descriptions"][-1] == f"You can {', '.join(info['actions'])}"
    assert set(info["actions"]) < set(env.unwrapped.phrases)
    assert info["verdict"] is None
    *_, info = env.step("I will look around, I mean LOOK")
    assert info["verdict"] == "contained"
    *_, info = env.step("take the stars")
    assert info["invalid_action"]  # which is "look"
    assert info["descriptions"][0].startswith("-= ")


def test_with_hints_the_whole_way_is_told():
    _, info = make(**WALK, hints=True).reset(seed=7)
    said = info["mission"]
    assert "coin" in said
    assert sum(said.count(way) for way in ("north", "south", "east", "west")) >= 2


def test_the_room_and_what_is_carried_can_be_told_at_every_step():
    env = make(**COOK, renderer="state", max_steps=2)
    env.reset(seed=7)
    *_, truncated, info = env.step("examine cookbook")
    lines = "\n".join(info["descriptions"])
    assert "Ingredients:" in lines
    assert "-= Kitchen =-" in lines
    assert "You are carrying" in lines
    assert not truncated
    assert env.step("look")[2:4] == (False, True)


def test_a_game_can_be_lost_and_points_are_kept():
    env = make(**COOK)
    env.reset(seed=7)
    said = None
    while said is None or not said.startswith(("slice", "dice", "chop")):
        said = env.unwrapped.expert_action(said)
        if not said.startswith(("slice", "dice", "chop")):
            env.step(said)
    verb, _, rest = said.partition(" ")
    wrong = f"{'dice' if verb == 'slice' else 'slice'} {rest}"
    _, _, terminated, truncated, info = env.step(wrong)
    assert (terminated, truncated, info["success"]) == (True, False, False)
    assert 0 < info["progression"] < 1
    with pytest.raises(ExpertLostError):
        env.unwrapped.expert_action(wrong)


def test_a_copy_goes_on_by_itself():
    env = make(**WALK)
    env.reset(seed=7)
    first = env.unwrapped.expert_action(None)
    env.step(first)
    twin = copy.deepcopy(env)
    *_, there = twin.step("look")
    *_, here = env.step("look")
    assert there == here
    twin.step(twin.unwrapped.actions[0])
    *_, again = env.step("look")
    assert again["descriptions"] == here["descriptions"]


# -- any text --------------------------------------------------------------------------------------


def test_any_text_goes_to_the_game():
    env = make(**WALK, commands="any", prompt="balrog_robust")
    prompt, info = env.reset(seed=7)
    assert info["actions"] is None
    assert env.unwrapped.phrases == ()
    assert "The possible actions" not in prompt
    assert "You can go" not in prompt
    *_, info = env.step("I think.\n<|ACTION|>look<|END|>")
    assert (info["verdict"], info["invalid_action"]) == ("exact", False)
    assert info["descriptions"][0].startswith("-= ")
    *_, info = env.step("dance with\nthe stars")
    assert info["verdict"] == "exact"
    assert info["descriptions"] == ["That's not a verb I recognise."]
    *_, info = env.step(" \n")
    assert info["invalid_action"]


@pytest.mark.parametrize("text", ["save", "quit", "look. restart", "SCRIPT", "tw-print state"])
def test_the_interpreter_is_not_spoken_to(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = make(**WALK, commands="any")
    _, before = env.reset(seed=7)
    *_, terminated, _, info = env.step(text)
    assert info["descriptions"] == ["That is nothing you can do here."]
    assert not terminated
    *_, info = env.step("look")
    assert info["descriptions"][0] == before["descriptions"][0]
    assert list(tmp_path.iterdir()) == []


def test_the_expert_plays_in_any_text_as_well():
    envs = [make(**WALK, commands="any") for _ in range(2)]
    episodes = list(play(ExpertAgent(), envs, [7, 8]))
    assert [episode.success for episode in episodes] == [True, True]
    assert all(episode.steps[0].observation.line for episode in episodes)


# -- what is given ---------------------------------------------------------------------------------


def test_a_game_of_ones_own(tmp_path):
    made = games.drawn_game("coin_collector", games.settings_of("coin_collector", {}) | {
        name: value for name, value in WALK.items() if name != "challenge"}, 7)  # fmt: skip
    ours, data = tmp_path / "mine.z8", tmp_path / "mine.json"
    shutil.copy(made.with_suffix(".json"), data)
    with pytest.raises(LangAgentError, match="There is no game"):
        make(game=str(ours))
    shutil.copy(made, ours)
    wanted = by_expert(make(**WALK), 7)
    assert by_expert(make(game=str(ours)), 3) == wanted
    assert by_expert(make(game=str(data)), 3) == wanted  # compiled here
    data.unlink()
    with pytest.raises(LangAgentError, match=r"has no 'mine.json' beside it"):
        make(game=str(ours))
    data.write_text('{"version": 1}')
    with pytest.raises(LangAgentError, match="is no game of TextWorld's"):
        make(game=str(data))
    with pytest.raises(LangAgentError, match=r"is no \.z8 or \.json file"):
        make(game="zork.ulx")
    with pytest.raises(LangAgentError, match="alone"):
        make(game=str(ours), challenge="coin_collector")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"challenge": "cooking"}, "Unknown challenge 'cooking'"),
        ({"challenge": "coin_collector", "level": 3}, "Unknown setting of coin_collector 'level'"),
        ({"challenge": "treasure_hunter", "level": 31}, "level=31 .* must be one of 1 to 30"),
        ({"challenge": "the_cooking_game", "rooms": 2}, r"rooms=2 .* one of \(1, 6, 9, 12\)"),
        ({"challenge": "the_cooking_game", "cut": 1}, "cut=1 of the_cooking_game must be one of"),
        ({"rooms": 3, "quest_length": 4}, "rooms=3 must be quest_length=4 or more"),
        ({"commands": "all"}, "Unknown commands 'all'"),
        ({"games": 0}, "games=0 must be a whole number of at least 1"),
        ({"max_steps": "many"}, "max_steps='many' must be a whole number"),
        ({"actions": ["look"]}, "actions cannot be chosen or renamed here"),
    ],
)
def test_a_mistaken_argument_is_one_sentence(arguments, said):
    with pytest.raises(LangAgentError, match=said):
        make(**arguments)


def test_the_suite_plays_the_three_challenges_as_balrog_does():
    tasks = load_suite("balrog-textworld").tasks
    assert {task.name for task in tasks} == set(games.CHALLENGES)
    for task in tasks:
        env = TextConfig().with_args(task.env_args).make(task.env).unwrapped
        assert env.env.settings == games.CHALLENGES[task.name]
        assert env.env.max_steps == 80
    assert games.CHALLENGES["coin_collector"] == {"rooms": 40, "quest_length": 20, "hints": False}


@pytest.mark.slow
@pytest.mark.parametrize("challenge", games.CHALLENGES)
def test_the_expert_wins_games_of_balrogs_size_in_time(challenge):
    env = make(challenge=challenge)
    assert all(by_expert(env, 10**9 + seed)[2]["success"] for seed in range(10))
