"""A policy whose weights are shared out among processes: a model larger than one device.

Every process keeps its part of each weight, and so of each gradient and of the optimizer's state
(ZeRO's third stage: Rajbhandari et al. 2020, arXiv 1910.02054; torch's FSDP2, as Zhao et al. 2023,
arXiv 2304.11277, sec. 3). A layer's weights are gathered from all when it computes and dropped when
it has; those outside the layers (embeddings, the head, the value head) stay gathered from a pass to
the end of its backward pass, since scores read rows of the head after the pass.

A gathering takes all processes at once, so all must make as many passes. While a policy learns they
know how many that are. While it acts nobody does, because episodes differ in length: a process that
has played its share makes empty passes until the last has played its own. Gathering the whole model
for every rollout instead would be faster, and would ask every device for room for all of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from lang_agent.errors import LangAgentError
from lang_agent.models.architecture import layers_of
from lang_agent.models.phrase_scoring import lay_out
from lang_agent.models.trie import NO_PHRASES

if TYPE_CHECKING:
    from lang_agent.models.policy import LanguagePolicy


class Shards:
    """What a policy knows of its weights being shared out (:func:`shard`)."""

    def __init__(self, policy: LanguagePolicy) -> None:
        self.parameters = list(policy.parameters())
        """This process's parts, also while whole weights stand in the model."""
        self.acting = self.learning = False

    def before_pass(self) -> None:
        """Called before every pass of the model."""
        if self.acting:
            self.anyone(True)
        elif not self.learning:
            raise LangAgentError(
                "The model's weights are shared out among a run's workers, who make every pass "
                "together: load the run's checkpoint into a policy of your own for other passes."
            )

    def anyone(self, mine: bool) -> bool:
        """Whether any process has a pass to make; all are asked at once."""
        wanted = torch.tensor(float(mine))
        dist.all_reduce(wanted)
        return wanted.item() > 0


def shard(policy: LanguagePolicy, device: torch.device) -> None:
    """Share the policy's weights out among torch's default process group, in which all have the
    same ones, and put this process's part on ``device``."""
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    parts = [*layers_of(policy.model), policy]
    for part in parts:
        fully_shard(part, mesh=mesh)
    for part in parts:
        assert isinstance(part, FSDPModule)
        part.set_gradient_divide_factor(1.0)  # losses are divided by all decisions already
        part.set_force_sum_reduction_for_comms(True)  # gloo knows no other
    register_fsdp_forward_method(policy, "read")
    # Hidden states are a view of GPT-2's, which nobody writes into.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
    policy.forget_copies()
    policy.shards = Shards(policy)


@contextmanager
def acting(policy: LanguagePolicy) -> Iterator[None]:
    """While the policy acts here, in any number of passes, and elsewhere in any other. Where
    weights are whole nothing changes."""
    shards = policy.shards
    if shards is None:
        yield
        return
    shards.acting, failure = True, None
    try:
        yield
    except Exception as error:  # the others go on, and will be told
        failure = error
    shards.acting = False
    nothing = lay_out([[0]], [0], [[0]], [[NO_PHRASES]], policy.device)
    with torch.no_grad():
        while shards.anyone(False):
            policy.read(nothing)
    _drop_whole(policy)
    if failure is not None:
        raise failure


@contextmanager
def learning(policy: LanguagePolicy) -> Iterator[None]:
    """While all processes make as many passes as one another."""
    shards = policy.shards
    if shards is None:
        yield
        return
    shards.learning = True
    try:
        yield
    finally:
        shards.learning = False
    _drop_whole(policy)


def _drop_whole(policy: nn.Module) -> None:
    """Drop the weights that stay gathered after a pass without a backward pass."""
    assert isinstance(policy, FSDPModule)
    policy.reshard()


def whole(tensor: Tensor) -> Tensor:
    """A tensor whose parts all processes put together, all at once; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_part(tensor: Tensor) -> Tensor:
    """What this process has of a tensor; of one that is not shared out all."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shared_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor, which every process has, shared out as ``parameter`` is, if it is."""
    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor
    where = parameter.device_mesh, parameter.placements
    tensor = tensor.to(parameter.device)
    shared = distribute_tensor(tensor, *where, src_data_rank=None)
    local = shared.to_local().clone()  # or it keeps all of the tensor alive
    shape, stride = parameter.shape, parameter.stride()
    return DTensor.from_local(local, *where, run_check=False, shape=shape, stride=stride)


def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whole, on the processor; those that are one stay one. All processes ask at
    once."""
    found: dict[int, Tensor] = {}
    for tensor in tensors.values():
        if id(tensor) not in found:
            found[id(tensor)] = whole(tensor.detach()).cpu()
    return {name: found[id(tensor)] for name, tensor in tensors.items()}
