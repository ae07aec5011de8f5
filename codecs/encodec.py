"""EnCodec at 24 kHz (causal, mono) and at 48 kHz (stereo, in normalised chunks of a second).

Défossez et al., "High Fidelity Neural Audio Compression", TMLR 2023; `transformers.EncodecModel`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from earmark.codecs.contract import Encoded
from earmark.codecs.pretrained import ClipByClip, Measures


class Encodec(ClipByClip):
    """The model's config says which of the two it is.

    24 kHz  Frames are ceil(L / 320); each layer reflects the clip's end to fill its last frame, as Meta's code does.
    48 kHz  A chunk of 1 s starts every 0.99 s, where there is sound left. Each is divided by its own level (RMS of the
            channels' mean), coded alone in ceil(samples / 320) frames, and cross-faded with the next. Its frames
            follow one another along T, so a long clip has 150 / 0.99 = 151.5 of them a second, not 150.

    side, at 48 kHz: 'scales' float [B, N], the level of each chunk, 0 where there is none; 'samples' int64 [B], the
    clip's length, from which the chunks follow. `side_bits` counts 32 a scale, as Meta's .ecdc files spend; the length
    stands in their header and is not counted.

    The chunks are cut here: `EncodecModel.encode` fails on some lengths (47520 n + 1 to 160, n >= 2) and `decode` on
    others (47520 n + 161 to 320, n >= 1).

    Latents have D = 128; at 48 kHz they are those of the chunks, at their normalised level.
    """

    model_class = "EncodecModel"

    def measures(self) -> Measures:
        config = self.model.config
        return Measures(
            config.sampling_rate,
            config.hop_length,
            config.audio_channels,
            config.num_quantizers,
            config.codebook_size,
        )

    def encode(self, wav: Tensor, lengths: Tensor, seed: int) -> Encoded:
        encoded = super().encode(wav, lengths, seed)
        if not self.model.config.normalize:
            return encoded
        scales = [torch.stack([scale for _, scale in self._levelled(clip)]) for clip in self.clips(wav, lengths)]
        encoded.side["scales"] = torch.nn.utils.rnn.pad_sequence(scales, batch_first=True).to(wav.device)
        encoded.side["samples"] = lengths.clone()
        encoded.side_bits = lengths.new_tensor([32 * len(row) for row in scales], dtype=torch.float32)
        return encoded

    def embed(self, clip: Tensor) -> Tensor:
        return torch.cat([self.model.encoder(chunk) for chunk, _ in self._levelled(clip)], dim=-1)

    def quantise(self, latents: Tensor) -> Tensor:
        # In kbps, with half a codebook to spare, so that rounding cannot cost one.
        quantizer = self.model.quantizer
        bandwidth = (self.info.num_codebooks + 0.5) * math.log2(quantizer.codebook_size) * quantizer.frame_rate / 1000
        return quantizer.encode(latents, bandwidth).transpose(0, 1)

    def dequantise(self, codes: Tensor) -> Tensor:
        return self.model.quantizer.decode(codes.transpose(0, 1))

    def synthesise(self, latents: Tensor) -> Tensor:
        return self.model.decoder(latents)

    def decode_clip(self, codes: Tensor, side: dict[str, Tensor]) -> Tensor:
        if not self.model.config.normalize:
            return super().decode_clip(codes, side)
        frames = [-(-(stop - start) // self.hop) for start, stop in self._bounds(int(side["samples"]))]
        chunks = self.dequantise(codes).split(frames, dim=-1)
        scales = side["scales"][: len(frames)].to(self.device)
        wavs = [self.synthesise(chunk) * scale for chunk, scale in zip(chunks, scales, strict=True)]
        return cross_fade(wavs, self.model.config.chunk_stride)

    def _levelled(self, clip: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The chunks [1, C, L_i] of a clip [1, C, L], each divided by its level [], and that level."""
        for start, stop in self._bounds(clip.shape[-1]):
            chunk = clip[..., start:stop]
            scale = clip.new_ones(())
            if self.model.config.normalize:
                scale = chunk.mean(dim=1).pow(2).mean().sqrt() + 1e-8
            yield chunk / scale, scale

    def _bounds(self, samples: int) -> list[tuple[int, int]]:
        """Where the chunks of a clip start and stop; the whole clip where the model knows no chunks."""
        config = self.model.config
        length, stride = config.chunk_length or samples, config.chunk_stride or samples
        return [(start, min(start + length, samples)) for start in range(0, samples, stride)]


def cross_fade(chunks: list[Tensor], stride: int) -> Tensor:
    """Chunks [1, C, L_i] that start `stride` samples apart -> [1, C, L], weighted by triangles where they overlap.

    The sound ends where the last chunk does. Source: Meta's encodec, `_linear_overlap_add`.
    """
    total = stride * (len(chunks) - 1) + chunks[-1].shape[-1]
    position = torch.linspace(0, 1, chunks[0].shape[-1] + 2, device=chunks[0].device)[1:-1]
    triangle = 0.5 - (position - 0.5).abs()
    wav, weight = chunks[0].new_zeros(*chunks[0].shape[:-1], total), chunks[0].new_zeros(total)
    for i, chunk in enumerate(chunks):
        here = slice(i * stride, min(i * stride + chunk.shape[-1], total))
        fade = triangle[: here.stop - here.start]
        wav[..., here] += fade * chunk[..., : here.stop - here.start]
        weight[here] += fade
    return wav / weight
