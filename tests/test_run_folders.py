"""Run folders: begun whole, kept to one process, and read back however they were damaged."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
import warnings
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kill_server import Runs, outcome
from test_golden import BASE, make_policy

from lang_agent import LangAgentError
from lang_agent.cli import main as cli
from lang_agent.evaluation.run_records import read_evaluations
from lang_agent.files import TellWarning
from lang_agent.lock import FolderLock
from lang_agent.models import sealed
from lang_agent.models.sealed import damage
from lang_agent.models.store import list_checkpoints, load_policy, save_whole
from lang_agent.train import run_log, trainer
from lang_agent.train.trainer import resume, start

CONFIG = replace(
    BASE, steps=140, rollout_steps=24, checkpoint_every=1,
    learn=replace(BASE.learn, kl_coef=0.1, kl_target=0.01),
)  # fmt: skip


def state(run: trainer.Trainer) -> dict[str, object]:
    """All that decides how the run goes on."""
    tensors = {**run.policy.state_dict(), **run.learner.optimizer.state_tensors()}
    if run.reference and run.reference.frozen:
        tensors |= {f"ref.{k}": v for k, v in run.reference.frozen.state_dict().items()}
    return {
        "tensors": {name: tensor.clone() for name, tensor in tensors.items()},
        "progress": deepcopy(run.progress),
        "config": run.config,
        "words": run.policy.encode_prompt("Goal: go to the red ball, 2 steps left"),
    }


def equal(one: dict, two: dict) -> bool:
    return (
        one["tensors"].keys() == two["tensors"].keys()
        and all(torch.equal(t, two["tensors"][n]) for n, t in one["tensors"].items())
        and all(one[name] == two[name] for name in ("progress", "config", "words"))
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run that was stopped after two updates, and its state after each of them."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    run = start(CONFIG, folder, make_policy(False))
    states = {0: state(run)}

    def note(metrics):
        states[metrics["updates"]] = state(run)
        run.stop = metrics["updates"] == 2

    run.run(note)
    (folder / "evaluation.json").write_text('{"before": []}')
    return folder, states


@pytest.fixture
def copy(made, tmp_path) -> Path:
    return Path(shutil.copytree(made[0], tmp_path / "run"))


def newest(folder: Path) -> Path:
    return list_checkpoints(folder)[-1]


# -- beginning -------------------------------------------------------------------------------------


def test_a_run_can_be_resumed_before_its_first_rollout(made, tmp_path):
    start(CONFIG, tmp_path / "run", make_policy(False))
    assert equal(state(resume(tmp_path / "run")), made[1][0])
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["step-0000000000"]


def test_a_folder_with_nothing_but_its_configuration_begins_at_the_start(tmp_path):
    """As version 0.1.0 left runs that were killed before their first checkpoint."""
    make_policy(False).save_pretrained(tmp_path / "model")
    config = replace(CONFIG, model=str(tmp_path / "model"))
    start(config, tmp_path / "whole").run()
    start(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / "metrics.jsonl").write_text('{"updates": 1, "steps": 30}\n')
    with pytest.warns(TellWarning, match="begins at its start"):
        again = resume(tmp_path / "run")
    again.run()
    ends = [newest(tmp_path / name) / "model.safetensors" for name in ("whole", "run")]
    assert ends[0].read_bytes() == ends[1].read_bytes()
    assert (tmp_path / "run" / "metrics.jsonl-before").exists()


def test_a_start_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(LangAgentError, match="Unknown environment"):
        start(replace(CONFIG, env="BabyAI-Nowhere-v0"), tmp_path / "a" / "run", make_policy(False))
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(LangAgentError, match="Unknown environment"):
        start(replace(CONFIG, env="BabyAI-Nowhere-v0"), tmp_path / "mine", make_policy(False))
    assert {path.name for path in (tmp_path / "mine").iterdir()} <= {"notes.txt", ".lock"}
    start(CONFIG, tmp_path / "mine", make_policy(False))  # and can be made then


@pytest.mark.parametrize("what", ["checkpoints", "metrics.jsonl"])
def test_the_remains_of_a_run_are_neither_taken_nor_deleted(copy, what):
    (copy / "config.yaml").unlink()
    for path in copy.iterdir():
        if path.name != what:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = sorted(copy.rglob("*"))
    with pytest.raises(LangAgentError, match=rf"holds {what} of a run whose config\.yaml is gone"):
        start(CONFIG, copy, make_policy(False))
    with pytest.raises(LangAgentError, match=r"has no config\.yaml"):
        resume(copy)
    assert [path for path in sorted(copy.rglob("*")) if path.name != ".lock"] == before


@pytest.mark.parametrize("name", ["ru:n", "a b", "constant:x", "ru'n", "läuft", "[b]", "%s"])
def test_folders_of_any_name_work(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path(name)
    run = start(replace(CONFIG, steps=20), folder, make_policy(False))
    run.run()
    resume(folder)
    assert equal(state(resume(folder)), state(run))
    cli.run(["evaluate", "BabyAI-GoToObjS4-v0", "--agent", f"./{name}", "--episodes", "1",
             "--json", f"{name}.json"])  # fmt: skip
    assert json.loads(Path(f"{name}.json").read_text())["evaluations"][0]["episodes"] == 1


def test_a_place_that_cannot_be_written_to_is_one_sentence(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for place in (file, file / "under", tmp_path / "link", tmp_path / ("x" * 300),
                  Path("/proc/run"), Path("nu\0ll")):  # fmt: skip
        with pytest.raises(LangAgentError, match=r"Cannot write|null byte"):
            start(CONFIG, place, make_policy(False))
        with pytest.raises(LangAgentError, match="no run folder"):
            resume(place)
    assert file.read_text() == "mine"


# -- one process at a time -------------------------------------------------------------------------


def in_a_fork(work) -> int:
    """Do ``work`` in another process, which then sleeps; returns its id once the work is done."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os.write(theirs, b"x")
            time.sleep(60)
        finally:
            os._exit(1)
    os.read(ours, 1)
    return pid


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_second_process_is_refused_until_the_first_is_dead(copy):
    lock = FolderLock(copy)
    pid = in_a_fork(lock.__enter__)
    try:
        with pytest.raises(LangAgentError, match=f"in use by process {pid} on"):
            resume(copy)
        policy = make_policy(False)
        with pytest.raises(LangAgentError, match="in use by"):
            start(CONFIG, copy, policy)
    finally:
        end(pid)
    resume(copy)


