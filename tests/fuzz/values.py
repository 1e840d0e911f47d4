"""Values that options and settings are tried with, by what they should be."""

from __future__ import annotations

import random

WHOLE = [
    "0", "-1", "1", "2", "3", "-0", str(10**20), str(-(10**20)), "1" * 5000, "1.5", "1e3", "0x10",
    "1_0", "١", "²", "", " ", "+1", "nan", "inf", "true", "null", "None", "abc", "[1]", "--", "2 ",
]  # fmt: skip
REAL = [
    "0", "-0.0", "1", "0.5", "-1", "2", "nan", "-nan", "inf", "-inf", "1e308", "1e309", "-1e308",
    "1e-320", "1e-45", "5e-324", "", " ", "abc", "1,5", "0x1p3", "infinity", "1e", "true", "٣.٥",
    "1" * 400,
]  # fmt: skip
TEXT = [
    "", " ", "[/b]", "[bold]x", "[link=a]", "[citation needed]", ":key:", ":smile: [/]", "a\nb",
    "\t", "é", "日本", "🗝", "\u2028", "\ufeff", "\u202e", "\x1b[2J", "\x07", "a\x00b", "\udcff",
    "x" * 3000, "'", '"', "\\", "%s", "{}", "{0.__class__}", "${HOME}", "`id`", "~", ".", "..", "/",
    "//", "/dev/null", "/nowhere/at/all", "/proc/self/mem", "/etc/passwd", "nothere", "not/there",
    "a:b:c", "::", ":", ":x", "x:", "json:loads", "math:pi", "nope:nope",
    "lang_agent.rewards.statistics:length", "lang_agent:nothing", "lang_agent.envs.wordings:varied",
    ".a:b",
    "a..b:c", "-", "--", "-1", "nan", "None", "null", "true", "0", "*", "?", "a=b", "=", "[", "{",
    "a: b", "&a", "*a", "!!python/object:os.system", "random", "expert", "babyai", "generate",
    "sum",
    "noop", "transcript", "glam", "text", "fp32", "bf16", "auto", "cpu", "cuda", "foo",
]  # fmt: skip
OUT = [
    "", " ", "new", "new/deep/er", "[/b]", ":key:", "é", "日本", "a\x00b", "\udcff", "x" * 3000,
    ".", "..", "/", "file.txt", "file.txt/x", "null", "full", "/proc/nothing",
    "null/x", "run", "model", "a:b", "-", "dangling", "loop",
]  # fmt: skip
ENVS = [
    "BabyAI-GoToRedBallNoDists-v0", "lang_agent/BabyAI-GoToRedBallNoDists-v0",
    "BabyAI-GoToRedBallNoDists", "BabyAI-GoToRedBallNoDists-v99", "FrozenLake-v1", "CartPole-v1",
    "TextGeneration-v0", "Dialogue-v0", "BabyAI-MixedLocal-v0", "nothing-v0", "-v0", "/",
    "ALE/Pong-v5", "json:Env-v0", "a:b:c",
]  # fmt: skip
ARGUMENTS = [
    "max_steps=2", "max_steps=abc", "max_steps=0", "max_steps=-1", "max_steps=1.5",
    "max_steps=null", "max_steps=[1]", "max_steps=.nan", "max_steps=" + "9" * 30,
    "agent_view_size=6", "agent_view_size=0", "agent_view_size=-3", "agent_view_size=abc",
    "agent_view_size=4000000", "task=fly", "task=goto", "task=[a]", "task=5", "num_dists=-1",
    "num_dists=x", "num_dists=0.5", "split=test", "split=3", "a=[", "a={", "a=*b", "a=&b [*b]",
    "a=2020-13-45", "a=!!python/name:os.system", "env_id=x", "id=x", "world=x", "world={}",
    "disable_env_checker=1", "=", "=x", "a", "", "a b=c", "é=é", "self=1", "kwargs=1", "env=1",
    "renderer=5", "renderer=nope", "renderer=json", "renderer=a:b", "renderer=[",
    "renderer=json:loads", "wording=5", "wording=nope:x", "wording=x", "wording=json:loads",
    "wording=lang_agent.envs.wordings:varied", "prompt=5", "prompt=nope", "prompt=glam",
    "prompt=[a]", "prompt=/etc/passwd", "prompt_folder=5", "prompt_folder=/nowhere",
    "prompt_folder=/", "prompt_folder=null", "invalid_action=5", "invalid_action=penalty:nan",
    "invalid_action=penalty:inf", "invalid_action=retry:-1", "invalid_action=retry:1e9",
    "invalid_action=end", "invalid_action=default:fly", "invalid_action=default:", "actions=5",
    "actions=[]", "actions=turn left", "actions=[turn left]", "actions={a: turn left}",
    "actions={a: [b]}", "actions=[[a]]", "actions=[fly]", "actions=null", "rewards=5",
    "rewards=nope", "rewards={}", "rewards=[]", "rewards=[length]", "rewards={length: x}",
    "rewards={length: {target: 0}}", "rewards={length: {target: -1}}",
    "rewards={length: {target: a}}", "rewards={length: {nope: 1}}", "rewards={5: 1}",
    "rewards={length: {weight: .nan}}", "rewards={matches: {pattern: '('}}",
    "rewards={keywords: 1}", "rewards={keywords: {words: 5}}", "rewards={json:loads: 1}",
    "rewards={nope:x: 1}", "rewards={diversity: {n: 0}}", "rewards={length: {target: null}}",
    "rewards={fluency: {model: nope/nope/nope}}", "rewards={length: {tolerance: 0}}", "prompts=5",
    "prompts=/nowhere", "prompts=/", "prompts=[]", "prompts=[1]", "prompts=[{a: b}]", "prompts={}",
    "prompts=[Hello]", "prompts=['']", "goal=x", "goal=.nan", "on_error=fly", "on_error=5",
    "partner=5", "partner=[]", "partner=x", "partner=json:loads", "turns=0", "turns=x", "turns=1",
    "names=[a]", "names=5", "reward_at=never", "render_mode=human", "render_mode=5",
    "render_mode=ansi", "max_episode_steps=2", "max_episode_steps=x", "max_episode_steps=-5",
    "tile_size=0", "highlight=x", "see_through_walls=5", "agent_pov=1", "size=1", "size=-5",
    "room_size=0", "width=0",
]  # fmt: skip

