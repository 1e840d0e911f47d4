"""Results on disk: what is kept of every episode, resumed, replayed, and refused."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import gymnasium
import pytest
from conftest import make_bandit

import lang_agent
from lang_agent import Agent, Decision, LangAgentError, PolicyAgent
from lang_agent.agents.expert import ExpertAgent
from lang_agent.agents.make import make_agent
from lang_agent.agents.scripted import RandomAgent
from lang_agent.cli import evaluation as evaluation_cli
from lang_agent.cli import main as cli
from lang_agent.cli.console import console
from lang_agent.evaluation.records import Record, Spec, read_results
from lang_agent.evaluation.replay import replay
from lang_agent.evaluation.run import TaskPlayer, evaluate_panel
from lang_agent.evaluation.tasks import Task, load_suite, panel, read_task, suite_names
from lang_agent.evaluation.trajectories import changes, prompts
from lang_agent.models.decide import DecideConfig
from lang_agent.rollout import play
from lang_agent.text_env.config import TextConfig

LEVEL = "BabyAI-MixedLocal-v0"
TASKS = (
    Task(LEVEL, "goto", {"task": "goto", "num_dists": 1, "max_steps": 12}),
    Task(LEVEL, "sequence", {"task": "pick_up_seq_go_to", "num_dists": 1, "max_steps": 12}),
)
WORDS = TextConfig(prompt="minimal")


def make_env(task):
    return WORDS.with_args(task.env_args).make(task.env)


def spec_of(agent, tasks=TASKS, episodes=5, seed=10**9):
    return Spec(agent.about, tasks, seed, episodes)


def random_agent():
    agent = RandomAgent()
    agent.about = {"name": "random"}
    return agent


def evaluated(folder, agent=None, **options):
    agent = agent or random_agent()
    slots = options.pop("slots", 3)
    trajectories = options.pop("trajectories", True)
    spec = spec_of(agent, **options)
    player = TaskPlayer(agent, make_env, slots=slots, keep_trajectories=trajectories)
    return evaluate_panel(spec, folder, player)


def timeless(results):
    return [replace(record, seconds=0.0) for record in results.records]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return evaluated(tmp_path_factory.mktemp("results") / "whole")


def test_every_episode_is_a_record_with_what_its_instruction_is_made_of(whole):
    assert [(r.task, r.seed - 10**9) for r in whole.records] == [
        (task.name, seed) for task in TASKS for seed in range(5)
    ]
    lines = (whole.folder / "episodes.jsonl").read_text().splitlines()
    assert [json.loads(line)["return"] for line in lines] == [
        record.total_reward for record in whole.records
    ]
    for record in whole.records:
        assert 0 < record.steps <= 12
        assert record.progression == float(record.success)
        assert record.mission
        assert record.expert_steps is None or record.expert_steps >= 1
        assert record.seconds >= 0
    goto, sequence = whole.of_task("goto"), whole.of_task("sequence")
    assert {(r.verb, r.parts) for r in goto} == {("go to", 1)}
    for record in goto:
        assert record.mission == f"go to the {record.colour} {record.object}" or (
            record.mission == f"go to a {record.colour} {record.object}"
        )
    assert {(r.verb, r.parts) for r in sequence} == {("pick up, go to", 2)}
    assert all(len(r.object.split(", ")) == 2 for r in sequence)
    assert any(r.expert_steps for r in whole.records)


def test_the_spec_says_what_was_asked_for(whole):
    data = json.loads((whole.folder / "spec.json").read_text())
    assert data["schema"] == 1
    assert data["panel"] == panel(TASKS, range(10**9, 10**9 + 5)) == whole.spec.panel
    assert data["agent"] == {"name": "random"}
    assert data["tasks"][0]["arguments"] == TASKS[0].arguments
    summary = json.loads((whole.folder / "summary.json").read_text())
    assert [row["task"] for row in summary["rows"]] == ["goto", "sequence", "(all)"]
    assert summary["rows"][2]["episodes"] == 10


def test_a_trajectory_has_what_was_read_and_said_and_the_grid(whole):
    stored = [json.loads(line) for line in (whole.folder / "trajectories.jsonl").open()]
    assert [(one["task"], one["seed"]) for one in stored] == [r.place for r in whole.records]
    for one, record in zip(stored, whole.records, strict=True):
        env = make_env(next(task for task in TASKS if task.name == record.task))
        prompt, _ = env.reset(seed=record.seed)
        cells = env.unwrapped.cells
        assert one["steps"][0]["cells"] == cells
        grid = list(cells["grid"])
        for step, text in zip(one["steps"], prompts(one), strict=True):
            assert text == prompt
            for at, *codes in step["cells"].get("changed", ()):
                grid[3 * at : 3 * at + 3] = codes
            assert grid == env.unwrapped.cells["grid"]
            assert step["cells"]["agent"] == env.unwrapped.cells["agent"]
            assert step["expert"] in step["actions"]
            prompt, reward, *_ = env.step(step["action"])
            assert reward == step["reward"]
        assert one["end"]["agent"] == env.unwrapped.cells["agent"]


def test_grids_are_stored_as_what_has_changed():
    one = {"size": [2, 1], "grid": [1, 0, 0, 2, 5, 0], "agent": [0, 0, 0]}
    moved = {"size": [2, 1], "grid": [1, 0, 0, 4, 5, 1], "agent": [1, 0, 0]}
    assert changes([one, moved, None, one]) == [
        one, {"agent": [1, 0, 0], "changed": [[1, 4, 5, 1]]}, None, one,
    ]  # fmt: skip


class Interrupted(RandomAgent):
    """Stops the evaluation after so many calls."""

    def __init__(self, calls):
        super().__init__()
        self.calls = calls
        self.about = {"name": "random"}

    def act(self, slots, observations):
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return super().act(slots, observations)


def test_an_interrupted_evaluation_goes_on_to_the_same_records(whole, tmp_path):
    draw = random.Random(0)
    for _ in range(50):
        try:
            found = evaluated(tmp_path / "r", Interrupted(draw.randint(8, 20)))
            break
        except KeyboardInterrupt:
            broken = tmp_path / "r" / draw.choice(["episodes.jsonl", "trajectories.jsonl"])
            with broken.open("a") as file:
                file.write('{"task": "goto", "se')  # as a kill leaves it
    assert timeless(found) == timeless(whole)
    for name in ("episodes.jsonl", "trajectories.jsonl"):
        lines = (tmp_path / "r" / name).read_text().splitlines()
        assert len(lines) == len((whole.folder / name).read_text().splitlines())
    mine, theirs = (json.loads((f / "summary.json").read_text()) for f in
                    (tmp_path / "r", whole.folder))  # fmt: skip
    assert mine == theirs


KILLED = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import test_evaluation as t
t.evaluated(Path(sys.argv[1]), episodes=int(sys.argv[2]), slots=4)
"""


