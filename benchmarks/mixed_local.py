"""How well a policy plays MixedLocal, in its own words and in others: the table of docs/results.md.

    python benchmarks/mixed_local.py --policy babyai --episodes 1000 --json babyai.json

The rows are those of BALROG (Paglieri et al. 2024: no distractors, a task each) and of GLAM (Carta
et al. 2023: eight distractors, sampled actions). Seeds are evaluation's: training never sees them.
Choices are made on others (``--first-seed 500000000``).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from lang_agent.agents.policy_agent import PolicyAgent
from lang_agent.config import load_config
from lang_agent.evaluation.evaluate import as_json, as_table, evaluate
from lang_agent.models.store import load_policy, model_folder
from lang_agent.seeding import EVALUATION_SEED
from lang_agent.text_env.config import TextConfig
from lang_agent.train.config import TrainConfig

ENV = "BabyAI-MixedLocal-v0"
WORDINGS = "wording=lang_agent.envs.wordings"
ROWS = {
    "balrog goto": ("num_dists=0", "task=goto"),
    "balrog pickup": ("num_dists=0", "task=pickup"),
    "balrog open": ("num_dists=0", "task=open"),
    "balrog putnext": ("num_dists=0", "task=putnext"),
    "balrog pick up then go to": ("num_dists=0", "task=pick_up_seq_go_to"),
    "glam mixture": ("num_dists=8",),
    "new nouns": ("num_dists=8", f"{WORDINGS}:new_nouns"),
    "invented words": ("num_dists=8", f"{WORDINGS}:invented"),
    "unseen pairs": ("num_dists=8", "split=test"),
    "new composition": ("num_dists=8", "split=test", "task=pick_up_seq_pick_up"),
    "synonym actions": ("num_dists=8", f"{WORDINGS}:synonyms"),
    "french goto": (
        "num_dists=8", "task=goto", "renderer=babyai_fr", f"{WORDINGS}:french",
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--policy", default="babyai")
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--first-seed", type=int, default=EVALUATION_SEED)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    config = Path(model_folder(args.policy)) / "config.yaml"
    if not config.is_file():
        config = Path(args.policy) / "config.yaml"
    trained = load_config(config, TrainConfig)
    policy = load_policy(args.policy)
    policy.set_precision("auto")
    decide = replace(trained.decide, temperature=args.temperature)
    found = []
    for name in args.rows:
        text = TextConfig(prompt=trained.text.prompt, env_args=ROWS[name])
        envs = [text.make(ENV) for _ in range(args.slots)]
        agent = PolicyAgent(policy, len(envs), decide)
        rows = evaluate(agent, envs, args.episodes, name=name, first_seed=args.first_seed)
        found += rows
        print(f"{name}: {rows[-1].success:.3f}", flush=True)
    Console().print(as_table(found, title=f"{args.policy}, temperature {args.temperature}"))
    if args.json:
        args.json.write_text(json.dumps(as_json(found), indent=1) + "\n")


if __name__ == "__main__":
    main()
