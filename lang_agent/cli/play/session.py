"""An episode that somebody stands by: what was seen of it, who decides, and from where it goes on.

:func:`lang_agent.rollout.play` runs in a thread of its own, with an agent that shows what it is
asked and waits for an order; the screen gives the orders.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any

import gymnasium

from lang_agent.cli.play.words import level, new_words, outcome, step_limit
from lang_agent.episode import Agent, Decision, Episode, TextObservation, Watched
from lang_agent.errors import LangAgentError
from lang_agent.language_env import language_env
from lang_agent.rollout import play
from lang_agent.stepping import AgentError, as_reward, describe


@dataclass(frozen=True)
class Moment:
    """What stands before whoever decides a step, or what is left once the episode is over."""

    seed: int
    number: int
    """Of steps taken before."""
    level: str
    limit: int | None
    mission: str
    words: str
    """What the prompt says that is new."""
    actions: tuple[str, ...] | None
    cells: Mapping[str, Any] | None
    action: str
    """That was taken in the step before."""
    outcome: str
    """Of that step."""
    total: float
    """The return so far."""
    by_person: bool
    decision: Decision | None = None
    """What the agent would do, where it was asked."""
    episode: Episode | None = None
    """Once it is over."""
    note: str = ""


@dataclass(frozen=True)
class Say:
    """The person's decision."""

    text: str


@dataclass(frozen=True)
class Accept:
    """The agent's decision is taken."""


@dataclass(frozen=True)
class HandBack:
    """The agent decides from here on."""


@dataclass(frozen=True)
class Take:
    """The person decides from this step on."""

    step: int


@dataclass(frozen=True)
class Begin:
    """An episode of this seed begins."""

    seed: int


@dataclass(frozen=True)
class Leave:
    """It is enough."""


Order = Say | Accept | HandBack | Take | Begin | Leave


class _Anew(Exception):  # noqa: N818 - it is no error
    """The episode under way is left for what an order says."""

    def __init__(self, order: Begin | Take | Leave) -> None:
        super().__init__()
        self.order = order


def decision_of(agent: Agent, slots: Sequence[int], seen: TextObservation, step: int) -> Decision:
    """An agent's decision; what it raises is one sentence."""
    try:
        (decision,) = agent.act(slots, [seen])
    except LangAgentError:
        raise
    except Exception as error:
        name = agent.about.get("name", type(agent).__name__)
        reason = describe(error).rstrip(".")
        raise AgentError(f"The agent {name} failed at step {step}: {reason}.") from error
    return decision


class Session:
    """Episodes, one after another, in a thread of their own.

    Args:
        agent: who is watched; None where a person plays alone.
        show: is called with every moment that waits for an order, from the session's thread.
        closed: is called when the thread ends; ``error`` then has what ended it, if anything did.
    """

    def __init__(
        self,
        env: gymnasium.Env[str, str],
        agent: Agent | None,
        show: Callable[[Moment], object],
        closed: Callable[[], object] = lambda: None,
    ) -> None:
        self.env = env
        self.error: BaseException | None = None
        self._show, self._closed = show, closed
        self._orders: SimpleQueue[Order] = SimpleQueue()
        self._agent = _Steered(agent or Agent(), agent is None, _Witness(env), self._ask)
        self._thread: threading.Thread | None = None
        self._leaving = False

    def start(self, seed: int) -> None:
        self._thread = threading.Thread(target=self._run, args=(Begin(seed),), daemon=True)
        self._thread.start()

    def order(self, order: Order) -> None:
        self._orders.put(order)

    def close(self, patience: float = 10.0) -> None:
        """End the thread, which closes the environment; an agent that is still at work is waited
        for this long."""
        self._leaving = True
        self._orders.put(Leave())
        if self._thread is not None:
            self._thread.join(patience)

    def _ask(self, moment: Moment) -> Order:
        """Show a moment and wait for an order."""
        if self._leaving:
            return Leave()
        self._show(moment)
        return self._orders.get()

    def _run(self, order: Begin | Take | Leave) -> None:
        try:
            while not isinstance(order, Leave):
                order = self._play(order)
        except BaseException as error:
            self.error = error
        finally:
            try:
                self.env.close()
            except Exception as error:
                self.error = self.error or error
            self._closed()

    def _play(self, order: Begin | Take) -> Begin | Take | Leave:
        """Play one episode; returns what is wanted next."""
        agent = self._agent
        agent.prepare(order)
        try:
            (episode,) = play(agent, [agent.witness], [agent.seed])
            while True:
                asked = self._ask(agent.over(episode))
                if isinstance(asked, Begin | Leave):
                    return asked
                if isinstance(asked, Take) and asked.step < len(episode.steps):
                    return asked
        except _Anew as anew:
            return anew.order


