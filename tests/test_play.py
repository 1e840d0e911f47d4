"""Playing at the terminal: the screen by its keys, the plain form by its lines."""

import asyncio
import html
import io
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import gymnasium
import pytest
from conftest import Bandit, make_bandit
from textual.widgets import OptionList

import lang_agent
from lang_agent.agents.expert import ExpertAgent
from lang_agent.agents.human import HumanAgent
from lang_agent.agents.policy_agent import PolicyAgent
from lang_agent.agents.scripted import ConstantAgent
from lang_agent.cli.console import _show_warning
from lang_agent.cli.main import run
from lang_agent.cli.play import app as screen
from lang_agent.cli.play import command
from lang_agent.cli.play.app import Help, PlayApp
from lang_agent.cli.play.line import Line
from lang_agent.cli.play.map import draw
from lang_agent.cli.play.plain import play_plainly
from lang_agent.cli.play.words import clean, new_words, step_limit
from lang_agent.episode import Agent, Decision
from lang_agent.errors import LangAgentError
from lang_agent.learn.demonstrations import read_demonstrations, write_demonstrations
from lang_agent.models.decide import DecideConfig
from lang_agent.rollout import play
from lang_agent.seeding import EVALUATION_SEED
from lang_agent.text_env.env import TextEnv
from lang_agent.text_env.world import World
from lang_agent.train.demonstrate import label_own

ROOM = "BabyAI-GoToRedBallNoDists-v0"
PHRASES = ("turn left", "turn right", "go forward", "pick up", "drop", "toggle")


class Scripted(Agent):
    """Says what it is given."""

    def __init__(self, actions):
        self.actions = list(actions)

    def act(self, slots, observations):
        return [Decision(self.actions.pop(0))]


def by_expert(seed=0, env_id=ROOM):
    (episode,) = play(ExpertAgent(), [lang_agent.make(env_id)], [seed])
    return [step.decision.action for step in episode.steps]


def said(episode):
    return [step.decision.action for step in episode.steps]


def read(episode):
    return [(step.observation.prompt, step.reward) for step in episode.steps]


class Keys:
    """Presses keys in an app, and waits for what comes of them."""

    def __init__(self, app, pilot):
        self.app, self.pilot = app, pilot

    async def until(self, ready):
        for _ in range(1000):
            await self.pilot.pause(0.01)
            if ready():
                await self.pilot.pause()
                return
        raise AssertionError("nothing came of it")

    async def asked(self):
        await self.until(lambda: self.app.moments and self.app._waits)

    async def press(self, *keys):
        """Press keys, each once the session waits for it."""
        for key in keys:
            await self.asked()
            await self.pilot.press(key)
        await self.asked()

    async def type(self, text):
        names = {" ": "space", "?": "question_mark", "[": "left_square_bracket"}
        await self.pilot.press(*(names.get(letter, letter) for letter in text))
        await self.pilot.pause()

    @property
    def moment(self):
        return self.app.shown

    @property
    def line(self):
        return self.app._main.query_one("#typed", Line)

    def text(self):
        """What stands on the screen."""
        rows = {}
        for x, y, text in re.findall(
            r'<text class="terminal[^"]*" x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)</text>',
            self.app.export_screenshot(),
        ):
            rows.setdefault(float(y), []).append((float(x), html.unescape(text)))
        lines = []
        for _, parts in sorted(rows.items()):
            line = ""
            for x, text in sorted(parts):
                line = line.ljust(round(x / 12.2)) + text.replace("\xa0", " ")
            lines.append(line.rstrip())
        return "\n".join(lines)


def on_screen(app, what, size=(80, 24)):
    """Run ``what(keys)`` in an app without a terminal, leave it and give what was raised."""

    async def run():
        async with app.run_test(size=size) as pilot:
            keys = Keys(app, pilot)
            await keys.asked()
            await what(keys)
            app.action_leave()
        app.session.close()

    asyncio.run(run())
    assert not app.session._thread.is_alive()
    if app.session.error is not None:
        raise app.session.error


def alone(env=None, seed=0, **options):
    return PlayApp(env or lang_agent.make(ROOM), None, seed, **options)


def watching(agent, env=None, seed=0, **options):
    app = PlayApp(env or lang_agent.make(ROOM), agent, seed, **options)
    app.playing = False
    return app


# -- a person plays ------------------------------------------------------------------------------


