"""Configuration: dataclasses that are the command line's flags, the YAML file and the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import gymnasium
import yaml

from lang_agent.errors import LangAgentError, unknown
from lang_agent.files import write_whole
from lang_agent.ranges import Range, check_ranges
from lang_agent.stepping import RULES as RULES_FOR_ERRORS
from lang_agent.worlds import make

T = TypeVar("T")


@dataclass(frozen=True)
class TextConfig:
    """How a world is put into words."""

    renderer: str | None = None
    """By name, or module:function; unless told, the world's first."""
    prompt: str = "transcript"
    """Template name, or a path to a .jinja file."""
    prompt_folder: str | None = None
    """Your templates, looked in before those that ship."""
    invalid_action: str = "noop"
    """noop, default:<phrase>, penalty:<x>, retry:<n> or end."""
    actions: tuple[str, ...] = ()
    """Only these of the world's phrases; all unless told."""
    wording: str | None = None
    """Other words for each episode, by module:function: lang_agent.envs.wordings:varied."""
    env_args: tuple[str, ...] = ()
    """For the world itself, as name=value: max_steps=64 task=goto. The options above can be told
    here too, so that each part of a mixture may have its own."""

    def with_args(self, env_args: Sequence[str]) -> TextConfig:
        """The same words, and further arguments for the world."""
        return replace(self, env_args=(*self.env_args, *env_args))

    def make(self, env_id: str, **env_kwargs: Any) -> gymnasium.Env[str, str]:
        """The environment ``env_id`` in these words."""
        names = ("renderer", "prompt", "prompt_folder", "invalid_action", "actions", "wording")
        told = {name: getattr(self, name) for name in names}
        words = {name: value for name, value in told.items() if value != getattr(TextConfig, name)}
        return make(env_id, **{**words, **dict(map(_argument, self.env_args)), **env_kwargs})


