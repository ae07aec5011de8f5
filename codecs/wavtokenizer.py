"""WavTokenizer: EnCodec's encoder, one large codebook, and a Vocos with attention for a decoder.

Ji et al., "WavTokenizer: an Efficient Acoustic Discrete Codec Tokenizer for Audio Language Modeling", ICLR 2025; the
code is that of github.com/jishengpeng/WavTokenizer, commit 5cf440d: `decoder/pretrained.py`, lines 82 (the network of a
config), 96 (which tensors of a checkpoint are its), 187 (to codes), 210 (codes to features) and 193 (to sound).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from earmark.codecs.checkout import Checkout
from earmark.codecs.contract import Info
from earmark.codecs.packaged import FromCheckout, cached_files
from earmark.codecs.pretrained import Measures

PARTS = ("feature_extractor.", "backbone.", "head.")  # the rest of a checkpoint are discriminators and losses


class WavTokenizer(FromCheckout):
    """Frames are ceil(L / hop), hop 600 or 320: as in EnCodec, each layer reflects the end to fill its last frame.

    The encoder's LSTM and the decoder's attention and group norms hear the whole clip, so every frame depends on all of
    it. A hop of samples comes back for each frame. Latents have D = 512.

    config  the network, a file of the checkout: the models on the hub have none beside them.
    file    the checkpoint in its repository, Lightning's; it is read as tensors alone.
    """

    def __init__(self, info: Info, device: str, **options: Any) -> None:
        super().__init__(info, device, **options)
        self.bandwidth = torch.tensor([0], device=device)  # of four that were all trained alike

    @staticmethod
    def load_from(  # type: ignore[override]
        checkout: Checkout, info: Info, repo: str, revision: str | None, *, config: str, file: str
    ) -> Any:
        (weights,) = cached_files(info, repo, revision, (file,))
        model = build(checkout, config)
        tensors = torch.load(weights, map_location="cpu", weights_only=True)["state_dict"]
        model.load_state_dict({name: tensor for name, tensor in tensors.items() if name.startswith(PARTS)})
        return model

    @property
    def encodec(self) -> Any:
        return self.model.feature_extractor.encodec

    def measures(self) -> Measures:
        quantizer = self.encodec.quantizer
        return Measures(
            self.encodec.sample_rate, int(self.encodec.encoder.hop_length), 1, quantizer.n_q, quantizer.bins
        )

    def embed(self, clip: Tensor) -> Tensor:
        return self.encodec.encoder(clip)

    def quantise(self, latents: Tensor) -> Tensor:
        extractor = self.model.feature_extractor
        return self.encodec.quantizer.infer(latents, extractor.frame_rate, extractor.bandwidths[0]).codes.transpose(
            0, 1
        )

    def dequantise(self, codes: Tensor) -> Tensor:
        return self.model.codes_to_features(codes.transpose(0, 1))

    def synthesise(self, latents: Tensor) -> Tensor:
        return self.model.decode(latents, bandwidth_id=self.bandwidth)[:, None]


def build(checkout: Checkout, config: str) -> Any:
    """The network that a file of the checkout describes, with weights yet to come."""
    with checkout.importable() as folder:
        from decoder.pretrained import WavTokenizer as Network

        return Network.from_hparams0802(str(folder / config))
