"""`tiny` as a codec of the catalogue: weights beside this file, nothing to download.

Delay is undone by the network's own padding: sample n of a reconstruction stands for sample n of the clip. Clips are
filled with zeros to whole frames, so that T = ceil(L / 320) and the reconstruction has 320 T >= L samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from earmark.codecs.contract import Info
from earmark.codecs.pretrained import ClipByClip, Measures
from earmark.codecs.tiny.model import BOOKS, DELAY, ENTRIES, HOP, SAMPLE_RATE, Network
from earmark.codecs.tiny.stream import Decoding, Encoding

WEIGHTS = Path(__file__).parent / "tiny.safetensors"


class Tiny(ClipByClip):
    """The first `codebooks` stages of the residual quantiser; fewer are a prefix of the same codes.

    Latents have D = 32. Each clip is coded alone, on its true samples: see `ClipByClip`.
    """

    lookahead_ms = 1000 * DELAY / SAMPLE_RATE  # 55; the contract holds the codec to it

    def __init__(self, info: Info, device: str, *, codebooks: int, weights: Path = WEIGHTS) -> None:
        if codebooks != info.num_codebooks:
            raise ValueError(f"{info.name}: declares {info.num_codebooks} codebooks and is built with {codebooks}")
        network = Network()
        network.load_state_dict(load_file(weights))
        super().__init__(info, device, model=network)
        self.codebooks = codebooks

    def measures(self) -> Measures:
        return Measures(SAMPLE_RATE, HOP, 1, BOOKS, ENTRIES)

    def embed(self, clip: Tensor) -> Tensor:
        return self.model.encoder(self.whole_frames(clip)[:, 0]).transpose(1, 2)

    def quantise(self, latents: Tensor) -> Tensor:
        return self.model.quantiser.encode(latents.transpose(1, 2), self.codebooks).transpose(1, 2)

    def dequantise(self, codes: Tensor) -> Tensor:
        return self.model.quantiser.decode(codes.transpose(1, 2)).transpose(1, 2)

    def synthesise(self, latents: Tensor) -> Tensor:
        return self.model.decoder(latents.transpose(1, 2))[:, None]

    def stream(self, chunks: Iterator[Tensor], seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Codes come a chunk of 320 samples after their frame, sound up to three after it began."""
        del seed
        encoding, decoding = Encoding(self.model.encoder), Decoding(self.model.decoder)
        for chunk in chunks:
            codes = self.quantise(encoding(self.whole_frames(chunk.to(self.device))[:, 0]))
            yield codes, decoding(self.dequantise(codes))
        codes = self.quantise(encoding.end())
        yield codes, torch.cat([decoding(self.dequantise(codes)), decoding.end()], 2)