def kill_and_go_on(folder, times, episodes):
    draw = random.Random(times)
    code = KILLED.format(tests=str(Path(__file__).parent))
    killed = 0
    for _ in range(times):
        run = subprocess.Popen([sys.executable, "-c", code, str(folder), str(episodes)])
        began = (folder / "episodes.jsonl").stat().st_size if folder.exists() else 0
        while run.poll() is None and (
            not (folder / "episodes.jsonl").exists()
            or (folder / "episodes.jsonl").stat().st_size <= began
        ):
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.15))
        killed += run.poll() is None
        run.send_signal(signal.SIGKILL)
        run.wait()
    subprocess.run([sys.executable, "-c", code, str(folder), str(episodes)], check=True)
    return killed


def same_after_kills(tmp_path, times, episodes):
    unhurt = evaluated(tmp_path / "unhurt", episodes=episodes, slots=4)
    killed = kill_and_go_on(tmp_path / "hurt", times, episodes)
    found = read_results(tmp_path / "hurt")
    assert timeless(found) == timeless(unhurt)
    assert (tmp_path / "hurt" / "summary.json").read_text() == (
        tmp_path / "unhurt" / "summary.json"
    ).read_text()
    assert (tmp_path / "hurt" / "trajectories.jsonl").read_text() == (
        tmp_path / "unhurt" / "trajectories.jsonl"
    ).read_text()
    return killed


