"""What a codec spends, from its own output: no recording is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def bitrate_kbps(bits: float, samples: int, sample_rate: int) -> float:
    """True bitrate in kbit/s: the bits really spent on a clip of `samples` at `sample_rate` Hz.

    Bits are a bitstream codec's packet bytes, or a token codec's tokens at log2 V_k each plus its side information.

    >>> bitrate_kbps(12_000, 16_000, 16_000)
    12.0
    """
    return bits / (samples / sample_rate) / 1000


def nominal_bitrate_kbps(info: Any) -> float:
    """Nominal bitrate of a codec's `Info` in kbit/s: frame_rate * sum(log2(V_k) / stride_k) / 1000, no side bits."""
    return info.bitrate_kbps


def entropy_bitrate_kbps(codes: Sequence[np.ndarray], info: Any) -> float:
    """What the codes would cost if each codebook's were coded ideally by how often each is used, in kbit/s.

    codes: int [K, T] of each clip, -1 where there is no token, which costs nothing. Counted over all clips together,
    each codebook alone and without memory, so it bounds neither what a language model needs nor what a joint code
    would. The estimate is low where there are few tokens: it is corrected by Miller and Madow's (V_seen - 1) / 2N nats,
    and never above nominal.
    """
    joined, strides = np.concatenate(codes, axis=1), info.strides or (1,) * info.num_codebooks
    bits = sum(
        min(entropy_bits(tokens), float(np.log2(size))) * min(_share_there(tokens), 1 / stride)
        for tokens, size, stride in zip(joined, info.codebook_sizes, strides, strict=True)
    )
    return info.frame_rate * bits / 1000


def _share_there(tokens: np.ndarray) -> float:
    """The share of frames that have a token; none of no frames."""
    return float(np.mean(tokens >= 0)) if len(tokens) else 0.0


def entropy_bits(tokens: np.ndarray) -> float:
    """Entropy in bits of tokens int [N] (those below 0 are none), with the correction of Miller and Madow (1955).

    >>> entropy_bits(np.array([0, 1] * 5000)) - 1 < 1e-4
    True
    """
    counts = np.bincount(tokens[tokens >= 0])
    counts = counts[counts > 0]
    if not len(counts):
        return 0.0
    share = counts / counts.sum()
    correction = (len(counts) - 1) / (2 * counts.sum() * np.log(2))
    return float(-(share * np.log2(share)).sum() + correction)
