"""Runs and evaluations on Ray: the same as without, whoever dies."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
import torch
from test_workers import RUN, TOLERANCE, metrics, wait_for

from lang_agent import LangAgentError
from lang_agent.bridges.ray_cluster import MOST_DEATHS, Channel
from lang_agent.cli import main as cli
from lang_agent.cli.ray_training import _refuse_other_versions
from lang_agent.config import load_config
from lang_agent.models.store import list_checkpoints, load_policy
from lang_agent.processes import cores
from lang_agent.ray_connection import connected
from lang_agent.train.config import TrainConfig
from lang_agent.train.trainer import resume, start

pytest.importorskip("ray")
MARK = "LANG_AGENT_TESTS"


@pytest.fixture
def mark(monkeypatch):
    """Stands in the environment of every process that the test starts, and of all that those do."""
    name = uuid.uuid4().hex
    monkeypatch.setenv(MARK, name)
    return name


def processes(mark: str, title: str = "") -> list[int]:
    """The processes with the mark, but for this one, and zombies."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit() and place.name != str(os.getpid()):
            try:
                environment = (place / "environ").read_bytes()
                said = (place / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if f"{MARK}={mark}".encode() in environment and title in said:
                found.append(int(place.name))
    return found


def workers(mark: str) -> list[int]:
    return processes(mark, "RayTrainWorker")


def write_run(folder: Path, **changes) -> Path:
    folder.mkdir(exist_ok=True)
    lines = [f"{name}: {value}" for name, value in changes.items()]
    kept = [line for line in RUN.splitlines() if line.split(":")[0] not in changes]
    (folder / "run.yaml").write_text("\n".join([*kept, *lines]) + "\n")
    return folder / "run.yaml"


def begun(folder: Path, *options: str, **process) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lang_agent", *options],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **process,
    )


def said_by(folder: Path, *options: str) -> str:
    process = begun(folder, *options)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    return said


TRAIN = ("train", "--config", "run.yaml", "--out", "run")


def parameters(run: Path) -> dict[str, torch.Tensor]:
    model = load_policy(str(list_checkpoints(run)[-1])).state_dict()
    return {name: value for name, value in model.items() if not name.endswith("c_attn.bias")}


def apart(one: Path, other: Path, but: float = 0) -> float:
    """The largest difference; ``but`` for this part of the parameters, since AdamW moves one whose
    gradient is of rounding's own size by any part of a step."""
    ours, theirs = parameters(one), parameters(other)
    assert list_checkpoints(one)[-1].name == list_checkpoints(other)[-1].name
    found = torch.cat([(ours[name] - theirs[name]).abs().flatten() for name in ours])
    return found.sort().values[-1 - int(but * len(found))].item()


linux = pytest.mark.skipif(
    not Path("/proc/self/environ").exists() or cores() < 2,
    reason="it looks into /proc, and its workers take two cores",
)


@linux
def test_a_run_on_ray_is_the_run_of_one_process_and_goes_on_without(tmp_path, mark, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = write_run(tmp_path, steps=90, eval_episodes=0, track="[none]")
    cli.run([*TRAIN, "--workers", "2", "--address", "local"])
    wait_for(lambda: not processes(mark), 20)
    config = load_config(file, TrainConfig, trust=True)
    start(config, tmp_path / "alone").run()
    assert apart(tmp_path / "run", tmp_path / "alone", but=1e-3) < TOLERANCE
    both = [resume(tmp_path / name, steps=150) for name in ("run", "alone")]
    both[0].config = both[1].config  # in one process
    for run in both:
        run.run()
    assert both[0].progress.recent == both[1].progress.recent
    assert apart(tmp_path / "run", tmp_path / "alone", but=1e-3) < TOLERANCE


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:PORT", "cannot be reached.*ray start --head --port"),
        ("ray://127.0.0.1:10001", "must be local, auto, or HOST:PORT"),
        ("here", "must be local, auto, or HOST:PORT"),
    ],
)
def test_a_cluster_that_cannot_be_reached_is_a_sentence(address, reason):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        with (
            pytest.raises(LangAgentError, match=reason),
            connected(address.replace("PORT", str(port))),
        ):
            pass


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(LangAgentError, match=r"pip install 'lang_agent\[ray\]'"),
        connected("local"),
    ):
        pass


