"""Distances between mel spectrograms. Torch, batched, on the input's device.

Spectrograms are float32, twice as fast as float64 and off by some 1e-7 of the distance; the means are float64.

Every spectrogram here: periodic window of n_fft samples, hop n_fft / 4, frames centred, ends padded by reflection,
mel filters from 0 Hz to half the sample rate.
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


def _pair(reference: Array, estimate: Array) -> tuple[Tensor, Tensor]:
    """Both as float32 [B, L]; the longest window decides how short a clip may be."""
    reference, estimate = float64_pair(reference, estimate)
    if reference.shape[-1] <= 1024:
        raise MetricError(f"{reference.shape[-1]} samples are too short for a window of 2048; it takes 1025 or more")
    return reference.float(), estimate.float()


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
