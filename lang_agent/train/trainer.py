"""A training run: collect episodes, learn from them, record and save; again."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gymnasium
import torch

from lang_agent.agents.policy_agent import PolicyAgent
from lang_agent.config import as_data
from lang_agent.episode import Episode
from lang_agent.errors import LangAgentError
from lang_agent.evaluation.evaluate import Evaluation, evaluate
from lang_agent.evaluation.run_records import METRICS_FILE
from lang_agent.extensions import ExtensionError
from lang_agent.files import CARRIED, set_aside, tell
from lang_agent.language_env import language_env
from lang_agent.learn.algorithms import algorithm_of, resolve
from lang_agent.learn.learner import Learner
from lang_agent.learn.reference import Reference
from lang_agent.learn.workers import ALONE, Workers
from lang_agent.lock import FolderLock
from lang_agent.models.device import find_device
from lang_agent.models.gpt2 import SIZES
from lang_agent.models.lora import has_lora
from lang_agent.models.policy import LanguagePolicy
from lang_agent.models.precision import choose_precision
from lang_agent.models.sealed import refuse_damaged
from lang_agent.models.sharding import acting, shard
from lang_agent.models.store import CONFIG_FILE, load_policy, save_whole
from lang_agent.models.threads import use_threads
from lang_agent.stepping import EnvError, EnvErrors
from lang_agent.text_env.prompt import carry
from lang_agent.train.ahead import refuse_without_ratio
from lang_agent.train.alarms import alarms
from lang_agent.train.callbacks import Callbacks, added
from lang_agent.train.checkpoint import (
    give_parts,
    place_of,
    restore,
    save_checkpoint,
    usable_checkpoint,
)
from lang_agent.train.collect import Rollout
from lang_agent.train.collectors import make_collector
from lang_agent.train.config import TrainConfig
from lang_agent.train.memory import release_unused_memory, return_large_blocks
from lang_agent.train.run_folder import (
    REFERENCE_FOLDER,
    Progress,
    beginning,
    extend,
    forget_after,
    read_progress,
    refuse_edits,
    refuse_overtaken,
    reopen,
)
from lang_agent.train.run_log import (
    RunLog,
    expert_metrics,
    part_metrics,
    reward_parts,
    world_metrics,
)
from lang_agent.train.run_parts import first_policy, make_env, remote_envs, watch_achieved
from lang_agent.train.snapshots import forget_snapshots_after, take_snapshot
from lang_agent.train.tracking import make_trackers
from lang_agent.train.workers import working

NAMED_ERRORS = 3  # of an update's errors of environments: as many are shown in full
RECENT = 200  # episodes over which success and return are averaged while training


class Trainer:
    """One training run in its folder, made by :func:`start` or :func:`resume`; :meth:`run` goes on
    from wherever it is.

    Args:
        checkpoint: what to go on from; None for the beginning.
        policy: a model in memory to begin with, instead of the configuration's ``model``.
        trust: run Python code that comes with the model, where it has some.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        *,
        checkpoint: Path | None = None,
        policy: LanguagePolicy | None = None,
        lock: FolderLock | None = None,
        trust: bool = False,
    ) -> None:
        self.config, self.folder, self.trust = config, folder, trust
        self.learn = resolve(config.learn, new=_is_new(config, policy))
        if config.shard and algorithm_of(self.learn).trust_region:
            raise LangAgentError(
                f"{config.learn.algorithm} takes second derivatives, which cannot be taken of "
                "weights that are shared out: set shard to False, or choose another algorithm."
            )
        if config.async_envs:
            refuse_without_ratio(self.learn)
        self.lock = lock or FolderLock(folder)
        self.trackers = make_trackers(config, folder)
        self._callbacks = Callbacks(config)
        # Those that answer later stand in processes of their own: one here says what they are.
        self.envs = [self.make_env() for _ in range(1 if config.async_envs else config.envs)]
        if config.hindsight:
            watch_achieved(self.envs, config)
        self.progress = Progress() if checkpoint is None else read_progress(checkpoint)
        self.device = find_device(config.device)
        self.policy = first_policy(config, folder, self.envs, checkpoint, policy, trust=trust)
        if not config.shard:  # else its parts go there one by one, when there is somebody to share
            self.policy.to(self.device)
        self.policy.words, self.policy.config_file = as_data(config.text), None
        use_threads(config.threads, self.policy, self.device)
        self._set_precision()  # which it measures
        learn = self.learn
        self.reference = self._reference(resumed=checkpoint is not None) if learn.kl_coef else None
        self._log: RunLog | None = None
        self.stop = False  # set it to end the run after the update under way
        self.learner = Learner(
            self.policy,
            learn,
            config.decide,
            reference=self.reference,
            state=self.progress.learning,
            updates=self.progress.updates,
            seed=config.seed,
        )
        if checkpoint is not None and not config.shard:
            restore(checkpoint, self.learner.optimizer)
        self.join(ALONE)
        self.saved = checkpoint or self.save()
        """The newest checkpoint."""

    def join(self, workers: Workers) -> None:
        """Play and learn from now on as one of several workers, who all stand where this one does.

        Each plays in as many environments as one alone would: it has fewer episodes to play, and a
        pass of a small model takes as long for few of them as for many.
        """
        self.workers = self.learner.workers = workers
        """Who trains this run."""
        if workers.shards:
            self._share_weights()
        self.collector = make_collector(self.config, self.learn, self.policy, self.envs, workers)
        use_threads(self.config.threads, self.policy, self.policy.device, workers.size)

    def _share_weights(self) -> None:
        """Keep this worker's part of the weights, and of the optimizer's state in the checkpoint
        that all begin from."""
        if self.policy.shards is not None:
            raise LangAgentError(
                f"The run's weights are shared out among workers that have ended: `lang-agent "
                f"train --resume {self.folder}`, or resume(), goes on."
            )
        return_large_blocks()
        shard(self.policy, self.device)
        if self.reference is not None and self.reference.frozen is not None:
            shard(self.reference.frozen, self.device)
        self.learner.optimizer = self.learner.new_optimizer()
        restore(self.saved, self.learner.optimizer)

    def _have_others(self, do: str, *arguments: Any) -> None:
        """Have the other workers do what this one is about to do."""
        if self.workers.leads:
            self.workers.say((do, *arguments))

    def follow(self) -> None:
        """As a worker that does not lead: do what the first one does, until it ends."""
        while (what := self.workers.say()) is not None:
            name, *arguments = what
            getattr(self, name)(*arguments)
            release_unused_memory()

    def make_env(self, **env_kwargs: Any) -> gymnasium.Env[str, str]:
        """What the run is about: its environment, or its mixture of them."""
        return make_env(self.config, **env_kwargs)

    def _reference(self, *, resumed: bool) -> Reference:
        """The policy as the run began, kept in the run folder; of one with LoRA nothing to keep."""
        if has_lora(self.policy.model):
            return Reference(self.policy)
        folder = self.folder / REFERENCE_FOLDER
        if not resumed:
            save_whole(self.policy, folder)
        refuse_damaged(folder)
        frozen = load_policy(folder, trust=self.trust).to(self.policy.device)
        frozen.precision = self.policy.precision
        return Reference(frozen)

    def _set_precision(self) -> None:
        """As configured; what "auto" came to is kept, for a resumed run to go on in."""
        config = self.config
        bounded = algorithm_of(self.learn).trust_region and config.precision == "auto"
        wanted = "fp32" if bounded else config.precision
        chosen = choose_precision(
            self.progress.precision or wanted,
            self.device,
            self.policy.width,
            acts=config.imitation.demonstrations is None and not config.imitation.processes,
        )
        self.policy.precision = chosen
        self.progress.precision = "fp32" if self.policy.precision == torch.float32 else "bf16"

    def run(
        self,
        on_update: Callable[[dict[str, Any]], None] | None = None,
        on_episode: Callable[[Episode], None] | None = None,
        on_played: Callable[[Episode], None] | None = None,
    ) -> None:
        """Train until the configured number of steps, or until :attr:`stop`; then save.

        Where an episode cannot be collected, what was learned before is saved first.

        Args:
            on_update: called with the metrics of every update, before they are logged; what it adds
                to them is logged as well, as ``metric/<name>``.
            on_episode: called with every episode of a rollout, in their order, before it is
                learned.
            on_played: called with every episode as soon as it has been played.
        """
        with self.lock, self.logging() as log:
            self._take_snapshot()
            due = time.monotonic() + 60 * self.config.checkpoint_minutes
            while self.progress.steps < self.config.steps and not self.stop:
                metrics, episodes = self._iterate(on_episode, on_played)
                release_unused_memory()
                try:
                    self._callbacks(self, metrics, episodes)
                    if on_update:
                        given = dict(metrics)
                        on_update(given)
                        metrics |= added(metrics, given, "on_update")
                except BaseException as error:
                    log.write(metrics)
                    log.flush()
                    self._save_after(error)
                    raise
                log.write(metrics)
                self._take_snapshot()
                every = self.progress.updates % self.config.checkpoint_every == 0
                if every or self.progress.updates == 1:
                    log.sample(episodes[0], self.progress.steps)
                if every or time.monotonic() >= due:
                    log.flush()
                    self.save()
                    due = time.monotonic() + 60 * self.config.checkpoint_minutes
            self._take_snapshot(last=not self.stop)
            log.flush()
            self.save()

    @contextmanager
    def logging(self) -> Iterator[RunLog]:
        """The run's log, open, and its workers at work: :meth:`run` opens it, or whoever has more
        to log before or after."""
        if self._log is not None:
            yield self._log
            return
        refuse_overtaken(self.folder, self.saved)
        with RunLog(self.folder, self.progress.steps, self.trackers) as self._log:
            try:
                with working(self):
                    yield self._log
            finally:
                self._log = None
                self.collector.close()

    def _take_snapshot(self, last: bool = False) -> None:
        """Keep some episodes of the policy as it stands, where it is time for it."""
        every, updates = self.config.snapshot_every, self.progress.updates
        if not every or not (last or updates % every == 0):
            return
        with self.leading():
            take_snapshot(self.folder, updates, self.policy, self.config, self.make_env)

    def save(self) -> Path:
        """Write a checkpoint of the last whole update."""
        with self.lock:
            if self.workers.shards and not place_of(self.folder, self.progress.steps).exists():
                self._have_others("give_parts")
            record = {"config": as_data(self.config), "progress": asdict(self.progress)}
            self.saved = save_checkpoint(self.folder, self.policy, self.learner.optimizer, record)
        return self.saved

    def give_parts(self) -> None:
        """As a worker that does not lead: give one's parts of what the first one saves."""
        give_parts(self.policy, self.learner.optimizer)

    @contextmanager
    def leading(self) -> Iterator[None]:
        """While the first worker alone acts with the policy; where weights are shared out, the
        others make its passes with it."""
        if self.workers.shards:
            self._have_others("assist")
        with acting(self.policy):
            yield

    def assist(self) -> None:
        """As a worker that does not lead: make the passes of the first one with it."""
        with acting(self.policy):
            pass

    def _iterate(
        self,
        on_episode: Callable[[Episode], None] | None = None,
        on_played: Callable[[Episode], None] | None = None,
    ) -> tuple[dict[str, Any], list[Episode]]:
        """One rollout and the update from it: its metrics and its episodes."""
        self._have_others("_iterate")
        config, progress = self.config, self.progress
        done = min(progress.steps / config.steps, 1.0)
        started = time.perf_counter()
        errors = EnvErrors(config.on_env_error)
        rollout = self._collected(done, errors, on_played)
        episodes = rollout.episodes
        if on_episode:
            for episode in episodes:
                on_episode(episode)
        acted = time.perf_counter()
        judged = [episode for episode in episodes if episode.judged]
        learned = self._learned(judged, rollout.relabelled, done)
        seconds = time.perf_counter() - started
        steps = sum(len(episode.steps) for episode in episodes)
        recent = deque(progress.recent, maxlen=RECENT)
        recent.extend(
            [float(e.success), e.total_reward, e.steps[0].info.get("part", 0), len(e.steps)]
            for e in episodes
        )
        self.progress = Progress(
            steps=progress.steps + steps,
            episodes=progress.episodes + len(episodes) + errors.left_out,
            updates=progress.updates + 1,
            seconds=progress.seconds + seconds,
            recent=list(recent),
            learning=self.learner.state,
            watch=progress.watch,
            precision=progress.precision,
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
            "learning_rate": self.learner.learning_rate(done),
            **learned,
            **reward_parts(episodes),
            **world_metrics(episodes),
            **self._of_parts(recent),
        }
        if config.async_envs:
            metrics["ahead_fraction"] = rollout.ahead / len(episodes)
        if algorithm_of(self.learn).imitates and not config.imitation.demonstrations:
            metrics |= expert_metrics(episodes)
        found = alarms(progress.watch, metrics)
        if errors.seen:
            metrics["env_errors"] = len(errors.seen)
            found += [str(error) for error in errors.seen[:NAMED_ERRORS]]
        return {**metrics, **({"alarms": found} if found else {})}, episodes

    def _of_parts(self, recent: Sequence[Sequence[float]]) -> dict[str, float]:
        """What is measured of each part of a mixture, with the weights of the last rollout."""
        if not self.config.mixture:
            return {}
        mixture = language_env(self.envs[0])
        words = [part.split() for part in self.config.mixture]
        names = [" ".join(word for word in part if word[:7] != "weight=") for part in words]
        return part_metrics(names, mixture.drawn_weights or mixture.weights, recent)

    def _collected(
        self, done: float, errors: EnvErrors, on_played: Callable[[Episode], None] | None
    ) -> Rollout:
        """The next rollout; where it fails, the run is saved as it was before it."""
        try:
            return self.collector.collect(self.progress, done, errors, on_played)
        except Exception as error:
            self._save_after(error)
            raise

    def _learned(
        self, episodes: Sequence[Episode], relabelled: Sequence[Episode], done: float
    ) -> dict[str, float]:
        """One update; where somebody's own algorithm or optimizer fails before it has moved the
        policy, the run is saved as it was before."""
        version, state = self.policy.version, replace(self.learner.state)
        try:
            return self.learner.update(episodes, relabelled, done=done)
        except ExtensionError as error:
            if self.policy.version == version:
                self.progress.learning = state
                self._save_after(error)
            else:
                tell(
                    f"The update was not finished: `lang-agent train --resume {self.folder}` goes "
                    f"on from {self.saved.name} and makes it again."
                )
            raise

    def _save_after(self, error: BaseException) -> None:
        """Save the run as of its last whole update, and say so, when an error is to end it. That is
        the first worker's part; where weights are shared out, the others give theirs."""
        if not self.workers.leads:
            if self.workers.shards and self.workers.say() is not None:
                self.give_parts()
            return
        try:
            self.save()
        except LangAgentError as another:
            tell(str(another))
            return
        if isinstance(error, EnvError | ExtensionError):
            may_skip = isinstance(error, EnvError) and not self.config.awaits_all
            skip = " --on-env-error skip" if may_skip else ""
            what = "without such episodes" if skip else "once that is mended"
            tell(
                f"Saved as of update {self.progress.updates}: `lang-agent train --resume "
                f"{self.folder}{skip}` goes on {what}."
            )

    def evaluate(
        self, episodes: int, on_episode: Callable[[Episode], None] | None = None
    ) -> list[Evaluation]:
        """Play held-out episodes with sampled actions, as in training."""
        self._have_others("evaluate", episodes)
        for env in map(language_env, self.envs):
            env.drawn_weights = None
        name = "mixture" if self.config.mixture else self.config.env
        with ExitStack() as passes:
            passes.enter_context(acting(self.policy))

            def gather(mine: Any) -> list[Any]:
                passes.close()  # everybody's end before anything else is asked of all
                return self.workers.gather(mine)

            envs: Sequence[gymnasium.Env[str, str]] = self.envs
            if self.config.async_envs:  # others than those in which training goes on
                envs = passes.enter_context(remote_envs(self.config))
            return evaluate(
                self.agent(len(envs)),
                envs,
                episodes,
                name=name,
                share=(self.workers.rank, self.workers.size),
                gather=gather,
                on_episode=on_episode,
                on_env_error=self.config.on_env_error,
            )

    def agent(self, slots: int) -> PolicyAgent:
        """The policy as an agent."""
        return PolicyAgent(self.policy, slots, self.config.decide)


