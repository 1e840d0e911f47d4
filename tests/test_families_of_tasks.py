"""Suites made of others, and the means of their families, on figures computed by hand."""

from __future__ import annotations

import json
import sys
from math import sqrt

import pytest

from lang_agent import LangAgentError
from lang_agent.cli import main as cli
from lang_agent.evaluation.records import Record, Spec, read_spec, write_spec
from lang_agent.evaluation.summary import as_families, family_means, mean_of_families
from lang_agent.evaluation.tasks import Family, Task, load_suite

FAMILIES = (Family("rooms", ("rooms/a", "rooms/b")), Family("games", ("games/c",), True),
            Family("caves", ("caves/d",)))  # fmt: skip
TASKS = tuple(Task("X-v0", name) for family in FAMILIES for name in family.tasks)
SPEC = Spec({"name": "x"}, TASKS, 10**9, 3, "mine", {}, FAMILIES)
RECORDS = (
    Record("rooms/a", 10**9, progression=1.0, terminated=True),
    Record("rooms/a", 10**9 + 1, progression=0.0, truncated=True),
    Record("rooms/a", 10**9 + 2, progression=1.0, truncated=True),
    Record("rooms/b", 10**9, progression=1.0, terminated=True),
    Record("games/c", 10**9, progression=0.5, terminated=True),
    Record("games/c", 10**9 + 1, progression=0.8, truncated=True),
)


def test_families_have_the_means_and_errors_of_balrog():
    rooms, games = family_means(SPEC, RECORDS)  # caves has no episode
    assert (rooms.family, rooms.episodes) == ("rooms", 4)
    assert rooms.progression == rooms.so_far == 0.75  # over episodes, not tasks
    assert rooms.standard_error == pytest.approx(sqrt(0.1875) / 2)
    assert games.progression == 0.25  # what was cut off is nothing
    assert games.so_far == pytest.approx(0.65)
    assert games.standard_error == pytest.approx(0.25 / sqrt(2))
    mean, error = mean_of_families([rooms, games])
    assert mean == 0.5
    assert error == pytest.approx(sqrt(0.1875 / 4 + 0.0625 / 2) / 2)
    assert as_families(SPEC, RECORDS)["progress"]["overall"]["families"] == 2
    assert as_families(Spec({}, TASKS, 0, 1), RECORDS) == {}


def test_a_spec_keeps_its_families(tmp_path):
    write_spec(tmp_path, SPEC)
    assert read_spec(tmp_path) == SPEC
    assert "families" not in Spec({}, TASKS, 0, 1).as_data()


def test_balrogs_suite_is_made_of_its_families():
    suite = load_suite("balrog")
    assert [family.name for family in suite.families][:2] == ["babyai", "babaisai"]
    known = {family.name: family for family in suite.families}
    assert len(known["babyai"].tasks) == 5
    assert known["textworld"].only_ended
    assert not known["crafter"].only_ended
    assert {name for family in suite.families for name in family.tasks} == {
        task.name for task in suite.tasks
    }
    (goto,) = (task for task in suite.tasks if task.name == "babyai/goto")
    assert goto.arguments == load_suite("balrog-babyai").tasks[0].arguments


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("include = []", "at least one suite"),
        ("include = ['glam', 'glam']", "none twice"),
        ("include = ['glamm']", "Did you mean 'glam'"),
        ("include = ['balrog']", "made of suites itself"),
        ("include = ['glam']\n[[task]]\nname = 'a'\nenv = 'x'", "one of both"),
        ("include = ['glam']\npublished = {}", "published"),
    ],
)
def test_what_cannot_be_included_is_one_sentence(text, reason, tmp_path):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(LangAgentError, match=reason):
        load_suite(str(tmp_path / "mine.toml"))


def test_a_family_without_its_extra_is_left_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "crafter", None)
    (tmp_path / "mine.toml").write_text("include = ['toy-text', 'balrog-crafter']")
    out = str(tmp_path / "out")
    asked = ["evaluate", "--suite", str(tmp_path / "mine.toml"), "--agent", "random"]
    cli.run([*asked, "--episodes", "1", "--out", out])
    said = " ".join(capsys.readouterr().out.split())
    assert "balrog-crafter is left out: Crafter is played by the package crafter" in said
    assert "mean of 1 of 2 families" in said
    found = json.loads((tmp_path / "out" / "summary.json").read_text())["progress"]
    (toy,) = found["families"]
    assert (toy["family"], toy["episodes"]) == ("toy-text", 6)
    assert found["overall"]["progression"] == toy["progression"]
