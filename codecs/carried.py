"""What a causal network carries from chunk to chunk of a stream. Importing this imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


class Past:
    """The last steps that each layer of a network was given, zeros before the first, as causal padding has them.

    dim  the dimension that is time.

    A layer that is given `past(layer, x, n)` has n steps of context to the left of x. What it makes of these n alone it
    made in the chunk before; the caller drops it.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.kept: dict[nn.Module, Tensor] = {}

    def __call__(self, layer: nn.Module, x: Tensor, steps: int) -> Tensor:
        """x [.., T, ..] behind the last `steps` that the layer was given."""
        import torch

        if layer not in self.kept:
            shape = list(x.shape)
            shape[self.dim] = steps
            self.kept[layer] = x.new_zeros(shape)
        both = torch.cat([self.kept[layer], x], self.dim)
        self.kept[layer] = both.narrow(self.dim, both.shape[self.dim] - steps, steps)
        return both
