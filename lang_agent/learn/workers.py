"""Several processes that learn one policy together: data parallelism.

Every worker holds the policy, whole or its part of it, and, once they are played, all episodes of a
rollout. So credit,
statistics and minibatches are computed by each of them alike, as by one process alone, and nothing
but what takes long is shared out: the episodes that are played, and the passes through the model,
whose gradients are then added up. A decision weighs the same wherever it was played, and one that
learns nothing but waits for the others does not bias anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lang_agent.learn.sequences import Sample, by_length, share_prompts


@dataclass(frozen=True)
class Workers:
    """The workers of a run as one of them sees them, in torch's default process group; by default
    one, alone, for whom nothing changes."""

    rank: int = 0
    size: int = 1
    shards: bool = False
    """Whether the policy's weights are shared out among them (:mod:`lang_agent.models.sharding`)"""

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes, prints and says what is done next."""
        return self.rank == 0

    def share(self, samples: Sequence[Sample]) -> list[Sample]:
        """This worker's part of the samples, about as many tokens as every other's."""
        return self._share_of(self.rank, samples)

    def _share_of(self, rank: int, samples: Sequence[Sample]) -> list[Sample]:
        if self.size == 1:
            return list(samples)
        return [samples[at] for at in self._dealt(rank, [len(one.token_ids) for one in samples])]

    def _dealt(self, rank: int, costs: Sequence[float]) -> list[int]:
        """The places of those that a worker takes of things that cost so much."""
        order = sorted(range(len(costs)), key=lambda at: -costs[at])
        turn = [*range(self.size), *reversed(range(self.size))]  # there and back: the dearest first
        return sorted(at for k, at in enumerate(order) if turn[k % len(turn)] == rank)

    def batches(
        self, samples: Sequence[Sample], max_tokens: int
    ) -> list[tuple[list[Sample], bool]]:
        """This worker's part of the samples in batches of at most ``max_tokens``, and whether each
        counts: where every pass takes all workers, one with fewer batches than another reads a
        sample again, for nothing. What is decided after the same prompt shares it, and so has one
        worker."""
        samples = share_prompts(samples)
        mine = [(batch, True) for batch in by_length(self.share(samples), max_tokens)]
        if not self.shards or not samples:
            return mine
        shares = [self._share_of(rank, samples) for rank in range(self.size)]
        most = max(len(list(by_length(share, max_tokens))) for share in shares)
        shortest = min(samples, key=lambda sample: len(sample.token_ids))
        return mine + [([shortest], False)] * (most - len(mine))

    def gather(self, mine: Any) -> list[Any]:
        """What every worker has, in their order."""
        if self.size == 1:
            return [mine]
        everybodys: list[Any] = [None] * self.size
        dist.all_gather_object(everybodys, mine)
        return everybodys

    def merge(self, mine: dict[Any, Any]) -> dict[Any, Any]:
        """One dictionary out of everybody's."""
        return {key: value for one in self.gather(mine) for key, value in one.items()}

    def say(self, what: Any = None) -> Any:
        """What the first worker says, which all others wait for."""
        if self.size == 1:
            return what
        said = [what]
        dist.broadcast_object_list(said, src=0)
        return said[0]

    def sum(self, values: Tensor) -> Tensor:
        """The sum of everybody's ``values``, of any shape, which are overwritten."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def each(
        self, work: Callable[[Tensor], Tensor], matrices: Iterable[Tensor]
    ) -> Iterator[Tensor]:
        """What ``work`` makes of each matrix, of its shape: one worker does it and all have it,
        where it takes longer than to hand it on. Everybody's matrices are the same."""
        if self.size == 1 or self.shards:
            yield from map(work, matrices)
            return
        whole = list(matrices)
        if not whole:
            return
        mine = set(self._dealt(self.rank, [one.numel() * min(one.shape) for one in whole]))
        done = [work(one) if at in mine else torch.zeros_like(one) for at, one in enumerate(whole)]
        flat = self.sum(torch.cat([one.flatten().float() for one in done]))
        for one, part in zip(whole, flat.split([one.numel() for one in whole]), strict=True):
            yield part.view_as(one)

    def sum_numbers(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """The sum of everybody's numbers, by name; one that has none of a name adds nothing."""
        found: dict[str, float] = {}
        for one in self.gather(dict(numbers)):
            for name, value in one.items():
                found[name] = found.get(name, 0.0) + value
        return found

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace the gradients by the sum of everybody's; those of weights that are shared out
        are that already. A parameter that nobody's loss depends
        on keeps none, since an optimizer passes over it and not over one whose gradient is 0."""
        if self.size == 1 or self.shards:
            return
        learned = [parameter for parameter in parameters if parameter.requires_grad]
        flat = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).flatten().float() for p in learned]
            + [
                torch.tensor(
                    [p.grad is not None for p in learned], device=learned[0].device
                ).float()
            ]
        )
        dist.all_reduce(flat)
        *gradients, known = flat.split([*(p.numel() for p in learned), len(learned)])
        for parameter, gradient, count in zip(learned, gradients, known.tolist(), strict=True):
            parameter.grad = gradient.view_as(parameter).to(parameter.dtype) if count else None


ALONE = Workers()
