"""Sequences of different lengths: their frame rate, their batches, their masks.

A clip's latents are float [T, D] and its codes int [T, K] here, time first, as learners take them. A batch is
[B, T, ...] with the true frames in `lengths` [B]; what lies beyond them is 0 in latents and NO_CODE in codes, and no
learner may let it change anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

NO_CODE = -1  # a frame without a token in this codebook


def at_least(frames: np.ndarray, rate_hz: float, minimum_hz: float, interpolate: bool = False) -> np.ndarray:
    """Frames [T, ...] at rate_hz stretched to minimum_hz where they are slower: [ceil(T * minimum / rate), ...].

    A new frame repeats the one that lasts at its start, so that a frame is repeated now once more, now once less where
    the rates do not divide; no frame is lost and their order stays. interpolate: instead between the two whose centres
    it lies between (latents only). Raises ValueError for rates that are not positive, and codes to interpolate.
    Source: CodecBench, appendix C, which replicates; it does not say how for a rate such as 40.

    >>> at_least(np.array([[5], [6]]), 40.0, 50.0).ravel()
    array([5, 5, 6])
    >>> len(at_least(np.zeros((10, 2)), 86.13, 50.0))
    10
    """
    if rate_hz <= 0 or minimum_hz <= 0:
        raise ValueError(f"rates must be positive, not {rate_hz} and {minimum_hz} Hz")
    if interpolate and frames.dtype.kind != "f":
        raise ValueError(f"codes have nothing between them; repeat them instead of interpolating {frames.dtype}")
    if rate_hz >= minimum_hz or not len(frames):
        return frames
    at = np.arange(math.ceil(len(frames) * minimum_hz / rate_hz - 1e-9))
    if not interpolate:
        return frames[np.minimum((at * rate_hz / minimum_hz + 1e-9).astype(int), len(frames) - 1)]
    place = np.clip((at + 0.5) * rate_hz / minimum_hz - 0.5, 0, len(frames) - 1)
    before, after = np.floor(place).astype(int), np.ceil(place).astype(int)
    part = (place - before).reshape(-1, *[1] * (frames.ndim - 1)).astype(frames.dtype)
    return frames[before] * (1 - part) + frames[after] * part


def at_most(frames: np.ndarray, rate_hz: float, maximum_hz: float) -> np.ndarray:
    """Latents [T, D] of at least twice maximum_hz with as many side by side as fit: [ceil(T / n), n D].

    n is the whole part of rate / maximum, so that the rate stays at or above the maximum and nothing is lost; the last
    frame is repeated where they do not fill up. CTC learns late where a letter is many frames long.

    >>> at_most(np.array([[1.0], [2.0], [3.0]]), 100.0, 50.0).tolist()
    [[1.0, 2.0], [3.0, 3.0]]
    >>> at_most(np.zeros((10, 2)), 86.13, 50.0).shape
    (10, 2)
    """
    if rate_hz <= 0 or maximum_hz <= 0:
        raise ValueError(f"rates must be positive, not {rate_hz} and {maximum_hz} Hz")
    beside = int(rate_hz / maximum_hz + 1e-9)
    if beside < 2 or not len(frames):
        return frames
    filled = np.pad(frames, ((0, -len(frames) % beside), (0, 0)), mode="edge")
    return filled.reshape(-1, beside * frames.shape[1])


def held(codes: np.ndarray, strides: Sequence[int]) -> np.ndarray:
    """Codes [T, K] in which a token that stands for several frames (its codebook's stride) is in each of them.

    >>> held(np.array([[1, 7], [2, -1], [3, 8]]), (1, 2)).tolist()
    [[1, 7], [2, 7], [3, 8]]
    """
    started = np.arange(len(codes))[:, None] // np.asarray(strides, dtype=int) * np.asarray(strides, dtype=int)
    return np.take_along_axis(codes, started, axis=0)


def padded(clips: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Clips [T, D] or [T, K] as one batch: float32 [B, T, D] or int64 [B, T, K], and the frames [B] of each."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    coded = clips[0].dtype.kind in "iu"
    tensors = [
        torch.from_numpy(np.ascontiguousarray(clip)).to(torch.int64 if coded else torch.float32) for clip in clips
    ]
    batch = pad_sequence(tensors, batch_first=True, padding_value=NO_CODE if coded else 0)
    return batch, torch.tensor([len(clip) for clip in clips])


def inside(lengths: Tensor, frames: int) -> Tensor:
    """Which frames of a batch are a clip's own: bool [B, frames]."""
    import torch

    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def masked_mean(x: Tensor, lengths: Tensor) -> Tensor:
    """The mean of each clip's own frames: [B, T, D] -> [B, D]."""
    kept = inside(lengths, x.shape[1])[..., None].to(x)
    return (x * kept).sum(1) / lengths.clamp(min=1)[:, None].to(x)
