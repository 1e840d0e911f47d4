"""OpenEnv: a real server of its own on this machine, its clients, and our agents through them."""

from __future__ import annotations

import socket
import threading
import time

import pytest

pytest.importorskip("openenv")
pytest.importorskip("uvicorn")

import uvicorn
from openenv import core

import lang_agent
from lang_agent import LangAgentError
from lang_agent.agents.scripted import RandomAgent
from lang_agent.bridges.openenv_worlds import OpenEnv, serve
from lang_agent.cli import main as cli
from lang_agent.evaluation.records import read_results
from lang_agent.rollout import play

ROOM = "BabyAI-GoToLocalS5N2-v0"


@pytest.fixture(scope="module")
def url():
    """The address of a server with a world of ours."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = serve(lambda: lang_agent.make(ROOM, max_steps=12), sessions=4)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


def test_a_client_plays_the_episode_that_the_world_plays_here(url):
    env = lang_agent.make(ROOM, max_steps=12)
    with core.GenericEnvClient(base_url=url).sync() as client:
        for seed in (3, 4):
            prompt, info = env.reset(seed=seed)
            result = client.reset(seed=seed, episode_id="mine")
            assert (result.observation["prompt"], result.done) == (prompt, False)
            assert result.observation["actions"] == list(info["actions"])
            for said in ("I turn left", "sing", "go forward", "toggle"):
                prompt, reward, terminated, truncated, info = env.step(said)
                result = client.step({"text": said})
                seen = result.observation
                assert (seen["prompt"], result.reward) == (prompt, reward)
                assert result.done == (terminated or truncated)
                assert seen["verdict"] == info["verdict"]
                assert seen["invalid_action"] == (said == "sing")
            state = client.state()
            assert (state["step_count"], state["seed"]) == (4, seed)
            assert state["episode_id"] == "mine"


def test_an_episode_that_is_over_takes_no_step(url):
    with core.GenericEnvClient(base_url=url).sync() as client:
        client.reset(seed=0)
        done = [client.step({"text": "toggle"}).done for _ in range(12)]
        assert done == [False] * 11 + [True]
        with pytest.raises(RuntimeError, match="reset first"):
            client.step({"text": "toggle"})
        assert not client.reset(seed=1).done


def test_our_agents_play_what_a_server_serves_as_they_play_it_here(url):
    agent = RandomAgent()
    seeds = range(5)

    def episodes(envs):
        played = sorted(play(agent, envs, seeds), key=lambda episode: episode.seed)
        return [
            (e.seed, e.success, e.terminated, e.truncated,
             [(s.observation.prompt, s.decision.action, s.reward) for s in e.steps])
            for e in played
        ]  # fmt: skip

    there = [OpenEnv(url) for _ in range(2)]
    here = [lang_agent.make(ROOM, max_steps=12) for _ in range(2)]
    assert episodes(there) == episodes(here)
    for env in there:
        env.close()


def test_the_command_evaluates_on_a_server(url, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    task = f"lang_agent.bridges.openenv_worlds:OpenEnv base_url={url}"
    cli.run(["evaluate", task, "--episodes", "3", "--slots", "2", "--out", "there"])
    cli.run(["evaluate", f"{ROOM} max_steps=12", "--episodes", "3", "--out", "here"])
    there, here = (
        [(r.seed, r.success, r.steps, r.total_reward) for r in read_results(name).records]
        for name in ("there", "here")
    )
    assert there == here
    assert len(there) == 3


def test_an_environment_of_anothers_kind_is_put_into_words_by_functions(url):
    plain = OpenEnv(url, read=lambda seen: (f"Look: {seen['prompt'][:5]}", ("left", "on")),
                    say=lambda text: {"text": {"left": "turn left"}.get(text, text)})  # fmt: skip
    prompt, info = plain.reset(seed=0)
    assert prompt == "Look: Goal:"
    assert info["actions"] == plain.phrases == ("left", "on")
    *_, info = plain.step("left")
    assert info["verdict"] == "exact"
    plain.close()
    other = OpenEnv(url, read=lambda seen: seen["board"])
    with pytest.raises(LangAgentError, match=r"read=\.\.\."):
        other.reset(seed=0)
    other.close()
