"""Imitation: wordings, the bot's labels, demonstrations on disk, mixtures."""

import gzip
import itertools
import json
import multiprocessing
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import BANDIT, Bandit, make_bandit
from lang_agent.envs import held_out, wordings

import lang_agent
from lang_agent.agents.dagger import DAggerAgent
from lang_agent.agents.expert import ExpertAgent
from lang_agent.agents.scripted import RandomAgent
from lang_agent.cli.main import run
from lang_agent.errors import LangAgentError
from lang_agent.language_env import ExpertLostError
from lang_agent.learn.config import ImitationConfig, LearnConfig
from lang_agent.learn.demonstrations import (
    Demonstrations,
    read_demonstrations,
    write_demonstrations,
)
from lang_agent.learn.learner import Learner
from lang_agent.learn.optimizer import Optimizer
from lang_agent.learn.sequences import expert_choice, to_samples
from lang_agent.models.decide import DecideConfig
from lang_agent.models.policy import LanguagePolicy
from lang_agent.models.tokenizer import knowledge_of, slot_tokens, train_tokenizer
from lang_agent.rollout import play
from lang_agent.stepping import EnvError, EnvErrors
from lang_agent.text_env.config import TextConfig
from lang_agent.text_env.env import TextEnv
from lang_agent.text_env.mixture import make_mixture
from lang_agent.text_env.registry import text_env_ids
from lang_agent.text_env.wording import Wording
from lang_agent.train import stream
from lang_agent.train.config import TrainConfig
from lang_agent.train.curriculum import learnable
from lang_agent.train.demonstrate import demonstrate, label_own
from lang_agent.train.run_folder import Progress
from lang_agent.train.trainer import resume, start
from lang_agent.train.vocabulary import sample_texts

ENV = "BabyAI-MixedLocal-v0"
NAMES = (*wordings.NOUNS, *wordings.COLORS)
TEXT = TextConfig(prompt="recap", env_args=("num_dists=2",))
CARRIED = "See: You carry a "


def knowing_bandit(**options):
    """The bandit of the tests, with an expert who reads the sign."""
    world = replace(BANDIT, expert=lambda env, wording: lambda last: env.unwrapped.state)
    return TextEnv(Bandit(), world, **options)


# -- wordings ----------------------------------------------------------------------------------


def test_a_wording_renames_whole_words_of_mission_and_descriptions_and_the_phrases():
    wording = Wording(words={"key": "car", "red": "zarn"}, actions={"drop": "release"})
    fields = wording.fields(
        {
            "mission": "put the red key next to a keyboard",
            "descriptions": ["You see a red key 1 step left"],
            "actions": ("drop", "toggle"),
            "other": "red key",
        }
    )
    assert fields["mission"] == "put the zarn car next to a keyboard"
    assert fields["descriptions"] == ["You see a zarn car 1 step left"]
    assert fields["actions"] == ("release", "toggle")
    assert fields["other"] == "red key"
    assert wording.phrases({"drop": 4, "toggle": 5}) == {"release": 4, "toggle": 5}
    with pytest.raises(LangAgentError, match="one name to different actions"):
        Wording(actions={"drop": "toggle"}).phrases({"drop": 4, "toggle": 5})


def test_the_same_seed_draws_the_same_wording_and_the_renamed_phrases_act():
    env = lang_agent.make(ENV, wording="lang_agent.envs.wordings:varied", num_dists=2)
    first, info = env.reset(seed=3)
    plain, _ = lang_agent.make(ENV, num_dists=2).reset(seed=3)
    assert any(env.reset(seed=seed)[0] != first for seed in range(4, 8))
    assert env.reset(seed=3)[0] == first
    _, _, _, _, after = env.step(info["actions"][0])
    assert after["verdict"] == "exact"
    synonyms = lang_agent.make(ENV, wording=wordings.synonyms, num_dists=2)
    text, info = synonyms.reset(seed=3)
    assert info["actions"][:3] == ("rotate left", "rotate right", "move ahead")
    assert text == plain.replace("turn", "rotate").replace("go forward", "move ahead").replace(
        "pick up, drop, toggle", "take, release, switch"
    )