class _Steered(Watched):
    """Asks the agent that is watched, or the person; replays what was decided before a step that is
    gone back to."""

    def __init__(
        self, agent: Agent, alone: bool, witness: _Witness, ask: Callable[[Moment], Order]
    ) -> None:
        super().__init__(agent)
        self.slots = 1
        self.alone, self.by_person = alone, alone
        self.witness = witness
        self.seed = 0
        self._ask = ask
        self._seen: list[TextObservation] = []
        self._taken: list[Decision] = []
        self._again: list[tuple[TextObservation, Decision]] = []  # what is to be replayed
        self._before = self._said = ""  # what was read last, and said to it

    def prepare(self, order: Begin | Take) -> None:
        """Get ready for an episode, or for the same one again up to a step."""
        if isinstance(order, Begin):
            self.seed, self.by_person = order.seed, self.alone
            self._again = []
        else:
            self.by_person = True
            self._again = list(zip(self._seen, self._taken, strict=False))[: order.step]
        self._seen, self._taken = [], []
        self._before = self._said = ""

    def begin(self, slot: int, seed: int) -> None:
        if not self.alone:
            super().begin(slot, seed)

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        (seen,) = observations
        words = new_words(seen.prompt, self._before, self._said)
        decision = self._decide(slots, seen, words)
        self._seen.append(seen)
        self._taken.append(decision)
        self._before, self._said = seen.prompt, decision.action
        return [decision]

    def _decide(self, slots: Sequence[int], seen: TextObservation, words: str) -> Decision:
        note = ""
        if self._again:
            before, decision = self._again.pop(0)
            if before.prompt == seen.prompt:
                return decision
            self._again = []
            note = "The world went another way than before: the episode goes on from here."
        asked: Decision | None = None
        while True:
            if asked is None and not self.by_person:
                asked = decision_of(self.agent, slots, seen, len(self._taken))
                if asked.error:
                    return asked
            moment = self._moment(words, seen.actions, asked, note)
            order = self._ask(moment)
            if isinstance(order, Say) and self.by_person:
                return Decision(order.text)
            if isinstance(order, Accept) and asked is not None and not self.by_person:
                return asked
            if isinstance(order, HandBack) and not self.alone:
                self.by_person = False
            elif isinstance(order, Take) and order.step == len(self._taken):
                self.by_person = True
            elif isinstance(order, Take | Begin | Leave):
                raise _Anew(order)

    def over(self, episode: Episode) -> Moment:
        """The last moment of an episode."""
        words = new_words(self.witness.prompt, self._before, self._said)
        return replace(self._moment(words, (), None, ""), episode=episode)

    def _moment(
        self,
        words: str,
        actions: tuple[str, ...] | None,
        decision: Decision | None,
        note: str,
    ) -> Moment:
        witness = self.witness
        mission = str(witness.info.get("mission") or "")
        if witness.info.get("actions") is None:  # of free text, it is the prompt itself
            mission = ""
        return Moment(
            seed=self.seed,
            number=witness.steps,
            level=level(witness.env, witness.info),
            limit=step_limit(witness.env),
            mission=mission,
            words=words,
            actions=actions,
            cells=language_env(witness.env).cells,
            action=witness.action,
            outcome=witness.outcome,
            total=witness.total,
            by_person=self.by_person,
            decision=decision,
            note=note,
        )


class _Witness(gymnasium.Wrapper):
    """Remembers what the environment said last."""

    def __init__(self, env: gymnasium.Env[str, str]) -> None:
        super().__init__(env)
        self.prompt, self.action, self.outcome, self.steps, self.total = "", "", "", 0, 0.0
        self.info: dict[str, Any] = {}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, dict]:
        self.prompt, self.info = self.env.reset(seed=seed, options=options)
        self.action, self.outcome, self.steps, self.total = "", "", 0, 0.0
        return self.prompt, self.info

    def step(self, action: str) -> tuple[str, float, bool, bool, dict]:
        prompt, reward, terminated, truncated, info = self.env.step(action)
        self.prompt, self.info, self.steps = prompt, info, self.steps + 1
        value = as_reward(reward)
        self.total += value
        self.action, self.outcome = action, outcome(info, value, told=prompt)
        return prompt, value, terminated, truncated, info
