"""Mimi, the codec of Moshi: causal convolutions and transformers, one semantic and up to 31 acoustic codebooks.

Défossez et al., "Moshi: a speech-text foundation model for real-time dialogue", 2024; `transformers.MimiModel`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from earmark.codecs.carried import Past
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

    def stream(self, chunks: Iterator[Tensor], seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """A frame of codes and of sound for each chunk of 1920 samples: nothing waits for what comes."""
        del seed
        keys = convolved = None
        decoding = Decoding(self.model.decoder)
        for chunk in chunks:
            made = self.model.encoder(
                self.whole_frames(chunk.to(self.device)),
                past_key_values=keys, padding_cache=convolved, use_streaming=True,
            )  # fmt: skip
            keys, convolved = made.past_key_values, made.padding_cache
            codes = self.quantise(made.latents)
            yield codes, decoding(self.dequantise(codes))


class Decoding:
    """A stream through Mimi's decoder. `transformers` carries the keys of its attention; its convolutions start anew at
    each call, so that what they saw is kept here."""

    def __init__(self, decoder: Any) -> None:
        from transformers import DynamicCache

        self.decoder, self.past, self.keys = decoder, Past(dim=2), DynamicCache(config=decoder.config)

    def __call__(self, latents: Tensor) -> Tensor:
        """Latents [1, D, T] -> their sound [1, 1, L]."""
        x = self._transposed(self.decoder.upsample, latents).transpose(1, 2)
        x = self.decoder.decoder_transformer(x, past_key_values=self.keys, use_cache=True).last_hidden_state
        x = x.transpose(1, 2)
        for layer in self.decoder.decoder_seanet.layers:
            x = self._layer(layer, x)
        return x

    def _layer(self, layer: Any, x: Tensor) -> Tensor:
        if hasattr(layer, "block"):  # residual
            inner = x
            for part in layer.block:
                inner = self._layer(part, inner)
            return self._layer(layer.shortcut, x) + inner
        if hasattr(layer, "padding_total"):  # a convolution of stride 1
            return layer.conv(self.past(layer, x, int(layer.padding_total)))
        return self._transposed(layer, x) if hasattr(layer, "trim_right_ratio") else layer(x)

    def _transposed(self, layer: Any, x: Tensor) -> Tensor:
        """A convolution upwards, whose kernel is two strides long: each step is heard in the next one's samples too."""
        stride = layer.conv.stride[0]
        return layer(self.past(layer, x, 1))[..., stride:]
