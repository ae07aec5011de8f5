"""Connectionist temporal classification: text from frames, without being told which frame says what.

Source: Graves et al., "Connectionist temporal classification", ICML 2006. The probes: CodecBench, section 4.2 and
appendix C (BiLSTM); AudioCodecBench (Conformer on token IDs).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise

import torch
from torch import Tensor, nn


def frames_needed(target: Sequence[int]) -> int:
    """The fewest frames in which CTC can write a target: one a symbol, and a blank between two that are the same.

    >>> frames_needed([1, 2, 2, 3])
    5
    """
    return len(target) + sum(one == next_one for one, next_one in pairwise(target))


class CtcProbe(nn.Module):
    """A way in, a body and a linear layer to the symbols of a vocabulary, one of which is the blank."""

    def __init__(self, way_in: nn.Module, body: nn.Module, symbols: int, blank: int = 0) -> None:
        super().__init__()
        self.way_in, self.body, self.blank = way_in, body, blank
        self.head = nn.Linear(int(body.width), symbols)  # type: ignore[arg-type]

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Log probabilities [B, T, symbols] of x [B, T, D] (latents) or [B, T, K] (codes)."""
        longest = int(lengths.max())
        return self.head(self.body(self.way_in(x[:, :longest]), lengths)).log_softmax(-1)

    def loss(self, x: Tensor, lengths: Tensor, targets: Sequence[Sequence[int]]) -> Tensor:
        """The mean over clips of the negative log likelihood a symbol; targets: the symbols of each clip.

        Raises ValueError for a target that the frames cannot hold: its likelihood is zero, and its loss infinite.
        """
        for frames, target in zip(lengths.tolist(), targets, strict=True):
            if not target or frames_needed(target) > frames:
                raise ValueError(f"CTC cannot write {len(target)} symbols in {frames} frames; leave such clips out")
        symbols = torch.tensor([symbol for target in targets for symbol in target], device=x.device)
        counts = torch.tensor([len(target) for target in targets])
        likelihood = self(x, lengths).float().transpose(0, 1)
        return nn.functional.ctc_loss(likelihood, symbols, lengths.cpu(), counts, self.blank, reduction="mean")

    @torch.inference_mode()
    def transcribe(self, x: Tensor, lengths: Tensor) -> list[list[int]]:
        """The symbols of each clip: the likeliest of each frame, repeats as one, without blanks."""
        best = self(x, lengths).argmax(-1).tolist()
        kept = (frames[:length] for frames, length in zip(best, lengths.tolist(), strict=True))
        return [[symbol for symbol, _ in groupby(frames) if symbol != self.blank] for frames in kept]
