"""``lang-agent train --seeds 0 1 2 --grid NAME=VALUE,VALUE``: runs of one kind, side by side."""

from __future__ import annotations

import itertools
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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

MOST_VALUES = 1000
"""Runs of one command."""


@dataclass(frozen=True)
class Planned:
    """One of several runs."""

    config: TrainConfig
    """Its seed and folder (``out``) are the run's own."""
    setting: str = ""
    """What it has of a grid: "learning-rate=1e-3 epochs=2"."""

    @property
    def name(self) -> str:
        """What its lines begin with."""
        return f"{self.setting} seed {self.config.seed}".strip()

    @property
    def folder(self) -> Path:
        return Path(str(self.config.out))

    @property
    def file(self) -> Path:
        """The configuration that it begins from."""
        return self.folder.with_suffix(".yaml")


def settings(grid: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Every setting of a grid of NAME=VALUE,VALUE: its name, and the arguments that make it.

    Raises:
        LangAgentError: what is no NAME=VALUE,VALUE; a name or value that stands there twice.
    """
    names, values = [], []
    for one in grid:
        name, _, listed = one.lstrip("-").replace("_", "-").partition("=")
        found = one.partition("=")[2].split(",")
        if not name or not listed or "" in found:
            raise LangAgentError(
                f"--grid {one}: write NAME=VALUE,VALUE, as learning-rate=1e-3,3e-3."
            )
        if name in names or len({*found}) < len(found):
            raise LangAgentError(f"--grid {' '.join(grid)}: an option or value stands there twice.")
        names.append(name)
        values.append(found)
    for chosen in itertools.product(*values):
        pairs = list(zip(names, chosen, strict=True))
        yield (
            " ".join(f"{name}={value}" for name, value in pairs),
            [argument for name, value in pairs for argument in (f"--{name}", value)],
        )


def plan(configs: Mapping[str, TrainConfig], seeds: Sequence[int] | None) -> list[Planned]:
    """A run of every configuration, which stand by their settings, from every seed, or from its
    own."""
    first = next(iter(configs.values()))
    folder = Path(first.out or run_folder(first))
    runs = []
    for setting, config in configs.items():
        if config.workers == "auto":  # it is the runs that take the cores
            config = replace(config, workers=1)
        within = re.sub(r"[^\w.=+-]+", "_", setting)
        for seed in seeds or [config.seed]:
            out = folder / within / f"seed-{seed}"
            runs.append(Planned(replace(config, seed=seed, out=str(out)), setting))
    if len(runs) > MOST_VALUES:
        raise LangAgentError(f"The grid has {len(runs)} runs: at most {MOST_VALUES} are taken.")
    return runs


def train_all(runs: Sequence[Planned], address: str | None = None, *, trust: bool = False) -> None:
    """Train every run in a process of its own, as many at once as there are cores for, and tell
    what they came to.

    Args:
        address: a Ray cluster's, whose nodes train them (:mod:`lang_agent.cli.ray_grid`).

    Raises:
        LangAgentError: a run failed; those that were not are whole, and are told of first.
        KeyboardInterrupt: the runs were stopped, each saved.
    """
    folder = _common_folder(runs)
    for run in runs:
        with writing(run.file):
            run.file.parent.mkdir(parents=True, exist_ok=True)
            save_config(run.config, run.file)
    if address is not None:
        from lang_agent.cli.ray_grid import train_on_ray

        failed = train_on_ray(runs, address, folder, trust=trust)
    else:
        failed = _train_here(runs, folder, trust=trust)
    whole = [run for run in runs if run not in failed]
    if whole:
        _tell(folder, whole)
    if failed:
        names = ", ".join(run.name for run in failed)
        raise LangAgentError(f"The run of {names} failed: what it said stands above.")


def _common_folder(runs: Sequence[Planned]) -> Path:
    return runs[0].folder.parent.parent if runs[0].setting else runs[0].folder.parent


Said = Queue[tuple[Planned, str | None]]


def _train_here(runs: Sequence[Planned], folder: Path, *, trust: bool) -> list[Planned]:
    """Train the runs in processes of this machine; returns those that failed."""
    config = runs[0].config
    each = config.workers if isinstance(config.workers, int) else 1
    at_once = max(cores() // each, 1)
    say(f"{len(runs)} runs, {min(at_once, len(runs))} at once, in {folder}")
    waiting, going = list(runs), dict[Path, subprocess.Popen[str]]()
    failed: list[Planned] = []
    said: Said = Queue()
    try:
        while waiting or going:
            while waiting and len(going) < at_once:
                run = waiting.pop(0)
                going[run.folder] = _started(run, said, trust)
            run, line = said.get()
            if line:
                say(f"{run.name}: {line}")
            elif line is None and going.pop(run.folder).wait():
                failed.append(run)
    except KeyboardInterrupt:
        _stop([*going.values()])
        for out in going:
            say(f"lang-agent train --resume {shlex.quote(str(out))}")
        raise
    return failed


def _started(run: Planned, said: Said, trust: bool) -> subprocess.Popen[str]:
    """A training command in a process of its own, whose lines come as they are said."""
    command = ["train", "--config", str(run.file), *(["--trust"] if trust else [])]
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
    Thread(target=_listen, args=(run, process, said), daemon=True).start()
    return process


def _listen(run: Planned, process: subprocess.Popen[str], said: Said) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        said.put((run, line.rstrip()))
    said.put((run, None))


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


def _tell(folder: Path, runs: Sequence[Planned]) -> None:
    """A table of what the runs came to, and their curves in one picture."""
    env = runs[0].config.env
    plot_learning([run.folder for run in runs], folder / "learning_curve.png", title=env)
    head = "run" if runs[0].setting else "seed"
    rows: list[tuple[str, Sequence[str]]] = [(head, ["before", "after", "95% CI", "return"])]
    for setting, group in itertools.groupby(runs, lambda run: run.setting):
        after: list[float] = []
        for run in group:
            known = read_evaluations(run.folder)
            if "after" not in known:
                continue
            row, before = known["after"][-1], known.get("before")
            after.append(row["success"])
            rows.append((
                run.name if setting else str(run.config.seed),
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
            figures = ["", f"{sum(after) / len(after):.3f}", interval, ""]
            rows.append((f"{setting} mean".strip(), figures))
    if len(rows) > 1:
        say("\n".join(["", "Success on held-out seeds", *columned(rows)]))
    say("The curves are in one picture; `lang-agent report` has more:")
    say((str(folder / "learning_curve.png"), "bold"))
