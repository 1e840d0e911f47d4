"""Whether an environment in words is fit to learn in: what it does is tried, not believed."""

from __future__ import annotations

import copy
import random
import re
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils.env_checker import check_env as gymnasium_check

from lang_agent.errors import LangAgentError, shown
from lang_agent.language_env import language_env
from lang_agent.stepping import describe
from lang_agent.text_env.action_parser import parse_action
from lang_agent.text_env.env import TextEnv
from lang_agent.text_env.world import rewarded_at_end

GOOD, WARNING, BAD = "good", "warning", "bad"
MANY = 0.05  # of the prompts: where so many say too little it is a failure
MOST_STEPS = 3000  # of an episode that does not end
ENOUGH = 20_000  # steps looked at
PAIRS = 3  # that are shown
_COLOUR = re.compile(r"\x1b\[\d+m(?:WARN: )?")


@dataclass(frozen=True)
class Finding:
    """What one check came to."""

    check: str
    verdict: str
    """good, warning or bad."""
    said: str


@dataclass
class Moment:
    """A step of an episode that was played to look at."""

    seed: int
    number: int
    prompt: str
    actions: tuple[str, ...] | None
    expert: str | None
    """What the expert would say; None where there is none, or it is lost."""
    action: str = ""
    reward: float = 0.0
    info: Mapping[str, Any] = field(default_factory=dict)
    """That came with the step."""
    ended: bool = False
    new: str = ""
    """What the prompt says that the one before did not."""


def check_env(
    make: Callable[[], gymnasium.Env[str, str]],
    *,
    episodes: int = 20,
    count_tokens: Callable[[str], int] | None = None,
    context: int = 0,
) -> Iterator[Finding]:
    """Try an environment, check by check.

    Args:
        make: the environment, anew at each call.
        episodes: how many are played at random, and as many by the expert where there is one.
        count_tokens: a model's tokens in a text, if their number is to be looked at, and
        context: how many it can read.
    """
    env = make()
    try:
        yield _gymnasium(env)
        yield from _determinism(make)
        played = _some(env, episodes, by_expert=False)
        by_expert = _some(env, episodes, by_expert=True) if _has_expert(env) else []
        everything = [*played, *by_expert]
        yield _completeness(everything, chance=_has_chance(make))
        if count_tokens is not None:
            yield _lengths(everything, count_tokens, context)
        yield _told_apart(everything)
        yield _admissible(everything)
        yield _success(played, by_expert, by_default=_succeeds_by_default(env))
        yield _time(env)
    except LangAgentError:
        raise
    except Exception as error:  # the environment's own: there is no going on
        where = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{describe(error)} ({where.filename}, line {where.lineno})"
        yield Finding("playing", BAD, said)
    finally:
        env.close()


def _gymnasium(env: gymnasium.Env[str, str]) -> Finding:
    name = "Gymnasium's checker"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            gymnasium_check(env.unwrapped, skip_render_check=True)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            at = f"{type(error).__name__} in {where.name}, line {where.lineno}"
            return Finding(name, BAD, f"{error or 'an assertion failed'} ({at})")
    said = {str(one.message) for one in told if issubclass(one.category, UserWarning)}
    ours = [_COLOUR.sub("", text) for text in sorted(said)]
    return Finding(name, WARNING if ours else GOOD, "; ".join(ours) or "passed")


def _determinism(make: Callable[[], gymnasium.Env[str, str]]) -> Iterator[Finding]:
    name = "determinism"
    one, other = make(), make()
    try:
        first = _trace(one, 7)
        for seed in (8, 9):
            _trace(one, seed)
        for what, env in (("after other episodes", one), ("in a new environment", other)):
            again = _trace(env, 7)
            if again != first:
                said = f"seed 7 plays otherwise {what}: {_apart(first, again)}"
                if _draws_globally(make):
                    said += (
                        "\nIt is the same once Python's and NumPy's global generators are seeded: "
                        "draw from self.np_random, or put lang_agent.OwnRandomness around the world"
                    )
                yield Finding(name, BAD, said)
                return
        yield _copied(one)
    finally:
        one.close()
        other.close()


