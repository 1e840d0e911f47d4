"""Playing in the terminal: a person in words, or any agent to watch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import gymnasium
from rich.console import Console

from lang_agent.rollout import Agent, Decision, Episode, TextObservation, play


class _Person:
    """Reads each action from standard input; an empty line or end of input ends the game."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def begin(self, slot: int, env: gymnasium.Env[str, str]) -> None:
        self.console.print("[dim]Say what you do; Ctrl-D leaves.[/dim]")

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        try:
            return [Decision(self.console.input("[bold]> [/bold]"))]
        except EOFError:
            raise KeyboardInterrupt from None


class _Narrator:
    """Shows what stands in front of an agent, and what it answers."""

    def __init__(self, agent: Agent, console: Console, echo: bool) -> None:
        self.agent, self.console, self.echo = agent, console, echo
        self._shown = ""
        self._env: gymnasium.Env[str, str] | None = None

    def begin(self, slot: int, env: gymnasium.Env[str, str]) -> None:
        self._shown, self._env = "", env
        self.agent.begin(slot, env)

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        prompt = observations[0].prompt
        new = prompt[len(self._shown) :] if prompt.startswith(self._shown) else prompt
        self.console.print(new.strip("\n"), markup=False, soft_wrap=True)
        decisions = self.agent.act(slots, observations)
        self._shown = prompt + decisions[0].action
        if self.echo:
            self.console.print(f"[bold]> {decisions[0].action}[/bold]")
        return decisions


def watch(
    env: gymnasium.Env[str, str], agent: Agent | None, seeds: Iterable[int], console: Console
) -> Iterator[Episode]:
    """Play an episode for each seed; without an ``agent`` a person does."""
    narrator = _Narrator(agent or _Person(console), console, echo=agent is not None)
    for episode in play(narrator, [_Tell(env, console)], seeds):
        steps, total = len(episode.steps), episode.total_reward
        end = "[green]Done[/green]" if episode.success else "[red]Not done[/red]"
        console.print(f"{end} after {steps} steps, return {total:.3f}.\n")
        yield episode


class _Tell(gymnasium.Wrapper):
    """Prints the verdict and the reward of every step."""

    def __init__(self, env: gymnasium.Env[str, str], console: Console) -> None:
        super().__init__(env)
        self._console = console

    def step(self, action: str) -> tuple[str, float, bool, bool, dict]:
        prompt, reward, terminated, truncated, info = self.env.step(action)
        verdict = info.get("verdict")
        why = f" ({info['reason']})" if info.get("reason") else ""
        self._console.print(f"[dim]{verdict}{why}, reward {float(reward):.3f}[/dim]")
        return prompt, float(reward), terminated, truncated, info
