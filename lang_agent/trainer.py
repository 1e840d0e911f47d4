"""A training run: collect episodes, learn from them, record and save; again."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import torch
from torch.utils.tensorboard import SummaryWriter

from lang_agent.agents import PolicyAgent
from lang_agent.alarms import Watch, alarms
from lang_agent.algorithms import ALGORITHMS, LearnState, at_progress, settle
from lang_agent.checkpoint import (
    latest_checkpoint,
    load_policy,
    model_folder,
    restore,
    save_checkpoint,
    save_whole,
)
from lang_agent.config import TrainConfig, load_config, save_config
from lang_agent.demonstrations import Demonstrations
from lang_agent.errors import LangAgentError
from lang_agent.evaluation import EVALUATION_SEED, Evaluation, evaluate
from lang_agent.hindsight import retell
from lang_agent.imitation import apprentice
from lang_agent.learner import update
from lang_agent.lora import add_lora, base_of, has_lora
from lang_agent.memory import release_unused_memory
from lang_agent.mixture import Mixture, learnable, make_mixture
from lang_agent.models import SIZES, freeze_layers
from lang_agent.optimizer import Optimizer
from lang_agent.policy import LanguagePolicy
from lang_agent.reference import Reference
from lang_agent.rollout import Episode, play
from lang_agent.text_env import TextEnv
from lang_agent.tokenizer import sample_texts

CONFIG_FILE = "config.yaml"
METRICS_FILE = "metrics.jsonl"
REFERENCE_FOLDER = "reference"
RECENT = 200  # episodes over which success and return are averaged while training


@dataclass
class Progress:
    """How far a run is: all that a resumed run needs beside its tensors."""

    steps: int = 0
    episodes: int = 0
    updates: int = 0
    seconds: float = 0.0
    recent: list[list[float]] = field(default_factory=list)
    """[success, return, part of the mixture] of late episodes."""
    learning: LearnState = field(default_factory=LearnState)
    watch: Watch = field(default_factory=Watch)


class Trainer:
    """One training run in its folder; :meth:`run` goes on from wherever the folder is.

    Args:
        policy: a model in memory to begin with, instead of the configuration's ``model``.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        *,
        resume: bool = False,
        policy: LanguagePolicy | None = None,
    ) -> None:
        self.config, self.folder = config, folder
        self.learn = settle(config.learn)
        if config.threads:
            torch.set_num_threads(config.threads)
        self.envs = [self.make_env() for _ in range(config.envs)]
        if config.hindsight:
            self._watch()
        checkpoint = latest_checkpoint(folder) if resume else None
        device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.policy = (policy or self._policy(checkpoint, config.model)).to(device)
        learn = self.learn
        bounded = ALGORITHMS[learn.algorithm].trust_region and config.precision == "auto"
        self.policy.set_precision("fp32" if bounded else config.precision)
        self.optimizer = Optimizer(
            self.policy, learn.optimizer, learn.learning_rate, learn.weight_decay
        )
        self.generator = torch.Generator().manual_seed(config.seed)
        self.progress = Progress()
        first = self.envs[0].unwrapped
        self.weights = list(first.weights) if isinstance(first, Mixture) else []
        self.demonstrations = None
        if ALGORITHMS[learn.algorithm].imitates and config.imitation.demonstrations:
            file = Path(config.imitation.demonstrations)
            self.demonstrations = Demonstrations(file, self.policy, config.seed)
        self.reference = self._reference(resumed=checkpoint is not None) if learn.kl_coef else None
        self._retold: list[Episode] = []  # the last rollout in hindsight
        self.stop = False  # set it to end the run after the update under way
        if checkpoint is not None:
            self.progress = _progress(restore(checkpoint, self.optimizer, self.generator))
            _forget_after(folder / METRICS_FILE, self.progress.updates)
        folder.mkdir(parents=True, exist_ok=True)
        save_config(config, folder / CONFIG_FILE)

    def make_env(self, **env_kwargs: Any) -> gymnasium.Env[str, str]:
        """What the run is about: its environment, or its mixture of them."""
        config = self.config
        if config.mixture:
            return make_mixture(config.text, config.mixture, **env_kwargs)
        return config.text.make(config.env, **env_kwargs)

    def _watch(self) -> None:
        """Have the worlds say what episodes fulfil."""
        takes = [name for name, row in ALGORITHMS.items() if not row.trust_region | row.imitates]
        if self.learn.algorithm not in takes:
            raise LangAgentError(
                f"{self.learn.algorithm} has no place for hindsight={self.config.hindsight}: set "
                f"it to 0, or choose one of {', '.join(takes)}."
            )
        for env in self.envs:
            whole = env.unwrapped
            for part in whole.envs if isinstance(whole, Mixture) else [whole]:
                if not isinstance(part.unwrapped, TextEnv):
                    raise LangAgentError(
                        f"{part} is not put into words by a TextEnv, which hindsight needs to tell "
                        "its episodes again: set hindsight to 0."
                    )
                part.unwrapped.watch()

    def _policy(self, checkpoint: Path | None, name: str) -> LanguagePolicy:
        """The policy to go on with, or to begin with."""
        config = self.config
        if checkpoint is not None:
            policy = load_policy(checkpoint)
        elif name in SIZES:
            others = [config.text.make(env_id) for env_id in config.vocabulary_from]
            texts = sample_texts([self.make_env(), *others])
            names = getattr(self.envs[0].unwrapped, "names", ())
            policy = LanguagePolicy.from_scratch(
                name, seed=config.seed, texts=texts, names=names, context=config.context
            )
        else:
            policy = load_policy(name)
        if checkpoint is None and config.value_layer != policy.value_layer != -1:
            raise LangAgentError(
                f"value_layer={config.value_layer}, but the value head of '{name}' was trained on "
                f"layer {policy.value_layer}."
            )
        if checkpoint is None and config.value_layer != policy.value_layer:
            policy = LanguagePolicy(policy.model, policy.tokenizer, value_layer=config.value_layer)
        if config.lora_rank and not has_lora(policy.model):
            found = name if name in SIZES else str(model_folder(name))
            add_lora(policy.model, config.lora_rank, base=base_of(found))
        freeze_layers(policy.model, config.freeze_layers)
        if config.learn.recompute_activations:
            policy.model.gradient_checkpointing_enable({"use_reentrant": False})
        return policy

    def _reference(self, *, resumed: bool) -> Reference:
        """The policy as the run began, kept in the run folder; of one with LoRA nothing to keep."""
        if has_lora(self.policy.model):
            return Reference(self.policy)
        folder = self.folder / REFERENCE_FOLDER
        if not resumed:
            save_whole(self.policy, folder)
        frozen = load_policy(folder).to(self.policy.device)
        frozen.precision = self.policy.precision
        return Reference(frozen)

    def run(self, on_update: Callable[[dict[str, Any]], None] | None = None) -> None:
        """Train until the configured number of steps, or until :attr:`stop`; then save."""
        writer = SummaryWriter(str(self.folder), purge_step=self.progress.steps)
        try:
            with (self.folder / METRICS_FILE).open("a") as log:
                while self.progress.steps < self.config.steps and not self.stop:
                    metrics = self._iterate()
                    release_unused_memory()
                    log.write(json.dumps(metrics) + "\n")
                    log.flush()
                    for name, value in metrics.items():
                        if name == "alarms":
                            continue
                        writer.add_scalar(name, value, self.progress.steps)
                    if on_update:
                        on_update(metrics)
                    if self.progress.updates % self.config.checkpoint_every == 0:
                        self.save()
            self.save()
        finally:
            writer.close()

    def save(self) -> Path:
        """Write a checkpoint of the last whole update."""
        return save_checkpoint(
            self.folder, self.policy, self.optimizer, self.generator, asdict(self.progress)
        )

    def _iterate(self) -> dict[str, Any]:
        """One rollout and the update from it."""
        config, progress = self.config, self.progress
        done = min(progress.steps / config.steps, 1.0)
        learn = at_progress(self.learn, done)
        rate = learn.learning_rate * (1 - (1 - learn.lr_final) * done)
        self.optimizer.set_rate(rate)
        started = time.perf_counter()
        episodes = self._collect(done)
        acted = time.perf_counter()
        judged = [episode for episode in episodes if episode.judged]
        learned = update(
            self.policy,
            self.optimizer,
            judged,
            learn,
            config.decide,
            self.generator,
            progress.learning,
            self.reference,
            self._retold,
        )
        seconds = time.perf_counter() - started
        steps = sum(len(episode.steps) for episode in episodes)
        recent = deque(progress.recent, maxlen=RECENT)
        recent.extend(
            [float(episode.success), episode.total_reward, episode.steps[0].info.get("part", 0)]
            for episode in episodes
        )
        self.progress = Progress(
            steps=progress.steps + steps,
            episodes=progress.episodes + len(episodes),
            updates=progress.updates + 1,
            seconds=progress.seconds + seconds,
            recent=list(recent),
            learning=progress.learning,
            watch=progress.watch,
        )
        metrics: dict[str, Any] = {
            "steps": self.progress.steps,
            "episodes": self.progress.episodes,
            "updates": self.progress.updates,
            "seconds": self.progress.seconds,
            "steps_per_second": steps / seconds,
            "acting_fraction": (acted - started) / seconds,
            "success": sum(item[0] for item in recent) / len(recent),
            "return": sum(item[1] for item in recent) / len(recent),
            "episode_length": steps / len(episodes),
            "invalid_rate": sum(episode.invalid_actions for episode in episodes) / steps,
            "learning_rate": rate,
            **learned,
            **_reward_parts(episodes),
        }
        found = alarms(progress.watch, metrics)
        return {**metrics, "alarms": found} if found else metrics

    def _collect(self, done: float) -> list[Episode]:
        """The next rollout, when the part ``done`` of the run lies behind."""
        config, progress = self.config, self.progress
        if self.demonstrations is not None:
            return self.demonstrations.after(progress.episodes, config.rollout_steps)
        if config.curriculum == "learnable":
            outcomes = [(int(part), success) for success, _, part in progress.recent]
            for env in self.envs:
                mixture = env.unwrapped
                assert isinstance(mixture, Mixture)
                mixture.weights = learnable(self.weights, outcomes)
        self._retold = []
        scribe = PolicyAgent(self.policy, 1)

        def tell_again(episode: Episode, env: gymnasium.Env[str, str]) -> None:
            whole = env.unwrapped
            world = whole.playing if isinstance(whole, Mixture) else whole
            assert isinstance(world, TextEnv)
            self._retold += retell(
                episode, world, scribe, config.hindsight, self.learn, self.generator
            )

        size = self.learn.group_size or 1
        seeds = training_seeds(config.seed, progress.episodes // size)
        played = play(
            self._player(done),
            self.envs,
            seeds,
            min_steps=config.rollout_steps,
            group_size=size,
            on_end=tell_again if config.hindsight else None,
        )
        return sorted(played, key=lambda episode: episode.index)

    def _player(self, done: float) -> PolicyAgent:
        """Who plays the next rollout, when the part ``done`` of the run lies behind."""
        config = self.config
        if not ALGORITHMS[config.learn.algorithm].imitates:
            return PolicyAgent(self.policy, config.envs, config.decide, generator=self.generator)
        return apprentice(
            self.policy, config.envs, config.decide, config.imitation, done, self.generator
        )

    def evaluate(
        self, episodes: int, on_episode: Callable[[Episode], None] | None = None
    ) -> list[Evaluation]:
        """Play held-out episodes with sampled actions, as in training."""
        for env in self.envs:
            if isinstance(env.unwrapped, Mixture):
                env.unwrapped.weights = self.weights
        agent = self.agent(len(self.envs))
        name = "mixture" if self.config.mixture else self.config.env
        return evaluate(agent, self.envs, episodes, name=name, on_episode=on_episode)

    def agent(self, slots: int) -> PolicyAgent:
        """The policy as an agent with draws of its own, so that looking changes nothing."""
        generator = torch.Generator().manual_seed(EVALUATION_SEED)
        return PolicyAgent(self.policy, slots, self.config.decide, generator=generator)


def _reward_parts(episodes: Sequence[Episode]) -> dict[str, float]:
    """Mean, standard deviation and seconds of each reward that a rubric is made of, and the share
    of the episodes that it could not judge."""
    said: dict[str, list[float]] = {}
    metrics: dict[str, float] = {}
    for episode in episodes:
        for step in episode.steps:
            for name, value in step.info.get("rewards", {}).items():
                said.setdefault(name, []).append(value)
            for name, seconds in step.info.get("reward_seconds", {}).items():
                key = f"reward_seconds/{name}"
                metrics[key] = metrics.get(key, 0.0) + seconds
    for name, values in said.items():
        metrics[f"reward/{name}"] = statistics.mean(values)
        metrics[f"reward_std/{name}"] = statistics.pstdev(values)
    if said:
        metrics["unjudged"] = sum(not episode.judged for episode in episodes) / len(episodes)
    return metrics


def training_seeds(run_seed: int, first_episode: int) -> Iterator[int]:
    """Episode seeds of a run from its n-th episode on, all below ``EVALUATION_SEED``."""
    first = run_seed * 7_919_003 % (EVALUATION_SEED - 100_000_000)
    return itertools.count(first + first_episode)


def start(config: TrainConfig, folder: Path, policy: LanguagePolicy | None = None) -> Trainer:
    """A new run, of a ``policy`` in memory where one is given; raises :class:`LangAgentError`
    rather than write over one that is there."""
    if (folder / CONFIG_FILE).exists():
        raise LangAgentError(
            f"'{folder}' holds a run already: --resume it or choose another --out."
        )
    return Trainer(config, folder, policy=policy)


def resume(folder: Path) -> Trainer:
    """The run in ``folder``, as of its last whole checkpoint."""
    if not (folder / CONFIG_FILE).is_file():
        raise LangAgentError(f"'{folder}' is no run folder: it has no {CONFIG_FILE}.")
    return Trainer(load_config(folder / CONFIG_FILE, TrainConfig), folder, resume=True)


def _progress(record: dict[str, Any]) -> Progress:
    """A checkpoint's progress."""
    learning, watch = LearnState(**record.pop("learning")), Watch(**record.pop("watch"))
    return Progress(**record, learning=learning, watch=watch)


def _forget_after(log: Path, updates: int) -> None:
    """Drop the metrics of updates that a resumed run will make again."""
    if log.is_file():
        lines = [line for line in log.read_text().splitlines() if line.endswith("}")]
        kept = [line for line in lines if json.loads(line)["updates"] <= updates]
        log.write_text("".join(f"{line}\n" for line in kept))
