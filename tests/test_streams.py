"""What is played depends on seeds alone, and not on how many environments, slots or processes."""

import copy
import multiprocessing
import pickle
from dataclasses import replace

import pytest
import torch
from conftest import make_bandit

import lang_agent
from lang_agent import LanguagePolicy, PolicyAgent, play
from lang_agent.agents.dagger import DAggerAgent
from lang_agent.agents.expert import ExpertAgent
from lang_agent.agents.scripted import RandomAgent
from lang_agent.episode import Agent, Decision, Watched
from lang_agent.learn.config import LearnConfig
from lang_agent.learn.optimizer import Optimizer
from lang_agent.models.decide import DecideConfig
from lang_agent.models.generation import generate
from lang_agent.train.collect import ENOUGH, FIRST_LENGTH, Player, episodes_for
from lang_agent.train.config import TrainConfig
from lang_agent.train.run_folder import Progress
from lang_agent.train.vocabulary import sample_texts

ROOM = "BabyAI-GoToRedBallNoDists-v0"


def make_room(**options):
    return lang_agent.make(ROOM, prompt="minimal", max_steps=12, **options)


@pytest.fixture(scope="module")
def policy():
    texts = sample_texts([make_room()], steps=300)  # each phrase is a token
    return LanguagePolicy.from_scratch("nano", seed=1, texts=texts)


def actions(episodes):
    ordered = sorted(episodes, key=lambda episode: episode.index)
    return [[step.decision.action for step in episode.steps] for episode in ordered]


def agents(policy):
    generating = DecideConfig("generate", max_new_tokens=4)
    return {
        "scored": lambda slots: PolicyAgent(policy, slots),
        "generated": lambda slots: PolicyAgent(policy, slots, generating),
        "critic": lambda slots: PolicyAgent(policy, slots, critic=True),
        "random": lambda slots: RandomAgent(),
        "expert": lambda slots: ExpertAgent(0.5),
        "dagger": lambda slots: DAggerAgent(
            policy, slots, DecideConfig(), expert_share=0.5, noise=0.3
        ),
    }


@pytest.mark.parametrize("name", ["scored", "generated", "critic", "random", "expert", "dagger"])
def test_as_many_at_once_as_one_likes_play_the_same_episodes(policy, name):
    found = [
        actions(play(agents(policy)[name](slots), [make_room() for _ in range(slots)], range(9)))
        for slots in (1, 3, 8)
    ]
    assert found[0] == found[1] == found[2]
    assert len({tuple(said) for said in found[0]}) > 4


def test_two_hundred_episodes_of_the_shipped_policy_have_no_tie_that_rounding_breaks():
    """In float32 a batch of another size rounds otherwise, by some 1e-6 of a probability: a draw
    that falls between the two would be another action."""
    shipped = lang_agent.load_policy("babyai")
    found = [
        actions(
            play(
                PolicyAgent(shipped, slots),
                [lang_agent.make("BabyAI-GoToLocal-v0", like=shipped) for _ in range(slots)],
                range(10**9, 10**9 + 200),
            )
        )
        for slots in (1, 3, 16)
    ]
    assert sum(len(said) for said in found[0]) > 800
    differ = [sum(a != b for a, b in zip(found[0], other, strict=True)) for other in found[1:]]
    assert differ == [0, 0]


def test_episodes_of_one_seed_draw_each_for_itself_and_another_draw_seed_others(policy):
    seeds = [3, 3, 4, 3]
    once = actions(play(PolicyAgent(policy, 2), [make_room(), make_room()], seeds))
    assert len({tuple(said) for said in once}) == 4
    again = actions(play(PolicyAgent(policy, 1), [make_room()], [3, 4], draw_seed=0))
    assert again == [once[0], once[2]]
    other = actions(play(PolicyAgent(policy, 1), [make_room()], [3, 4], draw_seed=1))
    assert all(one != two for one, two in zip(again, other, strict=True))


def test_each_prompt_is_written_on_by_draws_of_its_own(policy):
    prompts = ["Goal: go", "See a red ball", "Goal: go"]
    options = {"max_new_tokens": 6, "stop": None}
    together = generate(policy, prompts, seed=5, **options)
    assert generate(policy, prompts[:1], seed=5, **options) == together[:1]
    assert generate(policy, prompts, seed=6, **options) != together
    assert together[0] != together[2]


# -- rollouts --------------------------------------------------------------------------------------


