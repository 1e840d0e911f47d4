"""``lang-agent bench``: how fast acting and learning are, as ratios taken in one run.

Every figure is one of this package's against a baseline that does the same work the
straightforward way (:mod:`lang_agent.cli.baselines`), in turns in the same process, fastest of a
few rounds each. Absolute times on a shared machine say little; these ratios say what changed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from lang_agent.agents.policy_agent import PolicyAgent
from lang_agent.agents.scripted import RandomAgent
from lang_agent.cli.baselines import EachPhraseAgent, as_published, score_cached, score_each
from lang_agent.episode import Agent, Decision, Episode, TextObservation
from lang_agent.learn.config import LearnConfig
from lang_agent.learn.learner import Learner
from lang_agent.learn.optimizer import Optimizer
from lang_agent.learn.sequences import Sample, to_samples
from lang_agent.learn.steps import gradient_step
from lang_agent.models.device import find_device
from lang_agent.models.policy import LanguagePolicy
from lang_agent.models.precision import matmul_rate
from lang_agent.models.tokenizer import default_texts
from lang_agent.rollout import play
from lang_agent.text_env.config import TextConfig

PHRASES = ("turn left", "turn right", "go forward", "pick up", "drop", "toggle")
ENV = "BabyAI-MixedLocal-v0"


def bench(
    quick: bool, say: Callable[[str], None], device_name: str | None = None
) -> dict[str, float | str]:
    """Measure everything; returns one flat record. ``quick``: fewer rounds and shorter runs."""
    device = find_device(device_name)
    chosen = LanguagePolicy.from_scratch("nano", seed=0).to(device)
    chosen.set_precision("auto")
    record: dict[str, float | str] = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "precision": "bf16" if chosen.precision == torch.bfloat16 else "fp32",
    }
    small = gpt2(12, 768, 12, device)
    for part in (_scoring, _acting_and_learning, _end_to_end):
        for key, value in part(device, quick, small):
            record[key] = value
            say(f"{key:<34}{value:8.2f}")
    return record


def gpt2(layers: int, width: int, heads: int, device: torch.device) -> LanguagePolicy:
    """A GPT-2 of this shape with GPT-2's vocabulary size, random weights and a tokenizer that
    splits at words as GPT-2's does (" turn", " left")."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([*default_texts(), " ".join(("", *PHRASES)) * 9], trainer)
    config = GPT2Config(n_layer=layers, n_embd=width, n_head=heads)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(config)
    policy = LanguagePolicy(model, PreTrainedTokenizerFast(tokenizer_object=tokenizer))
    return policy.to(device)


# -- scoring -----------------------------------------------------------------------------------


def _scoring(
    device: torch.device, quick: bool, small: LanguagePolicy
) -> Iterator[tuple[str, float]]:
    """16 prompts of 120 tokens, six phrases."""
    rounds = 1 if quick else 5
    policy = gpt2(6, 384, 6, device)
    prompts = _prompts(policy, 16, 120)
    rows = [policy.encode_prompt(prompt) for prompt in prompts]
    phrases = [policy.encode_action(phrase) for phrase in PHRASES]
    published = as_published(policy)
    with torch.no_grad():
        part = rows[:1] if quick else rows  # the time is that of its sequences, one by one
        each = _seconds(lambda: score_each(published, part, phrases), rounds)
        each *= len(rows) / len(part)
        cached = _seconds(lambda: score_cached(published, rows, phrases), rounds)
    for name, precision in (("fp32", "fp32"), ("default", "auto")):
        policy.set_precision(precision)
        with torch.no_grad():
            ours = _seconds(lambda: policy.action_log_probs(prompts, PHRASES), 3 * rounds)
        yield f"score.{name}.over_each", each / ours
        yield f"score.{name}.over_cached", cached / ours

    policy = small
    policy.set_precision("auto")
    prompts = _prompts(policy, 16, 120)
    tokens = sum(len(policy.encode_prompt(prompt)) for prompt in prompts)
    nodes = len(prompts) * len(policy.trie(PHRASES).tokens)
    with torch.no_grad():
        ours = _seconds(lambda: policy.action_log_probs(prompts, PHRASES), rounds)
    needed = _flops(policy, tokens + nodes) + 2 * nodes * policy.model.lm_head.weight.numel()
    yield "score.gpt2_small.fraction_of_limit", needed / _limit(policy) / ours


def _prompts(policy: LanguagePolicy, count: int, tokens: int) -> list[str]:
    """Prompts of so many tokens, the ends of transcripts of random play."""
    episodes, _ = _play(RandomAgent(), "transcript", count, 24)
    ends = [policy.encode_prompt(episode.steps[-1].observation.prompt) for episode in episodes]
    return [str(policy.tokenizer.decode(end[-tokens:])) for end in ends if len(end) >= tokens]


def _flops(policy: LanguagePolicy, tokens: int) -> float:
    """Of a forward pass through the layers' matrices; attention and all else count as nothing."""
    return 2.0 * tokens * sum(weight.numel() for _, weight in policy._layer_matrices)


def _limit(policy: LanguagePolicy) -> float:
    """The best rate of the products that a layer is made of, in the policy's precision."""
    width = policy.model.config.hidden_size
    shapes = ((2048, width, 3 * width), (2048, width, 4 * width), (2048, 4 * width, width))
    return max(matmul_rate(policy.device, policy.precision, shape, 0.3) for shape in shapes)


# -- acting and learning -----------------------------------------------------------------------


