"""Stable-Codec: transformers on patches of speech, and residual scalar quantisation chosen after training.

Parker et al., "Scaling Transformers for Low-Bitrate High-Quality Speech Coding", ICLR 2025. The calls are those of
github.com/Stability-AI/stable-codec, commit 8535544: stable_codec/model.py, lines 71 (`encode`) and 112 (`decode`), and
stable_codec/residual_fsq.py, line 20. The network is the package `stable-audio-tools`, 0.0.17, which stable-codec 0.1.2
pins; stable-codec itself pins torch 2.4 and is not used.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import warnings
from typing import Any

import torch
from torch import Tensor

from earmark.codecs.contract import Info
from earmark.codecs.packaged import cached_files, stand_in, without_init
from earmark.codecs.pretrained import ClipByClip, Measures

PACKAGE = "stable_audio_tools"
# What its models import for other models than this, and what asks for a dozen packages more.
UNUSED = (f"{PACKAGE}.inference.sampling", f"{PACKAGE}.models.diffusion")
LOUDNESS = -20.0  # LUFS; stable_audio_tools/data/utils.py, `VolumeNorm`
QUIET = 1e-6  # mean square under which upstream leaves the level alone
SHORTEST_S = 0.4  # of what loudness is defined for
BLOCK = 512  # queries at a time, so that memory does not grow with the square of a clip


class StableCodec(ClipByClip):
    """Frames are ceil(L / 640); 640 samples a frame come back. Latents have D = 6, before tanh and after the stages.

    A clip is brought to -20 LUFS, as upstream does by default, and comes back so: its level is in no token. Upstream
    fails on clips under .4 s, which have no loudness; these keep their level here.

    levels  of each of the six scalars, in every stage.
    scales  of the stages, each of which is one token; fewer codebooks are the first stages.

    Upstream's attention keeps to its window with flash-attn alone, on a GPU; elsewhere it hears everything, and warns
    of it. Here the window is kept on every device (`windowed`), and inputs are of half precision as there.

    Tried once on thin random weights, beside upstream's own modules of both packages: tokens, latents, level and sound
    are equal to the last bit.
    """

    FILES = ("model_config.json", "model.ckpt")

    def __init__(self, info: Info, device: str, *, levels: int, scales: list[float], **options: Any) -> None:
        self.levels, self.scales = levels, scales
        super().__init__(info, device, **options)

    @classmethod
    def load(cls, info: Info, repo: str, revision: str | None) -> Any:
        """The network from the hub cache; its checkpoint is read as tensors alone."""
        config, weights = cached_files(info, repo, revision, cls.FILES)
        model = build(json.loads(config.read_text(encoding="utf-8")))
        model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True)["state_dict"])
        return model

    def measures(self) -> Measures:
        model = self.model
        size = self.levels**model.latent_dim
        return Measures(model.sample_rate, model.downsampling_ratio, model.in_channels, len(self.scales), size)

    def embed(self, clip: Tensor) -> Tensor:
        return self.model.encode(self.levelled(self.whole_frames(clip)), skip_bottleneck=True)

    def levelled(self, clip: Tensor) -> Tensor:
        """The clip [1, 1, L] at -20 LUFS, or at .95 of full scale where that would exceed it."""
        from torchaudio.functional import loudness

        short = clip.shape[-1] < SHORTEST_S * self.model.sample_rate
        if short or float(clip.square().mean()) < QUIET:
            return clip
        found = float(loudness(clip[0].cpu(), self.model.sample_rate))  # alike on every device
        made = clip * 10 ** ((LOUDNESS - found) / 20)
        peak = float(made.abs().max())
        return made / peak * 0.95 if peak > 1 else made

    def quantise(self, latents: Tensor) -> Tensor:
        rest = latents.double().tanh().transpose(1, 2)
        place = self.levels ** torch.arange(latents.shape[1], device=latents.device)
        codes = []
        for scale in self.scales[: self.info.num_codebooks]:
            step = self._step(scale, latents)
            steps = ((rest + scale) / step).round()
            rest = rest - (steps * step - scale)
            codes.append((steps.long() * place).sum(dim=-1))
        return torch.stack(codes, dim=1)

    def dequantise(self, codes: Tensor) -> Tensor:
        place = self.levels ** torch.arange(self.model.latent_dim, device=codes.device)
        total = torch.zeros((), device=codes.device)
        for row, scale in zip(codes[0], self.scales, strict=False):
            total = total + ((row[:, None] // place) % self.levels * self._step(scale, total) - scale)
        return total.T[None]

    def synthesise(self, latents: Tensor) -> Tensor:
        return self.model.decode(latents)

    def _step(self, scale: float, like: Tensor) -> Tensor:
        """From one level to the next, in float32 as upstream has it."""
        return torch.tensor(2 * scale, device=like.device) / (self.levels - 1)


def build(config: dict[str, Any]) -> Any:
    """The package's network, with weights yet to come and exact attention in its windows."""
    without_init(PACKAGE)
    for module in UNUSED:
        stand_in(module)
    with contextlib.redirect_stdout(io.StringIO()):
        importlib.import_module(f"{PACKAGE}.models.transformer").__dict__["flash_attn_func"] = windowed
        factory = importlib.import_module(f"{PACKAGE}.models.factory")
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch warns of its older weight_norm
        model = factory.create_model_from_config(config)  # prints that flash-attn is not there
    for module in model.modules():
        if hasattr(module, "use_fa_flash"):
            module.use_fa_flash = True
    return model


def windowed(q: Tensor, k: Tensor, v: Tensor, causal: bool = False, window_size: tuple[int, int] = (-1, -1)) -> Tensor:
    """Attention [B, N, H, D] as flash-attn's `flash_attn_func` does it, in float32, on any device.

    window_size  how many positions each hears before and after its own; -1: all.
    """
    before, after = (size if size >= 0 else q.shape[1] for size in window_size)
    after = 0 if causal else after
    parts = []
    for start in range(0, q.shape[1], BLOCK):
        stop = min(start + BLOCK, q.shape[1])
        first, last = max(0, start - before), min(k.shape[1], stop + after)
        away = torch.arange(first, last)[None] - torch.arange(start, stop)[:, None]
        heard = ((away >= -before) & (away <= after)).to(q.device)
        blocks = q[:, start:stop], k[:, first:last], v[:, first:last]
        own, keys, values = (block.transpose(1, 2).float() for block in blocks)
        parts.append(torch.nn.functional.scaled_dot_product_attention(own, keys, values, attn_mask=heard))
    return torch.cat(parts, dim=2).transpose(1, 2).to(q.dtype)
