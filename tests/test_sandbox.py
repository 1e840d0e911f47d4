"""Templates see plain data, reach nothing else, and come to an end."""

from __future__ import annotations

import enum
import time
import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from conftest import BANDIT, Bandit

from lang_agent import LangAgentError, TextEnv, World
from lang_agent.errors import PromptError
from lang_agent.text_env.plain import plain
from lang_agent.text_env.prompt import load_template, render

FIELDS = {
    "mission": "go",
    "descriptions": ["x", "y"],
    "actions": ("a", "b"),
    "grid": [[1, 2], [3, 4]],
    "history": [],
}


class Sign(enum.IntEnum):
    LEFT = 0
    RIGHT = 1


@dataclass
class Thing:
    name: str = "x"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("x", "x"),
        (np.str_("x"), "x"),
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array(7), 7),
        (np.array(["a"]), ["a"]),
        (torch.tensor([1.0, 2.0]), [1.0, 2.0]),
        (Sign.RIGHT, 1),
        ((1, np.int8(2)), (1, 2)),
        ({"a": [np.float64(1.5), None, True]}, {"a": [1.5, None, True]}),
    ],
)
def test_fields_become_plain_data(value, expected):
    found = plain(value, "x")
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    "value",
    [Thing(), len, b"x", {1, 2}, [Thing()], {"a": Thing()}, np.array([Thing()]), {(1, 2): 3}, 1j,
     np.datetime64("2020-01-01"), iter([1])],
)  # fmt: skip
def test_what_is_no_plain_data_is_refused_by_its_field(value):
    with pytest.raises(LangAgentError, match="The field 'odd' h"):
        plain(value, "odd")
    world = World(BANDIT.actions, {"r": lambda *_: {"descriptions": ["x"], "odd": value}})
    with pytest.raises(LangAgentError, match="The field 'odd' h"):
        TextEnv(Bandit(), world).reset(seed=0)


ESCAPES = [
    "grid.tofile('{path}')",
    "grid.flatten()",
    "mission.__class__",
    "mission['__class__']",
    "mission|attr('__class__')",
    "''.__class__.__mro__[1].__subclasses__()",
    "().__class__.__bases__",
    "dict.mro()",
    "cycler.__init__.__globals__.os.system('touch {path}')",
    "joiner.__init__.__globals__",
    "namespace.__init__.__globals__",
    "range.__globals__",
    "lipsum.__globals__",
    "self.__init__.__globals__",
    "self._TemplateReference__context",
    "'{{0.__class__}}'.format(mission)",
    "'{{0.__class__}}'.format_map({{'0': 1}})",
    "mission.format(mission)",
    "mission.encode()",
    "(1).to_bytes(9, 'big')",
    "descriptions.append('x')",
    "descriptions.clear()",
    "{{}}.update({{}})",
    "{{'a': 1}}.pop('a')",
    "mission.upper.__self__",
    "(mission|tojson).unescape()",
    "[mission]|map('attr', '__class__')|list",
    "[mission]|sum(attribute='__class__')",
    "mission|safe",
    "mission|pprint",
    "mission|random",
]


@pytest.mark.parametrize("escape", ESCAPES)
def test_nothing_beyond_the_data_can_be_reached(escape, tmp_path):
    target = tmp_path / "written"
    expression = escape.format(path=target)
    (tmp_path / "mine.jinja").write_text("{{ %s }}" % expression)  # noqa: UP031
    with pytest.raises(PromptError, match="mine"):
        print(render(load_template("mine", tmp_path), FIELDS))
    assert not target.exists()
    assert FIELDS["descriptions"] == ["x", "y"]


def test_an_array_that_a_renderer_gives_writes_no_file(tmp_path):
    target = tmp_path / "written"
    (tmp_path / "mine.jinja").write_text("{{ image.tofile('%s') }}" % target)  # noqa: UP031
    world = World(
        BANDIT.actions, {"r": lambda *_: {"descriptions": ["x"], "image": np.zeros(3, np.uint8)}}
    )
    env = TextEnv(Bandit(), world, prompt="mine", prompt_folder=str(tmp_path))
    with pytest.raises(PromptError, match="no attribute 'tofile'"):
        env.reset(seed=0)
    assert not target.exists()


