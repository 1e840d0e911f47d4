"""YAML as plain data: it is no code, and costs no more time and memory than it is long."""

from __future__ import annotations

from typing import Any

import yaml

from lang_agent.errors import LangAgentError

DEEPEST = 40
"""Levels of lists and mappings within one another."""


class _Loader(yaml.SafeLoader):
    """Strings, numbers, true and false, null, lists and mappings. An alias may stand for as much
    again as the whole file so far, so there are none; and what looks like a date is a string, for
    no setting is a date."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.YAMLError(
                f"line {mark.line + 1}: aliases (*name) are not read, write the value out"
            )
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.YAMLError(f"more than {DEEPEST} levels within one another")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            keys = [self.construct_object(key) for key, _ in node.value]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: {twice!r} is there twice")
        return mapping


PLAIN = ("str", "int", "float", "bool", "null", "seq", "map")
_Loader.yaml_constructors = {
    tag: make
    for tag, make in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in PLAIN  # None: what refuses every other tag
}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in rules if tag != "tag:yaml.org,2002:timestamp"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(text: str, where: str) -> Any:
    """The data that a text holds; raises :class:`LangAgentError`, beginning with ``where``."""
    try:
        return yaml.load(text, _Loader)
    except Exception as error:
        # Beside its own errors PyYAML lets those of Python through: of int(), of a table's key.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise LangAgentError(f"{where} is not YAML: {reason}.") from None
