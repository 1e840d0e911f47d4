"""The kinds of input: command lines, configurations, demonstrations, checkpoints, templates."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import torch
import yaml
from transformers import GPT2Config, GPT2LMHeadModel

from lang_agent import evaluation
from lang_agent.agents.make import make_agent
from lang_agent.cli import main as cli
from lang_agent.config import load_config, save_config
from lang_agent.evaluation.records import Spec, read_results
from lang_agent.evaluation.run import TaskPlayer, evaluate_panel
from lang_agent.evaluation.tasks import Task, load_suite
from lang_agent.learn.config import LearnConfig
from lang_agent.learn.demonstrations import read_demonstrations, write_demonstrations
from lang_agent.models.policy import LanguagePolicy
from lang_agent.models.store import load_policy
from lang_agent.models.tokenizer import train_tokenizer
from lang_agent.text_env.config import TextConfig, describe
from lang_agent.text_env.prompt import Prompt, load_template
from lang_agent.train import trainer
from lang_agent.train.config import TrainConfig
from lang_agent.train.demonstrate import demonstrate

from . import values
from .harness import Case, command_line, damage

LINES = ("the sun is warm", "a dog runs home", "turn left", "go forward", "You see a red ball") * 40
ENV = "BabyAI-GoToRedBallNoDists-v0"
Draw = Callable[[random.Random], Case]


def tiny_policy() -> LanguagePolicy:
    """A GPT-2 of one layer and a width of 16."""
    tokenizer = train_tokenizer(LINES, 300, prose=True)
    shape = GPT2Config(vocab_size=len(tokenizer), n_positions=256, n_embd=16, n_layer=1, n_head=2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LanguagePolicy(GPT2LMHeadModel(shape), tokenizer)


def prepare(folder: Path) -> None:
    """What the commands find in the current folder: a model, a run, texts, demonstrations."""
    tiny_policy().save_pretrained(folder / "model")
    text = TextConfig(env_args=("max_steps=2",))
    config = TrainConfig(
        env=ENV,
        text=text,
        model=str(folder / "model"),
        learn=LearnConfig(epochs=1, optimizer="adamw"),
        steps=2,
        rollout_steps=1,
        envs=1,
        eval_episodes=0,
        checkpoint_every=1,
        threads=1,
    )
    trainer.start(config, folder / "run").run()
    write_demonstrations(folder / "demos.jsonl", ENV, demonstrate(ENV, text, 2))
    evaluated(folder / "results")
    (folder / "file.txt").write_text("\n".join(LINES), encoding="utf-8")
    (folder / "binary.yaml").write_bytes(bytes(range(256)))
    (folder / "mine.yaml").write_text("seed: 1\ntext: {prompt: glam}\n", encoding="utf-8")


def evaluated(folder: Path, agent: str = "random") -> None:
    """A small evaluation's results, or what is missing of them."""
    made = make_agent(agent, 2)
    task = Task(ENV, "task", {"max_steps": 2})
    text = TextConfig()

    def make_env(task: Task) -> Any:
        return text.with_args(task.env_args).make(task.env)

    spec = Spec({**made.about, "words": describe(text)}, (task,), 10**9, 2)
    evaluate_panel(spec, folder, TaskPlayer(made, make_env, slots=2, keep_trajectories=True))


# -- command lines ---------------------------------------------------------------------------------

WORLD = [ENV, "--env-args", "max_steps=2"]
RUN = ["--env", *WORLD, "--model", "model", "--steps", "1", "--rollout-steps", "1", "--envs", "1",
       "--eval-episodes", "0", "--threads", "1"]  # fmt: skip
