"""Which device a model computes on."""

from __future__ import annotations

import torch

from lang_agent.errors import LangAgentError, shown


def find_device(name: str | None) -> torch.device:
    """The device called ``name``, on which something was computed to try it; a GPU where there is
    one, or the processor, by default. Raises :class:`LangAgentError`."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.ones(1, device=device).item()
    except Exception as error:  # each kind of device has its own ways not to be there
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise LangAgentError(f"device={shown(name)} cannot be used: {reason}") from None
    return device