def test_no_tested_word_is_ever_trained_on():
    rng = np.random.default_rng(0)
    tested = [wordings.new_nouns(rng), wordings.invented(rng), wordings.synonyms(rng)]
    words = {word for w in tested for word in w.words.values()}
    said = {word for w in tested for phrase in w.actions.values() for word in phrase.split()}
    said -= {"left", "right"}
    drawn = [wording(rng) for wording in (wordings.varied, wordings.phrased) for _ in range(3000)]
    pools = {word for w in drawn for word in w.words.values()}
    phrases = [phrase for w in drawn for phrase in w.actions.values()] + list(wordings.PHRASES)
    spoken = {word for phrase in phrases for word in phrase.split()}
    assert not (words | said) & (pools | spoken)
    assert len(pools) > 1000  # invented ones among them


def test_paraphrased_goals_name_the_same_things_in_other_words():
    draw = np.random.default_rng(0)
    said = set()
    for mission in (
        "go to the red ball", "pick up a key, then go to the blue box", "open the yellow door",
        "put the red ball next to the green key", "go to a box after you pick up the grey key",
    ):  # fmt: skip
        for _ in range(30):
            other = wordings.paraphrased(draw).mission(mission)
            said.add(other)
            assert other != mission
            for phrase in (
                "go to",
                "pick up",
                "open the",
                "put the",
                "next to",
                "after you",
                ", then",
            ):
                assert not other.startswith(phrase)
            for word in ("red ball", "key", "box", "yellow door"):
                assert (word in mission) == (word in other)
    assert len(said) > 25


def test_where_things_are_renamed_every_name_is_one_token_whether_known_or_not(tmp_path):
    envs = [
        lang_agent.make(ENV, wording=wording, num_dists=2, prompt="rooms", renderer="rooms")
        for wording in (wordings.varied, None)
    ]
    policy = LanguagePolicy.from_scratch(
        "nano", seed=0, texts=sample_texts(envs), names=envs[0].unwrapped.renamed_words
    )
    policy.save_pretrained(tmp_path)
    tested = ("red ball", "zarn dax", "red wug", "zarn ball", "dax", "red door", "zarn door")
    for reader in (policy, LanguagePolicy.from_pretrained(tmp_path)):
        of = {name: reader.encode(f" {name}") for name in (*tested, *held_out.PHRASES)}
        assert {len(tokens) for tokens in of.values()} == {1}
        assert len({*map(tuple, of.values())}) == len(of)  # no two of these share a token
        for name in tested:
            tokens = reader.encode(
                f"Here: wall 2 left, {name} 2 left 1 forward, green key 3 right\n"
                f"Did: turn left\nput the {name} next to the {name}, then pick up the {name}:"
            )
            assert tokens.count(of[name][0]) == 4
            assert tokens[-2] == of[name][0]
        assert reader.tokenizer.decode(reader.encode("go to the red ball")) == "go to the red ball"
        for phrase in held_out.PHRASES:
            tokens = reader.encode(
                f"Say: 1: turn left 2: {phrase} 3: drop\nHere: wall 2 left, red ball 1 left\n"
                f"Did: {phrase} (in vain), {phrase}, drop\ngo to the red ball:"
            )
            assert tokens.count(of[phrase][0]) == 3
    plain = LanguagePolicy.from_scratch("nano", seed=0, texts=sample_texts(envs[1:]))
    assert len(plain.encode(" squibbish")) > 1
    assert plain.tokenizer.decode(plain.encode(" squibbish")) == " squibbish"


def test_what_has_no_invented_word_is_read_as_a_whole():
    """Also in lines that have one: the pieces beside it."""
    env = lang_agent.make(
        ENV, wording=wordings.phrased, num_dists=2, prompt="rooms", renderer="rooms"
    )
    tokenizer = train_tokenizer(sample_texts([env]), 2048, env.unwrapped.renamed_words)
    (say,) = tokenizer("Say:")["input_ids"]
    assert tokenizer.decode([say]) == "Say:"


