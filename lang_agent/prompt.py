"""Prompts: named fields in, text out, in the wording of a Jinja2 template.

Two kinds, told apart by the template itself. A template with a ``turn`` block is a *transcript*:
its ``intro`` block is rendered once, its ``turn`` block at every step, and nothing already said is
ever changed, so that the prompt at step t+1 begins with the prompt at step t and the action taken.
Any other template is a *window*: it is rendered anew at every step from what is seen now and the
``history`` of earlier turns.

Fields a template can use: ``mission``, ``descriptions``, ``actions``, ``renamed_actions`` (whether
any is not the world's own phrase), ``step`` (0 at the start), ``feedback`` (what was wrong with the
last action text, else empty), ``history`` (windows only: the earlier turns' fields, each with its
``action``), and whatever else the renderer returns.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import (
    BaseLoader,
    ChoiceLoader,
    FileSystemLoader,
    PackageLoader,
    StrictUndefined,
    Template,
    TemplateError,
    TemplateNotFound,
    TemplateSyntaxError,
)
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lang_agent.errors import LangAgentError, unknown

Fields = Mapping[str, Any]
SUFFIX = ".jinja"


class PromptError(LangAgentError):
    """A template that is missing, broken, asks for a field nobody gives, or does not fit."""


def load_template(name: str, folder: str | Path | None = None) -> Template:
    """The template called ``name`` (or a path to a ``.jinja`` file).

    ``folder`` is looked in before the templates that ship with the package.
    Raises :class:`PromptError` with the line for a template that does not parse.
    """
    path = Path(name)
    if path.suffix == SUFFIX and path.is_file():
        folder, name = path.parent, path.stem
    return _load(name.removesuffix(SUFFIX), None if folder is None else Path(folder).resolve())


@lru_cache(maxsize=64)
def _load(name: str, folder: Path | None) -> Template:
    if folder is not None and not folder.is_dir():
        raise PromptError(f"The template folder '{folder}' does not exist.")
    loaders: list[BaseLoader] = [PackageLoader("lang_agent.prompts", "")]
    if folder is not None:
        loaders.insert(0, FileSystemLoader(folder))
    jinja = ImmutableSandboxedEnvironment(
        loader=ChoiceLoader(loaders),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    try:
        template = jinja.get_template(name + SUFFIX)
    except TemplateSyntaxError as error:
        raise PromptError(
            f"Template '{error.name or name}', line {error.lineno}: {error.message}."
        ) from None
    except TemplateNotFound:
        names = (listed.removesuffix(SUFFIX) for listed in jinja.list_templates([SUFFIX[1:]]))
        raise unknown("prompt template", name, names) from None
    if "turn" in template.blocks and "intro" not in template.blocks:
        raise PromptError(
            f"Template '{name}' has a 'turn' block but no 'intro' block: a transcript needs both."
        )
    return template


def render(template: Template, fields: Fields, block: str | None = None) -> str:
    """The text of ``template``, or of one of its blocks; errors name template, line and field."""
    try:
        if block is None:
            return template.render(fields)
        return _render_block(template, fields, block)
    except (TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == template.filename]
        where = f", line {lines[-1]}" if lines else ""
        raise PromptError(
            f"Template '{template.name}'{where}: {error}. "
            f"The fields given are: {', '.join(sorted(fields))}."
        ) from None


def _render_block(template: Template, fields: Fields, block: str) -> str:
    try:
        context = template.new_context(dict(fields))
        return "".join(template.blocks[block](context))
    except Exception:
        # As Template.render does it: raise again with the template's own lines in the traceback.
        template.environment.handle_exception()


class Prompt:
    """The prompt of one episode, from :meth:`reset` through every :meth:`step`.

    With a token budget (:meth:`limit`) the oldest turns leave first; the intro and the current
    turn always stay. A transcript over its budget is cut down to half of it, so that the shorter
    transcript can grow again for a while instead of being cut at every step.
    """

    def __init__(self, template: Template) -> None:
        self.template = template
        self.is_transcript = "turn" in template.blocks
        self._max_tokens: int | None = None
        self._count: Callable[[str], int] = len
        self._intro, self._intro_size = "", 0
        self._pieces: list[tuple[str, str]] = []  # transcript: (the action before it, the turn)
        self._sizes: list[int] = []  # tokens of each piece
        self._text = ""
        self._turns: list[dict[str, Any]] = []  # window: the fields of every turn so far

    def limit(self, max_tokens: int, count_tokens: Callable[[str], int]) -> None:
        """Keep every prompt within ``max_tokens``, as counted by ``count_tokens``."""
        self._max_tokens, self._count = max_tokens, count_tokens

    def again(self) -> Prompt:
        """A prompt like this one, of an episode that is to be told from its beginning."""
        prompt = Prompt(self.template)
        prompt._max_tokens, prompt._count = self._max_tokens, self._count
        return prompt

    def reset(self, fields: Fields) -> str:
        """The first prompt of an episode."""
        if self.is_transcript:
            self._intro = render(self.template, fields, "intro")
            self._pieces, self._sizes = [], []
            self._text = self._intro
            return self._append("", self._turn(fields))
        self._turns = [dict(fields)]
        return self._window()

    def step(self, action: str, fields: Fields) -> str:
        """The next prompt, after ``action`` (the text as it was written) led to ``fields``."""
        if self.is_transcript:
            return self._append(f"{action}\n", self._turn(fields))
        self._turns[-1]["action"] = action
        self._turns.append(dict(fields))
        return self._window()

    def _turn(self, fields: Fields) -> str:
        """The ``turn`` block, with a space after it: the answer is the next word."""
        turn = render(self.template, fields, "turn")
        return turn if turn[-1:].isspace() else f"{turn} "

    def _append(self, action: str, turn: str) -> str:
        self._pieces.append((action, turn))
        self._text += action + turn
        if self._max_tokens is not None:
            if not self._sizes:
                self._intro_size = self._count(self._intro)
            self._sizes.append(self._size(action, turn))
            if self._intro_size + sum(self._sizes) > self._max_tokens:
                self._drop_oldest(self._max_tokens)
        return self._text

    def _drop_oldest(self, max_tokens: int) -> None:
        # The oldest turn left answers to an action that is gone with the turns before it.
        room = max_tokens - self._intro_size
        first = len(self._pieces) - 1
        size = self._size("", self._pieces[first][1])
        if size > room:
            self._refuse(self._intro_size + size, max_tokens)
        while first > 0 and size + self._sizes[first - 1] <= room // 2:
            first -= 1
            size += self._sizes[first]
        self._pieces[: first + 1] = [("", self._pieces[first][1])]
        self._sizes[: first + 1] = [self._size(*self._pieces[0])]
        self._text = self._intro + "".join(action + turn for action, turn in self._pieces)

    def _size(self, action: str, turn: str) -> int:
        """Tokens of a piece as a policy encodes it: a phrase has a space before it, a turn none
        after."""
        return self._count((f" {action}" if action else "") + turn.rstrip(" "))

    def _window(self) -> str:
        fields, history = self._turns[-1], self._turns[:-1]
        while True:
            text = render(self.template, {**fields, "history": history})
            if self._max_tokens is None:
                return text
            size = self._count(text)
            if size <= self._max_tokens:
                return text
            if not history:
                self._refuse(size, self._max_tokens)
            history = history[1:]

    def _refuse(self, size: int, max_tokens: int) -> None:
        raise PromptError(
            f"The prompt '{self.template.name}' needs {size} tokens for its intro and current turn "
            f"alone, but only {max_tokens} fit: use a model with a longer context or a shorter "
            "template."
        )