BASES: dict[str, list[str]] = {
    "train": [*RUN, "--epochs", "1"],
    "demos": [*WORLD, "--episodes", "1"],
    "imitate": RUN,
    "evaluate": [*WORLD, "--episodes", "1"],
    "play": [*WORLD, "--agent", "random"],
    "compare": ["results", "results"],
    "report": ["results", "--out", "r.html"],
    "replay": ["results"],
    "suites": [],
    "ask": ["model", "a dog", "--actions", "turn left", "go forward"],
    "convert": ["demos.jsonl", "new.jsonl"],
    "envs": [],
    "prompt": [ENV, "--model", "model"],
    "new-world": [],
    "check": [ENV, "--episodes", "1", "--model", "model"],
    "generate": ["a dog", "--model", "model", "--max-new-tokens", "2"],
    "pretrain": ["file.txt", "--model", "model", "--steps", "1", "--batch", "1", "--context", "4"],
    "export": [],
    "bench": [],
}
"""Each command with the smallest work that it can be given."""
CHEAP = [name for name in BASES if name not in ("train", "imitate")]
WORK = [
    "steps",
    "rollout_steps",
    "envs",
    "episodes",
    "slots",
    "eval_episodes",
    "count",
    "beams",
    "batch",
    "context",
    "max_new_tokens",
    "workers",
    "epochs",
]
PLACES = {"out", "json", "film", "record"}
FOLDERS = ("model", "run", "results", "file.txt", "binary.yaml", "demos.jsonl")
FLAGS = [
    "--help",
    "-h",
    "--config",
    "--resume",
    "--trust",
    "--tyro-print-completion",
    "--nope",
    "--",
    "-x",
    "--seed=",
]


def options_of(kind: Any) -> dict[str, Any]:
    """Every option of a command, also those within others: name -> type."""
    types = get_type_hints(kind)
    found: dict[str, Any] = {}
    for item in fields(kind):
        wanted = types[item.name]
        if is_dataclass(wanted):
            found |= options_of(wanted)
        elif item.name not in ("source", "trust"):
            found[item.name] = wanted
    return found


def command_lines(draw: random.Random) -> Case:
    """A small working call, with one to three options or arguments that mostly are wrong."""
    name = draw.choice(CHEAP) if draw.random() < 0.85 else draw.choice([*BASES, "fly", "", "[/b]"])
    arguments = list(BASES.get(name, []))
    if name in ("train", "imitate", "pretrain", "demos"):
        arguments += ["--out", f"new-{draw.random()}"]
    elif name == "export":
        arguments += [draw.choice(FOLDERS), f"new-{draw.random()}"]
    options = options_of(cli.COMMANDS[name][0]) if name in cli.COMMANDS else {}
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        arguments += _mutation(draw, options)
    if draw.random() < 0.1 and arguments:
        arguments[draw.randrange(len(arguments))] = values.text(draw)
    if draw.random() < 0.05:
        draw.shuffle(arguments)
    if name == "bench":
        arguments += ["--threads", "0"]  # it works for minutes, whatever else it is told
    typed = "\n".join(values.text(draw) for _ in range(draw.randrange(4)))
    return Case(f"lang-agent {[name, *arguments]!r}", command_line([name, *arguments], typed))


def _mutation(draw: random.Random, options: dict[str, Any]) -> list[str]:
    if not options or draw.random() < 0.1:
        flag = draw.choice(FLAGS)
        value = draw.choice(["mine.yaml", "binary.yaml", "nope.yaml", "run", values.text(draw)])
        return [flag, value] if flag in ("--config", "--resume") else [flag]
    if draw.random() < 0.3 and "env_args" in options:
        told = [draw.choice(values.ARGUMENTS) for _ in range(draw.choice([1, 1, 2]))]
        return ["--env-args", "max_steps=2", *told]
    option = draw.choice(list(options))
    return _written(draw, option, options[option])


def _written(draw: random.Random, option: str, wanted: Any) -> list[str]:
    flag = "--" + option.replace("_", draw.choice("-_"))
    kinds = get_args(wanted) if get_origin(wanted) in (Union, UnionType) else (wanted,)
    if bool in kinds:
        return [draw.choice([flag, flag.replace("--", "--no-"), f"{flag}=x"])]
    if option in PLACES:
        return [flag, values.out(draw)]
    if draw.random() < 0.1:
        return [flag]
    if int in kinds:
        value = values.whole(draw)
        if option in WORK and re.fullmatch("[4-9]|[1-9][0-9]{1,12}|10{20}", value):
            value = "-7"  # much work is no mistake
    elif float in kinds:
        value = values.real(draw)
    elif option in ("env", "mixture", "vocabulary_from"):
        value = draw.choice(
            [
                draw.choice(values.ENVS),
                f"{ENV} weight={values.real(draw)}",
                f"{ENV} {draw.choice(values.ARGUMENTS)}",
                values.text(draw),
            ]
        )
    elif option in ("policy", "agent", "model"):
        value = draw.choice(
            [*FOLDERS, "constant:", "constant:fly", "trained:", f"./{values.text(draw)}"]
        )
    else:
        value = values.text(draw)
    return [f"{flag}={value}"] if draw.random() < 0.3 else [flag, value]