def test_a_person_plays_an_episode_by_keys():
    wanted = by_expert()
    app = alone()

    async def what(keys):
        assert keys.moment.words.startswith("Goal: go to the red ball")
        for action in wanted:
            await keys.press(str(PHRASES.index(action) + 1))
        text = keys.text()
        assert "The goal was reached." in text
        assert f"{len(wanted)} steps, return 0." in text
        assert f"step {len(wanted)} of 64" in text

    on_screen(app, what)
    episode = app.moments[-1].episode
    assert said(episode) == wanted
    assert episode.success


def test_phrases_are_chosen_from_the_list_too():
    app = alone()

    async def what(keys):
        await keys.press("down", "enter")
        assert keys.moment.action == "turn right"
        assert "> turn right: exact, reward 0.000" in keys.text()
        assert "step 2 of 64" in keys.text()
        await keys.press("9")
        assert "There is no phrase 9." in keys.text()

    on_screen(app, what)


def test_phrases_are_typed_completed_and_brought_back():
    app = alone()

    async def what(keys):
        await keys.pilot.press("slash")
        await keys.type("go f")
        await keys.pilot.press("tab")
        assert keys.line.value == "go forward"
        await keys.press("enter")
        assert (keys.moment.number, keys.moment.action) == (1, "go forward")
        await keys.type("turn x")
        await keys.pilot.press("backspace")
        await keys.type("leftt")
        await keys.pilot.press("left", "delete")  # a line that can be edited
        await keys.press("enter")
        assert (keys.moment.number, keys.moment.action) == (2, "turn left")
        await keys.pilot.press("up", "up")
        assert keys.line.value == "go forward"
        await keys.pilot.press("down")
        assert keys.line.value == "turn left"
        await keys.pilot.press("down")
        assert keys.line.value == ""
        await keys.pilot.press("escape")
        assert app.query_one("#phrases").has_focus
        await keys.pilot.press("tab")
        assert keys.line.has_focus
        await keys.type("2")
        await keys.press("enter")
        assert (keys.moment.number, keys.moment.action) == (3, "turn right")

    on_screen(app, what)


def test_a_typing_error_costs_nothing():
    app = alone()

    async def what(keys):
        await keys.pilot.press("slash")
        await keys.type("go furward now not")
        await keys.pilot.press("enter")
        await keys.pilot.pause()
        assert keys.moment.number == 0
        text = " ".join(keys.text().split())
        assert "'go furward now not' is no phrase here and was not sent." in text
        assert "The nearest is 'go forward'." in text
        assert f"Phrases: {', '.join(PHRASES)}." in text
        await keys.type("3")
        await keys.press("enter")
        assert keys.moment.number == 1
        assert "is no phrase" not in keys.text()

    on_screen(app, what)


def test_strict_sends_what_is_typed():
    app = alone(strict=True)

    async def what(keys):
        await keys.pilot.press("slash")
        await keys.type("fly")
        await keys.press("enter")
        assert keys.moment.number == 1
        text = keys.text()
        assert "> fly: invalid, reward 0.000" in text
        assert text.count("'fly' is none of") == 1  # by the prompt

    on_screen(app, what)


@pytest.mark.parametrize("typed", [False, True], ids=["key", "line"])
def test_help_and_leaving(typed):
    closed = []

    class Closes(gymnasium.Wrapper):
        def close(self):
            closed.append(True)
            super().close()

    app = alone(Closes(lang_agent.make(ROOM)))

    async def run():
        async with app.run_test(size=(80, 24)) as pilot:
            keys = Keys(app, pilot)
            await keys.asked()
            enter = ["enter"] if typed else []
            if typed:
                await pilot.press("slash")
            await pilot.press("question_mark", *enter)
            await pilot.pause()
            assert isinstance(app.screen, Help)
            assert "take over: you decide from the step that is shown" in keys.text()
            await pilot.press("x")
            await pilot.pause()
            assert not isinstance(app.screen, Help)
            await pilot.press("q", *enter)
            await pilot.pause()
        app.session.close()

    asyncio.run(run())
    assert app.session.error is None
    assert closed == [True]
    assert not app.session._thread.is_alive()


