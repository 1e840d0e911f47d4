"""Finding and making environments by id.

Worlds are found through the ``gymnasium.envs`` entry-point group: every package that registers
environments there is asked to do so once. (Gymnasium itself stopped loading that group at 1.0.)
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import gymnasium
from gymnasium import spaces
from gymnasium.envs.registration import namespace, registry

from lang_agent.errors import LangAgentError, unknown, user_code
from lang_agent.text_env.env import TEXT_OPTIONS, TextEnv
from lang_agent.text_env.wording import Wordings
from lang_agent.text_env.world import IN_WORDS, Renderer, World
from lang_agent.trust import Source, find, names_from, names_in

NAMESPACE = "lang_agent"


@lru_cache(maxsize=1)
def load_worlds() -> None:
    """Let every installed package register its environments; one that fails is only warned of."""
    for entry_point in entry_points(group="gymnasium.envs"):
        try:
            register = entry_point.load()
            if entry_point.name == "__root__":
                register()
            else:
                with namespace(entry_point.name):
                    register()
        except Exception as error:
            warnings.warn(
                f"The worlds of '{entry_point.name}' cannot be used: {error}", stacklevel=2
            )


def make(
    env_id: str,
    *,
    world: World | None = None,
    renderer: str | Renderer | None = None,
    prompt: str | None = None,
    prompt_folder: str | None = None,
    invalid_action: str | None = None,
    actions: Sequence[str] | Mapping[str, str] | None = None,
    wording: str | Wordings | None = None,
    like: Speaker | None = None,
    trust: bool = False,
    **env_kwargs: Any,
) -> gymnasium.Env[str, str]:
    """A text environment by its Gymnasium id.

    Args:
        env_id: ``BabyAI-GoToLocal-v0``, ``lang_agent/BabyAI-GoToLocal-v0``, ``module:Env-v0`` or
            ``module:Class``, the id of an environment that speaks text already or is derived from
            one of minigrid's, or any id together with ``world``.
        world: phrases and renderers for an environment that has none; for a quick trial
            ``renderer`` (a callable) and ``actions`` (phrase -> environment action) do.
        renderer: by name, ``module:function``, or a callable.
        prompt: template name or path to a ``.jinja`` file; "transcript" by default.
        prompt_folder: your templates, looked in before those that ship with the package.
        invalid_action: noop (unless told), default:<phrase>, penalty:<x>, retry:<n> or end.
        actions: some of the world's phrases, or new wording -> the world's phrase.
        wording: draws other words for every episode; ``module:function`` or a callable.
        like: a policy that was trained before: its own words, wherever none are given here.
        trust: import whatever the words of that policy name, wherever it lies.
        env_kwargs: for the world itself (``max_steps=...``, ``render_mode=...``).

    Raises:
        LangAgentError: an id, name or argument that is not known; the message says which are.
    """
    load_worlds()
    bare, *rest = env_id.split() or [""]
    if rest:
        names = ", ".join(f"{part.partition('=')[0]}=..." for part in rest)
        raise LangAgentError(
            f"{env_id!r} is no id: arguments of the world are given by name, "
            f"make({bare!r}, {names})."
        )
    options: dict[str, Any] = {
        "renderer": renderer,
        "prompt": prompt,
        "prompt_folder": prompt_folder,
        "invalid_action": invalid_action,
        "actions": actions,
        "wording": wording,
    }
    given = {name: value for name, value in options.items() if value is not None}
    if like is not None:
        words, source = own_words(like, given)
        with names_from(None if trust else source):
            return make(env_id, world=world, **{**words, **given}, **env_kwargs)
    if world is None and callable(renderer) and isinstance(actions, Mapping):
        world = World(actions=given.pop("actions"), renderers={"given": renderer})
    if world is not None:
        return TextEnv(_construct(env_id, env_kwargs), world, **given)
    full_id = f"{NAMESPACE}/{env_id}"
    known_id = full_id if full_id in registry else env_id
    try:
        env = _construct(known_id, {**given, **env_kwargs})
    except _RefusedError as refused:  # it knows nothing of words, and may yet be put into them
        if refused.argument not in given:
            raise
        env = _construct(known_id, env_kwargs)
        if _speaks(env) or _in_words(env) is None:
            raise
    if _speaks(env):
        return env
    put = _in_words(env)
    if put is None:
        raise LangAgentError(
            f"{env_id!r} does not speak text, and no world is known for it: `lang-agent new-world "
            f"my_world --wraps {env_id}` writes the lines that make it speak; in Python give "
            "world=World(...), or renderer=<function> and actions={phrase: environment action}."
        )
    return put(env, given)


class Speaker(Protocol):
    """A policy, or whatever else has words of its own."""

    words: Mapping[str, Any] | None
    config_file: Path | None


def own_words(like: Speaker, given: Mapping[str, Any]) -> tuple[dict[str, Any], Source | None]:
    """The text options that a policy was trained with, and whose word their names are.

    Args:
        given: options that the person gives, whose names may be imported.

    Raises :class:`LangAgentError` for a policy that does not know.
    """
    if like.words is None:
        raise LangAgentError(
            "The policy does not say in which words it was trained: no config.yaml lies with it. "
            "Give prompt=... and the others yourself, in place of like=."
        )
    found = {name: like.words[name] for name in TEXT_OPTIONS if like.words.get(name)}
    if like.config_file is None:
        return found, None
    return found, Source(str(like.config_file), names_in(map(str, given.values())))


def _speaks(env: gymnasium.Env) -> bool:
    return isinstance(env.observation_space, spaces.Text)


def _in_words(env: gymnasium.Env) -> Callable[..., gymnasium.Env[str, str]] | None:
    """What puts an environment of this class into words."""
    kinds = type(env.unwrapped).__mro__
    return next((IN_WORDS[kind] for kind in kinds if kind in IN_WORDS), None)


class _RefusedError(LangAgentError):
    """An environment that does not take an argument."""

    argument = ""


def _construct(env_id: str, kwargs: Mapping[str, Any]) -> gymnasium.Env:
    """The environment as it is. Arguments that it cannot be made with are one sentence; whatever
    else goes wrong inside of it keeps its traceback."""
    try:
        return _make_plain(env_id, kwargs)
    except LangAgentError:
        raise
    except gymnasium.error.UnregisteredEnv as error:
        if ":" in env_id:
            raise LangAgentError(f"Cannot make {env_id!r}: {error}") from None
        raise unknown("environment", env_id, text_env_ids()) from None
    except gymnasium.error.Error as error:
        raise LangAgentError(f"Cannot make {env_id!r}: {error}") from None
    except TypeError as error:
        found = re.search(r"unexpected keyword argument '(\w+)'|takes no arguments", str(error))
        name = found and (found[1] or next(iter(kwargs), None))
        if name in kwargs:
            refused = _RefusedError(f"Cannot make {env_id!r}: it takes no argument {name!r}.")
            refused.argument = str(name)
            raise refused from None
        _blame(env_id, kwargs, error)
        raise
    except (AssertionError, ValueError, LookupError, AttributeError) as error:
        _blame(env_id, kwargs, error)
        raise


def _blame(env_id: str, kwargs: Mapping[str, Any], error: Exception) -> None:
    """Raise a sentence about the arguments if the environment can be made without them, or about
    the environment if it is none of the person's own."""
    _blame_arguments(env_id, kwargs, error)
    if user_code(error) is None:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise LangAgentError(f"Cannot make {env_id!r}: {reason.rstrip('.')}.") from error


