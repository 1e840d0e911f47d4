"""Try inputs one after another in one process; every one must end well, or in one sentence.

A kind of input is a generator of :class:`Case`. Each case is drawn from the seed, its kind's name
and its number alone, so that one that failed can be made again by itself.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import io
import random
import signal
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lang_agent.errors import LangAgentError

SECONDS = 30  # that one input may take
LONGEST = 5000  # letters of a sentence


class HangError(BaseException):
    """An input took longer than it may."""


@dataclass
class Case:
    """One input: what is tried, and what it was, for a person to read."""

    told: str
    attempt: Callable[[], object]


@dataclass
class Outcome:
    """What became of the inputs of a kind."""

    kind: str
    seed: int
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        total = sum(self.counts.values())
        return (
            f"{self.kind}: {total} inputs (seed {self.seed}), {self.counts['done']} done, "
            f"{self.counts['refused']} refused in one sentence, {len(self.failures)} failed"
        )


def try_all(
    kind: str,
    draw: Callable[[random.Random], Case],
    inputs: int,
    seed: int,
    precious: Sequence[Path] = (),
) -> Outcome:
    """Try so many inputs of a kind. Of the folders ``precious`` none may change a file."""
    outcome = Outcome(kind, seed)
    before = contents(precious)
    for number in range(inputs):
        case = draw(random.Random(f"{seed}/{kind}/{number}"))
        ended, why = _try(case.attempt)
        after = contents(precious)
        if lost := [str(file) for file in before if after.get(file) != before[file]]:
            ended, why = "failed", f"it changed what was there before: {lost}"
            before = after
        outcome.counts[ended] += 1
        if ended == "failed":
            outcome.failures.append(f"[{kind} {number}, seed {seed}] {case.told}\n{why}")
    return outcome


def _try(attempt: Callable[[], object]) -> tuple[str, str]:
    """(done, refused or failed; why)."""

    def late(number: int, frame: object) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, late)
    faulthandler.dump_traceback_later(4 * SECONDS, exit=True)  # where no Python code is run
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            attempt()
        return "done", ""
    except LangAgentError as error:
        return ("refused", "") if is_sentence(str(error)) else ("failed", f"no sentence: {error}")
    except HangError:
        return "failed", f"it took more than {SECONDS} seconds:\n{traceback.format_exc()}"
    except BaseException:
        return "failed", traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        faulthandler.cancel_dump_traceback_later()


def is_sentence(text: str) -> bool:
    return bool(text.strip()) and len(text) < LONGEST and "Traceback" not in text


def contents(folders: Iterable[Path]) -> dict[Path, str]:
    """Every file of some folders, with the digest of its bytes."""
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def command_line(arguments: list[str], typed: str = "") -> Callable[[], object]:
    """An attempt to run ``lang-agent`` with these arguments, as the shell would: its sentence is a
    line of standard error, with status 2."""
    from lang_agent.cli.main import main

    def attempt() -> None:
        out, err = io.StringIO(), io.StringIO()
        before = sys.argv, sys.stdin, list(sys.path)
        sys.argv, sys.stdin = ["lang-agent", *arguments], io.StringIO(typed)
        status: object = 0
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                main()
        except SystemExit as stop:
            status = stop.code or 0
        finally:
            sys.argv, sys.stdin, sys.path[:] = before
        said = [line for line in err.getvalue().splitlines() if line.startswith("lang-agent: ")]
        assert "Traceback" not in out.getvalue() + err.getvalue(), err.getvalue()
        if status == 2:
            assert len(said) == 1, f"status 2, but on standard error: {err.getvalue()!r}"
            raise LangAgentError(said[0])
        assert status in (0, 130), f"status {status}: {err.getvalue()!r}"
        assert not said, f"status {status}, but it complained: {said}"

    return attempt


def damage(data: bytes, draw: random.Random) -> tuple[bytes, str]:
    """A file's bytes with something done to them, and what."""
    kind = draw.choice(["cut", "flip", "empty", "insert", "zero", "repeat", "utf-16", "swap"])
    at = draw.randrange(len(data) + 1)
    if kind == "cut":
        return data[:at], f"cut at byte {at}"
    if kind == "flip":
        changed = bytearray(data)
        bits = [draw.randrange(len(data) * 8) for _ in range(draw.choice([1, 1, 3, 20]))]
        for bit in bits if data else ():
            changed[bit // 8] ^= 1 << bit % 8
        return bytes(changed), f"bits {bits} flipped"
    if kind == "empty":
        return b"", "empty"
    if kind == "insert":
        more = draw.choice([b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"}", b"\n", b"\xe2\x80\xa8"])
        return data[:at] + more + data[at:], f"{more!r} at byte {at}"
    if kind == "zero":
        end = min(at + draw.choice([1, 8, 512]), len(data))
        return data[:at] + bytes(end - at) + data[end:], f"bytes {at} to {end} zero"
    if kind == "repeat":
        return data + data[at:], f"again from byte {at}"
    if kind == "utf-16":
        return data.decode("utf-8", "replace").encode("utf-16"), "in UTF-16"
    other = draw.randrange(len(data) + 1)
    first, last = sorted((at, other))
    return data[first:] + data[:first], f"turned round at byte {first}, {last}"
