"""Agents whose states and actions are language.

``make`` a text environment, give a ``LanguagePolicy`` its prompts, ``train`` it from the reward.
Importing this package registers the text environments with Gymnasium; torch is not imported until
a policy is made.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lang_agent.worlds import load_worlds, make

if TYPE_CHECKING:
    from lang_agent.action_parser import ParsedAction, parse_action
    from lang_agent.agents import PolicyAgent
    from lang_agent.errors import LangAgentError
    from lang_agent.evaluation import evaluate
    from lang_agent.learn_config import LearnConfig
    from lang_agent.policy import LanguagePolicy
    from lang_agent.rollout import Episode, play
    from lang_agent.text_config import TextConfig
    from lang_agent.text_env import Achieved, TextEnv, World
    from lang_agent.train_config import TrainConfig
    from lang_agent.trainer import Trainer

__version__ = "0.2.0.dev0"

_HOMES = {
    "Achieved": "text_env",
    "Episode": "rollout",
    "LangAgentError": "errors",
    "LanguagePolicy": "policy",
    "LearnConfig": "config",
    "ParsedAction": "action_parser",
    "PolicyAgent": "agents",
    "TextConfig": "config",
    "TextEnv": "text_env",
    "TrainConfig": "config",
    "Trainer": "trainer",
    "World": "text_env",
    "evaluate": "evaluation",
    "parse_action": "action_parser",
    "play": "rollout",
}
__all__ = [
    "Achieved",
    "Episode",
    "LangAgentError",
    "LanguagePolicy",
    "LearnConfig",
    "ParsedAction",
    "PolicyAgent",
    "TextConfig",
    "TextEnv",
    "TrainConfig",
    "Trainer",
    "World",
    "evaluate",
    "make",
    "parse_action",
    "play",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


load_worlds()