def _blame_arguments(env_id: str, kwargs: Mapping[str, Any], error: Exception) -> None:
    world = {name: value for name, value in kwargs.items() if name not in TEXT_OPTIONS}
    if not world:
        return
    try:
        _make_plain(env_id, {}).close()
    except Exception:
        return
    arguments = ", ".join(f"{name}={value!r}" for name, value in world.items())
    said = str(error).partition(" was raised from the environment creator")[0]
    reason = " ".join(said.split()).rstrip(".") or "it does not take this value"
    raise LangAgentError(f"Cannot make {env_id!r} with {arguments}: {reason}.") from error


def _make_plain(env_id: str, kwargs: Mapping[str, Any]) -> gymnasium.Env:
    """By id, or a class or function by ``module:name``."""
    if ":" in env_id:
        made = find(env_id)
        if callable(made):
            env = made(**kwargs)
            if not isinstance(env, gymnasium.Env):
                raise LangAgentError(
                    f"{env_id!r} is no environment: it makes a {type(env).__name__}."
                )
            return env
    return gymnasium.make(env_id, disable_env_checker=True, **kwargs)


def text_env_ids() -> list[str]:
    """The ids that :func:`make` knows, without their namespace."""
    load_worlds()
    prefix = f"{NAMESPACE}/"
    return sorted(name.removeprefix(prefix) for name in registry if name.startswith(prefix))