# -- files -----------------------------------------------------------------------------------------


def configurations(folder: Path) -> Draw:
    """A whole configuration with a setting changed, or its bytes damaged."""
    file = folder / "fuzzed.yaml"
    save_config(TrainConfig(), file)
    whole = file.read_bytes()
    plain = yaml.safe_load(whole)

    def read() -> None:
        config = load_config(file, TrainConfig)
        save_config(config, file)
        assert load_config(file, TrainConfig) == config, "it does not read as what was written"

    def draw_one(draw: random.Random) -> Case:
        if draw.random() < 0.5:
            data, told = damage(whole, draw)
        else:
            data, told = _changed(plain, draw)
        file.write_bytes(data)
        return Case(f"configuration {told}", lambda: (file.write_bytes(data), read()))

    return draw_one


def _changed(plain: dict[str, Any], draw: random.Random) -> tuple[bytes, str]:
    part = draw.choice(["text", "decide", "learn", "imitation", None, None])
    settings = plain[part] if part else plain
    name = draw.choice(list(settings))
    value = draw.choice(
        [
            values.whole(draw),
            values.real(draw),
            json.dumps(values.text(draw).encode("utf-8", "replace").decode()),
            draw.choice(values.YAML),
        ]
    )
    lines = [f"{key}: {json.dumps(inner)}" for key, inner in settings.items() if key != name]
    lines.append(f"{draw.choice([name, name, name, name + 'x', '? [a]', '5', 'null'])}: {value}")
    body = "\n".join(lines)
    if part:
        body = f"{part}:\n" + "\n".join(f"  {line}" for line in body.split("\n"))
    return body.encode("utf-8", "surrogatepass"), f"with {part}: {name}: {value[:60]!r}"


def demonstration_files(folder: Path) -> Draw:
    """A file of demonstrations with a field changed, or its bytes damaged; compressed or not."""
    whole = (folder / "demos.jsonl").read_bytes()

    def draw_one(draw: random.Random) -> Case:
        if draw.random() < 0.5:
            data, told = _changed_episode(whole, draw)
        else:
            data, told = damage(whole, draw)
        packed = draw.random() < 0.4
        if packed:
            data = gzip.compress(data)
            if draw.random() < 0.7:
                data, more = damage(data, draw)
                told = f"{told}, packed and {more}"
        file = folder / f"fuzzed.jsonl{'.gz' if packed else ''}"
        file.write_bytes(data)
        return Case(f"demonstrations {told}", lambda: read_demonstrations(file))

    return draw_one


def _change(target: dict[str, Any], draw: random.Random) -> str:
    """Give one of the entries another value, or take it away; says which."""
    name = draw.choice(list(target))
    target[name] = draw.choice(values.JSON)
    told = f"{name}={target[name]!r}"[:80]
    if draw.random() < 0.2:
        del target[name]
        told = f"without {name}"
    return told


def _changed_episode(whole: bytes, draw: random.Random) -> tuple[bytes, str]:
    episode = json.loads(whole.split(b"\n")[0])
    target = draw.choice([episode, episode, draw.choice(episode["steps"])])
    told = _change(target, draw)
    return json.dumps(episode).encode() + b"\n" + whole, told


def checkpoints(folder: Path) -> Draw:
    """A run of which one or two files are damaged or missing, resumed or loaded."""
    clean, broken = folder / "run", folder / "broken"

    def draw_one(draw: random.Random) -> Case:
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(clean, broken)
        files = sorted(file for file in broken.rglob("*") if file.is_file())
        told = []
        for file in draw.sample(files, draw.choice([1, 1, 2])):
            what = "missing"
            if draw.random() < 0.75:
                data, what = damage(file.read_bytes(), draw)
                file.write_bytes(data)
            else:
                file.unlink()
            told.append(f"{file.relative_to(broken)} {what}")
        if draw.random() < 0.5:
            return Case(f"resume, {told}", lambda: trainer.resume(broken))
        return Case(f"load, {told}", lambda: load_policy(broken))

    return draw_one


