"""One training run, whole: what the command line's flags, its YAML and its record hold."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated

from lang_agent.errors import LangAgentError, unknown
from lang_agent.learn.config import ImitationConfig, LearnConfig
from lang_agent.models.decide import GENERATE, DecideConfig
from lang_agent.ranges import Range, check_ranges, refuse_unused, require
from lang_agent.stepping import RULES as RULES_FOR_ERRORS
from lang_agent.text_env.config import TextConfig

TRACKS = ("tensorboard", "trackio", "wandb", "none")
"""The trackers that go by a name."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run, whole."""

    env: str = "BabyAI-GoToLocal-v0"
    """Gymnasium id; `lang-agent envs` lists them."""
    mixture: tuple[str, ...] = ()
    """Train on a mixture of these instead, each "ID [name=value ...] [weight=w]"."""
    curriculum: str = "fixed"
    """fixed, or learnable: a mixture's weights move toward what half succeeds."""
    text: TextConfig = field(default_factory=TextConfig)
    model: str = "nano"
    """A new GPT-2 (pico, nano, mini, micro or small), babyai, smollm2 (its extra), a run or model
    folder, or a hub id."""
    precision: str = "auto"
    """fp32, bf16 or auto: bf16 where it measures faster."""
    lora_rank: Annotated[int, Range(0, 65_536)] = 0
    """Train a LoRA adapter of this rank instead of the model; 0 for none."""
    freeze_layers: Annotated[int, Range(0)] = 0
    """Train neither the embeddings nor the first so many layers; 0 trains all."""
    context: Annotated[int | None, Range(1, 1_000_000)] = None
    """Of a new model: the most tokens it reads, its memory of a transcript. Less is faster."""
    chat: bool | None = None
    """Whether prompts are messages in the tokenizer's chat template; by default where a model
    has one. A trained policy goes on as it was trained."""
    value_layer: int = -1
    """The layer whose output the value head of a new policy reads; -1 is the last."""
    decide: DecideConfig = field(default_factory=DecideConfig)
    vocabulary_from: tuple[str, ...] = ()
    """Further environments whose words a new model's tokenizer shall know, for later training."""
    learn: LearnConfig = field(default_factory=LearnConfig)
    hindsight: Annotated[float, Range(0, below=1)] = 0.0
    """Learn from what episodes did fulfil too, whatever their missions were: the last steps on
    the way there, each further one with this probability; 0 for none."""
    symmetries: bool = False
    """Tell in hindsight what an episode did as it is in a mirror and in other colours, or whatever
    else the world's symmetries are."""
    imitation: ImitationConfig = field(default_factory=ImitationConfig)
    steps: Annotated[int, Range(1)] = 100_000
    """Environment steps to learn from."""
    rollout_steps: Annotated[int, Range(1)] = 512
    """Environment steps before each update, about: as many whole episodes are played as the lengths
    of those before say will have them."""
    envs: Annotated[int, Range(1, 100_000)] = 16
    """Episodes played at once; which ones are played does not depend on it."""
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0
    """Of the episodes, the draws and a new model's weights."""
    out: str | None = None
    """Run folder; runs/<env>-<seed>-<time> by default."""
    checkpoint_every: Annotated[int, Range(1)] = 20
    """Updates between checkpoints."""
    checkpoint_minutes: Annotated[float, Range(above=0)] = 10.0
    """Minutes after which the next update is followed by one anyway."""
    on_env_error: str = "stop"
    """What becomes of an episode whose environment raises: stop (what is learned is saved), skip
    (it is left out and counted) or retry (it is played anew, three times at most)."""
    eval_episodes: Annotated[int, Range(0)] = 200
    """Held-out episodes played before and after training; 0 for none."""
    track: tuple[str, ...] = ("tensorboard",)
    """Where curves go: tensorboard, trackio, wandb, none, or module:name of your own; or to
    several."""
    metrics: tuple[str, ...] = ()
    """Functions of your own, by module:name, that are given an episode and return a number or
    several by name: the means of each update's episodes are logged as metric/name."""
    callback: tuple[str, ...] = ()
    """Functions of your own, by module:name, called after each update with the run, its metrics
    (what they add is logged) and its episodes."""
    snapshot_every: Annotated[int, Range(0)] = 10
    """Updates between two snapshots: held-out episodes of the policy as it stands, kept step by
    step in the run folder for `lang-agent report`, and one at the end; 0 for none."""
    snapshot_episodes: Annotated[int, Range(1, 1000)] = 4
    """Episodes of a snapshot, on the same seeds each time."""
    gif: bool = False
    """Film a held-out episode at the end: episode.gif."""
    workers: Annotated[int, Range(1, 1024)] | str = 1
    """Processes that play and learn side by side: the same run, sooner. auto takes as many as pay
    on this machine."""
    shard: bool = False
    """Share the model's weights, gradients and optimizer's state out among the workers: a model
    larger than one device. Every pass gathers a layer's weights from all, which takes longer."""
    async_envs: bool = False
    """Step each environment in a process of its own (extra ray) and act in those that have
    answered: for slow worlds. Episodes may begin an update early, so that it is another run."""
    threads: Annotated[int | None, Range(1, 1024)] = None
    """Processor threads of torch, of each worker; by default one for a model below ten million
    parameters on a processor, and for others torch's own number, shared out among the workers."""
    device: str | None = None
    """cpu or cuda; by default a GPU where there is one."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.on_env_error not in RULES_FOR_ERRORS:
            raise unknown("on_env_error", self.on_env_error, RULES_FOR_ERRORS)
        if isinstance(self.workers, str) and self.workers != "auto":
            raise LangAgentError(f"workers={self.workers} must be a number of processes, or auto.")
        if self.shard and self.workers in (1, "auto"):
            raise LangAgentError(
                f"shard=True shares the model out among workers, and workers={self.workers}: set "
                "workers to a number from 2 on, or shard to False."
            )
        if self.async_envs:
            self._check_async()
        for name in self.track:
            if name not in TRACKS and ":" not in name:
                raise unknown("tracker", name, TRACKS)
        for kind in ("metrics", "callback"):
            for name in getattr(self, kind):
                require(kind, name, ":" in name, "the module:name of a function of your own")
        if "none" in self.track and len(self.track) > 1:
            raise LangAgentError(f"track={' '.join(self.track)}: none goes with no other.")
        if self.curriculum not in ("fixed", "learnable"):
            raise unknown("curriculum", self.curriculum, ("fixed", "learnable"))
        if self.curriculum == "learnable" and len(self.mixture) < 2:
            raise LangAgentError("curriculum=learnable needs a mixture of at least two parts.")
        if self.hindsight and self.decide.decide == GENERATE:
            raise LangAgentError(
                f"hindsight={self.hindsight} learns choices among phrases, and decide=generate "
                "makes none: set one of the two otherwise."
            )
        self._check_learning()
        require(
            "temperature",
            self.decide.temperature,
            self.decide.temperature > 0,
            "above 0 to train: a greedy policy never tries anything else",
        )

    @property
    def awaits_all(self) -> bool:
        """Whether all episodes are awaited by number, so that none can be left out."""
        return self.async_envs or bool(self.imitation.processes)

    def _check_async(self) -> None:
        """Refuse what cannot go with environments that answer later."""
        for name, given, reason in (
            ("workers", self.workers not in (1, "auto"), "one process acts in all of them"),
            ("hindsight", bool(self.hindsight), "it needs the worlds in the process that learns"),
            ("curriculum", self.curriculum != "fixed", "episodes begin before it has moved"),
            ("on_env_error", self.on_env_error == "skip", "all episodes are awaited by number"),
        ):
            if given:
                raise LangAgentError(
                    f"{name}={getattr(self, name)} does not go with async_envs: {reason}. "
                    "Leave one of the two out."
                )

    def _check_learning(self) -> None:
        """Refuse options of learning that have no use with others of the run."""
        learn, imitation = self.learn, self.imitation
        if learn.algorithm != "imitation":
            reason = f"with {learn.algorithm}: it is for imitation"
            refuse_unused(
                imitation, dict.fromkeys((item.name for item in fields(imitation)), reason)
            )
        elif self.decide.decide == GENERATE:
            raise LangAgentError(
                "imitation learns the expert's choices among phrases, and decide=generate makes "
                "none: choose another way to decide."
            )
        elif imitation.demonstrations is not None:
            names = ("hand_over", "expert_final", "noise", "processes")
            refuse_unused(imitation, dict.fromkeys(names, "with demonstrations, played already"))
        elif imitation.processes:
            reason = "with processes, in which nobody plays but the expert"
            refuse_unused(imitation, dict.fromkeys(("hand_over", "expert_final"), reason))
            if self.on_env_error == "skip":
                raise LangAgentError(
                    "on_env_error=skip does not go with processes: all episodes are awaited by "
                    "number. Leave one of the two out."
                )
        elif imitation.expert_final == 1:
            refuse_unused(imitation, {"hand_over": "where expert_final=1: the expert plays on"})
        if not self.hindsight:
            refuse_unused(learn, {"hindsight_coef": "without hindsight"})
            refuse_unused(self, {"symmetries": "without hindsight"})
        way = self.decide.decide
        if way != GENERATE:
            refuse_unused(learn, {"credit": f"with decide={way}: it is for generate"})
        if way not in ("constrained", GENERATE):
            reason = f"with decide={way}, by which a decision is one token: it is for constrained "
            refuse_unused(learn, {"loss_aggregation": reason + "and generate"})
        if way != GENERATE and learn.loss_aggregation == "constant":
            reason = f"with decide={way}: constant is a part of max_new_tokens, for generate"
            refuse_unused(learn, {"loss_aggregation": reason})
