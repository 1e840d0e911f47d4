"""The report: what stands in it, from whatever folders. In a browser: test_report_browser.py."""

from __future__ import annotations

import base64
import gzip
import json
import random
import re
import time
from dataclasses import replace

import pytest
import torch
from test_golden import BASE

from lang_agent import LangAgentError
from lang_agent.cli import main as cli
from lang_agent.cli import reporting
from lang_agent.episode import Agent, Decision
from lang_agent.evaluation import trajectories
from lang_agent.evaluation.records import Spec, read_results
from lang_agent.evaluation.run import TaskPlayer, evaluate_panel
from lang_agent.evaluation.tasks import Task, panel
from lang_agent.files import TellWarning
from lang_agent.report.charts import recipes
from lang_agent.report.episodes import as_data, packed, shown_places
from lang_agent.report.explain import CLOSE, explain, parts_of, steps_to_explain
from lang_agent.report.page import write_report
from lang_agent.report.sources import read_sources
from lang_agent.report.tables import confusion, panels
from lang_agent.text_env.config import TextConfig
from lang_agent.train.trainer import resume, start

ROOM = "BabyAI-GoToObjS4-v0"
TASKS = (Task(ROOM, "room", {"max_steps": 8}),)


def last_seen(prompt):
    """The lines on what is seen now."""
    return prompt.rsplit("Action:", 2)[-2].partition("\n")[2]


class Reader(Agent):
    """Turns where the prompt says that something is on its left or right, and is otherwise unsure
    between going and turning."""

    about = {"name": "reader"}  # noqa: RUF012

    def act(self, slots, observations):
        decisions = []
        for seen in observations:
            shares = {"turn left": 0.9 if " left" in last_seen(seen.prompt) else 0.3}
            shares["go forward"] = 0.95 - shares["turn left"]
            shares["turn right"] = 0.05
            chances = [shares.get(phrase, 0.0) for phrase in seen.actions]
            best = max(range(len(chances)), key=chances.__getitem__)
            decisions.append(Decision(seen.actions[best], best, probabilities=chances))
        return decisions


def play(folder, agent, episodes=3, tasks=TASKS, **options):
    agent.about = agent.about or {"name": type(agent).__name__}
    spec = Spec(agent.about, tuple(tasks), 10**9, episodes)
    make_env = lambda task: TextConfig(env_args=task.env_args).make(task.env)  # noqa: E731
    player = TaskPlayer(agent, make_env, keep_trajectories=True, slots=2, **options)
    evaluate_panel(spec, folder, player)
    return folder


def carried(page):
    """The data in a page."""
    (text,) = re.findall(r'id="data">([^<]*)<', page)
    return json.loads(gzip.decompress(base64.b64decode(text)))


def test_the_page_carries_what_was_played(tmp_path):
    play(tmp_path / "a", Reader())
    cli.run(["report", str(tmp_path / "a"), "--out", str(tmp_path / "r.html")])
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    data = carried(page)
    assert [agent["label"] for agent in data["agents"]] == ["reader"]
    stored = [json.loads(line) for line in (tmp_path / "a/trajectories.jsonl").open()]
    for episode, known in zip(data["episodes"], stored, strict=True):
        assert (episode["task"], episode["seed"]) == (known["task"], known["seed"])
        steps = episode["trajectory"]["steps"]
        assert trajectories.prompts({"steps": steps}) == trajectories.prompts(known)
        for step, before in zip(steps, known["steps"], strict=True):
            assert data["phrases"][step["actions"]] == before["actions"]
            assert step["probabilities"] == pytest.approx(before["probabilities"], abs=1e-4)
            assert step["cells"] == before["cells"]
    results = read_results(tmp_path / "a")
    assert f"{sum(r.success for r in results.records) / 3:.3f}" in page
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page


def test_the_summary_has_intervals_comparisons_and_published_figures(tmp_path):
    for name, agent in {"ours": "expert", "theirs": "constant:go forward"}.items():
        cli.run(["evaluate", "--suite", "balrog-babyai", "--agent", agent, "--episodes", "2",
                 "--out", str(tmp_path / name)])  # fmt: skip
    agents, runs = read_sources([tmp_path / "ours", tmp_path / "theirs"])
    (panel,) = panels(agents)
    assert panel.rows["goto"]["expert"].success == 1
    assert panel.tasks[-1] == "(all)"
    assert panel.published["putnext"]
    write_report(tmp_path / "r.html", agents, runs, most_episodes=10)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    difference = panel.comparisons[0].rows[0].difference
    for said in ("0.342–1.000", f"{difference:+.3f}", "best language model", "of 10</small>",
                 "Only their outcomes were kept"):  # fmt: skip
        assert said in page, said


