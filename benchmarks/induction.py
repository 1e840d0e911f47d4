"""What the induction heads of a new model are worth, on made-up lists.

    python benchmarks/induction.py                # with them
    python benchmarks/induction.py --plain        # from noise, positions as sinusoids
    python benchmarks/induction.py --spelled      # colours and nouns of several tokens

Six things, each "colour noun place,"; then the colour and noun of one of them; then which of three
answers goes with its place. Averaging over the six places gives an accuracy of about a half. With
``--spelled`` half of an example's colours and nouns are spelled with one to three tokens, drawn for
it alone, and accuracy is also given for words all spelled with tokens that are never trained on.
"""

from __future__ import annotations

import argparse
import math
import random
from itertools import chain

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from lang_agent.models.gpt2 import FINAL_GAIN, SIZES
from lang_agent.models.induction import start_with_induction

COLORS, NOUNS, PLACES, ANSWERS, THINGS = 6, 3, 40, 3, 6
FIRST_PLACE = COLORS + NOUNS
FIRST_ANSWER = FIRST_PLACE + PLACES
SEE, GOAL, COLON, COMMA = range(FIRST_ANSWER + ANSWERS, FIRST_ANSWER + ANSWERS + 4)
LETTERS = range(COMMA + 1, COMMA + 61)
UNMET = range(COMMA + 61, COMMA + 81)  # letters of the test
BATCH = 64


def examples(answer_of: list[int], draw: random.Random, spelled: str) -> tuple[Tensor, ...]:
    """(B, T) tokens, padded; (B,) where each ends; (B,) which answer is right.

    ``spelled``: no, half (of the colours and nouns) or unmet (all of them, in unmet letters).
    """

    def word(known: int) -> list[int]:
        if spelled == "no" or (spelled == "half" and draw.random() < 0.5):
            return [known]
        if spelled == "half":
            return draw.choices(LETTERS, k=draw.randint(1, 3))
        return draw.choices(UNMET, k=draw.randint(2, 3))

    rows, answers = [], []
    for _ in range(BATCH):
        colors = [word(color) for color in range(COLORS)]
        nouns = [word(COLORS + noun) for noun in range(NOUNS)]
        kinds = [[*color, *noun] for color in colors for noun in nouns]
        things, places = draw.sample(kinds, THINGS), draw.sample(range(PLACES), THINGS)
        seen = [[*kind, FIRST_PLACE + at, COMMA] for kind, at in zip(things, places, strict=True)]
        wanted = draw.randrange(THINGS)
        rows.append([SEE, *chain(*seen), GOAL, *things[wanted], COLON])
        answers.append(answer_of[places[wanted]])
    ends = [len(row) - 1 for row in rows]
    padded = [row + [COMMA] * (max(ends) + 1 - len(row)) for row in rows]
    return torch.tensor(padded), torch.tensor(ends), torch.tensor(answers)


def new_model(seed: int, plain: bool) -> GPT2LMHeadModel:
    """``nano``'s shape, as :func:`lang_agent.models.gpt2.new_gpt2` has it, but for the words."""
    shape = SIZES["nano"]
    config = GPT2Config(
        vocab_size=UNMET.stop,
        n_positions=96,
        n_embd=shape.width,
        n_layer=shape.layers,
        n_head=shape.heads,
        initializer_range=shape.width**-0.5,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(seed)
    model = GPT2LMHeadModel(config)
    torch.nn.init.constant_(model.transformer.ln_f.weight, FINAL_GAIN)
    if plain:
        rates = torch.exp(-torch.arange(0, shape.width, 2) / shape.width * math.log(10000.0))
        waves = torch.arange(config.n_positions)[:, None] * rates
        circles = torch.stack([waves.sin(), waves.cos()], dim=2).flatten(1)
        model.transformer.wpe.weight.data = circles * config.initializer_range * 2**0.5
    else:
        start_with_induction(model)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--spelled", action="store_true")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    draw = random.Random(args.seed)
    answer_of = draw.choices(range(ANSWERS), k=PLACES)
    model = new_model(args.seed, args.plain)
    matrices = {weight for weight in model.transformer.h.parameters() if weight.ndim == 2}
    others = [weight for weight in model.parameters() if weight not in matrices]
    optimizers = [  # as lang_agent.learn.optimizer has them
        torch.optim.Muon(list(matrices), lr=2e-3, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=2e-3, weight_decay=0.0),
    ]

    def scores(tokens: Tensor, ends: Tensor) -> Tensor:
        last = model.transformer(tokens).last_hidden_state[torch.arange(BATCH), ends]
        return model.lm_head(last)[:, FIRST_ANSWER : FIRST_ANSWER + ANSWERS]

    def accuracy(found: Tensor, answers: Tensor) -> float:
        return (found.argmax(1) == answers).float().mean().item()

    right: list[float] = []
    for step in range(1, args.steps + 1):
        tokens, ends, answers = examples(answer_of, draw, "half" if args.spelled else "no")
        found = scores(tokens, ends)
        torch.nn.functional.cross_entropy(found, answers).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        right.append(accuracy(found, answers))
        if step % 50 == 0:
            report = f"{step * BATCH:6} examples: accuracy {sum(right[-50:]) / 50:.3f}"
            if args.spelled:
                with torch.no_grad():
                    unmet = [examples(answer_of, draw, "unmet") for _ in range(6)]
                    tested = [accuracy(scores(*test[:2]), test[2]) for test in unmet]
                report += f", on words never met {sum(tested) / 6:.3f}"
            print(report, flush=True)


if __name__ == "__main__":
    main()
