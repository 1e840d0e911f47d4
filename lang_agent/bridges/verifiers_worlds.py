"""Our worlds as a taskset and environment of verifiers (PrimeIntellect), 0.4; its own extra.

A module of one line, ``from lang_agent.bridges.verifiers_worlds import *``, makes them a plugin by
the module's name. Version 0.4 has no ``MultiTurnEnv`` any more: there an environment's ``run`` is
the user of a conversation with the model. Ours is the world: each observation is a message of the
user, each reply of the model an action, as for ``--agent chat:MODEL``. The episode's undiscounted
return is the reward.

The model is asked in this process. (The chat programs that come with verifiers are each a process
of its own, which ``uv`` fetches packages for.)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lang_agent.agents.chat import answer_in
from lang_agent.errors import LangAgentError
from lang_agent.stepping import as_reward
from lang_agent.text_env.config import TextConfig

try:
    import httpx
    import verifiers.v1 as vf
    from verifiers.v1.dialects.chat import message_to_wire
    from verifiers.v1.runtimes import ProgramResult
except ImportError:
    raise LangAgentError(
        "verifiers needs an extra, in an environment of its own: pip install "
        "'lang_agent[verifiers]'."
    ) from None

__all__ = ["ConversationHarness", "WorldEnv", "WorldTaskset"]


class WorldConfig(vf.TasksetConfig):
    """Which episodes there are."""

    world: str = "BabyAI-GoToLocal-v0"
    """An id, and behind it arguments for the world and its words:
    'ID max_steps=32 prompt=think'."""
    seed: int = 0
    """Of the first episode; the others follow it."""
    episodes: int = 100


class WorldData(vf.TaskData):
    """One episode."""

    world: str
    seed: int


class WorldTask(vf.Task[WorldData]):
    pass


class WorldTaskset(vf.Taskset[WorldTask, WorldConfig]):
    """A task for each seed of a world."""

    def load(self) -> Iterator[WorldTask]:
        config = self.config
        for seed in range(config.seed, config.seed + config.episodes):
            name = f"{config.world}#{seed}"
            data = WorldData(name=name, prompt=None, world=config.world, seed=seed)
            yield WorldTask(data, config.task)


class WorldEnvConfig(vf.EnvConfig):
    player: vf.AgentConfig = vf.AgentConfig(runtime={"type": "subprocess"})
    """Nothing is run beside this process, so that no sandbox is needed."""


class WorldEnv(vf.Env[WorldEnvConfig]):
    """Plays an episode with the model. Beside the reward, ``episode_return``, it records the
    metrics ``success``, ``steps`` and ``invalid_actions``."""

    async def run(self, task: Any, agents: Any) -> None:
        env = TextConfig().make(task.data.world)
        total, success, steps, invalid = 0.0, False, 0, 0
        try:
            async with agents.player.interaction(task) as player:
                prompt, info = env.reset(seed=task.data.seed)
                system = [{"role": "system", "content": info["system"]}] if info["system"] else []
                over, new = False, prompt
                while not over:
                    said = await player.turn([*system, {"role": "user", "content": new.strip()}])
                    if said.terminated:  # by a limit of the run's own
                        break
                    action = answer_in(said.last_reply)
                    before, system = f"{prompt}{action}\n", []
                    prompt, reward, terminated, truncated, info = env.step(action)
                    new = prompt.removeprefix(before)
                    total, steps = total + as_reward(reward), steps + 1
                    success, invalid = info["success"], invalid + info["invalid_action"]
                    over = terminated or truncated
            player.trace.record_reward("episode_return", total)
            measured = (("success", success), ("steps", steps), ("invalid_actions", invalid))
            for name, value in measured:
                player.trace.record_metric(name, float(value))
        finally:
            env.close()


class ConversationHarness(vf.Harness[vf.HarnessConfig]):
    """Asks the model for one reply to the conversation so far."""

    APPENDS_SYSTEM_PROMPT = True
    SUPPORTS_RESUME = True
    EXECUTES_CODE = NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: Any,
        trace: Any,
        runtime: Any,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: Any,
    ) -> Any:
        system, messages = self.resolve_prompt(data)
        sent = [{"role": "system", "content": system}] if system else []
        sent += [message_to_wire(message) for message in messages or ()]
        async with httpx.AsyncClient(timeout=None) as client:
            reply = await client.post(
                f"{endpoint}/chat/completions",
                headers={"Authorization": f"Bearer {secret}"},
                json={"model": ctx.model, "messages": sent},
            )
        return ProgramResult(int(reply.is_error), "", reply.text if reply.is_error else "")
