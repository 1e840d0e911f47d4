"""docs/algorithms.md names every algorithm and option, and tests that exist."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from lang_agent.learn import losses
from lang_agent.learn.algorithm import Algorithm
from lang_agent.learn.algorithms import ALGORITHMS, _gae, settle
from lang_agent.learn.config import LearnConfig

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs/algorithms.md").read_text(encoding="utf-8")


def test_every_algorithm_has_its_row_and_every_test_named_exists():
    table = PAGE.partition("## Papers, departures, tests")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in table.splitlines() if line.startswith("| ")][1:]
    assert set(ALGORITHMS) <= {row[0].strip(" `") for row in rows}
    written = "".join(file.read_text(encoding="utf-8") for file in TESTS.glob("test_*.py"))
    known = set(re.findall(r"^def (test_\w+)", written, re.MULTILINE))
    for row in rows:
        assert len(row) == 4
        named = set(re.findall(r"`(test_\w+)`", row[3]))
        assert named, row[0]
        assert named <= known, named - known


def test_every_option_of_learning_is_told():
    told = set(re.findall(r"`--([a-z-]+)", PAGE)) | set(re.findall(r"`([a-z_]+)[`=]", PAGE))
    names = {item.name for item in fields(LearnConfig)}
    plain = {"optimizer", "weight_decay", "batch_tokens", "value_coef", "lr_final"}
    several = {"minibatch_decisions", "epochs", "token_gae_lambda", "baseline", "algorithm"}
    missing = {name for name in names if not {name, name.replace("_", "-")} & told}
    assert missing <= plain | several


def test_the_algorithm_that_the_page_adds_works(monkeypatch):
    block = PAGE.partition("## Adding one")[2].partition("```python\n")[2].partition("```")[0]
    added = dict(ALGORITHMS)
    names = {"losses": losses, "Algorithm": Algorithm, "_gae": _gae, "ALGORITHMS": added}
    exec(block, names)
    for name, row in added.items():
        monkeypatch.setitem(ALGORITHMS, name, row)
    assert settle(LearnConfig("sign", gae_lambda=0.5)).normalise == "batch"
