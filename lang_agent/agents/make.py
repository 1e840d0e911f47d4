"""Agents by name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from lang_agent.agents.chat import ChatAgent, ChatConfig
from lang_agent.agents.expert import ExpertAgent
from lang_agent.agents.human import HumanAgent
from lang_agent.agents.policy_agent import PolicyAgent
from lang_agent.agents.scripted import ConstantAgent, RandomAgent
from lang_agent.episode import Agent
from lang_agent.errors import LangAgentError
from lang_agent.extensions import check_takes, named_errors
from lang_agent.models.decide import GENERATE, DecideConfig
from lang_agent.models.device import find_device
from lang_agent.models.gpt2 import SIZES
from lang_agent.models.hub import SHIPPED, SMOLLM2
from lang_agent.models.policy import LanguagePolicy
from lang_agent.models.store import digest, load_policy
from lang_agent.models.threads import use_threads
from lang_agent.trust import find

PLAIN = ("random", "expert", "human")
NAMES = (*PLAIN, *SHIPPED, SMOLLM2, *(f"untrained:{size}" for size in SIZES))
"""The agents that go by a name alone."""
SB3 = "sb3:"
"""Before the file of a policy that Stable-Baselines3 saved, at the command line."""
HUB_NAMES = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2", "openai-gpt")
"""Models of the hub that have no owner before their name."""


def make_agent(
    name: str,
    slots: int,
    decide: DecideConfig = DecideConfig(temperature=0),  # noqa: B008
    *,
    precision: str = "auto",
    chat: bool | None = None,
    trust: bool = False,
    threads: int | None = None,
    device: str | None = None,
    remote: ChatConfig | None = None,
) -> Agent:
    """The agent called ``name``: random, expert, human, constant:PHRASE, untrained:SIZE (a model
    from random weights), chat:MODEL (a server's), module:name (a class or function of one's own
    that makes an agent), or a policy: the one that ships, a run or model folder, or a hub id. Its
    ``about`` says what it is.

    Args:
        slots: how many episodes it plays at once, at most.
        decide: how a policy comes to its decisions.
        precision: of a policy: fp32, bf16 or auto.
        chat: whether a policy's prompts are chat messages; None: as it was trained.
        trust: run Python code that comes with a policy's model.
        threads: processor threads of torch, in the whole process; None: one for a small model.
        device: of a policy: cpu, cuda; None: a GPU where there is one.
        remote: how a chat model's server is asked.

    Raises:
        LangAgentError: there is no such agent.
    """
    kind, colon, value = name.partition(":")
    agent: Agent

    def of_policy(policy: LanguagePolicy) -> Agent:
        use_threads(threads, policy, policy.device)
        policy.set_precision(precision)
        made = PolicyAgent(policy, slots, decide)
        made.about = about_policy(policy, decide)
        return made

    def loaded() -> Agent:
        where = str(find_device(device))
        return of_policy(load_policy(name, device=where, chat=chat, trust=trust))

    if name == "random":
        agent = RandomAgent()
    elif name == "expert":
        agent = ExpertAgent()
    elif name == "human":
        agent = HumanAgent()
    elif os.path.isdir(name):  # whatever else it is called
        agent = loaded()
    elif kind == "constant":
        if not value:
            raise LangAgentError("The constant agent needs its action: constant:<action>.")
        agent = ConstantAgent(value)
    elif kind == "untrained":
        agent = of_policy(LanguagePolicy.from_scratch(value, seed=0).to(find_device(device)))
    elif kind == "chat":
        agent = ChatAgent(value, _written(decide), remote)
    elif name.startswith(SB3):
        raise LangAgentError(
            f"In Python {name!r} is lang_agent.bridges.sb3_agent.load_sb3_agent(file, trust=True)."
        )
    elif colon and kind.replace(".", "").isidentifier() and "/" not in name:
        agent = _own(name)
    else:
        _refuse_misspelt(name)
        agent = loaded()
    agent.about = {"name": name, **agent.about}
    return agent


def _written(decide: DecideConfig) -> DecideConfig:
    """The way to decide of a model that can only write."""
    if decide.decide == GENERATE:
        return decide
    return DecideConfig(GENERATE, temperature=decide.temperature)


def about_policy(policy: LanguagePolicy, decide: DecideConfig) -> Mapping[str, Any]:
    """What an evaluation must know of a policy, so as not to be gone on with by another."""
    return {
        "weights": digest(policy),
        "decide": asdict(decide),
        "precision": str(policy.precision).removeprefix("torch."),
        "chat": policy.codec.chat,
    }


def _own(name: str) -> Agent:
    """An agent of a person's own by ``module:name``."""
    made = find(name)
    if made is None:
        raise LangAgentError(f"There is no {name.partition(':')[2]!r} in the module of {name!r}.")
    agent = made
    if callable(made) and not isinstance(made, Agent):
        check_takes(made, f"The agent {name!r}", ())
        with named_errors(f"The agent {name!r}"):
            agent = made()
    if not isinstance(agent, Agent):
        raise LangAgentError(
            f"{name!r} makes a {type(agent).__name__}, which is no agent: derive its class from "
            "lang_agent.Agent."
        )
    return agent


def _refuse_misspelt(name: str) -> None:
    """Raise :class:`LangAgentError` for what is nearly a name that is known, before the hub is
    asked for it: that would take long, and find a stranger's model."""
    if name == "bot":
        raise LangAgentError("The world's own expert is called 'expert', not 'bot'.")
    if "/" in name or name in (*NAMES, *HUB_NAMES) or name in ("nano", "trained:nano"):
        return
    near = difflib.get_close_matches(name, [*NAMES, *HUB_NAMES, *SIZES], n=1, cutoff=0.75)
    if near:
        meant = f"untrained:{near[0]}" if near[0] in SIZES else near[0]
        raise LangAgentError(f"There is no agent {name!r}. Did you mean {meant!r}?")