LOOP = (
    "{%% set ns = namespace(s=%s) %%}{%% for i in range(99) %%}{%% set ns.s = %s %%}{%% endfor %%}"
)
BOMBS = [
    "{{ range(10**9) }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{{ i }}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) if false %}{% endfor %}{% endfor %}",
    "{{ 9**999999999 }}",
    "{{ (2**4000) ** 4000 }}",
    "{{ 'a' * 10**9 }}",
    "{{ 10**9 * [0] }}",
    "{{ '%999999999d' % 1 }}",
    "{{ '%.999999999f' % 1 }}",
    "{{ '%*d' % (999999999, 1) }}",
    "{{ '%999999999d' | format(1) }}",
    "{{ 'a' | center(10**9) }}",
    "{{ 'a\nb' | indent(10**9) }}",
    "{{ [1] | batch(10**9, 'x') | list }}",
    "{{ [1] | slice(10**9) | list }}",
    "{{ 1 | round(10**9, 'ceil') }}",
    "{{ ('a' * 1000) | replace('a', 'b' * 1000) | replace('b', 'c' * 1000) }}",
    "{{ ('a' * 99999).replace('', 'b' * 99999) }}",
    "{{ ('a' * 99999).join(range(99999) | map('string')) }}",
    "{{ range(99999) | map('string') | join('a' * 99999) }}",
    "{{ (range(99999) | list | string) | wordwrap(1, wrapstring='a' * 99999) }}",
    "{{ range(99999) | select('in', range(99999) | list) | list }}",
    "{% filter center(10**9) %}a{% endfilter %}",
    "{% set x %}{% for i in range(99999) %}{{ 'a' * 99999 }}{% endfor %}{% endset %}",
    "{% for i in range(99999) %}" + "a" * 9999 + "{% endfor %}",
    "{% for i in range(99999) %}{% include 'minimal.jinja' %}{% endfor %}",
    "{% macro m(n) %}{{ m(n + 1) }}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% include 'mine.jinja' %}",
    "{% extends 'mine.jinja' %}",
    "{% import 'mine.jinja' as mine %}",
    "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "{{ 1 / 0 }}",
    "a" * 200_000,
    LOOP % ("'ab'", "ns.s ~ ns.s"),
    LOOP % ("'ab'", "ns.s + ns.s"),
    LOOP % ("[1]", "ns.s + ns.s"),
    LOOP % ("[1]", "[ns.s, ns.s]") + "{{ ns.s }}",
    LOOP % ("{}", "{'a': ns.s, 'b': ns.s}") + "{{ ns.s | tojson }}",
    LOOP % ("3", "ns.s * ns.s"),
    LOOP.replace("99", "99999") % ("[]", "ns.s + [('a' * 900000) ~ i]"),
]  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb[:40])
def test_every_template_comes_to_an_end(bomb, tmp_path, monkeypatch):
    monkeypatch.setattr("lang_agent.text_env.sandbox.SECONDS", 0.5)
    (tmp_path / "mine.jinja").write_text(bomb)
    started = time.perf_counter()
    tracemalloc.start()
    try:
        with pytest.raises(PromptError, match=r"^Template '(mine|minimal)") as caught:
            render(load_template("mine", tmp_path), FIELDS)
        assert tracemalloc.get_traced_memory()[1] < 300e6
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - started < 20  # memory is being traced
    assert len(str(caught.value)) < 400
    assert caught.value.__cause__ is None


def test_what_a_prompt_needs_is_within_bounds(tmp_path):
    """Four hundred turns told whole, in the bounded sandbox."""
    (tmp_path / "mine.jinja").write_text(
        "{% for turn in history %}{{ loop.index }}{% for line in turn.descriptions %}\n"
        "{{ line | upper | replace('Y', 'y') }}{% endfor %} {{ turn.action ~ '.' }}\n{% endfor %}"
        "{{ '%3d' % 7 }}{{ 2 ** 10 }}{{ [1, 2] + [3] }}{{ '-' * 9 }}{{ mission.title() }}"
        "{{ history | sum(attribute='descriptions', start=[]) | unique | join(',') }}"
        "{% set all = history | map(attribute='action') | list %}{{ all | length }}"
    )
    turn = {"descriptions": ["You see a wall 3 steps left"] * 8, "action": "turn left"}
    text = render(load_template("mine", tmp_path), {**FIELDS, "history": [turn] * 400})
    assert text.startswith("1yOU SEE A WALL")
    assert text.endswith("  71024[1, 2, 3]---------GoYou see a wall 3 steps left400")


def test_a_dicts_own_entries_go_before_its_methods(tmp_path):
    (tmp_path / "mine.jinja").write_text("{{ thing.copy }}{{ thing.pop }}{{ thing.get('pop') }}")
    fields = {"thing": {"copy": "a", "pop": "b"}}
    assert render(load_template("mine", tmp_path), fields) == "abb"
