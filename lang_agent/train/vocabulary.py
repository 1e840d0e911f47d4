"""What there is to read in an environment, for a tokenizer to be trained on."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Sequence

import gymnasium

from lang_agent.errors import LangAgentError
from lang_agent.language_env import language_env
from lang_agent.models.tokenizer import letters_in
from lang_agent.seeding import EVALUATION_SEED, derive

STEPS_READ = 16  # of an episode: its first ones differ most from other episodes
RARE = 0.02  # of the episodes: what fewer have was invented for them


def sample_texts(
    envs: Sequence[gymnasium.Env[str, str]],
    steps: int = 6000,
    seed: int = 0,
    seconds: float = math.inf,
) -> list[str]:
    """What there is to read in some environments: every different line that random play meets.

    A line counts once however often it was met, so that merges pay for what different lines
    share (a colour and a noun, a distance), not for whole lines that random play repeats. The
    phrases, and lines that most episodes have (a fixed goal, the cue before a phrase), count
    often, so that they become a token each, or a few. Where a wording renames things, lines
    with a word that hardly an episode has are left out.

    ``seconds`` bounds the processor time where the texts need not be the same again, since a slow
    environment takes minutes for so many steps.
    """
    until = time.process_time() + seconds
    draw = random.Random(derive(seed, "vocabulary"))
    lines: Counter[str] = Counter()  # in how many episodes
    words: Counter[str] = Counter()  # as well
    phrases: set[str] = set()
    episodes = 0
    for env in envs:
        left = max(steps // len(envs), 1)
        while left > 0 and (not episodes or time.process_time() < until):
            text, info = env.reset(seed=draw.randrange(EVALUATION_SEED))
            if info["actions"] is None:
                raise LangAgentError(
                    "This environment takes free text, which random weights cannot write: name a "
                    "model that does (`lang-agent pretrain` makes one) and use --decide generate."
                )
            read = set(_lines(text))
            phrases |= set(info["actions"])
            for _ in range(min(STEPS_READ, left)):
                text, _, terminated, truncated, info = env.step(draw.choice(info["actions"]))
                read |= set(_lines(text))
                phrases |= set(info["actions"])
                left -= 1
                if terminated or truncated:
                    break
            lines.update(read)
            words.update({word for line in (*read, *info["actions"]) for word in letters_in(line)})
            episodes += 1
    if any(language_env(env).renamed_words for env in envs):
        known = {word for word, count in words.items() if count > RARE * episodes}
        lines = Counter(
            {line: n for line, n in lines.items() if known.issuperset(letters_in(line))}
        )
        phrases = {phrase for phrase in phrases if known >= {*letters_in(phrase)}}
    often = [f" {phrase}" for phrase in sorted(phrases)]
    often += [line for line in sorted(lines) if lines[line] > episodes / 2]
    return sorted(lines) + often * max(len(lines), 100)


def _lines(text: str) -> list[str]:
    """The text cut before each newline."""
    first, *rest = text.split("\n")
    return [first, *(f"\n{line}" for line in rest)]
