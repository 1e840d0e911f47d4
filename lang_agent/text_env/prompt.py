"""Prompts: named fields in, text out, in the wording of a Jinja2 template.

Two kinds, told apart by the template itself. A template with a ``turn`` block is a *transcript*:
its ``intro`` block is rendered once, its ``turn`` block at every step, and nothing already said is
ever changed, so that the prompt at step t+1 begins with the prompt at step t and the action taken.
Any other template is a *window*: it is rendered anew at every step from what is seen now and the
``history`` of earlier turns.

A transcript may have a ``system`` block too, which is no part of the prompt: chat models on a
server are told it before all else.

Fields a template can use: ``mission``, ``descriptions``, ``actions``, ``renamed_actions`` (whether
any is not the world's own phrase), ``step`` (0 at the start), ``feedback`` (what was wrong with the
last action text, else empty), ``things`` (what each line of ``descriptions`` tells of:
:data:`lang_agent.text_env.world.NOTHING`), ``history`` (windows only: the earlier turns' fields,
each with its ``action``), and whatever else the renderer returns, as plain data
(:mod:`lang_agent.text_env.plain`).

A template may extend another, include it or import from it, its own neighbours and those that ship
alike: whatever of a transcript's blocks it overrides, it stays a transcript.
"""

from __future__ import annotations

import hashlib
import json
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import (
    BaseLoader,
    ChoiceLoader,
    DictLoader,
    FileSystemLoader,
    PackageLoader,
    Template,
    TemplateNotFound,
    TemplateSyntaxError,
    meta,
    nodes,
)

from lang_agent.errors import PromptError, unknown
from lang_agent.files import write_whole
from lang_agent.text_env.sandbox import BoundedSandbox, Sandbox

Fields = Mapping[str, Any]
SUFFIX = ".jinja"


def load_template(name: str, folder: str | Path | None = None) -> Template:
    """The template called ``name`` (or a path to a ``.jinja`` file), as it reads now.

    ``folder`` is looked in before the templates that ship with the package; the folder of a path,
    before both. Raises :class:`PromptError` with the line for a template that does not parse.
    """
    folders = [] if folder is None else [Path(folder).absolute()]
    path = Path(name)
    if path.suffix == SUFFIX and path.is_file():
        folders.insert(0, path.parent.absolute())
        name = path.stem
    for where in folders:
        if not where.is_dir():
            raise PromptError(f"The template folder '{where}' does not exist.")
    name = name.removesuffix(SUFFIX)
    sandbox = _sandbox(tuple(folders))
    sandbox.start()
    try:
        template = sandbox.get_template(name + SUFFIX)
        blocks = _chain(template).blocks
    except PromptError:
        raise
    except TemplateSyntaxError as error:
        raise PromptError(
            f"Template '{error.name or name}', line {error.lineno}: {error.message}."
        ) from None
    except TemplateNotFound as error:
        names = (listed.removesuffix(SUFFIX) for listed in sandbox.list_templates([SUFFIX[1:]]))
        raise unknown("prompt template", str(error).removesuffix(SUFFIX), names) from None
    except UnicodeDecodeError as error:
        raise PromptError(f"Template '{name}' is not UTF-8 text: {error.reason}.") from None
    except OSError as error:
        raise PromptError(f"Template '{name}' cannot be read: {error.strerror}.") from None
    except Exception as error:  # too deep or too large for the parser, or for the sandbox
        raise PromptError(f"Template '{name}' cannot be used: {_reason(error)}.") from None
    if "turn" in blocks and "intro" not in blocks:
        raise PromptError(
            f"Template '{name}' has a 'turn' block but no 'intro' block: a transcript needs both."
        )
    return template


def _pack(template: Template) -> tuple[str, dict[str, str], bool]:
    """A template's name, the texts that it is made of, and whether it is bounded."""
    sandbox: Any = template.environment
    texts: dict[str, str] = {}
    waiting = [str(template.name)]
    while waiting:
        name = waiting.pop()
        if name in texts:
            continue
        try:
            texts[name] = sandbox.sources.get(name) or sandbox.loader.get_source(sandbox, name)[0]
        except TemplateNotFound:  # one that may be missing, or will be missed where it is rendered
            continue
        for other in meta.find_referenced_templates(sandbox.parse(texts[name])):
            waiting += [other] if other else sandbox.list_templates([SUFFIX[1:]])
    return str(template.name), texts, isinstance(sandbox, BoundedSandbox)


