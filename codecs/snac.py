"""SNAC: residual quantisers at several frame rates, the coarsest first.

Siuzdak et al., "SNAC: Multi-Scale Neural Audio Codec", 2024; the package `snac` (github.com/hubertsiuzdak/snac, 1.2.1).
"""

from __future__ import annotations

import functools
import json
import warnings
from typing import Any

import torch
from torch import Tensor

from earmark.codecs.continuous import seeded
from earmark.codecs.contract import Encoded, Info
from earmark.codecs.packaged import cached_files
from earmark.codecs.pretrained import ClipByClip, Measures


class Snac(ClipByClip):
    """Codes stand at the finest rate: a codebook of stride s has a token in every s-th frame and -1 in between.

    Frames are ceil(L / n) whole groups, a clip being padded with zeros to them: 4 frames of 512 samples at 24 kHz, 32
    frames of 384 samples at 32 and 44.1 kHz (a window of the attention). All their samples come back.

    The decoder adds noise in every block, by the global generator in the package. Here it is drawn on the CPU from a
    generator of our own, seeded with the seed and the clip's codes: so a clip sounds alike in any batch.

    Latents are those of the finest rate; 'quantized' is what the decoder is given.
    """

    FILES = ("config.json", "pytorch_model.bin")

    def __init__(
        self, info: Info, device: str, *, repo: str = "", revision: str | None = None, model: Any = None
    ) -> None:
        super().__init__(info, device, model=load(info, repo, revision) if model is None else model)
        if info.strides != tuple(self.model.vq_strides[: info.num_codebooks]):
            raise ValueError(f"{info.name}: strides are {info.strides}, the model's are {self.model.vq_strides}")
        self.generator = torch.Generator()
        for block in self.model.modules():
            if type(block).__name__ == "NoiseBlock":
                block.forward = functools.partial(self._with_noise, block.linear)

    def measures(self) -> Measures:
        model = self.model
        return Measures(model.sampling_rate, int(model.hop_length), 1, model.n_codebooks, model.codebook_size)

    def embed(self, clip: Tensor) -> Tensor:
        return self.model.encoder(self.model.preprocess(clip))

    def quantise(self, latents: Tensor) -> Tensor:
        tokens = self.model.quantizer(latents)[1]  # [1, T / stride] of each codebook
        codes = tokens[0].new_full((1, self.info.num_codebooks, latents.shape[-1]), -1)
        for k, stride in enumerate(self.info.strides):
            codes[:, k, ::stride] = tokens[k]
        return codes

    def dequantise(self, codes: Tensor) -> Tensor:
        total = torch.zeros((), device=codes.device)
        for k, quantizer in enumerate(self.model.quantizer.quantizers[: codes.shape[1]]):
            part = quantizer.out_proj(quantizer.decode_code(codes[:, k, :: quantizer.stride]))
            total = total + part.repeat_interleave(quantizer.stride, dim=-1)
        return total

    def synthesise(self, latents: Tensor) -> Tensor:
        return self.model.decoder(latents)

    def decode(self, encoded: Encoded, seed: int) -> Tensor:
        """Sound [B, 1, L'] of codes [B, K' <= K, T], zero beyond each clip's own, with the noise of the seed."""
        parts = []
        for i, frames in enumerate(encoded.frames.tolist()):
            codes = encoded.codes[i : i + 1, :, :frames].to(self.device)
            self._whole(codes)
            self.generator = seeded(seed, codes)
            parts.append(self.decode_clip(codes, {})[0].T)
        padded = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True).transpose(1, 2)
        return padded.to(encoded.codes.device)

    def _whole(self, codes: Tensor) -> None:
        """Raise ValueError where a token is missing in a frame that has one."""
        if any(bool((codes[:, k, :: self.info.strides[k]] < 0).any()) for k in range(codes.shape[1])):
            raise ValueError(f"{self.info.name} has no way to decode a token that is not there (-1)")

    def _with_noise(self, linear: Any, sound: Tensor) -> Tensor:
        """`NoiseBlock.forward` of snac 1.2.1 (snac/layers.py), with our generator. sound float [1, C, T]."""
        noise = torch.randn((sound.shape[0], 1, sound.shape[2]), generator=self.generator).to(sound)
        return sound + noise * linear(sound)


def load(info: Info, repo: str, revision: str | None) -> Any:
    """A SNAC model from the hub cache; its pickled file is read as tensors alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit.script, which the package uses
        from snac import SNAC

    config, weights = cached_files(info, repo, revision, Snac.FILES)
    model = SNAC(**json.loads(config.read_text(encoding="utf-8")))
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return model
