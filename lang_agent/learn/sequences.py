"""From episodes to batches of token sequences with decisions on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lang_agent.episode import Episode, Step
from lang_agent.models.phrase_scoring import Layout, lay_out
from lang_agent.models.policy import LanguagePolicy
from lang_agent.models.trie import NO_PHRASES, TokenTrie, decisions_in

BUSY = 1024  # tokens
SIMILAR = 0.75
WIDEST = 320  # tokens of a prompt with all that follows it: attention is over the whole of them


@dataclass
class Sample:
    """One token sequence and the decisions made along it, with all that learning needs of them.

    A transcript's episode is one sample (or a few, where it outgrew the context); with a window
    prompt every step is its own. Decisions on one prompt can share it: then texts follow it as
    ``branches``, and choices stand on the same column (see :func:`share_prompts`).
    """

    token_ids: list[int]
    columns: list[int] = field(default_factory=list)  # of each decision's last prompt token
    tries: list[TokenTrie] = field(default_factory=list)
    choices: list[int] = field(default_factory=list)
    written: list[list[int]] = field(default_factory=list)  # the tokens of free text, else empty
    log_probs: list[list[float]] = field(default_factory=list)
    reference: list[list[float]] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    advantages: list[list[float]] = field(default_factory=list)  # one a decision, or one a token
    returns: list[list[float]] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    """Of each decision: which episode of the rollout, and which of its steps."""
    branches: list[int] = field(
        default_factory=list
    )  # the columns where they begin, one a decision


PER_DECISION = tuple(
    item.name for item in fields(Sample) if item.name not in ("token_ids", "branches")
)


def to_samples(
    policy: LanguagePolicy,
    episodes: Sequence[Episode],
    advantages: Sequence[Sequence[list[float]]],
    returns: Sequence[Sequence[list[float]]],
    rule: str,
    *,
    imitate: bool = False,
    reference: Sequence[Sequence[Sequence[float]]] = (),
) -> list[Sample]:
    """Gather the steps that share a context into one sample each; steps with neither a choice nor
    written tokens have nothing to learn and are left out.

    ``advantages`` and ``returns`` have one number a decision, or one a token, for each episode;
    ``reference`` the reference policy's log-probabilities of each decision's tokens, if any. With
    ``imitate`` it is the expert's phrase that is learned, whatever was done.
    """
    samples = []
    for at, (episode, advantage, target) in enumerate(
        zip(episodes, advantages, returns, strict=True)
    ):
        context: list[int] | None = None
        for turn, step in enumerate(episode.steps):
            choice = expert_choice(step) if imitate else step.decision.choice
            trace = step.decision.tokens
            if trace is None or (choice is None and not trace.token_ids):
                continue
            if trace.context is not context:
                context = trace.context
                samples.append(Sample(context))
            phrases = () if trace.token_ids else step.observation.actions or ()
            trie = policy.trie(phrases, rule) if phrases else NO_PHRASES
            # One that was taught, not drawn, has no log-probabilities: it only counts its tokens.
            log_probs = [] if imitate else list(trace.log_probs)
            if not log_probs and choice is not None:
                log_probs = [0.0] * decisions_in(trie, choice)
            sample = samples[-1]
            sample.columns.append(trace.position)
            sample.tries.append(trie)
            sample.choices.append(-1 if choice is None else choice)
            sample.written.append(list(trace.token_ids))
            sample.log_probs.append(log_probs)
            sample.reference.append(list(reference[at][turn]) if reference else log_probs)
            sample.values.append(trace.value)
            sample.advantages.append(advantage[turn])
            sample.returns.append(target[turn])
            sample.places.append((at, turn))
    for sample in samples:  # what follows the last decision's last input was never read
        end = sample.columns[-1] + max(len(sample.written[-1]), 1)
        sample.token_ids = sample.token_ids[:end]
    return samples


def expert_choice(step: Step) -> int | None:
    """The index of the expert's phrase among the admissible ones; None where there is none."""
    phrases, wanted = step.observation.actions or (), step.observation.expert
    return phrases.index(wanted) if wanted in phrases else None


ByPlace = dict[tuple[int, int], list[float]]
"""Numbers of decisions' tokens, by which episode of the rollout and which of its steps."""


def unpadded(samples: Sequence[Sample], rows: Tensor) -> ByPlace:
    """The rows of (D, L), as :func:`collate` pads them, by the places of their decisions."""
    places = [place for sample in samples for place in sample.places]
    lengths = [len(entries) for sample in samples for entries in sample.log_probs]
    return {
        place: row[:length]
        for place, row, length in zip(places, rows.tolist(), lengths, strict=True)
    }


def by_step(episodes: Sequence[Episode], found: ByPlace) -> list[list[list[float]]]:
    """What was found, for every step of every episode; nothing where a step has none."""
    return [
        [found.get((at, turn), []) for turn in range(len(episode.steps))]
        for at, episode in enumerate(episodes)
    ]


def decisions_of(samples: Sequence[Sample]) -> int:
    """How many decisions the samples have."""
    return sum(len(sample.columns) for sample in samples)


def tokens_weight(samples: Sequence[Sample]) -> float:
    """What a token weighs where the samples' tokens together weigh as much as their decisions."""
    tokens = sum(len(entries) for sample in samples for entries in sample.log_probs)
    return decisions_of(samples) / max(tokens, 1)


