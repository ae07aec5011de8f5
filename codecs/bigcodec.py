"""BigCodec: a large convolutional network around an LSTM, and one codebook of 8192 entries.

Xin et al., "BigCodec: Pushing the Limits of Low-Bitrate Neural Speech Codec", 2024; the code is that of
github.com/Aria-K-Alethia/BigCodec, commit 09845ab: `inference.py`, lines 26 to 31 (weights) and 43 to 47 (padding, to
codes, to sound), and `vq/codec_decoder.py`, line 80 (codes to what is decoded).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from earmark.codecs.checkout import Checkout
from earmark.codecs.contract import Info
from earmark.codecs.packaged import FromCheckout, cached_files
from earmark.codecs.pretrained import Measures


class BigCodec(FromCheckout):
    """Frames are floor(L / 200) + 1: as in the authors' code there is always a zero after the clip, then whole hops.

    So a clip of whole hops gets a frame more; 200 samples a frame come back. There is one codebook, hence no lower
    rate. Latents have D = 1024, before and after the projection onto eight dimensions.

    model  a ModuleDict of the authors' `encoder` and `decoder`, in place of a checkpoint.
    """

    FILES = ("bigcodec.pt",)
    RATE = 16000  # which the network itself does not say

    @staticmethod
    def load_from(checkout: Checkout, info: Info, repo: str, revision: str | None) -> torch.nn.ModuleDict:
        (weights,) = cached_files(info, repo, revision, BigCodec.FILES)
        model = build(checkout)
        tensors = torch.load(weights, map_location="cpu", weights_only=True)
        model["encoder"].load_state_dict(tensors["CodecEnc"])
        model["decoder"].load_state_dict(tensors["generator"])
        return model

    def measures(self) -> Measures:
        layers = self.model["decoder"].quantizer.layers
        return Measures(self.RATE, int(self.model["encoder"].hop_length), 1, len(layers), layers[0].codebook_size)

    def embed(self, clip: Tensor) -> Tensor:
        return self.model["encoder"](pad(clip, (0, self.hop - clip.shape[-1] % self.hop)))

    def quantise(self, latents: Tensor) -> Tensor:
        return self.model["decoder"](latents, vq=True)[1].transpose(0, 1)

    def dequantise(self, codes: Tensor) -> Tensor:
        return self.model["decoder"].vq2emb(codes.transpose(1, 2)).transpose(1, 2)

    def synthesise(self, latents: Tensor) -> Tensor:
        return self.model["decoder"](latents, vq=False)


def build(checkout: Checkout) -> torch.nn.ModuleDict:
    """The authors' network, with weights yet to come."""
    with checkout.importable():
        from vq import CodecDecoder, CodecEncoder

        return torch.nn.ModuleDict({"encoder": CodecEncoder(), "decoder": CodecDecoder()})
