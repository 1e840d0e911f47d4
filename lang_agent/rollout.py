"""Playing episodes: the one loop between agents and environments, for training and evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import PurePath
from typing import Any

import gymnasium

from lang_agent.episode import Agent, Decision, Episode, Step, TextObservation, Watched
from lang_agent.errors import LangAgentError, shown, user_code
from lang_agent.extensions import ExtensionError, check_takes
from lang_agent.files import tell
from lang_agent.language_env import AsyncEnv, ExpertLostError, language_env
from lang_agent.seeding import derive
from lang_agent.stepping import (
    MAX_IN_A_ROW,
    RETRIES,
    AgentError,
    EnvError,
    EnvErrors,
    Turn,
    as_reward,
    describe,
    env_error,
)


def play(
    agent: Agent,
    envs: Sequence[gymnasium.Env[str, str]],
    seeds: Iterable[int],
    *,
    group_size: int = 1,
    first_index: int = 0,
    draw_seed: int = 0,
    share: tuple[int, int] = (0, 1),
    on_end: Callable[[Episode, gymnasium.Env[str, str]], None] | None = None,
    errors: EnvErrors | None = None,
    may_begin: Callable[[int], bool] | None = None,
) -> Generator[Episode, None, None]:
    """Play ``group_size`` episodes of each seed, as many at once as there are environments.

    Every episode that was begun is finished and yielded, in the order of finishing. What an agent
    draws in an episode is a stream of the episode's own: of its seed, and of how often that seed
    was played before, so that the same episodes are played however many environments there are.
    Where a rubric judges the texts of a group together, a step waits for those of the group's other
    episodes. Where environments answer later (:class:`lang_agent.language_env.AsyncEnv`), the agent
    acts in those that have answered, and waits for none of the others.

    Args:
        first_index: the number of the first episode.
        draw_seed: another one has the agent draw other actions in the same episodes.
        share: (k, n) plays, of every n seeds, only the k-th from 0, as one of n processes does that
            share them out.
        on_end: called with every episode while its environment still stands as it ended.
        errors: what becomes of an episode whose environment raises, and the list of those that
            did; unless given, :class:`lang_agent.stepping.EnvError` is raised.
        may_begin: whether the episode with a number may begin yet; asked again before every step.
            By default all may.

    Raises:
        LangAgentError: an agent that is none, or one that plays fewer episodes at once.
    """
    if not isinstance(agent, Agent):
        raise LangAgentError(
            f"{type(agent).__name__} is no agent: derive its class from lang_agent.Agent."
        )
    own = _inner(agent)
    if type(own) is Agent and own is not agent:  # a person acts, and nobody is watched
        own = agent
    if type(own).act is Agent.act:
        raise LangAgentError(f"{type(own).__name__} has no act(slots, observations): add one.")
    check_takes(own.act, f"{type(own).__name__}.act()", ("slots", "observations"))
    most = agent.slots
    if most is not None and len(envs) > most:
        raise LangAgentError(
            f"There are {len(envs)} environments, and the agent acts in {most} at once: make it "
            "with as many slots, or give it fewer environments."
        )
    _note_other_words(agent, envs)
    upcoming = _numbered(seeds, group_size, first_index, share)
    playing = _Playing(agent, envs, upcoming, group_size, draw_seed, on_end, errors or EnvErrors())
    if may_begin is not None:
        playing.may_begin = may_begin
    try:
        yield from playing.episodes()
    finally:
        playing.close()


@dataclass(frozen=True)
class _Upcoming:
    """An episode to be played."""

    index: int
    seed: int
    time: int  # that its seed is played


def _numbered(
    seeds: Iterable[int], group_size: int, first_index: int, share: tuple[int, int]
) -> Iterator[_Upcoming]:
    """The episodes of this share, numbered as those of all."""
    times: Counter[int] = Counter()  # that a seed was played
    mine, others = share
    for group, seed in enumerate(seeds):
        for member in range(group_size):
            if group % others == mine:
                index = first_index + group * group_size + member
                yield _Upcoming(index, seed, times[seed])
            times[seed] += 1


def _inner(agent: Agent) -> Agent:
    """The agent that acts, whoever watches it."""
    while isinstance(agent, Watched):
        agent = agent.agent
    return agent


def _note_other_words(agent: Agent, envs: Sequence[gymnasium.Env[str, str]]) -> None:
    """Warn of an agent that reads another prompt than it was trained with."""
    known = PurePath(str((agent.words or {}).get("prompt") or "")).name.removesuffix(".jinja")
    for env in envs:
        for part in language_env(env).parts:
            if known and part.prompt_name and part.prompt_name != known:
                tell(
                    f"The policy was trained with the prompt '{known}' and reads "
                    f"'{part.prompt_name}': its figures are of other words than its own. "
                    "lang_agent.make(id, like=policy) takes its own."
                )
                return


@dataclass
class _Seat:
    """An environment and the episode that is being played in it."""

    env: gymnasium.Env[str, str]
    episode: Episode
    group: int
    time: int  # that its seed is played
    seen: TextObservation = field(default_factory=lambda: TextObservation("", None))
    decision: Decision = field(default_factory=lambda: Decision(""))
    turn: Turn | None = None  # a step that waits for a verdict
    answer: Future[Any] | None = None  # of a reset or step that an environment gives later
    reset: bool = True  # whether that is a reset
    tries: int = 1
    expert_lost: bool = False


@dataclass
class _Group:
    """The episodes of one seed."""

    finished: list[Episode] = field(default_factory=list)
    over: int = 0  # finished or left out
    failed: bool = False  # one of them is left out, and so all are


class _Playing:
    """The state of :func:`play`."""

    def __init__(
        self,
        agent: Agent,
        envs: Sequence[gymnasium.Env[str, str]],
        upcoming: Iterator[_Upcoming],
        group_size: int,
        draw_seed: int,
        on_end: Callable[[Episode, gymnasium.Env[str, str]], None] | None,
        errors: EnvErrors,
    ) -> None:
        self.agent, self.envs, self.upcoming = agent, envs, upcoming
        self.group_size, self.draw_seed = group_size, draw_seed
        self.on_end, self.errors = on_end, errors
        self.begun = 0
        self.coming: _Upcoming | None = None  # the next episode, where it may not begin yet
        self.may_begin: Callable[[int], bool] = lambda index: True
        self.seats: dict[int, _Seat] = {}
        self.groups: dict[int, _Group] = {}
        self.done: list[Episode] = []
        self.speaking = [language_env(env) for env in envs]
        for slot, speaking in enumerate(self.speaking):
            speaking.judge = partial(self._judge, slot)
            speaking.prompt_limit = agent.prompt_limit

    def close(self) -> None:
        """Leave the environments to whoever steps them next."""
        for seat in self.seats.values():
            if seat.turn is not None:
                seat.turn.abandon()
        for speaking in self.speaking:
            speaking.judge = speaking.prompt_limit = None

    def episodes(self) -> Iterator[Episode]:
        while self._take_seats():
            self._receive()
            free = [s for s, seat in self.seats.items() if seat.turn is None and not seat.answer]
            cut_off = [slot for slot in free if self.seats[slot].episode.truncated]
            slots = [slot for slot in free if slot not in cut_off]
            if cut_off:
                values = self.agent.values(cut_off, [self.seats[slot].seen for slot in cut_off])
                for slot, value in zip(cut_off, values, strict=True):
                    self.seats[slot].episode.last_value = value
                    self._finish(slot)
                yield from self._take_done()
            seen = [self.seats[slot].seen for slot in slots]
            for slot, decision in zip(slots, self._act(slots, seen), strict=True):
                self._decided(slot, decision)
                yield from self._take_done()
            self._answer_groups()
            yield from self._take_done()

    def _act(self, slots: Sequence[int], seen: Sequence[TextObservation]) -> Sequence[Decision]:
        """What the agent decides; of a person's own, what it raises is a sentence."""
        try:
            decisions = self.agent.act(slots, seen)
        except LangAgentError:
            raise
        except Exception as error:
            if user_code(error) is None:
                raise
            name = type(_inner(self.agent)).__name__
            raise ExtensionError(f"The agent {name} failed: {describe(error)}") from error
        if len(decisions) != len(slots) or not all(isinstance(one, Decision) for one in decisions):
            name = type(_inner(self.agent)).__name__
            raise LangAgentError(
                f"{name}.act() must return a lang_agent.Decision for each of the {len(slots)} "
                f"observations, and returned {shown(decisions)}."
            )
        return decisions

    def _take_done(self) -> list[Episode]:
        done, self.done = self.done, []
        return done

    def _take_seats(self) -> bool:
        """Begin episodes where none is being played; False where none is left."""
        for slot in range(len(self.envs)):
            if slot not in self.seats:
                self._begin(slot)
        return bool(self.seats)

    def _receive(self) -> None:
        """Take the answers that have come of environments that answer later; wait for one where
        there is nothing else to do."""
        waiting = {s: seat.answer for s, seat in self.seats.items() if seat.answer is not None}
        if not waiting:
            return
        seconds = None if len(waiting) == len(self.seats) else 0
        come, _ = wait(waiting.values(), seconds, FIRST_COMPLETED)
        for slot, answer in waiting.items():
            if answer in come:
                seat = self.seats[slot]
                seat.answer = None
                if not seat.reset:
                    self._stepped(slot, answer.result)
                elif not (self._was_reset(slot, answer.result) or self._reset(slot)):
                    self._begin(slot)

    def _begin(self, slot: int) -> None:
        """Begin the next episode in this slot, if there is to be one."""
        while True:
            self.seats.pop(slot, None)
            self.coming = coming = self.coming or next(self.upcoming, None)
            if coming is None or not self.may_begin(coming.index):
                return
            self.coming = None
            group = self.begun // self.group_size
            self.begun += 1
            self.groups.setdefault(group, _Group())
            episode = Episode(coming.index, coming.seed)
            self.seats[slot] = _Seat(self.envs[slot], episode, group, coming.time)
            if self._reset(slot):
                return

    def _reset(self, slot: int) -> bool:
        """Begin the slot's episode; False where it is left out because that fails."""
        while slot in self.seats:
            seat = self.seats[slot]
            names = ("draws", self.draw_seed, seat.time, seat.tries)
            self.agent.begin(slot, derive(seat.episode.seed, *names))
            speaking = self.speaking[slot]
            if isinstance(speaking, AsyncEnv):
                seat.answer, seat.reset = speaking.reset_later(seat.episode.seed), True
                return True
            if self._was_reset(slot, partial(seat.env.reset, seed=seat.episode.seed)):
                return True
        return False

    def _was_reset(self, slot: int, reset: Callable[[], Any]) -> bool:
        """Whether the slot's episode has begun. Where that fails it is to be tried again, or it is
        left out and the slot is free."""
        seat = self.seats[slot]
        try:
            prompt, info = reset()
            seat.seen = _observe(prompt, info)
        except (Exception, SystemExit) as error:
            if not self._failed(slot, error, None, ""):
                self.seats.pop(slot)
            return False
        self._ask_expert(slot, None)
        return True

    def _ask_expert(self, slot: int, last_action: str | None) -> None:
        """Put the expert's phrase into the observation, for an agent that asks for it."""
        seat = self.seats[slot]
        if not self.agent.asks_expert or seat.expert_lost:
            return
        try:
            phrase = self.speaking[slot].expert_action(last_action)
        except ExpertLostError:
            seat.expert_lost = True
            return
        seat.seen = replace(seat.seen, expert=phrase)

    def _failed(self, slot: int, error: BaseException, step: int | None, action: str) -> bool:
        """Whether to play the episode anew, after an exception in it; if not, it is left out."""
        seat, errors = self.seats[slot], self.errors
        episode, group = seat.episode, self.groups[seat.group]
        named = env_error(seat.env, episode.seed, episode.index, step, action, error)
        errors.seen.append(named)
        if errors.rule == "retry" and seat.tries <= RETRIES:
            seat.episode = Episode(episode.index, episode.seed)
            seat.tries, seat.expert_lost = seat.tries + 1, False
            return True
        if not group.failed:
            errors.in_a_row += 1
        if errors.rule == "retry":
            raise EnvError(f"It failed {1 + RETRIES} times, at last so: {named}") from error
        if errors.in_a_row >= MAX_IN_A_ROW:
            raise EnvError(f"{MAX_IN_A_ROW} in a row failed, the last so: {named}") from error
        if errors.rule != "skip":
            raise named from error
        errors.left_out += 1 + len(group.finished)
        group.finished.clear()
        group.failed = True
        self._over(seat.group)
        return False

    def _decided(self, slot: int, decision: Decision) -> None:
        """Take the step that was decided on."""
        seat = self.seats[slot]
        seat.decision = decision
        if decision.error:
            error = AgentError(f"the agent gave no answer, {decision.error}")
            if not (self._failed(slot, error, len(seat.episode.steps), "") and self._reset(slot)):
                self._begin(slot)
            return
        speaking = self.speaking[slot]
        if isinstance(speaking, AsyncEnv):
            seat.answer, seat.reset = speaking.step_later(decision.action), False
            return
        step: Callable[[], Any] = partial(seat.env.step, decision.action)
        if self.group_size > 1 and speaking.judges_together:
            seat.turn = Turn(step)
            seat.turn.start()
            step = seat.turn.result
            if seat.turn.question is not None:
                return
        self._stepped(slot, step)

    def _stepped(self, slot: int, step: Callable[[], Any]) -> None:
        """Record a step that has been taken, or what it raises."""
        seat = self.seats[slot]
        seat.turn = None
        episode, decision = seat.episode, seat.decision
        try:
            prompt, reward, terminated, truncated, info = step()
            tokens = info.pop("token_rewards", [])
            taken = Step(seat.seen, decision, as_reward(reward), info, tokens)
            seat.seen = _observe(prompt, info)
        except (Exception, SystemExit) as error:
            again = self._failed(slot, error, len(episode.steps), decision.action)
            if not (again and self._reset(slot)):
                self._begin(slot)
            return
        episode.steps.append(taken)
        episode.terminated = bool(terminated)
        episode.truncated = bool(truncated) and not terminated
        if terminated or (truncated and not self.agent.critic):
            self._finish(slot)
        elif not truncated:
            self._ask_expert(slot, decision.action)

    def _finish(self, slot: int) -> None:
        seat = self.seats[slot]
        episode, group = seat.episode, self.groups[seat.group]
        episode.judged = all(step.info.get("judged", True) for step in episode.steps)
        if self.on_end is not None:
            self.on_end(episode, seat.env)
        if group.failed:
            self.errors.left_out += 1
        else:
            self.errors.in_a_row = 0
            group.finished.append(episode)
        self._over(seat.group)
        self._begin(slot)

    def _over(self, number: int) -> None:
        """Count an episode of a group as over; hand out what is done.

        Where episodes may be left out, a group is kept until it is known to be whole."""
        group = self.groups[number]
        group.over += 1
        if group.over == self.group_size:
            self.groups.pop(number)
        if self.errors.rule != "skip" or group.over == self.group_size:
            self.done += group.finished
            group.finished.clear()

    # -- groups that are judged together -----------------------------------------------------------

    def _judge(self, slot: int, rubric: Any, writing: Any) -> Any:
        """The verdict on the text of the step being taken, whose tokens are known here."""
        seat = self.seats[slot]
        tokens = seat.decision.tokens
        writing = replace(writing, tokens=() if tokens is None else tokens.token_ids)
        if seat.turn is None:
            return rubric.judge([writing])[0]
        return seat.turn.ask((rubric, writing))

    def _answer_groups(self) -> None:
        """Judge the texts of every group that waits whole; where nothing else can go on, those of
        the oldest."""
        waiting: dict[int, list[int]] = {}
        for slot, seat in sorted(self.seats.items(), key=lambda item: item[1].episode.index):
            if seat.turn is not None:
                waiting.setdefault(seat.group, []).append(slot)
        whole = [
            group
            for group, slots in waiting.items()
            if len(slots) + self.groups[group].over == self.group_size
        ]
        if not whole and len(self.seats) == sum(map(len, waiting.values())):
            whole = list(waiting)[:1]
            for group in whole:
                self._refuse_part(self.seats[waiting[group][0]])
        for group in whole:
            turns = [turn for slot in waiting[group] if (turn := self.seats[slot].turn)]
            rubric, _ = turns[0].question
            try:
                verdicts = rubric.judge([turn.question[1] for turn in turns])
            except Exception as error:
                verdicts = [error] * len(turns)
            for slot, turn, verdict in zip(waiting[group], turns, verdicts, strict=True):
                turn.answer(verdict)
                if turn.question is None:
                    self._stepped(slot, turn.result)

    def _refuse_part(self, seat: _Seat) -> None:
        """Texts that are compared cannot be judged a part of the group at a time."""
        if seat.turn is not None and seat.turn.question[0].compares:
            raise LangAgentError(
                f"The reward compares the {self.group_size} texts of a group, which takes as many "
                f"environments at once, and there are {len(self.envs)}: set envs to "
                f"{self.group_size} or more."
            )


def _observe(prompt: str, info: dict[str, Any]) -> TextObservation:
    actions = info.get("actions")
    phrases = None if actions is None else tuple(actions)
    system = str(info.get("system", ""))
    return TextObservation(prompt, phrases, bool(info.get("line", False)), system)