def test_another_seed_and_the_same_again():
    app = alone(lang_agent.make(ROOM, max_steps=2), seed=5)

    async def what(keys):
        first = keys.moment.words
        await keys.press("1", "1")
        assert "The episode is over: the goal was not reached." in keys.text()
        assert "2 steps, cut off, return 0.000" in keys.text()
        await keys.press("a")
        assert (keys.moment.seed, keys.moment.number) == (6, 0)
        (episode,) = play(Scripted(["drop"] * 2), [lang_agent.make(ROOM, max_steps=2)], [6])
        assert keys.moment.words == episode.steps[0].observation.prompt.strip("\n")
        assert keys.moment.words != first
        await keys.press("1", "r")
        assert (keys.moment.seed, keys.moment.number) == (6, 0)

    on_screen(app, what)


def test_a_person_may_take_steps_back():
    app = alone()

    async def what(keys):
        await keys.press("1", "1", "1", "p", "p", "p")
        assert "looking back" in keys.text()
        await keys.press("2")
        assert "t goes on from here" in keys.text()
        await keys.press("t", "2")
        assert len(app.moments) == 2
        assert (keys.moment.number, keys.moment.action) == (1, "turn right")

    on_screen(app, what)


# -- an agent is watched -------------------------------------------------------------------------


def test_an_agent_is_watched_step_by_step(policy):
    agent = PolicyAgent(policy, 1, DecideConfig(temperature=0))
    (alike,) = play(
        PolicyAgent(policy, 1, DecideConfig(temperature=0)),
        [lang_agent.make(ROOM, max_steps=6)],
        [0],
    )
    app = watching(agent, lang_agent.make(ROOM, max_steps=6))

    async def what(keys):
        for number in range(6):
            decision = alike.steps[number].decision
            text = keys.text()
            assert keys.moment.number == number
            assert keys.moment.decision.action == decision.action
            assert f"value {decision.tokens.value:.3f}" in text
            for at, phrase in enumerate(PHRASES):
                (line,) = [row for row in text.splitlines() if f"{at + 1} {phrase} " in row]
                probability = decision.probabilities[at]
                assert line.endswith(f"{probability:.2f}")
                assert ("█" in line) == (probability * 14 >= 1)
                assert ("▸" in line) == (phrase == decision.action)
            await keys.press(("n", "right")[number % 2])
        assert "The episode is over" in keys.text()
        await keys.press("left")
        assert keys.moment.number == 5
        assert "looking back" in keys.text()

    on_screen(app, what)
    assert read(app.moments[-1].episode) == read(alike)


def test_an_agent_plays_by_itself_and_pauses(monkeypatch):
    monkeypatch.setattr(screen, "DELAYS", (30.0, 20.0, 10.0, 0.01))
    app = watching(ExpertAgent())

    async def what(keys):
        await keys.press("space")
        assert "plays, a step every 10 s" in keys.text()
        await keys.press("space")
        assert app.moments[-1].number == 1
        assert "pauses" in keys.text()
        await keys.press("minus")
        assert screen.DELAYS[app.pace] == 20.0
        await keys.press("space", "plus")
        assert app.moments[-1].number == 2
        await keys.press("plus")
        await keys.until(lambda: app.moments[-1].episode is not None)

    on_screen(app, what)
    assert said(app.moments[-1].episode) == by_expert()


def test_a_slow_agent_is_waited_for():
    decided = threading.Event()

    class Slow(ConstantAgent):
        def act(self, slots, observations):
            if app.moments:
                decided.wait(30)
            return super().act(slots, observations)

    app = watching(Slow("drop"), lang_agent.make(ROOM, max_steps=2))

    async def what(keys):
        await keys.pilot.press("n")
        await keys.until(lambda: "The agent is deciding." in keys.text())
        await keys.pilot.press("p", "t", "n")  # nothing of it is heard now
        decided.set()
        await keys.asked()
        assert keys.moment.number == 1
        assert not keys.moment.by_person
        assert "pauses" in keys.text()

    on_screen(app, what)


def test_several_episodes_are_watched_one_after_another(monkeypatch):
    monkeypatch.setattr(screen, "DELAYS", (0.01,) * 7)
    app = watching(ConstantAgent("drop"), lang_agent.make(ROOM, max_steps=2), episodes=2)
    app.playing = True

    async def what(keys):
        await keys.until(lambda: app.moments and app.moments[-1].seed == 1)
        await keys.until(lambda: app.moments and app.moments[-1].episode is not None)
        await keys.pilot.pause(1.2)
        assert app.moments[-1].seed == 1

    on_screen(app, what)


