"""Ranks: 1 and how many codecs are better beyond both intervals, so that codecs not told apart by the data share one.

A clip that comes back exactly (infinite dB) is in no mean, so a codec that is exact on nine clips of ten would be
judged by its one bad clip. Hence two questions, the mean of the rest and the share of exact clips: a codec that is
better by one and worse by the other is neither above nor below. As ties of intervals are, so this is no order of all: a
rank counts who is better, and where all have somebody above them there is no first.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from earmark.reports.scores import Score

Interval = tuple[float, float]


def rank(score: Score, peers: Iterable[Score]) -> int:
    """The rank of a score among those of its column."""
    return 1 + sum(better(peer, score) for peer in peers)


def better(a: Score, b: Score) -> bool:
    """Whether a is better than b: mean and share of exact clips together, each 1 for a, -1 for b, or 0 where its
    intervals overlap.
    """
    by_mean = _beyond(_mean(a), _mean(b)) * (1 if a.higher_is_better else -1)
    if not any(score.exact or score.at_bound for score in (a, b)):
        return by_mean > 0
    return by_mean + _beyond(_share_exact(a), _share_exact(b)) > 0


def _beyond(a: Interval, b: Interval) -> int:
    return (a[0] > b[1]) - (b[0] > a[1])


def _mean(score: Score) -> Interval:
    """The interval of the mean; of a codec that fails too often the worst there is."""
    best = float("inf") if score.higher_is_better else float("-inf")
    if score.fails:
        return -best, -best
    if score.value is None:
        return (best, best) if score.at_bound else (-best, -best)
    low = score.ci_low if score.ci_low is not None else score.value
    high = score.ci_high if score.ci_high is not None else score.value
    return low, high


def _share_exact(score: Score) -> Interval:
    """The share of clips that came back exactly. (Wilson's interval takes clips as independent.)"""
    if score.fails:
        return 0.0, 0.0
    came_back = score.clips - score.failed
    return _share(came_back if score.at_bound else score.exact, came_back)


@functools.cache
def _share(exact: int, of: int) -> Interval:
    """Wilson's 95 % interval; of no clips nothing is known."""
    if not of:
        return 0.0, 1.0
    from scipy import stats

    found = stats.binomtest(exact, of).proportion_ci(method="wilson")
    return float(found.low), float(found.high)
