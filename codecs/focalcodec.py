"""FocalCodec: WavLM's sixth layer, compressed by focal modulation into thirteen signs, and a Vocos for a decoder.

Della Libera et al., "FocalCodec: Low-Bitrate Speech Coding via Focal Modulation Networks", NeurIPS 2025; the code is
that of github.com/lucadellalib/focalcodec, commit 912b7f2 (0.0.2): `focalcodec/codec.py`, lines 311 (to latents), 751
(latents to tokens), 818 (tokens to signs), 979 (signs to sound) and 1496 (weights of 0.0.1 under the names of 0.0.2).
"""

from __future__ import annotations

import json
import math
from typing import Any

from torch import Tensor
from torch.nn.functional import pad

from earmark.codecs.checkout import Checkout
from earmark.codecs.contract import Info
from earmark.codecs.packaged import FromCheckout, cached_files
from earmark.codecs.pretrained import Measures


class FocalCodec(FromCheckout):
    """Frames are ceil(L / hop), hop 320, 640 or 1280; a hop of samples comes back for each.

    A clip is followed by zeros up to whole frames, and by 80 more, for WavLM hears 400 samples every 320. Without them
    the authors' code codes a frame less, and fills its output up to the clip's length with its last sample
    (`sig_to_sig`, line 536); at 12.5 and 25 Hz it drops up to a token besides (`focalnet.py`, line 675: it pads by
    T mod s where -T mod s is meant).

    A token is the signs of a point on the sphere of log2 V dimensions. Latents are that point ('unquantized') and its
    signs ('quantized', each 1 / sqrt(log2 V) in size), D = 13: WavLM hears the whole clip, so they depend on all of it.

    model  the authors' `FocalCodec`, in place of a checkpoint.
    """

    FILES = ("config.json", "model.safetensors")

    @staticmethod
    def load_from(checkout: Checkout, info: Info, repo: str, revision: str | None) -> Any:
        from safetensors.torch import load_file

        config, weights = cached_files(info, repo, revision, FocalCodec.FILES)
        model = build(checkout, json.loads(config.read_text(encoding="utf-8")))
        model.load_state_dict(model._remap_state_dict(load_file(weights), list(model.state_dict())))
        return model

    def measures(self) -> Measures:
        hop = self.model.encoder.downsample_factor * self.model.compressor.downsample_factor
        return Measures(self.model.sample_rate, hop, 1, 1, self.model.quantizer.codebook_size)

    def embed(self, clip: Tensor) -> Tensor:
        sound = pad(self.whole_frames(clip), (0, self._beyond()))
        return self.model.sig_to_lats(sound[:, 0]).transpose(1, 2)

    def quantise(self, latents: Tensor) -> Tensor:
        return self.model.lats_to_toks(latents.transpose(1, 2))[:, None]

    def dequantise(self, codes: Tensor) -> Tensor:
        return self.model.toks_to_codes(codes[:, 0]).transpose(1, 2)

    def synthesise(self, latents: Tensor) -> Tensor:
        return self.model.codes_to_sig(latents.transpose(1, 2))[:, None]

    def _beyond(self) -> int:
        """Samples that the last frame of WavLM hears beyond its own."""
        encoder, heard = self.model.encoder, 1
        for kernel, stride in zip(reversed(encoder.kernel_sizes), reversed(encoder.strides), strict=True):
            heard = (heard - 1) * stride + kernel
        return heard - math.prod(encoder.strides)


def build(checkout: Checkout, config: dict[str, Any]) -> Any:
    """The network that a config describes, with weights yet to come."""
    with checkout.importable():
        from focalcodec import FocalCodec as Network

        return Network(**config)
