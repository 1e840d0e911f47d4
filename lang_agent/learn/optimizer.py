"""The optimizer: Muon for the matrices inside the layers, AdamW for everything else.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon) replaces a matrix's gradient by
the nearest orthogonal matrix, so that directions with weak gradients move as far as those with
strong ones. From reward alone the rare cases are the weak ones (each goal, each pair of colour and
noun), and small models learn in about half the steps; `docs/results.md` has the comparison.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from lang_agent.learn.muon import Muon
from lang_agent.models.policy import LanguagePolicy


class Optimizer:
    """Muon and AdamW as one; ``name`` "adamw" leaves everything to AdamW.

    Muon computes in the policy's precision: what measured fast on the device, or was asked for.
    """

    def __init__(self, policy: LanguagePolicy, name: str, rate: float, weight_decay: float) -> None:
        inner = set(_layer_matrices(policy)) if name == "muon" else set()
        trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        matrices = [parameter for parameter in trained if parameter in inner]
        others = [parameter for parameter in trained if parameter not in inner]
        settings: dict[str, Any] = {"lr": rate, "weight_decay": weight_decay}
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, fused=True, **settings)
        ]
        if matrices:
            self.parts.append(Muon(matrices, precision=lambda: policy.precision, **settings))

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of every parameter."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate

    def step(self) -> None:
        for part in self.parts:
            part.step()
            # The fused AdamW writes without telling: copies in reduced precision would stay stale.
            increment_version(p for group in part.param_groups for p in group["params"])

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state_tensors(self) -> dict[str, Tensor]:
        """All state as named tensors: ``part.parameter.entry``."""
        return {
            f"{number}.{index}.{name}": value
            for number, part in enumerate(self.parts)
            for index, entries in part.state_dict()["state"].items()
            for name, value in entries.items()
        }

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take back what :meth:`state_tensors` gave; raises KeyError when it does not fit."""
        states: list[dict[int, dict[str, Tensor]]] = [{} for _ in self.parts]
        for key, value in tensors.items():
            number, index, name = key.split(".", 2)
            states[int(number)].setdefault(int(index), {})[name] = value
        for part, state in zip(self.parts, states, strict=True):
            count = sum(len(group["params"]) for group in part.param_groups)
            if set(state) - set(range(count)):
                raise KeyError(f"state for {len(state)} parameters, but there are {count}")
            part.load_state_dict(
                {"state": state, "param_groups": part.state_dict()["param_groups"]}
            )


def _layer_matrices(policy: LanguagePolicy) -> Iterator[nn.Parameter]:
    """Weight matrices inside the model's layers: not embeddings, heads, norms or biases."""
    outside = {policy.model.get_input_embeddings(), policy.model.get_output_embeddings()}
    for module in policy.model.modules():
        if module in outside or isinstance(module, nn.Embedding):
            continue
        for parameter in module.parameters(recurse=False):
            if parameter.ndim == 2:
                yield parameter
