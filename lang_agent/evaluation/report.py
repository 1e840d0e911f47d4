"""Things to look at: a learning curve, and an episode as a GIF beside its words."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import imageio.v3 as imageio
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lang_agent.episode import Agent, Episode, Watched
from lang_agent.errors import LangAgentError
from lang_agent.files import json_lines, tell, try_place, write_whole
from lang_agent.language_env import language_env
from lang_agent.rollout import play

PANEL_WIDTH = 460
LINE_HEIGHT = 17
INK, PAPER, ACCENT, FAINT = (30, 33, 40), (250, 249, 245), (178, 70, 30), (140, 140, 140)


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The metrics of a run, one record an update; damaged lines are left out with a warning."""
    file = run / "metrics.jsonl"
    if not file.is_file():
        raise LangAgentError(f"'{run}' has no metrics.jsonl: is it a run folder?")
    lines = file.read_bytes().decode("utf-8", errors="replace").split("\n")
    records = []
    for number, record, reason in json_lines(lines):
        if isinstance(record, dict) and "updates" in record:
            records.append(record)
        elif number < len(lines):  # the last line is one that is being written
            tell(f"'{file}', line {number}, is left out: {reason or 'no record of an update'}.")
    return records


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


def check_drawn(env: gymnasium.Env[str, str]) -> None:
    """Raise :class:`LangAgentError` for an environment that draws no pictures to film."""
    if env.unwrapped.render_mode != "rgb_array":
        raise LangAgentError(
            f"{language_env(env).name} cannot be filmed: it was not made with "
            'render_mode="rgb_array", or draws no pictures at all.'
        )


class _Camera(Watched):
    """Takes a picture of the world before every decision of the agent that it stands beside."""

    def __init__(self, agent: Agent, env: gymnasium.Env[str, str]) -> None:
        super().__init__(agent)
        self.env = env
        self.frames: list[np.ndarray] = []

    def begin(self, slot: int, seed: int) -> None:
        self.frames.clear()
        super().begin(slot, seed)

    def act(self, slots: Sequence[int], observations: Sequence[Any]) -> list[Any]:
        self.frames.append(np.asarray(self.env.render()))
        return super().act(slots, observations)


def film(agent: Agent, env: gymnasium.Env[str, str], seed: int, file: Path) -> Episode:
    """Play one episode and write it as a GIF, each frame beside what was read and said.

    ``env`` must have been made with ``render_mode="rgb_array"``.
    """
    check_drawn(env)
    try_place(file)
    camera = _Camera(agent, env)
    (episode,) = play(camera, [env], [seed])
    frames = [*camera.frames[: len(episode.steps)], np.asarray(env.render())]
    if frames[0].ndim != 3:
        raise LangAgentError(
            f"{language_env(env).name} draws no pictures (height, width, colours) to film."
        )
    goal = f"Goal: {episode.steps[0].info.get('mission', '')}"
    pictures, before = [], ""
    for number, step in enumerate(episode.steps):
        prompt = step.observation.prompt
        seen = prompt[len(before) :] if before and prompt.startswith(before) else prompt
        read = [line for line in seen.strip().splitlines()[:-1] if line != goal]  # no cue
        words = [goal, "", *read, "", f"> {step.decision.action}"]
        pictures.append(_beside(frames[number], words, number))
        before = prompt + step.decision.action
    end = "Done." if episode.success else "Not done."
    words = [goal, "", end, f"return {episode.total_reward:.2f} in {len(episode.steps)} steps"]
    pictures.append(_beside(frames[-1], words, len(episode.steps)))
    durations = [700] * len(pictures[:-1]) + [2500]
    film = imageio.imwrite("<bytes>", pictures, extension=".gif", duration=durations, loop=0)
    write_whole(file, film)
    return episode


def _beside(frame: np.ndarray, lines: Sequence[str], number: int) -> np.ndarray:
    """The frame with a panel of words on its right."""
    world = Image.fromarray(frame).resize((320, 320 * frame.shape[0] // frame.shape[1]))
    wrapped = [part for line in lines for part in (textwrap.wrap(line, 52) or [""])]
    canvas = Image.new("RGB", (world.width + PANEL_WIDTH, max(world.height, 320)), PAPER)
    canvas.paste(world, (0, 0))
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=14)
    x, y = world.width + 16, 14
    draw.text((x, y), f"step {number}", fill=FAINT, font=font)
    for line in wrapped[: (canvas.height - 60) // LINE_HEIGHT]:
        y += LINE_HEIGHT
        draw.text((x, y), line, fill=ACCENT if line.startswith("> ") else INK, font=font)
    return np.asarray(canvas)