def test_nodes_with_other_versions_are_a_sentence():
    class Told:
        def gather(self, mine):
            return [
                ("one", {"torch": "2.0", "numpy": "2"}),
                ("two", {"torch": "2.1", "numpy": "2"}),
            ]

    with pytest.raises(LangAgentError, match=r"two has torch 2\.1 and one has 2\.0"):
        _refuse_other_versions(Told())


def test_deaths_without_progress_end_a_run_and_those_with_it_do_not():
    channel = Channel()
    for place in range(2 * MOST_DEATHS):
        assert channel.begin(place) == place
        channel.died("Worker 1 of 2", "it was killed")
    assert channel.ending() is None
    assert len(channel.read()) == 2 * MOST_DEATHS
    for _ in range(MOST_DEATHS - 1):
        channel.died("Worker 1 of 2", "it was killed")
    how, sentence = channel.ending()
    assert how == "failed"
    assert "without any progress, at last: it was killed" in sentence


def test_the_cluster_file_follows_ray_s_own_schema():
    import jsonschema
    import ray
    import yaml

    schema = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
    cluster = yaml.safe_load((Path(__file__).parent.parent / "docs/ray/cluster.yaml").read_text())
    jsonschema.validate(cluster, json.loads(schema.read_text()))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**cluster, "workers": 3}, json.loads(schema.read_text()))


# -- what takes a minute each ------------------------------------------------------------------


@linux
@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
def test_ten_updates_on_ray_and_of_one_process(size, tmp_path, mark):
    file = write_run(tmp_path, steps=480, eval_episodes=0)
    said_by(tmp_path, *TRAIN, "--workers", str(size), "--address", "local")
    start(load_config(file, TrainConfig, trust=True), tmp_path / "alone").run()
    by = apart(tmp_path / "run", tmp_path / "alone", but=1e-3)
    print(f"{size} workers, {len(metrics(tmp_path))} updates: {by:.1e}")
    assert len(metrics(tmp_path)) >= 10
    assert by < 1e-4


@linux
@pytest.mark.slow
def test_workers_killed_twenty_times_at_random_leave_no_trace(tmp_path, mark):
    draw = random.Random(7)
    write_run(tmp_path, steps=6000, eval_episodes=0)
    process = begun(
        tmp_path, *TRAIN, "--workers", "2", "--address", "local", "--checkpoint-every", "1"
    )
    kills = made = 0
    while process.poll() is None:
        time.sleep(0.05)
        if kills == 20 or not (alive := workers(mark)):
            continue
        learning = kills % 5 != 4  # each fifth as they start
        if learning and not has_made(tmp_path, made + 1)():
            continue
        time.sleep(draw.uniform(0, 4 if learning else 8))  # it plays, learns or saves
        if alive := [one for one in alive if one in workers(mark)]:
            made = len(metrics(tmp_path)) if has_made(tmp_path, 1)() else 0
            os.kill(draw.choice(alive), signal.SIGKILL)
            kills += 1
            wait_for(lambda dead=alive: not {*dead} & {*workers(mark)})
    said, _ = process.communicate()
    print(said)
    assert process.returncode == 0
    assert kills == 20
    assert said.count("died: going on") > 10  # the others died before they had begun
    wait_for(lambda: not processes(mark), 20)
    (tmp_path / "run").rename(tmp_path / "hurt")
    done = [one["updates"] for one in metrics_of(tmp_path / "hurt")]
    assert done == list(range(1, len(done) + 1))  # none is lost, none made twice
    said_by(tmp_path, *TRAIN, "--workers", "2")
    by = apart(tmp_path / "hurt", tmp_path / "run")
    episodes = [
        [one["episodes"] for one in metrics_of(tmp_path / name)] for name in ("hurt", "run")
    ]
    print(f"{kills} kills, {len(done)} updates: {by:.1e}")
    assert episodes[0] == episodes[1]
    assert by < 1e-6


def metrics_of(run: Path):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def has_made(folder: Path, updates: int):
    file = folder / "run" / "metrics.jsonl"
    return lambda: file.is_file() and file.read_text().count("\n") >= updates