def collect(policy, envs, steps=200, progress=None, **options):
    config = TrainConfig(env=ROOM, envs=envs, rollout_steps=steps, seed=7, **options)
    made = [make_room() for _ in range(envs)]
    player = Player(config, config.learn, policy, made)
    return player.collect(progress or Progress(), 0.0, lang_agent.stepping.EnvErrors())


@pytest.mark.parametrize("group_size", [1, 4])
def test_the_first_rollout_is_the_same_with_four_or_eight_environments(policy, group_size):
    options = {"learn": LearnConfig(group_size=group_size)}
    four, eight = (collect(policy, envs, **options).episodes for envs in (4, 8))
    assert actions(four) == actions(eight)
    assert [e.seed for e in four] == [e.seed for e in eight]
    assert [e.index for e in four] == list(range(len(four)))
    assert len(four) % group_size == 0
    seeds = [e.seed for e in four[::group_size]]
    assert [e.seed for e in four] == [seed for seed in seeds for _ in range(group_size)]
    values = [
        [step.trace.value for e in episodes for step in e.steps] for episodes in (four, eight)
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-5)
    last = [[e.last_value for e in episodes] for episodes in (four, eight)]
    assert last[0] == pytest.approx(last[1], abs=1e-5)


def test_hindsight_tells_the_same_of_a_rollout_however_many_play_it(policy):
    def told(envs):
        options = {"learn": LearnConfig(), "hindsight": 0.5}
        config = TrainConfig(env=ROOM, envs=envs, rollout_steps=300, seed=7, **options)
        made = [make_room() for _ in range(envs)]
        for env in made:
            env.unwrapped.watch()
        player = Player(config, config.learn, policy, made)
        rollout = player.collect(Progress(), 0.0, lang_agent.stepping.EnvErrors())
        return [[step.observation.prompt for step in e.steps] for e in rollout.relabelled]

    assert told(2) == told(5) != []


def test_as_many_episodes_are_played_as_will_have_the_steps_that_are_wanted(policy):
    assert episodes_for(500, [10, 20, 30], 1) == 25
    assert episodes_for(500, [10, 20, 30], 4) == 28
    assert episodes_for(1, [1000], 4) == 4
    assert episodes_for(FIRST_LENGTH * 3, [], 1) == 3
    for wanted in (40, 400):
        rollout = collect(policy, 4, steps=wanted)
        steps = sum(len(episode.steps) for episode in rollout.episodes)
        assert ENOUGH * wanted <= steps <= 1.5 * wanted
    known = Progress(episodes=30, recent=[[0.0, 0.0, 0, 10]] * 60)
    later = collect(policy, 4, steps=100, progress=known).episodes
    assert [episode.index for episode in later][:10] == list(range(30, 40))


# -- a critic --------------------------------------------------------------------------------------


class Counting(Watched):
    """Counts what its agent is asked."""

    asked = valued = 0

    def act(self, slots, observations):
        self.asked += len(slots)
        return super().act(slots, observations)

    def values(self, slots, observations):
        self.valued += len(slots)
        return super().values(slots, observations)


def test_only_a_critic_is_asked_after_an_episode_was_cut_off(policy):
    for critic in (False, True):
        agent = Counting(PolicyAgent(policy, 2, critic=critic))
        episodes = list(play(agent, [make_room(), make_room()], range(6)))
        cut = [episode for episode in episodes if episode.truncated]
        assert len(cut) > 0
        assert agent.asked == sum(len(episode.steps) for episode in episodes)
        assert agent.valued == (len(cut) if critic else 0)
        assert all((e.last_value != 0) <= (critic and e.truncated) for e in episodes)


def test_the_value_of_a_cut_off_state_is_the_critics_of_its_prompt(policy):
    policy = copy.deepcopy(policy)
    torch.nn.init.normal_(policy.value_head.weight)
    env = make_room()
    (episode,) = play(PolicyAgent(policy, 1, critic=True), [env], [2])
    assert episode.truncated
    prompt, _ = env.reset(seed=2)
    for step in episode.steps:
        prompt, *_ = env.step(step.decision.action)
    (decision,) = PolicyAgent(policy, 1).act(
        [0], [replace(episode.steps[-1].observation, prompt=prompt)]
    )
    assert episode.last_value == pytest.approx(decision.tokens.value, abs=1e-5)


# -- policies and environments that travel ---------------------------------------------------------


