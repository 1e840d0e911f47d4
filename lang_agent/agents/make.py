"""Agents by name."""

from __future__ import annotations

import os

from lang_agent.agents.expert import ExpertAgent
from lang_agent.agents.policy_agent import PolicyAgent
from lang_agent.agents.scripted import ConstantAgent, RandomAgent
from lang_agent.episode import Agent
from lang_agent.errors import LangAgentError
from lang_agent.models.decide import DecideConfig
from lang_agent.models.store import load_policy
from lang_agent.models.threads import use_threads


def make_agent(
    name: str,
    slots: int,
    decide: DecideConfig,
    *,
    precision: str = "auto",
    chat: bool | None = None,
    trust: bool = False,
) -> Agent:
    """The agent called ``name``: random, expert, constant:<action>, or a policy's folder or id.

    Args:
        slots: how many episodes it plays at once.
        decide: how a policy comes to its decisions.
        precision: of a policy: fp32, bf16 or auto.
        chat: whether a policy's prompts are chat messages; None: as it was trained.
        trust: run Python code that comes with a policy's model.

    Raises:
        LangAgentError: there is no such agent.
    """
    kind, _, value = name.partition(":")
    if name == "random":
        return RandomAgent()
    if name == "expert":
        return ExpertAgent()
    if name == "bot" and not os.path.isdir(name):
        raise LangAgentError("The world's own expert is called 'expert', not 'bot'.")
    if kind == "constant":
        if not value:
            raise LangAgentError("The constant agent needs its action: constant:<action>.")
        return ConstantAgent(value)
    policy = load_policy(name, chat=chat, trust=trust)
    use_threads(None, policy, policy.device)
    policy.set_precision(precision)
    return PolicyAgent(policy, slots, decide)