PIECES = [
    "{{ mission }}", "{{ descriptions }}", "{{ descriptions | join('\\n') }}",
    "{% for line in descriptions %}{{ line }}\n{% endfor %}", "{{ nothing }}", "{{ 1 / 0 }}",
    "{{ step // 0 }}", "{{ 'a' + 1 }}", "{{ mission.nope }}", "{{ mission[99] }}",
    "{{ descriptions[99] }}", "{% include 'it.jinja' %}", "{% include 'nope.jinja' %}",
    "{% extends 'it.jinja' %}", "{% extends 'transcript.jinja' %}", "{% import 'it.jinja' as it %}",
    "{% block intro %}{{ mission }}\n{% endblock %}",
    "{% block turn %}{{ descriptions[0] }}{% endblock %}", "{% block turn %}", "{% endblock %}",
    "{{ ''.__class__.__mro__ }}", "{{ mission.__init__.__globals__ }}", "{{ self }}",
    "{{ cycler.__init__ }}", "{{ range(10 ** 9) | list }}", "{{ 9 ** 99999 ** 99 }}",
    "{{ 'a' * 10 ** 10 }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{% set x = 1 %}{{ x }}", "{{ lipsum }}",
    "{{ namespace() }}", "{% raw %}", "{# ", "{%", "{{", "}}", "{{ '%s' % mission }}",
    "{{ '{0.__class__}'.format(mission) }}", "{{ mission | format(1) }}", "{{ mission | int / 0 }}",
    "{{ actions | random }}", "{{ mission | wordwrap(0) }}", "{{ mission | center(10 ** 10) }}",
    "{{ dict(a=1).a }}", "{{ history }}", "{% if %}", "{{ feedback }}", "é日本🗝", "\u2028",
    "{{ joiner('x')() }}", "{{ mission | attr('__class__') }}", "{{ mission.encode('utf-99') }}",
    "{% break %}", "{{ actions | map('nope') | list }}",
    "{{ actions | sort(attribute='x') | list }}", "{{ caller() }}", "{{ loop }}",
    "{{ [] | first }}", "{{ [] | max }}", "{{ mission | tojson }}", "{{ image }}",
]  # fmt: skip

YAML = [
    ".nan", ".inf", "-.inf", "null", "[]", "{}", "true", "[1, 2]", "{a: 1}", "2020-13-45",
    "2020-01-01", "!!binary aGk=", "!!set {a}", "&a [*a]", "[" * 500, "!!python/name:os.system",
    "1e999", "0o7", "1:30",
]  # fmt: skip
JSON = [
    None, [], {}, "", "x", 5, -1, 1e400, float("nan"), True, [[]], {"a": 1}, ["a", "a"], [None],
    "\ud800", "x" * 5000, 2**70, {"": []},
]  # fmt: skip


def whole(draw: random.Random) -> str:
    return draw.choice(
        [*WHOLE, str(draw.randint(-5, 5)), str(draw.choice([2**31, 2**32, 2**63, 2**64, 10**12]))]
    )


def real(draw: random.Random) -> str:
    return draw.choice(
        [*REAL, repr(draw.uniform(-2, 2)), repr(draw.gauss(0, 1) * 10 ** draw.randint(-30, 30))]
    )


def text(draw: random.Random) -> str:
    if draw.random() < 0.15:
        return "".join(
            chr(
                draw.choice(
                    [
                        draw.randrange(32, 127),
                        draw.randrange(0xD800),
                        draw.randrange(0x10000, 0x1FFFF),
                    ]
                )
            )
            for _ in range(draw.randrange(1, 12))
        )
    return draw.choice(TEXT)


def out(draw: random.Random) -> str:
    """A place to write to, within the current folder or where nothing can be written."""
    return draw.choice(OUT)
