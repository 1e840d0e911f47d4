"""Golden runs: two updates of a tiny run for each way to learn, and the parameters they end with.

They guard what must not change by accident. A case fails where a parameter moved by more than
``TOLERANCE``; on the kind of processor that wrote the file, the hash tells equality to the bit.
A change of a golden value is a change of behaviour, and is committed by itself with its reason:

    python tests/test_golden.py            # says which cases differ from tests/data/golden.json
    python tests/test_golden.py ppo rloo   # writes these again (``all``: every one)
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import DATA

from lang_agent.learn.config import LearnConfig
from lang_agent.models import gpt2
from lang_agent.models.decide import DecideConfig
from lang_agent.models.policy import LanguagePolicy
from lang_agent.text_env.config import TextConfig
from lang_agent.train.config import TrainConfig
from lang_agent.train.trainer import start

FILE = DATA / "golden.json"
TOLERANCE = 1e-5
ROUNDED = {"trpo": 1e-3}  # conjugate gradients make rounding larger
EVERY = 97  # of the parameters, one is kept to compare with

LEVEL = TextConfig(prompt="minimal", env_args=("max_steps=12",))
PHRASES = replace(LEVEL, actions=("turn left", "turn right", "go forward"))
BASE = TrainConfig(
    env="BabyAI-GoToObjS4-v0",
    text=PHRASES,
    steps=1000,
    rollout_steps=48,
    envs=3,
    seed=5,
    precision="fp32",
    threads=1,
    eval_episodes=0,
    snapshot_every=0,
    learn=LearnConfig(optimizer="adamw", learning_rate=1e-3, minibatch_decisions=16),
)
WHOLE = replace(BASE, learn=replace(BASE.learn, minibatch_decisions=256))  # no minibatches
WRITING = replace(
    BASE,
    env="TextGeneration-v0",
    text=TextConfig(env_args=("rewards={length: {target: 4}, diversity: 0.5}",)),
    decide=DecideConfig(decide="generate", max_new_tokens=6),
    rollout_steps=16,
)


def _learn(config: TrainConfig, **options: Any) -> TrainConfig:
    return replace(config, learn=replace(config.learn, **options))


CASES = {
    "reinforce": _learn(WHOLE, algorithm="reinforce"),
    "reinforce-moving": _learn(WHOLE, algorithm="reinforce", baseline="moving", normalise="none"),
    "reinforce-value": _learn(WHOLE, algorithm="reinforce", baseline="value"),
    "a2c": _learn(WHOLE, algorithm="a2c"),
    "ppo": BASE,
    "ppo-muon": _learn(BASE, optimizer="muon"),
    "ppo-transcript": replace(BASE, text=replace(PHRASES, prompt="transcript")),
    "ppo-token-mean": replace(
        _learn(BASE, learning_rate=5e-4), decide=DecideConfig(decide="token-mean")
    ),
    "ppo-scaled": _learn(BASE, reward_scale=0.5, reward_clip=0.3),
    "grpo": _learn(BASE, algorithm="grpo", group_size=3),
    "grpo-none": _learn(BASE, algorithm="grpo", group_size=3, normalise="none"),
    "rloo": _learn(WHOLE, algorithm="rloo", group_size=3),
    "trpo": _learn(BASE, algorithm="trpo", optimizer="muon", epochs=1, target_kl=1e-5),
    "imitation": replace(
        _learn(BASE, algorithm="imitation", entropy_coef=0.0, epochs=1), text=LEVEL
    ),
    "hindsight": replace(BASE, hindsight=0.7),
    "kl-loss": _learn(BASE, kl_coef=0.1),
    "kl-reward": _learn(BASE, kl_coef=0.1, kl_in="reward", kl_target=0.01, kl_horizon=100),
    "constrained": replace(BASE, decide=DecideConfig(decide="constrained")),
    "mixture": replace(
        BASE,
        mixture=("BabyAI-GoToObjS4-v0", "BabyAI-GoToLocalS5N2-v0 weight=2"),
        curriculum="learnable",
    ),
    "generate": WRITING,
    "generate-grpo": _learn(WRITING, algorithm="grpo", group_size=4),
    "generate-tokens": _learn(WRITING, credit="tokens"),
}


def make_policy(prose: bool) -> LanguagePolicy:
    """Thousands of random weights: small, and still with a gradient in every part."""
    lines = ["Goal: go to the red ball", "See: wall 3 steps left, blue key 2 steps forward"]
    lines += [f" {phrase}" for phrase in PHRASES.actions]  # a token each, or the shortest wins
    said = ["Today I walked home", "The children sing", "We are at the market"]
    size = gpt2.Size(layers=2, width=32, heads=8, vocabulary=360, context=512)
    gpt2.SIZES["tiny"] = size
    try:
        texts = said if prose else lines
        policy = LanguagePolicy.from_scratch("tiny", seed=3, texts=texts * 20, prose=prose)
    finally:
        del gpt2.SIZES["tiny"]
    # Drawn here: in which order transformers draws a new model's weights depends on its version.
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if name.endswith("weight") and parameter.ndim == 2:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 32**0.5)
    return policy


def parameters_after(name: str, folder: Path) -> torch.Tensor:
    """The parameters, the value head's too, after two updates of the case."""
    config = CASES[name]
    run = start(config, folder, make_policy(prose=config.decide.decide == "generate"))

    def stop(metrics: dict[str, Any]) -> None:
        run.stop = metrics["updates"] == 2

    run.run(stop)
    assert run.progress.updates == 2
    # A key's bias has gradient 0 but for rounding, whose sign decides where AdamW moves it.
    kept = [p for name, p in run.policy.named_parameters() if not name.endswith("c_attn.bias")]
    return torch.cat([parameter.detach().flatten() for parameter in kept])