def test_killed_and_resumed_the_records_are_those_of_one_never_killed(tmp_path):
    assert same_after_kills(tmp_path, 2, 40) >= 1


@pytest.mark.slow
def test_killed_ten_times_the_records_are_those_of_one_never_killed(tmp_path):
    assert same_after_kills(tmp_path, 10, 400) == 10


def test_however_many_play_at_once_the_records_are_the_same(whole, tmp_path):
    found = evaluated(tmp_path / "one", slots=1)
    assert timeless(found) == timeless(whole)


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"episodes": 6}, "episodes is 6 and was 5"),
        ({"tasks": TASKS[:1]}, "tasks is"),
        (
            {"agent": make_agent("constant:drop", 1, DecideConfig())},
            "agent.name is 'constant:drop'",
        ),
    ],
)
def test_another_evaluation_in_the_same_folder_is_refused(whole, changed, difference):
    with pytest.raises(LangAgentError, match=difference):
        evaluated(whole.folder, **changed)


class Fragile(gymnasium.Wrapper):
    """An environment that raises on some seeds."""

    broken = frozenset({10**9 + 1, 10**9 + 3})

    def reset(self, *, seed=None, options=None):
        self._seed = seed
        return super().reset(seed=seed, options=options)

    def step(self, action):
        if self._seed in Fragile.broken:
            raise RuntimeError("out of order")
        return super().step(action)


def test_a_crash_is_a_failure_until_a_rerun_replaces_it(tmp_path, monkeypatch):
    agent = random_agent()
    spec = Spec(agent.about, (Task("x", "bandit"),), 10**9, 6)

    def fragile(task):
        return Fragile(make_bandit(prompt="minimal"))

    found = evaluate_panel(spec, tmp_path / "r", TaskPlayer(agent, fragile, slots=2))
    assert [record.seed - 10**9 for record in found.records if record.error] == [1, 3]
    crashed = next(record for record in found.records if record.error)
    assert "out of order" in crashed.error
    assert not crashed.success
    assert found.missing == [("bandit", 10**9 + 1), ("bandit", 10**9 + 3)]
    row = json.loads((tmp_path / "r" / "summary.json").read_text())["rows"][0]
    assert (row["episodes"], row["env_errors"]) == (6, 2)
    monkeypatch.setattr(Fragile, "broken", frozenset())
    again = evaluate_panel(spec, tmp_path / "r", TaskPlayer(agent, fragile, slots=2))
    assert not again.missing
    assert not any(record.error for record in again.records)
    assert len((tmp_path / "r" / "episodes.jsonl").read_text().splitlines()) == 6


def test_a_level_that_cannot_be_played_is_a_row_and_ends_nothing(tmp_path):
    agent = ExpertAgent()
    agent.about = {"name": "expert"}
    tasks = (
        Task("MiniGrid-Empty-5x5-v0", "no expert"), Task("NoSuch-v0", "no level"), TASKS[0],
    )  # fmt: skip
    found = evaluated(tmp_path / "r", agent, tasks=tasks, episodes=3)
    assert set(found.unplayed) == {"no expert", "no level"}
    assert "bot plays BabyAI levels only" in found.unplayed["no expert"]
    assert len(found.of_task("goto")) == 3
    assert all(record.steps == record.expert_steps for record in found.of_task("goto"))


