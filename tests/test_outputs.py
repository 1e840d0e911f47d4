"""Whatever is written appears whole or not at all, and its place is tried before the work."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import replace
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
from conftest import make_bandit
from kill_server import Runs
from lang_agent.envs.text_generation import TextGenerationEnv
from PIL import Image, ImageSequence
from test_golden import BASE, LEVEL, make_policy

import lang_agent
from lang_agent import LangAgentError, files
from lang_agent.agents.expert import ExpertAgent
from lang_agent.agents.scripted import ConstantAgent, RandomAgent
from lang_agent.cli import main as cli
from lang_agent.episode import Agent, Decision
from lang_agent.evaluation import film as films
from lang_agent.evaluation import plots, run_records
from lang_agent.files import (
    TellWarning,
    json_lines,
    set_aside,
    sweep,
    try_place,
    whole,
    write_whole,
)
from lang_agent.learn.demonstrations import read_demonstrations, write_demonstrations
from lang_agent.rollout import play
from lang_agent.seeding import EVALUATION_SEED
from lang_agent.train import pretrain
from lang_agent.train.demonstrate import demonstrate
from lang_agent.train.trainer import start

ROOM = "BabyAI-GoToRedBallNoDists-v0"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- files -----------------------------------------------------------------------------------------


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    file = tmp_path / "new" / "f.json"
    write_whole(file, "old — ü")
    assert file.read_bytes() == "old — ü".encode()

    def fails(beside):
        beside.write_text("half")
        raise KeyError("the block's own error passes")

    with pytest.raises(KeyError), whole(file) as beside:
        fails(beside)
    assert file.read_text(encoding="utf-8") == "old — ü"
    write_whole(file, b"new")
    assert (file.read_bytes(), names(file.parent)) == (b"new", ["f.json"])


def test_a_folder_appears_whole(tmp_path):
    with whole(tmp_path / "f") as beside:
        (beside / "deep").mkdir(parents=True)
        (beside / "deep" / "x").write_text("1")
        assert not (tmp_path / "f").exists()
    assert (tmp_path / "f" / "deep" / "x").read_text() == "1"
    assert names(tmp_path) == ["f"]


def test_leftovers_of_the_dead_are_swept_and_those_of_the_living_are_not(tmp_path):
    host = files._host()
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    left = [f".f.{host}.{os.getpid()}.partial", f".f.elsewhere.{dead}.partial"]
    left += [f".g.{host}.{dead}.partial", ".f.partial"]
    for name in (f".f.{host}.{dead}.partial", *left):
        (tmp_path / name).write_text("half")
    sweep(tmp_path, only="f")
    assert names(tmp_path) == sorted(left)


def test_a_place_is_tried_before_the_work(tmp_path):
    try_place(tmp_path / "a" / "b" / "f.json")
    assert names(tmp_path / "a" / "b") == []
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "x")
    for place, reason in (
        (tmp_path / "a", "it is a folder"),
        (tmp_path / "file" / "f.json", "something else is there"),
        (Path("/proc/f.json"), "Cannot write '/proc/f.json'"),
        (tmp_path / ("x" * 300), "name too long"),
    ):
        with pytest.raises(LangAgentError, match=f"(?i){reason}"):
            try_place(place)
    assert (tmp_path / "file").read_text() == "x"


def test_what_is_set_aside_never_replaces_what_was(tmp_path):
    for content in ("one", "two", "three"):
        (tmp_path / "f").write_text(content)
        set_aside(tmp_path / "f")
    found = [(tmp_path / name).read_text() for name in ("f-damaged", "f-damaged-2", "f-damaged-3")]
    assert found == ["one", "two", "three"]


def test_lines_of_json_say_which_is_none_and_why():
    lines = ['{"a": 1}', "", "{", "[" * 100_000, '"\u2028"']
    found = [(number, value, bool(reason)) for number, value, reason in json_lines(lines)]
    assert found == [(1, {"a": 1}, False), (3, None, True), (4, None, True), (5, "\u2028", False)]


# -- demonstrations --------------------------------------------------------------------------------


def test_demonstrations_are_added_all_or_none(tmp_path):
    for file in (tmp_path / "d.jsonl", tmp_path / "d.jsonl.gz"):
        made = list(demonstrate(ROOM, LEVEL, 3))
        assert write_demonstrations(file, ROOM, made[:2]) == 2
        before = file.read_bytes()

        def fails(episodes=made):
            yield episodes[2]
            raise RuntimeError("the world's own error passes")

        with pytest.raises(RuntimeError):
            write_demonstrations(file, ROOM, fails())
        assert file.read_bytes() == before
        write_demonstrations(file, ROOM, made[2:])
        assert [episode.seed for episode in read_demonstrations(file)] == [0, 1, 2]
    assert names(tmp_path) == ["d.jsonl", "d.jsonl.gz"]


def test_seeds_of_evaluation_are_never_recorded(tmp_path):
    env = lang_agent.make(ROOM, prompt="minimal")
    episodes = list(play(ExpertAgent(), [env], [EVALUATION_SEED - 1, EVALUATION_SEED]))
    with pytest.raises(LangAgentError, match=f"Seed {EVALUATION_SEED} is kept for evaluation"):
        write_demonstrations(tmp_path / "d.jsonl", ROOM, episodes)
    assert names(tmp_path) == []
    assert write_demonstrations(tmp_path / "d.jsonl", ROOM, episodes[:1]) == 1
    for arguments in (
        ["play", ROOM, "--agent", "expert", "--seed", str(EVALUATION_SEED), "--record"],
        ["play", ROOM, "--agent", "expert", "--seed", str(EVALUATION_SEED - 1), "--episodes", "2",
         "--record"],
        ["demos", ROOM, "--seed", str(EVALUATION_SEED - 5), "--episodes", "6", "--out"],
    ):  # fmt: skip
        with pytest.raises(LangAgentError, match="kept for evaluation"):
            cli.run([*arguments, str(tmp_path / "e.jsonl")])
    assert names(tmp_path) == ["d.jsonl"]


def line(**changes):
    step = {"prompt": "p", "actions": ["a", "b"], "action": "a", "wanted": "a", "reward": 0.0}
    data = {"env": "e", "seed": 1, "success": True, "return": 0.0, "steps": [step]}
    for name, value in changes.items():
        (step if name in step else data)[name] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (line(steps=[]), "no steps"),
        (line(wanted="c"), "'c', is none of the admissible"),
        (line(reward=float("nan")), "no finite number"),
        (line(reward=None), "no finite number"),
        (line(seed="x"), "invalid literal"),
        (line(steps=7), "TypeError"),
        ("[]", "TypeError"),
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_a_line_that_is_no_demonstration_is_named(tmp_path, text, reason):
    (tmp_path / "d.jsonl").write_text(f"{line()}\n\n{text}\n")
    with pytest.raises(LangAgentError, match=f"d.jsonl', line 3, .*{reason}"):
        read_demonstrations(tmp_path / "d.jsonl")


def test_files_that_are_no_text_are_one_sentence(tmp_path):
    file = tmp_path / "d.jsonl.gz"
    whole_file = gzip.compress(f"{line()}\n".encode() * 50)
    for data in (b"", b"x" * 40, whole_file[:-9], whole_file[:20] + b"\0\0\0" + whole_file[23:],
                 gzip.compress(b"\xff\xfe\x00x"), whole_file[:30]):  # fmt: skip
        file.write_bytes(data)
        with pytest.raises(
            LangAgentError, match=r"Cannot read|no action to learn|no demonstration"
        ):
            read_demonstrations(file)
    text = f"\ufeff{line(prompt='a|b')}\n".replace("|", "\u2028")
    (tmp_path / "bom.jsonl").write_text(text, encoding="utf-8")
    assert read_demonstrations(tmp_path / "bom.jsonl")[0].steps[0].observation.prompt == "a\u2028b"


# -- commands --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    server = Runs(tmp_path_factory.mktemp("outputs"))
    yield server
    server.close()


@pytest.mark.parametrize("at", [1, 2, 3, 4, 6])
def test_outputs_of_a_killed_command_never_look_whole(runs, tmp_path, at):
    run = tmp_path / "run"
    start(replace(BASE, steps=20), run, make_policy(False)).run()
    for arguments, name in (
        (["export", str(run), str(tmp_path / "out" / "model")], "model"),
        (["demos", ROOM, "--episodes", "2", "--out", str(tmp_path / "out" / "d.jsonl.gz")],
         "d.jsonl.gz"),
        (["evaluate", ROOM, "--episodes", "1", "--json", str(tmp_path / "out" / "e.json")],
         "e.json"),
    ):  # fmt: skip
        (tmp_path / "out").mkdir(exist_ok=True)
        killed = runs.attempt(tmp_path / "out", "", kill_at=at, arguments=arguments)
        assert killed.status in (0, -9), killed.said
        assert (name in names(tmp_path / "out")) == (killed.status == 0)
        if killed.status:
            again = runs.attempt(tmp_path / "out", "", arguments=arguments)
            assert again.status == 0, again.said
        assert names(tmp_path / "out") == [name]  # what was left half-written is gone too
        done = tmp_path / "out" / name
        done.rename(tmp_path / name)


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", ROOM, "--episodes", "1000000", "--json"],
        ["play", ROOM, "--agent", "expert", "--episodes", "1000000", "--record"],
        ["play", ROOM, "--agent", "expert", "--film"],
        ["demos", ROOM, "--episodes", "1000000", "--out"],
        ["bench", "--json"],
    ],
)
def test_a_command_that_cannot_write_says_so_before_its_work(tmp_path, arguments):
    (tmp_path / "file").write_text("x")
    with pytest.raises(LangAgentError, match="Cannot write"):
        cli.run(
            [
                *arguments,
                str(tmp_path / "file" / "out.gif"),
            ]
        )


def test_pretrain_tries_its_place_first(tmp_path):
    (tmp_path / "file").write_text("x\n" * 100)
    with pytest.raises(LangAgentError, match="Cannot write"):
        pretrain.pretrain(tmp_path / "file", tmp_path / "file" / "model")
    with pytest.raises(LangAgentError, match="Cannot write"):
        pretrain.pretrain(tmp_path / "nothing-is-read", "/proc/model")


def test_pretraining_that_goes_wrong_saves_nothing(tmp_path):
    (tmp_path / "text").write_text("the sun is warm\na dog runs home\n" * 200)
    with pytest.raises(LangAgentError, match=r"The loss of step \d is (nan|inf)"):
        pretrain.pretrain(
            tmp_path / "text", tmp_path / "model", model="nano", steps=9, batch=2, context=8,
            learning_rate=1e30,
        )  # fmt: skip
    (tmp_path / "latin").write_bytes("é\n".encode("latin-1") * 400)
    with pytest.raises(LangAgentError, match="not UTF-8"):
        pretrain.pretrain(tmp_path / "latin", tmp_path / "model")
    assert names(tmp_path) == ["latin", "text"]


def test_a_film_makes_its_folder_and_a_world_without_pictures_is_refused_at_once(tmp_path):
    env = lang_agent.make(ROOM, prompt="minimal", render_mode="rgb_array", max_steps=2)
    films.film(ConstantAgent("turn left"), env, [0], tmp_path / "new" / "a.gif")
    assert len(imageio.imread(tmp_path / "new" / "a.gif", index=None)) == 3
    assert names(tmp_path / "new") == ["a.gif"]


def test_a_film_has_several_episodes_and_worlds_of_text_alone(tmp_path):
    env = lang_agent.make(ROOM, prompt="minimal", render_mode="rgb_array", max_steps=2)
    played = films.film(ConstantAgent("turn left"), env, [4, 5], tmp_path / "a.gif", fps=4)
    assert [(episode.seed, len(episode.steps)) for episode in played] == [(4, 2), (5, 2)]
    with Image.open(tmp_path / "a.gif") as gif:
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(gif)]
        assert durations == [250, 250, 750] * 2
        width = gif.width
    for number, env in enumerate((TextGenerationEnv(["x"]), make_bandit(), lang_agent.make(ROOM))):
        films.film(ConstantAgent("turn left"), env, [0], tmp_path / f"{number}.gif")
        with Image.open(tmp_path / f"{number}.gif") as gif:
            assert gif.width < width  # the words alone


def test_an_mp4_has_the_pictures_of_the_gif(tmp_path):
    env = lang_agent.make(ROOM, prompt="minimal", render_mode="rgb_array", max_steps=2)
    for name in ("a.gif", "a.mp4"):
        films.film(ConstantAgent("turn left"), env, [4], tmp_path / name)
    gif = imageio.imread(tmp_path / "a.gif", index=None)[..., :3].astype(int)
    mp4 = imageio.imread(tmp_path / "a.mp4", plugin="pyav").astype(int)
    assert mp4.shape == (5, *gif.shape[1:])  # the end stands three times as long
    assert abs(mp4[:3] - gif).mean() < 8


def test_a_film_is_refused_before_anything_is_played(tmp_path):
    class Never(Agent):
        def begin(self, slot, seed):
            raise AssertionError("nothing is to be played")

    with pytest.raises(LangAgentError, match=r"must end in \.gif or \.mp4"):
        films.film(Never(), make_bandit(), [0], tmp_path / "b.avi")
    with pytest.raises(LangAgentError, match="Cannot write"):
        films.film(Never(), make_bandit(), [0], Path("/proc/b.gif"))


def test_a_film_shows_what_might_have_been_said(tmp_path):
    class Sure(Agent):
        def act(self, slots, observations):
            return [Decision("turn right", 1, probabilities=(0.0, 1.0, 0.0, 0.0, 0.0, 0.0))]

    pictures = {}
    for agent in (Sure(), ConstantAgent("turn right")):
        env = lang_agent.make(ROOM, prompt="minimal", render_mode="rgb_array", max_steps=1)
        films.film(agent, env, [0], tmp_path / "a.gif")
        with Image.open(tmp_path / "a.gif") as gif:
            pictures[type(agent)] = np.asarray(gif.convert("RGB")).astype(int)
    red = [abs(picture - films.ACCENT).sum(2) < 30 for picture in pictures.values()]
    assert red[0].sum() > red[1].sum() + 1000  # the bar of what was said


def test_a_film_of_a_prompt_that_says_nothing_new_is_a_film(tmp_path):
    from gymnasium import Wrapper

    class Silent(Wrapper):
        def step(self, action):
            _, *rest = self.env.step(action)
            return ("", *rest)

    env = Silent(lang_agent.make(ROOM, render_mode="rgb_array", max_steps=3))
    films.film(RandomAgent(), env, [0], tmp_path / "a.gif")


def test_a_learning_curve_leaves_damaged_lines_out(tmp_path):
    good = {"updates": 1, "steps": 10, "success": 0.5, "return": 0.5}
    lines = [json.dumps(good), "{", json.dumps({**good, "updates": 2, "return": None}), '{"upd']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    with pytest.warns(TellWarning, match="line 2, is left out"):
        assert [record["updates"] for record in run_records.read_metrics(tmp_path)] == [1, 2]
    with pytest.warns(TellWarning):
        plots.plot_learning([tmp_path], tmp_path / "plots" / "curve.png")
    assert (tmp_path / "plots" / "curve.png").read_bytes()[:4] == b"\x89PNG"


def test_a_mistake_in_demonstrations_of_a_run_leaves_no_folder(tmp_path):
    imitation = demonstrations_config(tmp_path / "none.jsonl")
    with pytest.raises(LangAgentError, match="Cannot read the demonstrations"):
        start(imitation, tmp_path / "run", make_policy(False))
    assert not (tmp_path / "run").exists()


def test_a_run_is_named_without_colons(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = []
    monkeypatch.setattr(
        "lang_agent.train.trainer.start", lambda config, folder, **_: made.append(folder) or 1 / 0
    )
    for config in (replace(BASE, env="my_lake:TextLake-v0"), replace(BASE, env="a/Lake-v0"),
                   replace(BASE, mixture=("a:b", "c"))):  # fmt: skip
        with pytest.raises(ZeroDivisionError):
            cli.train(config)
    assert [folder.name.split("-")[0] for folder in made] == ["TextLake", "Lake", "mixture"]


def demonstrations_config(file: Path):
    from lang_agent.learn.config import ImitationConfig

    learn = replace(BASE.learn, algorithm="imitation", entropy_coef=0.0, epochs=1)
    return replace(BASE, learn=learn, imitation=ImitationConfig(demonstrations=str(file)))
