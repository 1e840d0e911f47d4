"""Tests and intervals for comparing agents, on the same episodes or over training seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

RESAMPLES = 9999
Z = 1.959963984540054  # of a 95% interval


def mcnemar(only_first: int, only_second: int) -> float:
    """The two-sided exact p-value that two agents who succeed on the same seeds are alike
    (McNemar 1947, with the binomial distribution): of the seeds on which one of them alone
    succeeds, each is as likely to be either's."""
    both = only_first + only_second
    return 1.0 if both == 0 else float(stats.binomtest(only_first, both).pvalue)


def paired_share(only_first: int, only_second: int, episodes: int) -> tuple[float, float]:
    """A 95% interval for the difference of two paired shares (Bonett and Price 2012, J. Educ.
    Behav. Stat. 37, eq. 5: the interval of Wald after one is added to either count of the episodes
    on which one alone succeeds)."""
    one, other = (only_first + 1) / (episodes + 2), (only_second + 1) / (episodes + 2)
    middle = one - other
    half = Z * np.sqrt((one + other - middle**2) / (episodes + 2))
    return max(middle - half, -1.0), min(middle + half, 1.0)


def permutation(differences: Sequence[float], seed: int = 0) -> float:
    """The two-sided p-value that paired differences are as likely to have the other sign (Fisher's
    permutation test, by ``RESAMPLES`` random ones where all would be more)."""
    values = np.asarray(differences, float)
    if len(values) < 2 or not values.any():  # one episode shows nothing
        return 1.0
    found = stats.permutation_test(
        (values,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def mean_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """A 95% interval for a mean: of Student where values differ, of no width where none do."""
    array = np.asarray(values, float)
    if len(array) < 2 or np.ptp(array) == 0:
        return float(array.mean()), float(array.mean())
    half = stats.t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array))
    return float(array.mean() - half), float(array.mean() + half)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for how many there are (Holm 1979): at most a share alpha of such
    families has one below alpha by chance."""
    order = np.argsort(p_values)
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, p_values[at] * (len(p_values) - rank)))
        corrected[at] = highest
    return corrected


def interquartile_mean(scores: np.ndarray) -> float:
    """The mean of the middle half of all scores (runs, tasks) (Agarwal et al. 2021, arXiv
    2108.13264, sec. 4.3)."""
    return float(stats.trim_mean(scores, 0.25, axis=None))


def stratified_bootstrap(
    scores: np.ndarray, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """A 95% percentile interval of the interquartile mean over training runs: for every task runs
    are drawn anew, with replacement (Agarwal et al. 2021, sec. 4.1).

    Args:
        scores: (runs, tasks).
    """
    runs, tasks = scores.shape
    rng = np.random.default_rng(seed)
    drawn = rng.integers(runs, size=(resamples, runs, tasks))
    samples = scores[drawn, np.arange(tasks)]
    means = stats.trim_mean(samples.reshape(resamples, -1), 0.25, axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def probability_of_improvement(scores: np.ndarray, others: np.ndarray) -> float:
    """How probable it is that a run of one agent is better than one of another on a task drawn at
    random; ties count half (Agarwal et al. 2021, sec. 4.3, after Mann and Whitney 1947).

    Args:
        scores: (runs, tasks); ``others`` may have another number of runs.
    """
    better = (scores[:, None] > others[None]) + 0.5 * (scores[:, None] == others[None])
    return float(better.mean())
