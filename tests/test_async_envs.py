"""Environments that answer later: the same episodes, and nobody waits for the slowest."""

from __future__ import annotations

import random
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace

import pytest
from test_golden import BASE

import lang_agent
from lang_agent import Agent, Decision, LangAgentError
from lang_agent.language_env import AsyncEnv, language_env
from lang_agent.learn.config import LearnConfig
from lang_agent.rollout import play
from lang_agent.stepping import EnvError, EnvErrors
from lang_agent.train import ahead
from lang_agent.train.run_parts import remote_envs
from lang_agent.train.trainer import resume, start

ENV = "BabyAI-GoToObjS4-v0"


class Later(AsyncEnv):
    """An environment whose answers take a while, each another time."""

    def __init__(self, seconds: float = 0.002, seed: int = 0, env=None) -> None:
        self.env = env or lang_agent.make(ENV, prompt="minimal", max_steps=12)
        self._waits, self._draw = seconds, random.Random(seed)
        self._thread = ThreadPoolExecutor(1)
        self.busy = False
        self.held: Future | None = None
        """Set it, and the next step is answered after it is."""

    def _later(self, do) -> Future:
        assert not self.busy, "one reset or step at a time"
        self.busy = True
        held, self.held = self.held, None

        def work():
            time.sleep(self._draw.uniform(0, self._waits))
            if held is not None:
                held.result()
            self.busy = False
            return do()

        return self._thread.submit(work)

    def reset_later(self, seed):
        language_env(self.env).prompt_limit = self.prompt_limit
        return self._later(lambda: self.env.reset(seed=seed))

    def step_later(self, action):
        return self._later(lambda: self.env.step(action))


