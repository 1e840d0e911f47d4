"""Credit: from an episode's rewards to an advantage for each of its decisions, or tokens."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

EPSILON = 1e-8
ALIKE = 1e-6  # numbers within this part of their size are the same number


def alike(numbers: Sequence[float]) -> bool:
    """Whether the numbers do not differ but for rounding."""
    most = max(map(abs, numbers), default=0.0)
    return not numbers or max(numbers) - min(numbers) <= ALIKE * most


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


def token_gae(
    turn_advantage: float,
    token_values: Sequence[float],
    trace: float,
    token_rewards: Sequence[float] = (),
) -> list[float]:
    """GAE inside a turn whose own advantage is known: the lower of two levels.

    The turn's advantage comes from :func:`gae` over turns, with its discount. Inside a turn time
    stands still, so tokens are not discounted. The last token leads to what the turn leads to,
    Q = A_turn + V_0, less the rewards r that tokens were given apart; each token before it leads to
    the next one's value:

        delta_i = r_i + V_{i+1} - V_i, delta_{L-1} = r_{L-1} + (Q - sum r) - V_{L-1},
        A_i = delta_i + trace * A_{i+1}.

    With one token A_0 = A_turn; with trace 1, A_i = Q - sum_{j<i} r_j - V_i. Turns end where their
    tokens end, whatever the rewards are. Two levels are VAGEN's idea (Wang et al. 2025, arXiv
    2510.16907); this definition of the lower one is our own.

    Args:
        turn_advantage: A_turn of the whole turn.
        token_values: (L,) V_i, the value before each of the turn's tokens; V_0 is the turn's own.
        token_rewards: (L,), part of the turn's reward already; none for all 0.

    Returns:
        (L,) advantages.
    """
    given = token_rewards or [0.0] * len(token_values)
    following_value = turn_advantage + token_values[0] - sum(given)
    advantages, following = [0.0] * len(token_values), 0.0
    for i in range(len(token_values) - 1, -1, -1):
        following = given[i] + following_value - token_values[i] + trace * following
        advantages[i] = following
        following_value = token_values[i]
    return advantages


def minus_group_mean(returns: Sequence[float], groups: Sequence[Hashable]) -> list[float]:
    """(N,) each episode's return minus its group's mean (GRPO, Shao et al. 2024, arXiv 2402.03300,
    sec. 4.1.2, before its division by the standard deviation); 0 where all of a group's are alike.
    """
    members = _members(returns, groups)
    means = {group: np.mean(values) for group, values in members.items()}
    flat = {group for group, values in members.items() if alike(values)}
    return [
        0.0 if group in flat else float(value - means[group])
        for value, group in zip(returns, groups, strict=True)
    ]


def leave_one_out(returns: Sequence[float], groups: Sequence[Hashable]) -> list[float]:
    """(N,) each episode's return minus the mean of the others of its group (RLOO, Kool et al. 2019;
    Ahmadian et al. 2024, arXiv 2402.14740, sec. 2.2); 0 for one alone in its group."""
    members = _members(returns, groups)
    others = {group: len(values) / max(len(values) - 1, 1) for group, values in members.items()}
    centred = minus_group_mean(returns, groups)  # R - mean of others = n / (n - 1) * (R - mean)
    return [value * others[group] for value, group in zip(centred, groups, strict=True)]


def standard_deviations(
    returns: Sequence[float], groups: Sequence[Hashable]
) -> dict[Hashable, float]:
    """The standard deviation of the returns in each group, that of a sample (n - 1), as in TRL and
    verl; the paper leaves it open. 0 where they are alike."""
    return {
        group: 0.0 if alike(values) else float(np.std(values, ddof=1))
        for group, values in _members(returns, groups).items()
    }


def _members(returns: Sequence[float], groups: Sequence[Hashable]) -> dict[Hashable, list[float]]:
    members: dict[Hashable, list[float]] = {}
    for value, group in zip(returns, groups, strict=True):
        members.setdefault(group, []).append(value)
    return members


def standardise(numbers: Sequence[float]) -> list[float]:
    """(N,) numbers moved and scaled to mean 0 and the standard deviation 1 of a population; all 0
    where they are alike."""
    if alike(numbers):
        return [0.0] * len(numbers)
    array = np.asarray(numbers, dtype=np.float64)
    scaled: list[float] = ((array - array.mean()) / (array.std() + EPSILON)).tolist()
    return scaled


def explained_variance(values: Sequence[float], returns: Sequence[float]) -> float:
    """1 - Var(R - V) / Var(R): 1 for a critic that knows every return, 0 for a constant one, and 0
    where the returns do not vary."""
    spread = float(np.var(returns))
    if spread < EPSILON:
        return 0.0
    return 1.0 - float(np.var(np.asarray(returns) - np.asarray(values))) / spread
