"""MaskGCT's acoustic codec: DAC's encoder and normalised codes, and a deep Vocos for a decoder.

Wang et al., "MaskGCT: Zero-Shot Text-to-Speech with Masked Generative Codec Transformer", ICLR 2025; the code is that
of github.com/open-mmlab/Amphion, commit d3de90f: `models/tts/maskgct/maskgct_utils.py`, lines 65 (the network), 125 (to
codes) and 223 (codes to sound), over `models/codec/amphion_codec/codec.py`.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from earmark.codecs.checkout import Checkout
from earmark.codecs.contract import Info
from earmark.codecs.packaged import FromCheckout, cached_files
from earmark.codecs.pretrained import Measures

CONFIG = "models/tts/maskgct/config/maskgct.json"


class MaskGct(FromCheckout):
    """Frames are ceil(L / 480): a clip is padded with zeros to whole hops. 480 samples a frame come back.

    The authors' code does not pad, and drops what does not fill a frame. Latents have D = 256, after the projection out
    of the 8-dimensional codebooks.

    model  a ModuleDict of the authors' `encoder` and `decoder`, in place of a checkpoint.
    """

    FILES = ("acoustic_codec/model.safetensors", "acoustic_codec/model_1.safetensors")
    RATE = 24000  # which the network itself does not say

    @staticmethod
    def load_from(checkout: Checkout, info: Info, repo: str, revision: str | None) -> torch.nn.ModuleDict:
        from safetensors.torch import load_file

        weights = cached_files(info, repo, revision, MaskGct.FILES)
        config = json.loads((checkout.here() / CONFIG).read_text(encoding="utf-8"))
        model = build(checkout, config["model"]["acoustic_codec"])
        for part, path in zip(("encoder", "decoder"), weights, strict=True):
            model[part].load_state_dict(load_file(path))
        return model

    def measures(self) -> Measures:
        quantizer, head = self.model["decoder"].quantizer, self.model["decoder"].model.head
        hop = head.istft.hop_length
        return Measures(self.RATE, hop, 1, quantizer.num_quantizers, quantizer.codebook_size)

    def embed(self, clip: Tensor) -> Tensor:
        return self.model["encoder"](self.whole_frames(clip))

    def quantise(self, latents: Tensor) -> Tensor:
        codebooks = self.info.num_codebooks
        return self.model["decoder"].quantizer(latents, n_quantizers=codebooks)[1].transpose(0, 1)

    def dequantise(self, codes: Tensor) -> Tensor:
        return self.model["decoder"].vq2emb(codes.transpose(0, 1), n_quantizers=codes.shape[1])

    def synthesise(self, latents: Tensor) -> Tensor:
        return self.model["decoder"](latents)


def build(checkout: Checkout, config: dict[str, Any]) -> torch.nn.ModuleDict:
    """The network that a config describes, with weights yet to come."""
    with checkout.importable():
        from models.codec.amphion_codec.codec import CodecDecoder, CodecEncoder

        parts = {"encoder": CodecEncoder, "decoder": CodecDecoder}
        return torch.nn.ModuleDict({name: part(cfg=SimpleNamespace(**config[name])) for name, part in parts.items()})
