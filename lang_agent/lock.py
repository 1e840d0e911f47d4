"""A folder that one process at a time may write to."""

from __future__ import annotations

import os
import socket
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import IO

from lang_agent.errors import LangAgentError
from lang_agent.files import tell, writing

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".lock"
_open_locks: weakref.WeakSet[IO[str]] = weakref.WeakSet()


class LockedError(LangAgentError):
    """A folder that another process writes to."""


class FolderLock:
    """Keeps a folder to one process, as a context; entered again by the same object, it holds.

    The system releases it with the process that holds it, however that ends.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file: IO[str] | None = None
        self._depth = 0

    def __enter__(self) -> None:
        if self._depth == 0:
            self._file = _lock(self.folder)
        self._depth += 1

    def __exit__(self, *reason: object) -> None:
        self._depth -= 1
        if self._depth == 0 and self._file is not None:
            self._file.close()


def _lock(folder: Path) -> IO[str]:
    """The lock's file, locked as long as it is open."""
    with writing(folder):
        file = (folder / LOCK_FILE).open("a+", encoding="utf-8")
    _open_locks.add(file)
    try:
        if fcntl is None:
            raise OSError("this system has none")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read(200).strip() or "another process"
        file.close()
        raise LockedError(
            f"'{folder}' is in use by {holder}: wait for its end or stop it, or choose another "
            "folder."
        ) from None
    except OSError as error:
        tell(
            f"'{folder}' cannot be locked ({error.strerror or error}): see to it that no other "
            "process writes there."
        )
    with suppress(OSError):  # a full disk: the lock holds without a name
        file.truncate(0)
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {now}\n")
        file.flush()
    return file


def _close_locks() -> None:
    """A process that a world forks must not keep the folder locked after our own death."""
    for file in list(_open_locks):
        file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_locks)
