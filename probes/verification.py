"""Verification: are two clips of one speaker? By the cosine of their means; nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def trials(means: np.ndarray, speakers: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of two different clips: cosine float64 [P], and whether the speaker is the same, bool [P].

    means: [N, D]. Clips of no length (a mean of zeros) have a cosine of 0 with all.
    """
    norms = np.linalg.norm(means.astype(np.float64), axis=1, keepdims=True)
    unit = means / np.where(norms > 0, norms, 1)
    first, second = np.triu_indices(len(means), 1)
    names = np.asarray(speakers)
    return (unit @ unit.T)[first, second], names[first] == names[second]


def equal_error_rate(cosines: np.ndarray, same: np.ndarray) -> float:
    """The rate at which as many impostors are let in as speakers are turned away, between the two nearest thresholds.

    Raises ValueError where there are only pairs of one kind.

    >>> equal_error_rate(np.array([0.9, 0.8, 0.3, 0.1]), np.array([True, True, False, False]))
    0.0
    """
    if same.all() or not same.any():
        raise ValueError("an equal error rate needs pairs of the same speaker and of different ones")
    from sklearn.metrics import roc_curve

    false, true, _ = roc_curve(same, cosines, drop_intermediate=False)
    gap = false - (1 - true)  # rises from -1 to 1
    at = int(np.argmax(gap >= 0))
    share = -gap[at - 1] / (gap[at] - gap[at - 1])
    return float(false[at - 1] + share * (false[at] - false[at - 1]))
