"""Distances between spectrograms. Torch, batched, on the input's device.

Mel spectrograms are float32, twice as fast as float64 and off by some 1e-7 of the distance; the means are float64:
periodic window of n_fft samples, hop n_fft / 4, frames centred, ends padded by reflection, mel filters from 0 Hz to
half the sample rate.

The linear ones are float64, since a logarithm of their single bins sees the rounding of float32: periodic Hann window,
frames centred; window, hop and what the ends are padded with are said by each metric.
"""

from __future__ import annotations

import warnings
from functools import lru_cache

import torch
from torch import Tensor

from earmark.metrics.checks import Array, MetricError, float64_pair

# (n_fft, mels), as the two benchmarks have them
SEVEN_SCALES = ((32, 5), (64, 10), (128, 20), (256, 40), (512, 80), (1024, 160), (2048, 320))
MEL_LOSS_SCALES = ((2048, 150), (512, 80))
FLOOR = 1e-5

# (n_fft, hop, window) in samples, of Parallel WaveGAN
STFT_SCALES = ((512, 50, 240), (1024, 120, 600), (2048, 240, 1200))
STFT_FLOOR = 1e-7  # of power, likewise
LSD_WINDOW_S = 0.032
LSD_RANGE_DB = 80.0


def mel_distance_7scale(reference: Array, estimate: Array, sample_rate: int) -> Tensor:
    """Mean absolute difference of log mel power over seven resolutions, per clip, in nepers of power; lower is better.

    reference, estimate: float [B, L] at sample_rate Hz, that of the codec. Returns float64 [B]. Symmetric.
    Hann window, power 2, HTK mels with unit peaks (torchaudio's defaults, as published), natural log clamped at 1e-5.
    Raises MetricError where the clip is not longer than half the longest window, 1024 samples.
    Source: AudioCodecBench (Codec-Evaluation), `calculate_mel_distance`.

    >>> wav = torch.sin(torch.arange(4000.0))[None]
    >>> float(mel_distance_7scale(wav, wav, 16_000))
    0.0
    """
    reference, estimate = _pair(reference, estimate)
    total = reference.new_zeros(len(reference), dtype=torch.float64)
    for n_fft, mels in SEVEN_SCALES:
        window = torch.hann_window(n_fft, device=reference.device)
        filters = mel_filters(n_fft, mels, sample_rate, mel_scale="htk", norm=None).to(reference.device)
        log_mel = [(_magnitude(wav, window).square() @ filters).clamp(FLOOR).log() for wav in (reference, estimate)]
        total += _mean_absolute(log_mel[0] - log_mel[1])
    return total / len(SEVEN_SCALES)


def mel_loss(reference: Array, estimate: Array, sample_rate: int) -> Tensor:
    """Mean absolute difference of mel magnitudes and of their logs, summed over two resolutions; lower is better.

    reference, estimate: float [B, L] at sample_rate Hz, 16 kHz as published. Returns float64 [B]. Symmetric.
    Square root of a Hann window, magnitude, Slaney mels of unit area, log10 of the square clamped at 1e-5 squared.
    Raises MetricError where the clip is not longer than half the longest window, 1024 samples.
    Source: CodecBench, `mel_loss.py`, after the defaults of descript-audiotools' MelSpectrogramLoss.

    >>> wav = torch.sin(torch.arange(4000.0))[None]
    >>> float(mel_loss(wav, wav, 16_000))
    0.0
    """
    reference, estimate = _pair(reference, estimate)
    total = reference.new_zeros(len(reference), dtype=torch.float64)
    for n_fft, mels in MEL_LOSS_SCALES:
        window = torch.hann_window(n_fft, device=reference.device).sqrt()
        filters = mel_filters(n_fft, mels, sample_rate, mel_scale="slaney", norm="slaney").to(reference.device)
        mel = [_magnitude(wav, window) @ filters for wav in (reference, estimate)]
        log_mel = [2 * m.clamp(FLOOR).log10() for m in mel]
        total += _mean_absolute(log_mel[0] - log_mel[1]) + _mean_absolute(mel[0] - mel[1])
    return total


