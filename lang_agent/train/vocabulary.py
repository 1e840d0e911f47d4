"""What there is to read in an environment, for a tokenizer to be trained on."""

from __future__ import annotations

import math
import random
import time
from collections import Counter
from collections.abc import Sequence, Set

import gymnasium

from lang_agent.errors import LangAgentError
from lang_agent.language_env import language_env
from lang_agent.models.tokenizer import BORDER, letters_in
from lang_agent.seeding import EVALUATION_SEED, derive

STEPS = 6000  # that tell an environment's words
STEPS_READ = 16  # of an episode: its first ones differ most from other episodes
RARE = 0.01  # of an environment's episodes: what fewer have was invented for them


def sample_texts(
    envs: Sequence[gymnasium.Env[str, str]],
    steps: int = STEPS,
    seed: int = 0,
    seconds: float = math.inf,
) -> list[str]:
    """What there is to read in some environments: every different line that random play meets.

    A line counts once however often it was met, so that merges pay for what different lines
    share (a colour and a noun, a distance), not for whole lines that random play repeats. The
    phrases, and lines that most episodes have (a fixed goal, the cue before a phrase), count
    often, so that they become a token each, or a few. Where a wording renames things, what has
    a word that hardly an episode of an environment has is left out.

    ``seconds`` bounds the processor time where the texts need not be the same again, since a slow
    environment takes minutes for so many steps.
    """
    until = time.process_time() + seconds
    draw = random.Random(derive(seed, "vocabulary"))
    lines: Counter[str] = Counter()  # in how many episodes
    known: set[str] = set()
    phrases: set[str] = set()
    episodes = 0
    for env in envs:
        left, before = max(steps // len(envs), 1), episodes
        words: Counter[str] = Counter()  # in how many of its episodes
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
        rare = RARE * (episodes - before)
        known |= {word for word, count in words.items() if count > rare}
    if any(language_env(env).renamed_words for env in envs):
        parts: Counter[str] = Counter()
        for line, count in lines.items():
            parts.update(dict.fromkeys(_known_parts(line, known), count))
        lines = parts
        phrases = {phrase for phrase in phrases if known >= {*letters_in(phrase)}}
    often = [f" {phrase}" for phrase in sorted(phrases)]
    often += [line for line in sorted(lines) if lines[line] > episodes / 2]
    return sorted(lines) + often * max(len(lines), 100)


def _known_parts(line: str, known: Set[str]) -> list[str]:
    """A line; or, where it has unknown words, those of its pieces that have none."""
    parts = [line] if known >= {*letters_in(line)} else BORDER.split(line)
    return [part for part in parts if part.strip() and known >= {*letters_in(part)}]


def _lines(text: str) -> list[str]:
    """The text cut before each newline."""
    first, *rest = text.split("\n")
    return [first, *(f"\n{line}" for line in rest)]
