"""verifiers: its own runner on a world of ours, against a server of this machine."""

from __future__ import annotations

import asyncio
import sys

import pytest

pytest.importorskip("verifiers", minversion="0.4")

from test_chat_agent import KEY, Server, server  # noqa: F401
from verifiers.v1.clients import ModelContext
from verifiers.v1.configs.client import EvalClientConfig
from verifiers.v1.utils.loaders import environment_class

import lang_agent
from lang_agent.bridges.verifiers_worlds import WorldEnvConfig

WORLD = "BabyAI-GoToLocalS5N2-v0 max_steps=4"


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """The name of a module of one line, which a person would write."""
    (tmp_path / "my_worlds.py").write_text(
        "from lang_agent.bridges.verifiers_worlds import *\n"
        "from lang_agent.bridges.verifiers_worlds import __all__\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    yield "my_worlds"
    sys.modules.pop("my_worlds", None)


def played(plugin, server, episodes=2):  # noqa: F811
    kind = environment_class(plugin)
    own = {"id": plugin, "world": WORLD, "seed": 3, "episodes": episodes}
    env = kind(WorldEnvConfig(taskset=own))
    client = EvalClientConfig(base_url=server.url, api_key_var="OPENAI_API_KEY")
    context = ModelContext("m", client)

    async def run():
        async with env.serving():
            return [await env.run_slot(env.slots(task)[0], context) for task in env.taskset]

    return asyncio.run(run())


def test_an_episode_is_a_conversation_and_its_return_the_reward(plugin, server):  # noqa: F811
    server.answer = "I go forward"
    episodes = played(plugin, server)
    assert len(episodes) == 2
    sent = [request["messages"] for request in server.requests]
    for number, episode in enumerate(episodes):
        assert not episode.errors
        (trace,) = episode.traces
        env = lang_agent.make(*WORLD.split()[:1], max_steps=4)
        prompt, _ = env.reset(seed=3 + number)
        wanted, total, steps, over = [], 0.0, 0, False
        new = prompt
        while not over:
            wanted.append({"role": "user", "content": new.strip()})
            said = [(m["role"], m["content"]) for m in sent[steps + 4 * number * (number > 0)]]
            assert said == [(m["role"], m["content"]) for m in wanted]
            wanted.append({"role": "assistant", "content": "I go forward"})
            before = f"{prompt}I go forward\n"
            prompt, reward, terminated, truncated, info = env.step("I go forward")
            new = prompt.removeprefix(before)
            assert new != prompt
            total, steps, over = total + reward, steps + 1, terminated or truncated
        assert trace.rewards["episode_return"].score == pytest.approx(total)
        assert trace.metrics["steps"] == steps
        assert trace.metrics["success"] == float(info["success"])
        assert trace.metrics["invalid_actions"] == 0


def test_a_server_that_fails_is_the_episodes_error(plugin, server):  # noqa: F811
    server.plan = ["broken"] * 50
    (episode,) = played(plugin, server, episodes=1)
    assert not episode.ok
    assert "internal" in str(episode.traces[0].errors)
