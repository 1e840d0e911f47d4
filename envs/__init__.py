"""The worlds that ship with lang_agent, one file each.

A module here becomes known by having a ``register()`` that calls ``gymnasium.register``; nothing
else needs to be edited. One that fails is warned of and leaves the others as they are.
"""

from __future__ import annotations

import pkgutil
import warnings
from importlib import import_module
from types import ModuleType


def _imported() -> list[ModuleType]:
    worlds = []
    for module in pkgutil.iter_modules(__path__):
        try:
            worlds.append(import_module(f"{__name__}.{module.name}"))
        except Exception as error:
            _warn(module.name, error)
    return worlds


def _warn(name: str, error: Exception) -> None:
    warnings.warn(
        f"The world file '{name}' cannot be used: {type(error).__name__}: {error}", stacklevel=3
    )


# Imported here and not in `register`, which runs inside Gymnasium's namespace "lang_agent": what a
# world's own package registers on import must keep its own names.
_WORLDS = _imported()


def register() -> None:
    """Register every world of this folder with Gymnasium (called through its entry-point group)."""
    for world in _WORLDS:
        if hasattr(world, "register"):
            try:
                world.register()
            except Exception as error:
                _warn(world.__name__, error)
