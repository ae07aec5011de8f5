"""What is scored without listening: always the most frequent class, or scores drawn at random.

The class is the most frequent of the tested clips themselves, which no learner knows: a probe that is not better than
this has shown nothing. A majority that is learned fold by fold scores below chance where labels are balanced (what is
frequent in training is rare in the test), so it would flatter every probe.
"""

from __future__ import annotations

import numpy as np

DRAWS = 50


def majority(values: np.ndarray, classes: int) -> np.ndarray:
    """Of classes int64 [N] the predictions float32 [1, N, C] that name the most frequent one for all."""
    counts = np.bincount(values, minlength=classes)
    return np.tile((np.arange(classes) == counts.argmax()).astype(np.float32), (1, len(values), 1))


def draws(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """Of labels float32 [N, C] predictions float32 [DRAWS, N, C] at random: few clips have a precision above the share
    of the label even so.
    """
    return np.random.default_rng(seed).standard_normal((DRAWS, *values.shape)).astype(np.float32)
