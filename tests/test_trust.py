"""What a policy's files name is imported only if the package offers it or the person said so."""

from __future__ import annotations

import ast
import shutil
import sys
from pathlib import Path

import pytest
import yaml

import lang_agent
from lang_agent.cli import main as cli
from lang_agent.config import load_config, save_config
from lang_agent.errors import LangAgentError
from lang_agent.models.policy import LanguagePolicy
from lang_agent.text_env.config import TextConfig
from lang_agent.train import trainer
from lang_agent.train.config import TrainConfig
from lang_agent.trust import Source, load_function, names_from, names_in

LINES = ("the sun is warm", "a dog runs home", "the rain is cold", "a bird sings now") * 20
SMALL = ["BabyAI-GoToRedBallNoDists-v0", "--env-args", "max_steps=2"]
WRITES = ["--decide", "generate", "--max-new-tokens", "2"]

# The module leaves a trace when it is imported, and another when a function of it is called.
CANARY = """
from pathlib import Path
import gymnasium
Path({trace!r}).touch()
class World(gymnasium.Env):
    pass
gymnasium.register("Canary-v0", entry_point=World)
def sing(*args, **kwargs):
    Path({trace!r}).touch()
    return {{"descriptions": ["a bird"]}}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "policy"
    LanguagePolicy.from_scratch("nano", seed=0, texts=LINES, prose=True).save_pretrained(folder)
    return folder


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """The file that is there once the module `canary`, which can be imported, was."""
    trace = tmp_path / "was-imported"
    (tmp_path / "canary.py").write_text(CANARY.format(trace=str(trace)))
    monkeypatch.syspath_prepend(tmp_path)
    yield trace
    sys.modules.pop("canary", None)


def policy_of(tmp_path: Path, model: Path, **settings) -> str:
    """A stranger's policy: a model that works, with these settings in its config.yaml."""
    folder = tmp_path / "stranger"
    shutil.copytree(model, folder)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return str(folder)


TEXTS = {
    "renderer": {"renderer": "canary:sing"},
    "wording": {"wording": "canary:sing"},
    "renderer among the world's arguments": {"env_args": ["renderer=canary:sing"]},
    "wording in quotes and escapes": {"env_args": ['wording="canary\\x3asing"']},
}
WRITINGS = {
    "reward": ["rewards=canary:sing"],
    "reward with options": ["rewards={'canary:sing': {weight: 1, a: b}}"],
    "reward in blocks": ["rewards=\n  length: 1\n  ? canary:sing\n  : 0"],
    "reward in escapes": ['rewards={"\\x63anary\\u003asing": 1}'],
    "of Python's own": ["rewards={'os:system': {command: 'touch was-imported'}}"],
    "a module within": ["rewards={'xml.dom.minidom:parseString': {string: <a/>}}"],
    "by way of ours": [
        "rewards={'lang_agent.trust:load_function': {weight: 1, path: 'canary:sing'}}"
    ],
    "by way of the command line": [
        "rewards={'lang_agent.cli.main:run':"
        " {arguments: [play, canary:Canary-v0, --agent, random]}}"
    ],
    "by way of what our module imports": [
        "rewards={'lang_agent.envs.text_generation:load_function': {path: 'canary:sing'}}"
    ],
    "by way of a world of ours": [
        "rewards={'lang_agent.envs.mixed_local:make': {wording: 'canary:sing'}}"
    ],
    "by way of gymnasium": [
        "rewards={'lang_agent.envs.minigrid:make': {env_id: 'canary:Canary-v0'}}"
    ],
    "by way of a class of ours": [
        "rewards={'lang_agent.envs.text_generation:TextGenerationEnv': {rewards: 'canary:sing'}}"
    ],
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", *SMALL[:1], "--episodes", "1", "--agent"],
        ["play", *SMALL[:1], "--agent"],
        ["demos", *SMALL[:1], "--episodes", "1", "--out", "d.jsonl", "--agent"],
        ["prompt", *SMALL[:1], "--model"],
        ["train", "--env", SMALL[0], "--steps", "1", "--out", "r", "--model"],
    ],
    ids=lambda command: command[0],
)  # fmt: skip
def test_the_words_of_a_strangers_policy(tmp_path, model, canary, monkeypatch, command, text):
    folder = policy_of(tmp_path, model, text=text, env=SMALL[0])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LangAgentError, match="canary:sing") as refused:
        cli.run([*command, folder])
    assert f"'{folder}/config.yaml'" in str(refused.value)
    assert "--trust" in str(refused.value)
    assert not canary.exists()
    assert "canary" not in sys.modules