def test_a_person_takes_over_at_an_earlier_step_and_hands_back():
    app = watching(ExpertAgent())

    async def what(keys):
        await keys.press("n", "n", "n", "p", "p", "t")
        assert keys.moment.number == 1
        assert len(app.moments) == 2
        assert "you decide" in keys.text()
        await keys.press("1", "5")
        assert keys.moment.number == 3
        await keys.press("t")
        assert not keys.moment.by_person
        assert "pauses" in keys.text()
        while app.moments[-1].episode is None:
            await keys.press("n")

    on_screen(app, what)
    episode = app.moments[-1].episode
    assert said(episode)[:3] == [by_expert()[0], "turn left", "drop"]
    assert episode.success  # the expert has followed what the person did
    (direct,) = play(Scripted(said(episode)), [lang_agent.make(ROOM)], [0])
    assert read(direct) == read(episode)
    assert [moment.number for moment in app.moments] == list(range(len(episode.steps) + 1))


def test_a_policy_goes_on_from_where_a_person_left_it(policy):
    decide = DecideConfig(temperature=0)
    app = watching(PolicyAgent(policy, 1, decide), lang_agent.make(ROOM, max_steps=8))

    async def what(keys):
        await keys.press("n", "n", "n", "p", "t", "2", "t")
        while app.moments[-1].episode is None:
            await keys.press("n")

    on_screen(app, what)
    episode = app.moments[-1].episode
    assert said(episode)[2] == "turn right"
    for step in episode.steps[3:]:
        (fresh,) = PolicyAgent(policy, 1, decide).act([0], [step.observation])
        assert fresh.action == step.decision.action
        assert fresh.probabilities == pytest.approx(step.decision.probabilities, abs=1e-4)


def test_an_episode_that_is_over_is_gone_on_with_from_an_earlier_step():
    app = watching(ExpertAgent(), lang_agent.make(ROOM, max_steps=3))

    async def what(keys):
        await keys.press("n", "n", "n", "t")
        assert "p goes back to an earlier step" in keys.text()
        await keys.press("p", "t", "5")
        assert app.moments[-1].episode is not None

    on_screen(app, what)
    assert said(app.moments[-1].episode) == [*by_expert()[:2], "drop"]


class Fickle(Bandit):
    """Its sign does not stand by its seed."""

    turn = 0

    def reset(self, *, seed=None, options=None):
        Fickle.turn = 1 - Fickle.turn
        return self.turn, {}

    def step(self, action):
        return self.turn, 0.0, False, False, {}


def test_a_world_that_goes_another_way_is_told_of():
    from conftest import BANDIT

    app = alone(TextEnv(Fickle(), BANDIT))

    async def what(keys):
        await keys.press("1", "1", "p", "t")
        assert keys.moment.number == 0
        assert "The world went another way than before" in " ".join(keys.text().split())

    on_screen(app, what)


# -- what is saved -------------------------------------------------------------------------------


def saving(file):
    def save(episode):
        write_demonstrations(file, ROOM, [label_own(episode)])
        return file

    return save


def test_a_finished_episode_is_saved_and_read_again(tmp_path):
    file = tmp_path / "d.jsonl"
    app = watching(ExpertAgent(), lang_agent.make(ROOM, max_steps=3), save=saving(file))

    async def what(keys):
        await keys.press("n", "t", "s")
        assert "saved once it is over" in keys.text()
        await keys.press("5", "5", "s")
        assert "Saved in" in keys.text()
        await keys.press("s")
        assert "saved already" in keys.text()

    on_screen(app, what)
    (episode,) = read_demonstrations(file)
    played = app.moments[-1].episode
    assert said(episode) == said(played) == [by_expert()[0], "drop", "drop"]
    assert [step.observation.expert for step in episode.steps] == said(played)
    assert read(episode) == read(played)


def test_every_finished_episode_is_recorded_and_none_of_evaluation(tmp_path):
    file = tmp_path / "d.jsonl"
    env = lang_agent.make(ROOM, max_steps=1)
    app = alone(env, seed=EVALUATION_SEED - 1, save=saving(file), record=True)

    async def what(keys):
        await keys.press("1")
        assert "Saved in" in keys.text()
        await keys.press("a")
        assert f"Seed {EVALUATION_SEED} is kept for evaluation" in keys.text()
        await keys.press("r", "2")

    on_screen(app, what)
    assert [said(one) for one in read_demonstrations(file)] == [["turn left"], ["turn right"]]