class Drawing(Agent):
    """Acts at random, by its episode's own stream."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.streams = [random.Random(0)] * slots
        self.acted: list[list[int]] = []

    def begin(self, slot, seed):
        self.streams[slot] = random.Random(seed)

    def act(self, slots, observations):
        self.acted.append(list(slots))
        return [
            Decision(self.streams[slot].choice(seen.actions))
            for slot, seen in zip(slots, observations, strict=True)
        ]


def told(episodes):
    return [
        (e.index, e.seed, e.terminated, e.truncated,
         [(s.observation.prompt, s.decision.action, s.reward) for s in e.steps])
        for e in sorted(episodes, key=lambda e: e.index)
    ]  # fmt: skip


@pytest.mark.parametrize("group_size", [1, 3])
def test_the_episodes_are_those_of_environments_that_answer_at_once(group_size):
    here = [lang_agent.make(ENV, prompt="minimal", max_steps=12) for _ in range(4)]
    later = [Later(seed=number) for number in range(4)]
    both = [told(play(Drawing(4), envs, range(8), group_size=group_size)) for envs in (here, later)]
    assert both[0] == both[1]
    assert len(both[0]) == 8 * group_size


def test_nobody_waits_for_the_slowest():
    envs, held = [Later(), Later(), Later()], Future()
    playing = play(Drawing(3), envs, range(9))
    envs[1].held = held
    first = [next(playing).index for _ in range(8)]  # in the two others
    assert 1 not in first
    held.set_result(None)
    assert [e.index for e in playing] == [1]


def test_episodes_begin_when_they_may():
    end = 2
    playing = play(Drawing(3), [Later() for _ in range(3)], range(6), may_begin=lambda n: n < end)
    assert sorted(next(playing).index for _ in range(2)) == [0, 1]
    end = 6
    assert sorted(e.index for e in playing) == [2, 3, 4, 5]


class Failing:
    """An environment whose second step raises, once."""

    def __init__(self) -> None:
        self.env = lang_agent.make(ENV, prompt="minimal", max_steps=12)
        self.unwrapped, self.steps = self.env.unwrapped, 0

    def reset(self, seed):
        return self.env.reset(seed=seed)

    def step(self, action):
        self.steps += 1
        if self.steps == 2:
            raise ValueError("it is broken")
        return self.env.step(action)


def test_what_an_environment_raises_later_is_named_and_tried_again():
    with pytest.raises(EnvError, match=r"step 1 .*seed 0: ValueError: it is broken"):
        list(play(Drawing(1), [Later(env=Failing())], range(2)))
    errors = EnvErrors("retry")
    episodes = list(play(Drawing(1), [Later(env=Failing())], range(2), errors=errors))
    assert [e.index for e in episodes] == [0, 1]
    assert len(errors.seen) == 1
    errors = EnvErrors("skip")
    assert [e.index for e in play(Drawing(1), [Later(env=Failing())], range(2), errors=errors)] == [
        1
    ]
    assert errors.left_out == 1


RUN = replace(BASE, rollout_steps=48, envs=4, steps=300, async_envs=True, workers=1)


@pytest.fixture
def no_ray(monkeypatch):
    """Environments that answer later without a process for each."""

    def make(config):
        envs = [Later(0.004, number, config.text.make(config.env)) for number in range(config.envs)]
        return nullcontext(envs)

    monkeypatch.setattr(ahead, "remote_envs", make)


@pytest.mark.usefixtures("no_ray")
def test_a_run_learns_every_episode_once_and_at_most_an_update_late(tmp_path):
    run = start(replace(RUN, eval_episodes=0), tmp_path / "run")
    collector, learned, late = run.collector, [], []

    def on_update(metrics):
        late.append(metrics["ahead_fraction"])
        begun = collector._begun - run.progress.episodes
        assert 0 <= begun <= len(rollouts[-1])  # no more than one rollout's

    rollouts: list[list[int]] = [[]]

    def on_episode(episode):
        learned.append(episode.index)
        rollouts[-1].append(episode.index)

    def updated(metrics):
        on_update(metrics)
        rollouts.append([])

    run.run(updated, on_episode)
    assert learned == list(range(len(learned)))
    assert late[0] == 0
    assert max(late) > 0
    again = resume(tmp_path / "run", steps=400)
    more: list[int] = []
    again.run(on_episode=lambda episode: more.append(episode.index))
    assert more == list(range(len(learned), len(learned) + len(more)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"workers": 2}, "workers=2 does not go with async_envs: one process acts in all"),
        ({"hindsight": 0.5}, r"hindsight=0\.5 does not go with async_envs"),
        ({"on_env_error": "skip"}, "on_env_error=skip does not go with async_envs"),
    ],
)
def test_what_does_not_go_with_them_is_a_sentence(changes, reason):
    with pytest.raises(LangAgentError, match=reason):
        replace(RUN, **changes)


def test_algorithms_that_do_not_weigh_by_who_acted_are_a_sentence(tmp_path):
    for algorithm in ("reinforce", "a2c", "rloo", "trpo", "imitation"):
        learn = LearnConfig(algorithm=algorithm)
        with pytest.raises(LangAgentError, match=f"{algorithm} does not weigh .* ppo, grpo"):
            start(replace(RUN, learn=learn), tmp_path / algorithm)


def test_an_environment_of_another_process_is_the_same_here():
    ray = pytest.importorskip("ray")
    here = RUN.text.make(RUN.env)
    with remote_envs(replace(RUN, envs=1)) as (remote,):
        assert remote.name == language_env(here).name
        assert remote.prompt_name == language_env(here).prompt_name
        for seed in (3, 4):
            assert remote.reset(seed=seed)[0] == here.reset(seed=seed)[0]
            for _ in range(3):
                there, ours = remote.step("turn left"), here.step("turn left")
                assert there[:4] == ours[:4]
            with pytest.raises(LangAgentError, match="no text"):  # and it lives on
                remote.step(None)
    assert not ray.is_initialized()


@pytest.mark.slow
def test_a_run_in_processes_of_rays(tmp_path):
    ray = pytest.importorskip("ray")
    run = start(replace(RUN, envs=2, steps=100, eval_episodes=4), tmp_path / "run")
    rows: list[dict] = []
    run.run(rows.append)
    assert rows[-1]["steps"] >= 100
    assert run.evaluate(4)[0].episodes == 4
    assert not ray.is_initialized()
