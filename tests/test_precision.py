"""The precision of every operation is the one that was chosen for it."""

from __future__ import annotations

import pytest
import torch
from test_golden import CASES, parameters_after
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lang_agent import LanguagePolicy
from lang_agent.muon import Muon, orthogonal
from lang_agent.optimizer import Optimizer

SIXTEEN = (torch.bfloat16, torch.float16)


class Seen(TorchDispatchMode):
    """Collects the operations that read or give 16-bit numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.sixteen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if any(getattr(leaf, "dtype", None) in SIXTEEN for leaf in tree_leaves((args, out))):
            self.sixteen.add(str(func))
        return out


# -- Muon --------------------------------------------------------------------------------------


def test_orthogonal_keeps_the_singular_vectors_and_evens_the_values():
    torch.manual_seed(0)
    u, _ = torch.linalg.qr(torch.randn(6, 6))
    v, _ = torch.linalg.qr(torch.randn(9, 6))
    values = torch.tensor([5.0, 2.0, 1.0, 0.5, 0.2, 0.1])
    for matrix, left, right in (
        (u @ values.diag() @ v.T, u, v),  # wide
        (v @ values.diag() @ u.T, v, u),  # tall
    ):
        inside = left.T @ orthogonal(matrix, torch.float32) @ right
        assert ((inside.diag() > 0.65) & (inside.diag() < 1.25)).all()
        torch.testing.assert_close(inside, inside.diag().diag(), atol=1e-5, rtol=0)
    assert orthogonal(torch.zeros(3, 4), torch.float32).eq(0).all()


def test_one_newton_schulz_step_on_a_scalar_by_hand():
    """On a 1 x 1 matrix the norm makes the value 1, and each step is s -> a s + b s^3 + c s^5."""
    value = 1.0
    for _ in range(5):
        value = 3.4445 * value - 4.7750 * value**3 + 2.0315 * value**5
    found = orthogonal(torch.tensor([[-0.3]]), torch.float32).item()
    assert found == pytest.approx(-value, abs=1e-5)


@pytest.mark.parametrize("shape", [(24, 96), (96, 24), (16, 16), (1, 7)])
@pytest.mark.parametrize(("precision", "tolerance"), [(torch.bfloat16, 0.0), (torch.float32, 1e-3)])
def test_muon_steps_as_torchs_does(shape, precision, tolerance):
    """In bf16 to the bit; in float32 but for torch's rounding. Four steps move about 0.02."""
    generator = torch.Generator().manual_seed(0)
    ours = nn.Parameter(torch.randn(shape, generator=generator))
    theirs = nn.Parameter(ours.detach().clone())
    options = {"lr": 0.03, "weight_decay": 0.1}
    mine = Muon([ours], precision=lambda: precision, **options)
    torchs = torch.optim.Muon([theirs], adjust_lr_fn="match_rms_adamw", **options)
    for _ in range(4):
        ours.grad = torch.randn(shape, generator=generator)
        theirs.grad = ours.grad.clone()
        mine.step()
        torchs.step()
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)
    state = mine.state_dict()["state"][0], torchs.state_dict()["state"][0]
    torch.testing.assert_close(*state, atol=0, rtol=0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_muon_follows_the_policys_precision(precision):
    policy = LanguagePolicy.from_scratch("nano", seed=0)
    optimizer = Optimizer(policy, "muon", 1e-3, 0.0)
    policy.set_precision(precision)  # after the optimizer was made
    for parameter in policy.parameters():
        parameter.grad = torch.ones_like(parameter)
    with Seen() as seen:
        optimizer.step()
    assert any("addmm" in name for name in seen.sixteen) == (precision == "bf16")


def test_optimizer_state_goes_on_to_the_bit():
    def train(policy, optimizer, steps, generator):
        for _ in range(steps):
            for parameter in policy.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()

    def made():
        policy = LanguagePolicy.from_scratch("nano", seed=0)
        return policy, Optimizer(policy, "muon", 1e-3, 0.1)

    whole, optimizer = made()
    train(whole, optimizer, 4, torch.Generator().manual_seed(0))
    half, first = made()
    generator = torch.Generator().manual_seed(0)
    train(half, first, 2, generator)
    again, second = made()
    again.load_state_dict(half.state_dict())
    saved = {name: tensor.clone() for name, tensor in first.state_tensors().items()}
    assert any(name.endswith("momentum_buffer") for name in saved)
    second.load_state_tensors(saved)
    train(again, second, 2, generator)
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


# -- whole runs --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ppo-muon", "trpo", "kl-loss", "constrained", "generate-tokens"])
def test_a_run_in_fp32_computes_nothing_in_16_bits(name, tmp_path):
    assert CASES[name].precision == "fp32"
    with Seen() as seen:
        parameters_after(name, tmp_path / "run")
    assert not seen.sixteen
