"""Layer norm and a linear layer: what X-ARES calls its MLP, of a clip's mean or of every frame."""

from __future__ import annotations

from torch import Tensor, nn


class Mlp(nn.Module):
    """[..., D] -> [..., C]."""

    def __init__(self, dimensions: int, outputs: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dimensions)
        self.out = nn.Linear(dimensions, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.norm(x))
