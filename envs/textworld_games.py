"""TextWorld's games (Côté et al. 2018, arXiv 1806.11532): made by number, kept while needed.

Settings and a number make one game, the same on any machine. The files of the last games lie in a
temporary folder that goes with the process.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from lang_agent.errors import LangAgentError, unknown
from lang_agent.seeding import EVALUATION_SEED, derive

Settings = Mapping[str, Any]

CHALLENGES: Mapping[str, Settings] = {
    "treasure_hunter": {"level": 30, "hints": False},
    "coin_collector": {"rooms": 40, "quest_length": 20, "hints": False},
    "the_cooking_game": {
        "rooms": 12,
        "ingredients": 5,
        "cut": True,
        "cook": True,
        "open": True,
        "drop": True,
    },
}
"""The challenges and their settings: as BALROG plays them, unless others are given."""
ALLOWED: Mapping[str, Any] = {
    "level": range(1, 31),
    "rooms": range(1, 101),
    "quest_length": range(1, 101),
    "ingredients": range(1, 6),
}
COOKING_ROOMS = (1, 6, 9, 12)
KEPT = 512  # games, half a megabyte each
TRIES = 20  # to find a quest of the length that is asked for
PARTS = ("map", "objects", "quest", "grammar")  # that have random numbers of their own


def settings_of(challenge: str, given: Settings) -> dict[str, Any]:
    """All settings of a challenge.

    Raises :class:`LangAgentError` for a challenge, a setting or a value that it does not have.
    """
    if challenge not in CHALLENGES:
        raise unknown("challenge", challenge, CHALLENGES)
    defaults = CHALLENGES[challenge]
    for name, value in given.items():
        if name not in defaults:
            raise unknown(f"setting of {challenge}", name, defaults)
        allowed = ALLOWED.get(name, (False, True))
        if challenge == "the_cooking_game" and name == "rooms":
            allowed = COOKING_ROOMS
        if type(value) is not type(defaults[name]) or value not in allowed:
            choices = f"{allowed[0]} to {allowed[-1]}" if isinstance(allowed, range) else allowed
            raise LangAgentError(f"{name}={value!r} of {challenge} must be one of {choices}.")
    found = {**defaults, **given}
    if challenge == "coin_collector":
        rooms, length = found["rooms"], found["quest_length"]
        if not length <= rooms <= 4 * length:
            raise LangAgentError(
                f"rooms={rooms} must be quest_length={length} or more, and at most four times that."
            )
    return found


def number_of(seed: int, games: int | None) -> int:
    """Which game a seed plays; of ``games`` different ones, the seeds of evaluations have others
    than those of training."""
    if games is None:
        return seed
    held_out = EVALUATION_SEED if seed >= EVALUATION_SEED else 0
    return held_out + seed % games


class GameFiles:
    """The compiled games of this process, the latest of them, in a folder that goes with it."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._pid = 0
        self._kept: OrderedDict[tuple[Any, ...], Path] = OrderedDict()

    def get(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Path:
        """The file of the game called ``key``; ``make`` makes the game if need be."""
        if self._folder is None or self._pid != os.getpid():  # what a fork inherits is its parent's
            self._folder = tempfile.TemporaryDirectory(prefix="lang_agent-textworld-")
            self._pid = os.getpid()
            self._kept.clear()
        if key not in self._kept:
            folder = Path(tempfile.mkdtemp(dir=self._folder.name))
            try:
                self._kept[key] = compiled(make(), folder)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            _, oldest = self._kept.popitem(last=False)
            shutil.rmtree(oldest.parent, ignore_errors=True)
        return self._kept[key]


FILES = GameFiles()


def drawn_game(challenge: str, settings: Settings, number: int) -> Path:
    """The file of a challenge's game by number."""
    key = (challenge, *sorted(settings.items()), number)
    return FILES.get(key, lambda: make_game(challenge, settings, number))


def given_game(path: str) -> Path:
    """The file of somebody's own game: a .z8 with its .json beside it, or the .json alone.

    Raises :class:`LangAgentError` for a file that is missing, or is no game of TextWorld's.
    """
    file = Path(path)
    if file.suffix not in (".z8", ".json"):
        raise LangAgentError(
            f"The game '{path}' is no .z8 or .json file, as TextWorld 1.7 makes and plays them."
        )
    if not file.is_file():
        raise LangAgentError(f"There is no game '{path}'.")
    data = file.with_suffix(".json")
    if not data.is_file():
        raise LangAgentError(
            f"The game '{path}' has no '{data.name}' beside it, which says what can be done in it: "
            "TextWorld's tw-make writes both."
        )
    game = _loaded(data)
    if file.suffix == ".z8":
        return file.absolute()
    state = data.stat()
    return FILES.get((str(data.absolute()), state.st_mtime_ns, state.st_size), lambda: game)


def _loaded(data: Path) -> Any:
    import textworld

    try:
        return textworld.Game.load(str(data))
    except Exception as error:  # whatever a damaged file makes of it
        reason = " ".join(str(error).split())[:120] or "no more is known"
        raise LangAgentError(
            f"'{data}' is no game of TextWorld's: {type(error).__name__}, {reason}."
        ) from None


def compiled(game: Any, folder: Path) -> Path:
    """Compile a game into a folder; its .json lies beside it.

    Raises :class:`LangAgentError` for a game that the Z-machine has no room for.
    """
    import textworld
    from textworld.generator.inform7 import CouldNotCompileGameError

    options = textworld.GameOptions()
    options.path, options.force_recompile = str(folder / "game.z8"), True
    try:
        file = Path(textworld.generator.compile_game(game, options))
    except CouldNotCompileGameError:
        raise LangAgentError(
            "TextWorld cannot compile this game: it may be too large for the Z-machine, so ask for "
            "fewer rooms."
        ) from None
    file.with_suffix(".ni").unlink(missing_ok=True)
    return file


# -- challenges ------------------------------------------------------------------------------------


def make_game(challenge: str, settings: Settings, number: int) -> Any:
    """A challenge's game: the same settings and number make the same.

    Raises :class:`LangAgentError` where no such game is found.
    """
    from textworld.generator import QuestGenerationError

    make = {
        "treasure_hunter": _treasure_hunter,
        "coin_collector": _coin_collector,
        "the_cooking_game": _cooking_game,
    }[challenge]
    for attempt in range(TRIES):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of names that come twice
                return make(settings, _options(settings, number, attempt))
        except QuestGenerationError:  # the map has no room for it: another one is drawn
            continue
    raise LangAgentError(f"No game of {challenge} with these settings was found: {dict(settings)}.")


def _options(settings: Settings, number: int, attempt: int) -> Any:
    import textworld

    options = textworld.GameOptions()
    seeds = {part: derive(number, "textworld", attempt, part) for part in PARTS}
    options.seeds = {part: int(seed % 2**31) for part, seed in seeds.items()}
    options.grammar.only_last_action = not settings.get("hints", False)
    return options


def _treasure_hunter(settings: Settings, options: Any) -> Any:
    from textworld.challenges.tw_treasure_hunter import treasure_hunter

    return treasure_hunter.make({"level": settings["level"]}, options)


def _coin_collector(settings: Settings, options: Any) -> Any:
    """Rooms beyond the quest's length lead to dead ends beside the way ("simple" distractors)."""
    import textworld
    from textworld.challenges.tw_coin_collector import coin_collector

    options.kb = _knowledge(coin_collector.KB_PATH)
    options.grammar.allowed_variables_numbering = True  # there are more rooms than names
    options.quest_length, options.nb_rooms = settings["quest_length"], settings["rooms"]
    # The package compiles a game to try its way, which is half of the time that a game takes: here
    # it is tried on the game's data.
    with patch.object(textworld.GameMaker, "compile", _save):
        return coin_collector.make_game("simple", options)


def _save(maker: Any, path: str) -> str:
    data = os.path.splitext(path)[0] + ".json"
    maker.build().save(data)
    return data


@lru_cache
def _knowledge(path: str) -> Any:
    """What a challenge's games are made of, which takes a second to read."""
    from textworld.generator.data import KnowledgeBase

    return KnowledgeBase.load(path)


def _cooking_game(settings: Settings, options: Any) -> Any:
    import textworld
    from textworld.challenges.tw_cooking import cooking

    asked = {name: settings[name] for name in ("cut", "cook", "open", "drop")}
    count = settings["ingredients"]
    asked |= {"recipe": count, "take": count, "go": settings["rooms"], "recipe_seed": 0}
    # The package would compile the game to try a way, which our expert does without.
    with patch.object(textworld.GameMaker, "set_walkthrough", lambda maker, commands: None):
        return cooking.make({**asked, "split": None}, options)