def log_spectral_distance(reference: Array, estimate: Array, sample_rate: int) -> Tensor:
    """Log-spectral distance in dB, per clip; lower is better. Both played louder or softer: the same.

    For each frame the root mean square, over frequency, of the difference of 10 log10 power; the mean over frames.
    reference, estimate: float [B, L] at sample_rate Hz. Returns float64 [B]. Not symmetric, through its floor only:
    80 dB under the loudest bin of the reference, below which either side counts as silent. Without a floor the pauses,
    where a bin of rounding noise may be 40 dB from another, would decide; a floor that the estimate moves could be
    raised by a click; and a floor much higher hides the treble of music (at 50 dB nine bins of ten are under it).
    Frames of 32 ms every 8 ms, ends padded with zeros, so a clip of any length has a value; a silent estimate has the
    distance of the reference from its floor.
    Source: Gray and Markel, "Distance measures for speech processing", IEEE TASSP 1976, eq. 3, on short-time spectra.

    >>> wav = torch.sin(torch.arange(4000.0))[None]
    >>> round(float(log_spectral_distance(wav, wav, 16_000)), 6)
    0.0
    """
    reference, estimate = float64_pair(reference, estimate)
    n_fft = 2 * round(LSD_WINDOW_S * sample_rate / 2)
    power = [_hann_power(wav, n_fft, n_fft // 4, pad_mode="constant") for wav in (reference, estimate)]
    floor = power[0].amax((-2, -1), keepdim=True) * 10 ** (-LSD_RANGE_DB / 10)
    level_db = [10 * each.maximum(floor).log10() for each in power]
    return (level_db[0] - level_db[1]).square().mean(-1).sqrt().mean(-1)


def spectral_convergence(reference: Array, estimate: Array) -> Tensor:
    """Spectral convergence, per clip: how much of the magnitudes differs, as a share; lower is better. Not symmetric.

    Frobenius norm of the difference of the magnitude spectrograms, over that of the reference's.
    reference, estimate: float [B, L]. Returns float64 [B]; 1 where the estimate is silent, and above 1 where it is
    far too loud. librosa's defaults: window 2048, hop 512, ends padded with zeros, so a clip of any length has a value.
    Source: CodecBench; Arik et al., "Fast spectrogram inversion", IEEE SPL 2019, eq. 2.

    >>> wav = torch.sin(torch.arange(4000.0))[None]
    >>> float(spectral_convergence(wav, 0.5 * wav))
    0.5
    """
    pair = float64_pair(reference, estimate)
    return _convergence(*(_hann_power(wav, 2048, 512, pad_mode="constant").sqrt_() for wav in pair))


def stft_distance(reference: Array, estimate: Array) -> Tensor:
    """Multi-resolution STFT distance, per clip; lower is better. Not symmetric.

    The mean, over the three resolutions of `STFT_SCALES`, of spectral convergence plus the mean absolute difference of
    the natural logarithms of the magnitudes; power is clamped at 1e-7 before either, the window is amid n_fft.
    reference, estimate: float [B, L]; resolutions are in samples, as published (for speech at 24 kHz), at any rate.
    Returns float64 [B]. Raises MetricError where the clip is not longer than the reflected end, 1024 samples.
    Source: Yamamoto et al., "Parallel WaveGAN", ICASSP 2020, eq. 5-7, with the clamp of its well-known implementation;
    that one takes the convergence over a whole batch, this one over each clip.

    >>> wav = torch.sin(torch.arange(4000.0))[None]
    >>> float(stft_distance(wav, wav))
    0.0
    """
    reference, estimate = float64_pair(reference, estimate)
    _require_reflection(reference)
    total = reference.new_zeros(len(reference))
    for n_fft, hop, window in STFT_SCALES:
        magnitudes = [
            _hann_power(wav, n_fft, hop, window, pad_mode="reflect").clamp_(STFT_FLOOR).sqrt_()
            for wav in (reference, estimate)
        ]
        total += _convergence(*magnitudes) + _mean_absolute(magnitudes[0].log_() - magnitudes[1].log_())
    return total / len(STFT_SCALES)


def _pair(reference: Array, estimate: Array) -> tuple[Tensor, Tensor]:
    """Both as float32 [B, L]; the longest window decides how short a clip may be."""
    reference, estimate = float64_pair(reference, estimate)
    _require_reflection(reference)
    return reference.float(), estimate.float()


def _require_reflection(wav: Tensor) -> None:
    if wav.shape[-1] <= 1024:
        raise MetricError(f"{wav.shape[-1]} samples are too short for a window of 2048; it takes 1025 or more")


def _hann_power(wav: Tensor, n_fft: int, hop: int, window: int | None = None, *, pad_mode: str) -> Tensor:
    """Power spectrogram float64 [B, T, n_fft / 2 + 1] of [B, L], Hann window of so many samples (None: n_fft)."""
    hann = torch.hann_window(window or n_fft, dtype=wav.dtype, device=wav.device)
    spectrum = torch.stft(wav, n_fft, hop, window or n_fft, hann, pad_mode=pad_mode, return_complex=True).mT
    return spectrum.real.square() + spectrum.imag.square()  # abs() would take a root of each bin first


def _convergence(reference: Tensor, estimate: Tensor) -> Tensor:
    """Frobenius norm of the difference over that of the reference: [B, T, F] -> [B]."""
    return torch.linalg.matrix_norm(reference - estimate) / torch.linalg.matrix_norm(reference)


def _magnitude(wav: Tensor, window: Tensor) -> Tensor:
    """Magnitude spectrogram [B, T, n_fft / 2 + 1] of [B, L]."""
    n_fft = len(window)
    spectrum = torch.stft(wav, n_fft, n_fft // 4, window=window, center=True, pad_mode="reflect", return_complex=True)
    return spectrum.abs().mT


@lru_cache(maxsize=64)
def mel_filters(n_fft: int, mels: int, sample_rate: int, mel_scale: str, norm: str | None) -> Tensor:
    """Triangular mel filters, float32 [n_fft / 2 + 1, mels]."""
    from torchaudio.functional import melscale_fbanks

    with warnings.catch_warnings():
        # the published scales have filters narrower than a bin, so empty ones: they add 0 to both sides
        warnings.filterwarnings("ignore", message="At least one mel filterbank has all zero values")
        return melscale_fbanks(
            n_fft // 2 + 1, 0.0, float(sample_rate // 2), mels, sample_rate, norm=norm, mel_scale=mel_scale
        )


def _mean_absolute(difference: Tensor) -> Tensor:
    """Mean over time and mels: [B, T, M] -> [B]."""
    return difference.abs().double().mean((-2, -1))
