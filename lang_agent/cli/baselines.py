"""What the benchmark compares with: the same work done the straightforward ways.

Everything here is float32 and transformers' defaults, as the published code is: GPT-2's activation
in separate operations, and logits over the whole vocabulary wherever the model gives them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from lang_agent.episode import Agent, Decision, TextObservation, TokenTrace
from lang_agent.models.policy import LanguagePolicy

ROWS = 16  # sequences in one forward pass


def as_published(policy: LanguagePolicy) -> GPT2LMHeadModel:
    """A copy of the policy's GPT-2 with transformers' default activation, in evaluation mode."""
    config = GPT2Config.from_dict(policy.model.config.to_dict())
    if config.activation_function == "gelu_pytorch_tanh":
        config.activation_function = "gelu_new"
    model = GPT2LMHeadModel(config)
    model.load_state_dict(policy.model.state_dict())
    return nn.Module.to(model, policy.device).eval()


def score_each(
    model: GPT2LMHeadModel, prompts: Sequence[Sequence[int]], phrases: Sequence[Sequence[int]]
) -> Tensor:
    """(B, A) log-policy with every prompt and phrase a full sequence of its own (what lamorel does
    by default)."""
    rows = [[*prompt, *phrase] for prompt in prompts for phrase in phrases]
    starts = [len(prompt) for prompt in prompts for _ in phrases]
    scores = []
    for first in range(0, len(rows), ROWS):
        part = rows[first : first + ROWS]
        ids, mask = _padded(part, model.device)
        logits = model(input_ids=ids, attention_mask=mask).logits
        log_probs = torch.log_softmax(logits, dim=-1)
        for at, row in enumerate(part):
            start = starts[first + at]
            target = ids[at, start : len(row)]
            scores.append(log_probs[at, start - 1 : len(row) - 1].gather(1, target[:, None]).sum())
    return torch.stack(scores).view(len(prompts), len(phrases)).log_softmax(-1)


def score_cached(
    model: GPT2LMHeadModel, prompts: Sequence[Sequence[int]], phrases: Sequence[Sequence[int]]
) -> Tensor:
    """(B, A) log-policy with each prompt encoded once and its phrases as rows on its keys and
    values (lamorel's cached mode)."""
    scores = torch.zeros(len(prompts), len(phrases), device=model.device)
    for begin in range(0, len(prompts), ROWS):
        part = prompts[begin : begin + ROWS]
        ids, mask = _padded(part, model.device)
        output = model(input_ids=ids, attention_mask=mask, use_cache=True)
        lengths = mask.sum(1)
        first = output.logits[torch.arange(len(part)), lengths - 1].log_softmax(-1)
        cache = output.past_key_values
        cache.batch_repeat_interleave(len(phrases))
        rows, row_mask = _padded([phrase for _ in part for phrase in phrases], model.device)
        positions = lengths.repeat_interleave(len(phrases))[:, None] + torch.arange(
            rows.shape[1], device=model.device
        )
        everything = torch.cat((mask.repeat_interleave(len(phrases), 0), row_mask), dim=1)
        logits = model(
            input_ids=rows, attention_mask=everything, position_ids=positions, past_key_values=cache
        ).logits.log_softmax(-1)
        later = logits[:, :-1].gather(2, rows[:, 1:, None]).squeeze(2) * row_mask[:, 1:]
        heads = torch.tensor([phrase[0] for phrase in phrases])
        scores[begin : begin + ROWS] = first[:, heads]
        scores[begin : begin + ROWS] += later.sum(1).view(len(part), len(phrases))
    return scores.log_softmax(-1)


def _padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token rows padded on the right, and the mask of what is not padding."""
    width = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids.to(device), mask.to(device)


class EachPhraseAgent(Agent):
    """Acts by :func:`score_each` on the whole prompt at every step, and remembers nothing."""

    def __init__(self, policy: LanguagePolicy, model: GPT2LMHeadModel, seed: int = 0) -> None:
        self.policy, self.model = policy, model
        self.generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        rows = [self.policy.encode_prompt(seen.prompt) for seen in observations]
        actions = observations[0].actions or ()
        log_policy = score_each(self.model, rows, [self.policy.encode_action(a) for a in actions])
        log_policy = log_policy.cpu()
        choices = torch.multinomial(log_policy.exp(), 1, generator=self.generator)
        log_probs = log_policy.gather(1, choices).tolist()
        return [
            Decision(
                actions[choice],
                choice,
                TokenTrace(
                    [*row, *self.policy.encode_action(actions[choice])],
                    len(row) - 1,
                    log_probs=log_prob,
                ),
            )
            for row, choice, log_prob in zip(rows, choices[:, 0].tolist(), log_probs, strict=True)
        ]
