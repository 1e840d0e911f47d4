"""What training never says of the BabyAI worlds, so that tests can: the one list of it.

The suite ``language`` tests with it: nouns, colours and phrases by the wordings for testing, pairs
and the composition by the test split of MixedLocal. The wordings for training and the train split
leave it out.
"""

from __future__ import annotations

PAIRS = (("yellow", "box"), ("red", "key"), ("red", "door"), ("green", "ball"), ("grey", "door"))
"""Of a colour and a noun, which no mission of the train split names."""
COMPOSITION = "pick_up_seq_pick_up"
"""A task of the test split alone: two pickups in a row."""

NOUNS = ("table", "chair", "car")
"""In place of ball, box and key, as the invented ones."""
INVENTED_NOUNS = ("dax", "blicket", "wug")
INVENTED_COLORS = ("zarn", "mipple", "flirn", "quon", "vleck", "squibbish")
PHRASES = ("rotate left", "rotate right", "move ahead", "take", "release", "switch")
"""In place of the six phrases of MiniGrid, in their order."""
PARAPHRASES = (
    (r"go to ", ("walk over to ", "get close to ", "find ")),
    (r"pick up ", ("grab ", "lift ", "fetch ")),
    (r"open ", ("unlock ", "get open ")),
    (r"put (.*) next to (.*)", (r"bring \1 beside \2", r"set \1 down by \2")),
    (r"(.*), then (.*)", (r"first \1 and afterwards \2", r"\1 before you \2")),
    (r"(.*) after you (.*)", (r"\1 once you did this: \2", r"begin with this: \2; next, \1")),
)
"""What a mission says -> the ways to say it otherwise."""

WORDS = {
    word.strip(",:;")
    for said in (
        *NOUNS,
        *INVENTED_NOUNS,
        *INVENTED_COLORS,
        *PHRASES,
        *(way for _, ways in PARAPHRASES for way in ways),
    )
    for word in said.split()
    if not word.startswith("\\")
}
"""Every word of these, which no wording for training invents."""
