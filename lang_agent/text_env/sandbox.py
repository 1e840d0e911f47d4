"""Where templates are rendered: they see plain data, reach nothing else, and come to an end.

A template may come with a policy from anywhere. It cannot run code or touch a file: what it is
given is plain data (:mod:`lang_agent.text_env.plain`), and of that it may use the methods in
``METHODS`` and the filters in ``FILTERS`` alone. A template that does not ship with the package
cannot take the machine's time or memory either (:class:`BoundedSandbox`): a rendering makes at most
``WORK`` characters and steps, none of its texts and lists grows beyond ``LARGEST``, and it is over
after ``SECONDS``.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.defaults import DEFAULT_FILTERS, DEFAULT_TESTS
from jinja2.exceptions import TemplateRuntimeError
from jinja2.loaders import BaseLoader
from jinja2.runtime import Context, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

LARGEST = 1_000_000  # characters and items of one value
WORK = 10_000_000  # characters and items made, and turns of loops, in one rendering
SECONDS = 3.0  # of one rendering
WIDEST = 1_000  # what a text may be padded or indented to
BITS = 4_096  # of a whole number
SOURCE = 100_000  # characters of a template

METHODS: Mapping[type, frozenset[str]] = {
    str: frozenset(
        """
        capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit
        islower isnumeric isspace istitle isupper join lower lstrip partition removeprefix
        removesuffix replace rfind rindex rpartition rsplit rstrip split splitlines startswith strip
        swapcase title upper
        """.split()  # noqa: SIM905
    ),
    list: frozenset({"count", "index"}),
    tuple: frozenset({"count", "index"}),
    dict: frozenset({"get", "items", "keys", "values"}),
}
"""What a template may call of the data that it is given. Of anything else it may call nothing, save
for Jinja's own loops, macros and namespaces."""

FILTERS = frozenset(
    """
    abs batch capitalize center count d default dictsort first float format groupby indent int items
    join last length list lower map max min reject rejectattr replace reverse round select
    selectattr slice sort string sum title tojson translate trim truncate unique upper wordcount
    wordwrap
    """.split()  # noqa: SIM905
)
TEXTS = frozenset({"capitalize", "center", "indent", "lower", "string", "title", "tojson", "trim",
                   "truncate", "upper", "wordcount", "wordwrap"})  # fmt: skip
"""Filters that write out what they are given, whatever is in it."""
WIDTHS = frozenset({"batch", "center", "indent", "round", "slice", "truncate", "wordwrap"})
"""Filters whose result may grow with a number or a text that they are told."""


@pass_context
def translate(context: Context, text: str) -> str:
    """The template's own words in the language of the episode, if its wording translates them."""
    return context.get("translations", {}).get(text, text)


class TooMuchError(TemplateRuntimeError):
    """A template that makes more, or takes longer, than it may."""


