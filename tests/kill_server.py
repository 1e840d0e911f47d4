"""Tiny runs of every kind in processes that can be killed at any moment.

A server process that has everything imported forks a child for each attempt, so that a kill and
a resume take a fraction of a second. ``Runs`` speaks with it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from lang_agent.config import save_config
from lang_agent.learn.config import ImitationConfig
from lang_agent.models.decide import DecideConfig
from lang_agent.text_env.config import TextConfig
from lang_agent.train.config import TrainConfig

TIMES = ("seconds", "steps_per_second", "acting_fraction")
HERE = Path(__file__).parent


def kinds(folder: Path) -> dict[str, TrainConfig]:
    """A configuration of each kind of run; models and demonstrations lie in ``folder``."""
    from test_golden import BASE, LEVEL, WRITING

    base = replace(
        BASE, steps=110, rollout_steps=24, checkpoint_every=2, eval_episodes=2,
        model=str(folder / "model"), context=None,
    )  # fmt: skip

    def learn(config: TrainConfig, **options: Any) -> TrainConfig:
        return replace(config, learn=replace(config.learn, **options))

    imitation = replace(learn(base, algorithm="imitation", entropy_coef=0.0, epochs=1), text=LEVEL)
    return {
        "ppo": base,
        "mixture": replace(
            base,
            mixture=("BabyAI-GoToObjS4-v0", "BabyAI-GoToLocalS5N2-v0 weight=2"),
            curriculum="learnable",
        ),
        "hindsight": replace(base, hindsight=0.7),
        "dagger": replace(imitation, imitation=ImitationConfig(hand_over=0.5, expert_final=0.3)),
        "demonstrations": replace(
            imitation, imitation=ImitationConfig(demonstrations=str(folder / "demos.jsonl.gz"))
        ),
        "generate": replace(
            learn(base, kl_coef=0.1, kl_target=0.01, kl_horizon=100),
            env=WRITING.env,
            text=TextConfig(env_args=("rewards={length: {target: 4}, diversity: 0.5}",)),
            decide=DecideConfig(decide="generate", max_new_tokens=6),
            model=str(folder / "writer"),
            steps=60,
            rollout_steps=12,
        ),
    }


@dataclass
class Attempt:
    """How a process ended: its status, or minus the signal; and what it said."""

    status: int
    seconds: float
    said: str


class Runs:
    """Trains in processes of their own, by the command line's own functions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._server = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(HERE / "kill_server.py"), str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)},
        )  # fmt: skip
        assert self._line() == "ready"

    def close(self) -> None:
        assert self._server.stdin
        self._server.stdin.close()
        self._server.wait(timeout=60)

    def config(self, kind: str) -> Path:
        return self.folder / f"{kind}.yaml"

    def attempt(
        self,
        run: Path,
        kind: str,
        *,
        kill_after: float | None = None,
        kill_at: int | None = None,
        limit: int | None = None,
        arguments: list[str] | None = None,
    ) -> Attempt:
        """Begin the run, or go on with it where its folder is one.

        Args:
            kill_after: SIGKILL after so many seconds.
            kill_at: SIGKILL before the n-th time that something is opened for writing, made,
                renamed or removed in the run's folder.
            limit: the most bytes that a file may have, as on a full disk.
            arguments: of the command line, in place of those.
        """
        if arguments is None:
            resumed = (run / "config.yaml").is_file()
            options = ["--config", str(self.config(kind)), "--out", str(run)]
            arguments = ["train", *(["--resume", str(run)] if resumed else options)]
        order = {"arguments": arguments, "run": str(run), "limit": limit}
        order |= {"kill_at": kill_at, "kill_after": kill_after}
        assert self._server.stdin
        self._server.stdin.write(json.dumps(order) + "\n")
        self._server.stdin.flush()
        started = time.monotonic()
        status = int(self._line())
        said = Path(self.folder / "said.txt").read_text(errors="replace")
        return Attempt(status, time.monotonic() - started, said)

    def _line(self) -> str:
        assert self._server.stdout
        return self._server.stdout.readline().strip()


def outcome(run: Path) -> dict[str, Any]:
    """All that a finished run leaves, times and places aside."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from lang_agent.models.store import list_checkpoints

    last = list_checkpoints(run)[-1]
    record = json.loads((last / "trainer.json").read_text())
    record["progress"].pop("seconds")
    record["config"].pop("out")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    assert len(events.Scalars("rollout/return")) == len(lines)
    return {
        "files": {
            file.name: file.read_bytes()
            for file in last.iterdir()
            if file.name not in ("trainer.json", "SHA256SUMS")
        },
        "name": last.name,
        "record": record,
        "metrics": [
            {k: v for k, v in line.items() if k not in TIMES and "seconds" not in k}
            for line in lines
        ],
        "evaluation": json.loads((run / "evaluation.json").read_text()),
        "points": [(event.step, event.value) for event in events.Scalars("rollout/return")],
        "leftovers": [path.name for path in run.rglob("*") if "partial" in path.name],
    }


# -- the server ------------------------------------------------------------------------------------


def _prepare(folder: Path) -> None:
    from test_golden import LEVEL, make_policy

    from lang_agent.learn.demonstrations import write_demonstrations
    from lang_agent.train.demonstrate import demonstrate

    for name, prose in (("model", False), ("writer", True)):
        make_policy(prose).save_pretrained(folder / name)
    made = demonstrate("BabyAI-GoToObjS4-v0", LEVEL, 5, noise=0.2)
    write_demonstrations(folder / "demos.jsonl.gz", "BabyAI-GoToObjS4-v0", made)
    for kind, config in kinds(folder).items():
        save_config(config, folder / f"{kind}.yaml")


def _child(order: dict[str, Any], said: Path) -> int:
    import resource

    from lang_agent.cli import main as cli
    from lang_agent.errors import LangAgentError

    handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    if order["kill_at"] is not None:
        _kill_at(order["kill_at"], order["run"])
    if order["limit"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["limit"], order["limit"]))
    sys.argv = ["lang-agent", *order["arguments"]]
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    except LangAgentError:
        return 2
    return 0


def _kill_at(count: int, run: str) -> None:
    left = count
    flags = os.O_WRONLY | os.O_RDWR

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & flags):
            return
        changes = event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")
        if changes and run in str(arguments[0]):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _serve(folder: Path) -> None:
    import matplotlib.pyplot  # noqa: F401
    import torch

    import lang_agent.cli.progress
    import lang_agent.evaluation.film  # noqa: F401

    torch.set_num_threads(1)
    _prepare(folder)
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                status = _child(order, folder / "said.txt")
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        if order["kill_after"] is not None:
            time.sleep(order["kill_after"])
            os.kill(pid, signal.SIGKILL)
        _, ended = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(ended), flush=True)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
