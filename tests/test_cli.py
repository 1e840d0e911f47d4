"""The command line as a person meets it: their own folder, letters, mistakes and bugs."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import lang_agent
from lang_agent.cli import main as cli
from lang_agent.cli.console import console, say
from lang_agent.config import load_config
from lang_agent.errors import LangAgentError, user_code
from lang_agent.files import lines_of, read_text, whole, write_whole
from lang_agent.learn.demonstrations import read_demonstrations
from lang_agent.models.decide import DecideConfig
from lang_agent.models.sealed import SUMS_FILE, damage
from lang_agent.text_env.config import TextConfig
from lang_agent.train.config import TrainConfig
from lang_agent.yaml_data import read_yaml

ENV = "BabyAI-GoToRedBallNoDists-v0"
SHORT = [ENV, "--env-args", "max_steps=2"]
LAKE = """
import gymnasium
from lang_agent import TextEnv, World

def render(cell, env):
    return {"mission": "cross [/b] :key:", "descriptions": [f"été {cell}"]}

LAKE = World(actions={"go west": 0, "go [/b] south": 1}, renderers={"plain": render})

def make(**options):
    return TextEnv(gymnasium.make("FrozenLake-v1", is_slippery=False), LAKE, **options)

def quiet(rng):
    from lang_agent.text_env.wording import Wording
    return Wording({"cross": "leave"})

def brief(text, *, most=8):
    return float(len(text.split()) <= most)

class Ends(gymnasium.Env):
    observation_space = gymnasium.spaces.Text(9)
    action_space = gymnasium.spaces.Text(9)
    def reset(self, seed=None, options=None):
        return "a", {"actions": ("go",)}
    def step(self, action):
        raise SystemExit

class Fails(Ends):
    def step(self, action):
        return self.nothing

class Broken(Ends):
    def __init__(self, size=1):
        self.size = size + "1"

