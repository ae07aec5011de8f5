"""Vocos as a decoder for EnCodec's codes: ConvNeXt blocks that give spectra, in place of EnCodec's own decoder.

Siuzdak, "Vocos: Closing the gap between time-domain and Fourier-based neural vocoders for high-quality audio
synthesis", ICLR 2024; the package `vocos` 0.1.0 (github.com/gemelo-ai/vocos, commit c859e3b): `vocos/pretrained.py`,
lines 63 (weights), 100 (to sound) and 117 (codes to features). The encoder is `transformers.EncodecModel`.
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from earmark import yamls
from earmark.codecs.contract import Info
from earmark.codecs.encodec import Encodec
from earmark.codecs.packaged import cached_files

if TYPE_CHECKING:
    from earmark.codecs.registry import Checkpoint

CODEBOOKS = (2, 4, 8, 16)  # of the bandwidths that it was trained at: 1.5, 3, 6 and 12 kbps


class Vocos(Encodec):
    """Codes are those of EnCodec at 24 kHz, frames ceil(L / 320); 320 samples a frame come back.

    Its layer norms are told the bandwidth: that of the codebooks which are there, the next larger where there is none.

    base     EnCodec's checkpoint.
    model    an EnCodec already built, in its place.
    vocoder  what `build` gives, already built, in place of Vocos's own checkpoint.

    Latents have D = 128: 'quantized' is the sum of Vocos's copy of the codebooks, which is what it decodes.
    """

    FILES = ("config.yaml", "pytorch_model.bin")

    def __init__(
        self,
        info: Info,
        device: str,
        *,
        repo: str = "",
        revision: str | None = None,
        base: Checkpoint | None = None,
        model: Any = None,
        vocoder: Any = None,
    ) -> None:
        if info.num_codebooks not in CODEBOOKS:
            raise ValueError(f"{info.name}: has {info.num_codebooks} codebooks, Vocos was trained for 2, 4, 8 and 16")
        vocoder = load(info, repo, revision) if vocoder is None else vocoder
        self.vocoder = vocoder.to(device).eval().requires_grad_(False)
        encodec: dict[str, Any] = {"repo": base.repo, "revision": base.revision} if base else {}
        super().__init__(info, device, model=model, **encodec)

    def dequantise(self, codes: Tensor) -> Tensor:
        size = self.model.config.codebook_size
        rows = codes + size * torch.arange(codes.shape[1], device=codes.device)[:, None]
        return torch.nn.functional.embedding(rows, self.vocoder["codebooks"].weight).sum(dim=1).transpose(1, 2)

    def synthesise(self, latents: Tensor) -> Tensor:
        return self._sound(latents, self.info.num_codebooks)

    def decode_clip(self, codes: Tensor, side: dict[str, Tensor]) -> Tensor:
        del side
        return self._sound(self.dequantise(codes), codes.shape[1])

    def _sound(self, latents: Tensor, codebooks: int) -> Tensor:
        """The sound [1, 1, L'] of latents [1, 128, T] that so many codebooks were summed for."""
        bandwidth = torch.tensor([bisect.bisect_left(CODEBOOKS, codebooks)], device=latents.device)
        return self.vocoder["head"](self.vocoder["backbone"](latents, bandwidth_id=bandwidth))[:, None]


def load(info: Info, repo: str, revision: str | None) -> torch.nn.ModuleDict:
    """A Vocos from the hub cache; its pickled file is read as tensors alone."""
    config, weights = cached_files(info, repo, revision, Vocos.FILES)
    tensors = torch.load(weights, map_location="cpu", weights_only=True)
    codebooks = tensors.pop("feature_extractor.codebook_weights")
    vocoder = build(yamls.read(config.read_text(encoding="utf-8")), codebooks)
    vocoder.load_state_dict(
        {name: tensor for name, tensor in tensors.items() if name.startswith(("backbone.", "head."))}
        | {"codebooks.weight": codebooks}
    )
    return vocoder


def build(config: dict[str, Any], codebooks: Tensor) -> torch.nn.ModuleDict:
    """Vocos's backbone and head, with weights yet to come, and its codebooks [16 V, D].

    The package's own `Vocos` is not built: that would download Meta's EnCodec.
    """
    from vocos.heads import ISTFTHead
    from vocos.models import VocosBackbone

    return torch.nn.ModuleDict(
        {
            "backbone": VocosBackbone(**config["backbone"]["init_args"]),
            "head": ISTFTHead(**config["head"]["init_args"]),
            "codebooks": torch.nn.Embedding.from_pretrained(codebooks),
        }
    )
