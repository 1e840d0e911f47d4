"""Episodes as a film: the world beside what was read, might have been said and was said."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import imageio.v3 as imageio
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lang_agent.episode import Agent, Episode, Step, Watched
from lang_agent.errors import LangAgentError
from lang_agent.files import try_place, write_whole
from lang_agent.language_env import language_env
from lang_agent.rollout import play

FPS = 1.5
"""Frames a second, unless asked otherwise: as fast as one reads."""
FORMATS = (".gif", ".mp4")
WORLD, PANEL, HEIGHT, LINE = 384, 480, 384, 17  # pixels
LETTERS = 56  # of a line of words
MOST_BARS = 7
COLOURS = 48  # of a GIF: it is drawn, not photographed
INK, PAPER, ACCENT, FAINT = (30, 33, 40), (250, 249, 245), (178, 70, 30), (120, 120, 120)
BAR = (150, 175, 205)


def film(
    agent: Agent,
    env: gymnasium.Env[str, str],
    seeds: Iterable[int],
    file: Path,
    fps: float = FPS,
) -> list[Episode]:
    """Play an episode of each seed and write them as one GIF or MP4.

    A world that draws (``render_mode="rgb_array"``) stands on the left of its words; of any other
    the film shows the words alone.

    Raises:
        LangAgentError: a name that ends otherwise, a place that cannot be written, an MP4 without
            PyAV, or a picture that is none.
    """
    check_film(file)
    camera = _Camera(agent, env)
    pictures: list[np.ndarray] = []
    last: list[int] = []  # numbers of the pictures with which an episode ends

    def ended(episode: Episode, env: gymnasium.Env[str, str]) -> None:
        pictures.extend(_pictures(episode, camera.frames[: len(episode.steps)], camera.drawn()))
        last.append(len(pictures) - 1)

    episodes = list(play(camera, [env], seeds, on_end=ended))
    write_whole(file, _encoded(pictures, last, file.suffix, fps))
    return episodes


def check_film(file: Path) -> None:
    """Raise :class:`LangAgentError` where no film can be written to ``file``."""
    if file.suffix not in FORMATS:
        raise LangAgentError(f"'{file}' is no film: its name must end in {' or '.join(FORMATS)}.")
    if file.suffix == ".mp4":
        try:
            import av  # noqa: F401
        except ImportError:
            raise LangAgentError(
                "An MP4 takes PyAV (pip install 'lang_agent[video]'); a .gif needs nothing more."
            ) from None
    try_place(file)


class _Camera(Watched):
    """Takes a picture of the world before every decision of the agent that it stands beside."""

    def __init__(self, agent: Agent, env: gymnasium.Env[str, str]) -> None:
        super().__init__(agent)
        self.env = env
        self.draws = env.unwrapped.render_mode == "rgb_array"
        self.frames: list[np.ndarray | None] = []

    def drawn(self) -> np.ndarray | None:
        """The world as it stands; None where it does not draw."""
        if not self.draws:
            return None
        frame = np.asarray(self.env.render())
        if frame.ndim != 3:
            raise LangAgentError(
                f"{language_env(self.env).name} draws no pictures (height, width, colours) to film."
            )
        return frame

    def begin(self, slot: int, seed: int) -> None:
        self.frames.clear()
        super().begin(slot, seed)

    def act(self, slots: Sequence[int], observations: Sequence[Any]) -> list[Any]:
        self.frames.append(self.drawn())
        return super().act(slots, observations)


def _pictures(
    episode: Episode, frames: Sequence[np.ndarray | None], last: np.ndarray | None
) -> list[np.ndarray]:
    """A picture of every step, and one of the end."""
    info = episode.steps[0].info
    goal = f"Goal: {info.get('mission', '')}" if info.get("mission") else ""
    found, before = [], ""
    for number, (step, frame) in enumerate(zip(episode.steps, frames, strict=True), 1):
        prompt = step.observation.prompt
        seen = prompt[len(before) :] if before and prompt.startswith(before) else prompt
        read = [line for line in seen.strip().splitlines()[:-1] if line != goal]  # no cue
        panel = _Panel(frame)
        panel.write(f"seed {episode.seed}, step {number}", FAINT)
        panel.write(goal)
        panel.space()
        room = panel.room - len(_bars(step)) - 6
        panel.write_last(read, room)
        panel.space()
        for phrase, probability, chosen in _bars(step):
            panel.bar(phrase, probability, chosen)
        panel.write(f"> {step.decision.action}", ACCENT)
        panel.write(_outcome(step), FAINT)
        found.append(panel.picture())
        before = prompt + step.decision.action
    panel = _Panel(last)
    panel.write(goal)
    panel.space()
    panel.write("The goal was reached." if episode.success else "The goal was not reached.")
    steps = "1 step" if len(episode.steps) == 1 else f"{len(episode.steps)} steps"
    panel.write(f"Return {episode.total_reward:.2f} in {steps}.", FAINT)
    return [*found, panel.picture()]


def _bars(step: Step) -> list[tuple[str, float, bool]]:
    """(phrase, probability, whether it was said) of the phrases that were weighed: the most likely
    ones where there are many, in the order in which they stand."""
    phrases, chances = step.observation.actions or (), step.decision.probabilities
    rows = list(zip(phrases, chances, strict=False))
    least = sorted((chance for _, chance in rows), reverse=True)[:MOST_BARS][-1:]
    shown = [row for row in rows if row[1] >= (least or [0.0])[0]][:MOST_BARS]
    return [(phrase, chance, phrase == step.decision.action) for phrase, chance in shown]


def _outcome(step: Step) -> str:
    """The verdict on what was said, the reward, and a critic's value of the state before."""
    parts = [str(step.info.get("verdict") or ""), f"reward {step.reward:.2f}"]
    if step.decision.tokens is not None:
        parts.append(f"value {step.decision.tokens.value:.2f}")
    return ", ".join(filter(None, parts))


