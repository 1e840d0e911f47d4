"""Playing in the terminal: a person in words, or any agent to watch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import gymnasium

from lang_agent.agents.human import HumanAgent
from lang_agent.cli.console import console, say
from lang_agent.episode import Agent, Decision, Episode, TextObservation, Watched
from lang_agent.rollout import play


class _Narrator(Watched):
    """Shows what stands in front of an agent, and what it answers."""

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        self._shown = ""

    def begin(self, slot: int, seed: int) -> None:
        self._shown = ""
        super().begin(slot, seed)

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        prompt = observations[0].prompt
        new = prompt[len(self._shown) :] if prompt.startswith(self._shown) else prompt
        say(new.strip("\n"))
        decisions = super().act(slots, observations)
        self._shown = prompt + decisions[0].action
        say((f"> {decisions[0].action}", "bold"))
        return decisions


def watch(env: gymnasium.Env[str, str], agent: Agent, seeds: Iterable[int]) -> Iterator[Episode]:
    """Play an episode for each seed, and show it; a person is asked what to do."""
    if isinstance(agent, HumanAgent):
        agent = HumanAgent(say, console.input)
        say(("Say what you do; Ctrl-D leaves.", "dim"))
    shown = agent if isinstance(agent, HumanAgent) else _Narrator(agent)
    for episode in play(shown, [_Tell(env)], seeds):
        steps, total = len(episode.steps), episode.total_reward
        end = ("Done", "green") if episode.success else ("Not done", "red")
        say(end, f" after {steps} steps, return {total:.3f}.\n")
        yield episode


class _Tell(gymnasium.Wrapper):
    """Prints the verdict and the reward of every step."""

    def step(self, action: str) -> tuple[str, float, bool, bool, dict]:
        prompt, reward, terminated, truncated, info = self.env.step(action)
        verdict = info.get("verdict")
        why = f" ({info['reason']})" if info.get("reason") else ""
        say((f"{verdict}{why}, reward {float(reward):.3f}", "dim"))
        return prompt, float(reward), terminated, truncated, info
