"""The optimizer: Muon for the matrices inside the layers, AdamW for everything else.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) replaces a matrix's gradient by
the nearest orthogonal matrix, so that directions with weak gradients move as far as those with
strong ones. From reward alone the rare cases are the weak ones (each goal, each pair of colour and
noun), and small models learn in about half the steps; `docs/results.md` has the comparison.

The tokens that stand for names never met keep the vectors that they were drawn with. Each is seen
too rarely to learn anything of its own, and AdamW moves a rare row the farthest: it divides the
gradient by the root of a mean that is nearly zero by then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from lang_agent.errors import LangAgentError
from lang_agent.extensions import check_takes, named_errors
from lang_agent.learn.muon import Muon
from lang_agent.learn.workers import ALONE, Workers
from lang_agent.models.policy import LanguagePolicy
from lang_agent.models.sharding import shared_like
from lang_agent.models.tokenizer import slot_tokens
from lang_agent.trust import load_function


class Optimizer:
    """Muon and AdamW as one; ``name`` "adamw" leaves everything to AdamW, and ``module:name`` to
    what that makes when it is called with ``(parameters, lr=..., weight_decay=...)``.

    Muon computes in the policy's precision: what measured fast on the device, or was asked for.

    Raises:
        LangAgentError: a ``module:name`` that makes no optimizer.
    """

    def __init__(self, policy: LanguagePolicy, name: str, rate: float, weight_decay: float) -> None:
        inner = set(_layer_matrices(policy)) if name == "muon" else set()
        trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        self._learned = _learned_rows(policy)
        self.parts: list[torch.optim.Optimizer]
        self._own = name if ":" in name else ""
        if self._own:
            self.parts = [_own_optimizer(name, trained, rate, weight_decay)]
            return
        matrices = [parameter for parameter in trained if parameter in inner]
        others = [parameter for parameter in trained if parameter not in inner]
        settings: dict[str, Any] = {"lr": rate, "weight_decay": weight_decay}
        self.parts = [torch.optim.AdamW(others, fused=True, **settings)]
        if matrices:
            self.parts.append(Muon(matrices, precision=lambda: policy.precision, **settings))

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of every parameter."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate

    def step(self, workers: Workers = ALONE) -> None:
        """One step; what Muon computes is shared out among ``workers``."""
        if self._learned is not None:
            words, learned = self._learned
            if words.grad is not None:
                words.grad.mul_(learned)
        for part in self.parts:
            with named_errors(f"The optimizer {self._own!r}") if self._own else nullcontext():
                if isinstance(part, Muon):
                    part.step(workers=workers)
                else:
                    part.step()
            # The fused AdamW writes without telling: copies in reduced precision would stay stale.
            increment_version(p for group in part.param_groups for p in group["params"])

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state_tensors(self) -> dict[str, Tensor]:
        """All state as named tensors, ``part.parameter.entry``; numbers have their kind behind the
        name, and those that an optimizer of one's own keeps in its groups stand there as
        ``part.group<i>.entry``.

        Raises :class:`LangAgentError` for state that is neither.
        """
        found: dict[str, Tensor] = {}
        for number, part in enumerate(self.parts):
            state = part.state_dict()
            for index, entries in state["state"].items():
                for name, value in entries.items():
                    if value is not None:
                        found |= _as_tensor(f"{number}.{index}.{name}", value)
            for index, group in enumerate(state["param_groups"] if self._own else ()):
                for name, value in group.items():
                    if isinstance(value, (Tensor, *KINDS.values())):
                        found |= _as_tensor(f"{number}.group{index}.{name}", value)
        return found

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what :meth:`state_tensors` gave, whole; raises KeyError when it does not
        fit."""
        states: list[dict[int, dict[str, Any]]] = [{} for _ in self.parts]
        parameters = [[p for group in part.param_groups for p in group["params"]]
                      for part in self.parts]  # fmt: skip
        groups = [part.state_dict()["param_groups"] for part in self.parts]
        for key, tensor in tensors.items():
            place, index, name = key.split(".", 2)
            name, _, kind = name.partition(KIND)
            value: Any = KINDS[kind](tensor.item()) if kind else tensor
            if index.startswith(GROUP):
                groups[int(place)][int(index.removeprefix(GROUP))][name] = value
            else:
                of = parameters[int(place)]
                if int(index) < len(of) and not kind:
                    value = shared_like(tensor, of[int(index)])
                states[int(place)].setdefault(int(index), {})[name] = value
        for part, state, group in zip(self.parts, states, groups, strict=True):
            count = sum(len(group["params"]) for group in part.param_groups)
            if set(state) - set(range(count)):
                raise KeyError(f"state for {len(state)} parameters, but there are {count}")
            part.load_state_dict({"state": state, "param_groups": group})


GROUP, KIND = "group", "!"  # in the names of state
KINDS: Mapping[str, type] = {"bool": bool, "int": int, "float": float}


def _as_tensor(name: str, value: Any) -> dict[str, Tensor]:
    """An entry of an optimizer's state, under a name that tells what it was."""
    if isinstance(value, Tensor):
        return {name: value}
    kind = next((kind for kind, wanted in KINDS.items() if type(value) is wanted), None)
    if kind is None:
        raise LangAgentError(
            f"The optimizer keeps a {type(value).__name__} as {name.rpartition('.')[2]!r} in its "
            "state, which a checkpoint cannot hold: keep tensors and numbers."
        )
    dtype = torch.float64 if kind == "float" else None
    return {f"{name}{KIND}{kind}": torch.tensor(value, dtype=dtype)}


def find_optimizer(name: str) -> Callable[..., Any]:
    """The class or function ``module:name``, which is called with the parameters, ``lr`` and
    ``weight_decay``; raises :class:`LangAgentError` for one that is not."""
    make = load_function(name)
    check_takes(make, f"The optimizer {name!r}", ("parameters",), ("lr", "weight_decay"))
    return make


def _own_optimizer(
    name: str, parameters: Sequence[nn.Parameter], rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """What the class or function ``module:name`` makes of the parameters that are trained."""
    make = find_optimizer(name)
    with named_errors(f"The optimizer {name!r}"):
        made = make(parameters, lr=rate, weight_decay=weight_decay)
    if not isinstance(made, torch.optim.Optimizer):
        raise LangAgentError(
            f"The optimizer {name!r} makes a {type(made).__name__}, which is no "
            "torch.optim.Optimizer."
        )
    return made


def _learned_rows(policy: LanguagePolicy) -> tuple[Tensor, Tensor] | None:
    """The vectors of the tokens, and 1 where they learn, 0 where they stand for names never met;
    None where all learn."""
    if not (slots := slot_tokens(policy.tokenizer)):
        return None
    words: Any = policy.model.get_input_embeddings().weight
    learned = torch.ones(words.shape, device=words.device)
    learned[slots] = 0
    return words, shared_like(learned, words)


def _layer_matrices(policy: LanguagePolicy) -> Iterator[nn.Parameter]:
    """Weight matrices inside the model's layers: not embeddings, heads, norms or biases."""
    outside = {policy.model.get_input_embeddings(), policy.model.get_output_embeddings()}
    for module in policy.model.modules():
        if module in outside or isinstance(module, nn.Embedding):
            continue
        for parameter in module.parameters(recurse=False):
            if parameter.ndim == 2:
                yield parameter
