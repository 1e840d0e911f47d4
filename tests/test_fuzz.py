"""Bad input of every kind: thousands of calls and files, each of which must end well or in one
sentence. `pytest tests/test_fuzz.py -s` says the figures; FUZZ_SEED=N tries other ones, and
`pytest -m slow tests/test_fuzz.py` twelve thousand. See docs/reliability.md."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat

import pytest
from fuzz import kinds
from fuzz.harness import try_all

SEED = int(os.environ.get("FUZZ_SEED", "0"))
QUICK = {
    "command lines": 170,
    "configurations": 120,
    "demonstrations": 80,
    "checkpoints": 50,
    "templates": 80,
    "results": 60,
    "suites": 60,
}
SLOW = {
    "command lines": 3000,
    "configurations": 3000,
    "demonstrations": 2000,
    "checkpoints": 500,
    "templates": 1500,
    "results": 1000,
    "suites": 1000,
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    kinds.prepare(folder)
    return folder


@pytest.fixture
def here(prepared, tmp_path, monkeypatch):
    """The current folder: a copy of what is prepared, and odd links."""
    folder = tmp_path / "here"
    shutil.copytree(prepared, folder)
    (folder / "dangling").symlink_to("nowhere/file")
    (folder / "loop").symlink_to("loop")
    with contextlib.suppress(PermissionError):  # devices of our own: the real ones are everybody's
        os.mknod(folder / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.mknod(folder / "full", 0o666 | stat.S_IFCHR, os.makedev(1, 7))
    monkeypatch.chdir(folder)
    return folder


def try_kind(kind: str, inputs: int, here) -> None:
    draws = {
        "command lines": lambda: kinds.command_lines,
        "configurations": lambda: kinds.configurations(here),
        "demonstrations": lambda: kinds.demonstration_files(here),
        "checkpoints": lambda: kinds.checkpoints(here),
        "templates": lambda: kinds.templates(here),
        "results": lambda: kinds.results(here),
        "suites": lambda: kinds.suites(here),
    }
    outcome = try_all(
        kind, draws[kind](), inputs, SEED, [here / "model", here / "run" / "checkpoints"]
    )
    print(f"\n{outcome}")
    assert not outcome.failures, f"{outcome}\n\n" + "\n\n".join(outcome.failures[:20])


@pytest.mark.parametrize("kind", QUICK)
def test_bad_input_is_refused_in_a_sentence(kind, here):
    try_kind(kind, QUICK[kind], here)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SLOW)
def test_twelve_thousand_bad_inputs(kind, here):
    try_kind(kind, SLOW[kind], here)
