"""How the policy learns: the settings of the learning algorithms and of imitation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from lang_agent.errors import unknown
from lang_agent.ranges import Range, check_ranges
from lang_agent.trust import Source


@dataclass(frozen=True)
class LearnConfig:
    """How the policy is learned."""

    algorithm: str = "ppo"
    """reinforce, a2c, ppo, grpo, rloo, trpo, imitation, or your own as module:name."""
    optimizer: str = "muon"
    """muon (with AdamW for embeddings, norms and heads), adamw (for everything), or module:name of
    another one of PyTorch's kind, such as torch.optim:RMSprop or your own."""
    learning_rate: Annotated[float | None, Range(above=0, high=1)] = None
    """By default 0.002 for random weights (and for trpo's value head), 0.0001 for trained ones;
    for muon and adamw alike, since muon's steps are scaled."""
    lr_final: Annotated[float, Range(0, 1)] = 0.1
    """The learning rate falls linearly, to this fraction of itself at the end of the run. Where
    `--resume RUN --steps N` moves the end, it falls to the new one: the rate rises where the run
    goes on, to what a run of N steps has there."""
    discount: Annotated[float, Range(0, 1)] = 0.95
    """What the next decision's return counts for."""
    gae_lambda: Annotated[float, Range(0, 1)] = 0.9
    """Of generalised advantage estimation: 0 trusts the critic, 1 the returns."""
    credit: str = "turns"
    """turns, or tokens: with free text every token has an advantage of its own."""
    token_gae_lambda: Annotated[float, Range(0, 1)] = 1.0
    """The same inside a turn, for credit=tokens."""
    baseline: str = "none"
    """reinforce's: none, moving (a mean of late returns) or value (a critic)."""
    normalise: str | None = None
    """Advantages: batch (mean 0, deviation 1 over the rollout), group (by the deviation of their
    group's returns) or none; the algorithm's own by default."""
    group_size: Annotated[int | None, Range(1)] = None
    """How many episodes are played of each seed; grpo and rloo compare them (4 by default)."""
    drop_flat_groups: bool = False
    """Learn nothing from groups whose episodes all have the same return."""
    reward_scale: Annotated[float, Range(above=0)] = 1.0
    """Rewards are multiplied by this."""
    reward_clip: Annotated[float | None, Range(above=0)] = None
    """Scaled rewards are kept between minus this and this."""
    clip_low: Annotated[float, Range(above=0, high=1)] = 0.2
    """A decision's probability is not made smaller than 1 minus this, times what it was."""
    clip_high: Annotated[float, Range(above=0)] = 0.2
    """Nor larger than 1 plus this, times what it was."""
    loss_aggregation: str = "token-mean"
    """How the tokens of a decision weigh, where it has several: token-mean (all tokens of a
    minibatch alike; DAPO), sequence-mean (all decisions alike, their tokens share one's weight;
    GRPO) or constant (each one part of max_new_tokens; Dr. GRPO)."""
    epochs: Annotated[int, Range(1)] = 3
    """Passes over each rollout."""
    minibatch_decisions: Annotated[int, Range(1)] = 256
    """Decisions in one optimizer step."""
    target_kl: Annotated[float | None, Range(above=0)] = 0.05
    """An update stops early once approx_kl passes this; trpo's steps are bounded by it."""
    fisher_fraction: Annotated[float, Range(above=0, high=1)] = 0.2
    """trpo: the part of the decisions that the curvature is estimated from."""
    kl_coef: Annotated[float, Range(0)] = 0.0
    """Of the KL divergence from the reference, the policy that the run began with (with LoRA, the
    model without its adapter); 0 for none."""
    kl_in: str = "loss"
    """loss (an estimate, differentiated) or reward (the log-ratio, taken off each decision's
    reward, or with credit=tokens each token's)."""
    kl_estimator: str = "k3"
    """For kl_in=loss: k3 (GRPO's, which follows the gradient of KL(reference | policy)) or k2
    (which follows that of KL(policy | reference), the divergence that is reported)."""
    kl_target: Annotated[float | None, Range(above=0)] = None
    """Move kl_coef so that the divergence, in nats a decision, comes to this."""
    kl_horizon: Annotated[int, Range(1)] = 10_000
    """Decisions in which kl_coef may move by a fifth of its size."""
    entropy_coef: Annotated[float, Range(0)] = 0.02
    """Weight of the entropy in the loss: more keeps the policy trying."""
    entropy_final: Annotated[float | None, Range(0)] = None
    """What entropy_coef becomes, linearly, by the end of the run."""
    value_coef: Annotated[float, Range(0)] = 0.5
    """Weight of the critic's loss."""
    hindsight_coef: Annotated[float, Range(above=0)] = 1.0
    """What a relabelled decision weighs, where any other weighs 1."""
    max_grad_norm: Annotated[float, Range(above=0)] = 0.5
    """Longer gradients are cut to this length. muon and adamw divide a gradient's size out again:
    it is the learning rate that bounds a step, and this what one step adds to their averages."""
    weight_decay: Annotated[float, Range(0)] = 0.0
    """The optimizer's, of the weight matrices."""
    batch_tokens: Annotated[int, Range(1)] = 8192
    """The most tokens in one forward pass; larger minibatches are accumulated."""
    recompute_activations: bool = False
    """Keep only each layer's input for the backward pass: less memory, a third more time."""

    source: Annotated[Source | None, tyro.conf.Suppress, tyro.conf.Fixed] = field(
        default=None, repr=False, compare=False
    )
    """Where the names come from that are to be imported; None: from the person. No file sets it."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if ":" not in self.optimizer and self.optimizer not in OPTIMIZERS:
            raise unknown("optimizer", self.optimizer, [*OPTIMIZERS, "module:name"])
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise unknown(name, str(getattr(self, name)), [c for c in choices if c])


OPTIMIZERS = ("muon", "adamw")
"""The optimizers that go by a name alone."""
CHOICES: dict[str, tuple[str | None, ...]] = {
    "credit": ("turns", "tokens"),
    "baseline": ("none", "moving", "value"),
    "normalise": ("batch", "group", "none", None),
    "loss_aggregation": ("token-mean", "sequence-mean", "constant"),
    "kl_in": ("loss", "reward"),
    "kl_estimator": ("k3", "k2"),
}
"""What those settings of a :class:`LearnConfig` may be that are words."""


@dataclass(frozen=True)
class ImitationConfig:
    """Who plays while the expert's choices are learned (algorithm imitation)."""

    hand_over: Annotated[float, Range(0, 1)] = 0.3
    """The part of the run within which play passes from the expert to the policy."""
    expert_final: Annotated[float, Range(0, 1)] = 1.0
    """The share of the episodes that the expert plays at the end; below 1 is DAgger."""
    noise: Annotated[float, Range(0, 1)] = 0.3
    """Where the expert plays: the share of its actions replaced by the policy's own."""
    demonstrations: str | None = None
    """Learn from the episodes in this file instead of playing any."""
    processes: Annotated[int, Range(0, 1024)] = 0
    """Have the expert play in so many processes of their own (of each worker) while the policy
    learns; each episode has another part of its actions, up to ``noise``, replaced by random ones.
    0: here."""

    def __post_init__(self) -> None:
        check_ranges(self)
