"""Frames of clips as arrays of one shape: segments of a fixed number of frames, or all of them padded, with a mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def segments(clips: Sequence[np.ndarray], frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Clips [D, T_i] as segments float32 [M, D, frames], and the clip of each, int64 [M].

    What is less than half a segment at the end of a clip is left out; what is more, and a shorter clip, is filled with
    zeros. (AudioCodecBench fills the sound, and has latents of silence there.)
    """
    parts, owners = [], []
    for clip, array in enumerate(clips):
        for at in range(max(1, round(array.shape[1] / frames))):
            part = array[:, at * frames : (at + 1) * frames].astype(np.float32)
            parts.append(np.pad(part, ((0, 0), (0, frames - part.shape[1]))))
            owners.append(clip)
    return np.stack(parts), np.array(owners, np.int64)


def padded(clips: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Clips [D, T_i] as float32 [N, T, D], zeros beyond each, and the mask float32 [N, T] of what is there."""
    longest = max(array.shape[1] for array in clips)
    x = np.zeros((len(clips), longest, clips[0].shape[0]), np.float32)
    mask = np.zeros((len(clips), longest), np.float32)
    for row, array in enumerate(clips):
        x[row, : array.shape[1]], mask[row, : array.shape[1]] = array.T, 1
    return x, mask
