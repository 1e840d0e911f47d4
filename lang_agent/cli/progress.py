"""What a training run shows while it goes: one line with the figures that matter."""

from __future__ import annotations

import contextlib
import json
import math
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from lang_agent.cli.console import say
from lang_agent.episode import Episode
from lang_agent.evaluation.evaluate import EvaluationError
from lang_agent.evaluation.run_records import EVALUATION_FILE, read_evaluations
from lang_agent.evaluation.summary import Evaluation, as_json, as_table
from lang_agent.files import write_whole

if TYPE_CHECKING:
    from lang_agent.train.trainer import Trainer

EVERY = 30.0  # seconds after which a line is printed anew off a terminal, at the latest
FIRST = 5.0  # seconds until the first one
TICK = 0.5  # seconds between two looks at what there is to show
SPINNER = 2  # columns before the line
SHOWN = (("entropy", "entropy {:.2f}"), ("approx_kl", "kl {:.4f}"), ("reference_kl", "ref {:.3f}"))


class Line:
    """A line of progress: redrawn on a terminal, or printed now and then. A context.

    Args:
        compose: says the line's parts, the most important first; on a terminal those are left out
            that do not fit.
    """

    def __init__(self, console: Console, compose: Callable[[], Sequence[str]]) -> None:
        self.console, self.compose = console, compose
        self._status = console.status("") if console.is_terminal else None
        self._due = time.monotonic() + FIRST
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        self._thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._over.set()
        self._thread.join()
        if self._status is not None:
            self._status.stop()

    def changed(self, tell: bool = False) -> None:
        """There is something new; ``tell``: worth a line of its own off a terminal."""
        if self._status is not None:
            self._status.update(Text(fit(self.compose(), self.console.width - SPINNER)))
        elif tell:
            self._due = time.monotonic() + EVERY
            print("  ".join(self.compose()), flush=True)

    def _tick(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # who prints the next line ends the program
            while not self._over.wait(TICK):
                self.changed(tell=time.monotonic() >= self._due)


def fit(parts: Sequence[str], width: int) -> str:
    """The parts that fit into ``width`` columns, the first ones first, with two blanks between."""
    line = ""
    for part in parts:
        longer = f"{line}  {part}" if line else part
        if cell_len(longer) <= width:
            line = longer
    return line


def clock(seconds: float) -> str:
    """A duration as 1:05 or 2:01:05."""
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def expected(run: Trainer) -> int:
    """About how many steps a run will have trained at its end: whole rollouts from here on."""
    each, done = run.config.rollout_steps, run.progress.steps
    return done + math.ceil(max(run.config.steps - done, 0) / each) * each


def plan(run: Trainer) -> str:
    """What is going to be trained, in a sentence."""
    each, done, total = run.config.rollout_steps, run.progress.steps, run.config.steps
    if done >= total:
        return f"All {total} steps are trained already."
    return (
        f"Trains in rollouts of whole episodes, about {each} steps each, until {total} steps are "
        f"reached: about {expected(run)} in all."
    )


def trained(run: Trainer) -> str:
    """What has been trained, in a sentence."""
    done = run.progress
    updates = f"{done.updates} updates" if done.updates != 1 else "one update"
    return f"Trained {done.steps} steps in {updates}, {clock(done.seconds)}."


class Watching:
    """Composes a training run's line out of what it is told."""

    def __init__(self, run: Trainer) -> None:
        self.run, self.expected = run, expected(run)
        self.first = run.progress.steps
        self.began = self.at = time.monotonic()
        self.left: float | None = None
        self.doing = "collecting episodes"
        self.collected = 0
        self.metrics: dict[str, Any] = {}

    def played(self, episode: Episode) -> None:
        self.collected += len(episode.steps)
        self.doing = f"collecting {self.collected}/{self.run.config.rollout_steps}"

    def learns(self, episode: Episode) -> None:
        self.doing = f"learning from {self.collected or 'stored'} steps"

    def updated(self, metrics: dict[str, Any]) -> None:
        self.metrics, self.at = metrics, time.monotonic()
        rate = (self.at - self.began) / max(metrics["steps"] - self.first, 1)
        self.left = rate * max(self.expected - metrics["steps"], 0)
        self.doing, self.collected = "", 0

    def parts(self) -> list[str]:
        """The most important first."""
        done = self.metrics.get("steps", self.first)
        parts = [f"{done}/{max(self.expected, done)} steps"]
        if self.left is not None:
            parts.append(f"{clock(self.left - (time.monotonic() - self.at))} left")
        return [*parts, *([self.doing] if self.doing else []), *self._figures()]

    def _figures(self) -> list[str]:
        metrics = self.metrics
        if not metrics:
            return []
        parts = [f"! {alarm}" for alarm in metrics.get("alarms", ())]
        parts += _success(metrics, self.run.config.imitation.demonstrations)
        parts += [f"return {metrics['return']:.2f}", f"{metrics['steps_per_second']:.0f}/s"]
        parts += [form.format(metrics[name]) for name, form in SHOWN if name in metrics]
        if "approx_kl" not in metrics and "policy_loss" in metrics:
            parts.append(f"loss {metrics['policy_loss']:.3f}")
        return parts


def _success(metrics: dict[str, Any], demonstrations: str | None) -> list[str]:
    """Whose success it is: the policy's own is told only where the policy plays."""
    share = metrics.get("expert_share")
    if demonstrations is not None:
        return [f"success {metrics['success']:.2f} (of the demonstrations)"]
    if share is None:
        return [f"success {metrics['success']:.2f}"]
    if share == 1:
        return [f"expert's success {metrics['success']:.2f}"]
    own = metrics["policy_success"]
    return [f"policy's success {own:.2f}", *([f"expert plays {share:.0%}"] if share else [])]


def training(run: Trainer, console: Console) -> None:
    """Run the training with a line of progress; off a terminal a new one with every twentieth of
    the steps, and at the latest every half minute."""
    watching = Watching(run)
    told = run.progress.steps

    def show(metrics: dict[str, Any]) -> None:
        nonlocal told
        watching.updated(metrics)
        first = told == watching.first
        tell = first or metrics["steps"] - told >= (watching.expected - watching.first) / 20
        told = metrics["steps"] if tell else told
        line.changed(tell)

    with Line(console, watching.parts) as line:
        run.run(show, watching.learns, watching.played)
    if console.is_terminal and watching.metrics:
        console.print(Text(fit(watching.parts(), console.width)))


class Counting(Line):
    """The line of so many episodes that are played, and how many of them succeed."""

    def __init__(self, console: Console, title: str, episodes: int) -> None:
        self.title, self.episodes = title, episodes
        self.began, self.done, self.won = time.monotonic(), 0, 0
        super().__init__(console, self.parts)

    def parts(self) -> list[str]:
        """The most important first."""
        counts = f"{self.done}/{self.episodes} episodes"
        if not self.done:
            return [f"{self.title}: {counts}"]
        left = (time.monotonic() - self.began) / self.done * (self.episodes - self.done)
        success = f"success so far {self.won / self.done:.2f}"
        return [f"{self.title}: {counts}", f"{clock(left)} left", success]

    def played(self, episode: Episode) -> None:
        """One more is over."""
        self.done, self.won = self.done + 1, self.won + episode.success
        self.changed()


def evaluation(run: Trainer, console: Console, title: str) -> list[Evaluation]:
    """Evaluate on held-out seeds and print the table; that of the episodes finished, too, where an
    environment's error ends it."""
    episodes = run.config.eval_episodes
    with Counting(console, title, episodes) as counting:
        try:
            rows = run.evaluate(episodes, counting.played)
        except EvaluationError as error:
            if error.rows:
                say(as_table(error.rows, f"{title}, until an error", console.width))
            raise
    say(as_table(rows, title, console.width))
    return rows


def write_evaluation(folder: Path, name: str, rows: list[Evaluation]) -> None:
    """Record an evaluation by name (before, after) in the run folder, beside earlier ones."""
    known = {**read_evaluations(folder), name: as_json(rows)}
    write_whole(folder / EVALUATION_FILE, json.dumps(known, indent=1) + "\n")
