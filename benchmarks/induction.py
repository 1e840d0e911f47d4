"""What the induction heads of a new model are worth, on made-up lists.

    python benchmarks/induction.py                # with them
    python benchmarks/induction.py --plain        # from noise, positions as sinusoids

Six things, each "colour noun place"; then the colour and noun of one of them; then which of three
answers goes with its place. Averaging over the six places gives an accuracy of about a half.
"""

from __future__ import annotations

import argparse
import math

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from lang_agent.induction import start_with_induction
from lang_agent.models import FINAL_GAIN, SIZES

COLORS, NOUNS, PLACES, ANSWERS, THINGS = 6, 3, 40, 3, 6
FIRST_PLACE = COLORS + NOUNS
FIRST_ANSWER = FIRST_PLACE + PLACES
SEE, GOAL, COLON = range(FIRST_ANSWER + ANSWERS, FIRST_ANSWER + ANSWERS + 3)
BATCH = 128


def examples(answer_of: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(B, 23) tokens and (B,) which answer is right."""

    def draw(count: int) -> Tensor:
        return torch.rand(BATCH, count, generator=generator).argsort(1)[:, :THINGS]

    kinds, places = draw(COLORS * NOUNS), draw(PLACES)
    colors, nouns = kinds % COLORS, COLORS + kinds // COLORS
    things = torch.stack([colors, nouns, FIRST_PLACE + places], dim=2).flatten(1)
    wanted = torch.randint(THINGS, (BATCH, 1), generator=generator)
    goal = [part.gather(1, wanted) for part in (colors, nouns)]
    see, cue, colon = (torch.full((BATCH, 1), token) for token in (SEE, GOAL, COLON))
    tokens = torch.cat([see, things, cue, *goal, colon], dim=1)
    return tokens, answer_of[places.gather(1, wanted)].squeeze(1)


def new_model(seed: int, plain: bool) -> GPT2LMHeadModel:
    """``nano``'s shape, as :func:`lang_agent.models.new_gpt2` makes it but for the vocabulary."""
    shape = SIZES["nano"]
    config = GPT2Config(
        vocab_size=COLON + 1,
        n_positions=64,
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
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    generator = torch.Generator().manual_seed(args.seed)
    answer_of = torch.randint(ANSWERS, (PLACES,), generator=generator)
    model = new_model(args.seed, args.plain)
    matrices = {weight for weight in model.transformer.h.parameters() if weight.ndim == 2}
    others = [weight for weight in model.parameters() if weight not in matrices]
    optimizers = [  # as lang_agent.optimizer has them
        torch.optim.Muon(list(matrices), lr=2e-3, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=2e-3, weight_decay=0.0),
    ]
    right: list[float] = []
    for step in range(1, args.steps + 1):
        tokens, answers = examples(answer_of, generator)
        last = model.transformer(tokens).last_hidden_state[:, -1]
        scores = model.lm_head(last)[:, FIRST_ANSWER : FIRST_ANSWER + ANSWERS]
        torch.nn.functional.cross_entropy(scores, answers).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        right.append((scores.argmax(1) == answers).float().mean().item())
        if step % 25 == 0:
            print(f"{step * BATCH:6} examples: accuracy {sum(right[-25:]) / 25:.3f}", flush=True)


if __name__ == "__main__":
    main()