def test_stored_episodes_are_played_again(whole):
    assert [one.difference for one in replay(whole, make_env)] == [""] * 10
    (one,) = replay(whole, make_env, only=7)
    assert (one.trajectory["task"], one.trajectory["seed"]) == ("sequence", 10**9 + 2)
    with pytest.raises(LangAgentError, match="has 10, from 0"):
        list(replay(whole, make_env, only=10))

    def other_words(task):
        return TextConfig(prompt="transcript").with_args(task.env_args).make(task.env)

    (other,) = replay(whole, other_words, only=0)
    assert (other.step, other.difference[:10]) == (0, "the prompt")

    def shorter(task):
        return WORDS.with_args((*task.env_args, "max_steps=4")).make(task.env)

    (other,) = replay(whole, shorter, only=whole.records.index(
        next(record for record in whole.records if record.steps == 12)
    ))  # fmt: skip
    assert (other.step, other.difference) == (4, "the episode ends before it")


def test_a_damaged_line_is_left_out_and_another_schema_refused(whole, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("spec.json", "episodes.jsonl"):
        (folder / name).write_bytes((whole.folder / name).read_bytes())
    lines = (folder / "episodes.jsonl").read_text().splitlines()
    lines[2] = lines[2].replace('"steps":', '"step":')
    lines[4] = "no JSON"
    (folder / "episodes.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.warns(UserWarning, match="is left out"):
        assert len(read_results(folder).records) == 8
    spec = json.loads((folder / "spec.json").read_text())
    (folder / "spec.json").write_text(json.dumps({**spec, "schema": 9}))
    with pytest.raises(LangAgentError, match="schema 9"):
        read_results(folder)
    (folder / "spec.json").write_text(json.dumps({**spec, "episodes": 4}))
    with pytest.raises(LangAgentError, match="was changed"):
        read_results(folder)
    with pytest.raises(LangAgentError, match="holds no results"):
        read_results(tmp_path)


def test_a_strangers_results_import_and_call_nothing(whole, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(whole.folder, folder)
    spec = json.loads((folder / "spec.json").read_text())
    flag = tmp_path / "called"
    (tmp_path / "canary_agent.py").write_text(
        f"from pathlib import Path\nPath({str(flag)!r}).touch()\ndef sing(): pass\n"
    )
    words = asdict(WORDS) | {"template": "x"}
    words.pop("source")
    sys.path.insert(0, str(tmp_path))
    try:
        for changed in (
            {"agent": {"name": "canary_agent:sing", "weights": "x", "words": words}},
            {"agent": {"name": "random", "words": {**words, "renderer": "canary_agent:sing"}}},
        ):
            (folder / "spec.json").write_text(json.dumps({**spec, **changed}))
            with contextlib.suppress(LangAgentError):
                cli.run(["replay", str(folder)])
            assert not flag.exists()
    finally:
        sys.path.remove(str(tmp_path))


# -- suites ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", suite_names())
def test_every_task_of_every_suite_can_be_played(name):
    suite = load_suite(name)
    assert suite.about
    for task in suite.tasks:
        if "sentiment" in str(task.arguments):
            pytest.importorskip("vaderSentiment")
        if task.env.startswith("Crafter"):
            pytest.importorskip("crafter")
        if task.env in ("MiniHack-v0", "NetHack-v0"):
            pytest.importorskip("minihack")
        if task.env.startswith("TextWorld"):
            continue  # a game of this size takes up to half a minute: tests/test_textworld.py
        words = TextConfig() if name == "text" else WORDS
        env = words.with_args(task.env_args).make(task.env)
        prompt, info = env.reset(seed=10**9)
        assert prompt
        env.step((info["actions"] or ["A word."])[0])
        env.close()


def test_the_suites_that_were_asked_for_are_there():
    wanted = {
        "balrog-babyai", "glam", "babyai", "babyai-local", "minigrid", "language", "text",
    }  # fmt: skip
    assert wanted <= set(suite_names())
    assert [task.name for task in load_suite("babyai").tasks][-1] == "BossLevel"
    assert len(load_suite("babyai").tasks) == 19


def test_put_next_over_nine_rooms():
    env = lang_agent.make("BabyAI-PutNext-v0", prompt="minimal")
    for seed in range(3):
        _, info = env.reset(seed=seed)
        world = env.unwrapped.env.unwrapped
        things = [cell for cell in world.grid.grid if cell and cell.type in ("key", "ball", "box")]
        assert (world.num_rows, world.num_cols, len(things)) == (3, 3, 18)
        assert info["mission"].startswith("put ")
        assert env.unwrapped.instruction["verb"] == "put next"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "has no tasks"),
        ("task = 3", "has no tasks"),
        ("[[task]]\nenv = 'x'", "name is missing"),
        ("[[task]]\nname = 'a'\nenv = 'x'\nextra = 1", "extra"),
        ("[[task]]\nname = 'a'\nenv = 'x'\n[[task]]\nname = 'a'\nenv = 'y'", "two tasks called"),
        ("[[task]]\nname = 'a'\nenv = 'x'\npublished = { s = 2 }", "between 0 and 1"),
        ("[[task", "no TOML"),
    ],
)
def test_what_is_no_suite_is_refused_in_one_sentence(text, reason, tmp_path):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(LangAgentError, match=reason):
        load_suite(str(tmp_path / "mine.toml"))