def test_a_forked_process_does_not_keep_the_lock(copy):
    lock = FolderLock(copy)
    with lock, lock:  # it holds however often its owner enters it
        pid = in_a_fork(lambda: None)
        with pytest.raises(LangAgentError, match="in use"):
            FolderLock(copy).__enter__()
    try:
        with FolderLock(copy):
            pass
    finally:
        end(pid)


def test_a_file_system_without_locks_is_told_of(copy, monkeypatch):
    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with pytest.warns(TellWarning, match="cannot be locked"):
        resume(copy)


def test_a_run_that_went_on_elsewhere_is_not_written_over(copy):
    one, other = resume(copy), resume(copy)
    other.run()
    with pytest.raises(LangAgentError, match="has gone on to step-"):
        one.run()


# -- damage ----------------------------------------------------------------------------------------


def flipped(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :]


DAMAGES = {
    "removed": None,
    "emptied": lambda data, draw: b"",
    "cut": lambda data, draw: data[: draw.randrange(max(len(data), 1))],
    "flipped": flipped,
    "garbage": lambda data, draw: draw.randbytes(max(len(data), 40)),
    "text": lambda data, draw: b"{}\n",
}


def damaged_copies(folder: Path, tmp_path: Path, times: int, every: int):
    draw, case = random.Random(7), 0
    for number in range(times):
        for file in sorted(folder.rglob("*")):
            if not file.is_file() or file.stat().st_size == 0:
                continue
            for name, change in DAMAGES.items():
                case += 1
                if case % every:
                    continue
                copy = tmp_path / f"{number}-{name}"
                shutil.rmtree(copy, ignore_errors=True)
                shutil.copytree(folder, copy)
                victim = copy / file.relative_to(folder)
                if change is None:
                    victim.unlink()
                else:
                    victim.write_bytes(change(file.read_bytes(), draw))
                yield copy, f"{name} {file.relative_to(folder)}"