@pytest.mark.parametrize("prompt", ["recap", "goal_last"])  # the latter does not list the actions
def test_a_tokenizer_never_knows_a_word_invented_for_an_episode(prompt):
    env = lang_agent.make(ENV, wording=wordings.varied, num_dists=2, prompt=prompt)
    tokenizer = train_tokenizer(sample_texts([env], steps=3000), 2048, env.unwrapped.renamed_words)
    rng = np.random.default_rng(0)
    invented = {word for _ in range(1000) for word in wordings.varied(rng).words.values()}
    words = knowledge_of(tokenizer)
    assert {"next", "forward", "toggle"} <= words.others
    assert not words.others & {*NAMES}
    assert not {*" ".join((*words.others, *words.names)).split()} & invented


@pytest.mark.parametrize(
    ("mission", "french"),
    [
        ("go to the red ball", "aller à la balle rouge"),
        ("pick up a box", "ramasser une boîte"),
        ("open the yellow door", "ouvrir la porte jaune"),
        ("put the grey key next to a ball", "mettre la clef grise à côté de une balle"),
        ("pick up a key, then go to the box", "ramasser une clef, puis aller à la boîte"),
        ("go to the box after you pick up a key",
         "aller à la boîte après avoir fait ceci : ramasser une clef"),
        ("put the ball on your left next to a door, then open a door and go to the red object",
         "mettre la balle à ta gauche à côté de une porte, puis ouvrir une porte et aller à "
         "l'objet rouge"),
        ("you must fetch a green ball", "aller chercher une balle verte"),
        ("avoid the lava and get to the green goal square",
         "éviter la lave et atteindre la case verte du but"),
        ("get the red key from the blue room, unlock the red door and go to the goal",
         "prendre la clef rouge dans la pièce bleue, déverrouiller la porte rouge et aller au but"),
        ("use the key to open the door and then get to the goal",
         "avec la clef ouvrir la porte, puis atteindre le but"),
    ],
)  # fmt: skip
def test_missions_in_french(mission, french):
    assert wordings.in_french(mission) == french


ENGLISH = """a after an and at avoid ball behind blue box door end fetch find from front get go goal
green grey hallway in key left matching must near next object of on open opening pick purple put
reach red right room rooms square the then to traverse unlock up use yellow you your"""


def test_no_level_has_a_mission_of_two_languages():
    ids = [i for i in text_env_ids() if i.startswith(("MiniGrid", "BabyAI"))]
    assert len(ids) > 100
    for env_id in ids:
        env = lang_agent.make(env_id, wording=wordings.french)
        for seed in range(2):
            _, info = env.reset(seed=seed)
            mission = info["mission"]
            assert not {*ENGLISH.split()} & {*re.findall(r"[a-z]+", mission)}, (env_id, mission)


@pytest.mark.parametrize("prompt", ["transcript", "minimal", "goal_last"])
def test_a_whole_episode_in_french(prompt):
    env = lang_agent.make(ENV, task="goto", wording=wordings.french, prompt=prompt)
    (episode,) = play(ExpertAgent(), [env], [1])
    text = episode.steps[-1].observation.prompt
    assert episode.success
    words = {*re.findall(r"[a-z]+", text.replace("Actions :", "").replace("Action :", "").lower())}
    assert not {*ENGLISH.split(), "goal", "see", "action", "forward", "step", "steps"} & words


# -- experts -----------------------------------------------------------------------------------


def test_a_noisy_bot_records_what_it_wanted():
    envs = [TEXT.make(ENV)]
    agent = ExpertAgent(noise=0.5)
    steps = [step for episode in play(agent, envs, range(6)) for step in episode.steps]
    wanted = [step.observation.expert for step in steps]
    differ = sum(step.decision.action != want for step, want in zip(steps, wanted, strict=True))
    assert 0.2 < differ / len(steps) < 0.6


def toggled_with(episode):
    """What was in the hand when something was toggled, in order."""
    see = [
        step.observation.prompt.split("\n")[-2]
        for step in episode.steps
        if step.decision.action == "toggle"
    ]
    return [line.removeprefix(CARRIED).split(", ")[0] for line in see if line.startswith(CARRIED)]


