"""X-Codec: an acoustic encoder (DAC's) beside a semantic one (HuBERT's or WavLM's), quantised together.

Ye et al., "Codec Does Matter: Exploring the Semantic Shortcoming of Codec for Audio Language Model", AAAI 2025;
`transformers.XcodecModel`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from earmark.codecs.pretrained import ClipByClip, Measures


class Xcodec(ClipByClip):
    """Frames are ceil(L / 320): a clip is padded with zeros to whole hops, as its feature extractor does.

    Unpadded, the two encoders count frames differently; `transformers` then shifts the acoustic one by half a hop, and
    the end of the clip is lost (321 samples -> 1 frame). Under 80 samples it would fail. Of whole hops both give as
    many frames, and the decoder gives 320 samples for each.

    Latents have D = 1024 (256 acoustic and 768 semantic, mixed by one linear layer).
    """

    model_class = "XcodecModel"

    def measures(self) -> Measures:
        config = self.model.config
        return Measures(config.sample_rate, config.hop_length, 1, config.num_quantizers, config.codebook_size)

    def embed(self, clip: Tensor) -> Tensor:
        model, clip = self.model, self.whole_frames(clip)
        semantic = model.encoder_semantic(model._extract_semantic_features(clip).transpose(1, 2))
        both = torch.cat([model.acoustic_encoder(clip), semantic], dim=1)
        return model.fc(both.transpose(1, 2)).transpose(1, 2)

    def quantise(self, latents: Tensor) -> Tensor:
        # In kbps, with half a codebook to spare, so that rounding cannot cost one.
        bandwidth = (self.info.num_codebooks + 0.5) * self.model.quantizer.get_bandwidth_per_quantizer()
        return self.model.quantizer.encode(latents, bandwidth).transpose(0, 1)

    def dequantise(self, codes: Tensor) -> Tensor:
        return self.model.quantizer.decode(codes.transpose(0, 1))

    def synthesise(self, latents: Tensor) -> Tensor:
        return self.model.acoustic_decoder(self.model.fc2(latents.transpose(1, 2)).transpose(1, 2))