def test_confusion_counts_what_was_said_by_what_was_wanted(tmp_path):
    play(tmp_path / "a", Reader())
    ((agent,), _) = read_sources([tmp_path / "a"])
    table = confusion(agent)
    stored = [json.loads(line) for line in (tmp_path / "a/trajectories.jsonl").open()]
    pairs = [(s["expert"], s["action"]) for t in stored for s in t["steps"] if s["expert"]]
    assert table.steps == len(pairs) > 0
    for row, wanted in enumerate(table.wanted):
        for column, said in enumerate(table.said):
            assert table.counts[row][column] == pairs.count((wanted, said))
    assert table.agreed == sum(one == other for one, other in pairs) / len(pairs)


def test_failures_are_shown_first_of_every_task_as_many_and_for_all_agents_alike(tmp_path):
    tasks = (Task(ROOM, "one", {"max_steps": 8}), Task(ROOM, "two", {"max_steps": 9}))
    for name in ("a", "b"):
        play(tmp_path / name, Reader(), episodes=6, tasks=tasks)
    agents, _ = read_sources([tmp_path / "a", tmp_path / "b"])
    (places,) = shown_places(agents, 4).values()
    assert [task for task, _ in places] == ["one", "one", "two", "two"]
    failed = {r.place for r in agents[0].results.records if not r.success}
    for task in ("one", "two"):
        mine = {place for place in failed if place[0] == task}
        shown = {place for place in places if place[0] == task}
        assert shown <= mine or mine <= shown
    data = as_data(agents, 4, {})
    assert [episode["agent"] for episode in data["episodes"]] == [0] * 4 + [1] * 4


def test_what_moved_a_choice_is_what_it_rests_on(tmp_path):
    play(tmp_path / "a", Reader(), episodes=6)
    ((agent,), _) = read_sources([tmp_path / "a"])
    (places,) = shown_places([agent], 200).values()
    wanted = steps_to_explain(agent, places, 200)
    assert wanted
    for place, number in wanted:
        step = agent.trajectories[place]["steps"][number]
        first, second, *_ = sorted(step["probabilities"], reverse=True)
        assert step["expert"] != step["action"] or first - second < CLOSE
    checked = 0
    for (_, task, seed, number), parts in explain(agent, Reader(), wanted):
        trajectory = agent.trajectories[task, seed]
        prompt = trajectories.prompts(trajectory)[number]
        begin = len(prompt) - len("Action: ") - len(last_seen(prompt))
        lefts = [part for part in parts
                 if part.begin >= begin and " left" in prompt[part.begin : part.end]]  # fmt: skip
        if len(lefts) == 1:
            said = trajectory["steps"][number]["action"]
            assert lefts[0].change == pytest.approx(0.6 if said == "turn left" else -0.6)
            checked += 1
        for part in parts:
            if " left" not in prompt[part.begin : part.end]:
                assert part.change == pytest.approx(0)
    assert checked
    assert [p for p, _ in steps_to_explain(agent, places, 2)] == [p for p, _ in wanted[:2]]


def test_parts_of_a_prompt_are_its_lines_and_what_stands_between_commas():
    prompt = "Goal: go. Then stop\nSee: a wall, a ball 1.5 off,\n\nlast, one\nAction: "
    assert [prompt[begin:end] for begin, end in parts_of(prompt)] == [
        "Goal: go. ", "Then stop\n", "See: a wall, ", "a ball 1.5 off,\n", "last, ", "one\n",
    ]  # fmt: skip
    assert parts_of("") == parts_of("Action: ") == []
    assert parts_of("See: x\ngo to the ball: ") == [(0, 7), (7, 23)]
    long = "goal\n" + "line\n" * 100 + "cue"
    assert len(parts_of(long)) == 40
    assert parts_of(long)[0] == (0, 5)


