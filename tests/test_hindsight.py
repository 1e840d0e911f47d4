"""Hindsight: what an episode fulfilled is told truly, and learned."""

from __future__ import annotations

import copy
import itertools
import random
import re
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from conftest import make_bandit
from hypothesis import given
from hypothesis import strategies as st
from lang_agent.envs.mixed_local import PAIRS, TASKS, UNLOCK

from lang_agent.agents.policy_agent import PolicyAgent
from lang_agent.agents.scripted import RandomAgent
from lang_agent.episode import Episode, Step, TextObservation
from lang_agent.errors import LangAgentError
from lang_agent.language_env import Achieved
from lang_agent.learn import hindsight
from lang_agent.learn.algorithms import ALGORITHMS
from lang_agent.learn.config import LearnConfig
from lang_agent.learn.learner import Learner
from lang_agent.learn.objective import hindsight_loss
from lang_agent.learn.optimizer import Optimizer
from lang_agent.learn.sequences import collate, to_samples
from lang_agent.learn.steps import gradient_step
from lang_agent.models.decide import DecideConfig
from lang_agent.rollout import play
from lang_agent.stepping import EnvErrors
from lang_agent.text_env.config import TextConfig
from lang_agent.text_env.env import TextEnv
from lang_agent.text_env.registry import make
from lang_agent.text_env.world import World
from lang_agent.train.collect import Player
from lang_agent.train.config import TrainConfig
from lang_agent.train.run_folder import Progress
from lang_agent.train.trainer import Trainer, start

MIXED = "BabyAI-MixedLocal-v0"
NAME = r"(?:a|the) (\w+ \w+)"


def watched(**options: Any) -> TextEnv:
    env = make(MIXED, **options).unwrapped
    env.watch()
    return env


def random_episode(env: TextEnv, seed: int) -> tuple[list[str], list[str], list[dict[str, Any]]]:
    """(prompts, actions, infos after them) of an episode played at random."""
    draw = random.Random(seed)
    prompt, info = env.reset(seed=seed)
    prompts, actions, infos, done = [], [], [], False
    while not done:
        prompts.append(prompt)
        actions.append(draw.choice(info["actions"]))
        prompt, _, terminated, truncated, info = env.step(actions[-1])
        infos.append(info)
        done = terminated or truncated
    return prompts, actions, infos


@pytest.mark.parametrize("task", [*TASKS, UNLOCK])
def test_the_witness_and_the_world_agree_on_what_was_fulfilled(task):
    env = watched(task=task, num_dists=0 if "open" in task else 8, prompt="minimal")
    agreed = 0
    for seed in range(60):
        _, _, infos = random_episode(env, seed)
        mission = infos[-1]["mission"]
        said = [one.steps[-1] for one in env.achieved if one.mission == mission]
        names = re.findall(NAME, mission)
        if not infos[-1]["success"]:  # an episode ends as soon as its mission is fulfilled
            assert not said, (seed, mission)
        elif len(names) == 1:
            assert said == [len(infos) - 1], (seed, mission)
            agreed += 1
        else:  # "A, then A", or with A dropped again, is not told, nor A put back where it was
            assert said in ([], [len(infos) - 1]), (seed, mission)
            agreed += bool(said)
    assert agreed or task in ("putnext", "open", UNLOCK)  # rarely done by chance


def test_what_is_done_on_purpose_is_witnessed_in_all_its_parts():
    tasks = {"putnext": 2, "open": 2, UNLOCK: 2, "pickup": 1, "goto": 1}
    for task, parts in tasks.items():
        env = watched(task=task, num_dists=0)
        for seed in range(5):
            _, info = env.reset(seed=seed)
            action, done, steps = None, False, 0
            while not done:
                action = env.expert_action(action)
                _, _, terminated, truncated, info = env.step(action)
                done, steps = terminated or truncated, steps + 1
            assert info["success"]
            (found,) = [one for one in env.achieved if one.mission == info["mission"]]
            assert len(found.steps) == parts
            assert found.steps[-1] == steps - 1
            assert sorted(found.steps) == list(found.steps)


def test_a_thing_picked_up_and_dropped_again_teaches_once_and_nothing_of_putting():
    env = watched(task="putnext", num_dists=0)
    for seed in range(5):
        env.reset(seed=seed)
        action = None
        while not env.achieved or env.achieved[-1].task != "pickup":
            action = env.expert_action(action)
            env.step(action)
        for _ in range(3):
            env.step("drop")
            env.step("pick up")
        tasks = [one.task for one in env.achieved]
        assert tasks.count("pickup") == 1
        assert "putnext" not in tasks