def campaign(made, tmp_path: Path, times: int = 1, every: int = 1) -> dict[str, int]:
    folder, states = made
    found, refusals = {"same": 0, "older": 0}, {}
    for copy, what in damaged_copies(folder, tmp_path, times, every):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TellWarning)
            try:
                run = resume(copy)
            except LangAgentError as error:
                refusals[what] = str(error)
                continue
            updates = run.progress.updates
            assert equal(state(run), states[updates]), what
            found["same" if updates == 2 else "older"] += 1
            policy = load_policy(copy)
            ours = run.policy.state_dict()
            assert all(torch.equal(t, ours[n]) for n, t in policy.state_dict().items()), what
            assert isinstance(read_evaluations(copy), dict)
            log = copy / "metrics.jsonl"
            for line in log.read_text().splitlines() if log.exists() else ():
                assert json.loads(line)["updates"] <= updates
    for what, said in refusals.items():  # the run cannot know these better
        assert "config.yaml" in what or "reference" in what, (what, said)
        assert "\n" not in said
    return {**found, "refused": len(refusals)}


def test_whatever_file_is_damaged_a_run_goes_on_from_what_is_whole_or_says_why_not(made, tmp_path):
    found = campaign(made, tmp_path, every=5)  # no divisor of the damages: each meets its turn
    assert min(found.values()) > 2


@pytest.mark.slow
def test_a_thousand_damaged_folders(made, tmp_path):
    assert sum(campaign(made, tmp_path, times=7).values()) > 1000


def test_a_damaged_checkpoint_gives_way_to_the_whole_one_beside_it_and_is_kept(copy, made):
    last = newest(copy)
    (last / "trainer.safetensors").unlink()
    with pytest.warns(TellWarning, match=r"trainer.safetensors cannot be read.*going on from"):
        run = resume(copy)
    assert equal(state(run), made[1][1])
    assert last.with_name(f"{last.name}-aside").is_dir()
    assert not last.exists()

    def stop(metrics):
        run.stop = True

    run.run(stop)  # which comes by the same place again
    assert run.progress.updates == 2
    assert damage(last) == ""


def test_nothing_is_changed_where_no_checkpoint_is_whole(copy):
    for place in list_checkpoints(copy):
        (place / "model.safetensors").write_bytes(b"\x08" * 40)
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(
        LangAgentError, match=r"model.safetensors has changed.*nor can the 1 before"
    ):
        resume(copy)
    with pytest.raises(LangAgentError, match=r"model.safetensors has changed"):
        load_policy(copy)
    with pytest.raises(LangAgentError, match=r"is damaged.*remove its SHA256SUMS"):
        load_policy(newest(copy))
    kept = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()}
    assert {k: v for k, v in kept.items() if k.name != ".lock"} == {
        k: v for k, v in before.items() if k.name != ".lock"
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: (c / "trainer.json").write_text('{"format": 99}'),
            "has format 99, this version",
        ),
        (lambda c: (c / "trainer.json").write_text('{"format": 1}'), "has format 1, this version"),
        (lambda c: (c / "trainer.json").unlink(), "no training checkpoint: it has no trainer.json"),
        (lambda c: (c / "SHA256SUMS").unlink(), "has no SHA256SUMS"),
        (lambda c: (c / "value_head.safetensors").write_bytes(b"x"), "value_head.safetensors has"),
        (lambda c: (c / "tokenizer.json").unlink(), "tokenizer.json cannot be read"),
    ],
)
def test_what_is_wrong_with_a_checkpoint_is_said(copy, change, message):
    for place in list_checkpoints(copy):
        change(place)
    with pytest.raises(LangAgentError, match=message):
        resume(copy)


def test_progress_that_another_version_wrote_is_one_sentence(copy):
    for place in list_checkpoints(copy):
        record = json.loads((place / "trainer.json").read_text())
        record["progress"]["learning"]["momentum"] = 1
        (place / "trainer.json").write_text(json.dumps(record))
        sealed.seal(place)
    with pytest.raises(LangAgentError, match=r"another version of lang_agent.*momentum"):
        resume(copy)


def test_a_checkpoint_of_the_first_format_still_loads_as_a_model(copy):
    expected = load_policy(copy).state_dict()
    for place in list_checkpoints(copy):
        (place / "SHA256SUMS").unlink()
        (place / "trainer.json").write_text('{"format": 1, "progress": {}}')
    found = load_policy(copy).state_dict()
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


