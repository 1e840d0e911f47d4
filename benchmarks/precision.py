"""What each choice of a precision rests on, measured on this machine.

    python benchmarks/precision.py                          # under two minutes
    python tests/avx2.py python benchmarks/precision.py     # as on a processor without bf16

One thread and its processor time, so that other work on the machine counts little; two ways of the
same work take turns, and the fastest of each counts. A ratio above 1 says that the second way is
faster; the last column is what the package does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from lang_agent import LanguagePolicy
from lang_agent.agents.policy_agent import PolicyAgent
from lang_agent.cli.bench import ENV, _record, gpt2
from lang_agent.learn.learner import Learner
from lang_agent.learn.muon import orthogonal
from lang_agent.learn.optimizer import Optimizer
from lang_agent.learn.steps import gradient_step
from lang_agent.models import attention
from lang_agent.models.fused_mlp import linear_gelu, works
from lang_agent.models.precision import WORTH_IT, bf16_speed
from lang_agent.rollout import play
from lang_agent.text_env.config import TextConfig

FP32, BF16 = torch.float32, torch.bfloat16
NAMES = {FP32: "fp32", BF16: "bf16"}
EMULATED = (
    0.2  # of float32's speed: below, a processor has no bf16, and large work in it is left out
)


def milliseconds(ways: list[Callable[[], object]], budget: float = 0.6) -> list[float]:
    """The fastest of each, in turns, for so many seconds and at least once after warming up."""
    for way in ways:
        way()
    fastest, spent = [float("inf")] * len(ways), 0.0
    while spent < budget:
        for index, way in enumerate(ways):
            started = time.process_time()
            way()
            took = time.process_time() - started
            fastest[index], spent = min(fastest[index], took), spent + took
    return [1e3 * took for took in fastest]


def row(what: str, first: float, second: float, choice: str) -> None:
    print(f"{what:<44}{first:10.2f}{second:10.2f}{first / second:8.2f}  {choice}", flush=True)


def heading(what: str, first: str, second: str) -> None:
    print(f"\n{what:<44}{first + ' ms':>10}{second + ' ms':>10}{'ratio':>8}  chosen")


def products(chosen: torch.dtype) -> None:
    heading("products (m, k) @ (k, n)", "fp32", "bf16")
    for m, k, n in ((128, 128, 512), (512, 768, 768)):
        pairs = [(torch.ones(m, k, dtype=kind), torch.ones(k, n, dtype=kind)) for kind in NAMES]
        fp32, bf16 = milliseconds([lambda a=a, b=b: a @ b for a, b in pairs])
        row(f"({m}, {k}) @ ({k}, {n})", fp32, bf16, NAMES[chosen])


def muon(chosen: torch.dtype, fast: bool) -> None:
    heading("Muon's orthogonalisation of a matrix", "fp32", "bf16")
    for shape in ((128, 512), (256, 1024), *(((768, 3072),) if fast else ())):
        matrix = torch.randn(shape)
        ways = [partial(orthogonal, matrix, kind) for kind in NAMES]
        row(str(shape), *milliseconds(ways), NAMES[chosen])


def plain_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return nn.functional.gelu(torch.addmm(bias, x, weight), approximate="tanh")


def feed_forward() -> None:
    heading("feed-forward product with GELU, acting", "plain", "fused")
    for kind in NAMES:
        for width in (128, 768):
            if kind == BF16 and not works(kind, width, 4 * width):
                print(f"{NAMES[kind]} of width {width}: the fused one does not work here")
                continue
            weight = (0.02 * torch.randn(width, 4 * width)).to(kind)
            bias = torch.zeros(4 * width, dtype=kind)
            for rows in (16, 512):
                x = torch.randn(rows, width).to(kind)
                ways = [partial(way, x, weight, bias) for way in (plain_gelu, linear_gelu)]
                choice = "fused" if kind == BF16 else "plain"
                row(f"{NAMES[kind]} {rows} rows, width {width}", *milliseconds(ways), choice)


def gelu(fast: bool) -> None:
    heading("GELU, learning", "tanh", "exact")

    def learning(x: Tensor, approximate: str) -> Callable[[], object]:
        return lambda: nn.functional.gelu(x, approximate=approximate).sum().backward()

    for kind in (FP32, BF16) if fast else (FP32,):
        x = torch.randn(2048, 512).to(kind).requires_grad_()
        ways = [learning(x, "tanh"), learning(x, "none")]
        row(f"{NAMES[kind]} 2048 rows of 512", *milliseconds(ways), "exact in new models")


def attend(fast: bool) -> None:
    layer = SimpleNamespace(num_key_value_groups=1, is_causal=True)
    slow_backwards = attention._slow_backwards

    def learning(shape: tuple[int, ...], kind: torch.dtype, by_products: bool):
        query, key, value = (torch.randn(shape, dtype=kind).requires_grad_() for _ in range(3))

        def work() -> None:
            attention._slow_backwards = lambda query: by_products
            attention.attend(layer, query, key, value, None)[0].sum().backward()

        return work

    heading("attention (B, heads, W, size), learning", "fused", "plain")
    for kind in (FP32, BF16) if fast else (FP32,):
        for shape in (
            (32, 4, 128, 32),
            (5, 4, 384, 32),
            (8, 12, 128, 64),
            (5, 12, 384, 64),
            (1, 12, 884, 64),
        ):
            ways = [learning(shape, kind, by_products) for by_products in (False, True)]
            choice = "plain" if slow_backwards(torch.empty(shape, dtype=kind)) else "fused"
            row(f"{NAMES[kind]} {shape}", *milliseconds(ways), choice)
    attention._slow_backwards = slow_backwards


def whole(policy: LanguagePolicy, name: str, envs: int, length: int, budget: float) -> None:
    """Acting in transcripts and a gradient step on them, in both precisions."""
    text = TextConfig(env_args=("num_dists=8", f"max_steps={length}"))
    worlds = [text.make(ENV) for _ in range(envs)]
    samples = _record(policy, "transcript", envs, length)

    def act(precision: str) -> Callable[[], object]:
        def work() -> None:
            policy.set_precision(precision)
            list(play(PolicyAgent(policy, envs), worlds, range(10**6, 10**6 + envs)))

        return work

    def learn(precision: str) -> Callable[[], object]:
        learner = Learner(policy, optimizer=Optimizer(policy, "muon", 1e-9, 0.0))

        def work() -> None:
            policy.set_precision(precision)
            gradient_step(learner, samples)

        return work

    policy.set_precision("auto")
    choice = NAMES[policy.precision]
    for what, way in (("acts", act), ("learns", learn)):
        row(f"{name} {what}", *milliseconds([way("fp32"), way("bf16")], budget), choice)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    speeds = {width: bf16_speed(torch.device("cpu"), width) for width in (96, 128, 256, 512, 768)}
    speed = speeds[768]
    fast, chosen = speed > EMULATED, BF16 if speed >= WORTH_IT else FP32
    print(f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}; bf16 is", end=" ")
    of = ", ".join(f"{speed:.2f} at width {width}" for width, speed in speeds.items())
    print(f"so many times as fast as fp32, of {WORTH_IT} that it must be: {of}")
    with torch.no_grad():
        products(chosen)
        muon(chosen, fast)
        feed_forward()
    gelu(fast)
    attend(fast)
    heading("whole", "fp32", "bf16")
    whole(LanguagePolicy.from_scratch("nano", seed=0), "nano", 8, 8, 2.0)
    if fast:
        whole(gpt2(12, 768, 12, torch.device("cpu")), "GPT-2 small", 2, 4, 4.0)


if __name__ == "__main__":
    main()
