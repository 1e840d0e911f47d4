"""Stable-Baselines3 and sb3-contrib on text worlds, and their policies as agents."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_bandit

pytest.importorskip("sb3_contrib")

from sb3_contrib import TRPO, MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env

import lang_agent
from lang_agent import DecideConfig, LangAgentError, LanguagePolicy, PolicyAgent, TextObservation
from lang_agent.bridges.sb3_agent import SB3Agent, load_sb3_agent
from lang_agent.bridges.sb3_env import PhraseSpace, TokenEnv, TokenSpace, new_tokenizer
from lang_agent.bridges.sb3_features import BagFeatures, LanguageModelFeatures, TransformerFeatures
from lang_agent.bridges.sb3_writer import LanguageModelPolicy, TokenWritingEnv
from lang_agent.cli import main as cli
from lang_agent.models.tokenizer import train_tokenizer
from lang_agent.text_env.mixture import Mixture

ROOM = "BabyAI-GoToLocalS5N2-v0"
LINES = ("the sun is warm", "a dog runs home", "the rain is cold", "a bird sings now") * 20
torch.set_num_threads(1)


def bandit(**options):
    return make_bandit(prompt="minimal", invalid_action="end", **options)


@pytest.fixture(scope="module")
def tokenizer():
    return new_tokenizer([bandit()])


@pytest.fixture(scope="module")
def writer():
    return LanguagePolicy.from_scratch("nano", seed=0, texts=LINES, prose=True)


def token_envs(tokenizer, count=8, length=16):
    return make_vec_env(lambda: TokenEnv(bandit(), tokenizer, length=length), count, seed=0)


def made(kind, envs, features, dim=32, extra=None, **settings):
    policy = {"features_extractor_class": features, **(extra or {})}
    if features is not LanguageModelFeatures:
        policy["features_extractor_kwargs"] = {"features_dim": dim}
    return kind("MlpPolicy", envs, seed=0, device="cpu", policy_kwargs=policy, **settings)


SETTINGS = {
    PPO: {"n_steps": 32, "n_epochs": 4, "learning_rate": 3e-3},
    MaskablePPO: {"n_steps": 32, "n_epochs": 4, "learning_rate": 3e-3},
    A2C: {"n_steps": 4, "learning_rate": 3e-3},
    TRPO: {"n_steps": 16, "n_critic_updates": 2, "target_kl": 0.05, "cg_max_steps": 5},
    DQN: {"learning_starts": 64, "buffer_size": 1000, "learning_rate": 3e-3,
          "target_update_interval": 50, "exploration_fraction": 0.5},
}  # fmt: skip


def success(agent, episodes=24):
    return lang_agent.evaluate(agent, [bandit() for _ in range(8)], episodes)[0].success


# -- environments --------------------------------------------------------------------------------


def test_observations_are_token_ids_filled_up_with_0(tokenizer):
    env = TokenEnv(bandit(), tokenizer, length=16)
    check_env(env, warn=True)
    row, info = env.reset(seed=0)
    prompt, _ = bandit().reset(seed=0)
    assert row.dtype == np.int32
    assert row in env.observation_space
    ids = [token - 1 for token in row.tolist() if token]
    assert tokenizer.decode(ids) == prompt.rstrip(" ")
    assert not row[len(ids) :].any()
    assert info["actions"] == env.phrases == ("go left", "go right")
    _, reward, terminated, _, info = env.step(1 if "right" in prompt else 0)
    assert (reward, terminated, info["is_success"]) == (1.0, True, True)


def test_a_prompt_is_cut_by_its_oldest_turns_or_refused_in_a_sentence():
    env = TokenEnv(lang_agent.make(ROOM, prompt="transcript"), length=110)
    longest = 0
    row, _ = env.reset(seed=0)
    begun = row[:12].tolist()
    for _ in range(40):
        row, *_ = env.step(0)
        longest = max(longest, int((row > 0).sum()))
        assert row[:12].tolist() == begun  # the intro stays
    assert 55 < longest <= 110
    with pytest.raises(LangAgentError, match="length=8 or more"):
        env.observation_space.__class__(env.observation_space.tokenizer, 7).fill(range(8))
    with pytest.raises(LangAgentError):
        TokenEnv(lang_agent.make(ROOM), env.observation_space.tokenizer, length=10).reset(seed=0)


def test_masks_are_of_the_admissible_phrases(tokenizer):
    parts = [bandit(), bandit(actions={"walk left": "go left", "go right": "go right"})]
    env = TokenEnv(Mixture(parts, ["a", "b"], [1, 1]), tokenizer, length=16)
    assert env.phrases == ("go left", "go right", "walk left")
    masks = set()
    for seed in range(8):
        _, info = env.reset(seed=seed)
        mask = env.action_masks()
        masks.add(tuple(mask.tolist()))
        assert tuple(np.array(env.phrases)[mask]) == tuple(sorted(info["actions"]))
    assert masks == {(True, True, False), (False, True, True)}


def test_phrases_that_are_no_fixed_list_are_refused(tokenizer):
    from lang_agent.text_env.wording import Wording

    draws = iter([{}, {"go left": "turn left"}])
    env = TokenEnv(bandit(wording=lambda rng: Wording(actions=next(draws))), tokenizer, length=16)
    env.reset(seed=0)
    with pytest.raises(LangAgentError, match="'turn left', which is not among the 2 phrases"):
        env.reset(seed=1)
    draws = iter([{"go left": "turn left"}])
    whole = ["go left", "go right", "turn left"]
    given = TokenEnv(
        bandit(wording=lambda rng: Wording(actions=next(draws))), tokenizer, phrases=whole
    )
    given.reset(seed=0)
    assert given.action_masks().tolist() == [False, True, True]
    with pytest.raises(LangAgentError, match="TokenWritingEnv"):
        TokenEnv(lang_agent.make("TextGeneration-v0"), tokenizer)


def test_spaces_with_other_words_are_other_spaces(tokenizer):
    other = train_tokenizer(LINES, 300)
    assert TokenSpace(tokenizer, 8) == TokenSpace(tokenizer, 8)
    assert TokenSpace(tokenizer, 8) != TokenSpace(tokenizer, 9)
    assert TokenSpace(tokenizer, 8) != TokenSpace(other, 8)
    assert PhraseSpace(["a", "b"]) != PhraseSpace(["b", "a"])


# -- features ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bag", "transformer", "frozen", "trained"])
def test_features_do_not_depend_on_padding(tokenizer, policy, kind):
    language = kind in ("frozen", "trained")
    used = policy.tokenizer if language else tokenizer
    narrow, wide = TokenSpace(used, 16), TokenSpace(used, 40)
    torch.manual_seed(0)
    if kind == "bag":
        features = BagFeatures(wide, 8)
    elif kind == "transformer":
        features = TransformerFeatures(wide, 8, heads=2)
    else:
        features = LanguageModelFeatures(wide, policy, trained=kind == "trained")
    rows = [[5, 6, 7], [5, 7, 6], list(range(16))]
    alone = [features(torch.tensor(narrow.fill(row))[None])[0] for row in rows]
    together = features(torch.tensor(np.stack([wide.fill(row) for row in rows])))
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-5, rtol=1e-4)
    assert (together[0] - together[2]).abs().max() > 1e-3
    assert torch.allclose(together[0], together[1], atol=1e-6) == (kind == "bag")
    assert together.shape == (3, features.features_dim)
    learns = any(one.requires_grad for one in features.parameters())
    assert learns == (kind != "frozen") == together.requires_grad


def test_frozen_features_are_the_models_own_states(policy):
    prompt, actions = "Goal: go to the red ball\nSee: nothing", ["turn left"]
    space = TokenSpace(policy.tokenizer, 40)
    features = LanguageModelFeatures(space, policy)
    row = torch.tensor(space.encode(prompt))[None]
    ids = torch.tensor([policy.encode_prompt(prompt)])
    with torch.no_grad():
        plain = policy.model.transformer(ids).last_hidden_state[0, -1]
    for _ in range(2):  # the second time from what was kept
        torch.testing.assert_close(features(row)[0], plain, atol=1e-5, rtol=1e-4)
    assert policy.action_log_probs([prompt], actions).shape == (1, 1)
    assert not list(features.parameters())  # neither learned nor saved with a policy


def test_features_of_another_tokenizer_are_refused(tokenizer, policy):
    with pytest.raises(LangAgentError, match=r"TokenEnv\(env, policy.tokenizer\)"):
        LanguageModelFeatures(TokenSpace(tokenizer, 16), policy)
    with pytest.raises(LangAgentError, match="context of 1024"):
        LanguageModelFeatures(TokenSpace(policy.tokenizer, 2000), policy)


# -- learning ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SETTINGS)
def test_every_algorithm_learns_the_bandit(tokenizer, kind, tmp_path):
    torch.manual_seed(0)
    model = made(kind, token_envs(tokenizer), BagFeatures, **SETTINGS[kind])
    model.learn(640)
    agent = SB3Agent(model)
    assert success(agent) == 1.0
    model.save(tmp_path / "model")
    loaded = load_sb3_agent(tmp_path / "model.zip", trust=True)
    assert success(loaded) == 1.0
    seen = TextObservation(bandit().reset(seed=0)[0], ("go left", "go right"))
    loaded.begin(0, 0)
    agent.begin(0, 0)
    assert loaded.act([0], [seen]) == agent.act([0], [seen])


def test_the_transformer_learns_the_bandit(tokenizer):
    settings = {**SETTINGS[PPO], "learning_rate": 1e-3}
    extra = {"ortho_init": False}
    model = made(PPO, token_envs(tokenizer), TransformerFeatures, 16, extra, **settings)
    model.learn(640)
    assert success(SB3Agent(model)) >= 0.9


SLOWER = [pytest.param(kind, marks=pytest.mark.slow) for kind in (A2C, MaskablePPO, DQN)]


@pytest.mark.parametrize("kind", [TRPO, *SLOWER])
def test_the_transformer_runs_in_the_other_algorithms(tokenizer, kind):
    """TRPO takes second derivatives, which not every operation of torch has."""
    settings = SETTINGS[kind]
    model = made(kind, token_envs(tokenizer), TransformerFeatures, 8, **settings)
    before = model.policy.parameters_to_vector()
    model.learn(200)
    assert np.abs(model.policy.parameters_to_vector() - before).max() > 0


def test_a_frozen_language_models_states_learn_the_bandit(policy):
    envs = token_envs(policy.tokenizer, length=40)
    extra = {"features_extractor_kwargs": {"model": policy}}
    settings = {**SETTINGS[PPO], "learning_rate": 1e-3}
    model = made(PPO, envs, LanguageModelFeatures, extra=extra, **settings)
    before = torch.cat([one.detach().flatten() for one in policy.model.parameters()])
    model.learn(512)
    after = torch.cat([one.detach().flatten() for one in policy.model.parameters()])
    assert success(SB3Agent(model)) >= 0.9
    assert torch.equal(before, after)


# -- agents --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Path:
    """A policy that was trained a little, as Stable-Baselines3 saves it."""
    env = lang_agent.make(ROOM, prompt="minimal", actions=["turn left", "go forward"])
    tokenizer = new_tokenizer([env])
    model = made(MaskablePPO, TokenEnv(env, tokenizer, length=64), BagFeatures, 16, n_steps=64)
    model.learn(64)
    file = tmp_path_factory.mktemp("sb3") / "room.zip"
    model.save(file)
    return file


WORDS = ["--prompt", "minimal", "--actions", "turn left", "go forward"]


def test_an_archive_is_loaded_on_trust_alone(room, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command in (["evaluate", ROOM, "--agent"], ["play", ROOM, "--agent"], ["ask"]):
        with pytest.raises(LangAgentError, match=r"pickled Python objects.*--trust"):
            cli.run([*command, f"sb3:{room}", *(["x"] if command == ["ask"] else [])])
    with pytest.raises(LangAgentError, match=r"load_sb3_agent"):
        lang_agent.make_agent(f"sb3:{room}", 1)


class Bomb:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (Path(self.trace),)


def test_a_strangers_archive_runs_nothing(room, tmp_path):
    """What would run is pickled into an archive, and runs when that is trusted."""
    model = MaskablePPO.load(room)
    model.bomb = Bomb(str(tmp_path / "ran"))
    model.save(tmp_path / "stranger.zip")
    (tmp_path / "ran").unlink(missing_ok=True)
    with pytest.raises(LangAgentError, match="--trust"):
        load_sb3_agent(tmp_path / "stranger.zip")
    assert not (tmp_path / "ran").exists()
    load_sb3_agent(tmp_path / "stranger.zip", trust=True)
    assert (tmp_path / "ran").exists()


def test_suites_reports_and_the_screen_know_it(room, tmp_path, capsys):
    agent = ["--agent", f"sb3:{room}", "--trust"]
    out = str(tmp_path / "results")
    cli.run(["evaluate", ROOM, *agent, *WORDS, "--episodes", "4", "--trajectories", "--out", out])
    results = lang_agent.read_results(out)
    assert len(results.records) == 4
    assert results.spec.agent["weights"]
    steps = [
        step
        for line in (tmp_path / "results/trajectories.jsonl").read_text().splitlines()
        for step in json.loads(line)["steps"]
    ]
    assert all(sum(step["probabilities"]) == pytest.approx(1, abs=1e-3) for step in steps)
    assert all(step["value"] != 0 for step in steps)
    assert all(record.tokens_read for record in results.records)
    page = tmp_path / "report.html"
    cli.run(["report", out, "--out", str(page), "--explain", "--trust"])
    assert "sb3:" in page.read_text()
    cli.run(["replay", out, "--trust"])
    assert "4 of 4 episodes are the same again" in capsys.readouterr().out
    cli.run(["play", ROOM, *agent, *WORDS, "--plain"])
    shown = capsys.readouterr().out
    assert "turn left 0." in shown
    cli.run(["ask", f"sb3:{room}", "See: nothing", "--actions", "turn left", "--trust"])
    assert "turn left" in capsys.readouterr().out


def test_drawn_actions_follow_the_episodes_seed_and_the_probabilities(room):
    drawn = load_sb3_agent(room, DecideConfig(temperature=1), trust=True)
    envs = [lang_agent.make(ROOM, like=drawn) for _ in range(2)]
    assert envs[0].unwrapped.prompt_name == "minimal"
    played = [list(lang_agent.play(drawn, envs[:n], range(3))) for n in (1, 2)]
    said = [
        {e.seed: [step.decision.action for step in e.steps] for e in episodes}
        for episodes in played
    ]
    assert said[0] == said[1]
    assert {action for actions in said[0].values() for action in actions} == set(drawn.phrases)


def test_a_policy_that_masks_never_says_what_is_not_admissible(room):
    agent = load_sb3_agent(room, DecideConfig(temperature=1), trust=True)
    prompt, _ = lang_agent.make(ROOM, like=agent).reset(seed=0)
    for phrase in agent.phrases:
        agent.begin(0, 0)
        (decision,) = agent.act([0], [TextObservation(prompt, (phrase,))])
        assert (decision.action, decision.choice) == (phrase, 0)
        assert list(decision.probabilities) == pytest.approx([1.0])


def test_what_is_no_agent_is_a_sentence(room, tokenizer, tmp_path):
    agent = load_sb3_agent(room, trust=True)
    for actions, offered in ((("fly",), "'fly'"), (None, "free text")):
        with pytest.raises(LangAgentError, match=f"offers {offered}"):
            agent.act([0], [TextObservation("x", actions)])
    with pytest.raises(LangAgentError, match="knows no words"):
        SB3Agent(PPO("MlpPolicy", "CartPole-v1", device="cpu"))
    with pytest.raises(LangAgentError, match="RecurrentActorCriticPolicy is no agent"):
        SB3Agent(RecurrentPPO("MlpLstmPolicy", token_envs(tokenizer, 1), device="cpu"))
    with pytest.raises(LangAgentError, match="decide=generate"):
        load_sb3_agent(room, DecideConfig("generate"), trust=True)
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(LangAgentError, match="cannot be loaded"):
        load_sb3_agent(tmp_path / "text.zip", trust=True)
    with pytest.raises(LangAgentError, match="There is no file"):
        load_sb3_agent(tmp_path / "none.zip", trust=True)


def test_without_the_extra_it_is_a_sentence(room):
    code = (
        "import sys\n"
        "sys.modules['stable_baselines3'] = None\n"
        "from lang_agent.cli import main\n"
        f"sys.argv = ['lang-agent', 'ask', 'sb3:{room}', 'x', '--trust']\n"
        "main.main()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 2, run.stderr
    assert "pip install 'lang_agent[sb3]'" in run.stderr + run.stdout


# -- writing -------------------------------------------------------------------------------------


def begins_with_sun(text):
    return float(text.startswith(" sun"))


def writing(**options):
    rewards = {f"{__name__}:begins_with_sun": 1}
    return lang_agent.make("TextGeneration-v0", prompts=["a dog"], rewards=rewards, **options)


def test_a_text_is_written_a_token_at_a_time(writer):
    env = TokenWritingEnv(writing(), writer, max_new_tokens=3, length=16)
    check_env(env, warn=True)
    row, _ = env.reset(seed=0)
    assert writer.decode([token - 1 for token in row if token]) == "a dog"
    sun, dog = writer.encode(" sun dog")
    (end,) = writer.end_tokens
    row, reward, terminated, _, _ = env.step(sun)
    assert (reward, terminated) == (0.0, False)
    assert writer.decode([token - 1 for token in row if token]) == "a dog sun"
    _, reward, terminated, _, info = env.step(end)
    assert (reward, terminated, info["text"]) == (1.0, True, " sun")
    env.reset(seed=0)
    steps = [env.step(token) for token in (sun, dog, dog)]
    assert [step[2] for step in steps] == [False, False, True]
    assert steps[-1][-1]["text"] == " sun dog dog"
    with pytest.raises(LangAgentError, match="length="):
        TokenWritingEnv(writing(), writer, max_new_tokens=15, length=16).reset()
    with pytest.raises(LangAgentError, match="use TokenEnv"):
        TokenWritingEnv(bandit(), writer).reset()


def test_the_language_model_is_the_policy(writer):
    envs = make_vec_env(lambda: TokenWritingEnv(writing(), writer, max_new_tokens=3, length=16), 2)
    model = PPO(LanguageModelPolicy, envs, policy_kwargs={"language": writer}, device="cpu")
    obs = torch.tensor(envs.reset())
    ids = torch.tensor([writer.encode_prompt("a dog")])
    logits = writer.model(ids).logits[0, -1]
    with torch.no_grad():
        distribution = model.policy.get_distribution(obs).distribution
        torch.testing.assert_close(
            distribution.logits[0], logits.log_softmax(-1), atol=1e-4, rtol=1e-4
        )
        actions, values, log_probs = model.policy(obs)
        again = model.policy.evaluate_actions(obs, actions)
    torch.testing.assert_close(again[0], values)
    torch.testing.assert_close(again[1], log_probs)
    assert again[2].shape == (2,)
    some = writer.encode(" dog rain")
    few = make_vec_env(lambda: TokenWritingEnv(writing(), writer, tokens=some), 1)
    kwargs = {"language": writer, "tokens": some}
    narrow = PPO(LanguageModelPolicy, few, policy_kwargs=kwargs, device="cpu").policy
    with torch.no_grad():
        chances = narrow.get_distribution(torch.tensor(few.reset())).distribution.probs[0]
    torch.testing.assert_close(chances, logits[some].softmax(-1).detach(), atol=1e-5, rtol=1e-4)
    with pytest.raises(LangAgentError, match="give both the same tokens"):
        PPO(LanguageModelPolicy, few, policy_kwargs={"language": writer}, device="cpu")


def test_a_writer_learns_what_is_rewarded(tmp_path):
    writer = LanguagePolicy.from_scratch("nano", seed=0, texts=LINES, prose=True)
    words = [*writer.encode(" sun dog rain home"), *writer.end_tokens]
    envs = make_vec_env(
        lambda: TokenWritingEnv(writing(), writer, max_new_tokens=2, length=16, tokens=words), 8
    )
    model = PPO(
        LanguageModelPolicy,
        envs,
        policy_kwargs={"language": writer, "tokens": words},
        n_steps=16,
        batch_size=64,
        n_epochs=4,
        learning_rate=1e-3,
        seed=0,
        device="cpu",
    )
    model.learn(768)
    model.policy.language.save_pretrained(tmp_path / "writer")
    model.save(tmp_path / "model.zip")
    obs = torch.tensor(envs.reset())
    with torch.no_grad():
        assert model.policy.get_distribution(obs).distribution.probs[0, 0] > 0.8
        loaded = PPO.load(tmp_path / "model.zip", device="cpu")
        torch.testing.assert_close(
            loaded.policy.predict_values(obs), model.policy.predict_values(obs)
        )
    learned = lang_agent.load_policy(tmp_path / "writer")  # and it writes by itself
    decide = DecideConfig("generate", max_new_tokens=1, temperature=0)
    (episode,) = lang_agent.play(PolicyAgent(learned, 1, decide), [writing()], [0])
    assert episode.steps[0].decision.tokens.token_ids


# -- the page ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_page_says_what_works(tmp_path, monkeypatch, capsys):
    """The example as it stands, of fewer steps, and the command after it."""
    page = (Path(__file__).parent.parent / "docs" / "sb3.md").read_text(encoding="utf-8")
    example = page.split("```python\n")[1].split("```")[0]
    assert "10_000" in example
    monkeypatch.chdir(tmp_path)
    few = example.replace("10_000", "512").replace("episodes=200", "episodes=8")
    exec(compile(few, "sb3.md", "exec"), {})
    assert 0 <= float(capsys.readouterr().out) <= 1
    command = page.split("lang-agent evaluate BabyAI-GoToLocalS5N2-v0 ")[1].split("\nlang-agent")[0]
    asked = ["evaluate", "BabyAI-GoToLocalS5N2-v0", *shlex.split(command.replace("\\\n", " "))]
    cli.run([*asked, "--episodes", "2"])
    assert len(lang_agent.read_results("room").records) == 2
