"""What `tiny` is trained to make small: spectral distances at several scales, and a distance of loudness.

Shapes: sound float32 [B, L] at 16 kHz; each loss is a scalar, a mean over clips, frames and bands.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

SAMPLE_RATE = 16000
SCALES = {128: 16, 256: 32, 512: 64, 1024: 80, 2048: 100}  # window in samples: mel bands
FLOOR = 1e-5


def spectra(wav: Tensor, window: int, hop: int) -> Tensor:
    """[B, L] -> complex [B, F, window / 2 + 1], windows of unit energy, no padding."""
    shape = torch.hann_window(window, device=wav.device)
    return torch.fft.rfft(wav.unfold(-1, window, hop) * (shape / shape.square().sum().sqrt()))


def squared(x: Tensor) -> Tensor:
    """Power of complex spectra."""
    return x.real.square() + x.imag.square()


@functools.cache
def mel_bands(bins: int, bands: int) -> Tensor:
    """Triangles [bins, bands] on the mel scale from 0 Hz to Nyquist, each of unit sum."""
    hz = torch.linspace(0, SAMPLE_RATE / 2, bins)
    top = 2595 * torch.log10(torch.tensor(1 + SAMPLE_RATE / 2 / 700))
    edges = 700 * (10 ** (torch.linspace(0, 1, bands + 2) * top / 2595) - 1)
    low, mid, high = edges[:-2], edges[1:-1], edges[2:]
    rise, fall = (hz[:, None] - low) / (mid - low), (high - hz[:, None]) / (high - mid)
    triangles = torch.minimum(rise, fall).clamp(min=0)
    return triangles / triangles.sum(0).clamp(min=1e-3)


def at_scale(reference: Tensor, estimate: Tensor, window: int) -> tuple[Tensor, Tensor, Tensor]:
    """Distances at one window: log mel L1, complex spectra compressed to |X|^.5 (squared), their magnitudes (L1)."""
    r, e = spectra(reference, window, window // 4), spectra(estimate, window, window // 4)
    power_r, power_e = squared(r) + FLOOR**2, squared(e) + FLOOR**2
    return (
        _log_mel(power_r, power_e, SCALES[window]),
        _compressed(r, e, power_r, power_e),
        (power_r**0.25 - power_e**0.25).abs().mean(),
    )


def _log_mel(power_r: Tensor, power_e: Tensor, bands: int) -> Tensor:
    """Mean absolute difference of the natural logarithm of mel magnitudes."""
    mel = mel_bands(power_r.shape[-1], bands).to(power_r)
    return (((power_r @ mel + FLOOR).log() - (power_e @ mel + FLOOR).log()) / 2).abs().mean()


def _compressed(r: Tensor, e: Tensor, power_r: Tensor, power_e: Tensor) -> Tensor:
    """Mean squared distance of complex spectra whose magnitudes are replaced by their square roots."""
    scale_r, scale_e = power_r**-0.25, power_e**-0.25
    return (r.real * scale_r - e.real * scale_e).square().mean() + (r.imag * scale_r - e.imag * scale_e).square().mean()


def bark(hz: Tensor) -> Tensor:
    """Critical-band rate. Source: Traunmueller 1990."""
    return 26.81 * hz / (1960 + hz) - 0.53


@functools.cache
def bark_bands(bins: int, bands: int = 49) -> tuple[Tensor, Tensor]:
    """Rectangles [bins, bands] of equal width in Bark, each bin in one band, and the threshold of hearing in each
    (power, 1 = 0 dB SPL). Source of the threshold: Terhardt 1979."""
    hz = torch.linspace(0, SAMPLE_RATE / 2, bins)
    top = bark(hz[-1:]) - bark(hz[1:2])
    place = (bark(hz) - bark(hz[1:2])) / top * (bands - 1e-3)
    near = (place[:, None] - 0.5 - torch.arange(bands)).abs()
    weights = (1 - near).clamp(min=0)  # neighbours share a bin: low bands are narrower than one
    weights[0] = 0
    centre = (weights * hz[:, None]).sum(0) / weights.sum(0)
    khz = centre / 1000
    level_db = 3.64 * khz**-0.8 - 6.5 * torch.exp(-0.6 * (khz - 3.3) ** 2) + 1e-3 * khz**4
    return weights, 10 ** (level_db / 10)


def loudness(power: Tensor, threshold: Tensor) -> Tensor:
    """Zwicker's specific loudness (sone / Bark) of power [..., bands] in units of 0 dB SPL."""
    relative = (power / threshold).clamp(min=1)
    return 0.187 * (threshold / 0.5) ** 0.23 * ((0.5 + 0.5 * relative) ** 0.23 - 1)


def disturbance(reference: Tensor, estimate: Tensor) -> Tensor:
    """How disturbed the estimate sounds: differences of loudness in 32 ms windows, what was added weighing more.

    After the perceptual model of ITU-T P.862 and its differentiable relative (Martin-Donas et al., "A deep learning
    loss function based on the perceptual evaluation of the speech quality", 2018), without alignment and equalisation.
    Both sounds are scaled by the gain that brings the reference to 65 dB SPL.
    """
    power_r, power_e, threshold = _band_powers(reference, estimate)
    loud_r, loud_e = loudness(power_r, threshold), loudness(power_e, threshold)
    difference = loud_e - loud_r
    size = (difference.abs() - 0.25 * torch.minimum(loud_r, loud_e)).clamp(min=0)  # small differences are masked
    added = ((power_e + 50) / (power_r + 50)) ** 1.2
    added = torch.where(added < 3, torch.zeros_like(added), added.clamp(max=12))
    width = 0.5  # Bark a band
    total = width * size.shape[-1]
    even = ((size * width).square().sum(-1) / total + 1e-8).sqrt() * total
    uneven = (size * added * width).sum(-1)
    weight = ((power_r.sum(-1) + 1e5) / 1e7) ** -0.04
    return (weight * (0.1 * _capped(even) + 0.0309 * _capped(uneven))).mean()


def _capped(x: Tensor, top: float = 45.0) -> Tensor:
    """About x where it is small, then ever flatter, so that no frame outweighs a second of others."""
    return top * torch.log1p(x / top)


def _band_powers(reference: Tensor, estimate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Powers [B, F, bands] of both, the reference at 65 dB SPL, and the threshold [bands]."""
    level = reference.square().mean(-1, keepdim=True).clamp(min=1e-6)
    gain = (10**6.5 / level).sqrt()
    bands, threshold = bark_bands(257)
    bands, threshold = bands.to(reference), threshold.to(reference)
    power_r, power_e = (squared(spectra(x * gain, 512, 256)) / 256 @ bands for x in (reference, estimate))
    return power_r, power_e, threshold