def test_an_episode_of_evaluation_is_not_saved(tmp_path):
    file = tmp_path / "d.jsonl"
    env = lang_agent.make(ROOM, max_steps=1)
    app = alone(env, seed=EVALUATION_SEED, save=saving(file))

    async def what(keys):
        await keys.press("1", "s")
        assert "kept for evaluation" in keys.text()

    on_screen(app, what)
    assert not file.exists()


# -- what is shown -------------------------------------------------------------------------------


WILD = World(
    actions={"go [bold]west[/bold]": 0, "\x1b[31mgo [/b] south": 1},
    renderers={
        "wild": lambda state, env: {
            "mission": "cross [/b] :key:",
            "descriptions": ["A [red]sign[/red]\x1b]0;title\x07 [link=x]", "\u202eleft"],
        }
    },
)


def test_nothing_is_read_out_of_what_a_world_says():
    app = alone(TextEnv(Bandit(), WILD))

    async def what(keys):
        text = keys.text()
        for shown in (
            "Goal: cross [/b] :key:",
            "A [red]sign[/red]]0;title [link=x]",
            "1 go [bold]west[/bold]",
            "2 [31mgo [/b] south",
        ):
            assert shown in text
        assert "\x1b" not in app.export_screenshot()
        assert "\u202e" not in app.export_screenshot()
        await keys.pilot.press("slash")
        await keys.type("[/x] :key:")
        await keys.pilot.press("enter")
        await keys.pilot.pause()
        assert "'[/x] :key:' is no phrase here" in keys.text()
        await keys.press("escape", "1")
        assert "> go [bold]west[/bold]: exact" not in keys.text()  # it is over
        assert app.moments[-1].episode is not None

    on_screen(app, what)
    assert clean("a\x1b[1mb\tc\nd\x00\x9b") == "a[1mb c\nd"


@pytest.mark.parametrize(
    ("env_id", "options"),
    [
        (ROOM, {}),
        ("BabyAI-BossLevel-v0", {}),
        ("MiniGrid-DoorKey-16x16-v0", {"prompt": "glam"}),
        ("BabyAI-MixedLocal-v0", {"num_dists": 8, "wording": "lang_agent.envs.wordings:phrased"}),
        (ROOM, {"actions": {"wander to the side of the heart, slowly": "turn left"}}),
    ],
)
def test_everything_fits_a_small_terminal(env_id, options, policy):
    agent = PolicyAgent(policy, 1) if env_id == ROOM else None
    app = watching(agent, lang_agent.make(env_id, **options))

    async def what(keys):
        text, moment = keys.text(), keys.moment
        listed = app.query_one("#phrases", OptionList)
        assert listed.region.height >= len(moment.actions)
        assert listed.region.bottom <= 24
        assert listed.max_scroll_y == 0
        for at, phrase in enumerate(moment.actions):
            assert f"{at + 1} {phrase}" in text
        assert moment.mission[:40] in text
        assert "player" in text
        assert "q quit" in text
        legend = app.query_one("#legend")
        assert legend.region.bottom <= 24

    on_screen(app, what)


def test_more_phrases_than_rows_are_scrolled():
    world = World(
        actions={f"go to place {number}": number for number in range(40)},
        renderers={"words": lambda state, env: {"descriptions": ["Many places"]}},
    )
    app = alone(TextEnv(Bandit(), world))

    async def what(keys):
        assert "9 go to place 8" in keys.text()
        assert "q quit" in keys.text()
        await keys.pilot.press("end")
        await keys.pilot.pause()
        assert "go to place 39" in keys.text()
        await keys.press("enter")
        assert keys.moment.action == "go to place 39"

    on_screen(app, what)


