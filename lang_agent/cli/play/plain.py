"""The plain form, line by line: for pipes and scripts, and terminals that draw nothing."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import gymnasium

from lang_agent.agents.human import HumanAgent
from lang_agent.cli.console import say
from lang_agent.cli.play.session import decision_of
from lang_agent.cli.play.words import (
    at_step,
    clean,
    ending,
    ending_counts,
    level,
    likely,
    listed,
    meant,
    misread,
    new_words,
    outcome,
    step_limit,
)
from lang_agent.episode import Agent, Decision, Episode, TextObservation, Watched
from lang_agent.rollout import play


class _Left(Exception):  # noqa: N818 - it is no error
    """The person has left."""


def play_plainly(
    env: gymnasium.Env[str, str], agent: Agent, seeds: Iterable[int], *, strict: bool = False
) -> Iterator[Episode]:
    """Play an episode for each seed, and print it; a person is asked what to do.

    Args:
        strict: send whatever is typed to the world. Unless there is a terminal to ask again at,
            this is so anyway.
    """
    person = isinstance(agent, HumanAgent)
    asks_again = person and not strict and sys.stdin.isatty()
    if person and sys.stdin.isatty():
        with contextlib.suppress(ImportError):  # it gives input() its line editing and history
            import readline  # noqa: F401
    narrator = _Person(asks_again) if person else _Narrator(agent)
    told = _Told(env, narrator)
    try:
        for episode in play(narrator, [told], seeds):
            counts = f". {ending_counts(episode)[:1].upper()}{ending_counts(episode)[1:]}"
            say((ending(episode), "green" if episode.success else "red"), f"{counts}.\n")
            yield episode
    except _Left:
        say("")


class _Narrator(Watched):
    """Shows what stands in front of an agent, and what it answers."""

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        self.before, self.said, self.step = "", "", 0

    def begin(self, slot: int, seed: int) -> None:
        self.before, self.said, self.step = "", "", 0
        super().begin(slot, seed)

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        (seen,) = observations
        say(new_words(seen.prompt, self.before, self.said))
        decision = self.decide(slots, seen)
        self.before, self.said, self.step = seen.prompt, decision.action, self.step + 1
        return [decision]

    def decide(self, slots: Sequence[int], seen: TextObservation) -> Decision:
        decision = decision_of(self.agent, slots, seen, self.step)
        say((f"> {clean(decision.action)}", "bold"))
        weighed = likely(decision, seen.actions)
        if weighed:
            say((f"  {weighed}", "dim"))
        return decision


HELP = (
    "Type a phrase or its number. ? shows this, q or Ctrl-D leaves.",
    "Type a phrase. ? shows this, q or Ctrl-D leaves.",
    "Type your text. ? shows this, q or Ctrl-D leaves.",
)


class _Person(_Narrator):
    """Asks a person."""

    def __init__(self, asks_again: bool) -> None:
        super().__init__(HumanAgent())
        self.asks_again = asks_again

    def help(self, actions: Sequence[str] | None) -> None:
        if actions is None:
            say((HELP[2], "dim"))
            return
        say((f"Phrases: {listed(actions, numbered=self.asks_again)}", "dim"))
        say((HELP[0 if self.asks_again else 1], "dim"))

    def decide(self, slots: Sequence[int], seen: TextObservation) -> Decision:
        while True:
            try:
                typed = input("> ")
            except EOFError:
                raise _Left from None
            command = typed.strip()
            known = seen.actions is not None and command in seen.actions
            if command == "q" and not known:
                raise _Left
            if command == "?" and not known:
                self.help(seen.actions)
                continue
            if not self.asks_again:
                return Decision(typed)
            said = meant(typed, seen.actions)
            if said is not None:
                return Decision(said)
            say((misread(typed, seen.actions or ()), "yellow"))


class _Told(gymnasium.Wrapper):
    """Says where an episode begins, and what came of every step."""

    def __init__(self, env: gymnasium.Env[str, str], narrator: _Narrator) -> None:
        super().__init__(env)
        self.narrator, self.steps = narrator, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict]:
        prompt, info = self.env.reset(seed=seed, options=options)
        self.steps, limit = 0, step_limit(self.env)
        most = "" if limit is None else f", at most {limit} steps"
        say((f"{level(self.env, info)}, seed {seed}{most}", "bold"))
        if isinstance(self.narrator, _Person):
            self.narrator.help(info.get("actions"))
        elif info.get("actions"):
            say((f"Phrases: {listed(info['actions'])}", "dim"))
        return prompt, info

    def step(self, action: str) -> tuple[str, float, bool, bool, dict]:
        prompt, reward, terminated, truncated, info = self.env.step(action)
        self.steps += 1
        over = terminated or truncated  # then nobody reads the prompt
        said = outcome(info, float(reward), told="" if over else prompt)
        say((f"{at_step(self.steps, step_limit(self.env)).capitalize()}: {said}", "dim"))
        return prompt, float(reward), terminated, truncated, info