@pytest.mark.parametrize("rewards", WRITINGS.values(), ids=WRITINGS)
@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "TextGeneration-v0", "--episodes", "1", *WRITES, "--agent"],
        ["play", "TextGeneration-v0", *WRITES, "--agent"],
    ],
    ids=lambda command: command[0],
)
def test_the_rewards_of_a_strangers_policy(tmp_path, model, canary, monkeypatch, command, rewards):
    folder = policy_of(tmp_path, model, text={"env_args": rewards}, env="TextGeneration-v0")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LangAgentError):
        cli.run([*command, folder])
    assert not canary.exists()
    assert "canary" not in sys.modules


def test_the_partner_of_a_strangers_dialogue(tmp_path, model, canary, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = policy_of(
        tmp_path, model, text={"env_args": ["partner=canary:sing"]}, env="Dialogue-v0"
    )
    with pytest.raises(LangAgentError, match="canary:sing"):
        cli.run(["evaluate", "Dialogue-v0", "--episodes", "1", *WRITES, "--agent", folder])
    assert not canary.exists()


def test_worker_processes_know_whose_word_it_is(tmp_path, canary):
    from lang_agent.train.demonstrate import demonstrate

    file = tmp_path / "config.yaml"
    file.write_text("text: {wording: canary:sing}")
    text = load_config(file, TrainConfig).text
    with pytest.raises(LangAgentError, match="canary:sing"):
        list(demonstrate(SMALL[0], text, 60, workers=2))
    assert not canary.exists()


RUNS = {
    "env": {"env": "canary:Canary-v0"},
    "a function as env": {"env": "canary:sing"},
    "Python's own as env": {
        "env": "os:system",
        "text": {"env_args": ["command=touch was-imported"]},
    },
    "ours as env": {
        "env": "lang_agent.envs.minigrid:make",
        "text": {"env_args": ["env_id=canary:X-v0"]},
    },
    "what ours imports as env": {"env": "lang_agent.envs.minigrid:Path"},
    "a colon at the end": {"env": "canary:"},
    "two colons": {"env": "canary:sing:sing"},
    "mixture": {"mixture": ["canary:Canary-v0 weight=1"]},
    "mixture's renderer": {"mixture": [f"{SMALL[0]} renderer=canary:sing"]},
    "vocabulary": {"vocabulary_from": ["canary:Canary-v0"]},
    "wording": {"text": {"wording": "canary:sing"}},
    "tracker": {"track": ["tensorboard", "canary:sing"]},
    "nested": {
        "env": "TextGeneration-v0",
        "text": {"env_args": ["rewards={length: 1, 'canary:sing': {weight: 0}}"]},
    },
}


@pytest.mark.parametrize("settings", RUNS.values(), ids=RUNS)
def test_a_strangers_run_is_not_resumed_on_its_word(tmp_path, canary, settings):
    folder = tmp_path / "run"
    folder.mkdir()
    save_config(TrainConfig(model=str(tmp_path / "none")), folder / "config.yaml")
    whole = yaml.safe_load((folder / "config.yaml").read_text())
    text = {**whole["text"], **settings.get("text", {})}
    (folder / "config.yaml").write_text(yaml.safe_dump({**whole, **settings, "text": text}))
    for resumed in (lambda: cli.run(["train", "--resume", str(folder)]),
                    lambda: trainer.resume(folder)):  # fmt: skip
        with pytest.raises(LangAgentError):
            resumed()
    assert not canary.exists()


@pytest.mark.parametrize("command", ["generate", "export"])
def test_commands_that_make_no_world_import_nothing(tmp_path, model, canary, command):
    folder = policy_of(tmp_path, model, text={"wording": "canary:sing"}, env="canary:Canary-v0")
    options = {
        "generate": ["a dog", "--model", folder, "--max-new-tokens", "2"],
        "export": [folder, str(tmp_path / "copy")],
    }
    cli.run([command, *options[command]])
    assert not canary.exists()


def test_trusting_it_or_naming_it_oneself_imports(tmp_path, model, canary):
    folder = policy_of(tmp_path, model, text={"renderer": "canary:sing"})
    ask = ["prompt", *SMALL, "--model", folder]
    for more in (["--trust"], ["--renderer", "canary:sing"], ["--renderer=canary:sing"]):
        cli.run([*ask, *more])
        assert canary.exists()
        canary.unlink()
    with pytest.raises(LangAgentError, match="canary:sing"):
        cli.run([*ask, "--do", "go to xcanary:sing and my-canary:sing"])  # other names
    assert not canary.exists()


def test_the_name_of_the_folder_is_not_the_persons_word(tmp_path, model, canary, monkeypatch):
    folder = policy_of(tmp_path, model, text={"renderer": "canary:sing"})
    monkeypatch.chdir(tmp_path)
    shutil.move(folder, "canary:sing")
    for told in (["--model", "canary:sing"], ["--model=canary:sing"]):
        with pytest.raises(LangAgentError, match="canary:sing"):
            cli.run(["prompt", *SMALL, *told])
    assert not canary.exists()


def test_a_configuration_that_the_person_gives_is_theirs(tmp_path, canary):
    file = tmp_path / "mine.yaml"
    file.write_text("text: {renderer: canary:sing}")
    cli.run(["prompt", *SMALL, "--config", str(file)])
    assert canary.exists()


def test_in_python_trust_is_an_argument(tmp_path, canary):
    file = tmp_path / "config.yaml"
    file.write_text("text: {renderer: canary:sing}")
    with pytest.raises(LangAgentError, match="trust=True"):
        load_config(file, TrainConfig).text.make(SMALL[0])
    with pytest.raises(LangAgentError, match="trust=True"):
        load_config(file, TrainConfig).text.with_args(["max_steps=2"]).make(SMALL[0])
    assert not canary.exists()
    load_config(file, TrainConfig, trust=True).text.make(SMALL[0])
    assert canary.exists()


def test_what_the_package_offers_by_name_needs_no_trust(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(
        "text:\n  wording: lang_agent.envs.wordings:varied\n  env_args: [max_steps=2]\n"
    )
    env = load_config(file, TrainConfig).text.make(SMALL[0])
    assert env.reset(seed=0)[0]
    assert env.unwrapped.renamed_words  # the function keeps its attributes
    file.write_text(
        "text: {env_args: ['rewards={lang_agent.rewards.statistics:length: {target: 2}}']}"
    )
    env = load_config(file, TrainConfig).text.make("TextGeneration-v0")
    env.reset(seed=0)
    assert env.step("two words")[1] == 1.0


def test_the_shipped_policy_needs_no_trust(capsys):
    cli.run(["prompt", "BabyAI-MixedLocal-v0", "--model", "babyai",
             "--env-args", "wording=lang_agent.envs.wordings:varied"])  # fmt: skip
    assert "tokens of" in capsys.readouterr().out


def test_no_file_can_call_itself_trusted(tmp_path):
    file = tmp_path / "config.yaml"
    for text in ("text: {source: null}", "trust: true", "text: {trust: true}"):
        file.write_text(text)
        with pytest.raises(LangAgentError, match="Unknown setting"):
            load_config(file, TrainConfig)
    with pytest.raises(LangAgentError, match="Unrecognized"):
        cli.run(["prompt", "--source", "None"])
    config = TrainConfig(text=TextConfig(source=Source("other")))
    save_config(config, file)
    assert "source" not in file.read_text()


def test_what_a_named_function_names_in_its_turn_is_the_files_too(canary):
    with names_from(Source("file")):
        make = load_function("lang_agent.envs.mixed_local:make")
    with pytest.raises(LangAgentError, match=r"'file' asks to import 'canary:sing'"):
        make(wording="canary:sing")
    assert not canary.exists()


def test_names_in_arguments_are_whole():
    arguments = ["--renderer=my:f", "rewards={a.b:c: 1, 'd:e': {x: y}}", "my_lake:Lake-v0 weight=1"]
    assert names_in(arguments) == {"my:f", "a.b:c", "d:e", "my_lake:Lake-v0"}
    assert names_in(["/tmp/os:system", "x-os:system", "xos:system"]) == {"xos:system"}


def test_everything_imported_by_name_is_imported_in_one_place():
    """Nothing else calls importlib or __import__, save for the package's own parts."""
    own = {"trust.py", "__init__.py"}
    package = Path(lang_agent.__file__).parent
    for file in [*package.glob("**/*.py"), *(package.parent / "envs").glob("*.py")]:
        if file.name in own:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            name = getattr(node, "attr", getattr(node, "id", None))
            assert name not in ("import_module", "__import__", "spec_from_file_location"), file
