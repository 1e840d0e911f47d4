"""Finding and making environments by id.

Worlds are found through the ``gymnasium.envs`` entry-point group: every package that registers
environments there is asked to do so once. (Gymnasium itself stopped loading that group at 1.0.)
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any

import gymnasium
from gymnasium import spaces
from gymnasium.envs.registration import namespace, registry

from lang_agent.errors import LangAgentError, unknown
from lang_agent.text_env import Renderer, TextEnv, World
from lang_agent.wording import Wordings

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
    **env_kwargs: Any,
) -> gymnasium.Env[str, str]:
    """A text environment by its Gymnasium id.

    Args:
        env_id: ``BabyAI-GoToLocal-v0``, ``lang_agent/BabyAI-GoToLocal-v0``, ``module:Env-v0``, the
            id of an environment that speaks text already, or any id together with ``world``.
        world: phrases and renderers for an environment that has none; for a quick trial
            ``renderer`` (a callable) and ``actions`` (phrase -> environment action) do.
        renderer: by name, ``module:function``, or a callable.
        prompt: template name or path to a ``.jinja`` file; "transcript" unless told.
        prompt_folder: your templates, looked in before those that ship with the package.
        invalid_action: noop (unless told), default:<phrase>, penalty:<x>, retry:<n> or end.
        actions: some of the world's phrases, or new wording -> the world's phrase.
        wording: draws other words for every episode; ``module:function`` or a callable.
        env_kwargs: for the world itself (``max_steps=...``, ``render_mode=...``).

    Raises:
        LangAgentError: an id, name or argument that is not known; the message says which are.
    """
    load_worlds()
    options: dict[str, Any] = {
        "renderer": renderer,
        "prompt": prompt,
        "prompt_folder": prompt_folder,
        "invalid_action": invalid_action,
        "actions": actions,
        "wording": wording,
    }
    given = {name: value for name, value in options.items() if value is not None}
    if world is None and callable(renderer) and isinstance(actions, Mapping):
        world = World(actions=given.pop("actions"), renderers={"given": renderer})
    try:
        if world is not None:
            env = gymnasium.make(env_id, disable_env_checker=True, **env_kwargs)
            return TextEnv(env, world, **given)
        full_id = f"{NAMESPACE}/{env_id}"
        known = full_id if full_id in registry else env_id
        env = gymnasium.make(known, disable_env_checker=True, **given, **env_kwargs)
    except gymnasium.error.UnregisteredEnv as error:
        if ":" in env_id:
            raise LangAgentError(f"Cannot make {env_id!r}: {error}") from None
        raise unknown("environment", env_id, text_env_ids()) from None
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        raise LangAgentError(f"Cannot make {env_id!r}: {error}") from None
    if not isinstance(env.observation_space, spaces.Text):
        raise LangAgentError(
            f"{env_id!r} does not speak text, and no world is known for it: give "
            "world=World(...), or renderer=<function> and actions={phrase: environment action}."
        )
    return env


def text_env_ids() -> list[str]:
    """The ids that :func:`make` knows, without their namespace."""
    load_worlds()
    prefix = f"{NAMESPACE}/"
    return sorted(name.removeprefix(prefix) for name in registry if name.startswith(prefix))
