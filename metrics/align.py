"""The delay of a codec: how long, and a pair without it. Whole samples, found by cross-correlation; where a codec has
another rate than the metric, the part of a sample is taken out before, at the codec's (`scoring.clips`).

A waveform metric punishes delay as if it were noise (eight samples cost over 10 dB of SI-SDR), so each stands beside a
twin that is measured without it, and the delay is a score of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from earmark.metrics.checks import Array, clip_by_clip, rows

MAX_DELAY_MS = 50.0
_TURNED = 1.1  # by how much more opposite than alike a clip must be that counts as turned over
_TIE = 1e-9  # correlations nearer than this are equal: of a periodic signal the smallest delay is meant


def delay_ms(reference: Array, estimate: Array, sample_rate: int) -> np.ndarray:
    """How far the estimate lies from the reference, per clip, in ms, whichever comes first; lower is better.

    reference, estimate: float [..., L] at sample_rate Hz. Returns float64 [...] of at most 50 ms, in whole samples.
    Symmetric. Raises MetricError where the reference is silent.

    >>> wav = np.random.default_rng(0).standard_normal(1600)
    >>> float(delay_ms(wav, np.roll(wav, 8), 16_000))
    0.5
    """
    return clip_by_clip(lambda r, e: abs(lag_samples(r, e, sample_rate)) * 1000 / sample_rate, reference, estimate)


def lag_samples(reference: np.ndarray, estimate: np.ndarray, sample_rate: int) -> int:
    """By how many samples the estimate [L] comes after the reference [L], float64; negative where it comes before.

    The lag, within 50 ms and half the clip, at which the two correlate most. Nobody hears that a codec turns the wave
    over, so where they are opposite by a tenth more than they are ever alike, it is the lag at which they are most
    opposite. By a tenth, as a steady tone is as opposite half a period off as it is alike at its delay: there an
    aligned error would be twice the sound. Zero where the estimate is silent.
    """
    from scipy.fft import irfft, next_fast_len, rfft

    most = min(int(MAX_DELAY_MS * sample_rate / 1000), len(reference) // 2)
    size = next_fast_len(len(reference) + most, real=True)
    spectrum = rfft(estimate, size) * np.conj(rfft(reference, size))
    lags = np.arange(-most, most + 1)
    found = irfft(spectrum, size)[lags]
    if -found.min() > _TURNED * found.max():
        found = -found
    best = lags[found >= found.max() * (1 - _TIE)]
    return int(best[np.argmin(np.abs(best))])


def aligned(reference: Array, estimate: Array, sample_rate: int) -> Iterator[tuple[Array, Array]]:
    """Each clip of a batch [B, L] without its delay: reference and estimate [1, L'], L' shorter by the lag."""
    length = reference.shape[-1]
    for row, pair in enumerate(zip(rows(reference), rows(estimate), strict=True)):
        lag = lag_samples(*pair, sample_rate)
        late, early = max(lag, 0), max(-lag, 0)
        yield reference[row : row + 1, early : length - late], estimate[row : row + 1, late : length - early]
