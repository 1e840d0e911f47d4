"""Weights shared out among workers: the same run as of one process, and whole when saved."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_golden import BASE, CASES, make_policy
from test_workers import TOLERANCE

from lang_agent import LangAgentError
from lang_agent.models.store import load_policy
from lang_agent.train.config import TrainConfig
from lang_agent.train.trainer import Trainer, resume, start

TWO = {"workers": 2, "shard": True}


def lead(run: Trainer, updates: int) -> list[dict]:
    """Train so many updates in all; returns their metrics."""
    seen = []

    def stop(metrics):
        seen.append(dict(metrics))
        run.stop = metrics["updates"] == updates

    run.stop = False
    run.run(stop)
    return seen


def parameters(checkpoint: Path) -> torch.Tensor:
    """All of a checkpoint's, as one process reads them."""
    named = load_policy(checkpoint).named_parameters()
    # A key's bias has gradient 0 but for rounding, whose sign decides where AdamW moves it.
    kept = [p for name, p in named if not name.endswith("c_attn.bias")]
    return torch.cat([parameter.detach().flatten() for parameter in kept])


def compare(config: TrainConfig, folder: Path, updates: int = 2) -> None:
    """Learn by one process with whole weights and by two that share them, and go on by one."""
    written = config.decide.decide == "generate"
    alone = start(config, folder / "alone", make_policy(prose=written))
    ours = start(replace(config, **TWO), folder / "ours", make_policy(prose=written))
    one, two = lead(alone, updates), lead(ours, updates)
    for theirs, measured in zip(one, two, strict=True):
        for name in ("policy_loss", "entropy", "value_loss", "hindsight_loss", "reference_kl"):
            if name in theirs:
                assert measured[name] == pytest.approx(theirs[name], abs=1e-4), name
    assert ours.progress.recent == alone.progress.recent  # the same episodes
    apart = (parameters(ours.saved) - parameters(alone.saved)).abs().max().item()
    print(json.dumps({config.learn.algorithm: f"{apart:.1e}"}))
    assert apart < 10 * TOLERANCE
    edited = (ours.folder / "config.yaml").read_text()
    edited = edited.replace("workers: 2", "workers: 1").replace("shard: true", "shard: false")
    (ours.folder / "config.yaml").write_text(edited)
    more = resume(ours.folder, as_edited=True)
    lead(more, updates + 1)
    lead(alone, updates + 1)
    apart = (parameters(more.saved) - parameters(alone.saved)).abs().max().item()
    assert apart < 10 * TOLERANCE  # the optimizer's state came back whole


def test_two_workers_with_parts_of_the_weights_learn_what_one_does(tmp_path):
    learn = replace(BASE.learn, optimizer="muon", kl_coef=0.1)
    compare(replace(BASE, learn=learn, snapshot_every=1, snapshot_episodes=1), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(CASES) - {"trpo"}))
def test_every_way_to_learn_with_parts_of_the_weights(name, tmp_path):
    compare(CASES[name], tmp_path)


def test_what_cannot_be_shared_out_is_refused(tmp_path):
    with pytest.raises(LangAgentError, match="workers=1: set workers to a number from 2"):
        replace(BASE, shard=True)
    with pytest.raises(LangAgentError, match="trpo takes second derivatives"):
        start(replace(CASES["trpo"], **TWO), tmp_path / "run", make_policy(prose=False))
    assert not (tmp_path / "run").exists()
