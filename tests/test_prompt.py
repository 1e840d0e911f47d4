"""Templates: the shipped ones, a user's own, their mistakes, and the token budget."""

from __future__ import annotations

import random

import pytest
from conftest import make_bandit

import lang_agent
from lang_agent import LangAgentError
from lang_agent.errors import PromptError
from lang_agent.text_env.prompt import Prompt, load_template, render

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


def test_rooms_numbers_phrases_that_are_not_the_worlds_own():
    words = {"renderer": "rooms", "prompt": "rooms"}
    renamed = {"walk": "go forward", "turn left": "turn left"}
    env = lang_agent.make("BabyAI-GoToLocal-v0", actions=renamed, **words)
    assert env.reset(seed=0)[0].startswith("Say: 1: walk 2: turn left\nHere: ")
    assert lang_agent.make("BabyAI-GoToLocal-v0", **words).reset(seed=0)[0].startswith("Here: ")


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


# -- templates that build on others ------------------------------------------------------------

MACROS = "{% macro shout(word) %}{{ word | upper }}!{% endmacro %}"
PARTS = {
    "an intro of its own": (
        "{% extends 'transcript.jinja' %}{% block intro %}Now: {{ mission }}\n{% endblock %}",
        "Now: follow the sign\n",
        "The sign points {}\nAction: ",
    ),
    "a turn of its own": (
        "{% extends 'transcript.jinja' %}{% block turn %}See {{ descriptions[0] }}: {% endblock %}",
        "Goal: follow the sign\nActions: go left, go right\n",
        "See The sign points {}: ",
    ),
    "what it extends, and more": (
        "{% extends 'transcript.jinja' %}{% block turn %}({{ step }}) {{ super() }}{% endblock %}",
        "Goal: follow the sign\nActions: go left, go right\n",
        "(0) The sign points {}\nAction: ",
    ),
    "a macro of its own": (
        MACROS + "{% block intro %}{{ shout(mission) }}\n{% endblock %}"
        "{% block turn %}{{ shout(descriptions[0]) }} {% endblock %}",
        "FOLLOW THE SIGN!\n",
        "THE SIGN POINTS {U}! ",
    ),
    "an import": (
        "{% from 'macros.jinja' import shout %}{% block intro %}{{ shout(mission) }}\n"
        "{% endblock %}{% block turn %}{{ shout('x') }} {% endblock %}",
        "FOLLOW THE SIGN!\n",
        "X! ",
    ),
    "an import and a parent": (
        "{% extends 'transcript.jinja' %}{% import 'macros.jinja' as m %}"
        "{% set end = '>' %}{% block turn %}{{ m.shout('x') }}{{ end }} {% endblock %}",
        "Goal: follow the sign\nActions: go left, go right\n",
        "X!> ",
    ),
    "a set that changes from turn to turn": (
        "{% set at = step + 1 %}{% block intro %}{{ at }}\n{% endblock %}"
        "{% block turn %}turn {{ at }}: {% endblock %}",
        "1\n",
        "turn 1: ",
    ),
    "an include": (
        "{% block intro %}{% include 'head.jinja' %}{% endblock %}{% block turn %}t {% endblock %}",
        "HEAD follow the sign",
        "t ",
    ),
    "a block in a block": (
        "{% block intro %}{% block head %}a{% endblock %}b\n{% endblock %}"
        "{% if descriptions %}{% block turn %}c {% endblock %}{% endif %}",
        "ab\n",
        "c ",
    ),
    "a grandparent": (
        "{% extends 'parent.jinja' %}{% block turn %}+{{ super() }}{% endblock %}",
        "PARENT\n",
        "+The sign points {}\nAction: ",
    ),
}


@pytest.mark.parametrize("what", PARTS)
@pytest.mark.parametrize("by_path", [False, True])
def test_blocks_are_rendered_within_their_template(tmp_path, what, by_path):
    text, intro, turn = PARTS[what]
    (tmp_path / "macros.jinja").write_text(MACROS)
    (tmp_path / "head.jinja").write_text("HEAD {{ mission }}\n")
    (tmp_path / "parent.jinja").write_text(
        "{% extends 'transcript.jinja' %}{% block intro %}PARENT\n{% endblock %}"
    )
    (tmp_path / "mine.jinja").write_text(text)
    prompt = str(tmp_path / "mine.jinja") if by_path else "mine"
    env = make_bandit(prompt=prompt, prompt_folder=None if by_path else str(tmp_path))
    for seed in range(4):
        first, info = env.reset(seed=seed)
        side = info["descriptions"][0].split()[-1]
        assert first == intro + turn.format(side, U=side.upper())
        second, *_ = env.step("fly")
        assert second.startswith(f"{first}fly\n")


