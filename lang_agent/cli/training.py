"""What ``lang-agent train`` does with one run: begin it or go on with it, train, evaluate."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from lang_agent.cli import progress
from lang_agent.cli.console import console, say
from lang_agent.cli.parse import names_others, run_folder
from lang_agent.evaluation.film import drawing, film
from lang_agent.evaluation.plots import plot_learning
from lang_agent.evaluation.run_records import read_evaluations
from lang_agent.seeding import EVALUATION_SEED
from lang_agent.train import trainer
from lang_agent.train.config import TrainConfig
from lang_agent.train.run_log import RunLog
from lang_agent.train.trainer import Trainer

Stops = Callable[[Trainer], AbstractContextManager[list[int]]]
"""Watches whether a run is to be stopped and stops it; the list has the signals that came."""


def begin(
    config: TrainConfig, resume: Path | None = None, *, trust: bool = False, **going_on: Any
) -> Trainer:
    """The run that is to be trained, a new one or one that goes on."""
    if resume is None:
        folder = config.out or run_folder(config, f"-{config.seed}")
        return trainer.start(config, Path(folder), trust=trust)
    run = trainer.resume(resume, trust=trust, **going_on)
    say(f"Going on from {run.progress.steps} steps in {resume}, to {run.config.steps}")
    return run


@contextmanager
def stopped_by_signals(run: Trainer) -> Iterator[list[int]]:
    """Ctrl-C (or a cluster's SIGTERM) ends the run after its update; a second one at once. The list
    will have the signals that came."""
    came: list[int] = []

    def stop(number: int, frame: object) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)
        run.stop = True
        say("Stopping after this update; once more to stop at once, as of the last checkpoint.")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def carry_out(run: Trainer, stops: Stops = stopped_by_signals, more: str = "") -> None:
    """Train a run and evaluate it before and after.

    Args:
        more: what the command that goes on with the run has further.

    Raises:
        KeyboardInterrupt: the run was stopped, after it was saved.
    """
    with run.lock, run.logging() as log:
        try:
            _train(run, log, stops)
        except KeyboardInterrupt:
            if run.trust or names_others(run.config):
                more += " --trust"
            say(f"Stopped; saved as of {int(run.saved.name.rpartition('-')[2])} steps. Go on with:")
            say(f"lang-agent train --resume {shlex.quote(str(run.folder))}{more}")
            raise


def _train(run: Trainer, log: RunLog, stops: Stops) -> None:
    evaluated = "before" in read_evaluations(run.folder)
    if run.config.eval_episodes and not run.progress.updates and not evaluated:
        before = progress.evaluation(run, console, "Before training")
        progress.write_evaluation(run.folder, "before", before)
        log.evaluation(before, run.progress.steps)
    say(progress.plan(run))
    with stops(run) as signals:
        progress.training(run, console)
    say(progress.trained(run))
    if signals:  # and not a callback that has had enough
        raise KeyboardInterrupt
    if run.config.eval_episodes:
        after = progress.evaluation(run, console, "After training")
        progress.write_evaluation(run.folder, "after", after)
        log.evaluation(after, run.progress.steps)
    plot_learning([run.folder], run.folder / "learning_curve.png", title=run.config.env)
    if run.config.gif:
        with run.leading():
            film(run.agent(1), drawing(run.make_env), [EVALUATION_SEED], run.folder / "episode.gif")
    say("\nThe run folder holds the model, metrics, learning curve and configuration:")
    say((str(run.folder), "bold"))
