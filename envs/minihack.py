"""MiniHack (Samvelyan et al. 2021, arXiv 2109.13202) and NetHack (the NetHack Learning Environment,
Küttler et al. 2020, arXiv 2006.13760) in words, at the settings of BALROG (Paglieri et al. 2024,
arXiv 2411.13543).

The packages nle and minihack play; the words are our own (:mod:`.nethack_words`). Their action is a
word of BALROG's ("north", "far east", "zap"), and what the game then asks is answered by further
words. Unlike there, every message is told, also of those that wait for a key, and a menu is not
dismissed unread but waits for an answer.
"""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator
from gymnasium.envs.registration import register as register_env

from lang_agent.errors import LangAgentError, shown, unknown
from lang_agent.text_env.env import TextEnv, take_text_options
from lang_agent.text_env.world import World

from .nethack_explorer import expert
from .nethack_progress import progression
from .nethack_view import (
    DIRECTIONS,
    ENTER,
    ESCAPE,
    TEXT,
    Question,
    View,
    look,
    menu,
    overlay,
    screen_lines,
    text,
)
from .nethack_view import question as asked
from .nethack_words import RENDERERS

OBSERVED = (
    "glyphs", "chars", "blstats", "message", "inv_strs", "inv_letters", "screen_descriptions",
    "tty_chars",
)  # fmt: skip
KEYS = dict(zip(DIRECTIONS, "kljhunby", strict=True))
COMMANDS = (
    "up", "down", "wait", "apply", "close", "open", "eat", "force", "kick", "loot", "pickup",
    "pray", "puton", "quaff", "search", "zap",
)  # fmt: skip
"""BALROG's for MiniHack, beside the directions."""
ALL_COMMANDS = (
    *COMMANDS, "annotate", "call", "cast", "chat", "dip", "drop", "droptype", "engrave", "enhance",
    "esc", "fight", "fire", "invoke", "look", "monster", "offer", "pay", "quiver", "read",
    "remove", "rub", "swap", "takeoff", "takeoffall", "teleport", "throw", "twoweapon", "untrap",
    "wear", "wield", "wipe",
)  # fmt: skip
"""BALROG's for NetHack, without those that ask for a place on the map (travel, jump)."""
NAMES = {
    ENTER: "more", ESCAPE: "esc", ord("<"): "up", ord(">"): "down", ord("."): "wait",
    ord("-"): "minus", ord("+"): "plus", ord(" "): "space", ord("'"): "apostrophe",
    ord('"'): "quote", ord("$"): "dollar",
}  # fmt: skip
"""Keys that answer a question and are no letters or digits, in words."""
STAIRS = "reach the staircase down"
MISSIONS = {
    "Boxoban": "push every boulder onto a fountain",
    "Sokoban": f"fill every pit with a boulder, then {STAIRS}",
    "Eat": "eat an apple", "Wield": "wield a dagger", "Wear": "wear a robe",
    "Read": "read a scroll", "PutOn": "put on an amulet", "Zap": "zap a wand",
    "Pray": "pray on an altar", "Sink": "quaff from a sink", "WoD-Easy": "kill the minotaur",
    "Levitate": "levitate",
    "ExploreMaze": f"eat apples and {STAIRS}",
}  # fmt: skip
"""What MiniHack's tasks ask for that are not done on the staircase down, by the start of a name."""
ROLES = (
    "@",
    "arc",
    "bar",
    "cav",
    "hea",
    "kni",
    "mon",
    "pri",
    "ran",
    "rog",
    "sam",
    "tou",
    "val",
    "wiz",
)
NEVER = 10**9  # steps
MOST_KEYS = 1000  # pressed in a row to read on
LOST = 2**63  # nle's seeds lie below
INSTALL = (
    "is played by the packages nle and minihack, which need Gymnasium 1.2.0 and so an environment "
    "of their own: pip install 'lang_agent[minihack]' there."
)


