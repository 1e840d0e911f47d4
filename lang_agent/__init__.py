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
    from lang_agent.errors import LangAgentError
    from lang_agent.text_env import TextEnv, World

__version__ = "0.1.0"

_HOMES = {
    "LangAgentError": "errors",
    "ParsedAction": "action_parser",
    "TextEnv": "text_env",
    "World": "text_env",
    "parse_action": "action_parser",
}
__all__ = ["LangAgentError", "ParsedAction", "TextEnv", "World", "make", "parse_action"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


load_worlds()
