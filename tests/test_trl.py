"""TRL's own trainers on our worlds: what reaches its loss, and models that our agents play."""

from __future__ import annotations

import json
from dataclasses import replace

import gymnasium
import pytest
import torch

pytest.importorskip("trl")

from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

import lang_agent
from lang_agent import DecideConfig, LangAgentError, LanguagePolicy, PolicyAgent
from lang_agent.agents.chat import ChatAgent, ChatConfig
from lang_agent.agents.scripted import RandomAgent
from lang_agent.bridges.trl_training import (
    Conversation,
    Rollouts,
    as_sequence,
    episode_return,
    seeds_dataset,
    sft_dataset,
)
from lang_agent.cli import main as cli
from lang_agent.learn.demonstrations import read_demonstrations
from lang_agent.rollout import play
from lang_agent.seeding import EVALUATION_SEED
from lang_agent.text_env.env import TextEnv
from lang_agent.text_env.world import World

ROOM = "BabyAI-GoToLocalS5N2-v0"
QUICK = {
    "use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no", "seed": 0,
    "disable_tqdm": True, "logging_steps": 1,
}  # fmt: skip
CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<|endoftext|>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
pytestmark = pytest.mark.filterwarnings("ignore")  # TRL says much of what is to come


def make_room():
    return lang_agent.make(ROOM, max_steps=4)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A nano that writes phrases: SFT on demonstrations of random play, by the command and TRL."""
    folder = tmp_path_factory.mktemp("taught")
    start = str(folder / "start")
    LanguagePolicy.from_scratch("nano", seed=0, context=256).save_pretrained(start)
    file, data = str(folder / "demos.jsonl.gz"), str(folder / "data")
    cli.run(["demos", f"{ROOM}", "--episodes", "6", "--out", file])
    cli.run(["convert", file, data, "--to", "sft"])
    import datasets

    rows = datasets.load_from_disk(data)
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(start),
        args=SFTConfig(
            str(folder / "sft"), max_steps=40, per_device_train_batch_size=8, learning_rate=3e-3,
            **QUICK,
        ),
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(start),
    )  # fmt: skip
    trainer.train()
    trainer.save_model(str(folder / "model"))
    return folder, rows, trainer


def trainer_of(folder, out, rollouts, seeds=range(8), reward=episode_return, **options):
    options = {"per_device_train_batch_size": 8, "num_generations": 4, "max_steps": 2, **options}
    model = AutoModelForCausalLM.from_pretrained(folder)
    return GRPOTrainer(
        model,
        reward_funcs=reward,
        args=GRPOConfig(str(out), **{**QUICK, "learning_rate": 1e-3, **options}),
        train_dataset=seeds_dataset(seeds),
        processing_class=AutoTokenizer.from_pretrained(folder),
        rollout_func=rollouts,
    )


# -- SFT ---------------------------------------------------------------------------------------


def test_demonstrations_are_prompts_and_completions_as_a_policy_reads_them(taught):
    folder, rows, trainer = taught
    episodes = read_demonstrations(folder / "demos.jsonl.gz")
    steps = [step for episode in episodes for step in episode.steps]
    assert len(rows) == len(steps)
    policy = LanguagePolicy.from_pretrained(folder / "start")
    end = policy.tokenizer.eos_token_id
    for row, learned, step in zip(rows, trainer.train_dataset, steps, strict=True):
        prompt = policy.encode_prompt(step.observation.prompt)
        phrase = policy.encode_action(step.observation.expert)
        assert row["completion"] == f" {step.observation.expert}"
        assert learned["input_ids"] == [*prompt, *phrase, end]
        assert learned["labels"] == [-100] * len(prompt) + [*phrase, end]


def test_sft_learns_and_our_command_plays_the_model(taught, tmp_path, monkeypatch):
    folder, _, trainer = taught
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.3 * losses[0]
    monkeypatch.chdir(tmp_path)
    cli.run([
        "evaluate", f"{ROOM} max_steps=8", "--agent", str(folder / "model"), "--decide", "generate",
        "--temperature", "0", "--episodes", "6", "--json", "e.json", "--out", "r",
    ])  # fmt: skip
    (row,) = json.loads((tmp_path / "e.json").read_text())["evaluations"]
    assert row["invalid_rate"] < 0.2  # it says phrases, and ends them
    untaught = LanguagePolicy.from_pretrained(folder / "start")
    agent = PolicyAgent(untaught, 4, DecideConfig("generate", temperature=0))
    (before,) = lang_agent.evaluate(agent, [make_room() for _ in range(4)], episodes=4)
    assert before.invalid_rate > 0.5


def test_rows_for_chat_models_are_messages(taught):
    episodes = read_demonstrations(taught[0] / "demos.jsonl.gz")
    row = sft_dataset(episodes, chat=True)[0]
    assert row["prompt"] == [
        {"role": "user", "content": episodes[0].steps[0].observation.prompt.rstrip(" ")}
    ]
    assert row["completion"][0]["content"] == episodes[0].steps[0].observation.expert
    nothing = [replace(step, observation=replace(step.observation, expert=None))
               for step in episodes[0].steps]  # fmt: skip
    with pytest.raises(LangAgentError, match="no action to learn"):
        sft_dataset([replace(episodes[0], steps=nothing)])


# -- GRPO --------------------------------------------------------------------------------------


def test_grpo_plays_groups_of_one_seed_and_changes_the_weights(taught, tmp_path):
    folder = taught[0] / "model"
    calls, rewards = [], []
    rollouts = Rollouts(make_room, envs=3, max_new_tokens=6)

    def watched(prompts, trainer):
        found = rollouts(prompts, trainer)
        calls.append(([episode.seed for episode in rollouts.episodes], found))
        return found

    def reward(episode_return, success, **_):
        rewards.append((episode_return, success))
        return [len(ids) / 10 for ids in _["completion_ids"]]  # so that groups differ

    trainer = trainer_of(folder, tmp_path, watched, reward=reward)
    before = [weight.clone() for weight in trainer.model.parameters()]
    trainer.train()
    assert len(calls) == 2
    for seeds, found in calls:
        assert len(set(seeds[:4])) == len(set(seeds[4:])) == 1
        assert seeds[0] != seeds[4]
        assert found["prompt_ids"][0] == found["prompt_ids"][3]  # one world
        assert len({tuple(ids) for ids in found["completion_ids"]}) > 2  # played otherwise
    assert set(calls[0][0]).isdisjoint(calls[1][0])
    returns = [episode.total_reward for episode in rollouts.episodes]
    assert rewards[-1][0] == returns
    after = list(trainer.model.parameters())
    assert any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))
    trainer.save_model(str(tmp_path / "model"))
    policy = LanguagePolicy.from_pretrained(tmp_path / "model")
    for own, saved in zip(after, policy.model.parameters(), strict=True):
        assert torch.equal(own.detach(), saved.detach())


def test_a_sequence_is_what_our_agent_read_and_wrote(taught, tmp_path):
    folder = taught[0] / "model"
    rollouts = Rollouts(make_room, envs=4, max_new_tokens=6)
    trainer = trainer_of(folder, tmp_path, rollouts)
    found = rollouts(["seed 3", "seed 3", "seed 5"], trainer)
    policy = LanguagePolicy.from_pretrained(folder)
    learned, verdicts = 0, set()
    for at, episode in enumerate(rollouts.episodes):
        prompt, completion = found["prompt_ids"][at], found["completion_ids"][at]
        mask, log_probs = found["env_mask"][at], found["logprobs"][at]
        assert len(completion) == len(mask) == len(log_probs)
        assert prompt == policy.encode_prompt(episode.steps[0].observation.prompt)
        whole = [*prompt, *completion]
        ids = torch.tensor([whole])
        with torch.no_grad():
            plain = trainer.model(ids).logits.float().log_softmax(-1)[0]
        for place, token in enumerate(completion):
            if mask[place]:
                learned += 1
                told = plain[len(prompt) + place - 1, token]
                assert log_probs[place] == pytest.approx(float(told), abs=1e-3)
            else:
                assert log_probs[place] == 0.0
        written = [token for step in episode.steps for token in step.trace.token_ids]
        assert [token for token, own in zip(completion, mask, strict=True) if own] == written
        verdicts |= {step.info["verdict"] for step in episode.steps}
        # what the world says stands behind each answer, as the next prompt has it
        for step, later in zip(episode.steps, episode.steps[1:], strict=False):
            answered = step.trace.position + 1 + len(step.trace.token_ids)
            said = policy.decode(whole[answered : later.trace.position + 1])
            assert said
            assert later.observation.prompt.rstrip(" ").endswith(said.lstrip("\n"))
    assert "invalid" in verdicts  # answers that are to be unlearned are among them
    assert learned > 10


def test_the_same_start_plays_the_same_episodes_and_a_later_call_others(taught, tmp_path):
    def words(prompts):
        rollouts = Rollouts(make_room, envs=2, max_new_tokens=6)
        trainer = trainer_of(taught[0] / "model", tmp_path, rollouts)
        return [rollouts(prompts, trainer)["completion_ids"] for _ in range(2)]

    first, again = words(["seed 1"] * 4), words(["seed 1"] * 4)
    assert first == again
    assert first[0] != first[1]


def test_parameters_are_shared_and_the_trainers_modules_stay(taught, tmp_path):
    rollouts = Rollouts(make_room, envs=2)
    trainer = trainer_of(taught[0] / "model", tmp_path, rollouts)
    kinds = [type(module) for module in trainer.model.modules()]
    rollouts(["seed 1"], trainer)
    policy = rollouts._policy
    assert all(
        one is other
        for one, other in zip(policy.model.parameters(), trainer.model.parameters(), strict=True)
    )
    assert [type(module) for module in trainer.model.modules()] == kinds
    version = policy.version
    with torch.no_grad():
        trainer.model.lm_head.weight.mul_(1.5)
    assert policy.version != version


def test_lora_adapters_are_played_with(taught, tmp_path):
    peft = pytest.importorskip("peft")
    rollouts = Rollouts(make_room, envs=2, max_new_tokens=6)
    folder = taught[0] / "model"
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, init_lora_weights=False)
    trainer = GRPOTrainer(
        AutoModelForCausalLM.from_pretrained(folder),
        reward_funcs=episode_return,
        args=GRPOConfig(str(tmp_path), per_device_train_batch_size=4, num_generations=4, **QUICK),
        train_dataset=seeds_dataset(range(4)),
        processing_class=AutoTokenizer.from_pretrained(folder),
        rollout_func=rollouts,
        peft_config=config,
    )
    found = rollouts(["seed 1"], trainer)
    whole = torch.tensor([[*found["prompt_ids"][0], *found["completion_ids"][0]]])
    with torch.no_grad():
        plain = trainer.model(whole).logits.log_softmax(-1)[0]
    begin = len(found["prompt_ids"][0])
    first = float(plain[begin - 1, whole[0, begin]])
    assert found["logprobs"][0][0] == pytest.approx(first, abs=1e-3)


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat") / "model"
    policy = LanguagePolicy.from_scratch("nano", seed=1, prose=True)
    policy.tokenizer.chat_template = CHAT
    policy.model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    return folder


def test_a_chat_model_reads_the_turns_that_a_server_would_be_sent(chat_model, tmp_path):
    rollouts = Rollouts(make_room, envs=2, max_new_tokens=4)
    trainer = trainer_of(chat_model, tmp_path, rollouts, max_steps=1, num_generations=2,
                         per_device_train_batch_size=2)  # fmt: skip
    found = rollouts(["seed 1", "seed 2"], trainer)
    tokenizer = trainer.processing_class

    for at, episode in enumerate(rollouts.episodes):
        remote = ChatAgent("m", config=ChatConfig("http://127.0.0.1:9"), client=Silent())
        remote.begin(0, 0)
        messages, written = [], iter(episode.steps)
        for step in episode.steps:
            conversation = remote._conversations[0]
            remote._read(conversation, step.observation)
            said = step.decision.action
            raw = tokenizer.decode(kept(step.trace.token_ids, tokenizer))
            conversation.messages.append({"role": "assistant", "content": raw})
            conversation.read = f"{step.observation.prompt}{said}\n"
            messages = conversation.messages
        wanted = tokenizer.apply_chat_template(messages[:-1], tokenize=False,
                                               add_generation_prompt=True)  # fmt: skip
        whole = [*found["prompt_ids"][at], *found["completion_ids"][at]]
        last = episode.steps[-1].trace
        assert next(written) is episode.steps[0]
        assert tokenizer.decode(whole[: last.position + 1]) == wanted
    trainer.train()


class Silent:
    base_url = "http://127.0.0.1:9"


def kept(ids, tokenizer):
    """What a policy keeps of what was written: not the token that ended it."""
    ids = list(ids)
    ended = ids[-1] == tokenizer.eos_token_id or "\n" in tokenizer.decode([ids[-1]])
    return ids[:-1] if ended else ids


def test_a_template_that_rewrites_answers_is_refused(chat_model):
    policy = LanguagePolicy.from_pretrained(chat_model)
    policy.tokenizer.chat_template = CHAT.replace(
        "{{ m['content'] }}", "{{ m['content'] | upper }}"
    )
    context = Conversation(policy.codec)
    context.read("Goal: go\nAction: ")
    with pytest.raises(LangAgentError, match="chat template says an answer otherwise"):
        context.read("Goal: go\nAction: left\nYou see a ball\nAction: ")


def test_what_does_not_fit_is_one_sentence(taught, tmp_path):
    folder = taught[0] / "model"
    with pytest.raises(LangAgentError, match="kept for evaluation"):
        seeds_dataset([EVALUATION_SEED])
    window = Rollouts(lambda: lang_agent.make(ROOM, prompt="minimal"), envs=1)
    trainer = trainer_of(folder, tmp_path, window)
    with pytest.raises(LangAgentError, match="a prompt that only grows"):
        window([f"seed {seed}" for seed in range(6)], trainer)
    with pytest.raises(LangAgentError, match=r"seeds_dataset\(\.\.\.\)"):
        window(["What is two and two?"], trainer)
    half = Rollouts(make_room, envs=1)
    trainer.model.to(torch.bfloat16)
    with pytest.raises(LangAgentError, match="load it in float32"):
        half(["seed 0"], trainer)


def test_an_episode_beyond_the_context_is_learned_up_to_where_turns_are_left_out(taught):
    policy = LanguagePolicy.from_pretrained(taught[0] / "model")
    agent = PolicyAgent(policy, 1, DecideConfig("generate", max_new_tokens=6))
    (episode,) = play(agent, [lang_agent.make(ROOM, max_steps=40)], [3])
    contexts = {id(step.trace.context) for step in episode.steps}
    assert len(contexts) > 1
    found = as_sequence(episode, end=policy.tokenizer.eos_token_id)
    first = episode.steps[0].trace.context
    kept_steps = [step for step in episode.steps if step.trace.context is first]
    assert [*found.prompt_ids, *found.completion_ids][: len(first)] == first
    assert 0 < len(kept_steps) < len(episode.steps)
    assert len(found.prompt_ids) + len(found.completion_ids) <= policy.context


# -- learning ----------------------------------------------------------------------------------


class Bandit(gymnasium.Env):
    """Two levers, pulled twice; one of them always pays."""

    observation_space = gymnasium.spaces.Discrete(2)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.pulls = 0
        return 0, {}

    def step(self, action):
        self.pulls += 1
        return 0, float(action == 1) / 2, self.pulls == 2, False, {}


LEVERS = {"pull red": 0, "pull blue": 1}


def make_bandit():
    def render(observation, env):
        return {"mission": "find what pays", "descriptions": ["Two levers"]}

    return TextEnv(Bandit(), World(actions=LEVERS, renderers={"levers": render}))


@pytest.mark.slow
def test_grpo_learns_a_bandit_of_two_turns(tmp_path):
    """From a model that says either phrase by chance, to one that says the one that pays, from
    reward alone."""
    texts = []
    for seed in range(20):
        env = make_bandit()
        texts.append(env.reset(seed=seed)[0])
        texts += [env.step(phrase)[0] for phrase in LEVERS]
    start = tmp_path / "start"
    LanguagePolicy.from_scratch(
        "nano", seed=0, texts=[*texts, *LEVERS], context=128
    ).save_pretrained(start)
    random_play = play(RandomAgent(), [make_bandit()], range(60))
    rows = sft_dataset(
        replace(e, steps=[
            replace(s, observation=replace(s.observation, expert=s.decision.action))
            for s in e.steps
        ])
        for e in random_play
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(start)
    sft = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(start),
        args=SFTConfig(str(tmp_path / "sft"), max_steps=40, per_device_train_batch_size=8,
                       learning_rate=3e-3, **QUICK),
        train_dataset=rows, processing_class=tokenizer,
    )  # fmt: skip
    sft.train()
    sft.save_model(str(tmp_path / "taught"))
    rollouts = Rollouts(make_bandit, envs=16, max_new_tokens=5)
    trainer = trainer_of(
        tmp_path / "taught", tmp_path, rollouts, seeds=range(400), num_generations=8,
        per_device_train_batch_size=32, max_steps=20, learning_rate=2e-3,
    )  # fmt: skip
    trainer.train()
    means = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    assert sum(means[:5]) / 5 < 0.65
    assert sum(means[-5:]) / 5 > 0.9