class _Talking:
    """Mixed into a class of the packages: what is said between two actions is heard, and what is
    asked is left to the agent, where it has a key to answer with."""

    heard: list[str]
    question: Question | None

    def _perform_known_steps(
        self, observation: Any, done: bool, exceptions: bool = True
    ) -> tuple[Any, bool]:
        """In place of the package's own, which loses messages and dismisses menus."""
        game: Any = self
        at = game._observation_keys.index
        self.question = None
        for _ in range(MOST_KEYS):
            message = text(observation[at("message")])
            screen = screen_lines(observation[at("tty_chars")])
            _, in_question, in_text, waits = observation[at("internal")][:4]
            over = observation[at("program_state")][0] == 1
            wanted = menu(screen) if waits and not over else None
            if message:
                self.heard.append(message)
            elif not (wanted or over):  # of the end, no tombstone with the date
                self.heard += overlay(screen)
            if done or not (in_question or in_text or waits):
                break
            if in_text and not waits and not over:
                wanted = TEXT
            elif in_question and not waits and not over:
                carried = observation[at("inv_letters")]
                wanted = asked(message, [int(letter) for letter in carried if letter])
            if wanted and {*map(int, game.actions)} & {*wanted.keys} - {ESCAPE}:
                self.question = wanted
                break
            key = ord(" ") if waits and not wanted else ESCAPE
            observation, done = game.nethack.step(key)
        return observation, done

    def _quit_game(self, observation: Any, done: bool) -> None:
        """The next reset ends the game: what is seen now is to be told."""


class NetHack(gymnasium.Env):
    """One of the packages' environments. An action is a phrase, an observation a :class:`View`.

    ``info`` holds ``progression`` and ``end`` (how the episode ended, in nle's words).

    Args:
        game: the environment, with :class:`_Talking`.
        commands: what can be done while nothing is asked.
        mission: what for, in words.
        no_progress_timeout: so many steps in a row in which no time passes end an episode.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012

    def __init__(
        self,
        game: Any,
        commands: Sequence[str],
        mission: str,
        render_mode: str | None,
        no_progress_timeout: int | None = None,
    ) -> None:
        from nle import _pynethack, nethack

        self.game, self.mission, self.render_mode = game, mission, render_mode
        pressed = {int(key): index for index, key in enumerate(game.actions)}
        words = {name: ord(key) for name, key in KEYS.items()}
        words |= {f"far {name}": ord(key.upper()) for name, key in KEYS.items()}
        words |= {name: _key(nethack, name) for name in commands}
        self.commands = [name for name, key in words.items() if key in pressed]
        answers = {_said(key): key for key in pressed if _answers(key)}
        self.actions = {name: pressed[words[name]] for name in self.commands} | {
            name: pressed[key] for name, key in answers.items() if name not in words
        }
        self.uses_things = bool({"apply", "zap", "quaff", "eat"} & {*self.commands})
        self.action_space = gymnasium.spaces.Discrete(len(self.actions))
        self.observation_space = gymnasium.spaces.Text(10**6)
        kinds = range(nethack.MAX_GLYPH)
        self._first = nethack.GLYPH_CMAP_OFF
        numbers = range(nethack.GLYPH_EXPLODE_OFF - self._first)
        self._symbols = [_pynethack.nethack.symdef.from_idx(n).explanation for n in numbers]
        self._monsters = np.array([nethack.glyph_is_monster(glyph) for glyph in kinds], bool)
        self._seed = nethack.Nethack.set_initial_seeds
        self._levels: dict[tuple[int, int], np.ndarray] = {}
        self._no_progress_timeout = no_progress_timeout
        self._far, self._idle = 0.0, 0
        self.view: View
        self.succeeded = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[View, dict[str, Any]]:
        super().reset(seed=seed)
        number = int(self.np_random.integers(2**31)) if seed is None else seed % LOST
        game = self.game
        # The challenge's own seed() refuses, being a competition's; as do its instance's methods.
        self._seed(game.nethack, number, number, False)
        if hasattr(game, "minigrid_env"):  # draws the rooms of some tasks
            game.minigrid_env.unwrapped.np_random = np.random.default_rng(number)
        game.heard, game.question, self._levels = [], None, {}
        with _drawn_from(number):
            game.reset()
        game._perform_known_steps(game.last_observation, False)
        self.succeeded, self._far, self._idle = False, 0.0, 0
        return self._look(over=False), self._info(0.0, "RUNNING")

    def step(self, action: str) -> tuple[View, float, bool, bool, dict[str, Any]]:
        self.game.heard = []
        _, reward, _, _, told = self.game.step(self.actions[action])
        end = told["end_status"].name
        self.succeeded = end == "TASK_SUCCESSFUL"
        over = end in ("DEATH", "TASK_SUCCESSFUL")
        before = self.view.stats["turn"]
        seen = self._look(over=end == "DEATH")
        # Counted here: the package asks twice a step, and so counts two.
        self._idle = self._idle + 1 if seen.stats["turn"] == before else 0
        if not over and self._no_progress_timeout and self._idle >= self._no_progress_timeout:
            end = "ABORTED"
        return seen, float(reward), over, end == "ABORTED", self._info(reward, end)

    def _look(self, over: bool) -> View:
        game = self.game
        seen = dict(zip(game._observation_keys, game.last_observation, strict=True))
        named = (self._first, self._symbols, self._monsters)
        self.view = look(seen, *named, self._levels, game.heard, game.question, over)
        return self.view

    def _info(self, reward: float, end: str) -> dict[str, Any]:
        if isinstance(self, Challenge):
            if not self.view.over:
                self._far = max(self._far, progression(self.view.stats))
        else:
            self._far = float(reward >= 1)  # as BALROG counts
        return {"progression": self._far, "end": end.lower()}

    def admissible(self) -> list[str]:
        """The phrases that mean something now."""
        question = self.game.question
        if question is None:
            return self.commands
        ways = {ord(key): name for name, key in KEYS.items()}
        if question.kind != "direction":
            ways = {}
        found = dict.fromkeys(ways.get(key) or _said(key) for key in question.keys)
        return [phrase for phrase in found if phrase in self.actions]

    def render(self) -> np.ndarray | None:
        """NetHack's tiles of the map's 21 rows and of the 21 columns around the player."""
        if self.render_mode is None:
            return None
        picture = self.game.render()
        tile = picture.shape[0] // 21
        left = min(max(self.view.player[1] - 10, 0), 79 - 21)
        return picture[:, tile * left : tile * (left + 21)].copy()

    def close(self) -> None:
        self.game.close()


class Challenge(NetHack):
    """NetHack itself, whose progression is by how deep and how experienced the player was."""


def _key(nethack: Any, name: str) -> int:
    kind = nethack.MiscDirection if name in ("up", "down", "wait") else nethack.Command
    return int(kind[name.upper()])


def _said(key: int) -> str:
    """The phrase for a key that answers a question. No two differ in case alone."""
    key_text = chr(key)
    return NAMES.get(key) or (f"capital {key_text}" if key_text.isupper() else key_text)


def _answers(key: int) -> bool:
    return key in NAMES or (key < 128 and chr(key).isalnum())


@contextmanager
def _drawn_from(seed: int) -> Iterator[None]:
    """Let Python's global generator, which MiniHack draws some levels from, begin at a seed."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)


