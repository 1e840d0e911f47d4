"""Where a model's name leads: to a policy that ships, to a folder here, or to the hub."""

from __future__ import annotations

import difflib
import os
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants

from lang_agent.errors import LangAgentError

SMOLLM2 = "smollm2"
_TRAINED = Path(__file__).parents[1] / "trained"
SHIPPED = {"babyai": _TRAINED / "babyai"}
"""Policies that come with the package, by name."""
_ID = re.compile(r"[\w][\w.-]*(?:/[\w][\w.-]*)?", re.ASCII)
LONGEST = 96  # characters of an id
PATIENCE = 3.0  # seconds for the hub to answer at all


def shipped(name: str | Path) -> str | Path:
    """The folder of a policy that comes with the package, else ``name`` itself.

    Raises :class:`LangAgentError` for what it was called before."""
    if str(name) in ("nano", "trained:nano") and not os.path.isdir(name):
        raise LangAgentError(
            f"The policy that ships is 'babyai', not {str(name)!r}: 'nano' is a size of a model "
            "with random weights."
        )
    return SHIPPED.get(str(name), name)


def can_ask_hub(name: str) -> bool:
    """Whether to ask the hub for ``name``, which is no folder here; False where it cannot be
    reached. Raises :class:`LangAgentError` at once for what is a path, or no hub id."""
    if looks_like_path(name):
        raise not_there("There is no model directory", name)
    return not constants.HF_HUB_OFFLINE and _answers(constants.ENDPOINT)


def looks_like_path(name: str) -> bool:
    """Whether a name is that of a folder rather than a hub id: the first part of an id is an
    owner's, that of a path lies here."""
    first = name.partition("/")[0]
    return (
        name.startswith((".", "/", "~"))
        or _ID.fullmatch(name) is None
        or len(name) > LONGEST
        or ".." in name
        or "--" in name
        or ("/" in name and os.path.isdir(first))
    )


def not_there(what: str, name: str, reason: str = "") -> LangAgentError:
    """The error for a model that is not to be had, with what was perhaps meant."""
    path = Path(name).expanduser()
    try:
        beside = [str(path.with_name(found.name)) for found in path.parent.iterdir()
                  if found.is_dir()]  # fmt: skip
    except (OSError, ValueError):
        beside = []
    near = difflib.get_close_matches(name, [*beside, *SHIPPED, SMOLLM2], n=2, cutoff=0.6)
    meant = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    return LangAgentError(f"{what} {name!r}{reason}.{meant}")


def _answers(endpoint: str) -> bool:
    """Whether somebody listens there. Behind a proxy nobody can tell, so that it is tried."""
    address = urlsplit(endpoint)
    if address.scheme in getproxies():
        return True
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        with socket.create_connection((address.hostname or "", port), timeout=PATIENCE):
            return True
    except OSError:
        return False
