"""Metrics that listen to one wave alone, as someone who never heard the recording: DNSMOS, SRMR, UTMOS.

All take float [..., L] at 16 kHz, numpy or torch, and return float64 [...]. What they say of a codec is best read as
the increase from the recording to its reconstruction: each rates the recording's room and microphone too.

DNSMOS (P.835 and P.808) comes from the library `speechmos`, whose wheel carries the networks. They were trained on
speech of about ten seconds and look at 9.01 s at a time, once each second; a shorter clip is repeated until it fills
them, as published. Every seam of that is heard: one second of a recording scores about 0.8 less than nine. Under 0.25 s
the answer is the bottom of the scale whatever is said, and silence is given 1.8 to 3.5, more than noise, so neither has
a score here. Samples beyond full scale are clipped, as in the files that the papers rate.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earmark.metrics.checks import Array, MetricError, remembered, require, to_numpy

if TYPE_CHECKING:
    from utmos_pytorch import UTMOSScoreTorch

SAMPLE_RATE = 16_000
DNSMOS_LEAST_S = 0.25
UTMOS_LEAST_SAMPLES = 400  # the receptive field of its first layers
UTMOS_REPO, UTMOS_WEIGHTS = "Blinorot/UTMOS-PyTorch", "utmos_state_dict.pt"

# SRMR as published: 23 gammatone bands from 125 Hz, 8 modulation bands of quality 2 from 4 to 128 Hz, windows of 256 ms
SRMR_BANDS, SRMR_LOWEST_HZ, SRMR_WINDOW, SRMR_HOP = 23, 125, 4096, 1024
SRMR_MODULATIONS_HZ = 4.0 * (128 / 4) ** (np.arange(8) / 7)
SRMR_QUALITY = 2


def dnsmos_ovrl(wav: Array) -> np.ndarray:
    """DNSMOS P.835, overall quality, per clip, as MOS from about 1 to 5; higher is better.

    wav: float [..., L] at 16 kHz; its level counts, a quarter of it for some tenths of a point. Returns float64 [...].
    Raises MetricError for silence and for less than 0.25 s.
    Source: Reddy et al., DNSMOS P.835, ICASSP 2022, in the library `speechmos`.
    """
    return _dnsmos(wav, "ovrl_mos")


def dnsmos_sig(wav: Array) -> np.ndarray:
    """DNSMOS P.835, quality of the voice; else as `dnsmos_ovrl`."""
    return _dnsmos(wav, "sig_mos")


def dnsmos_bak(wav: Array) -> np.ndarray:
    """DNSMOS P.835, freedom from background noise; else as `dnsmos_ovrl`."""
    return _dnsmos(wav, "bak_mos")


def dnsmos_p808(wav: Array) -> np.ndarray:
    """DNSMOS P.808, overall quality by the earlier network; else as `dnsmos_ovrl`, but the level hardly matters.

    Source: Reddy et al., DNSMOS, ICASSP 2021, in the library `speechmos`.
    """
    return _dnsmos(wav, "p808_mos")


def srmr(wav: Array) -> np.ndarray:
    """Speech-to-reverberation modulation energy ratio, per clip, from 0 up; higher is better: less reverberation.

    wav: float [..., L] at 16 kHz; its level does not matter. Returns float64 [...]. This is the original of the paper,
    with neither the fast filters nor the normalised energies of later versions.
    Raises MetricError for silence and for less than a window of 256 ms.
    Source: Falk et al., IEEE TASLP 2010. Ours, on the filters of `gammatone`: SRMRpy, whose values these are (to 1e-11;
    the Matlab toolbox says 6.117 where both say 6.055), is in no package index; that of torchmetrics has a window of
    one sample too many (1e-4 off) and holds all bands at once, over 12 GB for a minute.
    """
    return _clip_by_clip(_srmr, wav, least=SRMR_WINDOW)


def utmos(wav: Array) -> np.ndarray:
    """UTMOS, the naturalness of speech, per clip, as MOS from about 1 to 5; higher is better.

    wav: float [..., L] at 16 kHz. Returns float64 [...]. It is the strong learner of the paper, which is what others
    report as UTMOS. One clip at a time: padding to a common length would move the scores.
    Raises MetricError for silence and less than 25 ms, FileNotFoundError where its weights are not on this machine.
    Source: Saeki et al., UTMOS, Interspeech 2022, in the library `utmos-pytorch`.
    """
    return _clip_by_clip(_utmos, wav, least=UTMOS_LEAST_SAMPLES)


def _clip_by_clip(score: Callable[[np.ndarray], float], wav: Array, least: int) -> np.ndarray:
    """The score of each row, given as float32 [L]: numpy and torch, single and double, then score alike."""
    if "float" not in str(wav.dtype):
        raise ValueError(f"the wave is {wav.dtype}; expected floats in [-1, 1] (divide int16 by 32768)")
    if wav.shape[-1] < least:
        raise MetricError(f"{wav.shape[-1]} samples are too short; it takes {least} or more at {SAMPLE_RATE} Hz")
    rows = np.ascontiguousarray(to_numpy(wav).reshape(-1, wav.shape[-1]), dtype=np.float32)
    require(np.isfinite(rows).all(-1), "it holds NaN or infinite samples")
    require((rows != 0).any(-1), "it is silent, so there is nothing to rate")
    return np.array([score(row) for row in rows], dtype=np.float64).reshape(tuple(wav.shape[:-1]))


# -- DNSMOS -----------------------------------------------------------------------------------------------------------


def _dnsmos(wav: Array, name: str) -> np.ndarray:
    return _clip_by_clip(lambda row: _dnsmos_scores(row)[name], wav, least=int(DNSMOS_LEAST_S * SAMPLE_RATE))


@remembered(4096)
def _dnsmos_scores(row: np.ndarray) -> dict[str, float]:
    """All four of one clip, so that four metrics do not cost four runs."""
    found = _dnsmos_model()(row.clip(-1, 1), SAMPLE_RATE, False)
    return {name: float(value) for name, value in found.items()}


@functools.cache
def _dnsmos_model() -> Any:
    """The library's model with sessions of one thread, built once a process: its own take every core of the machine."""
    import onnxruntime
    from speechmos import dnsmos

    folder = Path(dnsmos.__file__).parent / "dnsmos_models"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = dnsmos.DNSMOS.__new__(dnsmos.DNSMOS)
    model.onnx_sess, model.p808_onnx_sess = (
        onnxruntime.InferenceSession(folder / file, options, providers=["CPUExecutionProvider"])
        for file in ("sig_bak_ovr.onnx", "model_v8.onnx")
    )
    return model


