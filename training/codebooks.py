"""Codebooks that follow the encoder: k-means at the start, then moving averages; entries that nobody uses start anew.

Source: van den Oord et al., "Neural discrete representation learning", appendix A; Zeghidour et al., "SoundStream".
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from earmark.codecs.tiny.model import nearest

DECAY = 0.99  # of the moving averages, a step
DEAD = 0.03  # an entry used less than this share of the mean is dead
ROUNDS = 12  # of k-means


class Codebooks:
    """Trains `books` [K, V, D] in place.

    sums [K, V, D], counts [K, V]: moving averages of what each entry was the nearest to.
    """

    def __init__(self, books: Tensor) -> None:
        self.books = books
        self.sums, self.counts = torch.zeros_like(books), torch.zeros_like(books[..., 0])
        self.restarts = 0

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint needs beside the codebooks."""
        return {"sums": self.sums, "counts": self.counts}

    def load(self, state: dict[str, Tensor]) -> None:
        self.sums.copy_(state["sums"])
        self.counts.copy_(state["counts"])

    def start(self, latents: Tensor, draw: torch.Generator) -> None:
        """k-means of latents [N, D], one codebook after the other."""
        rest = latents.detach()
        for k in range(len(self.books)):
            self.books[k] = kmeans(rest, self.books.shape[1], draw)
            codes = nearest(rest, self.books[k])
            self.counts[k] = torch.bincount(codes, minlength=self.books.shape[1]) * (400 / len(rest)) + 0.1
            self.sums[k] = self.books[k] * self.counts[k, :, None]
            rest = rest - self.books[k][codes]

    def __call__(self, latents: Tensor, used: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """Quantise latents [B, T, D] with used [B] codebooks a clip, gradients passing straight through.

        Returns the quantised latents and the commitment loss (mean squared distance to the entries, over codebooks).
        """
        rest, total, commitment = latents, torch.zeros_like(latents), latents.new_zeros(())
        for k in range(len(self.books)):
            codes = nearest(rest.detach(), self.books[k])
            entries = functional.embedding(codes, self.books[k]) * (used > k)[:, None, None]
            commitment = commitment + ((rest - entries).square() * (used > k)[:, None, None]).mean()
            self._follow(k, rest.detach()[used > k].flatten(0, 1), codes[used > k].flatten(), draw)
            total = total + entries
            rest = rest - entries
        return latents + (total - latents).detach(), commitment / len(self.books)

    @torch.no_grad()
    def _follow(self, k: int, points: Tensor, codes: Tensor, draw: torch.Generator) -> None:
        """Move codebook k towards the mean of the points [N, D] that chose each entry."""
        if not len(points):
            return
        self.counts[k].mul_(DECAY).index_add_(0, codes, points.new_full((len(codes),), 1 - DECAY))
        self.sums[k].mul_(DECAY).index_add_(0, codes, points * (1 - DECAY))
        self._restart(k, points, draw)
        self.books[k] = self.sums[k] / self.counts[k, :, None]

    def _restart(self, k: int, points: Tensor, draw: torch.Generator) -> None:
        """Put each dead entry where a random point is, with the count of an entry of average use."""
        mean = self.counts[k].mean()
        dead = (self.counts[k] < DEAD * mean).nonzero()[:, 0]
        self.restarts += len(dead)
        chosen = points[torch.randint(len(points), (len(dead),), generator=draw)]
        self.counts[k, dead] = 0.3 * mean
        self.sums[k, dead] = 0.3 * mean * chosen


def kmeans(points: Tensor, size: int, draw: torch.Generator, rounds: int = ROUNDS) -> Tensor:
    """Lloyd's algorithm: `size` centres [size, D] of points [N, D]; an empty centre moves to a random point."""
    centres = points[torch.randint(len(points), (size,), generator=draw)]
    for _ in range(rounds):
        codes = nearest(points, centres)
        counts = torch.bincount(codes, minlength=size)
        sums = torch.zeros_like(centres).index_add_(0, codes, points)
        moved = sums / counts[:, None].clamp(min=1)
        lost = points[torch.randint(len(points), (size,), generator=draw)]
        centres = torch.where(counts[:, None] > 0, moved, lost)
    return centres