def test_held_out_things_are_in_no_mission_told():
    env = watched(num_dists=8)
    said = []
    for seed in range(20):
        random_episode(env, seed)
        said += [one.mission for one in env.achieved]
    assert len(said) > 100
    assert not [m for m in said if any(f"{color} {kind}" in m for color, kind in PAIRS)]


@pytest.mark.parametrize("prompt", ["minimal", "goal_last_doors", "transcript", "recap", "glam"])
@pytest.mark.parametrize("wording", [None, "lang_agent.envs.wordings:french"])
def test_told_with_its_own_mission_an_episode_reads_as_it_was_played(prompt, wording):
    env = watched(task="goto", prompt=prompt, wording=wording)
    prompts, actions, _ = random_episode(env, 3)
    own, unused = env.env.unwrapped.mission, np.random.default_rng(0)
    assert list(env.relabelled(own, unused)) == list(zip(prompts, actions, strict=True))
    other = list(env.relabelled("go to a grey box", unused))
    assert [action for _, action in other] == actions
    assert all(a != b for (a, _), b in zip(other, prompts, strict=True))


@pytest.mark.parametrize(
    ("walk", "way"),
    [
        ("abc", [0, 1, 2]),
        ("aab", [1, 2]),  # a bump
        ("abab", [2, 3]),  # to and fro
        ("abcbd", [0, 3, 4]),
        ("abcabd", [3, 4, 5]),  # a loop around a loop
        ("abcbda", [5]),
        ("", []),
    ],
)
def test_loops_are_erased_by_hand(walk, way):
    assert hindsight.without_loops(walk) == way


@given(st.text("abcdef", min_size=1, max_size=40))
def test_a_way_without_loops_is_a_walk_to_the_same_end(walk):
    way = hindsight.without_loops(walk)
    assert way[-1] == len(walk) - 1
    assert len({walk[at] for at in way}) == len(way)
    assert walk[way[0]] == walk[0]
    assert all(walk[at + 1] == walk[then] for at, then in itertools.pairwise(way))


def test_retold_steps_end_where_a_part_was_done_and_say_what_was_done(policy):
    env = watched(num_dists=8, prompt="minimal")
    told: list[Any] = []
    generator = torch.Generator().manual_seed(0)

    def on_end(episode: Any, ended: Any) -> None:
        relabelled = hindsight.relabel(episode, env, policy, 0.5, LearnConfig(), generator)
        told.append((episode, list(env.achieved), relabelled))

    agent = PolicyAgent(policy, 1)
    list(play(agent, [env], range(12), on_end=on_end))
    lengths = []
    for episode, achieved, relabelled in told:
        ends = {step for one in achieved for step in one.steps}
        missions = [one.mission for one in achieved]
        for story in relabelled:
            mission = re.search("Goal: (.*)\n", story.steps[0].observation.prompt)[1]
            assert mission in missions
            sees = [step.observation.prompt.partition("\n")[2] for step in story.steps]
            played = [step.observation.prompt.partition("\n")[2] for step in episode.steps]
            acts = [step.decision.action for step in episode.steps]
            said = [step.decision.action for step in story.steps]
            assert len(set(sees)) == len(sees)
            assert any(
                [(played[at], acts[at]) for at in way[-len(sees) :]]
                == list(zip(sees, said, strict=True))
                for way in (hindsight.without_loops(played[: end + 1]) for end in ends)
            )
            for step in story.steps:
                assert step.decision.action == step.observation.actions[step.decision.choice]
                tokens = step.decision.tokens.context[: step.decision.tokens.position + 1]
                assert tokens == policy.encode_prompt(step.observation.prompt.rstrip(" "))
            lengths.append(len(story.steps))
    assert len(lengths) > 20
    assert 1.3 < sum(lengths) / len(lengths) < 3  # 2, less where the episode's start cuts it


PAID = LearnConfig(discount=0.9, reward_scale=3.0, reward_clip=2.5)