def digest(name: str, folder: str | Path | None = None) -> str:
    """Sixteen hexadecimal digits that name the text of a template and of whatever it extends,
    includes or imports."""
    own, texts, _ = _pack(load_template(name, folder))
    whole = json.dumps([own, sorted(texts.items())], ensure_ascii=False)
    return hashlib.sha256(whole.encode()).hexdigest()[:16]


def carry(name: str, folder: str | Path | None, place: Path) -> None:
    """Write the text of a template that does not ship, and of whatever it extends, includes or
    imports, into ``place``, so that who moves away takes its words along."""
    path = Path(name)
    if folder is None and not (path.suffix == SUFFIX and path.is_file()):
        return
    _, texts, _ = _pack(load_template(name, folder))
    for file, text in texts.items():
        write_whole(place / file, text)


def _unpack(name: str, texts: dict[str, str], bounded: bool) -> Template:
    sandbox = (BoundedSandbox if bounded else Sandbox)(DictLoader(texts))
    sandbox.start()
    return sandbox.get_template(name)


_sandboxes: dict[tuple[Path, ...], Sandbox] = {}
_lock = threading.Lock()


def _sandbox(folders: tuple[Path, ...]) -> Sandbox:
    """The sandbox of these folders' templates; a new one once a template reads otherwise, so that
    prompts that were made before keep their words."""
    with _lock:
        sandbox = _sandboxes.get(folders)
        if sandbox is None or sandbox.is_stale():
            loaders: list[BaseLoader] = [
                FileSystemLoader(folder, encoding="utf-8-sig") for folder in folders
            ]
            loaders.append(PackageLoader("lang_agent.prompts", ""))
            kind = BoundedSandbox if folders else Sandbox
            sandbox = _sandboxes[folders] = kind(ChoiceLoader(loaders))
        return sandbox


@dataclass(frozen=True)
class Chain:
    """What a template and those that it extends consist of."""

    blocks: frozenset[str]
    alone: bool
    """Whether it extends none and has nothing outside of its blocks that they could notice."""


def _chain(template: Template) -> Chain:
    """The blocks of a template and of those that it extends."""
    sandbox: Any = template.environment
    name = template.name or ""
    if name in sandbox.chains:
        return sandbox.chains[name]
    blocks: set[str] = set()
    trees: dict[str, nodes.Template] = {}
    waiting = [name]
    while waiting:
        one = waiting.pop()
        if one in trees:
            raise PromptError(f"Template '{one}' extends itself.")
        sandbox.get_template(one)
        tree = trees[one] = sandbox.parse(sandbox.sources[one], one)
        blocks |= {block.name for block in tree.find_all(nodes.Block)}
        for extends in tree.find_all(nodes.Extends):
            if not isinstance(extends.template, nodes.Const):
                raise TemplateSyntaxError(
                    "it must extend a template by its name, not by an expression",
                    extends.lineno,
                    one,
                )
            waiting.append(extends.template.value)
    alone = all(_is_quiet(node) for tree in trees.values() for node in tree.body)
    chain = sandbox.chains[name] = Chain(frozenset(blocks), alone)
    return chain


def _is_quiet(node: nodes.Node) -> bool:
    """Whether a node outside of blocks is nothing that a block could notice."""
    if isinstance(node, nodes.Output):
        return all(isinstance(child, nodes.TemplateData) for child in node.nodes)
    return isinstance(node, nodes.Block)


def render(template: Template, fields: Fields, block: str | None = None) -> str:
    """The text of ``template``, or what one of its blocks adds to that; errors name template, line
    and field."""
    sandbox: Any = template.environment
    sandbox.start()
    try:
        return _render(template, template.new_context(dict(fields)), block)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame for frame in frames if frame.filename in sandbox.files]
        name = sandbox.files[lines[-1].filename] if lines else template.name
        where = f", line {lines[-1].lineno}" if lines else ""
        raise PromptError(
            f"Template '{name}'{where}: {_reason(error)}. "
            f"The fields given are: {', '.join(sorted(fields))}."
        ) from None


