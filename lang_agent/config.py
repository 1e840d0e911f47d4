"""Configurations as files: dataclasses from YAML and back, every name and type checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from lang_agent.errors import LangAgentError, shown, unknown
from lang_agent.files import read_text, write_whole
from lang_agent.trust import Source
from lang_agent.yaml_data import read_yaml

T = TypeVar("T")
MOST = 2**20  # bytes of a configuration


def load_config(path: str | Path, kind: type[T], *, trust: bool = False, whole: bool = False) -> T:
    """A configuration from a YAML file; raises :class:`LangAgentError` with the reason.

    Args:
        trust: whether to import what the file names (``module:function``, ``module:Env-v0``) too.
            Otherwise only what the package itself offers by name is, and the world or the
            run that asks for more is refused.
    """
    data = read_yaml(read_text(path, "the configuration", MOST), f"The configuration '{path}'")
    if data is None or data == {}:
        raise LangAgentError(f"The configuration '{path}' is empty: it sets nothing at all.")
    config = from_dict(kind, data, str(path))
    return config if trust else _names_of(config, Source(str(path)))


def _names_of(config: Any, source: Source) -> Any:
    """The configuration, with the names in it said to be ``source``'s."""
    inner = {item.name: getattr(config, item.name) for item in fields(config)}
    parts = {name: value for name, value in inner.items() if is_dataclass(value)}
    changed = {name: _names_of(part, source) for name, part in parts.items()}
    if "source" in inner:
        changed["source"] = source
    return replace(config, **changed) if changed else config


def from_dict(kind: type[T], data: Any, where: str) -> T:
    """A dataclass from plain data, nested alike; unknown names and wrong types are refused."""
    if not isinstance(data, Mapping):
        raise LangAgentError(f"{where}: expected names with values, got {shown(data)}.")
    types = get_type_hints(kind)
    names = {name for name, wanted in types.items() if not _holds(wanted, Source)}
    values: dict[str, Any] = {}
    for name, value in data.items():
        if name not in names:
            raise unknown(f"setting in {where}:", name, names)
        values[name] = value_as(types[name], value, f"{where}: {name}")
    for item in fields(kind):  # type: ignore[arg-type]
        if item.name not in values and MISSING is item.default is item.default_factory:
            raise LangAgentError(f"{where}: {item.name} is missing.")
    try:
        return kind(**values)
    except LangAgentError as error:
        raise LangAgentError(f"{where}: {error}") from None


def value_as(wanted: Any, value: Any, where: str) -> Any:
    """``value`` as the type ``wanted`` of a setting."""
    if is_dataclass(wanted):
        return from_dict(wanted, value, where)  # type: ignore[arg-type]
    if get_origin(wanted) is tuple:
        if not isinstance(value, (list, tuple)) or any(isinstance(v, (list, dict)) for v in value):
            raise LangAgentError(f"{where}: expected a list of texts, got {shown(value)}.")
        return tuple(str(item) for item in value)
    choices = get_args(wanted) if get_origin(wanted) in (Union, UnionType) else (wanted,)
    if float in choices and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-3 as a string
        except (ValueError, OverflowError):
            pass
    if not isinstance(value, choices) or (isinstance(value, bool) and bool not in choices):
        names = " or ".join(choice.__name__.replace("NoneType", "null") for choice in choices)
        raise LangAgentError(f"{where}: expected {names}, got {shown(value)}.")
    return value


def _holds(wanted: Any, kind: type) -> bool:
    return kind in (wanted, *get_args(wanted))


def save_config(config: Any, path: Path) -> None:
    """Write a configuration as YAML, every value resolved."""
    write_whole(path, yaml.safe_dump(as_data(config), sort_keys=False))


def as_data(config: Any) -> Any:
    """A configuration as plain data, as :func:`from_dict` reads it."""
    if isinstance(config, tuple):
        return list(config)
    if not is_dataclass(config):
        return config
    values = {item.name: getattr(config, item.name) for item in fields(config)}
    return {name: as_data(value) for name, value in values.items() if name != "source"}