# -- making one ------------------------------------------------------------------------------------


def _package(name: str) -> None:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "pkg_resources is deprecated")
            import minihack
    except ImportError:
        raise LangAgentError(f"{name} {INSTALL}") from None
    assert minihack


def _game(env_id: str, settings: Mapping[str, Any], render_mode: str | None) -> Any:
    """One of the packages' environments, which talks."""
    spec = gymnasium.spec(env_id)
    base: Any = load_env_creator(str(spec.entry_point))
    drawing = "pixel" if render_mode == "rgb_array" else "ansi"
    talking = type(base.__name__, (_Talking, base), {})
    return talking(**{**spec.kwargs, **settings, "render_mode": drawing, "fix_moon_phase": True})


def tasks() -> dict[str, str]:
    """MiniHack's tasks: the short name that ``task`` takes -> the id of its latest version."""
    _package("MiniHack")
    found = (re.fullmatch(r"MiniHack-(.+)-v(\d+)", name) for name in gymnasium.registry)
    known = sorted((one[1], int(one[2]), one[0]) for one in found if one)
    return {name: env_id for name, _, env_id in known if not name.endswith("Custom")}


def make_minihack(
    task: str = "MazeWalk-9x9",
    max_steps: int = 100,
    character: str = "@",
    all_commands: bool = False,
    levels: str | None = None,
    render_mode: str | None = None,
    **options: Any,
) -> TextEnv:
    """A task of MiniHack's in words.

    Args:
        task: ``MazeWalk-9x9``, or ``MiniHack-MazeWalk-9x9-v0``.
        max_steps: after which the episode is cut off.
        character: whom one plays, in nle's form; ``@`` is drawn from the seed.
        all_commands: those of NetHack, and not only those that BALROG has for MiniHack.
        levels: a folder with Boxoban's levels, for the three tasks of that name.
    """
    text_options = take_text_options(options)
    _refuse(options, "MiniHack-v0")
    known = tasks()
    short = re.sub(r"^MiniHack-|-v\d+$", "", str(task))
    if short not in known:
        raise unknown("task of MiniHack", str(task), known)
    settings = {
        "observation_keys": OBSERVED,
        "character": _role(character),
        "max_episode_steps": _whole("max_steps", max_steps),
        "autopickup": False,
        "penalty_step": -0.01,
        "penalty_time": 0.0,
    }
    try:
        with _levels_in(short, levels):
            game = _game(known[short], settings, render_mode)
    except LangAgentError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise LangAgentError(
            f"MiniHack's own task {short!r} cannot be made with the packages that are installed: "
            f"{reason.rstrip('.')}."
        ) from error
    if hasattr(game, "_levels"):  # Boxoban's, in whatever order the folder was read
        game._levels.sort()
        game._goal_pos_set = set()  # which the package's reset asks for before it is there
    mission = next((told for start, told in MISSIONS.items() if short.startswith(start)), "")
    if not mission:
        mission = f"do what {short} is for" if game.reward_manager else STAIRS
    commands = ALL_COMMANDS if all_commands else COMMANDS
    return _in_words(NetHack(game, commands, mission, render_mode), text_options)


