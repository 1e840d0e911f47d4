"""Any Gymnasium world as an environment of text: the observation is a prompt, the action a phrase.

A world tells in a :class:`World` what its phrases mean and how its observations read; a
:class:`TextEnv` around it renders, prompts, parses and reports. ``make`` builds one by id.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np

from lang_agent.errors import LangAgentError, shown, unknown
from lang_agent.language_env import Achieved, LanguageEnv
from lang_agent.seeding import derive
from lang_agent.stepping import as_reward
from lang_agent.text_env.action_parser import ParsedAction, parse_action, parse_text
from lang_agent.text_env.plain import plain
from lang_agent.text_env.prompt import SUFFIX, Prompt, load_template
from lang_agent.text_env.spaces import AnyText
from lang_agent.text_env.wording import Wording, Wordings
from lang_agent.text_env.wording_file import is_wording_file, load_wording
from lang_agent.text_env.world import (
    NOTHING,
    Commands,
    Expert,
    GoalDetector,
    Renderer,
    Symmetries,
    Symmetry,
    World,
    find_renderer,
)
from lang_agent.trust import load_function

TEXT_OPTIONS = ("renderer", "prompt", "prompt_folder", "invalid_action", "actions", "wording")
"""What :class:`TextEnv` takes beside a world."""

MAX_IDLE = 100  # steps in a row in which an invalid action left the world where it was


def take_text_options(arguments: dict[str, Any]) -> dict[str, Any]:
    """Remove what :class:`TextEnv` takes from the arguments of a world, and return it."""
    return {name: arguments.pop(name) for name in TEXT_OPTIONS if name in arguments}


@dataclass(frozen=True)
class InvalidAction:
    """What is done with text that is no admissible phrase. It is counted and reported anyway.

    ``noop``              the world's own no-operation; a world without one stays where it is
    ``default:<phrase>``  this phrase is taken instead
    ``penalty:<x>``       as noop, and x is taken off the reward
    ``retry:<n>``         the agent is asked again, up to n times, and no time passes; then noop
    ``end``               the episode terminates with reward 0
    """

    kind: str
    value: str = ""
    number: float = field(default=0.0)

    @classmethod
    def from_text(cls, text: str) -> InvalidAction:
        """Parse ``kind[:value]``; raises :class:`LangAgentError` when it is none of the above."""
        kind, _, value = text.partition(":")
        number = 0.0
        if kind in ("penalty", "retry"):
            try:
                number = float(value) if kind == "penalty" else int(value)
            except ValueError:
                number = -1.0
            if not 0 <= number < math.inf:
                raise LangAgentError(
                    f"invalid_action {shown(text)} needs a number of at least 0 after the colon, "
                    f"such as '{kind}:{'0.1' if kind == 'penalty' else '2'}'."
                )
        elif kind not in ("noop", "default", "end") or (bool(value) != (kind == "default")):
            raise LangAgentError(
                f"invalid_action {shown(text)} is not known. Choices: noop, default:<phrase>, "
                "penalty:<x>, retry:<n>, end."
            )
        return cls(kind, value, number)


class TextEnv(LanguageEnv):
    """A Gymnasium environment whose observations are prompts and whose actions are phrases.

    ``info`` holds: ``actions`` (the admissible phrases of this state; None where any text is an
    action), ``mission``,
    ``descriptions``, ``verdict`` (of the action just parsed; None after a reset),
    ``invalid_action`` (bool), ``reason`` (why it was invalid), ``success`` (bool), and whatever
    the world put there.

    ``actions`` narrows the world's phrases to some of them, or renames them (new wording -> the
    world's phrase). ``wording`` draws other words for every episode
    (:mod:`lang_agent.text_env.wording`): a function of the environment's generator, or
    ``module:function``, or a file (:mod:`lang_agent.text_env.wording_file`).
    """

    def __init__(
        self,
        env: gymnasium.Env,
        world: World,
        *,
        renderer: str | Renderer | None = None,
        prompt: str = "transcript",
        prompt_folder: str | None = None,
        invalid_action: str = "noop",
        actions: Sequence[str] | Mapping[str, str] | None = None,
        wording: str | Wordings | None = None,
    ) -> None:
        self.env, self.world = env, world
        self.metadata = env.metadata
        self.render_mode = env.render_mode
        self.observation_space, self.action_space = AnyText(), AnyText(max_length=1024)
        self._wordings = _find_wordings(wording, world)
        language = str(getattr(self._wordings, "language", ""))
        self._renderer = find_renderer(renderer, world, language)
        self._begin: Callable[[gymnasium.Env, Wording], object] | None = getattr(
            self._renderer, "begin", None
        )
        self.legend = str(getattr(self._renderer, "legend", ""))
        self._wording = Wording()
        self._commands: Commands | None = world.actions if callable(world.actions) else None
        self._any_text = False
        self._own_phrases = _choose_actions(world, actions)
        self._phrases = self._own_phrases  # in the wording of this episode
        self._invalid = InvalidAction.from_text(invalid_action)
        unheard = self._commands is None and self._invalid.value not in self._phrases
        if self._invalid.kind == "default" and unheard:
            raise unknown("action for invalid_action=default", self._invalid.value, self._phrases)
        self.prompt = Prompt(load_template(prompt, prompt_folder))
        self.expert: Expert | None = None
        self._fields: dict[str, Any] = {}
        self._world_info: dict[str, Any] = {}
        self._retries = self._idle = self._steps = 0
        self._taken: Any = None  # environment action of the last step; None: the world stayed
        self._wanted: Any = None  # the expert's last one
        self._achieved: list[Achieved] = []
        self._watched = False
        self._symmetries: Symmetries | None = None  # through which relabelled steps are seen
        self._goal_detector: GoalDetector | None = None
        self._turns: list[tuple[str | None, dict[str, Any], Any]] = []
        """(action before, fields, observation) of the steps of an episode that is watched."""
        self._system = ""

    @property
    def name(self) -> str:
        for one in (self, self.env):
            if one.spec is not None:
                return one.spec.id.removeprefix("lang_agent/")
        return type(self.env.unwrapped).__name__

    @property
    def prompt_name(self) -> str:
        return str(self.prompt.template.name).removesuffix(SUFFIX)

    def _limit_prompt(self) -> None:
        limit = self.prompt_limit
        if limit is None:
            self.prompt.limit(None, None)
            return
        count = limit.count_tokens
        phrases = self.phrases if limit.with_phrase else ()
        longest = max((count(f" {phrase}") for phrase in phrases), default=0)
        self.prompt.limit(limit.max_tokens - longest, count)

    @property
    def phrases(self) -> tuple[str, ...]:
        return tuple(self._phrases)

    @property
    def _known_phrases(self) -> set[str]:
        """The world's own, before anybody renames them."""
        return set(self._own_phrases if callable(self.world.actions) else self.world.actions)

    @property
    def renamed_words(self) -> tuple[str, ...]:
        return tuple(getattr(self._wordings, "names", ()))

    @property
    def actions(self) -> tuple[str, ...] | None:
        """The admissible phrases of the current state; None where any text is an action."""
        if not self._fields:
            raise LangAgentError("There is no episode yet: call reset() before step().")
        return None if self._any_text else self._fields["actions"]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        super().reset(seed=None if seed is None else derive(seed, "wording"))
        if self._wordings is not None:
            self._wording = self._wordings(self.np_random)
        observation, self._world_info = self.env.reset(seed=seed, options=options)
        if self._commands is not None:
            known = self._commands(self.env)
            self._any_text = known is None
            self._own_phrases = {phrase: phrase for phrase in known or ()}
        self._phrases = self._wording.phrases(self._own_phrases)
        self._limit_prompt()
        self._retries = self._idle = self._steps = 0
        if self._begin is not None:
            self._begin(self.env, self._wording)
        self._look(observation, feedback="")
        if self._watched and self.world.goal_detector is not None:
            self._goal_detector = self.world.goal_detector(self.env)
            self._turns, self._achieved = [(None, self._fields, observation)], []
        self._system = self.prompt.system(self._fields)
        return self.prompt.reset(self._fields), self._info(None, success=False)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        admissible = self.actions
        parsed = parse_text(action) if admissible is None else parse_action(action, admissible)
        chosen, stay, penalty = self._decide(parsed)
        self._taken = None if stay else chosen
        if stay:
            observation, reward = None, 0.0
            self._world_info = {name: copy(value) for name, value in self._world_info.items()}
            self._idle += 1
            terminated, truncated = self._invalid.kind == "end", self._idle >= MAX_IDLE
        else:
            observation, raw, terminated, truncated, self._world_info = self.env.step(chosen)
            reward = as_reward(raw)
            self._idle = 0
        success = not stay and self.world.success(self.env, reward, terminated)
        self._steps += 1
        self._look(
            observation, feedback=f"Not an action: {parsed.reason}." if parsed.reason else ""
        )
        if self._goal_detector is not None:
            seen = self._turns[-1][-1] if observation is None else observation
            self._turns.append((action, self._fields, seen))
            for one in self._goal_detector(self._taken):
                if all(one.mission != known.mission for known in self._achieved):
                    self._achieved.append(one)
        prompt = self.prompt.step(action, self._fields)
        return prompt, reward - penalty, terminated, truncated, self._info(parsed, success)

    def _decide(self, parsed: ParsedAction) -> tuple[Any, bool, float]:
        """(environment action, whether the world stays where it is instead, penalty)."""
        if parsed.action is not None:
            self._retries = 0
            return self._phrases.get(parsed.action, parsed.action), False, 0.0
        rule = self._invalid
        if rule.kind == "default":
            return self._own_phrases.get(rule.value, rule.value), False, 0.0
        if rule.kind == "end":
            return None, True, 0.0
        if rule.kind == "retry" and self._retries < rule.number:
            self._retries += 1
            return None, True, 0.0
        self._retries = 0
        penalty = rule.number if rule.kind == "penalty" else 0.0
        return self.world.noop, self.world.noop is None, penalty

    def _look(self, observation: Any, feedback: str) -> None:
        """Render what is seen into fields; without a new observation the old ones stand."""
        fields: Mapping[str, Any] = self._fields
        if observation is not None:
            fields = new = self._render(observation)
            if "actions" not in fields and "action_mask" in self._world_info:
                new["actions"] = self._unmasked(self._world_info["action_mask"])
            if isinstance(fields.get("descriptions"), str):
                name = _name(self._renderer)
                raise LangAgentError(f"{name} gives 'descriptions' as one text, not as lines.")
        if "descriptions" not in fields:
            raise LangAgentError(
                f"The renderer {_name(self._renderer)} returned no 'descriptions' (a list of "
                f"lines), only: {', '.join(fields) or 'nothing'}."
            )
        for phrase in fields.get("actions", ()):
            if phrase not in self._phrases:
                raise unknown(f"action given by {_name(self._renderer)}", phrase, self._phrases)
        self._fields = {
            "mission": "",
            "actions": self.phrases,
            "renamed_actions": not set(self._phrases) <= self._known_phrases,
            **fields,
            "feedback": feedback,
            "step": self._steps,
        }

    def _render(self, observation: Any) -> dict[str, Any]:
        """What the renderer tells of an observation, in the wording of this episode."""
        rendered = self._renderer(observation, self.env)
        if not isinstance(rendered, Mapping):
            raise LangAgentError(
                f"The renderer {_name(self._renderer)} returned {shown(rendered)}, where a "
                "dictionary with 'descriptions' (a list of lines) is expected."
            )
        if not self.prompt.reads_things:
            rendered = {name: rendered[name] for name in rendered if name != "things"}
        rendered = self._wording.fields(rendered)
        fields = {n: plain(value, n) for n, value in rendered.items() if n != "things"}
        if self.prompt.reads_things:
            fields["things"] = _things(rendered, fields)
        return fields

    def _unmasked(self, mask: Any) -> tuple[str, ...]:
        """The phrases that ``info["action_mask"]`` of a world with a Discrete space leaves; all of
        them where it leaves none, as at the end of an episode, or is made otherwise."""
        space = self.env.action_space
        if not isinstance(space, gymnasium.spaces.Discrete) or len(mask) != space.n:
            return self.phrases
        left = [one for one, action in self._phrases.items() if mask[action - space.start]]
        return tuple(left) or self.phrases

    def _info(self, parsed: ParsedAction | None, success: bool) -> dict[str, Any]:
        return {
            **self._world_info,
            "actions": self.actions,
            "mission": self._fields["mission"],
            "descriptions": self._fields["descriptions"],
            "system": self._system,
            "verdict": parsed and parsed.verdict,
            "invalid_action": parsed is not None and parsed.verdict == "invalid",
            "reason": parsed.reason if parsed else "",
            "success": success,
        }

    def watch(self, symmetries: bool = False) -> None:
        if self.world.goal_detector is None:
            super().watch()
        self._symmetries = self._known_symmetries() if symmetries else None
        self._watched = True

    def _known_symmetries(self) -> Symmetries:
        if self.world.symmetries is None:
            raise LangAgentError(
                f"{self.name} has no symmetries: set symmetries to False, or give "
                "World(symmetries=...)."
            )
        if not getattr(self._renderer, "observation_alone", False):
            raise LangAgentError(
                f"The renderer {_name(self._renderer)} needs more of {self.name} than the "
                "observation, which cannot be seen otherwise: set symmetries to False, or choose "
                "another renderer."
            )
        return self.world.symmetries

    @property
    def achieved(self) -> Sequence[Achieved]:
        """The goals reached so far, where the episode is watched: each once, when it was first
        reached. A thing picked up and dropped again and again would drown the rest otherwise."""
        return self._achieved

    def relabelled(self, mission: str, generator: np.random.Generator) -> Iterator[tuple[str, str]]:
        symmetry = None
        if self._symmetries is not None:
            symmetry = self._symmetries(mission, generator)
            mission = symmetry.mission(mission)
        renamed = plain(self._wording.fields({"mission": mission}), "mission")
        prompt, said = self.prompt.again(), None
        for (_, fields, observation), (action, *_) in pairwise(self._turns):
            assert action is not None
            if symmetry is not None:
                fields = {**fields, **self._render(symmetry.observation(observation))}
                action = self._said(action, symmetry)
            seen = {**fields, **renamed}
            yield (prompt.reset(seen) if said is None else prompt.step(said, seen)), action
            said = action

    def _said(self, phrase: str, symmetry: Symmetry) -> str:
        """The phrase of what an action is, seen so; texts that are none stay."""
        if phrase not in self._phrases:
            return phrase
        other = self._phrase_of(symmetry.action(self._phrases[phrase]))
        if other is not None:
            return other
        raise LangAgentError(
            f"No phrase says what '{phrase}' is in a symmetry of {self.name}, among: "
            f"{', '.join(self._phrases)}. Allow that action too, or set symmetries to False."
        )

    @property
    def instruction(self) -> Mapping[str, Any]:
        return {} if self.world.instruction is None else self.world.instruction(self.env)

    @property
    def cells(self) -> Mapping[str, Any] | None:
        return None if self.world.cells is None else self.world.cells(self.env)

    def expert_action(self, last_action: str | None) -> str:
        """As :meth:`LanguageEnv.expert_action`: the expert learns what was really done, which may
        be another action than was said (``invalid_action=default``), or nothing."""
        expert = getattr(self._renderer, "expert", None) or self.world.expert
        if expert is None:
            return super().expert_action(last_action)
        if last_action is None or self.expert is None:
            self.expert = expert(self.env, self._wording)
            self._wanted = self.expert(None)
        elif self._taken is not None:  # else nothing has happened that could change its mind
            self._wanted = self.expert(self._taken)
        wanted = self._wanted
        if self._any_text:
            return str(wanted)
        phrase = self._phrase_of(wanted)
        if phrase is not None:
            return phrase
        raise LangAgentError(
            f"The expert wants the action {wanted!r}, which none of the phrases allowed here says: "
            f"{', '.join(self._phrases)}."
        )

    def _phrase_of(self, wanted: Any) -> str | None:
        """What says an environment action here; None where nothing does."""
        return next((said for said, action in self._phrases.items() if action == wanted), None)

    def render(self) -> Any:
        return self.env.render()

    def close(self) -> None:
        self.env.close()