def minibatches(
    samples: Sequence[Sample], decisions: int, generator: torch.Generator
) -> Iterator[list[Sample]]:
    """Random parts of about ``decisions`` decisions each; a small remainder joins the last."""
    order = torch.randperm(len(samples), generator=generator).tolist()
    left = decisions_of(samples)
    batch: list[Sample] = []
    size = 0
    for index in order:
        batch.append(samples[index])
        size += len(samples[index].columns)
        if size >= decisions and left - size >= decisions // 2:
            left -= size
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def deal(samples: Sequence[Sample], parts: int, generator: torch.Generator) -> list[list[Sample]]:
    """All samples in random order, dealt out to so many parts."""
    order = torch.randperm(len(samples), generator=generator).tolist()
    return [[samples[at] for at in order[part::parts]] for part in range(parts)]


def share_prompts(samples: Sequence[Sample]) -> list[Sample]:
    """What is decided after the same prompt in one sample, so that it is read once: texts as its
    branches, choices among phrases as decisions on the same token, without what was answered."""
    shared: list[Sample] = []
    open_for: dict[tuple[bool, tuple[int, ...]], Sample] = {}  # the sample a prompt is read in
    for sample in samples:
        if len(sample.columns) != 1:
            shared.append(sample)
            continue
        writes, end = bool(sample.written[0]), sample.columns[0] + 1
        prompt, text = tuple(sample.token_ids[:end]), sample.token_ids[end:] if writes else []
        more = len(text) + len(sample.tries[0].tokens)
        whole = open_for.get((writes, prompt))
        if whole is None or (more and _width(whole) + more > WIDEST):
            whole = open_for[writes, prompt] = Sample(list(prompt))
            shared.append(whole)
        if writes:
            whole.branches.append(len(whole.token_ids))
            whole.token_ids += text
        for name in PER_DECISION:
            getattr(whole, name).extend(getattr(sample, name))
    return shared


def _width(sample: Sample) -> int:
    """The tokens of a sample's row, with its tries' inner nodes."""
    return len(sample.token_ids) + sum(len(trie.tokens) for trie in sample.tries)


def by_length(samples: Sequence[Sample], max_tokens: int) -> Iterator[list[Sample]]:
    """Samples of similar length together, at most ``max_tokens`` a batch, padding included; what is
    decided after the same prompt shares it.

    A batch that has enough tokens to keep the processor busy takes none of less than
    ``SIMILAR`` times its longest sample's length.
    """
    batch: list[Sample] = []
    for sample in sorted(share_prompts(samples), key=lambda sample: -len(sample.token_ids)):
        longest = len(batch[0].token_ids) if batch else 0
        busy = longest * len(batch) >= BUSY
        if longest * (len(batch) + 1) > max_tokens or (
            busy and len(sample.token_ids) < SIMILAR * longest
        ):
            if batch:
                yield batch
            batch = []
        batch.append(sample)
    if batch:
        yield batch


@dataclass(frozen=True, eq=False)
class Batch:
    """B sequences with D decisions of up to L tokens each on them, as tensors."""

    layout: Layout
    tries: list[TokenTrie]  # D
    choices: Tensor  # (D,) int64, of a phrase
    written: Tensor  # (D, L) int64 tokens of free text; (D, 0) where phrases are chosen
    written_after: Tensor  # (D, L) int64: the column after which each of them was written
    mask: Tensor  # (D, L) bool: which tokens a decision has
    log_probs: Tensor  # (D, L) of the policy that acted
    reference: Tensor  # (D, L) of the reference policy
    values: Tensor  # (D,) of the policy that acted
    advantages: Tensor  # (D, 1), or (D, L) where tokens have their own
    returns: Tensor  # likewise

    def __len__(self) -> int:
        return len(self.tries)


def collate(samples: Sequence[Sample], device: torch.device) -> Batch:
    """Samples as one :class:`Batch`."""

    def flat(name: str) -> list[Any]:
        return [value for sample in samples for value in getattr(sample, name)]

    log_probs, mask = _padded(flat("log_probs"), torch.float32)
    columns = flat("columns")
    after = np.array([start for sample in samples for start in _starts(sample)])[:, None] - 1
    after = after + np.arange(mask.shape[1])
    after[:, 0] = columns
    return Batch(
        layout=lay_out(
            [sample.token_ids for sample in samples],
            [0] * len(samples),
            [sample.columns for sample in samples],
            [sample.tries for sample in samples],
            device,
            [sample.branches for sample in samples],
        ),
        tries=flat("tries"),
        choices=torch.tensor(flat("choices"), dtype=torch.int64, device=device),
        written=_padded(flat("written"), torch.int64)[0].to(device),
        written_after=torch.from_numpy(after * mask.numpy()).to(device),
        mask=mask.to(device),
        log_probs=log_probs.to(device),
        reference=_padded(flat("reference"), torch.float32)[0].to(device),
        values=torch.tensor(flat("values"), dtype=torch.float32, device=device),
        advantages=_padded(flat("advantages"), torch.float32)[0].to(device),
        returns=_padded(flat("returns"), torch.float32)[0].to(device),
    )


def _starts(sample: Sample) -> list[int]:
    """The columns at which what follows each decision begins."""
    return sample.branches or [column + 1 for column in sample.columns]


def _padded(lists: Sequence[Sequence[float]], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Ragged lists as (D, L), 0 where padded, and the mask of what is not."""
    lengths = np.array([len(entries) for entries in lists])
    mask = torch.from_numpy(np.arange(lengths.max()) < lengths[:, None])
    out = torch.zeros(mask.shape, dtype=dtype)
    out[mask] = torch.tensor([value for entries in lists for value in entries], dtype=dtype)
    return out, mask