def test_a_persons_copies_are_neither_ours_nor_deleted(copy):
    backup = shutil.copytree(newest(copy), copy / "checkpoints" / "step-9999999999-backup")
    (copy / "checkpoints" / "step-notes").mkdir()
    run = resume(copy)
    assert run.progress.updates == 2
    run.run()
    assert backup.is_dir()
    assert (copy / "checkpoints" / "step-notes").is_dir()
    assert len(list_checkpoints(copy)) == 2


def test_a_checkpoint_taken_out_of_its_run_says_that_its_words_are_not_known(copy, tmp_path):
    taken = shutil.copytree(newest(copy), tmp_path / "taken")
    with pytest.warns(TellWarning, match="outside of its run.*config.yaml"):
        assert load_policy(taken).words is None
    shutil.copy(copy / "config.yaml", taken)
    with warnings.catch_warnings():
        warnings.simplefilter("error", TellWarning)
        assert load_policy(taken).words == load_policy(copy).words


def test_what_dead_processes_left_is_cleared_away(copy):
    left = [
        copy / "checkpoints" / ".step-0000000099.host.123.partial",
        copy / "checkpoints" / ".step-0000000099.4711",
        copy / ".metrics.jsonl.host.123.partial",
    ]
    for path in left:
        path.mkdir()
        (path / "half").write_text("x")
    resume(copy)
    assert not any(path.exists() for path in left)