def _is_new(config: TrainConfig, policy: LanguagePolicy | None) -> bool:
    """Whether the run begins with random weights; of a policy in memory nobody knows."""
    return policy is None and config.model in SIZES


def start(
    config: TrainConfig,
    folder: Path,
    policy: LanguagePolicy | None = None,
    *,
    trust: bool = False,
) -> Trainer:
    """A new run in ``folder``, saved as it begins; ``Trainer.run`` trains it.

    Args:
        policy: a model in memory to begin with, instead of the configuration's ``model``.
        trust: run Python code that comes with the model, where it has some.

    Raises:
        LangAgentError: the folder holds a run already, or the run cannot begin; what was made of
            the folder until then is removed.
    """
    rate = resolve(config.learn, new=_is_new(config, policy)).learning_rate
    config = replace(config, learn=replace(config.learn, learning_rate=rate))
    with beginning(folder, config) as lock:
        run = Trainer(config, folder, policy=policy, lock=lock, trust=trust)
        carry(config.text.prompt, config.text.prompt_folder, folder / CARRIED)
        return run


def resume(
    folder: Path,
    *,
    steps: int | None = None,
    as_edited: bool = False,
    on_env_error: str | None = None,
    trust: bool = False,
) -> Trainer:
    """The run in ``folder``, as of its newest checkpoint that is whole.

    Args:
        steps: train to so many steps in all, instead of the configuration's; it is written there.
            What depends on the part of the run that lies behind (the learning rate) follows.
        as_edited: go on with a ``config.yaml`` that has changed since the run was saved, which is
            refused otherwise.
        on_env_error: in place of the configuration's, from now on.
        trust: import what the configuration names (:func:`load_config`), and run Python code that
            comes with the model.
    """
    if not os.path.isdir(folder):
        raise LangAgentError(f"'{folder}' is no run folder: it has no {CONFIG_FILE}.")
    lock = FolderLock(folder)
    with lock:
        config = reopen(folder, trust=trust)
        checkpoint = usable_checkpoint(folder)
        if checkpoint is None:
            tell(f"'{folder}' has no checkpoint: the run begins at its start.")
        elif not as_edited:
            refuse_edits(folder, config, checkpoint)
        if on_env_error is not None:
            config = replace(config, on_env_error=on_env_error)
        if steps is not None:
            config = _extended(config, steps, checkpoint)
        run = Trainer(config, folder, checkpoint=checkpoint, lock=lock, trust=trust)
        if steps is not None:
            extend(folder, steps, run.progress.steps)
        if checkpoint is None and (folder / METRICS_FILE).is_file():
            set_aside(folder / METRICS_FILE, "before")
        forget_after(folder / METRICS_FILE, run.progress.updates)
        forget_snapshots_after(folder, run.progress.updates)
        return run


def _extended(config: TrainConfig, steps: int, checkpoint: Path | None) -> TrainConfig:
    done = 0 if checkpoint is None else read_progress(checkpoint).steps
    if steps < done:
        raise LangAgentError(
            f"steps={steps} is less than the {done} that the run has trained already: it cannot "
            "be made shorter."
        )
    return replace(config, steps=steps)
