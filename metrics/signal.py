"""Waveform metrics: what is left of the signal, sample by sample. Torch, batched, float64, on the input's device."""

from __future__ import annotations

import fast_bss_eval.torch as fast_bss_eval
import torch
from torch import Tensor

from earmark.metrics.checks import Array, float64_pair, require

# An energy ratio (280 dB) below which a residual in float64 is rounding, not distortion.
ROUNDING = 1e-28
# BSS Eval solves for a filter, which costs digits: pairs that are equal up to one come out at 126 dB or more (minutes
# of audio: at 120), so above this the digits are noise.
SDR_RESOLUTION_DB = 120.0
SDR_TAPS = 512


def mse(reference: Array, estimate: Array) -> Tensor:
    """Mean squared error of the waveform, per clip, in squared amplitude; lower is better.

    reference, estimate: float [..., L]. Returns float64 [...]. Symmetric.
    Raises ValueError where shapes differ, MetricError where the reference is silent.

    >>> float(mse(torch.tensor([1.0, 0.5]), torch.tensor([0.0, 0.5])))
    0.5
    """
    reference, estimate = float64_pair(reference, estimate)
    return (reference - estimate).square().mean(-1)


def snr_db(reference: Array, estimate: Array) -> Tensor:
    """Signal-to-noise ratio in dB, per clip; higher is better. The noise is the difference, level included.

    reference, estimate: float [..., L]. Returns float64 [...]; +inf where equal, 0 where the estimate is silent.
    Raises ValueError where shapes differ, MetricError where the reference is silent.

    >>> round(float(snr_db(torch.tensor([3.0, -0.5, 2.0, 7.0]), torch.tensor([2.5, 0.0, 2.0, 8.0]))), 4)
    16.1805
    """
    reference, estimate = float64_pair(reference, estimate)
    return 10 * torch.log10(_energy(reference) / _energy(reference - estimate))


def si_sdr_db(reference: Array, estimate: Array) -> Tensor:
    """Scale-invariant signal-to-distortion ratio in dB, per clip; higher is better.

    reference, estimate: float [..., L]; no mean removal (`si_snr_db` removes it). Returns float64 [...]; +inf where
    equal up to scale (a changed sign is a scale), -inf where the estimate is silent or orthogonal to the reference.
    Symmetric: all that counts is the angle between the two.
    Raises ValueError where shapes differ, MetricError where the reference is silent.
    Source: Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019, eq. 4.

    >>> round(float(si_sdr_db(torch.tensor([3.0, -0.5, 2.0, 7.0]), torch.tensor([2.5, 0.0, 2.0, 8.0]))), 4)
    18.403
    """
    return _scale_invariant_db(*float64_pair(reference, estimate))


def si_snr_db(reference: Array, estimate: Array) -> Tensor:
    """Scale-invariant signal-to-noise ratio in dB, per clip: `si_sdr_db` with both means removed; higher is better.

    reference, estimate: float [..., L]. Returns float64 [...]; +inf where equal up to scale and offset, -inf where
    the estimate is constant. Raises ValueError where shapes differ, MetricError where the reference is constant.
    Source: Luo and Mesgarani, "TasNet", ICASSP 2018, eq. 6-8.

    >>> round(float(si_snr_db(torch.tensor([3.0, -0.5, 2.0, 7.0]), torch.tensor([2.5, 0.0, 2.0, 8.0]))), 4)
    15.0918
    """
    reference, estimate = map(_centred, float64_pair(reference, estimate))
    require(reference.any(-1), "reference is constant, so silent without its mean")
    return _scale_invariant_db(reference, estimate)


def sdr_db(reference: Array, estimate: Array) -> Tensor:
    """Signal-to-distortion ratio of BSS Eval in dB, per clip, with a free filter of 512 taps; higher is better.

    reference, estimate: float [..., L]. Returns float64 [...]; +inf where equal up to such a filter, as far as
    float64 tells (above 120 dB), -inf where the estimate is silent. Neither clamped nor regularised.
    Raises ValueError where shapes differ, MetricError where the reference is silent.
    Source: Vincent et al., "Performance measurement in blind audio source separation", IEEE TASLP 2006, in the form
    of Scheibler, "SDR - medium rare with fast computations", ICASSP 2022.

    >>> float(sdr_db(torch.tensor([3.0, -0.5, 2.0, 7.0]), torch.tensor([1.5, -0.25, 1.0, 3.5])))
    inf
    """
    reference, estimate = float64_pair(reference, estimate)
    # without a clamp and without diagonal loading, both of which would bound a good score
    value = -fast_bss_eval.sdr_loss(
        _unit_energy(estimate)[..., None, :],
        _unit_energy(reference)[..., None, :],
        filter_length=SDR_TAPS,
        clamp_db=None,
        load_diag=None,
    )[..., 0]
    # a gain is one such filter, so SDR is never below SI-SDR, which finds an equal pair whatever its length
    value = torch.maximum(value, _scale_invariant_db(reference, estimate))
    return torch.where(value > SDR_RESOLUTION_DB, torch.inf, value)


def _energy(wav: Tensor) -> Tensor:
    return wav.square().sum(-1)


def _centred(wav: Tensor) -> Tensor:
    """Without its mean; a constant becomes exactly silent, though its mean can miss it by a rounding step."""
    centred = wav - wav.mean(-1, keepdim=True)
    rounding = _energy(centred) <= ROUNDING * _energy(wav)
    return torch.where(rounding[..., None], 0.0, centred)


def _unit_energy(wav: Tensor) -> Tensor:
    """fast_bss_eval leaves signals whose norm is under 1e-6 as they are, and then their SDR is wrong by 60 dB."""
    norm = wav.norm(dim=-1, keepdim=True)
    return wav / torch.where(norm > 0, norm, 1.0)


def _scale_invariant_db(reference: Tensor, estimate: Tensor) -> Tensor:
    """10 log10 |a r|^2 / |e - a r|^2 with a = <e, r> / <r, r>, the scale that leaves the least residual."""
    scale = (estimate * reference).sum(-1, keepdim=True) / _energy(reference)[..., None]
    target = _energy(scale * reference)
    residual = _energy(estimate - scale * reference)
    value = 10 * torch.log10(target / torch.where(residual <= ROUNDING * target, 0.0, residual))
    return torch.where(target > 0, value, -torch.inf)