class _Work(threading.local):
    """What the rendering under way has left."""

    left = WORK
    end = float("inf")


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox for immutable data, of which even less may be reached."""

    def __init__(self, loader: BaseLoader, **options: Any) -> None:
        super().__init__(
            loader=loader,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,
            auto_reload=False,  # see :meth:`is_stale`
            **options,
        )
        self._safe: dict[tuple[type, str], bool] = {}
        self.sources: dict[str, str] = {}
        """The text of every template that was loaded, by name."""
        self.files: dict[str, str] = {}
        """The names of templates by their files."""
        self.chains: dict[str, Any] = {}
        """What is known of templates and those that they extend, by name."""
        self.globals.pop("lipsum")  # draws from the global generator, as the filter random does
        filters = {**DEFAULT_FILTERS, "sum": self._sum, "translate": translate}
        self.filters = {name: filters[name] for name in FILTERS}

    def start(self) -> None:
        """A rendering begins."""

    def is_stale(self) -> bool:
        """Whether a template that was loaded reads otherwise now."""
        assert self.loader is not None
        try:
            return any(
                self.loader.get_source(self, name)[0] != source
                for name, source in self.sources.items()
            )
        except Exception:  # gone, or no text any more: loading it again says which
            return True

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if name is not None:
            self.sources[name] = source
            self.files[filename or name] = name
        return super()._parse(source, name, filename)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is dict and attribute not in METHODS[dict]:
            try:
                return obj[attribute]
            except KeyError:
                return self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        kind = type(obj)
        methods = METHODS.get(kind)
        if methods is not None:
            return attr in methods
        known = self._safe.get((kind, attr))
        if known is None:
            own = kind.__module__.partition(".")[0] == "jinja2"
            known = own and super().is_safe_attribute(obj, attr, value)
            self._safe[kind, attr] = known
        return known

    def wrap_str_format(self, value: Any) -> None:
        """``str.format`` is none of the methods that may be called."""

    def _sum(self, iterable: Iterable[Any], attribute: Any = None, start: Any = 0) -> Any:
        """Of numbers or, from ``start=[]`` on, of lists."""
        values = iterable if attribute is None else (self.getitem(x, attribute) for x in iterable)
        if not isinstance(start, list):
            return sum(values, start)
        total = list(start)  # Jinja's own copies it for every list that is added
        for one in values:
            self._spend(len(one))
            total += one
        return total

    def _spend(self, units: int, more: int = 0) -> None:
        """Pay for a value of so many ``units``, and for what is made beside it."""


class BoundedSandbox(Sandbox):
    """A sandbox whose templates come to an end, for those that are not our own."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, loader: BaseLoader) -> None:
        super().__init__(loader, finalize=self._finalize)
        self._work = _Work()
        self.filters = {
            name: self._bounded(name, function) for name, function in self.filters.items()
        }
        self.filters |= {
            "format": self._format,
            "join": self._join,
            "replace": self._replace,
            "sum": self._sum,
            "_each": self._each,
            "_joined": self._joined,
            "_made": self._made,
        }
        self.tests = {name: self._bounded_test(test) for name, test in DEFAULT_TESTS.items()}

    def start(self) -> None:
        self._work.left, self._work.end = WORK, time.monotonic() + SECONDS

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > SOURCE:
            raise TooMuchError(f"it has more than {SOURCE} characters")
        return _Bounds().visit(super()._parse(source, name, filename))

    def get_template(self, name: Any, *args: Any, **kwargs: Any) -> Any:
        template = super().get_template(name, *args, **kwargs)
        self._spend(1 + len(self.sources.get(template.name or "", "")))
        return template

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        if isinstance(text := getattr(__obj, "__self__", None), str):
            name = __obj.__name__
            if name == "replace" and len(args) > 1:
                __self._check_replace(text, *args[:2])
            elif name == "join" and args:
                return __self._join(args[0], text)
        result = super().call(__context, __obj, *args, **kwargs)
        __self._spend(1 + _size(result))
        return result

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "+":
            if isinstance(left, (str, list, tuple)) and isinstance(right, (str, list, tuple)):
                size = len(left) + len(right)
                self._spend(size)
                if size > WIDEST and not isinstance(left, str):
                    self._weigh([left, right])
        elif operator == "%" and isinstance(left, str):
            return self._format(left, *(right if isinstance(right, tuple) else (right,)))
        elif isinstance(left, (str, list, tuple)) or isinstance(right, (str, list, tuple)):
            many, times = (left, right) if hasattr(left, "__len__") else (right, left)
            if operator == "*" and isinstance(times, int):
                self._spend(self._weigh(many) * max(times, 0))
        elif isinstance(left, int) and isinstance(right, int):
            bits = (
                left.bit_length() * max(right, 1)
                if operator == "**"
                else (left.bit_length() + right.bit_length())
            )
            if bits > BITS:
                raise TooMuchError(f"a number would have more than {BITS} bits")
        result = self.binop_table[operator](left, right)
        self._spend(1)
        return result

    def _spend(self, units: int, more: int = 0) -> None:
        """Pay for a value of so many ``units``, and for what is made beside it."""
        work = self._work
        work.left = left = work.left - units - more
        if units > LARGEST or left < 0:
            most = LARGEST if units > LARGEST else WORK
            raise TooMuchError(f"it makes more than {most:,} characters or steps")
        if time.monotonic() > work.end:
            raise TooMuchError(f"it takes longer than {SECONDS:g} seconds")

    def _weigh(self, value: Any) -> int:
        """The characters and items of a value and all that is in it."""
        if type(value) is str:
            return len(value)
        weight, waiting = 0, [value]
        while waiting and weight <= LARGEST:
            one = waiting.pop()
            if isinstance(one, str):
                weight += len(one)
            elif isinstance(one, (list, tuple)):
                weight += len(one)
                waiting += one
            elif isinstance(one, dict):
                weight += len(one)
                waiting += (*one, *one.values())
        if weight > LARGEST:
            raise TooMuchError(f"a value has more than {LARGEST:,} characters or items")
        return weight

    def _finalize(self, value: Any) -> Any:
        """Every value that is written out."""
        if type(value) is str:
            work = self._work
            work.left = left = work.left - len(value)
            if left < 0:
                self._spend(0)
        elif type(value) is not int:
            self._spend(self._weigh(value))
        return value

    def _each(self, values: Any, constant: int) -> Any:
        """What a loop goes through; ``constant`` characters are written in each turn."""
        if hasattr(values, "__len__"):
            self._spend(1 + len(values), (1 + len(values)) * constant)
            return values
        return self._counted(values, constant)

    def _counted(self, values: Iterable[Any], constant: int) -> Iterator[Any]:
        for value in values:
            self._spend(1, constant)
            yield value

    def _made(self, value: Any) -> Any:
        self._spend(self._weigh(value))
        return value

    def _joined(self, values: list[Any]) -> str:
        self._spend(self._weigh(values))
        return "".join(map(str, values))

    def _join(self, value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
        if attribute is not None:
            value = [self.getitem(one, attribute) for one in value]
        parts = list(value)
        self._spend(self._weigh(parts) + len(parts) * len(str(d)))
        return str(d).join(map(str, parts))

    def _format(self, value: str, *args: Any, **kwargs: Any) -> str:
        """printf's formats, of no more than a moderate width."""
        wide = any(int(number) > WIDEST for number in re.findall(r"%[^a-zA-Z%]*?(\d+)", value))
        if wide or "*" in value or re.search(r"%[^a-zA-Z%]*\.(\d{4,})", value):
            raise TooMuchError(f"the format {value[:40]!r} is wider than {WIDEST} characters")
        given = kwargs or args
        self._spend(self._weigh(list(args)) * max(value.count("%"), 1) + self._weigh(kwargs))
        return value % given

    def _replace(self, s: Any, old: str, new: str, count: int | None = None) -> str:
        text = s if type(s) is str else self._joined([s])
        if (len(text) + 1) * (len(new) + 1) > WIDEST:
            self._check_replace(text, old, new)
        return text.replace(old, new, -1 if count is None else count)

    def _check_replace(self, text: str, old: str, new: str) -> None:
        found = text.count(old) if old else len(text) + 1
        self._spend(len(text) + found * len(new))

    def _bounded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter that pays for what it reads and makes."""
        lead = 1 if hasattr(function, "jinja_pass_arg") else 0

        @wraps(function)
        def bounded(*args: Any, **kwargs: Any) -> Any:
            value = args[lead]
            if name in TEXTS and type(value) is not str:
                if hasattr(value, "__next__"):
                    value = list(value)
                    args = (*args[:lead], value, *args[lead + 1 :])
                self._spend(self._weigh(value))
            if name in WIDTHS:
                for option in (*args[lead + 1 :], *kwargs.values()):
                    if isinstance(option, str):
                        self._spend(self._weigh(value) * len(option))
                    elif isinstance(option, (int, float)) and option > WIDEST:
                        raise TooMuchError(f"the filter {name!r} is told more than {WIDEST}")
            result = function(*args, **kwargs)
            self._spend(1 + _size(value) + _size(result))
            return result

        return bounded

    def _bounded_test(self, function: Any) -> Callable[..., Any]:
        @wraps(function)
        def bounded(*args: Any) -> Any:
            self._spend(1 + sum(map(_size, args)))
            return function(*args)

        return bounded


def _size(value: Any) -> int:
    return len(value) if isinstance(value, (str, list, tuple, dict, range)) else 0


class _Bounds(NodeTransformer):
    """Puts the filters that count around what loops, joins and literals of a template make."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802
        if node.recursive:
            raise TemplateRuntimeError(f"line {node.lineno}: a loop must not be recursive")
        self.generic_visit(node)
        constant = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        node.iter = _filtered(node.iter, "_each", nodes.Const(constant))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "_joined")

    def _literal(self, node: Any) -> nodes.Node:
        fixed = (nodes.Const, nodes.TemplateData)
        if getattr(node, "ctx", "load") != "load" or all(
            isinstance(child, fixed) for child in node.iter_child_nodes()
        ):
            return node
        self.generic_visit(node)
        return _filtered(node, "_made")

    visit_List = visit_Tuple = visit_Dict = _literal  # noqa: N815


def _filtered(node: Any, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)