def test_where_a_key_has_another_name_the_bot_tries_what_has_the_doors_colour():
    options = {"task": "open", "num_dists": 8, "prompt": "recap"}
    strange = lang_agent.make(ENV, wording=wordings.new_nouns, **options)
    plain = lang_agent.make(ENV, **options)
    seeds = range(30)
    episodes = list(play(ExpertAgent(), [strange], seeds))
    assert all(episode.success for episode in episodes)
    tried = [toggled_with(episode) for episode in episodes]
    assert 5 < sum(len(things) > 1 for things in tried) < len(seeds)  # some at once, others not
    for things in tried:
        assert len({*things}) == len(things)
        assert len({thing.split()[0] for thing in things}) == 1  # of one colour, the door's
    knowing = play(ExpertAgent(), [plain], seeds)
    assert all(len(toggled_with(episode)) == 1 for episode in knowing)
    strayed = play(ExpertAgent(0.3), [strange], seeds)
    assert sum(episode.success for episode in strayed) > 20


def test_the_bot_goes_back_to_a_thing_that_was_put_down():
    env = lang_agent.make(ENV, wording=wordings.new_nouns, task="open", num_dists=8, max_steps=128)
    noisy = ExpertAgent(0.5)
    (episode,) = play(noisy, [env], [190])
    did = [step.decision.action for step in episode.steps]
    assert "drop" in did
    again = did.index("drop") + 1 + did[did.index("drop") :].index("pick up")
    assert any(step.observation.expert for step in episode.steps[again:])


def test_a_lost_expert_leaves_no_label():
    class Lost(TextEnv):
        def expert_action(self, last_action):
            raise ExpertLostError("gone")

    env = Lost(Bandit(), BANDIT)
    (episode,) = play(ExpertAgent(), [env], [0])
    assert [step.observation.expert for step in episode.steps] == [None]


@pytest.mark.parametrize(
    ("rule", "right"),
    [("sum", "go right"), ("constrained", "go right now")],  # its first token alone tells nothing
)
def test_the_dagger_agent_labels_its_own_states_and_learns_from_them(rule, right):
    said = {"go left": "go left", right: "go right"}
    envs = [knowing_bandit(prompt="minimal", actions=said) for _ in range(16)]
    texts = [env.reset(seed=n)[0] for n, env in enumerate(envs)]
    prose = rule == "constrained"  # a token for each word
    policy = LanguagePolicy.from_scratch("nano", seed=0, texts=texts, prose=prose)
    decide = DecideConfig(decide=rule)
    config = LearnConfig(algorithm="imitation", epochs=2, minibatch_decisions=64, target_kl=None)
    learner = Learner(policy, config, decide, optimizer=Optimizer(policy, "muon", 2e-3, 0.0))
    for share in (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0):
        agent = DAggerAgent(policy, 16, decide, expert_share=share, noise=0.2)
        episodes = list(play(agent, envs, range(64)))
        for episode in episodes:
            (step,) = episode.steps
            sign = step.observation.prompt.partition("points ")[2].split()[0]
            assert said[step.observation.expert] == f"go {sign}"
        nothing = [[[0.0]]] * len(episodes)
        for sample in to_samples(policy, episodes, nothing, nothing, rule, imitate=True):
            assert [len(log_probs) for log_probs in sample.log_probs] == [1]  # left or right
        metrics = learner.update(episodes)
    assert "approx_kl" not in metrics
    assert metrics["policy_loss"] < 0.1
    assert np.mean([episode.total_reward for episode in episodes]) > 0.8  # a tenth goes astray


@pytest.mark.parametrize(("noise", "right"), [(0.0, 32), (0.5, 24), (1.0, 16)])
def test_in_the_experts_episodes_the_policy_takes_a_share_of_the_steps(noise, right):
    envs = [knowing_bandit(prompt="minimal") for _ in range(32)]
    policy = LanguagePolicy.from_scratch(
        "nano", seed=0, texts=[env.reset(seed=0)[0] for env in envs]
    )
    agent = DAggerAgent(policy, 32, DecideConfig(), expert_share=1.0, noise=noise)
    decisions = [episode.steps[0] for episode in play(agent, envs, range(32))]
    taken = [step.decision.action for step in decisions]
    wanted = [step.observation.expert for step in decisions]
    agreed = sum(one == other for one, other in zip(taken, wanted, strict=True))
    by_chance = 6 if noise else 0  # an untrained policy is right in half of its steps
    assert abs(agreed - right) <= by_chance


# -- demonstrations ----------------------------------------------------------------------------


