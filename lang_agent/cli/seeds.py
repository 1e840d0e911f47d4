"""``lang-agent train --seeds 0 1 2``: the same run from several seeds, side by side."""

from __future__ import annotations

import shlex
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from queue import Queue
from threading import Thread

from lang_agent.cli.console import say
from lang_agent.cli.parse import run_folder
from lang_agent.config import save_config
from lang_agent.errors import LangAgentError
from lang_agent.evaluation.plots import plot_learning
from lang_agent.evaluation.run_records import read_evaluations
from lang_agent.evaluation.statistics import mean_interval
from lang_agent.evaluation.summary import columned
from lang_agent.files import writing
from lang_agent.processes import cores, start
from lang_agent.train.config import TrainConfig


def train_seeds(config: TrainConfig, seeds: Sequence[int], *, trust: bool = False) -> None:
    """Train a run for every seed in a process of its own, as many at once as there are cores for,
    and tell what they came to.

    Raises:
        LangAgentError: a run failed; those that were not are whole, and are told of first.
        KeyboardInterrupt: the runs were stopped, each saved.
    """
    folder = Path(config.out or run_folder(config))
    runs = {seed: folder / f"seed-{seed}" for seed in seeds}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if config.workers == "auto":  # it is the seeds that take the cores
        config = replace(config, workers=1)
    each = config.workers if isinstance(config.workers, int) else 1
    at_once = max(cores() // each, 1)
    say(f"{len(seeds)} runs, {min(at_once, len(seeds))} at once, in {folder}")
    waiting, going = list(seeds), dict[int, subprocess.Popen[str]]()
    failed: list[int] = []
    said: Queue[tuple[int, str | None]] = Queue()
    try:
        while waiting or going:
            while waiting and len(going) < at_once:
                seed = waiting.pop(0)
                going[seed] = _started(config, seed, runs[seed], said, trust)
            seed, line = said.get()
            if line:
                say(f"seed {seed}: {line}")
            elif line is None and going.pop(seed).wait():
                failed.append(seed)
    except KeyboardInterrupt:
        _stop([*going.values()])
        for seed in going:
            say(f"lang-agent train --resume {shlex.quote(str(runs[seed]))}")
        raise
    whole = [seed for seed in seeds if seed not in failed]
    if whole:
        _tell(folder, {seed: runs[seed] for seed in whole}, config)
    if failed:
        names = ", ".join(map(str, failed))
        raise LangAgentError(f"The run of seed {names} failed: what it said stands above.")


def _started(
    config: TrainConfig, seed: int, run: Path, said: Queue[tuple[int, str | None]], trust: bool
) -> subprocess.Popen[str]:
    """A training command in a process of its own, whose lines come as they are said."""
    file = run.with_suffix(".yaml")
    with writing(file):
        save_config(replace(config, seed=seed, out=str(run)), file)
    command = ["train", "--config", str(file), *(["--trust"] if trust else [])]
    process = start(
        "lang_agent",
        *command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # Ctrl-C comes here, and is handed on once
    )
    Thread(target=_listen, args=(seed, process, said), daemon=True).start()
    return process


def _listen(seed: int, process: subprocess.Popen[str], said: Queue[tuple[int, str | None]]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        said.put((seed, line.rstrip()))
    said.put((seed, None))


def _stop(going: Sequence[subprocess.Popen[str]]) -> None:
    """Have all runs end after their updates, and wait for them; once more ends them at once."""
    say("Stopping every run after its update; once more to stop at once. Go on with:")
    for process in going:
        process.send_signal(signal.SIGINT)
    for process in going:
        try:
            process.wait()
        except KeyboardInterrupt:
            process.kill()


def _tell(folder: Path, runs: dict[int, Path], config: TrainConfig) -> None:
    """A table of what the runs came to, and their curves in one picture."""
    plot_learning([*runs.values()], folder / "learning_curve.png", title=config.env)
    rows: list[tuple[str, Sequence[str]]] = [("seed", ["before", "after", "95% CI", "return"])]
    after: list[float] = []
    for seed, run in runs.items():
        known = read_evaluations(run)
        if "after" not in known:
            continue
        row, before = known["after"][-1], known.get("before")
        after.append(row["success"])
        rows.append((
            str(seed),
            [
                f"{before[-1]['success']:.3f}" if before else "",
                f"{row['success']:.3f}",
                f"{row['success_low']:.3f}-{row['success_high']:.3f}",
                f"{row['mean_return']:.3f}",
            ],
        ))  # fmt: skip
    if len(after) > 1:
        low, high = mean_interval(after)
        interval = f"{max(low, 0.0):.3f}-{min(high, 1.0):.3f}"
        rows.append(("mean", ["", f"{sum(after) / len(after):.3f}", interval, ""]))
    if after:
        say("\n".join(["", "Success on held-out seeds", *columned(rows)]))
    say("The curves are in one picture; `lang-agent report` has more:")
    say((str(folder / "learning_curve.png"), "bold"))
