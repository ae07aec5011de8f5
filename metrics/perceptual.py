"""Metrics that model a listener: PESQ and STOI at 16 kHz, through their reference libraries, one clip at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from earmark.metrics.checks import Array, MetricError, clip_by_clip

SAMPLE_RATE = 16_000

# The ITU code keeps utterances in arrays of 50 and never looks at the bound: a 51st overwrites its neighbours, a 60th
# crashes the process. It takes 0.39 s to make one, so shorter clips cannot. Our count is within 6 of the ITU's own.
PESQ_SAFE_S = 19.0
PESQ_MAX_UTTERANCES = 40


def pesq_wb(reference: Array, estimate: Array) -> np.ndarray:
    """Wide-band PESQ, per clip, as MOS-LQO from 1.04 to 4.64; higher is better. Not symmetric.

    reference, estimate: float [..., L] at 16 kHz; their levels are aligned first, so neither matters.
    Returns float64 [...]. Raises MetricError where PESQ has no answer: less than a quarter of a second, no utterance
    in the reference, silent estimate, or more utterances than the library can hold.
    Source: ITU-T P.862.2, in the library `pesq`.

    >>> wav = np.random.default_rng(0).standard_normal(16_000)
    >>> round(float(pesq_wb(wav, wav)), 3)
    4.644
    """
    return clip_by_clip(lambda r, e: _pesq(r, e, "wb"), reference, estimate)


def pesq_nb(reference: Array, estimate: Array) -> np.ndarray:
    """Narrow-band PESQ (telephone handset), per clip, as MOS-LQO from 1.02 to 4.55; else as `pesq_wb`.

    Source: ITU-T P.862 mapped by P.862.1, in the library `pesq`.

    >>> wav = np.random.default_rng(0).standard_normal(16_000)
    >>> round(float(pesq_nb(wav, wav)), 3)
    4.549
    """
    return clip_by_clip(lambda r, e: _pesq(r, e, "nb"), reference, estimate)


def stoi(reference: Array, estimate: Array) -> np.ndarray:
    """Short-time objective intelligibility, per clip, about 0 to 1; higher is better. Not symmetric.

    reference, estimate: float [..., L] at 16 kHz (the library resamples to 10 kHz). Returns float64 [...].
    Raises MetricError where less than 30 frames, about 0.4 s, remain without the reference's pauses.
    Source: Taal et al., IEEE TASLP 2011, in the library `pystoi`.

    >>> wav = np.random.default_rng(0).standard_normal(16_000)
    >>> round(float(stoi(wav, wav)), 6)
    1.0
    """
    return clip_by_clip(lambda r, e: _stoi(r, e, extended=False), reference, estimate)


def estoi(reference: Array, estimate: Array) -> np.ndarray:
    """Extended STOI, per clip, about 0 to 1; higher is better: also right for modulated noise. Else as `stoi`.

    Source: Jensen and Taal, IEEE TASLP 2016, in the library `pystoi`.

    >>> wav = np.random.default_rng(0).standard_normal(16_000)
    >>> round(float(estoi(wav, wav)), 6)
    1.0
    """
    return clip_by_clip(lambda r, e: _stoi(r, e, extended=True), reference, estimate)


def _pesq(reference: np.ndarray, estimate: np.ndarray, mode: str) -> float:
    from pesq import PesqError, pesq

    if len(reference) > PESQ_SAFE_S * SAMPLE_RATE and utterances(reference) > PESQ_MAX_UTTERANCES:
        raise MetricError(f"PESQ holds at most {PESQ_MAX_UTTERANCES} utterances here; cut the clip into shorter ones")
    try:
        return pesq(SAMPLE_RATE, reference, estimate, mode)
    except PesqError as error:
        raise MetricError(f"PESQ: {error.args[0].decode()}") from error
    except ValueError as error:  # a result that is NaN fails in the library's own error handling
        raise MetricError("PESQ: the result is not a number, as of an estimate that is silent") from error


def utterances(reference: np.ndarray) -> int:
    """About how many utterances PESQ finds in a reference [L] at 16 kHz: speech over 0.2 s between pauses over 0.2 s.

    PESQ adapts its speech threshold to the clip, within 40 dB of the peak; this takes the worst of them.
    """
    from scipy.signal import butter, sosfilt

    band = butter(4, [300, 3400], "bandpass", fs=SAMPLE_RATE, output="sos")
    filtered = sosfilt(band, reference)
    power = np.square(filtered[: len(filtered) // 64 * 64].reshape(-1, 64)).mean(1)  # windows of 4 ms
    return max(_long_runs(power > power.max() * 10 ** (-db / 10)) for db in range(0, 41, 2))


def _long_runs(active: np.ndarray) -> int:
    """How many runs of at least 46 windows there are in bool [N]; blips go first, then gaps up to 50 close."""
    edges = np.flatnonzero(np.diff(np.pad(active, 1).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    speech = ends - starts > 4
    starts, ends = starts[speech], ends[speech]
    pause = starts[1:] - ends[:-1] > 50
    starts, ends = starts[np.r_[True, pause][: len(starts)]], ends[np.r_[pause, True][: len(ends)]]
    return int(np.sum(ends - starts >= 46))


def _stoi(reference: np.ndarray, estimate: np.ndarray, extended: bool) -> float:
    import pystoi

    try:
        with warnings.catch_warnings(), _numpy_seeded():
            warnings.simplefilter("error", RuntimeWarning)  # its way to say that the 1e-5 it returns is no score
            return pystoi.stoi(reference, estimate, SAMPLE_RATE, extended)
    except RuntimeWarning as warning:
        raise MetricError(f"STOI: {str(warning).split(' Returning')[0]}") from warning
    except ValueError as error:  # not even one frame, so the library indexes an empty array
        raise MetricError(f"STOI: {len(reference)} samples are less than one frame") from error


@contextmanager
def _numpy_seeded() -> Iterator[None]:
    """pystoi's extended mode adds noise from numpy's global generator: the same clip must score the same."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        yield
    finally:
        np.random.set_state(state)