def _render(template: Template, context: Any, block: str | None) -> str:
    try:
        if block is None:
            return "".join(template.root_render_func(context))
        if _chain(template).alone:
            return "".join(template.blocks[block](context))
        return _captured(template, context, block)
    except Exception:
        # As Template.render does it: raise again with the templates' own lines in the traceback.
        template.environment.handle_exception()


def _captured(template: Template, context: Any, block: str) -> str:
    """What the block writes while the whole template is rendered: with what is set, imported or
    defined around it, there and in the templates that it extends."""
    pieces: list[str] = []

    def capture(context: Any) -> Iterator[str]:
        for piece in context.blocks[block][1](context):
            pieces.append(piece)
            yield piece

    context.blocks[block] = [capture, *context.blocks.get(block, ())]
    for _ in template.root_render_func(context):
        pass
    return "".join(pieces)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it includes, imports or calls itself without end, or is nested too deep"
    if isinstance(error, TemplateNotFound):
        return f"there is no template '{error}'"
    return str(error).strip().rstrip(".") or type(error).__name__


@lru_cache(maxsize=256)
def _reads_things(template: Template) -> bool:
    """Whether the template, or one that it is made of, asks for ``things``: they take time."""
    return any("things" in text for text in _pack(template)[1].values())


class Prompt:
    """The prompt of one episode, from :meth:`reset` through every :meth:`step`.

    With a token budget (:meth:`limit`) the oldest turns leave first; the intro and the current
    turn always stay. A transcript over its budget is cut down to half of it, so that the shorter
    transcript can grow again for a while instead of being cut at every step.
    """

    def __init__(self, template: Template) -> None:
        self.template = template
        self.is_transcript = "turn" in _chain(template).blocks
        self.reads_things = _reads_things(template)
        self._max_tokens: int | None = None
        self._count: Callable[[str], int] = len
        self._intro, self._intro_size = "", 0
        self._pieces: list[tuple[str, str]] = []  # transcript: (the action before it, the turn)
        self._sizes: list[int] = []  # tokens of each piece
        self._text = ""
        self._turns: list[dict[str, Any]] = []  # window: the fields of the turns that are shown

    def __getstate__(self) -> dict[str, Any]:
        """What a copy, or another process, needs: of the template its text, with that of whatever
        it extends, includes or imports, so that the words stay the same."""
        return {**self.__dict__, "template": _pack(self.template)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, template=_unpack(*state["template"]))

    def limit(self, max_tokens: int | None, count_tokens: Callable[[str], int] | None) -> None:
        """Keep every prompt within ``max_tokens``, as counted by ``count_tokens``; None for as long
        as it comes."""
        self._max_tokens, self._count = max_tokens, count_tokens or len

    def again(self) -> Prompt:
        """A prompt like this one, of an episode, from its beginning."""
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

    def system(self, fields: Fields) -> str:
        """What the template says to a chat model before all else: its ``system`` block."""
        if not self.is_transcript or "system" not in _chain(self.template).blocks:
            return ""
        return render(self.template, fields, "system").strip()

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
        text = self._without(0)
        if self._fits(text):
            return text
        # The fewest of the oldest turns leave, for good: one by one would cost the square of them.
        most = len(self._turns) - 1
        kept, gone, step = 0, min(1, most), 1
        while not self._fits(text := self._without(gone)):
            if gone == most:
                self._refuse(self._count(text), self._max_tokens or 0)
            step *= 2
            kept, gone = gone, min(gone + step, most)
        while gone - kept > 1:
            middle = (kept + gone) // 2
            shorter = self._without(middle)
            if self._fits(shorter):
                gone, text = middle, shorter
            else:
                kept = middle
        del self._turns[:gone]
        return text

    def _without(self, gone: int) -> str:
        """The window without so many of its oldest turns."""
        return render(self.template, {**self._turns[-1], "history": self._turns[gone:-1]})

    def _fits(self, text: str) -> bool:
        return self._max_tokens is None or self._count(text) <= self._max_tokens

    def _refuse(self, size: int, max_tokens: int) -> None:
        raise PromptError(
            f"The prompt '{self.template.name}' needs {size} tokens for its intro and current turn "
            f"alone, but only {max_tokens} fit: use a model with a longer context or a shorter "
            "template."
        )
