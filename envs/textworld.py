"""TextWorld (Côté et al. 2018, arXiv 1806.11532): text adventures that are made by the package.

Three of its challenges, at the settings that BALROG plays (Paglieri et al. 2024, arXiv 2411.13543)
or others; every episode has a game of its own, made from its seed. Or a game of one's own.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.envs.registration import register as register_env

from lang_agent.errors import LangAgentError, unknown
from lang_agent.text_env.env import TextEnv, take_text_options
from lang_agent.text_env.spaces import AnyText
from lang_agent.text_env.world import World

from .textworld_expert import expert
from .textworld_games import drawn_game, given_game, number_of, settings_of

LIMIT = 80  # steps, as in BALROG's configuration
NOOP = "look"
MODES = ("admissible", "any")
LONGEST = 190  # letters of a command that the interpreter reads
META = frozenset(
    ("save", "restore", "restart", "quit", "q", "undo", "script", "transcript", "noscript",
     "unscript", "record", "recording", "replay")
)  # fmt: skip
"""What would be said to the interpreter, not in the game: it writes files, or ends the game."""
REFUSED = "That is nothing you can do here."
_STATUS = re.compile(r"\n> [^\n]*\Z|\n>\s*\Z")  # the interpreter's prompt and status line
_QUESTION = re.compile(r"\s*Would you like to RESTART, RESTORE.*\Z", re.DOTALL)


class TextWorld(gymnasium.Env[str, str]):
    """A game of TextWorld's behind Gymnasium's interface: what is read and said is text.

    The reward of a step is the points that it gained, as a share of the game's maximum. ``info``
    holds ``progression``: that share so far, and 1 for a game that is won.

    Args:
        challenge: treasure_hunter, coin_collector or the_cooking_game; each has ``settings`` of its
            own (:data:`lang_agent.envs.textworld_games.CHALLENGES`).
        game: this game in every episode, instead of a challenge's: a .z8 file with its .json beside
            it, or a .json file.
        games: how many different games there are; by default every seed has its own.
        commands: "admissible" gives the game's admissible commands as phrases; with "any" every
            text is an action, and the game says what it makes of it.
        max_steps: after which the episode is cut off.

    Raises :class:`LangAgentError` without the package, and for what cannot be played.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        challenge: str | None = None,
        *,
        game: str | None = None,
        games: int | None = None,
        commands: str = "admissible",
        max_steps: int = LIMIT,
        **settings: Any,
    ) -> None:
        try:
            import textworld  # noqa: F401
        except ImportError:
            raise LangAgentError(
                "TextWorld's games are made and played by the package textworld: "
                "pip install 'lang_agent[textworld]'."
            ) from None
        if commands not in MODES:
            raise unknown("commands", commands, MODES)
        for name, value in (("max_steps", max_steps), ("games", games)):
            if value is not None and (type(value) is not int or value < 1):
                raise LangAgentError(f"{name}={value!r} must be a whole number of at least 1.")
        if game is not None and (challenge is not None or games is not None or settings):
            raise LangAgentError(
                f"Give game={game!r} alone: challenge, games and settings are of games that are "
                "made here."
            )
        self.challenge = challenge or "coin_collector"
        self.settings = {} if game else settings_of(self.challenge, settings)
        self.given = given_game(game) if game else None
        self.games, self.max_steps, self.render_mode = games, max_steps, None
        self.any_text = commands == "any"
        self.said: list[str] = []
        """The commands of this episode."""
        self.state: Any = None
        """TextWorld's of the game as it stands."""
        self.told = ""
        """What the game said last."""
        self._played: Any = None
        self._file: Path | None = None
        self.observation_space, self.action_space = AnyText(), AnyText(max_length=LONGEST)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        number = int(self.np_random.integers(2**31)) if seed is None else seed
        file = self.given or drawn_game(
            self.challenge, self.settings, number_of(number, self.games)
        )
        self._begin(file)
        return self.told, self._info()

    def _begin(self, file: Path) -> None:
        import textworld

        if file != self._file:
            self.close()
            asked = textworld.EnvInfos(
                feedback=True, admissible_commands=True, policy_commands=True, facts=True,
                description=True, inventory=True, score=True, max_score=True, won=True, lost=True,
                objective=True,
            )  # fmt: skip
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of what the interpreter itself does not know
                    self._played = textworld.start(str(file), asked)
            except Exception as error:
                raise LangAgentError(f"The game '{file}' cannot be played: {error}.") from error
            self._file = file
        self._played.seed(0)
        self.state = self._played.reset()
        self.said = []
        self.told = _opening(self.state.feedback, self.state.objective or "")

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        before = self._share()
        self._say(action)
        ended = bool(self.state.won or self.state.lost)
        gained = self._share() - before
        return self.told, gained, ended, len(self.said) >= self.max_steps, self._info()

    def _say(self, action: str) -> None:
        self.said.append(action)
        command = _readable(action)
        if command:
            self.state, _, _ = self._played.step(command)
            self.told = _cleaned(self.state.feedback)
        else:
            self.told = REFUSED

    def _share(self) -> float:
        """The points so far, as a share of all."""
        most = self.state.max_score or 0
        return min((self.state.score or 0) / most, 1.0) if most > 0 else float(bool(self.state.won))

    def _info(self) -> dict[str, Any]:
        info: dict[str, Any] = {"progression": 1.0 if self.state.won else max(self._share(), 0.0)}
        return {**info, "line": True} if self.any_text else info

    def __getstate__(self) -> dict[str, Any]:
        """A copy plays the same game to the same place: the interpreter itself cannot be copied."""
        return {**self.__dict__, "_played": None, "state": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _file=None)
        if state["_file"] is not None:
            self._begin(state["_file"])
            for action in state["said"]:
                self._say(action)

    def close(self) -> None:
        if self._played is not None:
            self._played.close()
        self._played = self._file = None


