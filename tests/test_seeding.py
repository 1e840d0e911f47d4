"""Streams of random numbers: stable, and independent of each other."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, kstest

from lang_agent.seeding import derive
from lang_agent.text_env.config import TextConfig
from lang_agent.text_env.mixture import make_mixture

LEVEL = "BabyAI-GoToLocal-v0"


def dependence(pairs: Iterable[tuple[object, object]]) -> float:
    """The p-value of the two being independent (chi-square, of what occurs 20 times or more)."""
    counts = Counter(pairs)
    rows = sorted({str(a) for a, _ in counts})
    columns = sorted({str(b) for _, b in counts})
    table = np.zeros((len(rows), len(columns)))
    for (a, b), count in counts.items():
        table[rows.index(str(a)), columns.index(str(b))] = count
    table = table[:, table.sum(0) >= 20]
    assert min(table.shape) > 1, "nothing to compare"
    return chi2_contingency(table).pvalue


def test_the_streams_are_the_same_for_ever():
    """Literal values: what is derived must not change with a version, a platform or a process."""
    assert derive(0, "part") == 8398997261770999674
    assert derive(1, "part") == 2102552445440952792
    assert derive(0, "wording") == 7105650229909482657
    assert derive(0) == 737527731023657304
    code = "from lang_agent.seeding import derive; print(derive(7, 'a', 2))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(run.stdout) == derive(7, "a", 2) == derive(np.int64(7), "a", np.int32(2))


NAMES = st.lists(st.one_of(st.text(max_size=4), st.integers(0, 9)), max_size=3)


@given(st.integers(0, 2**70), NAMES, st.integers(0, 2**70), NAMES)
def test_different_seeds_or_names_give_different_streams(seed, names, other, others):
    first, second = derive(seed, *names), derive(other, *others)
    assert (first == second) == ((seed, names) == (other, others))
    assert 0 <= first < 2**63
    torch.Generator().manual_seed(first)
    np.random.default_rng(first)


def test_a_negative_seed_is_an_error():
    with pytest.raises(ValueError, match="non-negative"):
        derive(-1, "part")


def test_derived_streams_are_uniform_and_independent_of_the_seeds_own():
    own = [np.random.default_rng(seed).random() for seed in range(4000)]
    derived = [np.random.default_rng(derive(seed, "x")).random() for seed in range(4000)]
    assert kstest(derived, "uniform").pvalue > 1e-3
    assert dependence((int(a * 4), int(b * 4)) for a, b in zip(own, derived, strict=True)) > 1e-3


@pytest.fixture(scope="module")
def mixed():
    """A mixture of one environment with itself: part, layout and wording of 1200 episodes."""
    wording = "wording=lang_agent.envs.wordings:varied"
    mixture = make_mixture(TextConfig(prompt="minimal"), [f"{LEVEL} {wording}"] * 4)
    rows = []
    for seed in range(1200):
        _, info = mixture.reset(seed=seed)
        world = mixture.playing.env.unwrapped
        nouns = {"ball", "box", "key"} & set(mixture.playing._wording.words)
        rows.append(
            {
                "part": info["part"],
                "x": int(world.agent_pos[0]),
                "y": int(world.agent_pos[1]),
                "direction": int(world.agent_dir),
                "nouns renamed": bool(nouns),
            }
        )
    return rows


@pytest.mark.parametrize("what", ["x", "y", "direction", "nouns renamed"])
def test_the_part_of_a_mixture_tells_nothing_of_the_episode(mixed, what):
    assert dependence((row["part"], row[what]) for row in mixed) > 1e-3


@pytest.mark.parametrize("what", ["x", "y", "direction"])
def test_the_wording_tells_nothing_of_the_layout(mixed, what):
    assert dependence((row["nouns renamed"], row[what]) for row in mixed) > 1e-3


def test_an_episode_reads_as_it_does_outside_of_the_mixture():
    mixture = make_mixture(TextConfig(), [LEVEL, f"{LEVEL} renderer=ascii"])
    alone = [TextConfig().make(LEVEL), TextConfig(renderer="ascii").make(LEVEL)]
    parts = set()
    for seed in range(20):
        prompt, info = mixture.reset(seed=seed)
        assert prompt == alone[info["part"]].reset(seed=seed)[0]
        parts.add(info["part"])
    assert parts == {0, 1}


def test_parts_are_drawn_by_weight():
    mixture = make_mixture(TextConfig(), [LEVEL, f"{LEVEL} weight=3"])
    drawn = Counter(mixture.reset(seed=seed)[1]["part"] for seed in range(800))
    assert drawn[1] / 800 == pytest.approx(0.75, abs=0.06)


def test_a_mixture_inside_a_mixture_draws_by_itself():
    inner = [make_mixture(TextConfig(), [LEVEL, f"{LEVEL} weight=1"]) for _ in range(2)]
    outer = type(inner[0])(inner, ["one", "two"], [1.0, 1.0])
    pairs = []
    for seed in range(600):
        outer.reset(seed=seed)
        pairs.append((outer.part, inner[outer.part].part))
    assert dependence(pairs) > 1e-3


@pytest.mark.parametrize("parts", [[LEVEL], [LEVEL, f"{LEVEL} num_dists=2"]])
def test_without_a_seed_episodes_go_on_from_the_last_seed(parts):
    wording = TextConfig(wording="lang_agent.envs.wordings:varied")

    def played() -> list[str]:
        mixture = make_mixture(wording, parts)
        return [mixture.reset(seed=seed)[0] for seed in (5, *[None] * 6)]

    first = played()
    assert len(set(first)) == len(first)
    assert first == played()
    unseeded = [make_mixture(wording, parts).reset()[0] for _ in range(4)]
    assert len(set(unseeded)) > 1


def test_the_partners_draws_differ_from_line_to_line(monkeypatch):
    from lang_agent.envs.text_generation import PolicyPartner

    class Writer:
        def generate(self, prompts, seed, **options):
            return [str(seed)]

    partner = PolicyPartner(Writer())
    talks = [["Hello!", "a"], ["Hello!", "b"], ["Hello!", "a", "1", "a"], ["Hello!", "a"]]
    said = [partner(talk) for talk in talks]
    assert len(set(said)) == 3
    assert said[0] == said[3]