def test_a_suite_of_ones_own_has_each_tasks_own_arguments(tmp_path):
    (tmp_path / "mine.toml").write_text(
        "[[task]]\nname = 'a'\nenv = 'BabyAI-MixedLocal-v0'\n"
        "arguments = { task = 'goto', num_dists = 2, actions = ['turn left', 'go forward'] }\n"
    )
    suite = load_suite(str(tmp_path / "mine.toml"))
    env = make_env(suite.tasks[0])
    _, info = env.reset(seed=0)
    assert info["actions"] == ("turn left", "go forward")


def test_a_task_is_an_id_and_arguments():
    task = read_task("BabyAI-MixedLocal-v0 task=goto num_dists=2")
    assert task.arguments == {"task": "goto", "num_dists": 2}
    assert task.env_args == ("task=goto", "num_dists=2")
    for text in ("", "task=goto", "X y"):
        with pytest.raises(LangAgentError):
            read_task(text)
    assert panel([task], range(3)) == panel([replace(task)], range(3))
    assert panel([task], range(3)) != panel([task], range(1, 4))


# -- the command -----------------------------------------------------------------------------------


def run(capsys, *arguments):
    cli.run(arguments)
    return capsys.readouterr().out


SHORT = "BabyAI-MixedLocal-v0 task=goto num_dists=0 max_steps=8"
LONG = "BabyAI-MixedLocal-v0 task=goto num_dists=0 max_steps=30"


def test_evaluate_writes_a_folder_and_names_it_in_the_last_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    said = run(capsys, "evaluate", SHORT, "--episodes", "4", "--json", "e.json").splitlines()
    folder = tmp_path / said[-1]
    assert folder.parent == tmp_path / "results"
    results = read_results(folder)
    assert len(results.records) == 4
    assert results.spec.panel in said[0]
    assert results.spec.agent["words"]["prompt"] == "transcript"
    assert {"lang_agent", "gymnasium", "torch"} <= set(results.spec.versions)
    data = json.loads((tmp_path / "e.json").read_text())
    assert data["evaluations"][0]["episodes"] == 4