def test_an_agent_that_outlives_an_update_answers_from_the_new_weights(policy):
    policy = copy.deepcopy(policy)
    envs = [make_room(), make_room()]
    old = PolicyAgent(policy, 2)
    list(play(old, envs, range(4)))
    seen = make_room().reset(seed=0)
    observation = lang_agent.episode.TextObservation(seen[0], tuple(seen[1]["actions"]))
    old.begin(0, 1)
    (before,) = old.act([0], [observation])
    version = policy.version
    optimizer = Optimizer(policy, "muon", 1e-2, 0.0)
    (-policy.action_log_probs([seen[0]], observation.actions)[0, 0]).backward()
    optimizer.step()
    assert policy.version != version
    answers = []
    for agent in (old, PolicyAgent(policy, 2)):
        agent.begin(0, 1)
        answers.append(agent.act([0], [observation])[0].tokens)
    assert answers[0].log_probs == pytest.approx(answers[1].log_probs, abs=1e-6)
    assert answers[0].value == pytest.approx(answers[1].value, abs=1e-6)
    assert before.tokens.log_probs != pytest.approx(answers[0].log_probs, abs=1e-4)


def answer(policy, env, queue=None):
    """What a policy says in an episode that an environment is in the middle of."""
    said = []
    prompt, info = env.reset(seed=11)
    agent = PolicyAgent(policy, 1)
    agent.begin(0, 5)
    for _ in range(6):
        seen = lang_agent.episode.TextObservation(prompt, tuple(info["actions"]))
        (decision,) = agent.act([0], [seen])
        said.append((prompt, decision.action, *decision.tokens.log_probs))
        prompt, _, terminated, truncated, info = env.step(decision.action)
        if terminated or truncated:
            break
    if queue is not None:
        queue.put(said)
    return said


def test_a_policy_and_an_environment_travel_to_another_process_and_answer_the_same(policy):
    env = lang_agent.make("BabyAI-MixedLocal-v0", prompt="recap")
    answer(policy, env)  # caches are filled
    wanted = answer(policy, env)
    for travel in (copy.deepcopy, lambda whole: pickle.loads(pickle.dumps(whole))):
        other = travel(policy)
        assert answer(other, travel(env)) == wanted
        with torch.no_grad():
            other.model.transformer.ln_f.weight.mul_(3.0)  # a copy is nobody else's
    assert answer(policy, env) == wanted
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=answer, args=(policy, env, queue))
    child.start()
    found = queue.get(timeout=120)
    child.join()
    for one, other in zip(found, wanted, strict=True):
        assert one[:2] == other[:2]
        assert one[2:] == pytest.approx(other[2:], abs=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "BabyAI-GoToLocal-v0",
        "BabyAI-Open-v0",
        "BabyAI-MixedLocal-v0",
        "MiniGrid-DoorKey-5x5-v0",
        "TextGeneration-v0",
        "Dialogue-v0",
    ],
)
def test_a_copy_of_an_environment_goes_on_from_where_it_was(name):
    env = lang_agent.make(name)
    prompt, info = env.reset(seed=4)
    draw = RandomAgent()
    draw.begin(0, 1)

    def step(world):
        actions = info["actions"]
        said = "a line of text" if actions is None else actions[len(prompt) % len(actions)]
        return world.step(said)

    if info["actions"] is not None:
        prompt, _, _, _, info = step(env)
    copies = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
    wanted = step(env)
    for other in copies:
        assert step(other)[:4] == wanted[:4]
    assert [other.reset(seed=9)[0] for other in copies] == [env.reset(seed=9)[0]] * 2


def test_a_template_of_ones_own_travels_with_all_that_it_uses(tmp_path):
    (tmp_path / "part.jinja").write_text("{{ step }}:")
    (tmp_path / "own.jinja").write_text("{% include 'part.jinja' %} {{ mission }}")
    env = lang_agent.make(ROOM, prompt=str(tmp_path / "own.jinja"))
    text, _ = env.reset(seed=0)
    packed = pickle.dumps(env)
    (tmp_path / "part.jinja").write_text("changed")
    (tmp_path / "own.jinja").unlink()
    assert pickle.loads(packed).reset(seed=0)[0] == text


def test_what_is_no_agent_is_refused_by_its_name():
    class Duck:
        def act(self, slots, observations):
            raise AssertionError("nobody asks it")

    with pytest.raises(lang_agent.LangAgentError, match="Duck is no agent"):
        list(play(Duck(), [make_bandit()], [0]))


def test_an_agent_that_learns_nothing_is_refused_where_tokens_are_needed():
    class Silent(Agent):
        def act(self, slots, observations):
            return [Decision("go left") for _ in slots]

    (episode,) = play(Silent(), [make_bandit()], [0])
    with pytest.raises(lang_agent.LangAgentError, match="no tokens to learn from"):
        _ = episode.steps[0].trace
