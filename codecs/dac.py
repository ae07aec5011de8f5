"""DAC, the Descript Audio Codec: an improved RVQGAN with Snake activations and factorised, normalised codes.

Kumar et al., "High-Fidelity Audio Compression with Improved RVQGAN", NeurIPS 2023; `transformers.DacModel`.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import pad

from earmark.codecs.pretrained import ClipByClip, Measures


class Dac(ClipByClip):
    """Frames are ceil(L / hop): a clip is padded with zeros to whole hops, as `DAC.preprocess` does in Descript's code.

    Unpadded, the encoder would drop the last L mod hop samples, and its decoder gives even less back: an odd stride
    loses a sample, which the strides after it multiply (stride 5: 10000 samples -> 31 frames -> 9912). So here zeros
    fill the decoder's output up to whole hops: 8 samples at 16 and 24 kHz, none at 44.1 kHz.

    The loudness is left alone (Descript's `compress` would move it to -16 dB). Latents have D = 1024, after the
    projection out of the 8-dimensional codebooks.
    """

    model_class = "DacModel"

    def measures(self) -> Measures:
        # config.hop_length is not used: the hub's configs say 512 for all three models.
        config = self.model.config
        hop = math.prod(config.downsampling_ratios)
        return Measures(config.sampling_rate, hop, 1, config.n_codebooks, config.codebook_size)

    def embed(self, clip: Tensor) -> Tensor:
        return self.model.encoder(self.whole_frames(clip))

    def quantise(self, latents: Tensor) -> Tensor:
        return self.model.quantizer(latents, self.info.num_codebooks)[1]

    def dequantise(self, codes: Tensor) -> Tensor:
        return self.model.quantizer.from_codes(codes)[0]

    def synthesise(self, latents: Tensor) -> Tensor:
        wav = self.model.decoder(latents)
        return pad(wav, (0, latents.shape[-1] * self.hop - wav.shape[-1]))
