"""Several workers: the same run as one process, whatever is learned and whoever dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from test_golden import BASE, CASES, ROUNDED, make_policy

from lang_agent import LangAgentError
from lang_agent.config import load_config
from lang_agent.evaluation.summary import as_json
from lang_agent.learn.sequences import Sample
from lang_agent.learn.workers import Workers
from lang_agent.processes import cores
from lang_agent.processes import start as start_process
from lang_agent.train import workers
from lang_agent.train.config import TrainConfig
from lang_agent.train.trainer import Trainer, resume, start
from lang_agent.train.workers import HOST, meet, worker_count

TOLERANCE = 3e-5  # of rounding, which AdamW makes larger where gradients are small
FEW = ("trpo", "hindsight", "kl-reward", "generate-tokens", "ppo-muon")


def begin(name: str, folder: Path) -> Trainer:
    config = CASES[name]
    return start(config, folder, make_policy(prose=config.decide.decide == "generate"))


def parameters(run: Trainer) -> torch.Tensor:
    # A key's bias has gradient 0 but for rounding, whose sign decides where AdamW moves it.
    kept = [p for name, p in run.policy.named_parameters() if not name.endswith("c_attn.bias")]
    return torch.cat([parameter.detach().flatten() for parameter in kept])


def lead(run: Trainer, updates: int) -> None:
    """Train so many updates, and end the workers' part in it."""

    def stop(metrics):
        run.stop = metrics["updates"] == updates

    run.run(stop)
    run.workers.say(None)


def main(rank: int, size: int, port: int, out: str) -> None:
    """A worker that learns whatever the first one says, and keeps what it ends with."""
    meet(dist.TCPStore(HOST, port, size), rank, size)
    workers = Workers(rank, size)
    while (said := workers.say()) is not None:
        name, folder, checkpoint = said
        run = Trainer(CASES[name], Path(folder), checkpoint=Path(checkpoint))
        run.join(workers)
        run.follow()
        torch.save(parameters(run), Path(out) / f"{name}-{rank}.pt")
    dist.destroy_process_group()


def learned_together(
    size: int, updates: int, folder: Path, cases: Iterable[str] = CASES
) -> dict[str, float]:
    """For every case the largest difference between what ``size`` workers and one come to."""
    store = dist.TCPStore(HOST, 0, size, is_master=True, wait_for_workers=False)
    command = [sys.executable, __file__]
    others = [
        subprocess.Popen([*command, str(rank), str(size), str(store.port), str(folder)])
        for rank in range(1, size)
    ]
    apart, ends = {}, {}
    try:
        meet(store, 0, size)
        workers = Workers(0, size)
        for name in cases:
            alone, ours = begin(name, folder / f"{name}-alone"), begin(name, folder / name)
            lead(alone, updates)
            workers.say((name, str(ours.folder), str(ours.saved)))
            ours.join(workers)
            lead(ours, updates)
            assert ours.progress.recent == alone.progress.recent, name  # the same episodes
            ends[name] = parameters(ours)
            apart[name] = (ends[name] - parameters(alone)).abs().max().item()
        workers.say(None)
        assert [other.wait(60) for other in others] == [0] * len(others)
    finally:
        for other in others:
            other.kill()
        dist.destroy_process_group()
    for name, ours in ends.items():  # nobody drifts away from the others
        for rank in range(1, size):
            assert torch.equal(ours, torch.load(folder / f"{name}-{rank}.pt")), (name, rank)
    return apart


def test_three_workers_learn_what_one_does(tmp_path):
    apart = learned_together(3, 2, tmp_path, FEW)
    too_far = {n: by for n, by in apart.items() if by > ROUNDED.get(n, TOLERANCE)}
    assert not too_far


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_ten_updates_of_several_workers_and_of_one(size, tmp_path):
    apart = learned_together(size, 10, tmp_path)
    print(json.dumps({name: f"{by:.1e}" for name, by in apart.items()}))
    assert max(by for name, by in apart.items() if name not in ROUNDED) < 1e-4


@pytest.mark.slow
def test_a_whole_run_has_the_same_curve_with_two_workers(tmp_path):
    (tmp_path / "two").mkdir()
    together = begun(tmp_path / "two", "--workers", "2", "--steps", "3000")
    said, _ = together.communicate(timeout=900)
    assert together.returncode == 0, said
    alone = begun(tmp_path / "one", "--steps", "3000")
    said, _ = alone.communicate(timeout=900)
    assert alone.returncode == 0, said
    one, two = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    apart = [abs(a["success"] - b["success"]) for a, b in zip(one, two, strict=False)]
    print(json.dumps({"updates": len(one), "apart": max(apart), "end": one[-1]["success"]}))
    assert one[-1]["success"] > one[0]["success"] + 0.2
    assert max(apart) < 0.1


def sample(tokens):
    return Sample(list(range(tokens)), columns=[tokens - 1])