def _acting_and_learning(
    device: torch.device, quick: bool, small: LanguagePolicy
) -> Iterator[tuple[str, float]]:
    """32 environments in transcripts; window prompts of three observations for the baseline.

    Quick runs shorten the transcripts and let fewer environments stand for 32 of GPT-2 small.
    """
    nano = LanguagePolicy.from_scratch("nano", seed=0).to(device)
    for name, policy, envs, length, learned, windows in (
        ("nano", nano, 32, 32 if quick else 128, 16 if quick else 32, 16),
        ("gpt2_small", small, 3 if quick else 32, 6 if quick else 16, 3 if quick else 4, 2),
    ):
        policy.set_precision("auto")
        ours = _acting_rate(PolicyAgent(policy, envs), envs, length)
        learning = _learning_rate(policy, _record(policy, "transcript", learned, length))
        published = as_published(policy)
        policy.set_precision("fp32")
        policy.model = published  # not through LanguagePolicy, which would make it faster
        theirs = _window_rate(EachPhraseAgent(policy, published), windows // 2)
        yield f"act.{name}.over_window", ours / theirs
        apart = _record(policy, "glam", 1, 32)[-windows:]
        yield f"learn.{name}.over_window", learning / _learning_rate(policy, apart)


def _acting_rate(agent: Agent, envs: int, length: int) -> float:
    """Decisions a second in transcripts, the one at a truncation (for its value) included."""
    episodes, seconds = _play(agent, "transcript", envs, length)
    return sum(len(episode.steps) + episode.truncated for episode in episodes) / seconds


def _window_rate(agent: Agent, count: int) -> float:
    """Decisions a second on windows of three observations, recorded from random play, so that the
    environment's time counts as nothing."""
    episodes, _ = _play(RandomAgent(), "glam", count, 16)
    windows = [episode.steps[-1].observation for episode in episodes]
    seconds = _seconds(lambda: agent.act(range(count), windows), 1, warm=count > 1)
    return count / seconds


def _play(agent: Agent, prompt: str, envs: int, length: int) -> tuple[list[Episode], float]:
    """An episode of at most ``length`` steps in each environment, and the seconds they took."""
    text = TextConfig(prompt=prompt, env_args=("num_dists=8", f"max_steps={length}"))
    worlds = [text.make(ENV) for _ in range(envs)]
    started = time.perf_counter()
    episodes = list(play(agent, worlds, range(10**6, 10**6 + envs)))
    return episodes, time.perf_counter() - started


class _Recorder(PolicyAgent):
    """Answers at random and records what a learner needs, without running the model."""

    def act(self, slots: Sequence[int], observations: Sequence[TextObservation]) -> list[Decision]:
        decisions = []
        for slot, seen in zip(slots, observations, strict=True):
            actions = seen.actions or ()
            choice = self._draws[slot].randrange(len(actions))
            decision = self.record(slot, seen, actions[choice], choice)
            assert decision.tokens is not None
            tokens = replace(decision.tokens, log_probs=[-math.log(len(actions))])
            decisions.append(replace(decision, tokens=tokens))
        return decisions


def _record(policy: LanguagePolicy, prompt: str, envs: int, length: int) -> list[Sample]:
    """Episodes of random play as a learner's sequences: one an episode, or one a window."""
    episodes, _ = _play(_Recorder(policy, envs), prompt, envs, length)
    credit = [[[1.0]] * len(episode.steps) for episode in episodes]
    return to_samples(policy, episodes, credit, credit, "sum")


def _learning_rate(policy: LanguagePolicy, samples: list[Sample]) -> float:
    """Decisions a second of one epoch in one minibatch, optimizer step included."""
    learner = Learner(policy, optimizer=Optimizer(policy, "adamw", 1e-4, 0.0))
    decisions = sum(len(sample.columns) for sample in samples)

    def epoch() -> None:
        gradient_step(learner, samples)

    return decisions / _seconds(epoch, 1, warm=False)


# -- end to end --------------------------------------------------------------------------------


def _end_to_end(
    device: torch.device, quick: bool, small: LanguagePolicy
) -> Iterator[tuple[str, float]]:
    """PPO on MixedLocal with 8 distractors: collect, learn for three epochs, again."""
    rates = []
    for prompt, envs, length in (
        ("transcript", 32, 16 if quick else 128),
        ("glam", 2 if quick else 8, 8 if quick else 128),
    ):
        policy = LanguagePolicy.from_scratch("nano", seed=0).to(device)
        agent: Agent = PolicyAgent(policy, envs)
        policy.set_precision("auto")
        if prompt == "glam":
            policy.set_precision("fp32")
            policy.model = as_published(policy)
            agent = EachPhraseAgent(policy, policy.model)
        optimizer = Optimizer(policy, "adamw", 1e-4, 0.0)
        learner = Learner(policy, LearnConfig(target_kl=None), optimizer=optimizer)
        started = time.perf_counter()
        episodes, _ = _play(agent, prompt, envs, length)
        learner.update(episodes)
        taken = sum(len(episode.steps) for episode in episodes)
        rates.append(taken / (time.perf_counter() - started))
    yield "ppo.nano.over_window", rates[0] / rates[1]


def _seconds(work: Callable[[], object], rounds: int, warm: bool = True) -> float:
    """The fastest of a few rounds, after one to warm up."""
    if warm:
        work()
    fastest = float("inf")
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        fastest = min(fastest, time.perf_counter() - started)
    return fastest