@pytest.mark.parametrize("task", ["goto", "pickup", "putnext", "open"])
def test_a_mission_told_pays_what_the_world_pays_for_it(task):
    env = watched(task=task, num_dists=0)
    for seed in range(5):
        _, info = env.reset(seed=seed)
        action, done = None, False
        while not done:
            action = env.expert_action(action)
            _, reward, terminated, truncated, info = env.step(action)
            done = terminated or truncated
        assert info["success"]
        (own,) = [one for one in env.achieved if one.mission == info["mission"]]
        assert own.reward == reward < 1
        for one in env.achieved:
            steps = one.steps[-1] + 1
            assert one.reward == pytest.approx(1 - 0.9 * steps / env.env.unwrapped.max_steps)


def test_what_is_told_is_scaled_clipped_and_discounted_from_where_it_was_fulfilled(policy):
    """A mission of two parts, done at steps 2 and 5, that pays 0.9 then: scaled by 3, clipped at
    2.5, it is 2.5 there, 2.5 * 0.9^3 at the first part, and so on backward."""
    env = make_doors(prompt="minimal")
    seen = TextObservation("Goal: take red", tuple(DOORS.actions))
    agent = PolicyAgent(policy, 1)
    steps = [Step(seen, agent.record(0, seen, "take red", 0), 0.0, {}) for _ in range(6)]
    env.relabelled = lambda mission, _: iter([(f"Goal: {mission}", "take red")] * 6)
    env._achieved = [Achieved("take", "take pink", (2, 5), reward=0.9)]
    generator = torch.Generator().manual_seed(0)
    lengths = set()
    for _ in range(30):
        for story in hindsight.relabel(
            Episode(0, 0, steps, terminated=True), env, policy, 0.7, PAID, generator
        ):
            (told,) = [
                sample.returns
                for sample in [merged(Learner(policy, PAID).relabelled_samples([story]))]
            ]
            count = len(told)
            ends = {2.5 * 0.9**3: 2, 2.5: 5}
            last = ends[min(ends, key=lambda end: abs(end - told[-1]))]
            assert count <= last + 1
            lengths.add((last, count))
            wanted = [2.5 * 0.9 ** (5 - last + away) for away in range(count)][::-1]
            assert told == pytest.approx(wanted)
    assert {last for last, _ in lengths} == {2, 5}


def merged(samples):
    """All decisions' returns in one."""
    return type("Merged", (), {"returns": [r[0] for s in samples for r in s.returns]})


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_the_gain_is_in_the_units_of_the_critic(policy, scale):
    """A told reward of 1 where the critic has learned half of it leaves the other half."""
    policy = copy.deepcopy(policy)
    seen = TextObservation("Goal: a\nAction:", ("go", "stay"))
    with torch.no_grad():
        policy.value_head.bias.fill_(0.5 * scale)
    told = PolicyAgent(policy, 1).record(0, seen, "go", 0)
    (own,) = PolicyAgent(policy, 1).act([0], [seen])
    story, played = (Episode(0, 0, [Step(seen, d, 1.0, {})], terminated=True) for d in (told, own))
    for clip, gain in ((None, 0.5 * scale), (0.75 * scale, 0.25 * scale)):
        config = LearnConfig(reward_scale=scale, reward_clip=clip, epochs=1)
        learner = Learner(policy, config, optimizer=Optimizer(policy, "adamw", 1e-12, 0.0))
        metrics = learner.update([played], [story])
        assert metrics["hindsight_gain"] == pytest.approx(gain, rel=1e-4)


@pytest.mark.parametrize("count", [1, 4, 40])
def test_a_told_decision_weighs_as_one_of_the_minibatch(policy, count):
    """The gradient is the minibatch's mean plus the told ones' sum over the minibatch's size."""
    config = LearnConfig("reinforce", hindsight_coef=0.5, entropy_coef=0.0, max_grad_norm=1e9)
    seen = TextObservation("Goal: a\nAction:", ("go", "stay"))
    agent = PolicyAgent(policy, 1)

    def sample_of(advantage):
        step = Step(seen, agent.record(0, seen, "go", 0), 0.0, {})
        return to_samples(policy, [Episode(0, 0, [step])], [[[advantage]]], [[[1.0]]], "sum")

    own = [sample for _ in range(8) for sample in sample_of(-1.0)]
    told = [sample for _ in range(count) for sample in sample_of(0.0)]
    likelihood = -policy.action_log_probs([seen.prompt], seen.actions)[0, 0]
    wanted = torch.autograd.grad(likelihood, list(policy.model.parameters()))
    found = []

    class Looking(Optimizer):
        def step(self, *workers):
            found.extend(p.grad.clone() for p in policy.model.parameters())

    look = Looking(policy, "adamw", 1e-3, 0.0)
    gradient_step(Learner(policy, config, optimizer=look), own, told)
    policy.zero_grad(set_to_none=True)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs * (-1 + 0.5 * count / 8), atol=1e-5, rtol=1e-3)