def make_nethack(
    max_steps: int = 100_000,
    no_progress_timeout: int = 150,
    character: str = "@",
    render_mode: str | None = None,
    **options: Any,
) -> TextEnv:
    """NetHack in words, as ``NetHackChallenge``.

    Args:
        no_progress_timeout: so many steps in which no time passes end an episode.
    """
    text_options = take_text_options(options)
    _refuse(options, "NetHack-v0")
    _package("NetHack")
    settings = {
        "observation_keys": OBSERVED,
        "character": _role(character),
        "max_episode_steps": _whole("max_steps", max_steps),
        "no_progress_timeout": NEVER,
        "allow_all_modes": False,  # so that what waits is asked for
    }
    timeout = _whole("no_progress_timeout", no_progress_timeout)
    game = _game("NetHackChallenge-v0", settings, render_mode)
    mission = "go down as deep, and grow as experienced, as you can"
    challenge = Challenge(game, ALL_COMMANDS, mission, render_mode, timeout)
    return _in_words(challenge, text_options)


def _in_words(env: NetHack, options: Mapping[str, Any]) -> TextEnv:
    passing = (name for name in ("search", "wait") if name in env.commands)
    world = World(
        actions={phrase: phrase for phrase in env.actions},
        renderers=RENDERERS,
        noop=next(passing, None),
        success=lambda env, reward, terminated: env.unwrapped.succeeded,  # type: ignore[attr-defined]
        expert=expert if env.mission == STAIRS else None,
    )
    try:
        return TextEnv(env, world, **options)
    except BaseException:
        env.close()
        raise


def _whole(name: str, number: Any) -> int:
    if type(number) is not int or number < 1:
        raise LangAgentError(f"{name}={number!r} must be a whole number of at least 1.")
    return number


def _role(character: Any) -> str:
    """Checked here: NetHack draws whoever it does not know."""
    role, *_ = str(character).split("-")
    if role not in ROLES:
        raise unknown("character", str(character), ROLES)
    return str(character)


def _refuse(options: Mapping[str, Any], name: str) -> None:
    for argument in options:
        raise TypeError(f"{name} got an unexpected keyword argument '{argument}'")


@contextmanager
def _levels_in(task: str, folder: str | None) -> Iterator[None]:
    """Have MiniHack read Boxoban's levels from a folder, which no package ships."""
    if not task.startswith("Boxoban"):
        if folder is not None:
            raise LangAgentError(f"levels={shown(folder)} is for the tasks of Boxoban, not {task}.")
        yield
        return
    if folder is None or not Path(folder).is_dir():
        raise LangAgentError(
            f"The levels of {task} are in no package: give levels=FOLDER, a copy of Boxoban's "
            "(github.com/google-deepmind/boxoban-levels), which has the folders hard, medium and "
            f"unfiltered{'' if folder is None else f'; {shown(folder)} is no folder'}."
        )
    from minihack.envs import boxohack

    known, boxohack.LEVELS_PATH = boxohack.LEVELS_PATH, str(folder)
    try:
        yield
    finally:
        boxohack.LEVELS_PATH = known


def register() -> None:
    register_env("MiniHack-v0", entry_point=f"{__name__}:make_minihack")
    register_env("NetHack-v0", entry_point=f"{__name__}:make_nethack")
