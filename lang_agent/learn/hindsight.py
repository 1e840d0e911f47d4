"""Hindsight: an episode is told again with a mission that it did fulfil, and its way there learned.

An agent that was told to open a door and walked into a ball has shown how one goes to a ball. The
world says what an episode has fulfilled (:class:`lang_agent.text_env.world.Achieved`); its prompts
are written anew with that for a mission, and what was done on the way there is learned beside the
policy gradient (:func:`lang_agent.learn.learner.update`).

The way is the walk with its loops erased (:func:`without_loops`; Lawler 1980): bumping into a wall,
or turning left and right again, ends where it began and is no part of it. Learned with the rest,
it would teach to stay in front of whatever stands in the way.

Where the world is asked for its symmetries, each telling is seen through one that is drawn: in a
mirror, say, as Lin et al. 2019 (arXiv 1909.10707) do for robots.

This is hindsight experience replay (Andrychowicz et al. 2017, arXiv 1707.01495) with goals in words
(ACTRCE: Chan et al. 2019, arXiv 1902.04546). Unlike there nothing is replayed from a buffer, loops
are left out, near steps are taken more often than far ones, and in place of a Q-function the
actions themselves are learned, as in goal-conditioned supervised learning (Ghosh et al. 2019, arXiv
1912.06088), by as much as they brought above the critic's value
(:func:`lang_agent.learn.objective.hindsight_loss`). A mission that is told pays what the world
would have paid for it at that step, discounted back from there, also to the end of the part that is
told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import torch

from lang_agent.episode import Episode, Step, TokenTrace
from lang_agent.language_env import Achieved, LanguageEnv
from lang_agent.learn.config import LearnConfig
from lang_agent.learn.credit import scaled_reward
from lang_agent.models.context import traces
from lang_agent.models.policy import LanguagePolicy

TELLINGS = 2  # of an episode, for each task that it fulfilled a mission of


def relabel(
    episode: Episode,
    env: LanguageEnv,
    policy: LanguagePolicy,
    reach: float,
    config: LearnConfig,
    generator: torch.Generator,
) -> list[Episode]:
    """The episode that ``env`` has just ended, told with missions that it fulfilled.

    For each task ``TELLINGS`` times, so that what happens all the time does not drown what is rare:
    a mission is drawn, of its parts one, and the last steps of the way to it, as many as a
    geometric draw says, of which each further one has the probability ``reach``.

    Args:
        policy: whose tokens prompts and actions are put into.
        config: how rewards are scaled, clipped and discounted.
    """
    tasks: dict[str, list[Achieved]] = {}
    for achieved in env.achieved:
        tasks.setdefault(achieved.task, []).append(achieved)
    relabelled = []
    drawer = np.random.default_rng(generator.initial_seed())
    drawn = [
        missions[at]
        for _, missions in sorted(tasks.items())
        for at in torch.randint(len(missions), (TELLINGS,), generator=generator).tolist()
    ]
    for chosen in drawn:
        last = chosen.steps[_draw(len(chosen.steps), generator)]
        way = without_loops([step.observation.prompt for step in episode.steps[: last + 1]])
        way = way[-1 - _geometric(reach, generator) :]
        relabelled_steps = list(islice(env.relabelled(chosen.mission, drawer), last + 1))
        told = [relabelled_steps[at] for at in way]
        steps = [
            _told(episode.steps[at], prompt, action, trace)
            for at, (prompt, action), trace in zip(
                way, told, traces(policy.codec, told), strict=True
            )
        ]
        relabelled.append(_paid(episode, steps, chosen.reward, chosen.steps[-1] - last, config))
    return relabelled


def without_loops(prompts: Sequence[str]) -> list[int]:
    """The steps of a walk that are on its way: whenever a prompt comes again, what was done since
    it came first is left out, so that each is there once and with what was done on it last.

    Where prompts hold what was done before, none comes again and all steps are on the way.
    """
    way: list[int] = []
    place: dict[str, int] = {}  # of each prompt in the way
    for step, prompt in enumerate(prompts):
        for left_out in way[place.get(prompt, len(way)) :]:
            del place[prompts[left_out]]
        del way[len(place) :]
        place[prompt] = len(way)
        way.append(step)
    return way


def _told(step: Step, prompt: str, action: str, trace: TokenTrace) -> Step:
    """The step with another prompt, and with the action that was chosen there seen likewise."""
    observation, decision = replace(step.observation, prompt=prompt), step.decision
    if action != decision.action and observation.actions is not None:
        decision = replace(decision, action=action, choice=observation.actions.index(action))
    return Step(observation, replace(decision, tokens=trace), 0.0, {})


def _paid(
    episode: Episode, steps: list[Step], reward: float, later: int, config: LearnConfig
) -> Episode:
    """The steps as an episode that is paid with the last of them, or so many steps ``later``: then
    what follows is its last value, which like a critic's is of rewards as they are learned."""
    if later:
        follows = scaled_reward(reward, config) * config.discount ** (later - 1)
        return Episode(episode.index, episode.seed, steps, truncated=True, last_value=follows)
    steps[-1].reward = reward
    return Episode(episode.index, episode.seed, steps, terminated=True)


def _draw(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))


def _geometric(again: float, generator: torch.Generator) -> int:
    """How often in a row something of probability ``again`` happens."""
    uniform = 1.0 - float(torch.rand((), generator=generator))  # above 0
    return int(math.log(uniform) / math.log(again))