def _draws_globally(make: Callable[[], gymnasium.Env[str, str]]) -> bool:
    """Whether a seed plays the same as soon as the global generators are seeded with it."""
    env, outside = make(), (random.getstate(), np.random.get_state())
    found = []
    try:
        for before in (8, 9):
            _trace(env, before)
            random.seed(0)
            np.random.seed(0)
            found.append(_trace(env, 7))
    finally:
        random.setstate(outside[0])
        np.random.set_state(outside[1])
        env.close()
    return found[0] == found[1]


def _copied(env: gymnasium.Env[str, str]) -> Finding:
    """Whether a copy in the middle of an episode goes on as the episode does."""
    name = "determinism"
    env.reset(seed=7)
    try:
        twin = copy.deepcopy(env)
    except Exception as error:
        said = f"the same seed plays the same; it cannot be copied ({error})"
        return Finding(name, WARNING, said)
    one = _trace(env, None)
    try:
        two = _trace(twin, None)
    except Exception as error:  # as of an EzPickle, which is made anew and not reset
        said = f"the same seed plays the same; a copy of it cannot go on ({describe(error)})"
        return Finding(name, WARNING, said)
    if one != two:
        return Finding(name, WARNING, f"a copy plays otherwise: {_apart(one, two)}")
    return Finding(name, GOOD, "the same seed plays the same, after other episodes and in a copy")


def _trace(env: gymnasium.Env[str, str], seed: int | None) -> list[tuple[Any, ...]]:
    """What an episode of fixed random play is like; without a seed, what is left of this one."""
    draw = random.Random(0)
    found: list[tuple[Any, ...]] = []
    actions: Sequence[str] | None = None
    if seed is not None:
        prompt, info = env.reset(seed=seed)
        found, actions = [(prompt, info.get("actions"))], info.get("actions")
    else:
        actions = language_env(env).phrases or None
    for _ in range(60):
        prompt, reward, terminated, truncated, info = env.step(_any(actions, draw))
        found.append((prompt, reward, terminated, truncated, info.get("actions")))
        actions = info.get("actions")
        if terminated or truncated:
            break
    return found


