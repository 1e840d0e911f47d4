"""Agents by name, those of other packages among them."""

from __future__ import annotations

import os
from typing import Any

from lang_agent.agents.make import SB3, make_agent
from lang_agent.episode import Agent
from lang_agent.models.decide import DecideConfig


def named_agent(
    name: str, slots: int, decide: DecideConfig, *, trust: bool = False, **options: Any
) -> Agent:
    """The agent called ``name``: sb3:FILE.zip, or what :func:`make_agent` knows, which takes the
    ``options``. A policy of Stable-Baselines3 is small, and is asked on the processor."""
    if name.startswith(SB3) and not os.path.isdir(name):
        from lang_agent.bridges.sb3_agent import load_sb3_agent

        return load_sb3_agent(name.removeprefix(SB3), decide, trust=trust)
    return make_agent(name, slots, decide, trust=trust, **options)
