"""Run by hand: does each extra of pyproject.toml install, and can what it is for be imported?

Each is installed, with the wheel of this checkout, in an environment of its own over one that has
the core alone; its versions are those of constraints.txt where they can stand together. Names of
extras as arguments: only these. `--base FOLDER`: the site-packages of an environment with the core,
in place of one that is made.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "constraints.txt"
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]
IMPORT = """
import importlib, importlib.metadata as metadata, json, sys
homes = {}
for module, names in metadata.packages_distributions().items():
    for name in names:
        homes.setdefault(name.lower().replace("-", "_"), []).append(module)
found = {}
for name in sys.argv[1:]:
    known = [m for m in homes.get(name.lower().replace("-", "_"), []) if m.isidentifier()]
    public = [m for m in known if not m.startswith("_")]
    for module in public or known:
        importlib.import_module(module)
        found[module] = metadata.version(name)
import lang_agent

print(json.dumps(found))
"""


def packages(extra: str) -> list[str]:
    """What an extra requires, those of extras within it too."""
    names = []
    for wanted in EXTRAS[extra]:
        inner = re.fullmatch(r"lang_agent\[(.*)\]", wanted)
        if inner:
            names += [name for one in inner[1].split(",") for name in packages(one.strip())]
        else:
            names.append(re.match(r"[\w.-]+", wanted)[0])
    return names


def made(folder: Path, base: Path | None = None) -> Path:
    """The Python of a new environment; it sees the packages in ``base`` underneath its own."""
    venv.create(folder, with_pip=True)
    if base is not None:
        (place,) = folder.glob("lib/python*/site-packages")
        (place / "zz_base.pth").write_text(f"{base}\n")
    return folder / "bin" / "python"


def pip(python: Path, *arguments: object) -> str:
    """What pip has against it, in a line; nothing where it went well."""
    command = [python, "-m", "pip", "--disable-pip-version-check", "-q", *arguments]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    told = [line for line in run.stderr.splitlines() if line.startswith("ERROR")]
    return " ".join(told or ["pip failed"])[:300] if run.returncode else ""


def check(extra: str, wheel: Path, base: Path, work: Path) -> tuple[bool, str]:
    """Whether an extra can be had, and a line about it."""
    python, wanted = made(work / extra, base), f"lang_agent[{extra}] @ {wheel.as_uri()}"
    how, refused = "with the pins", pip(python, "install", "-c", PINS, wanted)
    if refused:
        torch = work / "torch.txt"
        torch.write_text("".join(line for line in PINS.open() if line.startswith("torch==")))
        how = "not with the pins"
        if again := pip(python, "install", "-c", torch, wanted):
            return False, again
    run = subprocess.run(
        [python, "-c", IMPORT, *packages(extra)], capture_output=True, text=True, cwd=work
    )
    if run.returncode:
        return False, (run.stderr.strip().splitlines() or ["?"])[-1]
    found = json.loads(run.stdout.splitlines()[-1])
    return bool(found), f"{how}: {', '.join(f'{n} {v}' for n, v in found.items())}"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("extras", nargs="*", choices=[*EXTRAS, []])
    parser.add_argument("--base", type=Path)
    args = parser.parse_args(arguments)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        core = made(work / "core")
        if reason := pip(core, "wheel", "--no-deps", "-w", work, ROOT):
            raise SystemExit(reason)
        (wheel,) = work.glob("*.whl")
        base = args.base
        if base is None:
            if reason := pip(core, "install", "-c", PINS, wheel):
                raise SystemExit(reason)
            (base,) = (work / "core").glob("lib/python*/site-packages")
        for extra in args.extras or EXTRAS:
            well, said = check(extra, wheel, base.resolve(), work)
            failed += not well
            print(f"{'ok  ' if well else 'FAIL'} {extra}: {said}", flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