gymnasium.register("TextLake-v0", entry_point=make)
gymnasium.register("Ends-v0", entry_point=Ends)
gymnasium.register("Fails-v0", entry_point=Fails)
gymnasium.register("Broken-v0", entry_point=Broken)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a world, a wording, a renderer and a reward in my_lake.py."""
    (tmp_path / "my_lake.py").write_text(LAKE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lang_agent_in(
    folder: Path, *arguments: str, typed: str | bytes = "", module: bool = False, **env: str
) -> subprocess.CompletedProcess:
    """The installed command (or `python -m lang_agent`) in a folder; output as UTF-8."""
    script = [str(Path(sys.executable).with_name("lang-agent"))]
    command = [sys.executable, "-m", "lang_agent"] if module else script
    return subprocess.run(
        [*command, *arguments],
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        input=typed,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **env},
    )


@dataclass
class Ran:
    """What came of a command line run in this process."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run_here(folder, monkeypatch, capsys):
    """Run a command line as ``main`` does, in the current folder and in this process."""

    def run(*arguments: str, typed: str = "") -> Ran:
        monkeypatch.setattr(sys, "argv", ["lang-agent", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        monkeypatch.setattr(sys, "path", list(sys.path))
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        return Ran(status, *capsys.readouterr())

    yield run
    sys.modules.pop("my_lake", None)


# -- what lies in the current folder -----------------------------------------------------------


@pytest.mark.parametrize("module", [False, True], ids=["lang-agent", "python -m lang_agent"])
def test_worlds_and_functions_of_the_current_folder_are_found(folder, module):
    brief = "rewards={my_lake:brief: {most: 2}}"
    for arguments in (
        ["play", "my_lake:TextLake-v0", "--agent", "random", "--wording", "my_lake:quiet",
         "--renderer", "my_lake:render"],
        ["evaluate", "TextGeneration-v0", "--agent", "constant:a", "--env-args", brief],
    ):  # fmt: skip
        run = lang_agent_in(folder, *arguments, module=module)
        assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("module", [False, True], ids=["lang-agent", "python -m lang_agent"])
def test_the_current_folder_comes_last(folder, module):
    """A file there stands for no module of Python or of a package. (With -m Python itself puts the
    folder first, and what `import lang_agent` needs has been imported before we can say.)"""
    for name in ("tyro", *(() if module else ("rich", "shlex", "torch"))):
        (folder / f"{name}.py").write_text("raise RuntimeError('a shadow')")
    run = lang_agent_in(folder, "envs", "MixedLocal", module=module)
    assert run.returncode == 0, run.stderr
    assert "MixedLocal" in run.stdout


def test_importing_the_package_leaves_the_import_path_alone(folder):
    code = "import sys; before = list(sys.path); import lang_agent; print(before == sys.path)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "True"


# -- letters -----------------------------------------------------------------------------------

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def test_an_ascii_terminal_shows_what_it_can(folder):
    arguments = ["my_lake:TextLake-v0", "--record", "d.jsonl", "--episodes", "1"]
    run = lang_agent_in(folder, "play", *arguments, typed="été\n", **ASCII)
    assert run.returncode == 0, run.stderr
    assert "?t? 0" in run.stdout
    assert "'?t?' is none of" in run.stdout


def test_files_are_read_and_written_as_utf8_whatever_the_locale(folder):
    (folder / "c.yaml").write_bytes("﻿env: my_lake:TextLake-v0\nmodel: é\n".encode())
    (folder / "prompts.jsonl").write_bytes('{"prompt": "Le\u2028 été"}\r\n'.encode("utf-8-sig"))
    code = (
        "from lang_agent.config import *\n"
        "from lang_agent.train.config import TrainConfig\n"
        "import lang_agent, pathlib\n"
        "assert load_config('c.yaml', TrainConfig).model == '\\xe9'\n"
        "save_config(TrainConfig(model='\\xe9'), pathlib.Path('new.yaml'))\n"
        "env = lang_agent.make('TextGeneration-v0', prompts='prompts.jsonl')\n"
        "assert env.unwrapped.prompts == ['Le\\u2028 \\xe9t\\xe9'], ascii(env.unwrapped.prompts)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **ASCII}
    )
    assert run.returncode == 0, run.stderr
    assert load_config("new.yaml", TrainConfig).model == "é"


def test_lines_end_at_newlines_alone():
    assert lines_of("a\u2028b\r\nc\x0bd\n\ne") == ["a\u2028b", "c\x0bd", "", "e"]
    assert lines_of("") == []


def test_demonstrations_keep_what_other_readers_take_for_newlines(folder):
    step = {"prompt": "a\u2028b\x85c", "actions": ["x"], "action": "x", "wanted": "x", "reward": 1}
    row = {"env": "e", "seed": 0, "success": True, "return": 1.0, "steps": [step]}
    data = json.dumps(row, ensure_ascii=False) + "\n"
    (folder / "d.jsonl").write_bytes(data.encode("utf-8-sig"))
    (episode,) = read_demonstrations(folder / "d.jsonl")
    assert episode.steps[0].observation.prompt == "a\u2028b\x85c"


def test_no_file_is_opened_in_the_locales_encoding():
    """Every open, read_text and write_text of text says its encoding."""
    package = Path(lang_agent.__file__).parent
    bare = []
    for file in [*package.glob("**/*.py"), *(package.parent / "envs").glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            said = {keyword.arg for keyword in node.keywords}
            modes = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            binary = any(isinstance(mode, str) and "b" in mode for mode in modes)
            where = f"{file.name}:{node.lineno}"
            text = name in ("read_text", "write_text") or (name == "open" and not binary)
            if text and "encoding" not in said and ast.unparse(node.func) not in OURS:
                bare.append(where)
    assert not bare


OURS = ("os.open", "read_text")  # which takes bytes; which reads UTF-8


# -- what is printed ---------------------------------------------------------------------------


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_said_is_printed_as_it_is(capsys, monkeypatch, terminal):
    monkeypatch.setattr(console, "_force_terminal", terminal)
    monkeypatch.setenv("TERM", "dumb")
    long = "/a/path/" + "x" * 300
    for text in ("see [/b] and [bold]", "[citation needed]", ":key: :smile:", long, "a\\[b]"):
        say((text, ""), "")
        assert capsys.readouterr().out.strip() == text


def test_markup_is_no_markup_wherever_it_comes_from(run_here, folder):
    run = run_here("play", "my_lake:TextLake-v0", typed="go [/b] south\n[/x] :key:\n")
    assert run.returncode == 0, run.stderr
    for shown in (
        "Goal: cross [/b] :key:",
        "Actions: go west, go [/b] south",
        "'[/x] :key:' is none",
    ):
        assert shown in run.stdout
    run = run_here("evaluate", "my_lake:TextLake-v0", "--agent", "constant:[/b] :key:")
    assert run.returncode == 0, run.stderr
    assert "constant:[/b] :key:" in run.stdout


def test_errors_are_one_line_that_can_be_copied(run_here, folder):
    path = folder / ("a" * 60) / ("b c" * 30) / "[/b].yaml"
    run = run_here("train", "--config", str(path))
    assert run.returncode == 2
    assert run.stderr == (
        f"lang-agent: Cannot read the configuration '{path}': No such file or directory.\n"
    )


def test_no_colour_where_none_is_wanted(folder):
    """In a terminal: bold and dim may be, colours not."""
    code = (
        "import os, pty, sys\n"
        "pid, end = pty.fork()\n"
        "if pid == 0: os.execv(sys.argv[1], sys.argv[1:])\n"
        "try:\n"
        "    while data := os.read(end, 4096): os.write(1, data)\n"
        "except OSError: pass\n"
        "os.waitpid(pid, 0)\n"
    )
    script = str(Path(sys.executable).with_name("lang-agent"))
    arguments = ["evaluate", ENV, "--agent", "random", "--episodes", "20", "--out", "results"]

    def shown(**env):
        run = subprocess.run(
            [sys.executable, "-c", code, script, *arguments], cwd=folder, capture_output=True,
            text=True, env={**os.environ, "TERM": "xterm-256color", **env},
        )  # fmt: skip
        shutil.rmtree(folder / "results")
        return set(re.findall(r"\x1b\[([\d;]*)m", run.stdout))

    colours = shown(NO_COLOR="1")
    assert "1" in colours  # it is a terminal
    assert not [code for code in colours if re.search(r"(^|;)(3|4|9|10)\d", code)]


# -- mistakes and bugs -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "--episodes", "0"], r"episodes=0 must be"),
        (["evaluate", "--slots", "0"], r"slots=0 must be"),
        (["evaluate", "--seed", "-1"], r"seed=-1 must be"),
        (["evaluate", "--seed", str(10**20)], r"seed=10+ must be"),
        (["play", "--episodes", "0"], r"episodes=0"),
        (["demos", "--noise", "nan"], r"noise=nan must be .*finite"),
        (["bench", "--threads", "-1"], r"threads=-1 must be"),
        (["bench", "--threads", "1000000"], r"threads=1000000 must be"),
        (["pretrain", "x.txt", "--context", "0"], r"context=0 must be"),
        (["pretrain", "x.txt", "--learning-rate", "inf"], r"learning_rate=inf must be"),
        (["generate", "a", "--temperature", "inf"], r"temperature=inf must be"),
        (["generate", "a", "--repetition-penalty", "0"], r"repetition_penalty=0.0 must be"),
        (["generate"], r"no prompt"),
        (["evaluate", "::"], r"::"),
        (["evaluate", ":x"], r"':x'"),
        (["evaluate", "a:b:c"], r"a:b:c"),
        (["evaluate", ""], r"begins with an environment's id"),
        (["train", "--mixture", ""], r"mixture"),
        (["train", "--device", "foo"], r"foo"),
        (["generate", "a", "--device", "foo"], r"device='foo' cannot be used"),
        (["pretrain", "x.txt", "--device", "foo"], r"device='foo' cannot be used"),
        (["bench", "--device", "foo"], r"device='foo' cannot be used"),
        (["pretrain", "x.txt", "--threads", "0"], r"threads=0 must be"),
        (["completion", "csh"], r"csh"),
        (["ask"], r"lang-agent ask needs AGENT and TEXT\. See"),
        (["export", "run"], r"lang-agent export needs RUN and OUT\. See"),
        (["play", "--temperature", "hot"], r"'hot' is no number"),
        (["train", "--track", "wandbb"], r"Did you mean 'wandb'"),
        (["train", "--resume", "nowhere", "--steps", "x"], r"'x' is not a whole number"),
        (["train", "--resume", "nowhere", "--seed", "1"], r"no other options than --steps"),
        (["play", *SHORT, "--env-args", "invalid_action=penalty:nan"], r"penalty:nan"),
        (["play", *SHORT, "--env-args", "a=["], r"'a=\['.* is not YAML"),
        (["play", *SHORT, "--env-args", "env_id=x"], r"'env_id=x' is not one that can be given"),
        (["play", *SHORT, "--env-args", "agent_view_size=6"], r"agent_view_size=6"),
        (["play", *SHORT, "--env-args", "prompt=5"], r"prompt: expected str, got 5"),
        (["play", *SHORT, "--env-args", "actions=5"], r"actions: expected a list of texts, got 5"),
        (["play", *SHORT, "--env-args", "nope=5"], r"nope"),
        (["evaluate", "--nope", "3"], r"Unrecognized options: --nope, 3\."),
        (["evaluate", "--episodes", "many"], r"--episodes: .*'many'"),
        (["evaluate", "--episodes"], r"Missing value for argument '--episodes'"),
        (["evaluate", "--tyro-write-completion", "bash", "x"], r"Unrecognized option"),
        (["train", "--config"], r"--config needs a value"),
        (["train", "--config", "."], r"Cannot read the configuration '\.': Is a directory"),
        (["evaluate", "--json", "/dev/null/x"], r"Cannot write '/dev/null/x'"),
        (["evaluat"], r"Did you mean 'evaluate'"),
        (["bench", "a=b", "1" * 5000], r"a=b, 1{80}\.\.\."),
        (["evaluate", "--examples", "a\0b"], r"Cannot read the demonstrations"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)  # fmt: skip
def test_a_mistake_is_one_sentence(folder, arguments, message):
    with pytest.raises(LangAgentError, match=message) as refused:
        cli.run(arguments)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_tyros_own_errors_are_one_line_too(run_here, monkeypatch, encoding):
    """Out of the box that it draws around them, in letters or in ASCII."""
    monkeypatch.setattr("tyro._fmtlib._should_use_utf8_drawing_chars", lambda: encoding == "utf-8")
    for told, message in (
        (
            ["--episodes", "many"],
            "Error parsing --episodes: 'many' is no whole number.",
        ),
        (["--nope", "a" * 200], f"Unrecognized options: --nope, {'a' * 200}."),
    ):
        run = run_here("evaluate", *told)
        assert (run.returncode, run.stdout) == (2, "")
        assert run.stderr == f"lang-agent: {message} See lang-agent evaluate --help.\n"


def test_a_world_that_ends_the_program_is_a_failure(run_here):
    run = run_here("play", "my_lake:Ends-v0", "--agent", "random")
    assert run.returncode == 2
    assert 'my_lake.py", line' in run.stderr
    assert run.stderr.splitlines()[-1].startswith("lang-agent: The environment Ends-v0 failed at")
    run = run_here("prompt", "my_lake:Ends-v0", "--do", "go", "--model", "micro")
    assert run.returncode == 2


@pytest.mark.parametrize("world", ["Fails-v0", "Broken-v0"])
def test_a_persons_own_bug_keeps_its_traceback(folder, world):
    run = lang_agent_in(folder, "play", f"my_lake:{world}", "--agent", "random")
    assert run.returncode in (1, 2)
    assert "Traceback" in run.stderr
    assert 'my_lake.py", line' in run.stderr


def test_a_module_that_fails_to_import_keeps_its_traceback(folder):
    (folder / "broken.py").write_text("import nothing_by_this_name")
    run = lang_agent_in(folder, "play", "broken:World-v0", "--agent", "random")
    assert run.returncode == 2
    assert "No module named 'nothing_by_this_name'" in run.stderr
    assert "Traceback" in run.stderr
    run = lang_agent_in(folder, "play", "brocken:World-v0", "--agent", "random")
    assert run.returncode == 2
    assert run.stderr.startswith("lang-agent: Cannot import 'brocken:World-v0': there is no module")


def test_an_argument_that_a_persons_world_does_not_take_is_their_mistake_at_the_keyboard(run_here):
    run = run_here("play", "my_lake:Ends-v0", "--env-args", "colour=red")
    assert run.returncode == 2
    assert "colour" in run.stderr


def test_whose_code_an_exception_came_through(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    import my_lake

    with pytest.raises(AttributeError) as failed:
        my_lake.Fails().step("x")
    assert f"{folder}/my_lake.py, line" in (user_code(failed.value) or "")
    with pytest.raises(json.JSONDecodeError) as failed:
        json.loads("{")
    trace = failed.value.__traceback__
    assert user_code(failed.value.with_traceback(trace.tb_next)) is None  # without this file


def test_output_that_cannot_be_written_is_a_sentence(folder):
    with open("/dev/full", "w") as full:
        run = subprocess.run(
            [sys.executable, "-m", "lang_agent", "envs"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert run.returncode == 2
    assert run.stderr == "lang-agent: No space left on device.\n"


# -- files -------------------------------------------------------------------------------------


def test_what_is_no_file_is_written_to_and_a_link_is_followed(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_whole(tmp_path / "pipe", "é")
    assert os.read(reader, 9) == "é".encode()
    with (
        pytest.raises(LangAgentError, match="no file that could be replaced"),
        whole(tmp_path / "pipe"),
    ):
        pass
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "link").symlink_to("target")
    write_whole(tmp_path / "link", "é")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == "é".encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xff\xfea\x00", "byte 0 is not UTF-8"),
        (b"a: \xe9", "byte 3 is not UTF-8"),
        (b"", "is empty"),
        (b"# a comment", "is empty"),
        (b"{}", "is empty"),
        (b"\x00\x01", "is not YAML"),
        (b"5", "expected names with values"),
        (b"[" * 100_000, "is not YAML"),
        (b"a: &x [b]\nc: [*x, *x]", "aliases"),
        (b"seed: 1\nseed: 2", "'seed' is there twice"),
        (b"seed: !!python/object/apply:os.system [x]", "is not YAML"),
        (b"seed: !!binary aGk=", "is not YAML"),
        (b"seed: 2020-13-45", "expected int, got '2020-13-45'"),
        (b"seed: 2020-01-01", "expected int, got '2020-01-01'"),
        (b"seed: true", "expected int, got True"),
        (b"steps: .nan", "expected int, got nan"),
        (b"checkpoint_minutes: .inf", "checkpoint_minutes=inf must be"),
        (b"learn: [1]", "expected names with values"),
        (b"mixture: {a: b}", "expected a list of texts"),
        (b"mixture: [[a]]", "expected a list of texts"),
        (b"[a]: b", "is not YAML"),
        (b"model_type: gpt2", "Unknown setting"),
    ],
)
def test_a_configuration_that_is_none_is_refused_in_a_sentence(tmp_path, data, message):
    file = tmp_path / "c.yaml"
    file.write_bytes(data)
    with pytest.raises(LangAgentError, match=message) as refused:
        load_config(file, TrainConfig)
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_without_an_end_is_not_read_for_ever():
    with pytest.raises(LangAgentError, match="more than"):
        read_text("/dev/zero", "the configuration", 1000)


def test_checksums_of_a_name_that_is_none_are_damage(tmp_path):
    (tmp_path / SUMS_FILE).write_text(f"{'0' * 64}  model\0.json\n")
    assert damage(tmp_path) == f"its {SUMS_FILE} cannot be read"


def test_yaml_is_plain_data():
    text = "a: 1\nb: [1.5, true, null, 'x']\nc: {d: 2020-01-01, e: 1e-3}"
    assert read_yaml(text, "it") == {
        "a": 1, "b": [1.5, True, None, "x"], "c": {"d": "2020-01-01", "e": "1e-3"},
    }  # fmt: skip


def test_the_worlds_arguments_are_read_as_yaml_and_typed_where_the_type_is_known():
    env = TextConfig(env_args=("max_steps=3", "actions=[turn left]")).make(ENV)
    assert env.unwrapped.phrases == ("turn left",)
    env = TextConfig(env_args=("max_steps=3", "actions={spin: turn left}")).make(ENV)
    assert env.unwrapped.phrases == ("spin",)


def test_options_of_a_file_are_those_of_its_command(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("episodes: 3\ndecide: {decide: constrained}")
    loaded = load_config(file, cli.Evaluate, trust=True)
    assert (loaded.episodes, loaded.decide) == (3, DecideConfig(decide="constrained"))
    file.write_text("count: 3")
    with pytest.raises(LangAgentError, match="prompts is missing"):
        load_config(file, cli.Generate)


def test_the_old_name_of_a_film_answers_with_the_new_one():
    with pytest.raises(LangAgentError, match="--gif is called --film now"):
        cli.run(["play", "BabyAI-GoToLocal-v0", "--agent", "expert", "--gif", "a.gif"])