def test_the_map_says_what_stands_where():
    env = lang_agent.make("BabyAI-GoToLocal-v0")
    env.reset(seed=3)
    cells = env.unwrapped.cells
    drawn, legend = draw(cells, 80, 24)
    rows = drawn.plain.split("\n")
    assert len(rows) == 8
    assert {len(row) for row in rows} == {16}
    world = env.unwrapped.env.unwrapped
    signs = {"ball": "●", "key": "k", "box": "■"}
    letters = {"red": "r", "green": "g", "blue": "b", "purple": "p", "yellow": "y", "grey": "e"}
    things = 0
    for x in range(8):
        for y in range(8):
            thing, cell = world.grid.get(x, y), rows[y][2 * x : 2 * x + 2]
            if (x, y) == tuple(world.agent_pos):
                assert cell == "▶▼◀▲"[world.agent_dir] + " "
            elif thing is None:
                assert cell == "· "
            elif thing.type == "wall":
                assert cell == "██"
            else:
                things += 1
                assert cell == signs[thing.type] + letters[thing.color]
                assert f"{cell[0]} {thing.type}" in legend.plain
                assert f"{cell[1]} {thing.color}" in legend.plain
    assert things == 8
    cropped, legend = draw(cells, 8, 3)
    lines = cropped.plain.split("\n")
    assert [len(line) for line in lines] == [8, 8, 8]
    assert any(sign in cropped.plain for sign in "▶▼◀▲")
    assert "part of 8 x 8 cells" in legend.plain
    _, legend = draw({**cells, "carrying": [5, 4]}, 80, 24)
    assert legend.plain.startswith("carries ky yellow key")


def test_doors_tell_whether_they_are_open():
    grid = [4, 0, 0, 4, 1, 1, 4, 2, 2, 1, 0, 0]
    cells = {"size": [4, 1], "grid": grid, "agent": [3, 0, 0], "carrying": None}
    drawn, legend = draw(cells, 80, 24)
    assert drawn.plain == "/rDgLb▶ "
    for meaning in ("/ open door", "D closed door", "L locked door"):
        assert meaning in legend.plain


def test_help_may_stand_before_a_step_that_comes(monkeypatch):
    monkeypatch.setattr(screen, "DELAYS", (0.05,) * 7)
    app = watching(ExpertAgent())

    async def what(keys):
        await keys.pilot.press("space", "question_mark")
        await keys.until(lambda: app.moments[-1].episode is not None)
        assert isinstance(app.screen, Help)
        await keys.pilot.press("x")
        await keys.pilot.pause()
        assert "The goal was reached." in keys.text()

    on_screen(app, what)


def test_any_text_is_typed_where_there_are_no_phrases():
    app = alone(lang_agent.make("TextGeneration-v0"))

    async def what(keys):
        assert keys.line.has_focus
        await keys.type("went [b] home 1 q")
        await keys.press("enter")

    on_screen(app, what)
    assert said(app.moments[-1].episode) == ["went [b] home 1 q"]


def test_a_dialogue_goes_on_with_what_is_new():
    app = alone(lang_agent.make("Dialogue-v0"))

    async def what(keys):
        assert keys.moment.level == "Dialogue-v0"
        assert "You: Hello! How was your day?" in keys.text()
        await keys.type("fine")
        await keys.press("enter")
        assert keys.moment.words.startswith("You: What happened then?")
        assert keys.line.has_focus
        await keys.press("escape", "p")
        assert keys.moment.number == 0
        assert "\n> fine" in keys.text()
        await keys.press("n")
        assert keys.line.has_focus

    on_screen(app, what)


def test_what_is_new_in_a_prompt():
    assert new_words("Goal: a\nAction: ", "", "") == "Goal: a\nAction: "
    assert new_words("Action: go\nmore", "Action: ", "go") == "more"
    assert new_words("Me: hi\nYou: oh", "Me:", "hi") == "You: oh"
    assert new_words("See: x", "See: x", "go") == "See: x"  # nothing has changed, and all is new
    assert new_words("See: xy", "See: x", "go") == "See: xy"


def test_what_an_agent_writes_is_shown():
    app = watching(ConstantAgent("went [b] home"), lang_agent.make("TextGeneration-v0"))

    async def what(keys):
        assert "> went [b] home" in keys.text()
        await keys.press("n")

    on_screen(app, what)


def test_words_of_ones_own_act():
    env = lang_agent.make(ROOM, actions={"spin": "turn left", "walk": "go forward"})
    app = alone(env)

    async def what(keys):
        assert keys.moment.actions == ("spin", "walk")
        await keys.pilot.press("slash")
        await keys.type("wa")
        await keys.pilot.press("tab")
        await keys.press("enter")
        assert (keys.moment.number, keys.moment.action) == (1, "walk")

    on_screen(app, what)


