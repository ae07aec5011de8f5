"""X-Codec-2.0 and NeuCodec: an acoustic encoder beside w2v-BERT 2.0's sixteenth layer, one quantiser of 65536 scalars.

    Xcodec2   Ye et al., "Llasa: Scaling Train-Time and Inference-Time Compute for Llama-based Speech Synthesis", 2025;
              `transformers.Xcodec2Model`.
    NeuCodec  Julian et al., "Finite Scalar Quantization Enables Redundant and Transmission-Robust Neural Audio
              Compression at Low Bit-rates", 2025; `transformers.NeuCodecModel`.

What w2v-BERT hears (80 log-mel bands, two frames of 10 ms side by side) is computed here, by the library's own feature
extractor, over one clip: it subtracts the clip's mean and divides by its deviation, so padding that it saw would change
every token.

Measured on random models, a clip padded in a batch as the library pads, against the same clip alone: up to five tokens
at the end of 73 differ (padding reaches them through convolutions), and its sound by half its level (group norm in the
decoder takes its statistics over the whole length). The library's mask for NeuCodec counts 1.5 times the frames that
there are. So a clip is never padded here.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from earmark.codecs.contract import Info
from earmark.codecs.pretrained import ClipByClip, Measures


class Xcodec2(ClipByClip):
    """Frames are floor(L / 320) + 1: as in the authors' code there is always a zero after the clip, then whole hops.

    So a clip of whole hops gets a frame more; 320 samples a frame come back. There is one codebook, hence no lower
    rate.

    Latents have D = 2048: 'unquantized' is what is projected onto the eight scalars, 'quantized' what comes back.
    """

    model_class = "Xcodec2Model"
    extractor_class = "Xcodec2FeatureExtractor"

    def __init__(
        self, info: Info, device: str, *, repo: str = "", revision: str | None = None, model: Any = None
    ) -> None:
        import transformers

        super().__init__(info, device, repo=repo, revision=revision, model=model)
        self.extractor = getattr(transformers, self.extractor_class)()

    def measures(self) -> Measures:
        config = self.model.config
        return Measures(config.sampling_rate, config.hop_length, 1, 1, math.prod(config.quantization_levels))

    def embed(self, clip: Tensor) -> Tensor:
        heard = self.heard(clip)
        semantic, acoustic = self.semantic(heard), self.model.acoustic_encoder(heard["input_values"])
        frames = min(semantic.shape[-1], acoustic.shape[-1])  # they differ in NeuCodec only
        both = torch.cat([semantic[..., :frames], acoustic[..., :frames]], dim=1)
        return self.model.fc_encoder(both.transpose(1, 2)).transpose(1, 2)

    def heard(self, clip: Tensor) -> dict[str, Tensor]:
        """The two encoders' inputs for a clip [1, 1, L]: samples [1, 1, L'] and mel frames [1, T, 160] with a mask.

        They are computed on the CPU on any device: tokens then differ no more than the network's rounding makes them.
        """
        found = self.extractor(audio=clip[0, 0].cpu(), sampling_rate=self.extractor.sampling_rate, return_tensors="pt")
        return {name: tensor.to(self.device) for name, tensor in found.items()}

    def semantic(self, heard: dict[str, Tensor]) -> Tensor:
        """w2v-BERT's features [1, 1024, T], adapted."""
        states = self.model.semantic_encoder(heard["input_features"], attention_mask=heard["input_features_mask"])
        return self.model.semantic_adapter(states.last_hidden_state.transpose(1, 2))

    def quantise(self, latents: Tensor) -> Tensor:
        return self.model.quantizer(latents.transpose(1, 2))[1].transpose(1, 2).long()

    def dequantise(self, codes: Tensor) -> Tensor:
        return self.model.quantizer.from_codes(codes.transpose(1, 2)).transpose(1, 2)

    def synthesise(self, latents: Tensor) -> Tensor:
        return self.model.decode(latents=latents).audio_values


class NeuCodec(Xcodec2):
    """Frames are ceil(L / 480) of 24 kHz: a clip is padded with zeros to whole hops; 480 samples a frame come back.

    It hears 16 kHz and gives 24 kHz. It is a 24 kHz codec here, that resamples what it hears, so that the band which
    it makes up is scored against the band that was there.

    On whole hops this is the authors' call. On others they drop what is left over (their mel frames are one hop short,
    and both encoders are cut to the shorter), and fail under 320 samples of 16 kHz; here the zeros are dropped instead.
    """

    model_class = "NeuCodecModel"
    extractor_class = "NeuCodecFeatureExtractor"

    def measures(self) -> Measures:
        config = self.model.config
        return Measures(config.output_sampling_rate, config.hop_length, 1, 1, math.prod(config.quantization_levels))

    def heard(self, clip: Tensor) -> dict[str, Tensor]:
        from torchaudio.functional import resample

        config = self.model.config
        return super().heard(resample(self.whole_frames(clip), config.output_sampling_rate, config.input_sampling_rate))
