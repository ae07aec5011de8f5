"""Verification: are two clips of one speaker? By the cosine of their means; nothing is trained.

Few clips are compared all with all. Of many, pairs are drawn: half of one speaker, half of two. An equal error rate
does not follow how many there are of each, so it is an estimate of that of all pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from earmark.metrics import MetricError

MOST_PAIRS = 200_000  # beyond so many they are drawn: an error rate of .1 is then known to +- .002 of that of all pairs
_AT_ONCE = 4096  # pairs whose vectors are in memory together


class Trials(NamedTuple):
    """Pairs of clips, int64 [P] and [P]; whether each is of one speaker, bool [P]; of how many pairs they are drawn."""

    first: np.ndarray
    second: np.ndarray
    same: np.ndarray
    of: int


def trials(speakers: Sequence[str], most: int = MOST_PAIRS, seed: int = 0) -> Trials:
    """All pairs of two different clips; where they are more than `most`, half of it of each kind (or all there are).

    Each pair of a kind is drawn alike and at most once. speakers: of each clip.
    """
    names, who = np.unique([*speakers], return_inverse=True)
    order = np.argsort(who, kind="stable")  # the clips of a speaker lie together
    ends = np.cumsum(np.bincount(who, minlength=len(names)))[who[order]]
    at, everything = np.arange(len(who)), len(who) * (len(who) - 1) // 2
    wanted = most // 2 if everything > most else everything
    rng = np.random.default_rng(seed)
    same = _later(at + 1, ends - at - 1, wanted, rng)
    other = _later(ends, len(who) - ends, wanted, rng)
    first, second = (order[np.concatenate(side)] for side in zip(same, other, strict=True))
    return Trials(first, second, np.arange(len(first)) < len(same[0]), everything)


def _later(starts: np.ndarray, counts: np.ndarray, wanted: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """`wanted` pairs (or all) of a place and one of its `counts` later ones, from `starts` on."""
    until = np.cumsum(counts)
    total = int(until[-1]) if len(until) else 0
    drawn = np.arange(total) if total <= wanted else np.sort(rng.choice(total, wanted, replace=False))
    first = np.searchsorted(until, drawn, side="right")
    return first, starts[first] + drawn - (until[first] - counts[first])


def cosines(means: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The cosine float64 [P] of each pair of rows of means [N, D]; 0 where one of them is a mean of zeros.

    >>> cosines(np.array([[1.0, 0], [2, 0], [0, 3]]), np.array([0, 0]), np.array([1, 2])).tolist()
    [1.0, 0.0]
    """
    norms = np.linalg.norm(means.astype(np.float64), axis=1, keepdims=True)
    unit, found = means / np.where(norms > 0, norms, 1), np.empty(len(first))
    for start in range(0, len(first), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        found[part] = np.einsum("pd,pd->p", unit[first[part]], unit[second[part]])
    return found


def equal_error_rate(cosines: np.ndarray, same: np.ndarray) -> float:
    """The rate at which as many impostors are let in as speakers are turned away, between the two nearest thresholds.

    Raises MetricError where there are only pairs of one kind.

    >>> equal_error_rate(np.array([0.9, 0.8, 0.3, 0.1]), np.array([True, True, False, False]))
    0.0
    """
    if same.all() or not same.any():
        raise MetricError("an equal error rate needs pairs of the same speaker and of different ones; use more clips")
    from sklearn.metrics import roc_curve

    false, true, _ = roc_curve(same, cosines, drop_intermediate=False)
    gap = false - (1 - true)  # rises from -1 to 1
    at = int(np.argmax(gap >= 0))
    share = -gap[at - 1] / (gap[at] - gap[at - 1])
    return float(false[at - 1] + share * (false[at] - false[at - 1]))
