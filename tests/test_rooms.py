"""Who may import whom: docs/architecture.md has the picture."""

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import lang_agent

ROOT = Path(__file__).parent.parent
GROUND = {
    "config", "episode", "errors", "extensions", "files", "language_env", "lock",
    "processes", "ranges", "ray_connection", "rollout", "seeding", "stepping", "trust", "words",
    "yaml_data",
}  # fmt: skip
MAY_IMPORT = {
    "text_env": set(),
    "models": set(),
    "agents": {"text_env", "models"},
    "rewards": {"text_env", "models"},
    "evaluation": {"text_env"},
    "learn": {"models"},
    "train": {"text_env", "models", "agents", "rewards", "evaluation", "learn"},
    "report": {"evaluation"},
    "bridges": {"text_env", "models", "agents", "evaluation", "learn", "train"},
    "cli": {
        "text_env",
        "models",
        "agents",
        "rewards",
        "evaluation",
        "learn",
        "train",
        "report",
        "bridges",
    },
    "envs": {"text_env", "rewards"},
}
"""Beside the ground files, which everybody may import and which import one another alone."""
FACE = {"__init__", "__main__"}
FORBIDDEN = {
    "text_env": {"torch", "transformers", "minigrid"},
    "models": {"gymnasium", "minigrid"},
    "learn": {"gymnasium", "minigrid"},
    "evaluation": {"torch", "transformers"},
    "report": {"torch", "transformers"},
}
"""Packages of others that a room must do without."""


def modules():
    """Every module's name and file."""
    for folder, prefix in ((ROOT / "lang_agent", "lang_agent"), (ROOT / "envs", "lang_agent.envs")):
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            yield ".".join((prefix, *parts)), file


NAMES = {name.removesuffix(".__init__") for name, _ in modules()}


def imports(file):
    """(module, whether it is imported in a function, whether for types alone) of a file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name if name in NAMES else node.module for name in whole]
        else:
            continue
        for name in found:
            yield name, node.col_offset > 0 and id(node) not in for_types, id(node) in for_types


def room(module):
    return module.split(".")[1] if "." in module else "__init__"


@pytest.mark.parametrize("name", [*MAY_IMPORT, "ground"])
def test_a_room_imports_only_the_rooms_below_it(name):
    seen = 0
    for module, file in modules():
        own = room(module)
        if (own in GROUND and name == "ground") or own == name:
            seen += 1
            allowed = GROUND | (MAY_IMPORT[name] | {name} if name in MAY_IMPORT else set())
            for other, _, _ in imports(file):
                if other.split(".")[0] == "lang_agent" and other != "lang_agent":
                    assert room(other) in allowed, f"{module} imports {other}"
                assert other.split(".")[0] not in FORBIDDEN.get(name, ()), f"{module}: {other}"
    assert seen


def test_every_module_lies_in_a_room_or_on_the_ground():
    assert {room(module) for module, _ in modules()} == GROUND | set(MAY_IMPORT) | FACE


def test_no_module_imports_ours_in_a_function_save_the_face_and_the_command_line():
    for module, file in modules():
        if room(module) not in {"__init__", "__main__", "cli"}:
            late = [other for other, inside, _ in imports(file) if inside]
            assert not [other for other in late if other.startswith("lang_agent")], module


def test_modules_import_one_another_in_no_circle():
    """What is imported for types alone is no part of one: at run time it is not there."""
    below = defaultdict(set)
    for module, file in modules():
        for other, _, for_types in imports(file):
            if other in NAMES and not for_types and room(module) not in FACE:
                below[module.removesuffix(".__init__")].add(other)
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            path.append(module)
            for other in sorted(below[module]):
                visit(other)
            done.add(path.pop())

    for module in sorted(NAMES):
        visit(module)


@pytest.mark.parametrize(
    ("first", "without"),
    [
        ("import lang_agent", {"gymnasium", "minigrid", "pygame", "torch", "transformers"}),
        ("from lang_agent.cli import main; main.run(['--help'])", {"minigrid", "textual", "torch"}),
        ("import lang_agent; lang_agent.make('BabyAI-GoToLocal-v0')", {"torch", "transformers"}),
        ("import lang_agent.envs", {"torch", "transformers"}),
    ],
)
def test_nothing_is_imported_before_it_is_needed(first, without):
    code = f"import sys; {first}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not without & set(run.stdout.split())


def test_everything_on_the_face_is_there():
    assert set(lang_agent.__all__) <= set(lang_agent._HOMES)
    for name in lang_agent.__all__:
        assert getattr(lang_agent, name).__module__.startswith("lang_agent")
    with pytest.raises(AttributeError, match="nothing"):
        _ = lang_agent.nothing
