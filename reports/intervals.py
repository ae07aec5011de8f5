"""95 % intervals of what is measured on clips: of a mean (bootstrap), of a statistic of all clips at once (jackknife).

Clips of one speaker or recording are not independent: both methods draw, or leave out, whole groups of clips.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

RESAMPLES = 2000  # bootstrap resamples of an interval
BLOCKS = 20  # of a jackknife: so many times is the statistic computed again
CI_METHOD = "expanded percentile bootstrap over {unit}, 95 %"
JACKKNIFE = "delete-a-block jackknife, {blocks} blocks of {unit}, Student t, 95 %"
Item = TypeVar("Item")


def mean_with_interval(
    values: Mapping[str, float],
    groups: Mapping[str, str],
    seed: int = 0,
    weights: Mapping[str, float] | None = None,
) -> tuple[float, float, float, str]:
    """Mean over clips, and its 95 % interval by bootstrap over groups (speakers, recordings) of clips.

    values, groups, weights: clip id -> value, clip id -> group, clip id -> weight >= 0 (None: all alike). The mean is
    sum(w v) / sum(w): a corpus word error rate is that of the clips' rates, weighted by their words.
    Returns mean, low, high and the method's name. The interval is NaN where there are fewer than two groups: one
    speaker says nothing about the next. Raises ValueError for a weight that is negative or not finite.
    Source: the cluster bootstrap as a ratio of per-cluster sums, scipy.stats.bootstrap; its ends: `tail`.

    >>> mean_with_interval({"a": 1.0, "b": 3.0}, {"a": "x", "b": "y"})[:3]
    (2.0, 1.0, 3.0)
    >>> mean_with_interval({"a": 1.0, "b": 3.0}, {"a": "x", "b": "y"}, weights={"a": 3, "b": 1})[0]
    1.5
    """
    clips, weight = _weighed(values, weights)
    if not clips:
        return math.nan, math.nan, math.nan, "no clips"
    names, index = np.unique([groups[clip] for clip in clips], return_inverse=True)
    array = np.array([values[clip] for clip in clips], dtype=np.float64)
    method = CI_METHOD.format(unit=_unit(len(names), len(clips)))
    mean = float(array.mean() if weights is None else (weight * array).sum() / weight.sum())
    if len(names) < 2:
        return mean, math.nan, math.nan, "none: one group of clips"
    if not np.isfinite(mean) or np.ptp(array) == 0:
        return mean, mean, mean, method
    sums, totals = np.bincount(index, weights=weight * array), np.bincount(index, weights=weight)
    return mean, *_bootstrap(sums, totals, seed), method


def _weighed(values: Mapping[str, float], weights: Mapping[str, float] | None) -> tuple[list[str], np.ndarray]:
    """The clips that have a weight, and their weights: 0 * infinity would be no number."""
    clips = list(values)
    weight = np.array([1.0 if weights is None else weights[clip] for clip in clips], dtype=np.float64)
    if not (np.isfinite(weight) & (weight >= 0)).all():
        raise ValueError(f"weights must be finite and not negative, not {weight[~(weight >= 0)][:3].tolist()}")
    kept = weight > 0
    return [clip for clip, keep in zip(clips, kept, strict=True) if keep], weight[kept]


def tail(groups: int) -> float:
    """The share of resampled means that lies beyond either end of a 95 % interval of a mean over so many groups.

    2.5 % of them would be too few: resamples of n groups spread by sqrt((n - 1) / n) too little, and have a normal's
    tails where Student's are due. Of 5 groups such an interval holds the truth 83 times in 100, of 10 it does 89 times.
    No resample lies beyond the groups' own means, so of 4 groups and fewer the interval is still too narrow.
    Source: Hesterberg, "What teachers should know about the bootstrap", The American Statistician 2015 (the expanded
    percentile).

    >>> round(tail(10), 4), round(tail(1000), 3)
    (0.0086, 0.025)
    """
    from scipy import stats

    return float(stats.norm.cdf(math.sqrt(groups / (groups - 1)) * stats.t.ppf(0.025, groups - 1)))


def _bootstrap(sums: np.ndarray, totals: np.ndarray, seed: int) -> tuple[float, float]:
    """Percentile interval of sum(sums) / sum(totals), groups drawn with replacement."""
    from scipy import stats

    interval = stats.bootstrap(
        (sums, totals),
        lambda sums, totals, axis=-1: sums.sum(axis) / totals.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=1 - 2 * tail(len(sums)),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def jackknife_interval(
    statistic: Callable[[Sequence[Item]], float],
    items: Mapping[str, Item],
    groups: Mapping[str, str],
    blocks: int = BLOCKS,
) -> tuple[float, float, float, str]:
    """A statistic of all clips at once, and its 95 % interval by delete-a-block jackknife.

    statistic: of a list of items; items, groups: clip id -> what the statistic takes of a clip, clip id -> group.
    The groups are dealt to at most `blocks` blocks; the statistic is computed without each block in turn, and the
    spread of the pseudo-values n_b s - (n_b - 1) s_(-b), n_b = n / size of the block, gives the standard error, with
    Student's t of (blocks - 1) degrees. For a smooth statistic only (a Fréchet distance, an entropy; not a median).
    It is centred on the statistic itself: the jackknife's correction of its bias is not applied.
    Returns value, low, high and the method's name; the interval is NaN for fewer than three groups.
    Raises what the statistic raises; a block without which it cannot be computed is an error, not left out.
    Source: Busing, Meijer and van der Leeden, "Delete-m jackknife for unequal m", Statistics and Computing 1999, eq. 8;
    Kott, "Delete-a-group jackknife", 2001, for Student's t.

    >>> value, low, high, _ = jackknife_interval(np.mean, dict(zip("abc", [1, 2, 3])), dict(zip("abc", "abc")))
    >>> round(high - value, 4)  # t(2) = 4.3027, times the standard error 1 / sqrt(3)
    2.4841
    """
    if not items:
        return math.nan, math.nan, math.nan, "no clips"
    value = float(statistic(list(items.values())))
    dealt = _dealt(list(items), groups, blocks)
    count = max(dealt.values()) + 1
    if count < 3:
        return value, math.nan, math.nan, f"none: {count} group{'s' if count > 1 else ''} of clips"
    without = [
        float(statistic([item for clip, item in items.items() if dealt[clip] != left_out])) for left_out in range(count)
    ]
    sizes = np.bincount(list(dealt.values()), minlength=count)
    half = _half_width(value, np.array(without), len(items) / sizes)
    method = JACKKNIFE.format(blocks=count, unit=_unit(len({groups[clip] for clip in items}), len(items)))
    return value, value - half, value + half, method


def _dealt(clips: list[str], groups: Mapping[str, str], blocks: int) -> dict[str, int]:
    """clip -> block: the largest group first, each to the block that has the fewest clips. No chance is in it."""
    sizes: dict[str, int] = {}
    for clip in clips:
        sizes[groups[clip]] = sizes.get(groups[clip], 0) + 1
    filled = [0] * min(blocks, len(sizes))
    block_of = {}
    for group in sorted(sizes, key=lambda name: (-sizes[name], name)):
        block_of[group] = filled.index(min(filled))
        filled[block_of[group]] += sizes[group]
    return {clip: block_of[groups[clip]] for clip in clips}


def _half_width(value: float, without: np.ndarray, share: np.ndarray) -> float:
    """Half of the interval; without: the statistic without each block; share: n_b, by how much all outnumber it.

    The pseudo-values and their centre are taken from the statistic itself: nothing is lost where they hardly vary.
    """
    from scipy import stats

    if not math.isfinite(value):
        return 0.0
    change = value - without
    deviation = (share - 1) * change - np.sum((1 - 1 / share) * change)
    variance = np.mean(np.square(deviation) / (share - 1))
    return float(stats.t.ppf(0.975, len(without) - 1) * math.sqrt(variance))


def _unit(groups: int, clips: int) -> str:
    return "clips" if groups == clips else f"{groups} groups of clips"
