"""Policy and value losses: plain functions of tensors, to be minimised.

Policy losses have an entry for each token of each decision, (D, L); advantages are (D, 1), or
(D, L) where every token has its own.
"""

from __future__ import annotations

import torch
from torch import Tensor


def policy_gradient(log_probs: Tensor, advantages: Tensor) -> Tensor:
    """-A log pi(a|s) (Williams 1992; Sutton et al. 2000), elementwise."""
    return -advantages * log_probs


def surrogate(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor) -> Tensor:
    """-r A, r = pi / pi_old, elementwise: TRPO's objective (Schulman et al. 2015, arXiv 1502.05477,
    eq. 14)."""
    return -torch.exp(log_probs - old_log_probs) * advantages


def clipped_surrogate(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip_low: float, clip_high: float
) -> Tensor:
    """-min(r A, clip(r, 1 - low, 1 + high) A), r = pi / pi_old, elementwise.

    PPO (Schulman et al. 2017, arXiv 1707.06347, eq. 7) with the two sides of the clip apart
    (DAPO, Yu et al. 2025, arXiv 2503.14476, eq. 10); the same number twice is PPO's.
    """
    ratio = torch.exp(log_probs - old_log_probs)
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    return -torch.minimum(ratio * advantages, clipped * advantages)


def squared_error(values: Tensor, returns: Tensor) -> Tensor:
    """(V - R)^2 / 2, elementwise."""
    return 0.5 * (values - returns) ** 2


def entropy(log_policy: Tensor) -> Tensor:
    """(D,) entropy in nats of each row of (D, A) log-probabilities; -inf entries count nothing."""
    probs = log_policy.exp()
    return -(probs * log_policy.masked_fill(probs == 0, 0.0)).sum(-1)


def k3(log_ratio: Tensor) -> Tensor:
    """exp(d) - 1 - d, elementwise, for d = log(p / q) at samples of q: an estimate of KL(q || p)
    that is unbiased and never negative (Schulman 2020, http://joschu.net/blog/kl-approx.html)."""
    return torch.expm1(log_ratio) - log_ratio


def k2(log_ratio: Tensor) -> Tensor:
    """d^2 / 2, elementwise, for d = log(p / q) at samples of q: an estimate of KL(q || p) that is
    biased where they are far apart, and whose gradient by q is not (:func:`kl_penalty`)."""
    return 0.5 * log_ratio**2


def kl_penalty(
    log_probs: Tensor, old_log_probs: Tensor, reference: Tensor, estimator: str
) -> Tensor:
    """What keeps pi near to the reference, elementwise, at samples of pi_old.

    An estimate of KL(pi || reference) that is differentiated need not follow its gradient (Tang and
    Munos 2025, arXiv 2506.09477):

    ``k3``  exp(d) - 1 - d, d = log(reference / pi) (GRPO, Shao et al. 2024, arXiv 2402.03300,
            eq. 4). At samples of pi its expected gradient is that of KL(reference || pi). As in the
            paper there is no ratio: once pi has moved from pi_old it is of neither.
    ``k2``  r d^2 / 2, the ratio r = pi / pi_old not differentiated. Its expected gradient,
            E[log(pi / reference) grad log pi] under pi, is that of KL(pi || reference), in every
            epoch.

    Of several tokens each has its own divergence given those before it; how an earlier token
    changes later ones' is in neither gradient. It is where the penalty is in the reward.
    """
    if estimator == "k3":
        return k3(reference - log_probs)
    ratio = torch.exp(log_probs.detach() - old_log_probs)
    return ratio * k2(reference - log_probs)
