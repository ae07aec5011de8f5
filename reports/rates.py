"""Quality over bitrate: the curve of each family of codecs, and how many bits it needs beside Opus (BD-rate)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from earmark.reports.scores import Score

REFERENCE = "opus"  # the family that every other is compared with
LEAST_POINTS = 2
LEAST_OVERLAP = 0.25  # of the two quality ranges; on less, the curves are not compared


@dataclass(frozen=True)
class Point:
    """One codec of a family: its true bitrate, and a score with its interval."""

    codec: str
    kbps: float
    value: float
    low: float
    high: float


def rate_curves(
    scores: Iterable[Score], dataset: str, metric: str, families: Mapping[str, str]
) -> dict[str, list[Point]]:
    """Of each family (a codec without one is its own) the points of a metric over bitrate, by rising bitrate."""
    here = [score for score in scores if score.dataset == dataset and score.value is not None]
    rates = {score.codec: score.value for score in here if score.metric == "bitrate_kbps"}
    found: dict[str, list[Point]] = {}
    for score in here:
        rate, value = rates.get(score.codec), score.value
        if score.metric == metric and rate and value is not None:
            low = value if score.ci_low is None else score.ci_low
            high = value if score.ci_high is None else score.ci_high
            family = families.get(score.codec, score.codec)
            found.setdefault(family, []).append(Point(score.codec, rate, value, low, high))
    return {family: sorted(points, key=lambda point: point.kbps) for family, points in found.items()}


def bd_rate(anchor: Sequence[Point], other: Sequence[Point]) -> float | None:
    """How much more bitrate (%) a family takes than the anchor for the same quality, over the quality both reach.

    Negative: it takes less. None where either has fewer than two points or does not get better with bitrate, or where
    the ranges of quality overlap by less than a quarter.
    Source: Bjontegaard, VCEG-M33, 2001, with piecewise cubic interpolation; the bjontegaard package.
    """
    import bjontegaard

    ways = [_way(points) for points in (anchor, other)]
    if min(len(anchor), len(other)) < LEAST_POINTS or ways[0] != ways[1] or ways[0] == 0:
        return None
    (a_low, a_high), (b_low, b_high) = _range(anchor), _range(other)
    shared = min(a_high, b_high) - max(a_low, b_low)
    if shared <= 0 or shared < LEAST_OVERLAP * (max(a_high, b_high) - min(a_low, b_low)):
        return None
    sides = [side for points in (anchor, other) for side in _sides(points, ways[0])]
    found = bjontegaard.bd_rate(*sides, method="pchip", require_matching_points=False, min_overlap=0)
    return float(found) if np.isfinite(found) else None


def _way(points: Sequence[Point]) -> int:
    """1 where values only rise with bitrate, -1 where they only fall (a distance), 0 where they do neither."""
    steps, rates = np.diff([point.value for point in points]), np.diff([point.kbps for point in points])
    if not (rates > 0).all():
        return 0
    return 1 if (steps > 0).all() else -1 if (steps < 0).all() else 0


def _sides(points: Sequence[Point], way: int) -> tuple[list[float], list[float]]:
    """Bitrates, and values so that more is better."""
    return [point.kbps for point in points], [way * point.value for point in points]


def _range(points: Sequence[Point]) -> tuple[float, float]:
    values = [point.value for point in points]
    return min(values), max(values)
