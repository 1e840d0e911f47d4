"""Independent streams of random numbers from one seed.

Two generators that are seeded with the same integer draw the same numbers, so what they decide is
one decision: which part of a mixture is played would tell where its agent starts. Whoever draws
for a purpose of its own takes a seed derived by name instead.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np

EVALUATION_SEED = 1_000_000_000
"""The first seed of evaluation; training draws its seeds below it."""


def derive(seed: int, *names: str | int) -> int:
    """The seed of the stream called ``names`` under ``seed``: an integer in [0, 2**63).

    The same arguments give the same integer in every process and on every platform; different ones
    give independent streams (NumPy's ``SeedSequence``, after O'Neill 2015, with a hash of the names
    as its spawn key). NumPy's and torch's generators both take the result.

    Raises:
        ValueError: a negative seed.
    """
    plain = [name if isinstance(name, str) else int(name) for name in names]
    digest = hashlib.sha256(json.dumps(plain).encode()).digest()
    key = np.frombuffer(digest[:16], dtype="<u4").tolist()
    sequence = np.random.SeedSequence(int(seed), spawn_key=key)
    return int(sequence.generate_state(1, np.uint64)[0]) >> 1
