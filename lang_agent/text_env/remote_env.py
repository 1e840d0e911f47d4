"""An environment in a process of its own, on this machine or another of a Ray cluster's.

Ray is connected to by whoever makes one (:func:`lang_agent.ray_connection.connected`).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import gymnasium

from lang_agent.errors import LangAgentError
from lang_agent.language_env import AsyncEnv, PromptLimit, language_env
from lang_agent.text_env.spaces import AnyText

Make = Callable[[], gymnasium.Env[str, str]]


class RemoteEnv(AsyncEnv):
    """An environment that a Ray actor makes and steps.

    Its episodes are those of the same environment here. What needs the world itself (goals reached
    in hindsight, texts judged in groups, drawing) is not there.

    Args:
        make: makes the environment; it is sent to the actor, and so must be picklable.
    """

    def __init__(self, make: Make) -> None:
        import ray

        actor: Any = ray.remote(Stepper)
        options = {"num_cpus": 0, "max_restarts": -1, "scheduling_strategy": "SPREAD"}
        self._actor = actor.options(**options).remote(make)
        about = _plain(self._actor.about.remote()).result()
        self._name, self._prompt_name = about["name"], about["prompt_name"]
        self.metadata, self.legend = about["metadata"], about["legend"]
        self.observation_space, self.action_space = AnyText(), AnyText(max_length=1024)
        self._limit: tuple[PromptLimit | None, Any] = (None, None)  # and as Ray keeps it

    @property
    def name(self) -> str:
        return str(self._name)

    @property
    def prompt_name(self) -> str:
        return str(self._prompt_name)

    def reset_later(self, seed: int) -> Future[Any]:
        if self.prompt_limit is not self._limit[0]:
            import ray

            self._limit = self.prompt_limit, ray.put(self.prompt_limit)
        return _plain(self._actor.reset.remote(seed, self._limit[1]))

    def step_later(self, action: str) -> Future[Any]:
        return _plain(self._actor.step.remote(action))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        found: tuple[str, dict[str, Any]] = self.reset_later(seed or 0).result()
        return found

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        found: tuple[str, float, bool, bool, dict[str, Any]] = self.step_later(action).result()
        return found

    def close(self) -> None:
        """End the actor."""
        import ray

        ray.kill(self._actor)


class Stepper:
    """What the actor does."""

    def __init__(self, make: Make) -> None:
        self.env = make()

    def about(self) -> dict[str, Any]:
        speaking = language_env(self.env)
        if speaking.judges_together:
            raise LangAgentError(
                f"The texts of {speaking.name} are judged in groups, which takes environments in "
                "one process: set async_envs to False."
            )
        names = {part.prompt_name for part in speaking.parts}
        return {
            "name": speaking.name,
            "prompt_name": names.pop() if len(names) == 1 else "",
            "metadata": dict(self.env.metadata),
            "legend": speaking.legend,
        }

    def reset(self, seed: int, prompt_limit: PromptLimit | None) -> Any:
        language_env(self.env).prompt_limit = prompt_limit
        return self.env.reset(seed=seed)

    def step(self, action: str) -> Any:
        return self.env.step(action)


def _plain(answer: Any) -> Future[Any]:
    """An actor's answer as a future of what it returned, or of the error that it raised itself."""
    plain: Future[Any] = Future()

    def hand_on(came: Future[Any]) -> None:
        error = came.exception()
        if error is None:
            plain.set_result(came.result())
        else:
            plain.set_exception(getattr(error, "cause", None) or error)

    answer.future().add_done_callback(hand_on)
    return plain