def _apart(one: Sequence[Any], other: Sequence[Any]) -> str:
    for number, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            at = next(i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
            return f"at step {number} {shown(a[at])[-200:]} and {shown(b[at])[-200:]}"
    return f"{len(one)} and {len(other)} steps"


def _any(actions: Sequence[str] | None, draw: random.Random) -> str:
    return draw.choice(list(actions)) if actions else draw.choice(["yes", "a word or two", "no"])


def _has_expert(env: gymnasium.Env[str, str]) -> bool:
    env.reset(seed=0)
    try:
        language_env(env).expert_action(None)
    except LangAgentError:
        return False
    return True


def _some(env: gymnasium.Env[str, str], episodes: int, *, by_expert: bool) -> list[Moment]:
    """Whole episodes, as many as were asked for or as are enough."""
    found: list[Moment] = []
    for seed in range(episodes):
        found += _walk(env, seed, by_expert=by_expert)
        if len(found) >= ENOUGH:
            break
    return found


def _walk(env: gymnasium.Env[str, str], seed: int, *, by_expert: bool) -> Iterator[Moment]:
    """The steps of an episode, at random or as the expert plays."""
    draw = random.Random(seed)
    prompt, info = env.reset(seed=seed)
    said: str | None = None
    lost, before = False, ""
    for number in range(MOST_STEPS):
        expert = None
        try:
            expert = None if lost else language_env(env).expert_action(said)
        except LangAgentError:  # there is none, or it knows no more
            lost = True
        moment = Moment(seed, number, prompt, info.get("actions"), expert)
        said = expert if by_expert and expert else _any(moment.actions, draw)
        prompt, reward, terminated, truncated, info = env.step(said)
        moment.action, moment.reward, moment.info = said, float(reward), info
        moment.new, before = moment.prompt.removeprefix(before), moment.prompt
        moment.ended = terminated or truncated
        yield moment
        if moment.ended:
            return


def _has_chance(make: Callable[[], gymnasium.Env[str, str]]) -> bool:
    """Whether the same actions can lead elsewhere: tried in a copy with other random numbers."""
    env = make()
    try:
        env.reset(seed=7)
        twin = copy.deepcopy(env)
        inner: Any = twin
        while inner is not None:
            if getattr(inner, "_np_random", None) is not None:
                inner._np_random = np.random.default_rng(1)
            inner = getattr(inner, "env", None)
        return _trace(env, None) != _trace(twin, None)
    except Exception:  # it cannot be copied, which another check tells
        return False
    finally:
        env.close()


def _completeness(moments: Sequence[Moment], *, chance: bool) -> Finding:
    """Whether the prompt says all that the expert, or the reward, goes by. What differs at the same
    step counts; where the steps differ, the time that is left may be what the expert goes by."""
    name = "completeness"
    groups: dict[str, list[Moment]] = {}
    at_once: dict[tuple[str, int], list[Moment]] = {}
    for moment in moments:
        groups.setdefault(moment.prompt, []).append(moment)
        at_once.setdefault((moment.prompt, moment.number), []).append(moment)
    again = [group for group in groups.values() if len(group) > 1]
    pairs = [pair for group in again if (pair := _differing(group, chance)) is not None]
    if not again:
        return Finding(name, GOOD, f"all {len(groups)} prompts read differently")
    if not pairs:
        return Finding(name, GOOD, f"{len(again)} of {len(groups)} prompts came again, alike")
    worse = {one[0].prompt for one in at_once.values() if _differing(one, chance) is not None}
    known = f"{len(pairs)} of {len(groups)} prompts ({len(again)} came again)"
    lines = [f"{known} stand for states that differ, {len(worse)} at the same step", *pairs[:PAIRS]]
    return Finding(name, BAD if len(worse) / len(groups) > MANY else WARNING, "\n".join(lines))


def _differing(group: Sequence[Moment], chance: bool) -> str | None:
    """Two states of one prompt of which the expert's phrase differs, or (unless by chance) whether
    an action is paid for: how much it pays often falls with the time, which few prompts tell."""
    rewards: dict[str, Moment] = {}
    first = next((one for one in group if one.expert is not None), None)
    for one in group:
        if first is not None and one.expert not in (None, first.expert):
            return (
                f"the expert says {first.expert!r} (seed {first.seed}, step {first.number}) and "
                f"{one.expert!r} (seed {one.seed}, step {one.number}) to {_tail(one.prompt)}"
            )
        known = rewards.setdefault(one.action, one)
        if not chance and _sign(known.reward) != _sign(one.reward):
            return (
                f"{one.action!r} pays {known.reward:g} (seed {known.seed}, step {known.number}) "
                f"and {one.reward:g} (seed {one.seed}, step {one.number}) after {_tail(one.prompt)}"
            )
    return None


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)


def _tail(prompt: str) -> str:
    return repr(prompt if len(prompt) <= 160 else "..." + prompt[-160:])


def _lengths(
    moments: Sequence[Moment], count_tokens: Callable[[str], int], context: int
) -> Finding:
    lengths = sorted(count_tokens(moment.prompt) for moment in moments)
    said = (
        f"{lengths[0]} to {lengths[-1]} tokens, the median {lengths[len(lengths) // 2]}; "
        f"the model reads {context}"
    )
    over = sum(length > context for length in lengths)
    if over:
        said += f": {over} of {len(lengths)} prompts would be cut"
    return Finding("prompt lengths", WARNING if over else GOOD, said)


def _told_apart(moments: Sequence[Moment]) -> Finding:
    """Whether the parser reads every phrase as itself, and never as another."""
    name = "phrases"
    lists = {moment.actions for moment in moments if moment.actions is not None}
    if not lists:
        return Finding(name, GOOD, "any text is an action")
    for actions in lists:
        if not actions:
            return Finding(name, BAD, "there is a state without any admissible phrase")
        for phrase in actions:
            for text in (phrase, phrase.upper(), f"{phrase}.", f" {phrase}\n"):
                parsed = parse_action(text, actions)
                if parsed.action != phrase:
                    other = "nothing" if parsed.action is None else repr(parsed.action)
                    return Finding(
                        name,
                        BAD,
                        f"{text!r} is read as {other}, not as {phrase!r}: name them apart",
                    )
    longest = max(lists, key=len)
    return Finding(name, GOOD, f"{len(longest)} at most, and each is read as itself")