def test_demonstrations_come_back_as_they_were_whoever_played_them_and_in_order(tmp_path):
    one = list(demonstrate(ENV, TEXT, 60, seed=5, noise=0.2))
    two = list(demonstrate(ENV, TEXT, 60, seed=5, noise=0.2, workers=2))
    assert [e.seed for e in one] == list(range(5, 65))
    actions = [[step.decision.action for step in e.steps] for e in one]
    assert actions == [[step.decision.action for step in e.steps] for e in two]
    file = tmp_path / "demos.jsonl.gz"
    assert write_demonstrations(file, ENV, one) == 60
    back = read_demonstrations(file)
    assert [[step.decision.action for step in e.steps] for e in back] == actions
    for episode, again in zip(one, back, strict=True):
        assert again.success == episode.success
        assert again.total_reward == pytest.approx(episode.total_reward)
        for step, copy in zip(episode.steps, again.steps, strict=True):
            assert copy.observation == step.observation
    with gzip.open(file, "rt") as lines:
        assert (
            json.loads(lines.readline())["steps"][0]["wanted"]
            in one[0].steps[0].observation.actions
        )


def test_an_agent_that_says_nothing_of_what_is_right_demonstrates_nothing(tmp_path):
    file = tmp_path / "demos.jsonl"
    played = list(play(RandomAgent(), [make_bandit()], range(20)))
    assert {step.observation.expert for episode in played for step in episode.steps} == {None}
    write_demonstrations(file, ENV, played)
    wanted = [json.loads(line)["steps"][0]["wanted"] for line in file.open()]
    assert wanted == [None] * 20
    with pytest.raises(LangAgentError, match="holds no action to learn"):
        read_demonstrations(file)
    write_demonstrations(tmp_path / "own.jsonl", ENV, map(label_own, played))
    for episode in read_demonstrations(tmp_path / "own.jsonl"):
        (step,) = episode.steps
        assert step.observation.expert == step.decision.action


def test_every_pass_over_a_file_has_each_episode_once_and_contexts_that_grow(tmp_path):
    file = tmp_path / "demos.jsonl"
    growing = TextConfig(env_args=("num_dists=2",))
    write_demonstrations(file, ENV, demonstrate(ENV, growing, 10))
    policy = LanguagePolicy.from_scratch("nano", seed=0)
    demos = Demonstrations(file, policy, seed=1)
    steps = sum(len(episode.steps) for episode in read_demonstrations(file))
    first = demos.after(0, steps)
    assert sorted(e.seed for e in first) == list(range(10))
    assert [e.seed for e in demos.after(10, steps)] != [e.seed for e in first]
    assert [e.seed for e in demos.after(3, 1)] == [first[3].seed]
    contexts = [step.decision.tokens.context for step in first[0].steps]
    assert all(context is contexts[0] for context in contexts)
    prompt = policy.encode_prompt(first[0].steps[-1].observation.prompt)
    assert contexts[0][: len(prompt)] == prompt


def test_a_broken_file_is_named_with_its_line(tmp_path):
    file = tmp_path / "demos.jsonl"
    file.write_text('{"env": "x", "seed": 1}\n')
    with pytest.raises(LangAgentError, match=r"demos.jsonl', line 1, is no demonstration"):
        read_demonstrations(file)
    with pytest.raises(LangAgentError, match="Cannot read the demonstrations"):
        read_demonstrations(tmp_path / "none.jsonl")
    (episode,) = play(RandomAgent(), [make_bandit()], [0])
    episode.steps[0].decision = replace(episode.steps[0].decision, action="fly")
    write_demonstrations(tmp_path / "none.jsonl", ENV, [label_own(episode)])
    with pytest.raises(LangAgentError, match="holds no action to learn"):
        read_demonstrations(tmp_path / "none.jsonl")