# -- SRMR -------------------------------------------------------------------------------------------------------------


def _srmr(row: np.ndarray) -> float:
    from gammatone.filters import centre_freqs, erb_filterbank, make_erb_filters

    filters = make_erb_filters(SAMPLE_RATE, centre_freqs(SAMPLE_RATE, SRMR_BANDS, SRMR_LOWEST_HZ))
    bands = (erb_filterbank(row.astype(np.float64), filters[i : i + 1])[0] for i in range(SRMR_BANDS))
    energy = np.array([_modulation_energies(band) for band in bands])  # [23 bands, 8 modulations]
    highest = _modulations_of_speech(energy)
    return float(energy[:, :4].sum() / energy[:, 4:highest].sum())


def _modulation_energies(band: np.ndarray) -> list[float]:
    """Mean energy over windows of the envelope of a band [L], in each of the 8 modulation bands."""
    from scipy.signal import hilbert, lfilter

    envelope = np.abs(hilbert(band, -(-len(band) // 16) * 16))[: len(band)]  # a multiple of 16, as in SRMRToolbox
    found = []
    for w in np.tan(np.pi * SRMR_MODULATIONS_HZ / SAMPLE_RATE):
        b = w / SRMR_QUALITY
        found.append(_windowed_energy(lfilter([b, 0, -b], [1 + b + w * w, 2 * w * w - 2, 1 - b + w * w], envelope)))
    return found


def _windowed_energy(wav: np.ndarray) -> float:
    """Mean over the whole windows of [L] of the energy under each; a window is four hops, so hops are weighed once."""
    from scipy.signal.windows import hamming

    frames = 1 + (len(wav) - SRMR_WINDOW) // SRMR_HOP
    weights = np.square(hamming(SRMR_WINDOW, sym=False)).reshape(-1, SRMR_HOP)
    hops = np.square(wav[: (frames + 3) * SRMR_HOP]).reshape(-1, SRMR_HOP) @ weights.T
    return float(sum(hops[part : part + frames, part].mean() for part in range(len(weights))))


def _modulations_of_speech(energy: np.ndarray) -> int:
    """How many modulation bands can be meant: those below the width of the band by which 90 % of energy is reached."""
    from gammatone.filters import centre_freqs

    widths = np.flip(centre_freqs(SAMPLE_RATE, SRMR_BANDS, SRMR_LOWEST_HZ)) / 9.26449 + 24.7  # Glasberg and Moore, Hz
    percent = np.cumsum(np.flip(energy.sum(1) * 100 / energy.sum()))
    width = widths[np.argmax(percent > 90)]
    half = SAMPLE_RATE / (2 * np.pi) * np.tan(np.pi * SRMR_MODULATIONS_HZ / SAMPLE_RATE) / SRMR_QUALITY
    return 5 + int((width >= (SRMR_MODULATIONS_HZ - half)[5:]).sum())


# -- UTMOS ------------------------------------------------------------------------------------------------------------


def _utmos(row: np.ndarray) -> float:
    import torch

    return float(_utmos_model().score(torch.from_numpy(row)))


@functools.cache
def _utmos_model() -> UTMOSScoreTorch:
    """The model on the CPU, built once a process. The library passes over weights that are missing: that is refused."""
    import torch
    from utmos_pytorch.utmos_torch import UTMOSModel, UTMOSScoreTorch

    weights = utmos_weights()
    if weights is None:
        raise FileNotFoundError(f"the weights of UTMOS are not here: hf download {UTMOS_REPO} {UTMOS_WEIGHTS}")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*weight_norm.*", FutureWarning)
        saved = torch.load(weights, map_location="cpu", weights_only=True)
        missing = UTMOSModel().load_state_dict(saved, strict=False).missing_keys
        if missing:
            raise ValueError(f"{weights.name} of UTMOS lacks {len(missing)} weights, such as {missing[0]}")
        return UTMOSScoreTorch(str(weights))


def utmos_weights() -> Path | None:
    """The file of UTMOS's weights, as `hf download` left it on this machine; None where it did not."""
    from huggingface_hub import try_to_load_from_cache

    from earmark.paths import home

    found = (try_to_load_from_cache(UTMOS_REPO, UTMOS_WEIGHTS, cache_dir=cache) for cache in (home() / "hub", None))
    return next((Path(path) for path in found if isinstance(path, str)), None)
