"""Templates: the shipped ones, a user's own, their mistakes, and the token budget."""

from __future__ import annotations

import random

import pytest
from conftest import make_bandit

import lang_agent
from lang_agent.prompt import Prompt, PromptError, load_template, render

ACTIONS = ("turn left", "turn right", "go forward", "pick up", "drop", "toggle")


def test_glams_prompt_byte_for_byte(oracle):
    template = load_template("glam")
    records = [record for record in oracle if "prompt" in record]
    assert len(records) == 350
    for record in records:
        seen, taken = record["history_obs"], record["history_actions"]
        history = [
            {"descriptions": lines, "action": action}
            for lines, action in zip(seen[:-1], taken, strict=True)
        ]
        fields = {"mission": record["mission"], "actions": ACTIONS, "descriptions": seen[-1]}
        assert render(template, {**fields, "history": history}) == record["prompt"]


def test_glams_window_in_play_keeps_three_observations():
    env = lang_agent.make("BabyAI-GoToLocal-v0", prompt="glam")
    prompt, _ = env.reset(seed=0)
    assert prompt.count("Observation") == 1
    for _ in range(5):
        prompt, *_ = env.step("turn left")
    assert prompt.count("Observation") == 3
    assert prompt.endswith("Action 2: ")


def test_balrog_drops_you_see():
    env = lang_agent.make("BabyAI-GoToLocal-v0", prompt="balrog")
    prompt, info = env.reset(seed=0)
    assert "You see" not in prompt
    assert info["descriptions"][0].removeprefix("You see ") in prompt.splitlines()


@pytest.mark.parametrize("name", ["transcript", "glam", "balrog", "minimal"])
def test_every_shipped_template_renders_and_asks_for_an_action(name):
    env = make_bandit(prompt=name)
    prompt, info = env.reset(seed=0)
    assert prompt.endswith(": ")
    assert info["descriptions"][0].removeprefix("You see ") in prompt
    assert "follow the sign" in prompt


def test_a_recap_reminds_of_a_door_whose_colour_the_goal_leaves_open():
    env = lang_agent.make("BabyAI-MixedLocal-v0", task="open", num_dists=0, prompt="recap")
    reminded = set()
    for seed in range(20):
        text, info = env.reset(seed=seed)
        met = ""
        for _ in range(6):  # all around, and on until it is out of view again
            doors = [line for line in info["descriptions"] if " door " in line]
            if doors and info["mission"] == "open the door":
                color = doors[0].split(" door ")[0].split()[-1]
                met = f", {color} door"
                reminded.add(color)
            assert text.splitlines()[-1] == f"{info['mission']}{met}: "
            text, _, _, _, info = env.step("turn left")
    assert len(reminded) > 1


def test_a_recap_tells_the_last_five_actions():
    env = lang_agent.make("BabyAI-GoToLocal-v0", prompt="recap")
    env.reset(seed=0)
    for action in ("drop", *["turn left"] * 5):
        prompt, *_ = env.step(action)
    did, see, goal = prompt.split("\n")
    assert did == "Did: turn left, turn left, turn left, turn left, turn left"
    assert see.startswith("See: ")
    assert goal.startswith("go to ")
    assert goal.endswith(": ")


def test_a_recap_lists_phrases_that_are_not_the_worlds_own():
    renamed = {"walk": "go forward", "turn left": "turn left"}
    env = lang_agent.make("BabyAI-GoToLocal-v0", prompt="recap", actions=renamed)
    assert env.reset(seed=0)[0].startswith("Say: walk, turn left,\nDid: \nSee: ")
    narrowed = lang_agent.make("BabyAI-GoToLocal-v0", prompt="recap", actions=["go forward"])
    assert narrowed.reset(seed=0)[0].startswith("Did: \nSee: ")


def test_a_transcript_only_grows():
    env = lang_agent.make("BabyAI-GoToLocal-v0")
    before, _ = env.reset(seed=0)
    for action in ("turn left", "what?", "go forward"):
        after, *_ = env.step(action)
        assert after.startswith(before + action + "\n")
        before = after


def test_a_users_folder_goes_before_the_shipped_templates(tmp_path):
    (tmp_path / "minimal.jinja").write_text("{{ mission }} / {{ descriptions | length }}: ")
    (tmp_path / "other.jinja").write_text("now {{ step }}: ")
    env = make_bandit(prompt="minimal", prompt_folder=str(tmp_path))
    assert env.reset(seed=0)[0] == "follow the sign / 1: "
    assert make_bandit(prompt=str(tmp_path / "other.jinja")).reset(seed=0)[0] == "now 0: "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one\ntwo {{ nonsense }}", r"'mine\.jinja', line 2: 'nonsense' is undefined"),
        ("{% if %}", r"'mine\.jinja', line 1: Expected"),
        ("one\n{{ mission.__class__.mro() }}", "line 2: access to attribute '__class__'"),
        ("one\n\n{{ descriptions + 1 }}", "line 3: "),
        ("{% block turn %}x{% endblock %}", "has a 'turn' block but no 'intro'"),
        (
            "{% block intro %}a{% endblock %}\n{% block turn %}\n{{ nope }}{% endblock %}",
            "line 3: 'nope' is undefined",
        ),
    ],
)
def test_a_broken_template_names_itself_the_line_and_the_field(tmp_path, text, message):
    (tmp_path / "mine.jinja").write_text(text)
    with pytest.raises(PromptError, match=message):
        make_bandit(prompt="mine", prompt_folder=str(tmp_path)).reset(seed=0)


def words(text: str) -> int:
    return len(text.split())


def fields(step: int, **more) -> dict:
    return {
        "mission": "m", "actions": ("a",), "feedback": "", "step": step,
        "descriptions": [f"line {step}"], **more,
    }  # fmt: skip


def test_a_budget_is_kept_whatever_the_turns_sizes():
    prompt = Prompt(load_template("transcript"))
    prompt.limit(60, words)
    draw = random.Random(0)
    prompt.reset(fields(0))
    for step in range(1, 200):
        lines = ["word " * draw.randint(1, 6)] * draw.randint(0, 7)
        assert words(prompt.step("go on", fields(step, descriptions=lines))) <= 60


def test_a_transcript_over_budget_loses_its_oldest_turns():
    prompt = Prompt(load_template("transcript"))
    prompt.limit(24, words)
    text = prompt.reset(fields(0))
    intro = text.split("line 0")[0]
    shrunk = 0
    for step in range(1, 30):
        before, text = text, prompt.step("go on", fields(step))
        assert words(text) <= 24
        assert text.startswith(intro)
        assert text.endswith(f"line {step}\nAction: ")
        if not text.startswith(before):
            shrunk += 1
            assert text[len(intro) :].startswith("line ")  # no action without its turn
            assert words(text) <= 12 + words(intro)
    assert 3 < shrunk < 15


def test_a_window_over_budget_loses_its_oldest_turns():
    prompt = Prompt(load_template("glam"))
    prompt.limit(30, words)
    prompt.reset(fields(0))
    texts = [prompt.step("go on", fields(step)) for step in range(1, 9)]
    assert all(words(text) <= 30 for text in texts)
    assert {text.count("Observation") for text in texts} == {2}


@pytest.mark.parametrize("name", ["transcript", "glam"])
def test_what_can_never_fit_is_refused_with_the_figures(name):
    prompt = Prompt(load_template(name))
    prompt.limit(6, words)
    with pytest.raises(PromptError, match=r"needs \d+ tokens .* only 6 fit"):
        prompt.reset(fields(0, descriptions=["a long line of many words"]))