class _Panel:
    """A picture under way: the frame, and beside it lines of words and bars."""

    def __init__(self, frame: np.ndarray | None) -> None:
        left = 0
        self._canvas = Image.new("RGB", (PANEL + (0 if frame is None else WORLD), HEIGHT), PAPER)
        if frame is not None:
            world = Image.fromarray(frame)
            world.thumbnail((WORLD, HEIGHT))
            if world.width < WORLD and world.height < HEIGHT:
                scale = min(WORLD / world.width, HEIGHT / world.height)
                world = world.resize((round(world.width * scale), round(world.height * scale)))
            self._canvas.paste(world, ((WORLD - world.width) // 2, (HEIGHT - world.height) // 2))
            left = WORLD
        self._x, self._y = left + 16, 10
        self._draw = ImageDraw.Draw(self._canvas)
        self._font = ImageFont.load_default(size=14)

    @property
    def room(self) -> int:
        """How many lines there is room for."""
        return max((HEIGHT - self._y) // LINE, 0)

    def space(self) -> None:
        self._y += LINE // 2

    def write(self, text: str, colour: tuple[int, int, int] = INK) -> None:
        for line in textwrap.wrap(text, LETTERS):
            self._draw.text((self._x, self._y), line, fill=colour, font=self._font)
            self._y += LINE

    def write_last(self, lines: Sequence[str], room: int) -> None:
        """The last of these lines that fit into so many."""
        wrapped = [part for line in lines for part in textwrap.wrap(line, LETTERS)]
        if len(wrapped) > room:
            wrapped = ["...", *wrapped[len(wrapped) - max(room - 1, 0) :]]
        for line in wrapped:
            self.write(line)

    def bar(self, phrase: str, probability: float, chosen: bool) -> None:
        x, y = self._x + 170, self._y
        self._draw.rectangle((x, y + 3, x + 200, y + LINE - 4), fill=(232, 230, 224))
        full = round(200 * min(max(probability, 0.0), 1.0))
        if full:
            colour = ACCENT if chosen else BAR
            self._draw.rectangle((x, y + 3, x + full, y + LINE - 4), fill=colour)
        self._draw.text((self._x, y), textwrap.shorten(phrase, 24), fill=INK, font=self._font)
        self._draw.text((x + 208, y), f"{probability:.2f}", fill=FAINT, font=self._font)
        self._y += LINE

    def picture(self) -> np.ndarray:
        return np.asarray(self._canvas)


def _encoded(pictures: Sequence[np.ndarray], last: Sequence[int], suffix: str, fps: float) -> bytes:
    """The film; an episode's last picture stands three times as long."""
    times = [3 if at in last else 1 for at in range(len(pictures))]
    if suffix == ".mp4":
        frames = [frame for frame, count in zip(pictures, times, strict=True) for _ in range(count)]
        return bytes(
            imageio.imwrite(
                "<bytes>", np.stack(frames), extension=".mp4", plugin="pyav", codec="libx264",
                fps=fps,
            )
        )  # fmt: skip
    some = np.concatenate(pictures[:: max(len(pictures) // 8, 1)])
    palette = Image.fromarray(some).quantize(COLOURS)  # one for all, so that little changes
    few = [
        Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE)
        for picture in pictures
    ]
    buffer = io.BytesIO()
    stays = [round(1000 / fps * count) for count in times]
    few[0].save(
        buffer, "GIF", save_all=True, append_images=few[1:], duration=stays, loop=0, optimize=True
    )
    return buffer.getvalue()