@linux
@pytest.mark.slow
def test_a_killed_command_leaves_nobody_behind_and_its_run_goes_on(tmp_path, mark):
    write_run(tmp_path, steps=700, eval_episodes=0)
    process = begun(
        tmp_path, *TRAIN, "--workers", "2", "--address", "local", "--checkpoint-every", "1"
    )
    wait_for(has_made(tmp_path, 3))
    process.kill()
    process.communicate(timeout=30)
    wait_for(lambda: not processes(mark), 40)
    said_by(tmp_path, "train", "--resume", "run", "--address", "local")
    (tmp_path / "run").rename(tmp_path / "hurt")
    said_by(tmp_path, *TRAIN, "--workers", "2")
    assert apart(tmp_path / "hurt", tmp_path / "run") < 1e-6


@linux
@pytest.mark.slow
def test_ctrl_c_saves_and_ends_everybody(tmp_path, mark):
    write_run(tmp_path, steps=100_000, eval_episodes=0)
    process = begun(
        tmp_path, *TRAIN, "--workers", "2", "--address", "local", start_new_session=True
    )
    wait_for(has_made(tmp_path, 1))
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "lang-agent train --resume run --address local" in said
    assert "Traceback" not in said
    wait_for(lambda: not processes(mark), 20)
    updates = len(metrics(tmp_path))
    run = resume(tmp_path / "run")
    assert run.progress.updates == updates  # the last one is saved


@pytest.mark.slow
def test_what_cannot_be_done_is_a_sentence_there_too(tmp_path):
    write_run(tmp_path, steps=60, eval_episodes=0)
    said_by(tmp_path, *TRAIN)
    cases = {
        "holds a run already: --resume it": (*TRAIN, "--address", "local"),
        "has room for": (*TRAIN, "--workers", "500", "--address", "local"),
        "no GPU: set device to cpu": (*TRAIN, "--device", "cuda", "--address", "local"),
    }
    for reason, options in cases.items():
        process = begun(tmp_path, *options)
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 2, said
        assert reason in said.strip().splitlines()[-1]
        assert "Traceback" not in said


@linux
@pytest.mark.slow
def test_a_node_that_leaves_is_replaced_by_another(tmp_path, mark):
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
    write_run(tmp_path, steps=1500, eval_episodes=0)
    try:
        options = ("--address", cluster.address, "--checkpoint-every", "1")
        process = begun(tmp_path, *TRAIN, "--workers", "2", *options)
        wait_for(has_made(tmp_path, 3))
        busy = {Path(f"/proc/{one}/stat").read_text().split()[3] for one in workers(mark)}
        assert len(busy) == 2  # a worker's parent is its node
        leaving = next(n for n in nodes if str(raylet_of(n)) in busy)
        cluster.remove_node(leaving, allow_graceful=False)
        said, _ = process.communicate(timeout=500)
        print(said)
        assert process.returncode == 0, said
        assert "died: going on from the last checkpoint" in said
        process = begun(tmp_path, *TRAIN[:3], "--out", "many", "--workers", "3", *options)
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 2, said
        assert "has room for 2" in said
    finally:
        cluster.shutdown()
    (tmp_path / "run").rename(tmp_path / "hurt")
    said_by(tmp_path, *TRAIN, "--workers", "2")
    assert apart(tmp_path / "hurt", tmp_path / "run") < 1e-6


def raylet_of(node) -> int:
    return node.all_processes["raylet"][0].process.pid


EVALUATE = ("evaluate", "BabyAI-GoToObjS4-v0", "BabyAI-GoToLocal-v0", "--agent", "babyai",
            "--episodes", "30", "--precision", "fp32")  # fmt: skip


@linux
@pytest.mark.slow
def test_an_evaluation_on_ray_is_that_of_one_process_also_where_a_worker_dies(tmp_path, mark):
    said_by(tmp_path, *EVALUATE, "--out", "alone")
    process = begun(tmp_path, *EVALUATE, "--out", "ray", "--workers", "2", "--address", "local")
    file = tmp_path / "ray" / "episodes.jsonl"
    wait_for(lambda: file.is_file() and file.read_text().count("\n") >= 5)
    os.kill(processes(mark, "ray::Player")[0], signal.SIGKILL)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    wait_for(lambda: not processes(mark), 20)
    read = [(tmp_path / name / "summary.json").read_text() for name in ("alone", "ray")]
    assert read[0] == read[1]
    records = [
        [{**json.loads(line), "seconds": 0} for line in (tmp_path / name / "episodes.jsonl").open()]
        for name in ("alone", "ray")
    ]
    assert records[0] == records[1]