def test_explaining_asks_the_agent_that_played(tmp_path, capsys):
    arguments = ["evaluate", ROOM, "--episodes", "2", "--trajectories", "--out"]
    cli.run([*arguments, str(tmp_path / "a"), "--agent", "untrained:nano"])
    cli.run([*arguments, str(tmp_path / "b"), "--agent", "random"])
    cli.run(["report", str(tmp_path / "a"), str(tmp_path / "b"), "--explain", "--out",
             str(tmp_path / "r.html")])  # fmt: skip
    data = carried((tmp_path / "r.html").read_text(encoding="utf-8"))
    steps = [s for e in data["episodes"] for s in e["trajectory"]["steps"] if "explained" in s]
    assert 0 < len(steps) <= 200
    assert f"{len(steps)} choices" in capsys.readouterr().out
    spec = json.loads((tmp_path / "a/spec.json").read_text())
    spec["agent"]["weights"] = "others"
    (tmp_path / "a/spec.json").write_text(json.dumps(spec))
    cli.run(["report", str(tmp_path / "a"), "--explain", "--out", str(tmp_path / "r.html")])
    assert "other weights" in capsys.readouterr().out


def test_a_run_is_a_curve_and_its_snapshots_are_episodes(tmp_path):
    for seed in (1, 2):
        cli.run(["train", "--env", ROOM, "--steps", "60", "--rollout-steps", "16", "--envs", "2",
                 "--seed", str(seed), "--eval-episodes", "3", "--snapshot-every", "2",
                 "--snapshot-episodes", "2", "--env-args", "max_steps=4", "--out",
                 str(tmp_path / f"run{seed}")])  # fmt: skip
    agents, runs = read_sources([tmp_path / "run1", tmp_path / "run2"])
    updates = len(runs[0].metrics)
    assert [agent.label for agent in agents if agent.group == "run1"] == [
        f"run1, update {at}" for at in sorted({*range(0, updates + 1, 2), updates})
    ]
    assert [len(group) for _, group in recipes(runs)] == [2]  # they differ in the seed alone
    (panel,) = panels(agents)
    assert len(panel.agents) == len(agents)
    cli.run(["report", str(tmp_path / "run1"), str(tmp_path / "run2"), "--out",
             str(tmp_path / "r.html")])  # fmt: skip
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.count("<circle") == 8  # before and after, two runs, success and return
    data = carried(page)
    seeds = {(e["agent"], e["seed"]) for e in data["episodes"]}
    assert seeds == {(at, 10**9 + s) for at in range(len(agents)) for s in range(2)}


def test_snapshots_move_nothing_and_are_made_again_alike(tmp_path):

    base = replace(BASE, steps=200, checkpoint_every=1)
    plain = start(base, tmp_path / "plain")
    plain.run()
    run = start(replace(base, snapshot_every=1, snapshot_episodes=2), tmp_path / "run")
    run.run(lambda metrics: setattr(run, "stop", metrics["updates"] == 2))
    first = (tmp_path / "run/snapshots/000002/trajectories.jsonl").read_text()
    again = resume(tmp_path / "run")
    again.run()
    for name, weights in plain.policy.state_dict().items():
        assert torch.equal(weights, again.policy.state_dict()[name]), name
    assert (tmp_path / "run/snapshots/000002/trajectories.jsonl").read_text() == first
    names = sorted(path.name for path in (tmp_path / "run/snapshots").iterdir())
    assert names == [f"{at:06}" for at in range(again.progress.updates + 1)]


def test_a_page_without_anything_played_says_so(tmp_path):
    play(tmp_path / "a", Reader())
    for name in ("episodes.jsonl", "trajectories.jsonl"):
        (tmp_path / "a" / name).write_text("")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("seed: 1\n")
    cli.run(["report", str(tmp_path / "a"), str(tmp_path / "run"), "--out",
             str(tmp_path / "r.html")])  # fmt: skip
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "No episode of this panel was played yet" in page
    assert "There are no episodes to show" in page
    assert "no update yet" in page


def test_mistakes_are_sentences(tmp_path):
    play(tmp_path / "a", Reader())
    for arguments, said in (
        ([], "needs a folder"),
        ([str(tmp_path)], "holds neither results"),
        ([str(tmp_path / "a"), "--out", "x.pdf"], r"must end in \.html"),
        ([str(tmp_path / "a"), "--out", "/proc/x.html"], "Cannot write"),
        ([str(tmp_path / "a"), "--watch", "--explain"], "not both"),
    ):
        with pytest.raises(LangAgentError, match=said):
            cli.run(["report", *arguments])