def as_data(parameters: torch.Tensor) -> dict[str, Any]:
    digest = hashlib.sha256(parameters.numpy().tobytes()).hexdigest()
    kept = [round(value, 8) for value in parameters[::EVERY].tolist()]
    return {"hash": digest[:16], "count": len(parameters), "values": kept}


def differs(found: dict[str, Any], golden: dict[str, Any], tolerance: float = TOLERANCE) -> str:
    """How the parameters found differ from the golden ones; nothing where they do not."""
    if found["hash"] == golden["hash"]:
        return ""
    if found["count"] != golden["count"]:
        return f"{found['count']} parameters, {golden['count']} expected"
    apart = [abs(a - b) for a, b in zip(found["values"], golden["values"], strict=True)]
    if max(apart) <= tolerance:
        return ""
    moved = sum(one > tolerance for one in apart)
    return f"{moved} of {len(apart)} values differ, by up to {max(apart):.2g}"


@pytest.mark.parametrize("name", CASES)
def test_two_updates_end_with_the_golden_parameters(name, tmp_path):
    golden = json.loads(FILE.read_text())
    found = as_data(parameters_after(name, tmp_path / "run"))
    assert not differs(found, golden[name], ROUNDED.get(name, TOLERANCE))


def test_the_golden_cases_differ_from_each_other():
    """Options that changed nothing would guard nothing."""
    golden = json.loads(FILE.read_text())
    assert set(golden) == set(CASES)
    assert len({case["hash"] for case in golden.values()}) == len(golden)


def main(names: list[str]) -> None:
    golden = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder:
            found = as_data(parameters_after(name, Path(folder) / "run"))
        told = (
            differs(found, golden[name], ROUNDED.get(name, TOLERANCE)) if name in golden else "new"
        )
        print(f"{name:<20}{told or ('same' if found == golden[name] else 'within tolerance')}")
        if name in names or "all" in names:
            golden[name] = found
    if names:
        kept = {name: golden[name] for name in CASES if name in golden}
        lines = [f"{json.dumps(name)}: {json.dumps(case)}" for name, case in kept.items()]
        FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