def test_hindsight_teaches_where_no_group_differs(policy):
    policy = copy.deepcopy(policy)
    seen = TextObservation("Goal: a\nAction:", ("go", "stay"))
    played = [
        Episode(at, 0, [Step(seen, PolicyAgent(policy, 1).act([0], [seen])[0], 0.0, {})])
        for at in range(4)
    ]
    step = Step(seen, PolicyAgent(policy, 1).record(0, seen, "stay", 1), 1.0, {})
    story = Episode(0, 0, [step], terminated=True)
    before = policy.action_log_probs([seen.prompt], seen.actions)[0, 1].item()
    for drop in (False, True):
        config = LearnConfig("grpo", drop_flat_groups=drop, entropy_coef=0.0)
        learner = Learner(policy, config, optimizer=Optimizer(policy, "adamw", 1e-3, 0.0))
        learner.update(played, [story])
        after = policy.action_log_probs([seen.prompt], seen.actions)[0, 1].item()
        assert after > before
        before = after


def test_what_is_nearly_certain_is_learned_no_further(policy):
    policy = copy.deepcopy(policy)
    seen = TextObservation("Goal: a\nAction:", ("go", "stay"))
    step = Step(seen, PolicyAgent(policy, 1).record(0, seen, "stay", 1), 1.0, {})
    learner = Learner(policy, LearnConfig("grpo"))
    batch = collate(
        learner.relabelled_samples([Episode(0, 0, [step], terminated=True)]), policy.device
    )
    optimizer = torch.optim.Adam(policy.model.parameters(), lr=1e-3)
    for _ in range(400):
        loss, _ = hindsight_loss(
            policy, ALGORITHMS["grpo"], batch, config=LearnConfig("grpo"), decide=DecideConfig()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() == 0:
            break
    probability = policy.action_log_probs([seen.prompt], seen.actions)[0, 1].exp().item()
    assert loss.item() == 0
    assert 0.9 <= probability < 0.97


def test_hindsight_loss_by_hand(policy):
    """-log pi (R - V)+ of each decision, R discounted from the mission's end."""
    env = watched(task="goto", prompt="minimal")
    told: list[Episode] = []
    generator = torch.Generator().manual_seed(0)

    def on_end(episode: Episode, ended: Any) -> None:
        told.extend(hindsight.relabel(episode, env, policy, 0.9, PAID, generator))

    list(play(PolicyAgent(policy, 1), [env], range(2), on_end=on_end))
    story = max(told, key=lambda story: len(story.steps))
    samples = Learner(policy, PAID).relabelled_samples([story])
    returns = [r for sample in samples for (r,) in sample.returns]
    assert returns[-1] in (pytest.approx(2.5), pytest.approx(3 * story.steps[-1].reward))
    assert returns == pytest.approx([returns[-1] * 0.9**n for n in range(len(returns))][::-1])
    batch = collate(samples, policy.device)
    prompts = [step.observation.prompt for step in story.steps]
    chosen = [step.decision.choice for step in story.steps]
    log_probs = policy.action_log_probs(prompts, story.steps[0].observation.actions)
    log_probs = log_probs[range(len(chosen)), chosen]
    bias = policy.value_head.bias
    before = bias.detach().clone()
    twice = LearnConfig(hindsight_coef=2.0)
    for offset, config in ((0.3, twice), (9.0, twice), (0.3, LearnConfig("grpo"))):
        with torch.no_grad():
            bias.copy_(before + offset)
            values = policy.values(policy.hidden_states(batch.layout), batch.layout)
            loss, measured = hindsight_loss(
                policy, ALGORITHMS[config.algorithm], batch, config=config, decide=DecideConfig()
            )
            bias.copy_(before)
        gain = torch.tensor(returns)
        if config.algorithm == "ppo":
            gain = (gain - values).clamp(min=0)
        by_hand = -(log_probs * gain).sum().item()
        assert loss.item() == pytest.approx(config.hindsight_coef * by_hand, abs=1e-4)
        assert measured["hindsight_loss"].item() == pytest.approx(by_hand, abs=1e-4)
        assert measured["hindsight_gain"].item() == pytest.approx(gain.sum().item(), abs=1e-5)
        assert (loss.item() == 0) == (offset == 9.0)


class Doors(gymnasium.Env):
    """Eight doors, one of them asked for: one step, and no reward whatever is done."""

    metadata = {"render_modes": []}  # noqa: RUF012
    render_mode = None

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Discrete(8)
        self.action_space = gymnasium.spaces.Discrete(8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict]:
        super().reset(seed=seed)
        self.asked = int(self.np_random.integers(8))
        return self.asked, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict]:
        return self.asked, 0.0, True, False, {}


