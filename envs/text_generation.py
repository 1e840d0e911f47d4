"""Writing as an environment: a prompt to go on from, the text as the action, a rubric as reward.

``TextGeneration-v0`` asks for one text, ``Dialogue-v0`` for a turn after each of a partner's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium

from lang_agent.errors import LangAgentError, unknown
from lang_agent.files import lines_of, read_text
from lang_agent.language_env import LanguageEnv
from lang_agent.rewards.rubric import Part, Rubric, Writing
from lang_agent.seeding import derive
from lang_agent.text_env.spaces import AnyText
from lang_agent.trust import load_function

PROMPTS = (
    "Today I",
    "After the long journey we",
    "The children",
    "On the way to work I",
    "My neighbour",
    "In the kitchen my sister",
    "Yesterday evening we",
    "At the market the old man",
)
"""Beginnings of stories, for want of others."""

QUESTIONS = (
    "Hello! How was your day?",
    "What happened then?",
    "And what will you do tomorrow?",
)
"""What the partner of a dialogue says, for want of another."""

Rewards = str | Mapping[str, Any] | list[Part] | Rubric
Step = tuple[str, float, bool, bool, dict[str, Any]]
Partner = Callable[[Sequence[str]], "str | None"]
"""(what was said so far, in turns, the partner's first) -> what the partner says now, or None to
leave."""


class WritingEnv(LanguageEnv):
    """What environments of free text share: prompts, a rubric, and steps that it judges.

    ``step`` judges a text by itself, unless someone who plays several episodes of one seed has put
    a function of their own in ``judge``, which may wait for the other texts.

    ``info`` has ``actions`` (None: any text), ``mission`` (the prompt), ``rewards`` (each part of
    the rubric, of what was judged) and ``success`` (whether the reward reached ``goal``).

    Args:
        prompts: texts; a file with one a line (``.txt``), or as the field ``prompt`` of JSON lines
            (``.jsonl``); or rows with a ``prompt``, as a dataset of the library datasets has.
        rewards: a rubric's parts, as :class:`Rubric` takes them; or the rubric itself.
        on_error: what becomes of a text that a reward fails at: stop or skip.
        goal: from which reward on a text counts as a success.
    """

    metadata = {"render_modes": []}  # noqa: RUF012
    render_mode = None

    def __init__(
        self,
        prompts: str | Path | Iterable[Any] = PROMPTS,
        rewards: Rewards = "length",
        *,
        on_error: str = "stop",
        goal: float = 0.8,
    ) -> None:
        self.prompts = load_prompts(prompts)
        self.rubric = rewards if isinstance(rewards, Rubric) else Rubric(rewards, on_error=on_error)
        self.goal = goal
        self.observation_space, self.action_space = AnyText(), AnyText(max_length=100_000)
        self._prompt = ""

    @property
    def judges_together(self) -> bool:
        return self.rubric.together

    def _judged(self, writing: Writing) -> tuple[float, dict[str, Any]]:
        """The reward of a text, and what ``info`` says of it."""
        if self.judge is None:
            (verdict,) = self.rubric.judge([writing])
        else:
            verdict = self.judge(self.rubric, writing)
        info: dict[str, Any] = {
            "rewards": verdict.parts,
            "success": verdict.reward >= self.goal,
            "judged": verdict.judged,
        }
        if self.judge is not None:  # times differ from call to call, and an environment's info not
            info["reward_seconds"] = verdict.seconds
        if verdict.token_rewards:
            info["token_rewards"] = verdict.token_rewards
        return verdict.reward, info

    def _draw_prompt(self) -> str:
        prompt = self.prompts[int(self.np_random.integers(len(self.prompts)))]
        self._check_fits(prompt)
        return prompt

    def _check_fits(self, prompt: str) -> None:
        """Refuse a prompt beyond the limit: there is nothing to leave out of it."""
        limit = self.prompt_limit
        tokens = 0 if limit is None else limit.count_tokens(prompt)
        if limit is not None and tokens > limit.max_tokens:
            raise LangAgentError(
                f"The prompt {prompt[:40]!r}... has {tokens} tokens, but the context leaves room "
                f"for {limit.max_tokens}."
            )

    def _info(self, prompt: str, **more: Any) -> dict[str, Any]:
        return {
            "actions": None,
            "mission": prompt,
            "descriptions": [],
            "verdict": None,
            "invalid_action": False,
            "success": False,
            **more,
        }


class TextGenerationEnv(WritingEnv):
    """One step an episode: the observation is a prompt, the action is any text that goes on from
    it, the reward is what a :class:`Rubric` makes of it."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self._prompt = self._draw_prompt()
        return self._prompt, self._info(self._prompt)

    def step(self, action: str) -> Step:
        _refuse_no_text(action)
        reward, info = self._judged(Writing(self._prompt, action))
        return "", reward, True, False, self._info(self._prompt, **info)


class DialogueEnv(WritingEnv):
    """A turn after each of a partner's: the observation is the dialogue so far, which only grows,
    and the action one line.

    Args:
        partner: lines that are said in turn; a function of what was said so far, or
            ``module:function``. An object that has ``begin()`` is asked at each new episode.
        turns: of the agent, at most; the partner may leave earlier.
        reward_at: "turn" judges each line as the answer to the dialogue so far, "end" the agent's
            lines together when it is over.
        names: of the agent and of its partner.
    """

    def __init__(
        self,
        prompts: str | Path | Iterable[Any] = ("A friendly talk.",),
        rewards: Rewards = "length",
        *,
        partner: str | Sequence[str] | Partner = QUESTIONS,
        turns: int = 3,
        reward_at: str = "turn",
        names: Sequence[str] = ("Me", "You"),
        on_error: str = "stop",
        goal: float = 0.8,
    ) -> None:
        super().__init__(prompts, rewards, on_error=on_error, goal=goal)
        if reward_at not in ("turn", "end"):
            raise unknown("reward_at", reward_at, ("turn", "end"))
        if turns < 1:
            raise LangAgentError(f"turns={turns} must be 1 or more.")
        if len(names) != 2:
            raise LangAgentError(f"names={list(names)} must be two: the agent's and its partner's.")
        self.partner = _partner(partner)
        self.turns, self.reward_at, self.names = turns, reward_at, tuple(names)
        self._said: list[str] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        if hasattr(self.partner, "begin"):
            self.partner.begin()
        self._said, opening = [], self._draw_prompt()
        first = self.partner(self._said)
        if first is None:
            raise LangAgentError("The dialogue's partner says nothing at all.")
        self._said.append(first)
        self._prompt = f"{opening}\n{self._turn(first)}"
        return self._prompt, self._info(self._prompt, line=True)

    def step(self, action: str) -> Step:
        _refuse_no_text(action)
        line = " ".join(action.split())
        asked = self._prompt
        self._said.append(line)
        answer = self.partner(self._said) if len(self._said) < 2 * self.turns else None
        over = answer is None
        if answer is not None:
            self._said.append(answer)
            self._prompt = f"{asked}{action}\n{self._turn(answer)}"
            self._check_fits(self._prompt)
        reward, info = 0.0, dict[str, Any]()
        if self.reward_at == "turn":
            reward, info = self._judged(Writing(asked, line))
        elif over:
            reward, info = self._judged(Writing(self._said[0], "\n".join(self._said[1::2])))
        return self._prompt, reward, over, False, self._info(self._prompt, line=True, **info)

    def _turn(self, line: str) -> str:
        """The partner's line, and the name of whose turn it is then."""
        own, other = self.names
        return f"{other}: {line}\n{own}: "


class PolicyPartner:
    """Another policy as the partner of a dialogue: it goes on with the dialogue as it sees it.

    Its draws are seeded by what was said so far: the same dialogue has the same answer, and no two
    lines share their random numbers.
    """

    def __init__(self, policy: Any, opening: str = "Hello!", **options: Any) -> None:
        self.policy, self.opening, self.options = policy, opening, options

    def __call__(self, said: Sequence[str]) -> str | None:
        if not said:
            return self.opening
        names = ("Me", "You")  # each calls itself so
        lines = [f"{names[turn % 2]}: {line}" for turn, line in enumerate(said)]
        seed = derive(0, "partner", *said)
        (answer,) = self.policy.generate(
            ["\n".join([*lines, "Me: "])], **{"seed": seed, **self.options}
        )
        return answer or "..."


def _refuse_no_text(action: Any) -> None:
    if not isinstance(action, str):
        raise LangAgentError(f"The action {action!r} is no text but {type(action).__name__}.")


def _partner(partner: str | Sequence[str] | Partner) -> Any:
    if isinstance(partner, str):
        return load_function(partner)
    if callable(partner):
        return partner
    lines = [str(line) for line in partner]
    if not lines:
        raise LangAgentError("The dialogue's partner has no lines.")
    return partial(_next_line, lines)


def _next_line(lines: Sequence[str], said: Sequence[str]) -> str | None:
    return lines[len(said) // 2] if len(said) // 2 < len(lines) else None


def load_prompts(prompts: str | Path | Iterable[Any]) -> list[str]:
    """Prompts from texts, rows with a ``prompt``, a text file or JSON lines."""
    if isinstance(prompts, (str, Path)):
        found = _read_prompts(Path(prompts))
    else:
        try:
            found = [row if isinstance(row, str) else str(row["prompt"]) for row in prompts]
        except (KeyError, TypeError):
            raise LangAgentError("Prompts are texts, or rows that have a 'prompt'.") from None
    if not found:
        raise LangAgentError("There are no prompts to write from.")
    return found


def _read_prompts(file: Path) -> list[str]:
    lines = lines_of(read_text(file, "the prompts in"))
    if file.suffix != ".jsonl":
        return [line for line in lines if line.strip()]
    prompts = []
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                prompts.append(str(json.loads(line)["prompt"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise LangAgentError(
                f"'{file}', line {number}, is no JSON object with a 'prompt'."
            ) from None
    return prompts


def register() -> None:
    gymnasium.register("TextGeneration-v0", entry_point=f"{__name__}:TextGenerationEnv")
    gymnasium.register("Dialogue-v0", entry_point=f"{__name__}:DialogueEnv")