def results(folder: Path) -> Draw:
    """Results of which one or two files are damaged or missing: compared, played again, gone on
    with, written as BALROG's, or read."""
    clean, broken = folder / "results", folder / "broken-results"

    def draw_one(draw: random.Random) -> Case:
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(clean, broken)
        files = sorted(file for file in broken.glob("*.json*"))
        told = []
        for file in draw.sample(files, draw.choice([1, 1, 2])):
            whole, what = file.read_bytes(), "missing"
            if draw.random() < 0.4:
                data, what = _changed_line(whole, draw)
                file.write_bytes(data)
            elif draw.random() < 0.75:
                data, what = damage(whole, draw)
                file.write_bytes(data)
            else:
                file.unlink()
            told.append(f"{file.name} {what}")
        name, use = draw.choice([
            ("compare", lambda: cli.run(["compare", str(broken), str(clean)])),
            ("replay", lambda: cli.run(["replay", str(broken)])),
            ("report", lambda: cli.run(["report", str(broken), str(clean), "--out", "r.html"])),
            ("convert", lambda: cli.run(["convert", str(broken), "there", "--to", "balrog"])),
            ("go on", lambda: evaluated(broken)),
            ("read", lambda: read_results(broken)),
        ])  # fmt: skip

        def run() -> None:
            shutil.rmtree(folder / "there", ignore_errors=True)
            with contextlib.redirect_stdout(io.StringIO()):
                use()

        return Case(f"{name}, {told}", run)

    return draw_one


def _changed_line(whole: bytes, draw: random.Random) -> tuple[bytes, str]:
    """A file of JSON, or of its lines, with a value changed or taken away."""
    try:
        lines = [json.loads(whole)]
    except ValueError:
        lines = [json.loads(line) for line in whole.split(b"\n") if line]
    target = draw.choice(lines)
    while True:
        inner = [value for value in target.values() if isinstance(value, dict) and value]
        inner += [v for vs in target.values() if isinstance(vs, list) for v in vs
                  if isinstance(v, dict) and v]  # fmt: skip
        if not inner or draw.random() < 0.5:
            break
        target = draw.choice(inner)
    told = _change(target, draw)
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines), told


def suites(folder: Path) -> Draw:
    """A suite that ships with its bytes damaged."""
    shipped = sorted((Path(evaluation.__file__).parent / "suites").glob("*.toml"))
    file = folder / "fuzzed.toml"

    def draw_one(draw: random.Random) -> Case:
        data, told = damage(draw.choice(shipped).read_bytes(), draw)
        return Case(f"suite {told}", lambda: (file.write_bytes(data), load_suite(str(file))))

    return draw_one


FIELDS = {
    "mission": "go",
    "descriptions": ["a ball"],
    "actions": ("go left", "go right"),
    "renamed_actions": False,
    "step": 0,
    "feedback": "",
}


def templates(folder: Path) -> Draw:
    """A few pieces of Jinja one after another, or a shipped template with its bytes damaged."""
    import lang_agent.prompts

    shipped = sorted(Path(next(iter(lang_agent.prompts.__path__))).glob("*.jinja"))

    def draw_one(draw: random.Random) -> Case:
        if draw.random() < 0.3:
            data, told = damage(draw.choice(shipped).read_bytes(), draw)
        else:
            pieces = [draw.choice(values.PIECES) for _ in range(draw.choice([1, 1, 2, 3]))]
            data, told = "".join(pieces).encode("utf-8"), repr(pieces)
        place = folder / f"t{draw.getrandbits(64)}"  # a template may be kept by its path once read

        def read() -> None:
            place.mkdir()
            (place / "it.jinja").write_bytes(data)
            try:
                prompt = Prompt(load_template("it", place))
                assert isinstance(prompt.reset(FIELDS), str)
                assert isinstance(prompt.step("go left", {**FIELDS, "step": 1}), str)
            finally:
                shutil.rmtree(place)

        return Case(f"template {told}", read)

    return draw_one