def _readable(text: str) -> str:
    """A text as the interpreter reads commands; empty for what would be said to itself."""
    words = re.findall(r"[\w-]+", text.lower())
    if not META.isdisjoint(words) or any(word.startswith("tw-") for word in words):
        return ""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return plain.encode("ascii", "replace").decode()[:LONGEST].strip()


def _cleaned(text: str) -> str:
    """What the game says, without the interpreter's own lines and with no two empty lines."""
    text = _QUESTION.sub("", _STATUS.sub("", text.rstrip()))
    return re.sub(r"\n\s*\n+", "\n\n", text).strip()


def _opening(text: str, objective: str) -> str:
    """The beginning, without the title and the objective, which is the goal."""
    _, _, after = text.rpartition(objective) if objective else ("", "", text)
    return _cleaned(after)


# -- in words --------------------------------------------------------------------------------------


def render(observation: str, env: gymnasium.Env) -> dict[str, Any]:
    """What the game said."""
    return _fields(env, _lines(observation))


def render_state(observation: str, env: gymnasium.Env) -> dict[str, Any]:
    """What the game said, and then the room and what is carried, as they are now."""
    world: Any = env.unwrapped
    lines = _lines(observation)
    for text in (world.state.description, world.state.inventory):
        lines += [line for line in _lines(_cleaned(text or "")) if line not in lines]
    return _fields(env, lines)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]


def _fields(env: gymnasium.Env, lines: list[str]) -> dict[str, Any]:
    world: Any = env.unwrapped
    mission = " ".join((world.state.objective or "").split())
    if world.any_text:
        return {"mission": mission, "descriptions": lines}
    # A game that is over has no more commands, and is looked at once again.
    useful = world.state.admissible_commands or [NOOP]
    known = [*lines, f"You can {', '.join(useful)}"]
    return {"mission": mission, "descriptions": known, "actions": useful}


def commands(env: gymnasium.Env) -> Sequence[str] | None:
    """All commands that the game may ever admit; None where any text is one."""
    world: Any = env.unwrapped
    if world.any_text:
        return None
    return list(dict.fromkeys([NOOP, *world.state.possible_admissible_commands]))


def _won(env: gymnasium.Env, reward: float, terminated: bool) -> bool:
    world: Any = env.unwrapped
    return bool(world.state.won)


WORLD = World(
    actions=commands,
    renderers={"game": render, "state": render_state},
    noop=NOOP,
    success=_won,
    expert=expert,
)


def make(**arguments: Any) -> TextEnv:
    """A game of TextWorld's in words; what is no text option goes to :class:`TextWorld`."""
    options = take_text_options(arguments)
    return TextEnv(TextWorld(**arguments), WORLD, **options)


def register() -> None:
    register_env("TextWorld-v0", entry_point=f"{__name__}:make")