def test_evaluate_resumes_and_compares_and_replays(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shared = ["--episodes", "12", "--prompt", "minimal", "--trajectories"]
    for agent, out in (("random", "a"), ("expert", "b")):
        run(capsys, "evaluate", LONG, "--agent", agent, "--out", out, *shared)
    before = (tmp_path / "a" / "episodes.jsonl").read_bytes()
    run(capsys, "evaluate", LONG, "--agent", "random", "--out", "a", *shared)
    assert (tmp_path / "a" / "episodes.jsonl").read_bytes() == before
    with pytest.raises(LangAgentError, match=r"agent\.words\.prompt is 'transcript'"):
        cli.run(["evaluate", LONG, "--agent", "random", "--out", "a", *shared[:2]])
    said = run(capsys, "compare", "a", "b", "--json", "c.json", "--markdown", "c.md")
    found = json.loads((tmp_path / "c.json").read_text())
    assert [row["name"] for row in found["leaderboard"]] == ["expert", "random"]
    (comparison,) = found["comparisons"]
    overall = comparison["rows"][0]
    assert (overall["episodes"], overall["second"]) == (12, 1.0)
    alone = [entry for entry in comparison["apart"] if entry[2] == "expert"]
    assert len(alone) == round(12 * (1 - overall["first"]))
    assert f"expert: {LONG}, seed {alone[0][1]}, episode {alone[0][1] - 10**9}" in said
    assert "| expert | 12 | 1.000 |" in (tmp_path / "c.md").read_text()
    several = run(capsys, "compare", "a,b", "b,a")
    assert "probability of improvement 0.50 (2 and 2 training seeds)" in several
    assert "interquartile mean" in several
    assert "12 of 12 episodes are the same again" in run(capsys, "replay", "a")
    shown = run(capsys, "replay", "a", "--episode", "3")
    assert "1 of 1" in shown
    assert "Goal: go to" in shown
    run(capsys, "evaluate", LONG, "--agent", "random", "--out", "c", "--episodes", "6")
    with pytest.raises(LangAgentError, match="two panels"):
        cli.run(["compare", "a", "c"])


def test_arguments_for_the_world_are_part_of_the_panel_and_other_words_are_said(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    asked = ["evaluate", "BabyAI-MixedLocal-v0 task=goto", "--episodes", "2", "--out"]
    run(capsys, *asked, "a", "--env-args", "num_dists=0", "max_steps=5")
    run(capsys, *asked, "b", "--env-args", "num_dists=0", "max_steps=6")
    run(capsys, *asked, "c", "--env-args", "num_dists=0", "max_steps=5", "prompt=minimal",
        "--invalid-action", "end")  # fmt: skip
    for folder, steps in (("a", 5), ("b", 6)):
        results = read_results(folder)
        wanted = {"num_dists": 0, "max_steps": steps, "task": "goto"}
        assert results.spec.tasks[0].arguments == wanted
        assert max(record.steps for record in results.records) <= steps
    with pytest.raises(LangAgentError, match=r"max_steps is 6, not 5"):
        cli.run(["compare", "a", "b"])
    said = run(capsys, "compare", "a", "c")
    assert "in other words: invalid_action noop and end" in said
    assert read_results("c").spec.agent["words"]["env_args"] == ["prompt=minimal"]


def test_one_that_draws_and_one_that_does_not_are_said_to(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = ["evaluate", "BabyAI-GoToObjS4-v0", "--agent", "babyai", "--episodes", "2"]
    asked += ["--env-args", "max_steps=5", "--out"]
    run(capsys, *asked, "drawn")
    run(capsys, *asked, "likeliest", "--temperature", "0")
    assert "decided otherwise: temperature 1.0 and 0" in run(
        capsys, "compare", "drawn", "likeliest"
    )
    run(capsys, *asked, "again")
    assert "decided otherwise" not in run(capsys, "compare", "drawn", "again")


def test_suites_lists_them_and_their_tasks(capsys):
    assert "babyai-local" in run(capsys, "suites")
    assert "task=putnext" in run(capsys, "suites", "balrog-babyai")
    with pytest.raises(LangAgentError, match="Did you mean 'glam'"):
        cli.run(["suites", "glan"])


def test_ask_shows_what_an_agent_would_say(capsys):
    said = run(capsys, "ask", "babyai", "Here: red ball 1 forward\ngo to the red ball: ",
               "--actions", "turn left", "turn right", "go forward")  # fmt: skip
    chances = [float(line.split()[0]) for line in said.splitlines()[:3]]
    assert sum(chances) == pytest.approx(1, abs=0.002)
    assert said.splitlines()[-1] in ("turn left", "turn right", "go forward")


class Own(Agent):
    """An agent of one's own."""

    def act(self, slots, observations):
        return [Decision(seen.actions[-1]) for seen in observations]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("randm", "Did you mean 'random'"),
        ("nanoo", "Did you mean 'untrained:nano'"),
        ("babyay", "Did you mean 'babyai'"),
        ("nano", "that ships is 'babyai'"),
        ("untrained:huge", "huge"),
        ("constant:", "needs its action"),
        ("no_such_module:Agent", "no module"),
        ("test_evaluation:TASKS", "makes a tuple"),
        ("chat:", "has a name"),
        ("./typo", "no model directory"),
    ],
)
def test_a_name_that_is_no_agent_is_one_sentence_at_once(name, reason):
    began = time.perf_counter()
    with pytest.raises(LangAgentError, match=reason):
        make_agent(name, 2, DecideConfig())
    assert time.perf_counter() - began < 5


def test_a_folder_does_not_take_the_name_of_an_agent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("random", "expert", "babyai"):
        (tmp_path / name).mkdir()
        assert make_agent(name, 1).about["name"] == name


def test_agents_of_ones_own_and_untrained_ones_have_names(tmp_path):
    assert isinstance(make_agent("test_evaluation:Own", 2, DecideConfig()), Own)
    untrained = make_agent("untrained:nano", 2, DecideConfig(temperature=0))
    again = make_agent("untrained:nano", 2, DecideConfig(temperature=0))
    assert untrained.about == again.about
    assert len(untrained.about["weights"]) == 16
    found = evaluated(tmp_path / "r", untrained, tasks=TASKS[:1], episodes=2, slots=2)
    assert all(record.tokens_read > 0 for record in found.records)
    first = json.loads((tmp_path / "r" / "trajectories.jsonl").read_text().splitlines()[0])
    for step in first["steps"]:
        assert sum(step["probabilities"]) == pytest.approx(1, abs=1e-4)
        most = max(range(len(step["actions"])), key=lambda at: step["probabilities"][at])
        assert step["action"] == step["actions"][most]


def test_a_policy_brings_its_words_and_says_so_where_it_reads_others():
    policy = lang_agent.load_policy("babyai")
    env = lang_agent.make(LEVEL, like=policy, num_dists=0)
    assert env.unwrapped.prompt_name == "rooms"
    agent = PolicyAgent(policy, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(lang_agent.evaluate(agent, [env], 2)) == 1
    other = lang_agent.make(LEVEL, like=policy, prompt="minimal", num_dists=0)
    assert other.unwrapped.prompt_name == "minimal"
    with pytest.warns(UserWarning, match="trained with the prompt 'rooms' and reads 'minimal'"):
        lang_agent.evaluate(agent, [other], 2)
    with pytest.raises(LangAgentError, match="does not say in which words"):
        lang_agent.make(LEVEL, like=lang_agent.LanguagePolicy.from_scratch("nano", seed=0))


def test_other_words_than_its_own_stand_beside_the_figures(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    own = run(capsys, "evaluate", SHORT, "--agent", "babyai", "--episodes", "2")
    assert "in other words" not in own
    assert read_results(own.splitlines()[-1]).spec.agent["decide"]["decide"] == "constrained"
    other = ["evaluate", SHORT, "--agent", "babyai", "--episodes", "2", "--prompt", "minimal"]
    said = run(capsys, *other, "--temperature", "0")
    assert "in other words than it was trained in: prompt minimal, not rooms" in said
    assert "deciding otherwise than it was trained to" in said


def test_a_policy_carries_a_template_of_ones_own(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "part.jinja").write_text("Mine: {{ mission }}")
    (tmp_path / "words" / "own.jinja").write_text("{% include 'part.jinja' %}\nSay:")
    run(capsys, "train", "--env", "BabyAI-GoToObjS4-v0", "--steps", "20", "--rollout-steps", "20",
        "--envs", "2", "--eval-episodes", "0", "--no-gif", "--prompt", "words/own.jinja",
        "--out", "run")  # fmt: skip
    run(capsys, "export", "run", "model")
    (tmp_path / "words").rename(tmp_path / "gone")
    for folder in ("run", "model"):
        policy = lang_agent.load_policy(folder)
        prompt, _ = lang_agent.make("BabyAI-GoToObjS4-v0", like=policy).reset(seed=0)
        assert prompt.startswith("Mine: go to")
        said = run(capsys, "evaluate", "BabyAI-GoToObjS4-v0", "--agent", folder,
                   "--episodes", "1", "--out", f"of-{folder}")  # fmt: skip
        assert "other words" not in said
    one, other = (read_results(f"of-{folder}").spec.agent for folder in ("run", "model"))
    assert one["words"]["template"] == other["words"]["template"]
    assert one["weights"] == other["weights"]


def test_pandas_and_datasets_read_the_files_as_they_are(whole):
    pandas, datasets = pytest.importorskip("pandas"), pytest.importorskip("datasets")
    table = pandas.read_json(whole.folder / "episodes.jsonl", lines=True)
    assert list(table["steps"]) == [record.steps for record in whole.records]
    assert table["return"].mean() == pytest.approx(
        sum(record.total_reward for record in whole.records) / 10
    )
    for name in ("episodes", "trajectories"):
        file = str(whole.folder / f"{name}.jsonl")
        rows = datasets.load_dataset("json", data_files=file, split="train")
        assert rows["seed"] == [record.seed for record in whole.records]


def test_where_nobody_reads_on_a_table_ends_as_any_output_does():
    with pytest.raises(BrokenPipeError):
        console.on_broken_pipe()


def test_the_old_name_of_an_option_answers_with_the_new_one():
    with pytest.raises(LangAgentError, match="called --agent now"):
        cli.run(["evaluate", "--policy", "random"])


def test_a_record_has_one_type_a_field():
    lines = [asdict(Record("a", 1)), asdict(Record("b", 2, expert_steps=3))]
    assert [type(value) for value in lines[0].values()][:4] == [str, int, bool, float]


def test_a_stored_episode_is_filmed_with_the_probabilities_of_then(tmp_path, monkeypatch):
    level = ["BabyAI-GoToObjS4-v0", "--env-args", "max_steps=3"]
    cli.run(["evaluate", *level, "--agent", "untrained:nano", "--episodes", "2", "--trajectories",
             "--out", str(tmp_path / "r")])  # fmt: skip
    filmed = []
    monkeypatch.setattr(evaluation_cli, "film", lambda agent, env, seeds, file: filmed.extend(
        play(agent, [env], seeds)))  # fmt: skip
    cli.run(["replay", str(tmp_path / "r"), "--episode", "1", "--film", str(tmp_path / "a.gif")])
    (episode,) = filmed
    stored = [json.loads(line) for line in (tmp_path / "r/trajectories.jsonl").open()][1]
    assert episode.seed == stored["seed"]
    for step, before in zip(episode.steps, stored["steps"], strict=True):
        assert step.decision.action == before["action"]
        assert list(step.decision.probabilities) == before["probabilities"]
        assert step.decision.tokens.value == before["value"]
    with pytest.raises(LangAgentError, match="takes one episode"):
        cli.run(["replay", str(tmp_path / "r"), "--film", str(tmp_path / "a.gif")])
