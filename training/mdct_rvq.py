"""The codec without a network that `tiny` must beat: k-means residual quantisation of compressed MDCT frames.

A frame is 320 MDCT coefficients (sine window of 640 samples, TDAC) replaced by sign(x) sqrt(|x|): the same 50 frames/s,
8 codebooks of 1024 entries and 4 kbps as `tiny`, fitted to the same speech.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from earmark.codecs.tiny.model import BOOKS, ENTRIES, HOP, nearest
from earmark.training import tiny_data
from earmark.training.codebooks import kmeans

FRAMES = 60000  # that it is fitted to, of the 150000 there are


def basis() -> Tensor:
    """Windowed cosines [2 * HOP, HOP]; its transpose undoes it by overlap-add."""
    n, k = torch.arange(2 * HOP)[:, None] + 0.5, torch.arange(HOP) + 0.5
    window = torch.sin(math.pi * n / (2 * HOP))
    return window * torch.cos(math.pi / HOP * (n + HOP / 2) * k) * math.sqrt(2 / HOP)


def forward(wav: Tensor) -> Tensor:
    """Sound [L] -> compressed frames [ceil(L / HOP) + 1, HOP]."""
    padded = torch.nn.functional.pad(wav, (HOP, HOP + -len(wav) % HOP))
    frames = padded.unfold(0, 2 * HOP, HOP) @ basis()
    return frames.sign() * frames.abs().sqrt()


def inverse(frames: Tensor) -> Tensor:
    """Compressed frames [T + 1, HOP] -> sound [T * HOP]."""
    parts = (frames * frames.abs()) @ basis().T
    return (parts[:-1, HOP:] + parts[1:, :HOP]).flatten()


class MdctRvq:
    """The fitted baseline."""

    def __init__(self, seed: int = 0) -> None:
        clips = [tiny_data.read(row) for row in tiny_data.rows() if row["root"] == "data" and row["group"] == "speech"]
        frames = torch.cat([forward(torch.from_numpy(clip)) for clip in clips])
        draw = torch.Generator().manual_seed(seed)
        rest, self.books = frames[torch.randperm(len(frames), generator=draw)[:FRAMES]], []
        for _ in range(BOOKS):
            self.books.append(kmeans(rest, ENTRIES, draw))
            rest = rest - self.books[-1][nearest(rest, self.books[-1])]

    def __call__(self, clip: np.ndarray) -> np.ndarray:
        """A clip float32 [L] coded and decoded."""
        rest = forward(torch.from_numpy(clip))
        total = torch.zeros_like(rest)
        for book in self.books:
            entries = book[nearest(rest, book)]
            rest, total = rest - entries, total + entries
        return inverse(total)[: len(clip)].numpy()