def test_demos_then_imitate_then_evaluate(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--prompt", "recap", "--env-args", "num_dists=0", "task=goto"]
    run(["demos", ENV, "--episodes", "30", "--out", "d.jsonl.gz", *words])
    with pytest.raises(LangAgentError, match="is there already"):
        run(["demos", ENV, "--episodes", "30", "--out", "d.jsonl.gz", *words])
    run(
        ["imitate", "--env", ENV, "--demonstrations", "d.jsonl.gz", "--steps", "300",
         "--rollout-steps", "150", "--eval-episodes", "4", "--out", "run", *words]
    )  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").open()]
    assert lines[-1]["policy_loss"] < lines[0]["policy_loss"]
    run(["evaluate", ENV, "--agent", "run", "--episodes", "4", "--json", "e.json"])
    assert json.loads((tmp_path / "e.json").read_text())["evaluations"][0]["episodes"] == 4
    assert "30 episodes" in capsys.readouterr().out
    run(["export", "run", "model", "--half"])
    run(["evaluate", ENV, "--agent", "model", "--episodes", "4", "--json", "f.json"])
    assert (tmp_path / "model/model.safetensors").stat().st_size < 2.5e6
    with pytest.raises(LangAgentError, match="is there already"):
        run(["export", "run", "model"])


# -- mixtures ----------------------------------------------------------------------------------


def test_a_mixture_draws_its_parts_by_weight_and_seed():
    parts = [f"{ENV} task=goto weight=3", f"{ENV} task=open"]
    mixture = make_mixture(TEXT, parts)
    drawn = [mixture.reset(seed=seed)[1] for seed in range(200)]
    assert 0.65 < np.mean([info["part"] == 0 for info in drawn]) < 0.85
    assert {(info["part"], info["task"]) for info in drawn} == {(0, "goto"), (1, "open")}
    again = make_mixture(TEXT, parts)
    assert [again.reset(seed=seed)[1]["part"] for seed in range(200)] == [i["part"] for i in drawn]
    with pytest.raises(LangAgentError, match="must be a number above 0"):
        make_mixture(TEXT, [f"{ENV} weight=-1"])


def test_a_curriculum_moves_weight_to_what_half_succeeds():
    outcomes = [(0, 1.0)] * 8 + [(1, 1.0)] * 4 + [(1, 0.0)] * 4
    # p = 9/10, 1/2 and, unknown, 1/2
    expected = [1 * 4 * 0.9 * 0.1, 2 * 1.0, 1 * 1.0]
    assert learnable([1, 2, 1], outcomes) == pytest.approx(expected)
    assert learnable([1], [(0, 1.0)] * 1000) == [pytest.approx(0.1)]
    with pytest.raises(LangAgentError, match="mixture of at least two"):
        TrainConfig(curriculum="learnable")


def test_a_run_on_a_mixture_follows_its_curriculum(tmp_path):
    config = TrainConfig(
        mixture=(f"{ENV} task=goto max_steps=8", f"{ENV} task=putnext max_steps=8"),
        curriculum="learnable",
        text=TEXT,
        steps=300,
        rollout_steps=150,
        envs=4,
        eval_episodes=0,
        learn=LearnConfig(algorithm="imitation", epochs=1, target_kl=None),
        imitation=ImitationConfig(noise=0.0),
    )
    trainer = start(config, tmp_path / "run")
    trainer.run()
    assert {part for _, _, part, _ in trainer.progress.recent} == {0, 1}
    assert trainer.envs[0].unwrapped.drawn_weights not in (None, [1.0, 1.0])
    rows = trainer.evaluate(6)
    assert [row.task for row in rows] == ["mixture goto", "mixture putnext", "mixture (all)"]
    assert trainer.envs[0].unwrapped.drawn_weights is None
    assert trainer.envs[0].unwrapped.weights == [1.0, 1.0]


# -- a stream of demonstrations --------------------------------------------------------------------


def streamed(folder, processes, updates=None):
    config = replace(RUN_OF_A_STREAM, imitation=ImitationConfig(processes=processes, noise=0.3))
    run, learned = start(config, folder), []

    def on_update(metrics):
        run.stop = metrics["updates"] == updates

    run.run(on_update, on_episode=learned.append)
    return run, learned


RUN_OF_A_STREAM = TrainConfig(
    mixture=("BabyAI-GoToObjS4-v0 max_steps=20", "BabyAI-GoToLocalS5N2-v0"),
    text=TextConfig(prompt="minimal"),
    model="pico",
    steps=600,
    rollout_steps=200,
    precision="fp32",
    eval_episodes=0,
    snapshot_every=0,
    track=("none",),
    seed=3,
    learn=LearnConfig(algorithm="imitation", epochs=1),
)


class Here:
    """In place of a process that plays: this one."""

    def __init__(self, first, every, *about):
        self.player, self.numbers = stream.PartPlayer(*about), itertools.count(first, every)
        self.asked = []

    def next_part(self):
        self.asked.append(next(self.numbers))
        return self.player.play(self.asked[-1])

    def close(self):
        pass


def test_a_stream_is_learned_in_order_and_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "PlayingProcess", Here)
    one, learned = streamed(tmp_path / "one", 1)
    _, others = streamed(tmp_path / "two", 2, updates=2)
    two = resume(tmp_path / "two")
    two.run(on_episode=others.append)
    assert [e.index for e in learned] == list(range(len(learned)))
    assert [e.index for e in others] == list(range(len(learned)))
    for name, ours in one.policy.state_dict().items():
        assert torch.equal(ours, two.policy.state_dict()[name]), name
    env = RUN_OF_A_STREAM.text.make(RUN_OF_A_STREAM.mixture[0])
    assert any(step.observation.prompt == env.reset(seed=e.seed)[0]
               for e in learned for step in e.steps[:1])  # fmt: skip
    for e in learned:
        assert expert_choice(e.steps[-1]) is not None
        assert set(e.steps[0].info) <= set(stream.KEPT)
        assert e.steps[0].decision.by_expert


