"""A small corpus of our own: diary sentences of mixed mood, for `lang-agent pretrain`.

python recipes/diary.py 20000 > diary.txt
python recipes/diary.py 500 --beginnings > beginnings.txt    # prompts to go on from
"""

from __future__ import annotations

import argparse
import random

OPENINGS = (
    "Today I", "After the long journey we", "The children", "On the way to work I", "My neighbour",
    "In the kitchen my sister", "Yesterday evening we", "At the market the old man",
)  # fmt: skip
DID = (
    "found a {adjective} {thing} near the {place}",
    "talked about the {adjective} {thing} for an hour",
    "carried the {thing} back to the {place}",
    "waited at the {place} and felt {mood}",
    "lost the {thing} and was {mood}",
    "cooked a {adjective} dinner for everyone",
    "saw the {adjective} {place} and was {mood}",
    "forgot the {thing} at the {place}",
    "painted the {thing} and it looked {adjective}",
    "heard {adjective} news about the {place}",
)
MORE = (
    "and the weather was {adjective}",
    "but nobody was {mood}",
    "because the {thing} was {adjective}",
    "while the {place} stayed {adjective}",
    "and everyone was {mood}",
    "so the evening was {adjective}",
)
ADJECTIVES = (
    "wonderful", "lovely", "great", "beautiful", "perfect", "terrible", "awful", "ugly", "horrible",
    "sad", "small", "green", "wooden", "ordinary", "long", "quiet", "heavy", "old", "strange",
)  # fmt: skip
MOODS = (
    "happy", "glad", "delighted", "proud", "angry", "miserable", "afraid", "tired", "awake", "calm",
    "hungry", "ready",
)  # fmt: skip
THINGS = ("letter", "lamp", "basket", "bicycle", "table", "clock", "coat", "garden", "song", "book")
PLACES = ("river", "station", "market", "house", "bridge", "school", "forest", "harbour")


def beginning(draw: random.Random) -> str:
    """Who did what."""
    return f"{draw.choice(OPENINGS)} {_filled(draw.choice(DID), draw)}"


def sentence(draw: random.Random) -> str:
    """One line of the diary."""
    clauses = [beginning(draw)]
    while len(clauses) < 3 and draw.random() < 0.6:
        clauses.append(_filled(draw.choice(MORE), draw))
    return f"{' '.join(clauses)}."


def _filled(clause: str, draw: random.Random) -> str:
    return clause.format(
        adjective=draw.choice(ADJECTIVES),
        mood=draw.choice(MOODS),
        thing=draw.choice(THINGS),
        place=draw.choice(PLACES),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("count", type=int, nargs="?", default=20000)
    parser.add_argument("--beginnings", action="store_true")
    args = parser.parse_args()
    draw = random.Random(1 if args.beginnings else 0)
    for _ in range(args.count):
        print((beginning if args.beginnings else sentence)(draw))
