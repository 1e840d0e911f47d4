"""Help and completion: every command's options by name, on a screen of 80 columns."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import fields, is_dataclass

import pytest

from lang_agent.agents.make import PLAIN
from lang_agent.cli import completion
from lang_agent.cli import main as cli
from lang_agent.cli.help import COMMON, groups_of
from lang_agent.errors import LangAgentError
from lang_agent.models.gpt2 import SIZES
from lang_agent.models.hub import SHIPPED, SMOLLM2
from lang_agent.text_env.registry import text_env_ids

KINDS = {name: kind for name, (kind, _) in cli.COMMANDS.items()}


def shown(capsys, monkeypatch, *arguments: str) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    cli.run(arguments)
    return capsys.readouterr().out


@pytest.mark.parametrize("name", cli.COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "--help-all"])
def test_help_names_its_values_and_fits_the_screen(name, flag, capsys, monkeypatch):
    text = shown(capsys, monkeypatch, name, flag)
    assert text.startswith(f"usage: lang-agent {name}")
    assert max(map(len, text.splitlines())) <= 80
    for clumsy in ("STR", "INT", "FLOAT", "{None}", "None)", "(default: )", "[[", "│", "╭"):
        assert clumsy not in text
    assert "--config FILE" in text
    assert "--trust" in text or name not in ("train", "imitate", "evaluate", "play")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_option_is_told_of_in_a_sentence(name):
    for options in groups_of(KINDS[name]).values():
        for option in options:
            assert option.help, option.name


@pytest.mark.parametrize("name", ["train", "imitate"])
def test_the_common_options_of_training_are_one_screen(name, capsys, monkeypatch):
    short = shown(capsys, monkeypatch, name, "--help")
    whole = shown(capsys, monkeypatch, name, "--help-all")
    assert len(short.splitlines()) <= 42
    for flag in ("--env ID", "--model MODEL", "--steps N", "--seed N", "--out DIR", "--resume RUN"):
        assert flag in short
    assert "--help-all shows" in short
    assert "--help-all shows" not in whole
    assert "--lr-final X" in whole
    assert "--lr-final X" not in short
    names = {option.name for options in groups_of(KINDS[name]).values() for option in options}
    assert names >= set(COMMON[name])


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_leaves_no_setting_out(name, capsys, monkeypatch):
    text = shown(capsys, monkeypatch, name, "--help-all")
    told = set(re.findall(r"^  --([a-z-]+)", text, re.MULTILINE))

    def settings(kind):
        for item in fields(kind):
            if isinstance(item.default_factory, type) and is_dataclass(item.default_factory):
                yield from settings(item.default_factory)
            elif item.name != "source" or kind.__name__ == "Convert":
                yield item.name.replace("_", "-")

    positional = {o.name for o in groups_of(KINDS[name])[""] if o.positional}
    assert set(settings(KINDS[name])) - positional <= told


def test_the_default_that_is_shown_is_the_commands_own(capsys, monkeypatch):
    assert "Passes over each rollout. (default: 3)" in shown(
        capsys, monkeypatch, "train", "--help-all"
    )
    assert "Passes over each rollout. (default: 1)" in shown(
        capsys, monkeypatch, "imitate", "--help-all"
    )


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("evaluate", "evaluate [TASK ...] [options]"),
        ("play", "play [ID] [options]"),
        ("compare", "compare DIR [DIR ...] [options]"),
        ("convert", "convert SOURCE OUT [options]"),
        ("export", "export RUN OUT [options]"),
        ("ask", "ask AGENT TEXT [options]"),
    ],
)
def test_the_first_line_says_what_must_be_given(name, first, capsys, monkeypatch):
    assert (
        shown(capsys, monkeypatch, name, "--help").splitlines()[0] == f"usage: lang-agent {first}"
    )


def test_no_name_is_broken(capsys, monkeypatch):
    assert "BabyAI-GoToLocal-v0)" in shown(capsys, monkeypatch, "play", "--help")


def test_the_list_of_commands_fits_the_screen(capsys, monkeypatch):
    text = shown(capsys, monkeypatch)
    assert max(map(len, text.splitlines())) <= 80
    assert all(f"  {name} " in text for name in cli.COMMANDS)


# -- completion ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bash(tmp_path_factory):
    """What bash offers for a line that ends where the cursor stands."""
    words = {"ID": [*text_env_ids()], "AGENT": [*completion.AGENTS], "MODEL": [*completion.SIZES]}
    folder = tmp_path_factory.mktemp("completion")
    (folder / "done.bash").write_text(completion.script("bash", KINDS, words), encoding="utf-8")
    (folder / "my run.yaml").touch()

    def complete(*typed: str) -> set[str]:
        ask = (
            'source done.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _lang_agent; '
            "printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        run = subprocess.run(
            ["bash", "-c", ask, "bash", "lang-agent", *typed],
            cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert not run.stderr
        return set(run.stdout.split("\n")) - {""}

    return complete


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["tr"], {"train"}),
        (["train", "--st"], {"--steps"}),
        (["train", "--resu"], {"--resume"}),
        (["evaluate", "--help"], {"--help", "--help-all"}),
        (["train", "--env", "BabyAI-GoToRedBallN"], {"BabyAI-GoToRedBallNoDists-v0"}),
        (["play", "BabyAI-GoToRedBallN"], {"BabyAI-GoToRedBallNoDists-v0"}),
        (["evaluate", "--agent", "exp"], {"expert"}),
        (["train", "--config", "my"], {"my run.yaml"}),
        (["train", "--steps", ""], set()),
        (["nothing", ""], set()),
    ],
)
def test_bash_completes(bash, typed, offered):
    assert bash(*typed) == offered


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_script_is_one_of_the_shell(shell, capsys, tmp_path):
    cli.run(["completion", shell])
    script = capsys.readouterr().out
    assert "BabyAI-GoToLocal-v0" in script
    assert "resume" in script
    if shutil.which(shell) is None:
        return
    (tmp_path / "script").write_text(script, encoding="utf-8")
    subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


def test_names_that_completion_offers_are_those_that_there_are():
    assert completion.AGENTS == PLAIN
    assert (*SHIPPED, SMOLLM2) == completion.POLICIES
    assert tuple(SIZES) == completion.SIZES
    with pytest.raises(LangAgentError, match="csh"):
        completion.script("csh", KINDS, {})