def test_a_step_limit_is_told_where_there_is_one():
    limits = {ROOM: 64, "TextGeneration-v0": None}
    for env_id, limit in limits.items():
        env = lang_agent.make(env_id)
        env.reset(seed=0)
        assert step_limit(env) == limit
    assert step_limit(make_bandit()) is None
    lake = World({"go west": 0}, {"words": lambda state, env: {"descriptions": ["Ice"]}})
    assert step_limit(TextEnv(gymnasium.make("FrozenLake-v1"), lake)) == 100


# -- what goes wrong -----------------------------------------------------------------------------


class Raises(Bandit):
    def step(self, action):
        raise RuntimeError("the floor gave way")


class Fails(Agent):
    def act(self, slots, observations):
        raise RuntimeError("no idea")


def failing(app, *keys):
    async def run():
        async with app.run_test() as pilot:
            for key in keys:
                await Keys(app, pilot).asked()
                await pilot.press(key)
            for _ in range(500):
                await pilot.pause(0.01)
                if not app.session._thread.is_alive():
                    break
        assert not app.is_running

    asyncio.run(run())
    with pytest.raises(LangAgentError) as failed:
        raise app.session.error
    return str(failed.value)


def test_what_an_environment_or_agent_raises_ends_the_app():
    from conftest import BANDIT

    told = failing(alone(TextEnv(Raises(), BANDIT)), "1")
    assert "failed at step 0 (action 'go left') of episode 0, seed 0" in told
    assert "the floor gave way" in told
    told = failing(watching(Fails()))
    assert told == "The agent Fails failed at step 0: RuntimeError: no idea."


def test_the_plain_form_tells_of_an_agent_that_fails_too(monkeypatch, capsys):
    with pytest.raises(LangAgentError, match="The agent Fails failed at step 0: RuntimeError: no"):
        plainly(monkeypatch, capsys, "", Fails())


