"""A plain vision transformer over patches of a spectrum, out of torch's own layers, and published tensors for it.

That of Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021, with tensors named as in `timm`
(`blocks.0.attn.qkv`, `blocks.0.mlp.fc1`). Many encoders of sound are that and differ in spectrum, patches and positions
only, so their published code, which wants old versions of many packages, is not needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

# The names of a block in `timm`, and in `torch.nn.TransformerEncoderLayer`.
NAMES = {
    "attn.qkv.weight": "self_attn.in_proj_weight", "attn.qkv.bias": "self_attn.in_proj_bias",
    "attn.proj.weight": "self_attn.out_proj.weight", "attn.proj.bias": "self_attn.out_proj.bias",
    "mlp.fc1.weight": "linear1.weight", "mlp.fc1.bias": "linear1.bias",
    "mlp.fc2.weight": "linear2.weight", "mlp.fc2.bias": "linear2.bias",
}  # fmt: skip
EPS = 1e-6


class Vit(nn.Module):
    """Pre-norm blocks over the patches of a spectrum.

    patch      weight [D, 1, F', T'] and bias of the patches' projection.
    positions  [D, f, t] at most t patches in time, added to them.
    tokens     [k, D] before the patches, their positions included; none by default.
    blocks     tensors of the blocks, named as in `NAMES` behind 'blocks.<i>.'; 'norm.weight' and 'norm.bias' too.
    heads      of the attention.
    before     what the spectrum [B, F, T] goes through first.

    Raises RuntimeError (of `load_state_dict`) where a tensor lacks, is too many or has another shape.
    """

    def __init__(
        self, patch: tuple[Tensor, Tensor], positions: Tensor, blocks: Mapping[str, Tensor], heads: int, *,
        tokens: Tensor | None = None, before: nn.Module | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        width, size = len(patch[0]), patch[0].shape[2:]
        self.before = before or nn.Identity()
        self.patch = nn.Conv2d(1, width, (size[0], size[1]), stride=(size[0], size[1]))
        self.patch.load_state_dict({"weight": patch[0], "bias": patch[1]})
        self.positions: Tensor
        self.tokens: Tensor
        self.register_buffer("positions", positions)
        self.register_buffer("tokens", positions.new_zeros(0, width) if tokens is None else tokens)
        self.blocks = nn.ModuleList(_block(width, heads) for _ in range(_depth(blocks)))
        self.norm = nn.LayerNorm(width, eps=EPS)
        nn.ModuleDict({"blocks": self.blocks, "norm": self.norm}).load_state_dict(translated(blocks))

    def forward(self, spectrum: Tensor) -> list[Tensor]:
        """States [f, t, D] of a spectrum [F, T]: what enters the first block and what each gives, the last normed."""
        patches = self.patch(self.before(spectrum[None])[:, None])  # [1, D, f, t]
        grid = patches.shape[2:]
        patches = (patches + self.positions[..., : grid[1]]).flatten(2).mT
        states = [torch.cat([self.tokens[None], patches], dim=1)]
        for block in self.blocks:
            states.append(block(states[-1]))
        states[-1] = self.norm(states[-1])
        return [state[0, len(self.tokens) :].unflatten(0, grid) for state in states]


def _block(width: int, heads: int) -> nn.Module:
    return nn.TransformerEncoderLayer(
        width, heads, 4 * width, dropout=0.0, activation="gelu", layer_norm_eps=EPS, batch_first=True, norm_first=True
    )


def _depth(tensors: Mapping[str, Tensor]) -> int:
    """How many blocks there are tensors of."""
    return len({match[1] for name in tensors if (match := re.match(r"blocks\.(\d+)\.", name))})


def translated(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under torch's names. Attention without biases, or with those of query and value alone, gets zeros."""
    found = {re.sub(r"(blocks\.\d+\.)(.*)", lambda it: it[1] + NAMES.get(it[2], it[2]), name): each
             for name, each in tensors.items()}  # fmt: skip
    for name in [name for name in found if name.endswith("in_proj_weight")]:
        block, zeros = name.removesuffix("self_attn.in_proj_weight"), found[name].new_zeros(len(found[name]) // 3)
        query, value = found.pop(f"{block}attn.q_bias", zeros), found.pop(f"{block}attn.v_bias", zeros)
        found.setdefault(f"{block}self_attn.in_proj_bias", torch.cat([query, zeros, value]))
    return found
