"""The tables of a report: what each agent reached, who is better, what was said instead of what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lang_agent.errors import LangAgentError
from lang_agent.evaluation.compare import Comparison, compare
from lang_agent.evaluation.summary import Evaluation, summarise_all
from lang_agent.evaluation.tasks import load_suite
from lang_agent.report.sources import Agent

MOST_PHRASES = 12  # of a table of confusion
SHADES = 9


@dataclass(frozen=True)
class Panel:
    """The agents that played the same tasks on the same seeds."""

    name: str
    about: str
    agents: tuple[Agent, ...]
    tasks: tuple[str, ...]
    rows: Mapping[str, Mapping[str, Evaluation]]
    """Task -> agent's label -> what it reached."""
    published: Mapping[str, Mapping[str, float]]
    """Task -> system -> what it reached, as a share of 1."""
    comparisons: tuple[Comparison, ...] = ()
    """The first agent against each of the others."""
    graded: bool = False
    """Whether progression says more than success."""


def panels(agents: Sequence[Agent]) -> list[Panel]:
    """Agents by what they played, in the order in which they were given."""
    groups: dict[str, list[Agent]] = {}
    for agent in agents:
        groups.setdefault(agent.results.spec.panel, []).append(agent)
    return [_panel(name, group) for name, group in groups.items()]


def _panel(name: str, agents: Sequence[Agent]) -> Panel:
    spec = agents[0].results.spec
    rows: dict[str, dict[str, Evaluation]] = {}
    for agent in agents:
        for row in summarise_all(spec, agent.results.records):
            rows.setdefault(row.task, {})[agent.label] = row
    order = [*(task.name for task in spec.tasks), *rows]
    tasks = tuple(task for task in dict.fromkeys(order) if task in rows)
    published, about = _published(spec.suite)
    seeds = f"seeds {spec.seeds[0]} to {spec.seeds[-1]}"
    played = [agent for agent in agents if agent.results.records]
    return Panel(
        name=name,
        about=f"{about or spec.suite or 'tasks'}, {seeds}, panel {name}",
        agents=tuple(agents),
        tasks=tasks,
        rows=rows,
        published=published,
        comparisons=tuple(_compare(played[0], other) for other in played[1:]),
        graded=any(
            record.progression not in (0.0, 1.0)
            for agent in agents
            for record in agent.results.records
        ),
    )


def _compare(first: Agent, second: Agent) -> Comparison:
    found = compare(first.results, second.results)
    return Comparison(first.label, second.label, found.rows, found.apart, found.missing)


def _published(suite: str) -> tuple[dict[str, dict[str, float]], str]:
    """What others have published on a suite that ships; nothing of any other."""
    try:
        known = load_suite(suite) if suite and not suite.endswith(".toml") else None
    except LangAgentError:
        known = None
    if known is None:
        return {}, ""
    found = {task.name: dict(task.published) for task in known.tasks if task.published}
    if known.published:
        found["(all)"] = dict(known.published)
    return found, f"{suite}: {known.about}"


@dataclass(frozen=True)
class Confusion:
    """How often each phrase was said where the expert would have said another."""

    agent: str
    wanted: tuple[str, ...]
    said: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    """[wanted][said]"""
    shades: tuple[tuple[int, ...], ...]
    """0 to :data:`SHADES`: the share of the row."""
    agreed: float
    steps: int
    left_out: int
    """Steps with rarer phrases."""


def confusion(agent: Agent) -> Confusion | None:
    """What was said by what the expert would have said; None where there was no expert."""
    pairs: Counter[tuple[str, str]] = Counter()
    for trajectory in agent.trajectories.values():
        for step in trajectory.get("steps", ()):
            if step.get("expert") is not None:
                pairs[str(step["expert"]), str(step["action"])] += 1
    if not pairs:
        return None
    often: Counter[str] = Counter()
    for pair, count in pairs.items():
        for phrase in pair:
            often[phrase] += count
    kept = [phrase for phrase, _ in often.most_common(MOST_PHRASES)]
    wanted = tuple(phrase for phrase in kept if any(pair[0] == phrase for pair in pairs))
    said = tuple(phrase for phrase in kept if any(pair[1] == phrase for pair in pairs))
    counts = tuple(tuple(pairs[row, column] for column in said) for row in wanted)
    steps = sum(pairs.values())
    return Confusion(
        agent=agent.label,
        wanted=wanted,
        said=said,
        counts=counts,
        shades=tuple(
            tuple(round(SHADES * count / max(sum(row), 1)) for count in row) for row in counts
        ),
        agreed=sum(count for (one, other), count in pairs.items() if one == other) / steps,
        steps=steps,
        left_out=steps - sum(map(sum, counts)),
    )