def _argument(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise LangAgentError(f"The world's argument {text!r} must read name=value.")
    return name, yaml.safe_load(value)


RULES = ("sum", "token-mean", "word-mean", "constrained")  # by which tokens make phrases
GENERATE = "generate"


@dataclass(frozen=True)
class DecideConfig:
    """How the policy comes to a decision."""

    decide: str = "sum"
    """sum, token-mean or word-mean (weigh every admissible phrase by its log-probability, or by
    that divided by its tokens or words), constrained (a token at a time among those that still
    lead to a phrase) or generate (free text, parsed)."""
    temperature: float = 1.0
    """Of the draws; 0 takes the most likely, which training refuses."""
    max_new_tokens: int = 32
    """The most to write for one decision, for generate."""
    top_k: int = 0
    """Write with the k most likely tokens alone; 0 for all."""
    top_p: float = 1.0
    """Write with the most likely tokens that have this probability together (nucleus)."""
    min_p: float = 0.0
    """Leave out tokens below this part of the most likely one's probability."""

    def __post_init__(self) -> None:
        if self.decide not in (*RULES, GENERATE):
            raise unknown("way to decide", self.decide, (*RULES, GENERATE))
        positive = self.temperature >= 0
        require("temperature", self.temperature, positive, "0 (greedy) or more")
        require("max_new_tokens", self.max_new_tokens, self.max_new_tokens >= 1, "1 or more")
        require("top_k", self.top_k, self.top_k >= 0, "0 or more")
        require("top_p", self.top_p, 0 < self.top_p <= 1, "above 0, at most 1")
        require("min_p", self.min_p, 0 <= self.min_p <= 1, "between 0 and 1")


@dataclass(frozen=True)
class LearnConfig:
    """How the policy is learned."""

    algorithm: str = "ppo"
    """reinforce, a2c, ppo, grpo, rloo, trpo, or imitation (which `lang-agent imitate` sets)."""
    optimizer: str = "muon"
    """muon (with AdamW for embeddings, norms and heads) or adamw (for everything)."""
    learning_rate: float = 2e-3
    lr_final: float = 0.1
    """The learning rate falls linearly, to this fraction of itself at the end of the run."""
    discount: float = 0.95
    """Of the next decision's return."""
    gae_lambda: float = 0.9
    credit: str = "turns"
    """turns, or tokens: with free text every token has an advantage of its own."""
    token_gae_lambda: float = 1.0
    """Inside a turn, for tokens."""
    baseline: str = "none"
    """reinforce's: none, moving (a mean of late returns) or value (a critic)."""
    normalise: str | None = None
    """Advantages: batch (mean 0, deviation 1), group (by the group's deviation) or none; the
    algorithm's own unless told."""
    group_size: int | None = None
    """How many episodes are played of each seed; grpo and rloo compare them (4 unless told)."""
    drop_flat_groups: bool = False
    """Learn nothing from groups whose episodes all have the same return."""
    reward_scale: float = 1.0
    reward_clip: float | None = None
    """Scaled rewards are kept between minus this and this."""
    clip_low: float = 0.2
    clip_high: float = 0.2
    epochs: int = 3
    """Passes over each rollout (one where the algorithm allows no more)."""
    minibatch_decisions: int = 256
    target_kl: float | None = 0.05
    """An update stops early once approx_kl passes this; trpo's steps are bounded by it."""
    fisher_fraction: float = 0.2
    """trpo: the part of the decisions that the curvature is estimated from."""
    kl_coef: float = 0.0
    """Of the KL divergence from the reference, the policy that the run began with (with LoRA, the
    model without its adapter); 0 for none."""
    kl_in: str = "loss"
    """loss (k3, differentiated) or reward (the log-ratio, taken off each decision's reward)."""
    kl_target: float | None = None
    """Move kl_coef so that the divergence, in nats a decision, comes to this."""
    kl_horizon: int = 10_000
    """Decisions in which kl_coef may move by a fifth of its size."""
    entropy_coef: float = 0.02
    entropy_final: float | None = None
    """What entropy_coef becomes, linearly, by the end of the run."""
    value_coef: float = 0.5
    max_grad_norm: float = 0.5
    weight_decay: float = 0.0
    batch_tokens: int = 8192
    """The most tokens in one forward pass; larger minibatches are accumulated."""
    recompute_activations: bool = False
    """Keep only each layer's input for the backward pass: less memory, a third more time."""

    def __post_init__(self) -> None:
        require("learning_rate", self.learning_rate, self.learning_rate > 0, "above 0")
        if self.optimizer not in ("muon", "adamw"):
            raise unknown("optimizer", self.optimizer, ("muon", "adamw"))
        require("discount", self.discount, 0 <= self.discount <= 1, "between 0 and 1")
        require("gae_lambda", self.gae_lambda, 0 <= self.gae_lambda <= 1, "between 0 and 1")
        require("epochs", self.epochs, self.epochs >= 1, "1 or more")
        for name, choices in (
            ("credit", ("turns", "tokens")),
            ("baseline", ("none", "moving", "value")),
            ("normalise", ("batch", "group", "none", None)),
            ("kl_in", ("loss", "reward")),
        ):
            if getattr(self, name) not in choices:
                raise unknown(name, str(getattr(self, name)), [c for c in choices if c])
        between = 0 < self.fisher_fraction <= 1
        require("fisher_fraction", self.fisher_fraction, between, "above 0, at most 1")
        require("kl_coef", self.kl_coef, self.kl_coef >= 0, "0 or more")
        require("kl_horizon", self.kl_horizon, self.kl_horizon >= 1, "1 or more")
        size = self.group_size
        require("group_size", size, size is None or size >= 1, "1 or more")
        clip = self.reward_clip
        require("reward_clip", clip, clip is None or clip > 0, "above 0")
        enough = self.minibatch_decisions >= 1
        require("minibatch_decisions", self.minibatch_decisions, enough, "1 or more")


@dataclass(frozen=True)
class ImitationConfig:
    """Who plays while the expert's choices are learned (algorithm imitation)."""

    hand_over: float = 0.3
    """The part of the run within which play passes from the expert to the policy."""
    expert_final: float = 1.0
    """The share of the episodes that the expert plays at the end; below 1 is DAgger."""
    noise: float = 0.3
    """Where the expert plays: the share of its actions replaced by the policy's own."""
    demonstrations: str | None = None
    """Learn from the episodes in this file instead of playing any."""

    def __post_init__(self) -> None:
        for name in ("hand_over", "expert_final", "noise"):
            value = getattr(self, name)
            require(name, value, 0 <= value <= 1, "between 0 and 1")


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
    """nano, micro or small (a GPT-2 from random weights), trained:nano (the one that ships),
    smollm2 (its extra), a run or model folder, or a hub id."""
    precision: str = "auto"
    """fp32, bf16 or auto: bf16 where it measures faster."""
    lora_rank: int = 0
    """Train a LoRA adapter of this rank instead of the model; 0 for none."""
    freeze_layers: int = 0
    """Train neither the embeddings nor the first so many layers; 0 trains all."""
    context: int | None = None
    """Of a new model: the most tokens it reads, its memory of a transcript. Less is faster."""
    chat: bool | None = None
    """Whether prompts are messages in the tokenizer's chat template; unless told, where a model
    has one. A trained policy goes on as it was trained."""
    value_layer: int = -1
    """The layer whose output the value head of a new policy reads; -1 is the last."""
    decide: DecideConfig = field(default_factory=DecideConfig)
    vocabulary_from: tuple[str, ...] = ()
    """Further environments whose words a new model's tokenizer shall know, for later training."""
    learn: LearnConfig = field(default_factory=LearnConfig)
    hindsight: float = 0.0
    """Learn from what episodes did fulfil too, whatever they were told to do: the last steps on
    the way there, each further one with this probability; 0 for none."""
    imitation: ImitationConfig = field(default_factory=ImitationConfig)
    steps: int = 100_000
    """Environment steps to learn from."""
    rollout_steps: int = 512
    """Environment steps before each update; the episodes under way are finished."""
    envs: int = 16
    """Episodes played at once."""
    seed: int = 0
    out: str | None = None
    """Run folder; runs/<env>-<seed>-<time> unless told."""
    checkpoint_every: int = 20
    """Updates between checkpoints."""
    checkpoint_minutes: Annotated[float, Range(above=0)] = 10.0
    """Minutes after which the next update is followed by one anyway."""
    on_env_error: str = "stop"
    """What becomes of an episode whose environment raises: stop (what is learned is saved), skip
    (it is left out and counted) or retry (it is played anew, three times at most)."""
    eval_episodes: int = 200
    """Held-out episodes played before and after training; 0 for none."""
    gif: bool = False
    """Film one held-out episode at the end: episode.gif in the run folder."""
    threads: int | None = None
    """Processor threads of torch."""
    device: str | None = None
    """cuda where there is one, else cpu."""

    def __post_init__(self) -> None:
        for name in ("steps", "rollout_steps", "envs", "checkpoint_every"):
            value = getattr(self, name)
            require(name, value, value >= 1, "1 or more")
        check_ranges(self)
        if self.on_env_error not in RULES_FOR_ERRORS:
            raise unknown("on_env_error", self.on_env_error, RULES_FOR_ERRORS)
        if self.curriculum not in ("fixed", "learnable"):
            raise unknown("curriculum", self.curriculum, ("fixed", "learnable"))
        if self.curriculum == "learnable" and len(self.mixture) < 2:
            raise LangAgentError("curriculum=learnable needs a mixture of at least two parts.")
        require("hindsight", self.hindsight, 0 <= self.hindsight < 1, "0 or more, below 1")
        if self.hindsight and self.decide.decide == GENERATE:
            raise LangAgentError(
                f"hindsight={self.hindsight} learns choices among phrases, and decide=generate "
                "makes none: set one of the two otherwise."
            )
        for name in ("eval_episodes", "lora_rank", "freeze_layers"):
            value = getattr(self, name)
            require(name, value, value >= 0, "0 or more")
        require(
            "temperature",
            self.decide.temperature,
            self.decide.temperature > 0,
            "above 0 to train: a greedy policy never tries anything else",
        )


def require(name: str, value: object, holds: bool, what: str) -> None:
    """Raise :class:`LangAgentError` unless the value ``holds`` to what it must be."""
    if not holds:
        raise LangAgentError(f"{name}={value} must be {what}.")


def load_config(path: str | Path, kind: type[T]) -> T:
    """A configuration from a YAML file; raises :class:`LangAgentError` with the reason."""
    try:
        data = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise LangAgentError(f"Cannot read the configuration '{path}': {error.strerror}.") from None
    except yaml.YAMLError as error:
        message = " ".join(str(error).split())
        raise LangAgentError(f"The configuration '{path}' is not YAML: {message}") from None
    return from_dict(kind, data or {}, str(path))


def from_dict(kind: type[T], data: Any, where: str) -> T:
    """A dataclass from plain data, nested alike; unknown names and wrong types are refused."""
    if not isinstance(data, Mapping):
        raise LangAgentError(f"{where}: expected names with values, got {data!r}.")
    types = get_type_hints(kind)
    names = {item.name for item in fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, value in data.items():
        if name not in names:
            raise unknown(f"setting in {where}:", name, names)
        values[name] = _value(types[name], value, f"{where}: {name}")
    return kind(**values)


def _value(wanted: Any, value: Any, where: str) -> Any:
    if is_dataclass(wanted):
        return from_dict(wanted, value, where)  # type: ignore[arg-type]
    if wanted is tuple[str, ...] or wanted == tuple[str, ...]:
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            raise LangAgentError(f"{where}: expected a list, got {value!r}.")
        return tuple(str(item) for item in value)
    choices = getattr(wanted, "__args__", (wanted,))
    if float in choices and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if float in choices and isinstance(value, str):  # YAML reads 1e-3 as a string
        try:
            return float(value)
        except ValueError:
            pass
    if not isinstance(value, choices) or (isinstance(value, bool) and bool not in choices):
        names = " or ".join(choice.__name__.replace("NoneType", "null") for choice in choices)
        raise LangAgentError(f"{where}: expected {names}, got {value!r}.")
    return value


def save_config(config: Any, path: Path) -> None:
    """Write a configuration as YAML, every value resolved."""
    data = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(config).items()}
    for name, value in data.items():
        if isinstance(value, dict):
            data[name] = {k: list(v) if isinstance(v, tuple) else v for k, v in value.items()}
    write_whole(path, yaml.safe_dump(data, sort_keys=False))
