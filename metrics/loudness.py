"""Loudness as broadcasters measure it (ITU-R BS.1770-4), through the library pyloudnorm, one clip at a time."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from earmark.metrics.checks import Array, MetricError, check_pair, require, rows

if TYPE_CHECKING:
    from pyloudnorm import Meter

BLOCK_S, STEP_S = 0.4, 0.1
GATE_LUFS = -70.0
ROUNDING = 1e-6  # of a step, and of a sample: 0.4 + 3 * 0.1 is not quite 0.7


def loudness_difference_lu(reference: Array, estimate: Array, sample_rate: int) -> np.ndarray:
    """How far the estimate's integrated loudness lies from the reference's, per clip, in LU; lower is better.

    reference, estimate: float [..., L] at sample_rate Hz, mono. Returns float64 [...]. Symmetric where both are heard;
    +inf where the estimate is silent or all of it under the gate of -70 LUFS: nothing of the loudness is kept.
    Raises MetricError under 0.4 s, one block of the gate, and where the reference is under the gate.
    Source: ITU-R BS.1770-4, in the library `pyloudnorm`.

    >>> wav = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000)
    >>> round(float(loudness_difference_lu(wav, 2 * wav, 16_000)), 4)
    6.0206
    """
    check_pair(reference, estimate)
    loudness = np.array([[integrated_lufs(wav, sample_rate) for wav in rows(side)] for side in (reference, estimate)])
    require(np.isfinite(loudness[0]), f"reference is under the gate of {GATE_LUFS:g} LUFS, so it has no loudness")
    return np.abs(loudness[1] - loudness[0]).reshape(tuple(reference.shape[:-1]))


def integrated_lufs(wav: np.ndarray, sample_rate: int) -> float:
    """Integrated loudness of one mono clip, float64 [L], in LUFS; -inf where no block is above the gate.

    At 48 kHz exactly the standard's filter. At other rates the library's bilinear design of the same curve is used: a
    full-scale sine of 997 Hz reads -2.97 LUFS at 16 kHz for -3.01, an error that both sides of a difference share.
    """
    seconds = len(wav) / sample_rate
    if seconds < BLOCK_S:
        raise MetricError(f"{seconds:.3g} s are too short for a loudness; it takes {BLOCK_S} s or more")
    # the library counts a last block that is more than half there as if it were whole; the standard leaves it out
    steps = math.floor((seconds - BLOCK_S) / STEP_S + ROUNDING)
    whole = math.ceil((BLOCK_S + steps * STEP_S) * sample_rate - ROUNDING)
    return float(_meter(sample_rate).integrated_loudness(wav[:whole]))


@lru_cache(maxsize=16)
def _meter(sample_rate: int) -> Meter:
    from pyloudnorm import Meter

    # its 'K-weighting' is an approximation (0.04 LU off at 1 kHz); 'DeMan' has the coefficients of the standard
    return Meter(sample_rate, filter_class="DeMan", block_size=BLOCK_S)
