"""A run's learning curve as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from lang_agent.evaluation.run_records import read_metrics
from lang_agent.files import write_whole


def plot_learning(runs: Sequence[Path], file: Path, title: str = "") -> None:
    """Success and return against environment steps, a line a run, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), constrained_layout=True)
    for run in runs:
        metrics = read_metrics(run)
        for axis, name in zip(axes, ("success", "return"), strict=True):
            points = [(record.get("steps"), record.get(name)) for record in metrics]
            known = [point for point in points if None not in point]
            axis.plot([x for x, _ in known], [y for _, y in known], label=run.name)
    for axis, name in zip(axes, ("success rate", "return"), strict=True):
        axis.set(xlabel="environment steps", ylabel=f"{name}, last 200 episodes")
        low, high = axis.get_ylim()
        axis.set_ylim(min(low, 0.0), max(high, 1.02))
        axis.grid(alpha=0.3)
    if len(runs) > 1:
        axes[0].legend(fontsize="small")
    figure.suptitle(title)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=130, format=file.suffix.removeprefix(".") or "png")
    plt.close(figure)
    write_whole(file, picture.getvalue())