def _choose_actions(
    world: World, actions: Sequence[str] | Mapping[str, str] | None
) -> dict[str, Any]:
    if callable(world.actions):
        if actions:
            raise LangAgentError(
                "actions cannot be chosen or renamed here: the phrases differ from episode to "
                "episode."
            )
        return {}
    if actions is None:
        return dict(world.actions)
    if not actions:
        raise LangAgentError("The list of actions is empty: name at least one phrase.")
    if isinstance(actions, str):
        raise LangAgentError(f"actions={actions!r} is one string: give a list of phrases.")
    if not isinstance(actions, Mapping):
        actions = {phrase: phrase for phrase in actions}
    for phrase in actions.values():
        if phrase not in world.actions:
            raise unknown("action", phrase, world.actions)
    return {wording: world.actions[phrase] for wording, phrase in actions.items()}


def _find_wordings(wording: str | Wordings | None, world: World) -> Wordings | None:
    """As ``module:function``, a file, or as it is."""
    if not isinstance(wording, str):
        return wording
    if not is_wording_file(wording):
        return load_function(wording)
    found = load_wording(wording)
    for phrase in found.actions:
        if not callable(world.actions) and phrase not in world.actions:
            raise unknown(f"action in '{wording}'", phrase, world.actions)
    return found


def _things(rendered: Mapping[str, Any], fields: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What each line tells of; of a renderer that gives no things, the lines themselves."""
    things = rendered.get("things")
    if things is None:
        lines = fields.get("descriptions", ())
        return [{**NOTHING, "name": line, "said": line, "brief": line} for line in lines]
    if not isinstance(things, (list, tuple)) or not all(isinstance(t, Mapping) for t in things):
        raise LangAgentError(f"'things' must be a list of dictionaries, not {shown(things)}.")
    return [
        thing if _is_whole(thing) else {**NOTHING, **plain(thing, "things")} for thing in things
    ]


def _is_whole(thing: Any) -> bool:
    """Whether a thing is plain and has all that templates may ask for, so that it needs no copy."""
    return (
        type(thing) is dict
        and NOTHING.keys() <= thing.keys()
        and all(type(value) in (str, int, bool) for value in thing.values())
    )


def _name(function: Callable[..., Any]) -> str:
    """Of a function, or of the class of an object that is called like one."""
    named = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{function.__module__}:{named}"
