"""What a training run shows while it goes: a bar with the figures that matter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lang_agent.evaluation.evaluate import EvaluationError
from lang_agent.evaluation.run_records import EVALUATION_FILE, read_evaluations
from lang_agent.evaluation.summary import Evaluation, as_json, as_table
from lang_agent.files import write_whole
from lang_agent.train.trainer import Trainer


def training(run: Trainer, console: Console) -> None:
    """Run the training under a progress bar, or with a line now and then off a terminal."""
    total = run.config.steps
    columns = (
        TextColumn("{task.completed:>7.0f}/{task.total:.0f} steps"),
        BarColumn(bar_width=18),
        TextColumn("{task.description}", markup=False),
        TimeRemainingColumn(),
    )
    printed = run.progress.steps
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("collecting the first episodes", total=total)

        def show(metrics: dict[str, Any]) -> None:
            nonlocal printed
            line = _line(metrics)
            bar.update(task, completed=min(metrics["steps"], total), description=line)
            if not console.is_terminal and metrics["steps"] - printed >= total / 20:
                printed = int(metrics["steps"])
                console.print(f"{printed:>8} steps  {line}", soft_wrap=True)

        run.run(show)


SHOWN = (("entropy", "entropy {:.2f}"), ("approx_kl", "kl {:.4f}"), ("reference_kl", "ref {:.3f}"))


def _line(metrics: dict[str, Any]) -> str:
    parts = [
        f"{metrics['steps_per_second']:4.0f}/s",
        f"success {metrics['success']:.2f}",
        f"return {metrics['return']:.2f}",
        *(form.format(metrics[name]) for name, form in SHOWN if name in metrics),
    ]
    if "approx_kl" not in metrics and "policy_loss" in metrics:
        parts.append(f"loss {metrics['policy_loss']:.3f}")
    parts += [f"! {alarm}" for alarm in metrics.get("alarms", ())]
    return "  ".join(parts)


def evaluation(run: Trainer, console: Console, title: str) -> list[Evaluation]:
    """Evaluate on held-out seeds and print the table; that of the episodes finished, too, where an
    environment's error ends it."""
    episodes = run.config.eval_episodes
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=episodes)
        try:
            rows = run.evaluate(episodes, lambda _: bar.advance(task))
        except EvaluationError as error:
            if error.rows:
                console.print(as_table(error.rows, title=f"{title}, until an error"))
            raise
    console.print(as_table(rows, title=title))
    return rows


def write_evaluation(folder: Path, name: str, rows: list[Evaluation]) -> None:
    """Record an evaluation by name (before, after) in the run folder, beside earlier ones."""
    known = {**read_evaluations(folder), name: as_json(rows)}
    write_whole(folder / EVALUATION_FILE, json.dumps(known, indent=1) + "\n")
