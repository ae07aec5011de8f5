"""Codecs without codes: an encoder to continuous latents, and a decoder back. They have no bitrate.

    PocketTts  Kyutai's Mimi without its quantisers, 32 numbers a frame at 12.5 Hz. Rouard et al., "Continuous Audio
               Language Models", 2025; `transformers.PocketTTSAudioTokenizerModel`.
    VibeVoice  causal ConvNeXt blocks, 64 numbers a frame at 7.5 Hz. Peng et al., "VibeVoice Technical Report", 2025;
               `transformers.VibeVoiceAcousticTokenizerModel`.

Shapes as in `earmark.codecs.contract`; a clip is [1, C, L], its latents [1, D, T].
"""

from __future__ import annotations

import abc
import hashlib
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from earmark.codecs.contract import Info
from earmark.codecs.pretrained import load_model


class Continuous(abc.ABC):
    """A continuous codec of `transformers`: subclasses name `model_class` and say `hop_of`, `embed` and `synthesise`.

    repo, revision  the checkpoint, read from the cache only.
    model           a model already built, in its place.

    Frames are ceil(L / hop): a clip is padded with zeros to whole frames; a whole hop of samples comes back for each.
    A batch goes through the network clip by clip, each on its true samples. Both models here are causal, so padding and
    stacking change no more than rounding (1e-5 of full scale, on random models); clip by clip they change nothing.
    """

    model_class: str
    sample_rate = 24000

    def __init__(
        self, info: Info, device: str, *, repo: str = "", revision: str | None = None, model: Any = None
    ) -> None:
        if model is None:
            model = load_model(self.model_class, info, repo, revision)
        self.info, self.device = info, device
        self.model = model.to(device).eval().requires_grad_(False)
        self.hop = self.hop_of(self.model.config)
        said, true = (info.sample_rate, info.frame_rate), (self.sample_rate, self.sample_rate / self.hop)
        if said != true:
            raise ValueError(f"{info.name}: rate and frame rate are {said}, the model's are {true}")

    @staticmethod
    @abc.abstractmethod
    def hop_of(config: Any) -> int:
        """Samples a frame."""

    @abc.abstractmethod
    def embed(self, clip: Tensor, seed: int) -> Tensor:
        """The latents [1, D, T] of a clip [1, C, L]."""

    @abc.abstractmethod
    def synthesise(self, latents: Tensor, clip: Tensor) -> Tensor:
        """The sound [1, C, L'] of latents [1, D, T] that came from a clip [1, C, L]."""

    def latents(self, wav: Tensor, lengths: Tensor, kind: str, seed: int) -> tuple[Tensor, Tensor]:
        """Latents [B, D, T] of wav [B, C, L], zero beyond each clip's frames [B]; the one kind is 'unquantized'."""
        if kind != "unquantized":
            raise ValueError(f"{self.info.name} has no latents {kind!r}, only unquantized")
        parts = [self.embed(clip, seed) for clip in self._clips(wav, lengths)]
        return _stack(parts).to(wav.device), lengths.new_tensor([part.shape[-1] for part in parts])

    def reconstruct(self, wav: Tensor, lengths: Tensor, seed: int) -> tuple[Tensor, None]:
        """The decoded sound [B, C, L'] of wav [B, C, L], zero beyond each clip's own; no bits are counted."""
        parts = [self.synthesise(self.embed(clip, seed), clip) for clip in self._clips(wav, lengths)]
        return _stack(parts).to(wav.device), None

    def whole_frames(self, clip: Tensor) -> Tensor:
        """The clip [1, C, L] with zeros on its right up to a whole number of hops."""
        return pad(clip, (0, -clip.shape[-1] % self.hop))

    def _clips(self, wav: Tensor, lengths: Tensor) -> list[Tensor]:
        """Each clip [1, C, L_i], cut to its true samples, on the model's device."""
        return [wav[i : i + 1, :, :length].to(self.device) for i, length in enumerate(lengths.tolist())]


class PocketTts(Continuous):
    """Deterministic. D = 32, the latents that Pocket TTS's language model reads and writes, not normalised."""

    model_class = "PocketTTSAudioTokenizerModel"

    @staticmethod
    def hop_of(config: Any) -> int:
        return config.frame_size

    def embed(self, clip: Tensor, seed: int) -> Tensor:
        del seed
        return self.model.encode(self.whole_frames(clip)).latents.transpose(1, 2)

    def synthesise(self, latents: Tensor, clip: Tensor) -> Tensor:
        del clip
        return self.model.decode(latents.transpose(1, 2)).audio_values


class VibeVoice(Continuous):
    """A clip is brought to -25 dB RMS, as the checkpoint's feature extractor does, and its level given back at the end.

    sample  True, the library's default: Gaussian noise is added to the latents, as in training, at a scale that is
            itself drawn for each clip from N(0, 0.625). It comes from a generator of our own, seeded with the seed and
            what is in the clip: one clip's noise is the same in any batch, on any device, and nothing global moves.
            False: the encoder's output.

    D = 64; the latents are those of the clip at -25 dB, after the noise where there is any. Like the library, only what
    would exceed full scale is brought to less than -25 dB, and digital silence stays as it is.
    """

    model_class = "VibeVoiceAcousticTokenizerModel"
    LEVEL = 10 ** (-25 / 20)
    EPSILON = 1e-6

    def __init__(self, info: Info, device: str, *, sample: bool = True, **options: Any) -> None:
        super().__init__(info, device, **options)
        self.sample = sample

    @staticmethod
    def hop_of(config: Any) -> int:
        return config.hop_length

    def gain(self, clip: Tensor) -> Tensor:
        """What brings a clip to -25 dB RMS, or to full scale where that would exceed it."""
        gain = self.LEVEL / (clip.square().mean().sqrt() + self.EPSILON)
        peak = clip.abs().max() * gain
        return gain / (peak + self.EPSILON) if peak > 1 else gain

    def embed(self, clip: Tensor, seed: int) -> Tensor:
        level = self.whole_frames(clip * self.gain(clip))
        latents = self.model.encode(level, sample=False).latents
        if self.sample:
            latents = latents + self._noise(latents, clip, seed)
        return latents.transpose(1, 2)

    def _noise(self, latents: Tensor, clip: Tensor, seed: int) -> Tensor:
        """Noise [1, T, D] as `VibeVoiceAcousticTokenizerModel.encode` adds: first its scale is drawn, then itself."""
        generator = seeded(seed, clip)
        scale = self.model.config.vae_std * torch.randn(1, generator=generator)
        return (scale * torch.empty_like(latents, device="cpu").normal_(generator=generator)).to(latents)

    def synthesise(self, latents: Tensor, clip: Tensor) -> Tensor:
        return self.model.decode(latents.transpose(1, 2)).audio / self.gain(clip)


def seeded(seed: int, content: Tensor) -> torch.Generator:
    """A CPU generator that depends on the seed and on what is in a tensor, so that no two clips share their noise."""
    digest = hashlib.sha256(str(seed).encode() + content.cpu().numpy().tobytes()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _stack(parts: list[Tensor]) -> Tensor:
    """[1, D, T_i] of each clip -> [B, D, max T], zero beyond each clip's own."""
    return pad_sequence([part[0].T for part in parts], batch_first=True).transpose(1, 2)