def test_a_path_and_a_folder_may_both_be_given(tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/head.jinja").write_text("shared ")
    (tmp_path / "mine.jinja").write_text("{% include 'head.jinja' %}{{ step }}: ")
    path = str(tmp_path / "mine.jinja")
    env = make_bandit(prompt=path, prompt_folder=str(tmp_path / "shared"))
    assert env.reset(seed=0)[0] == "shared 0: "


@pytest.mark.parametrize("changed", ["mine", "head", "parent"])
def test_a_template_is_read_again_once_it_changed_and_stays_as_it_was_for_prompts_made_before(
    tmp_path, changed
):
    texts = {
        "mine": "{% extends 'parent.jinja' %}"
        "{% block a %}{% include 'head.jinja' %}1{% endblock %}",
        "head": "head ",
        "parent": "{% block a %}{% endblock %}: ",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.jinja").write_text(text)
    old = make_bandit(prompt="mine", prompt_folder=str(tmp_path))
    assert old.reset(seed=0)[0] == "head 1: "
    file = tmp_path / f"{changed}.jinja"
    file.write_text(texts[changed].replace("1", "2").replace("head ", "HEAD ").replace(": ", "> "))
    expected = {"mine": "head 2: ", "head": "HEAD 1: ", "parent": "head 1> "}[changed]
    assert make_bandit(prompt="mine", prompt_folder=str(tmp_path)).reset(seed=0)[0] == expected
    assert old.reset(seed=0)[0] == "head 1: "
    assert load_template("mine", tmp_path) is load_template("mine", tmp_path)


def test_a_template_of_ones_own_that_appears_takes_the_place_of_one_that_ships(tmp_path):
    assert "See:" in make_bandit(prompt="minimal", prompt_folder=str(tmp_path)).reset(seed=0)[0]
    (tmp_path / "minimal.jinja").write_text("mine: ")
    assert make_bandit(prompt="minimal", prompt_folder=str(tmp_path)).reset(seed=0)[0] == "mine: "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"caf\xe9", "'mine' is not UTF-8 text"),
        (b"{{ 1 / 0 }}", "'mine.jinja', line 1: division by zero"),
        (b"{% include 'mine.jinja' %}", "includes, imports or calls itself without end"),
        (b"{% extends 'mine.jinja' %}", "extends itself"),
        (b"{% extends mission %}", "line 1: it must extend a template by its name"),
        (b"{% extends 'nowhere.jinja' %}", "Unknown prompt template 'nowhere'"),
        (b"a\n{% include 'nowhere.jinja' %}", "line 2: there is no template 'nowhere.jinja'"),
        (b"{{ mission | nothing }}", "line 1: No filter named 'nothing'"),
        (b"{% include 'deep.jinja' %}", "'deep.jinja', line 2: 'nope' is undefined"),
        (b"{% extends 'transcript.jinja' %}{% block turn %}{{ nope }}{% endblock %}",
         "'mine.jinja', line 1: 'nope' is undefined"),
        (b"\xef\xbb\xbf{{ nope }}", "line 1: 'nope' is undefined"),
    ],
)  # fmt: skip
def test_mistakes_in_templates_are_one_sentence(tmp_path, text, message):
    (tmp_path / "mine.jinja").write_bytes(text)
    (tmp_path / "deep.jinja").write_text("\n{{ nope }}")
    with pytest.raises(LangAgentError, match=message):
        make_bandit(prompt="mine", prompt_folder=str(tmp_path)).reset(seed=0)


def test_a_template_that_cannot_be_read_is_one_sentence(tmp_path):
    (tmp_path / "mine.jinja").mkdir()
    with pytest.raises(LangAgentError, match="mine"):
        load_template("mine", tmp_path)


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "mine.jinja").write_bytes(b"\xef\xbb\xbfnow: ")
    assert make_bandit(prompt="mine", prompt_folder=str(tmp_path)).reset(seed=0)[0] == "now: "


# -- the cost of telling everything ------------------------------------------------------------

WHOLE = (
    "{% for turn in history %}{{ turn.descriptions | join(',') }} {{ turn.action }}\n{% endfor %}"
    "{{ descriptions | join(',') }}: "
)


def told_whole(tmp_path, monkeypatch, steps: int, budget: int) -> tuple[list[str], list[int]]:
    """The prompts, and how many turns were rendered for each."""
    (tmp_path / "whole.jinja").write_text(WHOLE)
    cost: list[int] = []

    def counted(template, seen, block=None):
        cost[-1] += 1 + len(seen["history"])
        return render(template, seen, block)

    monkeypatch.setattr("lang_agent.text_env.prompt.render", counted)
    prompt = Prompt(load_template("whole", tmp_path))
    prompt.limit(budget, words)
    cost.append(0)
    texts = [prompt.reset(fields(0))]
    for step in range(1, steps):
        cost.append(0)
        texts.append(prompt.step("go on", fields(step)))
    return texts, cost


def test_a_whole_history_within_a_budget_costs_the_same_at_every_step(tmp_path, monkeypatch):
    texts, cost = told_whole(tmp_path, monkeypatch, 400, 100)
    assert all(words(text) <= 100 for text in texts)
    assert max(cost[100:]) <= 3 * 26
    assert all(text.endswith(f"line {step}: ") for step, text in enumerate(texts))
    assert all(words(text) > 96 - 4 for text in texts[50:])  # as much as fits is told


def test_a_window_keeps_as_many_turns_as_fit_when_one_is_long(tmp_path):
    (tmp_path / "whole.jinja").write_text(WHOLE)
    prompt = Prompt(load_template("whole", tmp_path))
    prompt.limit(60, words)
    prompt.reset(fields(0))
    for step in range(1, 12):
        prompt.step("go on", fields(step))
    text = prompt.step("go on", fields(12, descriptions=["word " * 39 + "word"]))
    assert words(text) == 40 + 4 * 5
    assert text.startswith("line 7 go on\n")
