"""Mimi, the codec of Moshi: causal convolutions and transformers, one semantic and up to 31 acoustic codebooks.

Défossez et al., "Moshi: a speech-text foundation model for real-time dialogue", 2024; `transformers.MimiModel`.
"""

from __future__ import annotations

from torch import Tensor

from earmark.codecs.pretrained import ClipByClip, Measures


class Mimi(ClipByClip):
    """Frames are ceil(L / 1920): a clip is padded with zeros to whole frames of 80 ms; 1920 samples a frame come back.

    Kyutai's own code pads so (moshi, `MimiModel._encode_to_unquantized_latent`). `transformers` alone would pad each
    layer's output instead, which makes the last frame another one. The first codebook is quantised apart from the
    others, which are residual; K codebooks are the first K of all 32.

    Latents have D = 512; both quantisers' outputs are projected back to it and summed.
    """

    model_class = "MimiModel"

    def measures(self) -> Measures:
        config = self.model.config
        return Measures(
            config.sampling_rate,
            config.frame_size,
            config.audio_channels,
            config.num_quantizers,
            config.codebook_size,
        )

    def embed(self, clip: Tensor) -> Tensor:
        return self.model.encoder(self.whole_frames(clip)).latents

    def quantise(self, latents: Tensor) -> Tensor:
        return self.model.quantizer.encode(latents, self.info.num_codebooks).transpose(0, 1)

    def dequantise(self, codes: Tensor) -> Tensor:
        return self.model.quantizer.decode(codes)

    def synthesise(self, latents: Tensor) -> Tensor:
        return self.model.decoder(latents).audio_values
