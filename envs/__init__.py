"""The worlds that ship with lang_agent, one file each.

A module here becomes known by having a ``register()`` that calls ``gymnasium.register``; nothing
else needs to be edited. One that fails is warned of and leaves the others as they are.
"""

from __future__ import annotations

import pkgutil
import warnings
from importlib import import_module
from types import ModuleType

from gymnasium.envs.registration import namespace


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


def _register() -> None:
    """Register every world of this folder with Gymnasium, as ``lang_agent/...``."""
    # All are imported before: what a world's own package registers then keeps its own name.
    worlds = _imported()
    with namespace("lang_agent"):
        for world in worlds:
            if hasattr(world, "register"):
                try:
                    world.register()
                except Exception as error:
                    _warn(world.__name__, error)


def register() -> None:
    """What Gymnasium's entry-point group calls: to import this module is to register its worlds."""


_register()
