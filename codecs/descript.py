"""Checkpoints of Descript's DAC, and of what was made of its code, in the names of `transformers.DacModel`."""

from __future__ import annotations

from torch import Tensor

# Descript only numbers its layers. Its blocks stand one later, behind the first layer.
UNIT = {"snake1": 0, "conv1": 1, "snake2": 2, "conv2": 3}
PLACES = {"encoder": {"snake1": 3, "conv1": 4}, "decoder": {"snake1": 0, "conv_t1": 1}}
STEMS = {"encoder": "encoder.block", "decoder": "decoder.model"}


def descript_name(name: str, blocks: int = 4) -> str:
    """What Descript calls a tensor of the library's encoder or decoder, which have so many blocks.

    >>> descript_name("encoder.block.0.res_unit1.conv2.weight")
    'encoder.block.1.block.0.block.3.weight'
    >>> descript_name("decoder.snake1.alpha")
    'decoder.model.5.alpha'
    """
    side, rest = name.split(".", 1)
    stem, layer = STEMS[side], rest.split(".")
    if layer[0] != "block":
        ends = {"conv1": 0, "snake1": blocks + 1, "conv2": blocks + 2}
        return f"{stem}.{ends[layer[0]]}.{layer[1]}"
    block = f"{stem}.{int(layer[1]) + 1}.block"
    if not layer[2].startswith("res_unit"):
        return f"{block}.{PLACES[side][layer[2]]}.{layer[3]}"
    unit = int(layer[2].removeprefix("res_unit")) - 1 + (2 if side == "decoder" else 0)
    return f"{block}.{unit}.block.{UNIT[layer[3]]}.{layer[4]}"


def folded(name: str, tensors: dict[str, Tensor]) -> Tensor | None:
    """A tensor by Descript's name, its weight normalisation folded in; None where it is not there."""
    if f"{name}_g" not in tensors:
        return tensors.get(name)
    direction, size = tensors[f"{name}_v"], tensors[f"{name}_g"]
    return direction * (size / direction.flatten(1).norm(dim=1).reshape(size.shape))