def test_a_streams_prompts_are_kept_within_what_the_policy_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "PlayingProcess", Here)
    config = replace(
        RUN_OF_A_STREAM,
        text=TextConfig(prompt="transcript"),
        mixture=("BabyAI-GoToLocal-v0", "BabyAI-GoToObj-v0"),
        context=180,
        steps=300,
        imitation=ImitationConfig(processes=1, noise=0.9),
    )
    run, learned = start(config, tmp_path / "run"), []
    run.run(on_episode=learned.append)
    longest = max(len(s.decision.tokens.context) for e in learned for s in e.steps)
    assert 120 < longest <= 180


def playing_process(config, folder):
    """One that plays for a stream, as a run has it, and as the system does."""
    policy = start(RUN_OF_A_STREAM, folder).policy
    before = multiprocessing.active_children()
    playing = stream.PlayingProcess(0, 1, config, policy.codec, None)
    (process,) = [child for child in multiprocessing.active_children() if child not in before]
    return playing, process


def test_a_process_of_a_stream_that_is_killed_half_way_through_a_part_is_a_sentence(tmp_path):
    playing, process = playing_process(RUN_OF_A_STREAM, tmp_path / "run")
    assert [episode.index for episode in playing.next_part()] == list(range(stream.PART))
    time.sleep(3)  # it fills the pipe, and waits for us with the rest
    process.kill()
    process.join()
    with pytest.raises(LangAgentError, match=r"A process that plays \(.*\) was killed"):
        [playing.next_part() for _ in range(1 + stream.AHEAD)]


def test_a_process_of_a_stream_ends_when_nobody_reads_its_parts(tmp_path):
    playing, process = playing_process(RUN_OF_A_STREAM, tmp_path / "run")
    playing.next_part()
    assert process.is_alive()
    playing.close()
    process.join(60)
    assert process.exitcode == 0


def test_what_fails_in_a_process_of_a_stream_is_raised_by_who_reads_it(tmp_path):
    config = replace(RUN_OF_A_STREAM, mixture=("BabyAI-GoToObj-v0", "NoSuchWorld-v0"))
    playing, process = playing_process(config, tmp_path / "run")
    with pytest.raises(LangAgentError, match="NoSuchWorld-v0"):
        playing.next_part()
    process.join(60)
    assert process.exitcode == 0


def test_what_nobody_expected_in_a_process_of_a_stream_keeps_its_traceback(monkeypatch):
    class Failing:
        def __init__(self, *about):
            pass

        def play(self, number):
            return [] if number < 3 else {}["the key"]

    monkeypatch.setattr(stream, "PartPlayer", Failing)
    *parts, error = stream._parts(itertools.count(1), RUN_OF_A_STREAM, None, None)
    assert parts == [[], []]
    assert isinstance(error, RuntimeError)
    assert 'return [] if number < 3 else {}["the key"]' in str(error)