def test_shares_are_a_partition_with_about_as_many_tokens_each():
    samples = [sample(length) for length in (100, 1, 90, 2, 80, 3, 70, 4, 60)]
    shares = [Workers(rank, 3).share(samples) for rank in range(3)]
    assert sorted(id(one) for share in shares for one in share) == sorted(map(id, samples))
    sizes = [sum(len(one.token_ids) for one in share) for share in shares]
    assert max(sizes) - min(sizes) <= 60
    assert Workers().share(samples) == samples
    assert Workers(2, 3).share(samples[:1]) == []


# -- processes ---------------------------------------------------------------------------------

RUN = """
env: BabyAI-GoToObjS4-v0
text: {prompt: minimal, env_args: [max_steps=12]}
steps: 400
rollout_steps: 48
envs: 3
seed: 5
precision: fp32
eval_episodes: 6
snapshot_every: 0
"""


def begun(folder: Path, *options: str, **process):
    folder.mkdir(exist_ok=True)
    (folder / "run.yaml").write_text(RUN)
    command = [sys.executable, "-m", "lang_agent", "train", "--config", "run.yaml", "--out", "run"]
    return subprocess.Popen(
        [*command, *options],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **process,
    )


def metrics(folder: Path):
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for(condition, seconds=300.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)
    return found


def has_learned(folder: Path):
    file = folder / "run" / "metrics.jsonl"
    return lambda: file.is_file() and file.read_text().count("\n") >= 1


def test_the_command_trains_evaluates_and_ends_as_with_one(tmp_path):
    together = begun(tmp_path, "--workers", "2")
    alone = start(load_config(tmp_path / "run.yaml", TrainConfig, trust=True), tmp_path / "alone")
    before = alone.evaluate(6)
    theirs = []
    alone.run(lambda metrics: theirs.append(dict(metrics)))
    said, _ = together.communicate(timeout=300)
    assert together.returncode == 0, said
    same = ("steps", "episodes", "updates", "success", "return")
    assert [[one[key] for key in same] for one in metrics(tmp_path)] == [
        [one[key] for key in same] for one in theirs
    ]
    rows = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert rows["before"] == as_json(before)
    assert rows["after"][0]["episodes"] == 6


proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="it looks into /proc")


@proc
def test_a_killed_worker_ends_the_run_with_a_sentence_and_the_run_goes_on(tmp_path):
    process = begun(tmp_path, "--workers", "2", "--steps", "100000", "--checkpoint-every", "1")
    wait_for(has_learned(tmp_path))
    (other,) = children(process.pid)
    os.kill(other, signal.SIGKILL)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 2
    last = said.strip().splitlines()[-1]
    assert "Worker 2 of 2 was killed by signal 9" in last
    assert "Traceback" not in said
    done = metrics(tmp_path)[-1]["steps"]
    edit = (tmp_path / "run" / "config.yaml").read_text().replace("workers: 2", "workers: 1")
    (tmp_path / "run" / "config.yaml").write_text(edit)
    run = resume(tmp_path / "run", steps=done + 40)
    run.run()
    assert run.progress.steps >= done + 40


@proc
@pytest.mark.slow
def test_a_killed_leader_leaves_nobody_behind(tmp_path):
    process = begun(tmp_path, "--workers", "2", "--steps", "100000")
    wait_for(has_learned(tmp_path))
    (other,) = children(process.pid)
    process.kill()
    process.communicate(timeout=30)
    wait_for(lambda: not Path(f"/proc/{other}").exists(), 20)


def test_a_worker_that_never_comes_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "start", lambda module, **pipes: start_process("keyword", **pipes))
    run = start(replace(BASE, workers=2), tmp_path / "run", make_policy(prose=False))
    with pytest.raises(LangAgentError, match="Worker 2 of 2 ended with status 0"):
        run.run()


@proc
def test_ctrl_c_ends_all_workers_after_the_update(tmp_path):
    process = begun(tmp_path, "--workers", "2", "--steps", "100000", start_new_session=True)
    wait_for(has_learned(tmp_path))
    (other,) = children(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Go on with:" in said
    assert not Path(f"/proc/{other}").exists()


def test_how_many_workers_there_are():
    class Policy(torch.nn.Linear):
        device = torch.device("cpu")

    small = Policy(2, 2)
    assert worker_count(BASE, small) == 1
    assert worker_count(replace(BASE, workers="auto"), small) == max(min(cores(), BASE.envs), 1)
    small.device = torch.device("cuda")
    assert worker_count(replace(BASE, workers="auto"), small) == 1
    with pytest.raises(LangAgentError, match="workers=2 take a GPU each, from the first one on"):
        worker_count(replace(BASE, workers=2), small)
    with pytest.raises(LangAgentError, match="workers=some must be a number"):
        replace(BASE, workers="some")
    with pytest.raises(LangAgentError, match="workers=0 must be"):
        replace(BASE, workers=0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), sys.argv[4])
