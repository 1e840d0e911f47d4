"""The command ``lang-agent compare``."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

from lang_agent.cli.console import as_text, console, say
from lang_agent.cli.options import Compare
from lang_agent.errors import LangAgentError
from lang_agent.evaluation import statistics
from lang_agent.evaluation.balrog import is_balrog, of_submission, read_balrog
from lang_agent.evaluation.compare import (
    Comparison,
    Difference,
    Standing,
    by_task,
    leaderboard,
)
from lang_agent.evaluation.compare import compare as compare_two
from lang_agent.evaluation.records import Results, read_results
from lang_agent.evaluation.summary import columned
from lang_agent.files import try_place, write_whole

MOST = 12  # seeds on which two agents differ that are listed
FEWEST = 5  # episodes of a kind that has a row in the terminal; --json has them all


def compare(args: Compare) -> None:
    """Which of several agents is better, on the same tasks and seeds."""
    named = [[Path(one) for one in as_text(names).split(",") if one] for names in args.folders]
    foreign = [folders[0] for folders in named if len(folders) == 1 and is_balrog(folders[0])]
    groups = [
        [read_results(folder) for folder in folders]
        for folders in named
        if folders and folders[0] not in foreign
    ]
    if len(groups) + len(foreign) < 2 or not groups:
        raise LangAgentError("Name two or more folders of results to compare, one of them ours.")
    for file in filter(None, (args.json, args.markdown)):
        try_place(Path(file))
    standings = leaderboard(groups)
    standings += [of_submission(read_balrog(folder)) for folder in foreign]
    standings.sort(key=lambda row: -row.progression)
    say(f"panel {groups[0][0].spec.panel}")
    _print(_leaderboard(standings))
    for run in (run for group in groups for run in group):
        if run.missing:
            without = {task for task, _ in run.missing} & set(run.unplayed)
            why = f", of them all of {', '.join(sorted(without))}" if without else ""
            say((f"{run.folder}: {len(run.missing)} episodes are not played{why}", "yellow"))
    found = []
    improvements = {}
    for one, other in combinations(groups, 2):
        if len(one) == len(other) == 1:
            comparison = compare_two(one[0], other[0])
            found.append(comparison)
            _show(comparison, one[0], other[0], whole=len(groups) == 2)
        else:
            name = f"{one[0].name} over {other[0].name}"
            chance = statistics.probability_of_improvement(by_task(one), by_task(other))
            improvements[name] = chance
            say(f"{name}: probability of improvement {chance:.2f} "
                f"({len(one)} and {len(other)} training seeds)")  # fmt: skip
    if args.json:
        data = {
            "panel": groups[0][0].spec.panel,
            "leaderboard": [asdict(row) for row in standings],
            "comparisons": [asdict(comparison) for comparison in found],
            "probability_of_improvement": improvements,
        }
        write_whole(Path(args.json), json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    if args.markdown:
        write_whole(Path(args.markdown), _markdown(standings, groups[0][0]))


COLUMNS = ("agent", "n", "progression", "95% CI", "success", "return", "invalid")


def _cells(row: Standing) -> list[str]:
    name = row.name if row.runs == 1 else f"{row.name} ({row.runs} seeds)"
    return [
        name,
        str(row.episodes),
        f"{row.progression:.3f}",
        f"{row.low:.3f}-{row.high:.3f}",
        f"{row.success:.3f}",
        f"{row.mean_return:.3f}",
        f"{row.invalid_rate:.1%}",
    ]


def _leaderboard(standings: Sequence[Standing]) -> list[tuple[str, list[str]]]:
    rows = [(COLUMNS[0], list(COLUMNS[1:]))]
    for row in standings:
        name, *entries = _cells(row)
        rows.append((name, entries))
        if row.interquartile is not None:
            between = f"{row.interquartile_low:.3f}-{row.interquartile_high:.3f}"
            rows.append(("  interquartile mean", ["", f"{row.interquartile:.3f}", between]))
    return rows


def _print(rows: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Print a table with its head set apart, as wide as it must be."""
    head, *lines = columned(rows, width=console.width)
    say((head, "bold"))
    for line in lines:
        say(line)


def _markdown(standings: Sequence[Standing], of: Results) -> str:
    lines = [
        f"Panel `{of.spec.panel}`{f', suite {of.spec.suite}' if of.spec.suite else ''}, seeds "
        f"{of.spec.seeds[0]} to {of.spec.seeds[-1]} of each task.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
        *(f"| {' | '.join(_cells(row))} |" for row in standings),
    ]
    return "\n".join(lines) + "\n"


WORDS = ("wording", "renderer", "invalid_action", "actions")
"""What of an agent's own words makes a task another one, so that it should be known."""
DECIDED = ("decide", "temperature", "top_k", "top_p", "min_p")
"""And what makes a policy another one; agents that are none have nothing of it."""


def _show(comparison: Comparison, first: Results, second: Results, whole: bool) -> None:
    say((f"{comparison.first} less {comparison.second}", "bold"))
    ours, theirs = (results.spec.agent.get("words") or {} for results in (first, second))
    for name in WORDS:
        if ours.get(name) != theirs.get(name):
            one, other = (words.get(name) or "the default" for words in (ours, theirs))
            say((f"in other words: {name} {one} and {other}", "yellow"))
    ours, theirs = (results.spec.agent.get("decide") or {} for results in (first, second))
    for name in DECIDED if ours and theirs else ():
        if ours.get(name) != theirs.get(name):
            say((f"decided otherwise: {name} {ours.get(name)} and {theirs.get(name)}", "yellow"))
    if comparison.missing:
        say(f"{comparison.missing} episodes are left out that one of them has not played.")
    rows = [("success of", ["n", "first", "second", "less", "95% CI", "p", "Holm"])]
    for row in comparison.rows if whole else comparison.rows[:2]:
        if row.episodes >= FEWEST:
            what, *entries = _difference(row)
            rows.append((what, entries))
    _print(rows)
    if not whole or not comparison.apart:
        return
    several = f", of which the first {MOST}:" if len(comparison.apart) > MOST else ":"
    say(f"On {len(comparison.apart)} episodes one alone succeeds{several}")
    places = [record.place for record in first.records]
    for task, seed, who in comparison.apart[:MOST]:
        say(f"  {who}: {task}, seed {seed}, episode {places.index((task, seed))}")
    name, seed, _ = comparison.apart[0]
    of = next(task for task in first.spec.tasks if task.name == name)
    world = shlex.quote(" ".join([of.env, *of.env_args]))
    number = places.index((name, seed))
    say((f"To read one: lang-agent replay {first.folder} --episode {number}", "dim"))
    say((f"To play it: lang-agent play {world} --seed {seed} --agent {first.name}", "dim"))


def _difference(row: Difference) -> list[str]:
    return [
        row.what if row.measure == "success" else f"{row.what}: {row.measure}",
        str(row.episodes),
        f"{row.first:.3f}",
        f"{row.second:.3f}",
        f"{row.difference:+.3f}",
        f"{row.low:+.3f} {row.high:+.3f}",
        f"{row.p:.1g}",
        f"{row.corrected:.1g}",
    ]
