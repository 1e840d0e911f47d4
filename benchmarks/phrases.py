"""How well a policy knows phrases that it never met, by their place in the prompt's list.

    python benchmarks/phrases.py POLICY... [--episodes 60]

The expert plays BabyAI's MixedLocal with eight distractors and strays from its way in three steps
of ten; the policy is asked at each step what the expert would say, in the world's own phrases, in
the suite's synonyms, and in phrases invented for each episode. Printed are the loss (nats a
decision; 1.79 by chance), and the mean probability of the right phrase for each of the six. The
prompts are those that the policy was trained on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from lang_agent.envs.minigrid import PHRASES

import lang_agent
from lang_agent.agents.expert import ExpertAgent
from lang_agent.learn.sequences import expert_choice
from lang_agent.rollout import play

FIRST_SEED = 1_000_100_000  # evaluation seeds that no figure is reported on
WORDINGS = {
    "own": None,
    "synonyms": "lang_agent.envs.wordings:synonyms",
    "invented": "lang_agent.envs.wordings:phrased",
}
NOISE = 0.3
PASS = 64  # prompts


def log_probs_of_the_right(
    policy: lang_agent.LanguagePolicy, wording: str | None, seeds: Sequence[int]
) -> list[tuple[int, float]]:
    """For each of the expert's decisions which of the phrases it is, and its log-probability."""
    env = lang_agent.make("BabyAI-MixedLocal-v0", num_dists=8, wording=wording, like=policy)
    asked = [
        (step.observation.prompt, step.observation.actions, right)
        for episode in play(ExpertAgent(NOISE, varied=True), [env], seeds)
        for step in episode.steps
        if (right := expert_choice(step)) is not None
    ]
    asked.sort(key=lambda one: len(one[0]))
    found = []
    for at in range(0, len(asked), PASS):
        prompts, actions, rights = zip(*asked[at : at + PASS], strict=True)
        with torch.no_grad():
            told = policy.action_log_probs(prompts, actions, rule="constrained")
        found += [(right, told[row, right].item()) for row, right in enumerate(rights)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("policies", nargs="+")
    parser.add_argument("--episodes", type=int, default=60)
    options = parser.parse_args()
    seeds = range(FIRST_SEED, FIRST_SEED + options.episodes)
    print(f"{'':30} loss   {'   '.join(PHRASES)}")
    for name in options.policies:
        policy = lang_agent.load_policy(name)
        for words, wording in WORDINGS.items():
            found = log_probs_of_the_right(policy, wording, seeds)
            loss = -torch.tensor([log_prob for _, log_prob in found]).mean().item()
            chances = []
            for which, phrase in enumerate(PHRASES):
                of = torch.tensor([log_prob for right, log_prob in found if right == which])
                chances.append(f"{of.exp().mean().item():{len(phrase)}.2f}")
            print(f"{name[-20:]:20} {words:9} {loss:.3f}  {'   '.join(chances)}")


if __name__ == "__main__":
    main()
