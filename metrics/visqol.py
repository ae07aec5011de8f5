"""ViSQOL v3, a full-reference model of a listener, in its two modes: speech at 16 kHz and audio at 48 kHz.

The library is `visqol-python`, a port of Google's C++; of Google's conformance table it meets the audio mode within
2e-4 and the speech mode within 0.03. Its speech mode has two ways from similarity to MOS: the lattice network, which is
the C++ default, and a polynomial that over-predicts by up to two points. Only the lattice is used here; where it is
not installed there is no score.

The first call on a machine compiles for about eight seconds; numba keeps the result beside the library, or in the
user's cache folder where that cannot be written, so that later processes do not.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import numpy as np

from earmark.metrics.checks import Array, MetricError, check_pair, clip_by_clip, require

if TYPE_CHECKING:
    from visqol import VisqolApi

Mode = Literal["speech", "audio"]

RATE = {"speech": 16_000, "audio": 48_000}
# A window of 80 ms, and one more each 20 ms: the speech mode looks at 20 frames after the first 9, the audio mode at 30
# after the first 15.
LEAST_SAMPLES = {"speech": 1_280 + 28 * 320, "audio": 3_840 + 44 * 960}
LONGEST_S = 60.0  # it holds all patches against all: 3.4 GB for a minute, and minutes of time beyond
INSTALL = "pip install 'visqol-python[accel,lattice]'"

_ALONE = threading.Lock()  # numba ends a process of which two threads enter its parallel code; TFLite shares nothing


def visqol_speech(reference: Array, estimate: Array) -> np.ndarray:
    """ViSQOL of speech, per clip, as MOS-LQO from 1 to 5; higher is better. Not symmetric.

    reference, estimate: float [..., L] at 16 kHz. Returns float64 [...]. The estimate is first shifted (by up to half
    the clip) and brought to the level of the reference, so its own delay and level cost nothing; the level of the
    reference counts, because quiet parts are cut off at an absolute floor and the network looks at the energy.
    For the same reason a perfect match has no score of its own: it lies between 3.9 and 4.8, by clip. Of very poor
    sound the order is lost: from an SNR of about 10 dB of white noise down it is 1 or a few tenths more.
    Raises MetricError for less than 0.64 s, more than 60 s, or a silent estimate; ModuleNotFoundError where
    the lattice is missing.
    Source: Chinen et al., ViSQOL v3, QoMEX 2020; in the library `visqol-python`.
    """
    return _scores("speech", reference, estimate)


def visqol_audio(reference: Array, estimate: Array) -> np.ndarray:
    """ViSQOL of any sound, per clip, as MOS-LQO from 1 to 4.73; higher is better. Not symmetric.

    reference, estimate: float [..., L] at 48 kHz. Returns float64 [...]. Shifts and levels as in `visqol_speech`. A
    perfect match is a constant, the model's value where all bands are alike. Of very poor sound the order is lost:
    from an SNR of about 10 dB of white noise down it wanders between 2 and 3, and unrelated noise scores 2.8.
    Raises MetricError for less than 0.96 s, more than 60 s, or a silent estimate.
    Source: Chinen et al., ViSQOL v3, QoMEX 2020; in the library `visqol-python`.
    """
    return _scores("audio", reference, estimate)


def moslqo(mode: Mode, reference: np.ndarray, estimate: np.ndarray, sample_rate: int) -> float:
    """MOS-LQO of one clip, float [L] and [L'], as the library gives it. Raises MetricError where that is no number."""
    api = _api(mode)
    with _ALONE, _one_numba_thread(), np.errstate(all="ignore"):
        try:
            result = api.measure_from_arrays(reference, estimate, sample_rate)
        except (ValueError, IndexError) as error:  # too little is left of the estimate after the shift
            raise MetricError(f"ViSQOL: {error}") from error
    if not np.isfinite([result.vnsim, result.moslqo]).all():  # NaN would come out of the model as some plain number
        raise MetricError("ViSQOL: the similarity is not a number, as of an estimate too faint to be scaled")
    return float(result.moslqo)


def _scores(mode: Mode, reference: Array, estimate: Array) -> np.ndarray:
    check_pair(reference, estimate)
    _check_length(mode, reference.shape[-1])
    require((estimate != 0).any(-1), "the estimate is silent, and ViSQOL would scale it to the reference's level")
    return clip_by_clip(lambda r, e: moslqo(mode, r, e, RATE[mode]), reference, estimate)


def _check_length(mode: Mode, samples: int) -> None:
    least, seconds = LEAST_SAMPLES[mode], samples / RATE[mode]
    if seconds > LONGEST_S:
        raise MetricError(
            f"ViSQOL: {seconds:.0f} s are longer than the {LONGEST_S:.0f} s that it is given; cut the clip"
        )
    if samples < least:
        raise MetricError(f"ViSQOL: {samples} samples are too short; {mode} takes {least / RATE[mode]:.2f} s or more")


@functools.cache
def _api(mode: Mode) -> VisqolApi:
    """The model of a mode, loaded once a process. The speech mode is asked for its lattice, or it would do without."""
    from visqol import VisqolApi

    api = VisqolApi()
    try:
        api.create(mode=mode, use_lattice_model=True if mode == "speech" else None)
    except ImportError as error:
        raise ModuleNotFoundError(f"ViSQOL lacks a part that its {mode} mode needs: {INSTALL}") from error
    return api


@contextmanager
def _one_numba_thread() -> Iterator[None]:
    """One core a call, as everywhere: clips are what is spread over cores. Without numba all is slow but the same."""
    try:
        import numba
    except ImportError:
        yield
        return
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(before)
