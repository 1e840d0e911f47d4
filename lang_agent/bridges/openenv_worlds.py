"""Our worlds behind OpenEnv's server, and OpenEnv's environments for our agents; extra ``openenv``.

The package is ``openenv`` (of meta-pytorch); ``openenv-core`` is its name of before.

    uvicorn.run(serve(lambda: lang_agent.make("BabyAI-GoToLocal-v0")), port=8000)
    lang-agent evaluate 'lang_agent.bridges.openenv_worlds:OpenEnv base_url=http://localhost:8000'
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium

from lang_agent.errors import LangAgentError, shown
from lang_agent.language_env import LanguageEnv
from lang_agent.stepping import as_reward
from lang_agent.text_env.spaces import AnyText


def serve(make_env: Callable[[], gymnasium.Env[str, str]], *, sessions: int = 16) -> Any:
    """A FastAPI application that serves a world to OpenEnv's clients, over HTTP and WebSocket.

    An action is ``{"text": ...}``, what is to be said. An observation has ``prompt``, ``actions``
    (the admissible phrases; None: any text), ``verdict``, ``invalid_action``, ``success``,
    ``terminated`` and ``truncated`` beside OpenEnv's own ``reward`` and ``done``. A client chooses
    an episode by ``reset(seed=...)``.

    Args:
        make_env: makes the environment of one session.
        sessions: how many clients play at once, at most.

    Raises:
        LangAgentError: without the extra.
    """
    server = _library().env_server

    class TextAction(server.Action):  # type: ignore[name-defined]
        text: str

    class TextObservation(server.Observation):  # type: ignore[name-defined]
        prompt: str
        actions: list[str] | None = None
        verdict: str | None = None
        invalid_action: bool = False
        success: bool = False
        terminated: bool = False
        truncated: bool = False

    class TextWorld(server.Environment):  # type: ignore[name-defined]
        SUPPORTS_CONCURRENT_SESSIONS = True

        def __init__(self) -> None:
            super().__init__()
            self.env = make_env()
            self.now = server.State()
            self.over = True

        def reset(
            self, seed: int | None = None, episode_id: str | None = None, **_: Any
        ) -> TextObservation:
            prompt, info = self.env.reset(seed=seed)
            self.now = server.State(episode_id=episode_id or str(uuid.uuid4()), seed=seed)
            self.over = False
            return self._observe(prompt, info)

        def step(self, action: Any, timeout_s: float | None = None, **_: Any) -> TextObservation:
            if self.over:
                raise LangAgentError("There is no episode under way: reset first.")
            prompt, reward, terminated, truncated, info = self.env.step(action.text)
            self.now.step_count += 1
            self.over = terminated or truncated
            return self._observe(prompt, info, as_reward(reward), terminated, truncated)

        def _observe(
            self,
            prompt: str,
            info: Mapping[str, Any],
            reward: float | None = None,
            terminated: bool = False,
            truncated: bool = False,
        ) -> TextObservation:
            actions = info.get("actions")
            return TextObservation(
                prompt=prompt,
                actions=None if actions is None else list(actions),
                verdict=info.get("verdict"),
                invalid_action=bool(info.get("invalid_action")),
                success=bool(info.get("success")),
                terminated=terminated,
                truncated=truncated,
                reward=reward,
                done=terminated or truncated,
            )

        @property
        def state(self) -> Any:
            return self.now

        def close(self) -> None:
            self.env.close()

    return server.create_fastapi_app(
        TextWorld, TextAction, TextObservation, max_concurrent_envs=sessions
    )


def _own(observation: Mapping[str, Any]) -> tuple[str, Sequence[str] | None]:
    """The prompt and phrases of a world that :func:`serve` serves."""
    return observation["prompt"], observation.get("actions")


class OpenEnv(LanguageEnv):
    """An environment on an OpenEnv server, as one that speaks.

    Of one of ours nothing more need be said. Any other's observations and actions are data of its
    own kind, which ``read`` and ``say`` put into words and back. Its prompts are as long as they
    are: no turns are left out for a model's context.

    Args:
        base_url: of the server.
        read: (an observation's fields) -> (prompt, admissible phrases or None).
        say: (what the agent said) -> the action's fields.

    Raises:
        LangAgentError: without the extra, or for an observation that ``read`` cannot read.
    """

    def __init__(
        self,
        base_url: str,
        *,
        read: Callable[[Mapping[str, Any]], tuple[str, Sequence[str] | None]] = _own,
        say: Callable[[str], Mapping[str, Any]] = lambda text: {"text": text},
    ) -> None:
        self.observation_space, self.action_space = AnyText(), AnyText()
        self._read, self._say = read, say
        self._client = _library().GenericEnvClient(base_url=base_url).sync()
        self._phrases: tuple[str, ...] = ()

    @property
    def phrases(self) -> tuple[str, ...]:
        return self._phrases

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        return self._observe(self._client.reset(**({} if seed is None else {"seed": seed})))[:2]

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        result = self._client.step(dict(self._say(action)))
        prompt, info, truncated = self._observe(result)
        reward = as_reward(result.reward or 0.0)
        terminated = bool(result.done) and not truncated
        info.setdefault("success", terminated and reward > 0)
        return prompt, reward, terminated, truncated, info

    def _observe(self, result: Any) -> tuple[str, dict[str, Any], bool]:
        seen = result.observation
        try:
            prompt, actions = self._read(seen)
        except (KeyError, TypeError, ValueError) as error:
            raise LangAgentError(
                f"The observation {shown(seen)} cannot be read ({error!r}): give "
                "OpenEnv(read=...), a function that makes a prompt of it."
            ) from error
        self._phrases = tuple(actions or ())
        names = ("success", "verdict", "invalid_action")
        told = {name: seen[name] for name in names if name in seen}
        info = {**told, "actions": None if actions is None else self._phrases}
        return prompt, info, bool(result.done and seen.get("truncated", False))

    def close(self) -> None:
        self._client.close()


def _library() -> Any:
    try:
        from openenv import core
    except ImportError:
        raise LangAgentError("OpenEnv needs an extra: pip install 'lang_agent[openenv]'.") from None
    return core
