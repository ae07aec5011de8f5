"""A linear layer on a clip's mean: CodecBench's probe."""

from __future__ import annotations

from torch import Tensor, nn


class Linear(nn.Module):
    """[..., D] -> [..., C]."""

    def __init__(self, dimensions: int, outputs: int) -> None:
        super().__init__()
        self.out = nn.Linear(dimensions, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x)