def test_a_stream_whose_world_fails_is_not_told_to_leave_the_episode_out(tmp_path, monkeypatch):
    class Failing(Here):
        def next_part(self):
            raise EnvError("It fell.")

    monkeypatch.setattr(stream, "PlayingProcess", Failing)
    with (
        pytest.warns(match="/run` goes on once that is mended"),
        pytest.raises(EnvError, match=r"It fell\."),
    ):
        streamed(tmp_path / "run", 1)


class AtATable:
    """Two workers in threads of one process."""

    size = 2

    def __init__(self, rank, table, barrier):
        self.rank, self.table, self.barrier = rank, table, barrier

    def gather(self, mine):
        self.table[self.rank] = mine
        self.barrier.wait(60)
        everybodys = [self.table[rank] for rank in range(self.size)]
        self.barrier.wait(60)
        return everybodys


def test_two_workers_have_the_stream_of_one_and_play_half_of_it_each(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "PlayingProcess", Here)
    config = replace(RUN_OF_A_STREAM, imitation=ImitationConfig(processes=1, noise=0.3))
    policy = start(config, tmp_path / "run").policy

    def collected(one, begin=0):
        progress, rollouts = Progress(episodes=begin), []
        for _ in range(3):
            episodes = one.collect(progress, 0.0, EnvErrors()).episodes
            progress.episodes += len(episodes)
            rollouts.append([(e.index, len(e.steps), e.steps[0].observation) for e in episodes])
        return rollouts

    for begin in (0, 30):  # the second part, which is the second worker's
        alone = collected(stream.Stream(config, policy), begin)
        table, barrier = {}, threading.Barrier(2)
        both = [stream.Stream(config, policy, AtATable(rank, table, barrier)) for rank in (0, 1)]
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(collected, both, [begin] * 2)) == [alone, alone]
        for rank, one in enumerate(both):
            (process,) = one._processes
            assert {number % 2 for number in process.asked} == {rank}


@pytest.mark.slow
def test_a_stream_is_the_same_however_many_play_it_and_goes_on_where_it_was(tmp_path):
    one, learned = streamed(tmp_path / "one", 1)
    _, others = streamed(tmp_path / "two", 2, updates=2)
    two = resume(tmp_path / "two")
    two.run(on_episode=others.append)
    assert [e.index for e in learned] == list(range(len(learned)))
    seen = [
        [(e.seed, [(s.observation.prompt, s.decision.action) for s in e.steps]) for e in played]
        for played in (learned, others)
    ]
    assert seen[0] == seen[1]
    for name, ours in one.policy.state_dict().items():
        assert torch.equal(ours, two.policy.state_dict()[name]), name
    strays = [
        sum(s.decision.action != s.observation.expert for s in e.steps) / len(e.steps)
        for e in learned
    ]
    assert min(strays) == 0 < max(strays)
    assert {e.steps[0].info["part"] for e in learned} == {0, 1}


def test_what_a_stream_has_no_use_for_is_a_sentence():
    with pytest.raises(LangAgentError, match="nobody plays but the expert"):
        replace(RUN_OF_A_STREAM, imitation=ImitationConfig(processes=1, expert_final=0.5))
    with pytest.raises(LangAgentError, match="on_env_error=skip does not go with processes"):
        replace(RUN_OF_A_STREAM, imitation=ImitationConfig(processes=1), on_env_error="skip")


def test_what_stands_for_names_never_met_keeps_its_vector():
    policy = LanguagePolicy.from_scratch("nano", seed=0, names=("ball", "box"))
    slots = slot_tokens(policy.tokenizer)
    words = policy.model.get_input_embeddings().weight
    before = words.detach().clone()
    optimizer = Optimizer(policy, "muon", 1e-2, 0.0)
    for _ in range(3):
        optimizer.zero_grad()
        scores = policy.action_log_probs(["See: wug 1 step left,\ngo to the wug:"], ["zarn", "dax"])
        (-scores[0, 0]).backward()
        assert words.grad[slots].abs().sum() > 0
        optimizer.step()
    others = [at for at in range(len(words)) if at not in {*slots}]
    assert torch.equal(words[slots], before[slots])
    assert not torch.equal(words[others], before[others])
