"""The worlds that ship with lang_agent, one file each.

A module here becomes known by having a ``register()`` that calls ``gymnasium.register``; nothing
else needs to be edited.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

# Imported here and not in `register`, which runs inside Gymnasium's namespace "lang_agent": what a
# world's own package registers on import must keep its own names.
_WORLDS = [import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]


def register() -> None:
    """Register every world of this folder with Gymnasium (called through its entry-point group)."""
    for world in _WORLDS:
        if hasattr(world, "register"):
            world.register()