def test_a_changed_configuration_is_refused_unless_it_is_meant(copy):
    file = copy / "config.yaml"
    text = file.read_text()
    for content, message in (
        ("", "is empty"),
        ("\n \n", "is empty"),
        (text[: len(text) // 2], "has changed|config.yaml"),
        (text.replace("seed: 5", "seed: 6"), "seed from 5 to 6.*--as-edited"),
        (text.replace("optimizer: adamw", "optimizer: muon"), "learn.optimizer from adamw to muon"),
        ("- 1", "expected names"),
    ):
        file.write_text(content)
        with pytest.raises(LangAgentError, match=message):
            resume(copy)
        assert file.read_text() == content
    file.write_text(text.replace("optimizer: adamw", "optimizer: muon"))
    with pytest.raises(LangAgentError, match="does not fit this run's model and optimizer"):
        resume(copy, as_edited=True)
    file.write_text(text.replace("steps: 140", "steps: 160"))
    run = resume(copy, as_edited=True)
    run.run()
    assert run.progress.steps >= 160
    resume(copy)  # the edit is the run's own by now


def test_the_configuration_is_not_written_on_resume(copy):
    before = (copy / "config.yaml").stat()
    resume(copy).run()
    after = (copy / "config.yaml").stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_damaged_metrics_and_evaluations_are_survived_and_kept(copy):
    log = copy / "metrics.jsonl"
    first, second = log.read_text().splitlines()
    log.write_text(f'{first}\n{second[:40]}\n{second}\n{{"updates": 3, "ste')
    with pytest.warns(TellWarning, match=r"damaged in line 2 \(no JSON.*metrics.jsonl-damaged"):
        run = resume(copy)
    assert log.read_text() == f"{first}\n{second}\n"
    assert second[:40] in (copy / "metrics.jsonl-damaged").read_text()
    run.run()
    log.unlink()
    with pytest.warns(TellWarning, match="is gone"):
        resume(copy)
    for content in ("", "{", "[1]", "\xff"):
        (copy / "evaluation.json").write_text(content)
        with pytest.warns(TellWarning, match="is damaged and begun anew"):
            assert read_evaluations(copy) == {}


# -- saving ----------------------------------------------------------------------------------------


def test_checkpoints_come_by_time_too(tmp_path):
    saved = []

    def count(steps, minutes):
        run = start(
            replace(CONFIG, steps=steps, checkpoint_every=1000, checkpoint_minutes=minutes),
            tmp_path / str(minutes), make_policy(False),
        )  # fmt: skip
        saved.clear()
        run.save = lambda: saved.append(run.progress.updates)
        run.run()
        return run.progress.updates

    updates = count(72, 1e-6)
    assert saved == [*range(1, updates + 1), updates]
    updates = count(72, 100.0)
    assert saved == [updates]
    with pytest.raises(LangAgentError, match="checkpoint_minutes=0"):
        replace(CONFIG, checkpoint_minutes=0.0)


def test_the_precision_that_was_measured_stays_the_runs_own(tmp_path, monkeypatch):
    config = replace(CONFIG, precision="auto")
    monkeypatch.setattr("lang_agent.models.precision.bf16_speed", lambda *about: 1.0)
    run = start(config, tmp_path / "run", make_policy(False))
    assert run.policy.precision == torch.float32
    monkeypatch.setattr("lang_agent.models.precision.bf16_speed", lambda *about: 9.0)
    assert resume(tmp_path / "run").policy.precision == torch.float32
    assert start(config, tmp_path / "new", make_policy(False)).policy.precision == torch.bfloat16


def test_metrics_that_are_not_finite_are_null_and_the_file_is_json(copy):
    with run_log.RunLog(copy, 0) as log:
        log.write(
            {"steps": 1, "updates": 1, "a": float("nan"), "b": float("inf"), "c": 0.5, "d": "x"}
        )
    line = (copy / "metrics.jsonl").read_text().splitlines()[-1]

    def refuse(name):
        raise ValueError(name)

    assert json.loads(line, parse_constant=refuse) == {
        "steps": 1, "updates": 1, "a": None, "b": None, "c": 0.5, "d": "x",
    }  # fmt: skip


def test_a_given_policy_obeys_the_configuration_and_its_resume_too(tmp_path):
    def frozen(run):
        return sum(not p.requires_grad for p in run.policy.parameters())

    config = replace(BASE, freeze_layers=1, steps=40)
    run = start(config, tmp_path / "frozen", make_policy(False))
    assert frozen(run) == 14  # two embeddings and a layer's twelve
    run.run()
    assert equal(state(resume(tmp_path / "frozen")), state(run))
    assert frozen(resume(tmp_path / "frozen")) == 14

    config = replace(BASE, lora_rank=2, steps=40)
    run = start(config, tmp_path / "lora", make_policy(False))
    learned = [n for n, p in run.policy.model.named_parameters() if p.requires_grad]
    assert learned
    assert all("lora_" in name for name in learned)
    run.run()
    assert equal(state(resume(tmp_path / "lora")), state(run))
    with (tmp_path / "lora" / "base" / "model.safetensors").open("r+b") as file:
        file.seek(5000)
        file.write(b"\x07\x07")
    with pytest.raises(LangAgentError, match=r"model\.safetensors has changed"):
        resume(tmp_path / "lora")
    with pytest.raises(
        LangAgentError, match=r"value_layer=1, but the value head of the policy given"
    ):
        start(replace(BASE, value_layer=1), tmp_path / "value", make_policy(False))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    server = Runs(tmp_path_factory.mktemp("full"))
    yield server
    server.close()


def test_a_full_disk_is_one_sentence_and_costs_nothing_that_was_saved(runs, tmp_path):
    whole = runs.attempt(tmp_path / "whole", "ppo")
    assert whole.status == 0, whole.said
    run = tmp_path / "run"
    first = runs.attempt(run, "ppo", limit=60_000)  # less than the model
    assert first.status == 2
    assert "Cannot write" in first.said
    assert "free some space" in first.said
    assert "Traceback" not in first.said
    assert not run.exists()
    second = runs.attempt(run, "ppo", limit=300_000)  # less than the optimizer's state
    assert second.status == 2
    assert "free some space" in second.said
    assert "Traceback" not in second.said
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-0000000000"]
    last = runs.attempt(run, "ppo")
    assert last.status == 0, last.said
    assert outcome(run) == outcome(tmp_path / "whole")


def test_a_model_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    save_whole(make_policy(False), tmp_path / "model")
    before = (tmp_path / "model" / "SHA256SUMS").read_text()
    assert damage(tmp_path / "model") == ""
    checked = subprocess.run(
        ["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / "model", check=False
    )
    assert checked.returncode == 0

    def fails(folder):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(sealed, "seal", fails)
    with pytest.raises(LangAgentError, match="No space left on device; free some space"):
        save_whole(make_policy(False), tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "SHA256SUMS").read_text() == before
