"""Agents whose states and actions are language.

``make`` a text environment, give a ``LanguagePolicy`` its prompts, ``train`` it from the reward.
Importing this package is quick: whatever stands in ``__all__`` is imported when it is first used.
``make`` loads the worlds, and so does ``import lang_agent.envs``, which registers them with
Gymnasium for ``gymnasium.make("lang_agent/BabyAI-GoToLocal-v0")``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lang_agent.agents.make import make_agent
    from lang_agent.agents.policy_agent import PolicyAgent
    from lang_agent.agents.recorder import Recorder
    from lang_agent.episode import Agent, Decision, Episode, Step, TextObservation, TokenTrace
    from lang_agent.errors import LangAgentError
    from lang_agent.evaluation.evaluate import evaluate
    from lang_agent.evaluation.records import read_results
    from lang_agent.language_env import Achieved, AsyncEnv, LanguageEnv
    from lang_agent.learn.algorithm import Algorithm
    from lang_agent.learn.config import LearnConfig
    from lang_agent.learn.learner import Learner
    from lang_agent.learn.objective import evaluate_actions
    from lang_agent.learn.optimizer import Optimizer
    from lang_agent.models.decide import DecideConfig
    from lang_agent.models.policy import LanguagePolicy
    from lang_agent.models.store import load_policy
    from lang_agent.rollout import play
    from lang_agent.text_env.action_parser import ParsedAction, parse_action
    from lang_agent.text_env.config import TextConfig
    from lang_agent.text_env.env import TextEnv
    from lang_agent.text_env.own_randomness import OwnRandomness
    from lang_agent.text_env.registry import make
    from lang_agent.text_env.world import Symmetry, World
    from lang_agent.train.config import TrainConfig
    from lang_agent.train.trainer import Trainer, resume, start

__version__ = "0.2.0.dev0"

_HOMES = {
    "Achieved": "language_env",
    "Agent": "episode",
    "Algorithm": "learn.algorithm",
    "DecideConfig": "models.decide",
    "Decision": "episode",
    "Episode": "episode",
    "LangAgentError": "errors",
    "AsyncEnv": "language_env",
    "LanguageEnv": "language_env",
    "LanguagePolicy": "models.policy",
    "LearnConfig": "learn.config",
    "Learner": "learn.learner",
    "Optimizer": "learn.optimizer",
    "OwnRandomness": "text_env.own_randomness",
    "ParsedAction": "text_env.action_parser",
    "PolicyAgent": "agents.policy_agent",
    "Recorder": "agents.recorder",
    "Step": "episode",
    "Symmetry": "text_env.world",
    "TextConfig": "text_env.config",
    "TextEnv": "text_env.env",
    "TextObservation": "episode",
    "TokenTrace": "episode",
    "TrainConfig": "train.config",
    "Trainer": "train.trainer",
    "World": "text_env.world",
    "evaluate": "evaluation.evaluate",
    "evaluate_actions": "learn.objective",
    "load_policy": "models.store",
    "make": "text_env.registry",
    "make_agent": "agents.make",
    "parse_action": "text_env.action_parser",
    "play": "rollout",
    "read_results": "evaluation.records",
    "resume": "train.trainer",
    "start": "train.trainer",
}
__all__ = [
    "Achieved",
    "Agent",
    "Algorithm",
    "AsyncEnv",
    "DecideConfig",
    "Decision",
    "Episode",
    "LangAgentError",
    "LanguageEnv",
    "LanguagePolicy",
    "LearnConfig",
    "Learner",
    "Optimizer",
    "OwnRandomness",
    "ParsedAction",
    "PolicyAgent",
    "Recorder",
    "Step",
    "Symmetry",
    "TextConfig",
    "TextEnv",
    "TextObservation",
    "TokenTrace",
    "TrainConfig",
    "Trainer",
    "World",
    "evaluate",
    "evaluate_actions",
    "load_policy",
    "make",
    "make_agent",
    "parse_action",
    "play",
    "read_results",
    "resume",
    "start",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
