"""How much a policy attends to where the goal's thing was met.

    python benchmarks/matching.py POLICY... [--env BabyAI-GoToLocal-v0] [--episodes 20]

A goal such as "go to the red ball" can be followed only by who finds the red ball's place among the
other things'. In a new model one head does that (`lang_agent/models/induction.py`). Training can
lose it, and the loss alone does not show it for long. For every layer the head is printed that
attends most, from the prompt's last token, to the tokens right after the places where the goal's
last word (a name that is one token) stood before, and how much: the mean over the steps of the
expert's episodes on which it stood there. The prompts are those that the policy was trained on.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

import lang_agent
from lang_agent.agents.expert import ExpertAgent
from lang_agent.rollout import play

FIRST_SEED = 1_000_100_000  # evaluation seeds that no figure is reported on
END = 2  # the goal's name and what closes the prompt


def attention_to_the_place(policy: lang_agent.LanguagePolicy, prompt: str) -> Tensor | None:
    """(layers, heads) of attention, or None where the name stands nowhere else."""
    tokens = policy.encode_prompt(prompt)
    name = tokens[-END]
    places = [at + 1 for at, token in enumerate(tokens[:-END]) if token == name]
    if not places:
        return None
    with torch.no_grad():
        layers = policy.model(torch.tensor([tokens]), output_attentions=True).attentions
    return torch.stack([heads[0, :, -1, places].sum(1) for heads in layers])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("policies", nargs="+")
    parser.add_argument("--env", default="BabyAI-GoToLocal-v0")
    parser.add_argument("--episodes", type=int, default=20)
    options = parser.parse_args()
    seeds = range(FIRST_SEED, FIRST_SEED + options.episodes)
    for name in options.policies:
        policy = lang_agent.load_policy(name)
        policy.model.set_attn_implementation("eager")  # which alone tells its weights
        env = lang_agent.make(options.env, like=policy)
        found = [
            attention
            for episode in play(ExpertAgent(), [env], seeds)
            for step in episode.steps
            if (attention := attention_to_the_place(policy, step.observation.prompt)) is not None
        ]
        mean = torch.stack(found).mean(0)
        heads = ", ".join(
            f"layer {layer} head {int(row.argmax())}: {row.max().item():.2f}"
            for layer, row in enumerate(mean)
        )
        print(f"{name} ({len(found)} prompts): {heads}")


if __name__ == "__main__":
    main()
