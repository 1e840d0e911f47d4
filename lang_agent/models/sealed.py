"""Folders that are written whole or not at all, and tell whether their files are still the same.

``SHA256SUMS`` in a folder has the digest of each file; ``sha256sum --check`` reads it too.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from lang_agent.errors import LangAgentError
from lang_agent.files import cannot_write, whole, writing

SUMS_FILE = "SHA256SUMS"


def write_sealed(place: Path, write: Callable[[Path], object]) -> None:
    """Have ``write`` fill a new folder, which appears whole and with the checksums of its files.

    Raises :class:`LangAgentError` where the disk or the place stands in the way.
    """
    try:
        with writing(place), whole(place) as beside:
            beside.mkdir()
            write(beside)
            seal(beside)
    except SafetensorError as error:  # how its writer tells of a full disk
        number = re.search(r"os error (\d+)", str(error))
        known = OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(error)
        raise cannot_write(place, known) from None


def seal(folder: Path) -> None:
    """Write the checksums of a folder's files, save of the configuration and the model card: a
    person may edit them."""
    left_out = (SUMS_FILE, "config.yaml", "README.md")
    files = sorted(f for f in folder.rglob("*") if f.is_file() and f.name not in left_out)
    lines = [f"{_digest(file)}  {file.relative_to(folder).as_posix()}\n" for file in files]
    (folder / SUMS_FILE).write_text("".join(lines), encoding="utf-8")


def damage(folder: Path) -> str:
    """What is wrong with a sealed folder, in a few words; nothing where all is as it was written.

    All of its files are read: 2 seconds a gigabyte on a slow core.
    """
    try:
        lines = (folder / SUMS_FILE).read_text(encoding="utf-8").splitlines()
        sums = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except FileNotFoundError:
        return f"it has no {SUMS_FILE}"
    except (OSError, ValueError):
        return f"its {SUMS_FILE} cannot be read"
    if not sums:
        return f"its {SUMS_FILE} is empty"
    for name, digest in sums.items():
        try:
            if _digest(folder / name) != digest:
                return f"its {name} has changed since it was written"
        except OSError as error:
            return f"its {name} cannot be read ({error.strerror})"
        except ValueError:  # a name that is none, with a null byte in it
            return f"its {SUMS_FILE} cannot be read"
    return ""


def _digest(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def refuse_damaged(folder: Path) -> None:
    """Raise :class:`LangAgentError` unless a sealed folder's files are what was written."""
    reason = damage(folder)
    if reason:
        raise LangAgentError(
            f"The model in '{folder}' is damaged: {reason}. Put back what it was, or (if you "
            f"changed it) remove its {SUMS_FILE}, where no run goes on from it."
        )
