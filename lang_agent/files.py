"""Files and folders that are written whole or not at all, and sentences for what stands in the way.

What is written goes to a place beside its own (``.<name>.<host>.<pid>.partial``), is put on the
disk, and is renamed: whoever is killed on the way leaves such a leftover and never half a file.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import shutil
import socket
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lang_agent.errors import LangAgentError

_PARTIAL = re.compile(r"\.(?P<name>.+)\.(?P<host>[^.]+)\.(?P<pid>\d+)\.partial")
_ADVICE = {
    "free some space there or choose another place": (errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    "choose a place that may be written to": (errno.EACCES, errno.EPERM, errno.EROFS),
    "something else is there by that name: choose another": (
        errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.ELOOP,
    ),
}  # fmt: skip


CARRIED = "prompts"
"""The folder, in that of a run or policy, of templates of its own."""


class TellWarning(UserWarning):
    """Something that was found wrong and could be got over, said in one sentence."""


def tell(sentence: str) -> None:
    """Warn of what was found wrong and got over (:class:`TellWarning`)."""
    warnings.warn(sentence, TellWarning, stacklevel=2)


def cannot_write(path: Path, error: OSError) -> LangAgentError:
    """The sentence for a file or folder that cannot be written."""
    reason = error.strerror or str(error)
    hints = [hint for hint, codes in _ADVICE.items() if error.errno in codes]
    return LangAgentError(f"Cannot write '{path}': {'; '.join([reason, *hints])}.")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within, an operating system's error is one sentence about ``path``."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from None
    except ValueError as error:
        if isinstance(error, UnicodeEncodeError):  # some libraries take names in UTF-8 alone
            raise LangAgentError(f"Cannot write {str(path)!r}: its name is not UTF-8.") from None
        if "null byte" in str(error):
            raise LangAgentError(
                f"{str(path)!r} is no name of a file: it has a null byte."
            ) from None
        raise


MOST = 256 * 2**20
"""Bytes of the largest file that is read at once."""


def read_text(path: str | Path, what: str, most: int = MOST) -> str:
    """The text of a file of UTF-8, whatever the locale, with or without a byte-order mark.

    Args:
        what: it is, for the error: "the configuration".
        most: bytes; a larger file is refused.

    Raises:
        LangAgentError: a file that cannot be read, is too large, or is not UTF-8.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(most + 1)
    except (OSError, ValueError) as error:  # ValueError: no path at all, as with a null character
        reason = getattr(error, "strerror", None) or error
        raise LangAgentError(f"Cannot read {what} '{path}': {reason}.") from None
    if len(data) > most:
        raise LangAgentError(f"Cannot read {what} '{path}': it has more than {most} bytes.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LangAgentError(
            f"Cannot read {what} '{path}': byte {error.start} is not UTF-8. Save it in UTF-8."
        ) from None


def lines_of(text: str) -> list[str]:
    """The lines of a text. Only a newline ends one: JSON may hold U+2028 and its kin as they are,
    at which ``str.splitlines`` cuts."""
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A place beside ``path`` for a file or a folder that takes its place at the end.

    Nothing is left where the block raises. Raises :class:`LangAgentError` where the disk or the
    place stands in the way; the block's own errors pass.
    """
    with writing(path):
        if path.exists() and not (path.is_file() or path.is_dir()):  # a device, a pipe
            raise FileExistsError(errno.EEXIST, "it is no file that could be replaced")
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent, only=path.name)
    beside = _beside(path)
    remove(beside)
    try:
        yield beside
        with writing(path):
            _to_disk(beside)
            beside.replace(path)
            _sync(path.parent)
    finally:
        remove(beside)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file, which appears or is replaced whole; its folders are made. A link is followed,
    and what is no file (``/dev/stdout``) is written to as it is."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    with writing(path):
        place = Path(os.path.realpath(path))
        if place.exists() and not place.is_file():
            place.write_bytes(data)
            return
        with whole(place) as beside:
            beside.write_bytes(data)


def try_place(path: Path) -> None:
    """Make the folders of a file that is to be written later and try whether it can be.

    Raises :class:`LangAgentError` before the work is done rather than after.
    """
    with writing(path):
        place = Path(os.path.realpath(path))
        if place.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        if place.exists() and not place.is_file():
            with place.open("ab"):
                return
        place.parent.mkdir(parents=True, exist_ok=True)
        sweep(place.parent, only=place.name)
        trial = _beside(place)
        trial.touch()
        trial.unlink()


def remove(path: Path) -> None:
    """Remove a file or a folder with all in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def discard(path: Path) -> None:
    """Remove a folder that is there, which disappears whole: half of it never looks like it."""
    if path.exists() or path.is_symlink():
        beside = _beside(path)
        remove(beside)
        with writing(path):
            path.rename(beside)
        remove(beside)


def partials(folder: Path, name: str = "") -> list[Path]:
    """What unfinished writing has left in a folder: of the file or folder ``name``, or of any."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _PARTIAL.fullmatch(path.name)
        if match and name in ("", match["name"]):
            found.append(path)
    return found


def sweep(folder: Path, only: str = "") -> None:
    """Remove what processes of this machine that are no more have left half-written."""
    for path in partials(folder, only):
        match = _PARTIAL.fullmatch(path.name)
        if match and match["host"] == _host() and not _alive(int(match["pid"])):
            remove(path)


def aside_name(path: Path, word: str = "damaged") -> Path:
    """A free name beside ``path`` for what cannot be used and shall not be lost."""
    names = (f"{path.name}-{word}{f'-{n}' if n > 1 else ''}" for n in itertools.count(1))
    return next(name for name in map(path.with_name, names) if not name.exists())


def set_aside(path: Path, word: str = "damaged") -> Path:
    """Rename a file or folder that cannot be used; returns the new name."""
    aside = aside_name(path, word)
    with writing(aside):
        path.rename(aside)
    return aside


def json_lines(lines: Iterable[str]) -> Iterator[tuple[int, Any, str]]:
    """(number from 1, value, reason) of each line that is not blank.

    The reason, in a few words, is why the line is no JSON; it is empty where it is.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line), ""
        except (ValueError, RecursionError) as error:
            yield number, None, f"no JSON: {error}"


def _to_disk(path: Path) -> None:
    for part in [*path.rglob("*"), path] if path.is_dir() else [path]:
        _sync(part)


def _sync(path: Path) -> None:
    """Have the disk hold what was written; a place that cannot promise it is left as it is."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(handle)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{_host()}.{os.getpid()}.partial")


def _host() -> str:
    return re.sub(r"[^\w-]", "_", socket.gethostname()) or "_"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True
