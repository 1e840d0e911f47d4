"""Credit: from an episode's rewards to an advantage for each of its decisions."""

from __future__ import annotations

from collections.abc import Sequence


def gae(
    rewards: Sequence[float],
    values: Sequence[float],
    last_value: float,
    discount: float,
    trace: float,
) -> list[float]:
    """Generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438, eq. 16).

    A_t = sum_l (discount * trace)^l * delta_{t+l}, delta_t = r_t + discount * V_{t+1} - V_t.

    Args:
        rewards, values: (T,) of one whole episode.
        last_value: V_T: the estimate for the state a truncation cut off, 0 after a termination.

    Returns:
        (T,) advantages.
    """
    advantages = [0.0] * len(rewards)
    following, next_value = 0.0, last_value
    for t in range(len(rewards) - 1, -1, -1):
        delta = rewards[t] + discount * next_value - values[t]
        following = delta + discount * trace * following
        advantages[t] = following
        next_value = values[t]
    return advantages


def returns_to_go(rewards: Sequence[float], last_value: float, discount: float) -> list[float]:
    """(T,) discounted sums of the rewards from each step on, ``last_value`` after the last."""
    returns = [0.0] * len(rewards)
    following = last_value
    for t in range(len(rewards) - 1, -1, -1):
        following = rewards[t] + discount * following
        returns[t] = following
    return returns
