"""The command ``lang-agent check``."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from dataclasses import replace

import gymnasium

from lang_agent.cli.console import as_text, say
from lang_agent.cli.options import Check
from lang_agent.errors import LangAgentError, PromptError
from lang_agent.evaluation.check import BAD, WARNING, check_env
from lang_agent.text_env.config import TextConfig
from lang_agent.text_env.env import TextEnv
from lang_agent.text_env.prompt import SUFFIX, load_template
from lang_agent.text_env.registry import text_env_ids
from lang_agent.trust import find

MARKS = {"good": ("ok  ", "green"), WARNING: ("warn", "yellow"), BAD: ("FAIL", "red")}


def check(args: Check) -> None:
    """Whether an environment, a template or a renderer is fit to learn in."""
    with warnings.catch_warnings():
        warnings.simplefilter("once", UserWarning)  # an environment's own, which is made many times
        _check(args)


def _check(args: Check) -> None:
    env_id, text = _what(as_text(args.what), args)
    say(_told(env_id, text))
    count, context = _tokens(args.model, lambda: text.make(env_id), trust=args.trust)
    failed = []
    found = check_env(
        lambda: text.make(env_id), episodes=args.episodes, count_tokens=count, context=context
    )
    for one in found:
        first, *rest = one.said.splitlines()
        say(MARKS[one.verdict], f"  {one.check}: {first}")
        for line in rest:
            say(f"        {line}")
        failed += [one.check] if one.verdict == BAD else []
    if failed:
        raise LangAgentError(f"{_told(env_id, text)} failed in: {', '.join(failed)}.")


def _what(what: str, args: Check) -> tuple[str, TextConfig]:
    """The environment to check, and its words: where ``what`` is a template or a renderer, those of
    the environment that is named beside it."""
    if what in text_env_ids():
        return what, args.text
    if what.endswith(SUFFIX) or _is_template(what):
        return args.on, replace(args.text, prompt=what)
    inner = args.text.make(args.on).unwrapped
    if isinstance(inner, TextEnv) and what in inner.world.renderers:
        return args.on, replace(args.text, renderer=what)
    if _is_renderer(what):
        return args.on, replace(args.text, renderer=what)
    return what, args.text


def _is_template(name: str) -> bool:
    try:
        load_template(name)
    except (PromptError, LangAgentError):
        return False
    return True


def _is_renderer(name: str) -> bool:
    """Whether ``module:name`` is a function, or a class that is no environment."""
    module, colon, _ = name.partition(":")
    if not colon or not module:
        return False
    try:
        found = find(name)
    except LangAgentError:
        return False
    if inspect.isclass(found):
        return not issubclass(found, gymnasium.Env)
    return callable(found) and len(inspect.signature(found).parameters) == 2


def _tokens(
    model: str, make: Callable[[], gymnasium.Env[str, str]], *, trust: bool
) -> tuple[Callable[[str], int], int]:
    """A model's count of tokens, and how many it can read."""
    from lang_agent.models.gpt2 import SIZES
    from lang_agent.models.policy import LanguagePolicy
    from lang_agent.models.store import load_policy
    from lang_agent.train.vocabulary import sample_texts

    if model in SIZES:
        policy = LanguagePolicy.from_scratch(
            model, seed=0, texts=sample_texts([make()], seconds=10)
        )
    else:
        policy = load_policy(model, trust=trust)
    return policy.count_tokens, policy.context


def _told(env_id: str, text: TextConfig) -> str:
    parts = [env_id]
    if text.prompt != TextConfig().prompt:
        parts.append(f"prompt {text.prompt}")
    if text.renderer:
        parts.append(f"renderer {text.renderer}")
    return ", ".join(parts)
