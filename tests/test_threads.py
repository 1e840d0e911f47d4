"""How many threads torch computes with by default, and how they wait."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from test_golden import BASE, make_policy
from torch import nn

from lang_agent.cli.options import Evaluate, agent_of
from lang_agent.models.threads import SMALL, use_threads
from lang_agent.train.trainer import start

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _two_threads_before():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("told", "parameters", "device", "expected"),
    [
        (None, SMALL - 1, CPU, 1),
        (None, SMALL, CPU, 2),  # torch's own number, as it was
        (None, 10, torch.device("cuda"), 2),
        (3, 10, CPU, 3),
        (1, SMALL, CPU, 1),
    ],
)
def test_small_models_take_one_thread_unless_told(told, parameters, device, expected):
    model = nn.Linear(parameters, 1, bias=False, device="meta")
    use_threads(told, model, device)
    assert torch.get_num_threads() == expected


@pytest.mark.parametrize(("told", "expected"), [(None, 1), (2, 2)])
def test_a_run_takes_the_threads_of_its_model(told, expected, tmp_path):
    start(replace(BASE, threads=told), tmp_path / "run", make_policy(prose=False))
    assert torch.get_num_threads() == expected


def test_playing_takes_the_threads_of_its_model(tmp_path):
    make_policy(prose=False).save_pretrained(tmp_path / "policy")
    args = Evaluate(("BabyAI-GoToObjS4-v0",), agent=str(tmp_path / "policy"))
    agent_of(args, args.agent, 1)
    assert torch.get_num_threads() == 1


@pytest.mark.skipif(sys.platform != "linux", reason="torch's OpenMP is libgomp on Linux")
@pytest.mark.parametrize(("told", "expected"), [(None, "PASSIVE"), ("active", "ACTIVE")])
def test_the_command_lines_threads_give_their_processor_away(told, expected):
    """What OpenMP itself says when torch loads it; a policy that the person set stays."""
    code = (
        "import sys; from lang_agent.cli.main import main; sys.argv[1:] = []; main(); import torch"
    )
    env = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    env |= {"OMP_DISPLAY_ENV": "verbose"} | ({"OMP_WAIT_POLICY": told} if told else {})
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert f"OMP_WAIT_POLICY = '{expected}'" in done.stderr
    if told is None:
        assert "GOMP_SPINCOUNT = '0'" in done.stderr