def test_a_warning_is_shown_on_the_screen(monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", _show_warning)
    agent = ConstantAgent("drop")
    agent.words = {"prompt": "recap"}
    app = watching(agent)

    async def what(keys):
        text = " ".join(keys.text().split())
        assert "The policy was trained with the prompt 'recap' and reads 'transcript'" in text

    on_screen(app, what)
    (warning,) = app.warnings
    assert warning.startswith("The policy was trained")


# -- the plain form ------------------------------------------------------------------------------


def plainly(monkeypatch, capsys, typed, agent=None, env=None, tty=False, **options):
    """What the plain form prints, and the episodes that were finished."""
    stream = io.StringIO(typed)
    stream.isatty = lambda: tty
    monkeypatch.setattr(sys, "stdin", stream)
    env = env or lang_agent.make(ROOM, max_steps=3)
    episodes = list(play_plainly(env, agent or HumanAgent(), [0], **options))
    return capsys.readouterr().out, episodes


def test_the_plain_form_tells_everything_once(monkeypatch, capsys):
    out, (episode,) = plainly(monkeypatch, capsys, "turn left\n?\nfly\ndrop\n")
    assert said(episode) == ["turn left", "fly", "drop"]
    assert out.startswith(f"{ROOM}, seed 0, at most 3 steps\nPhrases: {', '.join(PHRASES)}\n")
    assert "Step 1 of 3: exact, reward 0.000" in out
    assert "Step 2 of 3: invalid, reward 0.000\nNot an action: 'fly' is none of" in out
    assert out.count("'fly' is none of") == 1
    assert out.count("q or Ctrl-D leaves") == 2
    end = "The episode is over: the goal was not reached. 3 steps, cut off, return 0.000."
    assert end in out


def test_the_end_of_the_input_and_q_leave(monkeypatch, capsys):
    for typed in ("turn left\n", "turn left\nq\ndrop\n"):
        out, episodes = plainly(monkeypatch, capsys, typed)
        assert episodes == []
        assert "Step 1 of 3" in out
        assert "Step 2" not in out


def test_at_a_terminal_a_typing_error_costs_nothing_in_the_plain_form_either(monkeypatch, capsys):
    typed = "fly\n1\ngo forwards\ndrop\n"
    out, (episode,) = plainly(monkeypatch, capsys, typed, tty=True)
    assert said(episode) == ["turn left", "go forwards", "drop"]
    assert "'fly' is no phrase here and was not sent." in out
    assert "Phrases: 1 turn left, 2 turn right" in out
    out, (episode,) = plainly(monkeypatch, capsys, typed, tty=True, strict=True)
    assert said(episode) == ["fly", "1", "go forwards"]


def test_an_agent_is_watched_in_lines(monkeypatch, capsys, policy):
    agent = PolicyAgent(policy, 1, DecideConfig(temperature=0))
    out, (episode,) = plainly(monkeypatch, capsys, "", agent)
    for step in episode.steps:
        decision = step.decision
        weighed = sorted(zip(decision.probabilities, PHRASES, strict=True), reverse=True)
        best, phrase = weighed[0]
        assert f"> {decision.action}\n  {phrase} {best:.2f}, " in out
        assert f"..., value {decision.tokens.value:.3f}\n" in out
    assert "The episode is over: the goal was not reached. 3 steps" in out


def test_control_characters_are_not_printed(monkeypatch, capsys):
    out, _ = plainly(monkeypatch, capsys, "q\n", env=TextEnv(Bandit(), WILD))
    assert "A [red]sign[/red]]0;title [link=x]" in out
    assert "\x1b" not in out


# -- the command ---------------------------------------------------------------------------------


def at_a_terminal(arguments, script, cwd=None, **env):
    """Run the command at a terminal of 80 x 24; ``script`` has (what is awaited, what is typed),
    and what is awaited comes after what was typed before. Returns status and output."""
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    environ = {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [str(Path(sys.executable).with_name("lang-agent")), "play", *arguments]
    run = subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=cwd,
        start_new_session=True,
        env={**os.environ, **environ, **env},
    )
    os.close(slave)
    out, waiting, end, at = b"", list(script), time.monotonic() + 60, 0
    while time.monotonic() < end:
        ready, _, _ = select.select([master], [], [], 0.1)
        try:
            read = os.read(master, 65536) if ready else b""
        except OSError:  # the terminal's other end is closed
            break
        if ready and not read:
            break
        out += read
        if waiting and waiting[0][0] in out[at:]:
            at = out.index(waiting[0][0], at) + len(waiting[0][0])
            os.write(master, waiting.pop(0)[1])
    else:
        os.kill(run.pid, signal.SIGKILL)
    os.close(master)
    return run.wait(10), out.decode(errors="replace")


def test_the_command_opens_the_screen_and_leaves_it():
    status, out = at_a_terminal([ROOM], [(b"you decide", b"1"), (b"exact", b"q")])
    assert status == 0, out
    assert "\x1b[?1049h" in out  # the screen was opened
    assert "\x1b[?1049l" in out  # and closed


def test_without_a_screen_the_command_reads_lines():
    script = [
        (b"> ", b"fly\n"),
        (b"is no phrase", b"turn left\n"),
        (b"Step 1", b""),
        (b"> ", b"\4"),
    ]
    status, out = at_a_terminal([ROOM], script, TERM="dumb")
    assert status == 0, out
    assert "\x1b[?1049h" not in out
    assert "Step 1 of 64: exact" in out


def test_the_plain_form_is_had_for_the_asking(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(command, "draws_screens", lambda: True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("drop\n"))
    file = tmp_path / "d.jsonl"
    run(["play", f"{ROOM} max_steps=1", "--plain", "--record", str(file)])
    assert "Step 1 of 1: exact" in capsys.readouterr().out
    (episode,) = read_demonstrations(file)
    assert said(episode) == ["drop"]


def test_what_a_world_raises_is_one_sentence_after_the_screen(tmp_path):
    (tmp_path / "my_world.py").write_text(
        "import gymnasium\n"
        "class World(gymnasium.Env):\n"
        "    observation_space = action_space = gymnasium.spaces.Text(9)\n"
        "    def reset(self, seed=None, options=None):\n"
        "        return 'a', {'actions': ('go',)}\n"
        "    def step(self, action):\n"
        "        raise RuntimeError('the floor gave way')\n",
        encoding="utf-8",
    )
    status, out = at_a_terminal(["my_world:World"], [(b"you decide", b"1")], cwd=tmp_path)
    assert status == 2, out
    after = out.rpartition("\x1b[?1049l")[2]
    assert "lang-agent: The environment World failed at step 0" in after
    assert "the floor gave way" in after


def test_examples_are_no_persons(tmp_path):
    with pytest.raises(LangAgentError, match="--examples"):
        run(["play", ROOM, "--examples", str(tmp_path / "x")])