DAMAGES = {
    "kept": -1, "new": None, "action": 3, "reason": None, "verdict": [], "expert": {},
    "reward": "x", "value": True, "actions": "abc", "probabilities": [0.5], "written": [{}],
    "cells": {"agent": [1, 2]},
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_episodes_are_left_out_with_a_warning(tmp_path, name):
    play(tmp_path / "a", Reader())
    file = tmp_path / "a/trajectories.jsonl"
    lines = [json.loads(line) for line in file.open()]
    lines[1]["steps"][0][name] = DAMAGES[name]
    file.write_text("\n".join(map(json.dumps, lines)) + "\n")
    with pytest.warns(TellWarning, match="line 2, is left out"):
        ((agent,), _) = read_sources([tmp_path / "a"])
    assert len(agent.trajectories) == 2
    write_report(tmp_path / "r.html", [agent], [], most_episodes=10)


def test_what_a_world_or_model_says_ends_no_tag_and_runs_nothing(tmp_path):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    agent = Reader()
    agent.about = {"name": evil}
    play(tmp_path / "a", agent)
    spec = json.loads((tmp_path / "a/spec.json").read_text())
    assert spec["agent"]["name"] == evil
    cli.run(["report", str(tmp_path / "a"), "--out", str(tmp_path / "r.html")])
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "<img" not in page
    assert page.count("<script") == page.count("</script>") == 2
    assert packed({"x": evil}).isascii()
    assert "<" not in packed({"x": evil})


def test_two_hundred_long_episodes_are_a_small_page_soon(tmp_path):
    """Episodes of 128 steps in the transcript's words, every phrase weighed, an expert beside."""
    play(tmp_path / "a", Reader(), episodes=1, tasks=[Task("BabyAI-GoTo-v0", "room")])
    stored = json.loads((tmp_path / "a/trajectories.jsonl").read_text())
    spec = json.loads((tmp_path / "a/spec.json").read_text())
    record = json.loads((tmp_path / "a/episodes.jsonl").read_text())
    spec["episodes"] = 200
    spec["panel"] = panel([Task("BabyAI-GoTo-v0", "room")], range(10**9, 10**9 + 200))
    (tmp_path / "a/spec.json").write_text(json.dumps(spec))
    draw = random.Random(0)
    words = [
        "a",
        "wall",
        "red",
        "green",
        "blue",
        "ball",
        "box",
        "key",
        "door",
        "steps",
        "forward",
        "left",
        "right",
        "You",
        "see",
    ]
    with (tmp_path / "a/trajectories.jsonl").open("w") as file:
        for seed in range(200):
            steps = []
            for number in range(128):
                step = dict(stored["steps"][number % len(stored["steps"])])
                if number:
                    step["cells"] = {"agent": [draw.randrange(22), draw.randrange(22), 1],
                                     "carrying": None, "changed": []}  # fmt: skip
                    step["kept"], step["new"] = (
                        40 + 150 * number,
                        " ".join(draw.choices(words, k=40)),
                    )
                step["probabilities"] = [round(draw.random(), 6) for _ in step["actions"]]
                step["value"] = draw.random()
                steps.append(step)
            episode = {**stored, "seed": 10**9 + seed, "steps": steps}
            file.write(json.dumps(episode) + "\n")
    with (tmp_path / "a/episodes.jsonl").open("w") as file:
        for seed in range(200):
            file.write(json.dumps({**record, "seed": 10**9 + seed, "steps": 128}) + "\n")
    began = time.perf_counter()
    cli.run(["report", str(tmp_path / "a"), "--out", str(tmp_path / "r.html")])
    assert time.perf_counter() - began < 30
    size = (tmp_path / "r.html").stat().st_size
    assert 10**6 < size < 5 * 2**20
    assert len(carried((tmp_path / "r.html").read_text())["episodes"]) == 200


def test_a_watched_report_is_made_anew_and_at_the_end_stays(tmp_path, monkeypatch):
    play(tmp_path / "a", Reader(), episodes=1)
    out = tmp_path / "r.html"
    seen = []

    def look(seconds):
        seen.append("data-refresh" in out.read_text(encoding="utf-8"))
        if len(seen) == 2:
            raise KeyboardInterrupt
        lines = (tmp_path / "a/episodes.jsonl").read_text()
        (tmp_path / "a/episodes.jsonl").write_text(lines.replace('"steps": ', '"steps": 1'))

    monkeypatch.setattr(reporting.time, "sleep", look)
    with pytest.raises(KeyboardInterrupt):
        cli.run(["report", str(tmp_path / "a"), "--watch", "--out", str(out)])
    page = out.read_text(encoding="utf-8")
    assert seen == [True, True]
    assert "data-refresh" not in page
    assert carried(page)["episodes"][0]["steps"] >= 10