COLOURS = ("red", "green", "blue", "grey", "white", "black", "brown", "pink")
DOORS = World(
    actions={f"take {colour}": at for at, colour in enumerate(COLOURS)},
    renderers={
        "words": lambda asked, env: {"mission": f"take {COLOURS[asked]}", "descriptions": ["doors"]}
    },
    success=lambda env, reward, terminated: False,
    goal_detector=lambda env: lambda action: [Achieved("take", f"take {COLOURS[action]}", (0,))],
)


def make_doors(**options: Any) -> TextEnv:
    return TextEnv(Doors(), DOORS, **options)


gymnasium.register("Doors-v0", entry_point=make_doors)
DOORS_RUN = TrainConfig(
    env="Doors-v0", text=TextConfig(prompt="minimal"), hindsight=0.9, eval_episodes=0
)


def test_a_world_without_any_reward_is_learned_from_what_was_done(tmp_path):
    learn = LearnConfig(minibatch_decisions=64, normalise="none")
    config = replace(DOORS_RUN, steps=2048, rollout_steps=128, learn=learn)
    trainer = Trainer(config, tmp_path)
    metrics: list[dict[str, Any]] = []
    trainer.run(metrics.append)
    assert metrics[0]["hindsight_loss"] > 1.8
    assert metrics[-1]["hindsight_loss"] < 0.5
    assert metrics[0]["hindsight_decisions"] >= 128
    episodes = list(play(trainer.agent(16), trainer.envs, range(10**9, 10**9 + 100)))
    right = [step.decision.action == step.info["mission"] for e in episodes for step in e.steps]
    assert sum(right) / len(right) > 0.8


class Failing(Doors):
    """May raise in the second step of the episodes of odd seeds, after a door was taken."""

    def __init__(self, raises: bool) -> None:
        self.raises = raises

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict]:
        self.odd, self.steps = self.raises and bool((seed or 0) % 2), 0
        return super().reset(seed=seed)

    def step(self, action: int) -> tuple[int, float, bool, bool, dict]:
        self.steps += 1
        if self.odd and self.steps == 2:
            raise RuntimeError("a door fell off")
        return self.asked, 0.0, self.steps == 2, False, {}


def test_of_groups_that_are_left_out_nothing_is_relabelled(policy):
    learn = LearnConfig(algorithm="grpo", group_size=2, target_kl=None)
    config = replace(DOORS_RUN, learn=learn, rollout_steps=24, on_env_error="skip", envs=2)
    envs = [TextEnv(Failing(raises), DOORS, prompt="minimal") for raises in (False, True)]
    for env in envs:
        env.watch()
    player = Player(config, learn, policy, envs)
    rollout = player.collect(Progress(), 0.0, EnvErrors("skip"))
    assert rollout.episodes
    assert rollout.relabelled
    assert {episode.seed % 2 for episode in rollout.episodes} == {0}
    assert {part.index for part in rollout.relabelled} <= {e.index for e in rollout.episodes}


def test_hindsight_needs_a_witness_and_phrases(tmp_path):
    gymnasium.register("Unwitnessed-v0", entry_point=make_bandit)
    with pytest.raises(LangAgentError, match="goal_detector="):
        start(TrainConfig(env="Unwitnessed-v0", hindsight=0.9), tmp_path / "a")
    trpo = replace(DOORS_RUN, learn=LearnConfig(algorithm="trpo"))
    with pytest.raises(LangAgentError, match="trpo has no place"):
        start(trpo, tmp_path / "b")
    with pytest.raises(LangAgentError, match="below 1"):
        TrainConfig(hindsight=1.0)
    with pytest.raises(LangAgentError, match="choices among phrases"):
        TrainConfig(hindsight=0.9, decide=DecideConfig(decide="generate"))


def test_nothing_is_watched_unless_asked():
    env = make(MIXED, task="goto").unwrapped
    list(play(RandomAgent(), [env], range(2)))
    assert env.achieved == []
