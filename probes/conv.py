"""AudioCodecBench's probe: squeeze-excitation over time and convolutions that halve it, on segments of one length.

Source: AudioCodecBench and its code, probe/model/multiclass_model.py (the same for several labels and for regression).
Frames take the place of channels: a frame is weighed by what its mean over D says of all of them, the depthwise
convolution runs along D, and its pointwise part mixes frames. So a segment has a fixed number of frames.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

REDUCTION = 16  # of the frames in squeeze-excitation, and of D before the output


class Excite(nn.Module):
    """Squeeze-excitation over time: [B, T, D] -> [B, T, D], each frame times a weight in (0, 1)."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(frames, max(1, frames // REDUCTION), bias=False)
        self.excite = nn.Linear(max(1, frames // REDUCTION), frames, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean(-1))))).unsqueeze(-1)


class Halve(nn.Module):
    """Depthwise-separable convolution, kernel 3: [B, T, D] -> [B, T // 2, D]."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(frames, frames, 3, padding=1, groups=frames, bias=False)
        self.pointwise = nn.Conv1d(frames, frames // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


class Conv(nn.Module):
    """[B, D, T] -> [B, C], for T >= 4. Dropout falls on the output, as there."""

    def __init__(self, dimensions: int, outputs: int, frames: int, dropout: float = 0.1) -> None:
        super().__init__()
        if frames < 4:
            raise ValueError(f"a segment has {frames} frames; this probe halves them twice and needs at least 4")
        stages = [(*(Excite(count) for _ in range(3)), Halve(count)) for count in (frames, frames // 2)]
        self.body = nn.Sequential(*(layer for stage in stages for layer in stage))
        self.narrow = nn.Linear(dimensions, max(1, dimensions // REDUCTION))
        self.out = nn.Linear(frames // 2 // 2 * max(1, dimensions // REDUCTION), outputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.out(self.narrow(self.body(x.mT)).flatten(1)))
