"""The codec of YuE, `xcodec_mini_infer`: X-Codec with twelve codebooks, trained for music.

Yuan et al., "YuE: Scaling Open Foundation Models for Long-Form Music Generation", 2025. The file is that of
huggingface.co/m-a-p/xcodec_mini_infer; its network is Ye et al.'s (github.com/zhenye234/xcodec,
`models/soundstream_semantic.py`), which `transformers.XcodecModel` is a port of under other names.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from earmark.codecs.contract import Info
from earmark.codecs.descript import descript_name, folded
from earmark.codecs.xcodec import Xcodec

FILE = "ckpt_00360000.pth"
BANDWIDTHS = (0.5, 1, 1.5, 2, 4, 6)  # kbps, of final_ckpt/config.yaml: twelve codebooks; all else is X-Codec's default

# The library's names, and upstream's: the first that fits counts.
PLAIN = (
    (r"^fc\.", "fc_prior."),
    (r"^fc([12])\.", r"fc_post\1."),
    (r"^quantizer\.quantizers\.(\d+)\.codebook\.", r"quantizer.vq.layers.\1._codebook."),
    (r"^((?:en|de)coder_semantic\..*res_units\.\d+\.conv2\.weight)$", r"\1"),  # the one convolution that is not wrapped
    (r"^((?:en|de)coder_semantic\..*conv[12]?)\.(weight|bias)$", r"\1.conv.\2"),
)
OLDER = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}


class Yue(Xcodec):
    """As X-Codec: frames are ceil(L / 320), 320 samples a frame come back, D = 1024.

    YuE's language models write the first eight codebooks. Its second decoder, a Vocos at 44.1 kHz, is not run here.

    Tried once, on random weights, beside upstream's own modules (as kept in github.com/wuzhiyue111/Codec-Evaluation,
    codec_evaluation/codecs/YuE, commit 91a1a7e): all 530 tensors find their place, all codes are equal, and the sound
    within 2e-7.

    folder  where the checkpoint lies.
    model   a model already built, in its place.
    """

    def __init__(self, info: Info, device: str, *, folder: Path | None = None, model: Any = None) -> None:
        if model is None:
            if folder is None:
                raise ValueError(f"{info.name}: needs the folder of {FILE}, or a model")
            model = converted(build(), torch.load(folder / FILE, map_location="cpu", weights_only=True)["codec_model"])
        super().__init__(info, device, model=model)


def build() -> Any:
    """The network, with weights yet to come."""
    from transformers import HubertConfig, XcodecConfig, XcodecModel

    return XcodecModel(XcodecConfig(target_bandwidths=BANDWIDTHS, semantic_model_config=HubertConfig()))


def converted(model: Any, tensors: dict[str, Tensor]) -> Any:
    """The model with upstream's tensors. Raises ValueError where one is not there, or of another shape."""
    state, lacking = {}, []
    for name, own in model.state_dict().items():
        found = tensor_of(upstream_name(name), tensors)
        if found is None or found.shape != own.shape:
            lacking.append(name)
        else:
            state[name] = found
    lacking = [name for name in lacking if not name.endswith("masked_spec_embed")]  # serves in training only
    if lacking:
        raise ValueError(f"{FILE} lacks {len(lacking)} tensors of XcodecModel, such as {upstream_name(lacking[0])}")
    model.load_state_dict(state, strict=False)
    return model


def tensor_of(name: str, tensors: dict[str, Tensor]) -> Tensor | None:
    """A tensor by upstream's name, its weight normalisation folded in; None where it is not there."""
    for new, old in OLDER.items():  # HuBERT's, which stays as it is; older files have the older names
        if name.endswith(new) and name not in tensors:
            name = name.replace(new, old)
    return folded(name, tensors)


def upstream_name(name: str) -> str:
    """What upstream calls a tensor of `transformers.XcodecModel`.

    >>> upstream_name("acoustic_encoder.block.0.res_unit1.conv2.weight")
    'encoder.block.1.block.0.block.3.weight'
    >>> upstream_name("acoustic_decoder.snake1.alpha")
    'decoder_2.model.5.alpha'
    """
    if name.startswith("acoustic_"):
        return _acoustic_name(name)
    for pattern, replacement in PLAIN:
        name, count = re.subn(pattern, replacement, name)
        if count:
            break
    return name


def _acoustic_name(name: str) -> str:
    """The same for DAC's encoder and decoder; upstream has a decoder for each of two uses."""
    return descript_name(name.removeprefix("acoustic_")).replace("decoder.", "decoder_2.", 1)