def _admissible(moments: Sequence[Moment]) -> Finding:
    """Whether what is said to be admissible is taken."""
    name = "admissible phrases"
    tried = [moment for moment in moments if moment.actions is not None]
    for moment in tried:
        if moment.info.get("invalid_action"):
            return Finding(
                name,
                BAD,
                f"{moment.action!r} was admissible and is refused (seed {moment.seed}, step "
                f"{moment.number}): {moment.info.get('reason', '')}",
            )
    changing = len({moment.actions for moment in tried}) > 1
    for moment in tried if changing else ():
        untold = [phrase for phrase in moment.actions or () if phrase not in moment.new]
        if untold:
            return Finding(
                name,
                WARNING,
                f"they change, and the prompt does not say to which: {untold[0]!r} is one (seed "
                f"{moment.seed}, step {moment.number}) that an agent which writes cannot know; add "
                "a line, or a template that lists them",
            )
    return Finding(name, GOOD, f"{len(tried)} were taken" if tried else "any text is an action")


def _succeeds_by_default(env: gymnasium.Env[str, str]) -> bool:
    inner = env.unwrapped
    return isinstance(inner, TextEnv) and inner.world.success is rewarded_at_end


def _success(played: Sequence[Moment], by_expert: Sequence[Moment], *, by_default: bool) -> Finding:
    name = "success"
    endless = sum(one.number == MOST_STEPS - 1 and not one.ended for one in played)
    if endless:
        said = f"{endless} random episodes go on after {MOST_STEPS} steps: give it a step limit"
        return Finding(name, WARNING, said)
    at_random, episodes = _rate(played)
    before = [one for one in played if not one.ended]
    paid_before = sum(one.reward > 0 for one in before)
    if by_default and paid_before > MANY * len(before):
        said = (
            f"{at_random:.2f} at random, if a positive reward at the end is one; but {paid_before} "
            f"of {len(before)} steps before the end pay, too: say World(success=...)"
        )
        return Finding(name, WARNING, said)
    if by_expert:
        skilled, _ = _rate(by_expert)
        said = f"{skilled:.2f} by the expert, {at_random:.2f} at random"
        return Finding(name, GOOD if skilled >= max(at_random, 0.5) else WARNING, said)
    if at_random:
        return Finding(name, GOOD, f"{at_random:.2f} at random; there is no expert")
    paid = any(moment.reward > 0 for moment in played)
    said = f"never seen in {episodes} random episodes, and there is no expert to try"
    return Finding(name, WARNING, said + ("" if paid else "; no reward above 0 was seen either"))


def _rate(moments: Sequence[Moment]) -> tuple[float, int]:
    """The share of the episodes that succeed, and how many there are."""
    ends = [moment for moment in moments if moment.ended]
    episodes = sum(not moment.number for moment in moments)
    return sum(bool(end.info.get("success")) for end in ends) / episodes, episodes


def _time(env: gymnasium.Env[str, str]) -> Finding:
    began, steps = time.process_time(), 0
    for seed in range(1000):
        steps += len(list(_walk_blindly(env, seed)))
        if time.process_time() - began > 0.5:
            break
    each = (time.process_time() - began) / max(steps, 1)
    return Finding("time", GOOD, f"{1000 * each:.3f} ms of processor a step, resets included")


def _walk_blindly(env: gymnasium.Env[str, str], seed: int) -> Iterator[None]:
    draw = random.Random(seed)
    _, info = env.reset(seed=seed)
    for _ in range(MOST_STEPS):
        *_, terminated, truncated, info = env.step(_any(info.get("actions"), draw))
        yield
        if terminated or truncated:
            return
