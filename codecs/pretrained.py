"""Weights from the Hugging Face hub, offline, and what the codecs of `transformers` have in common.

Nothing here downloads; `earmark.hub` says what is on this machine. Importing this imports neither torch nor
transformers.

Shapes as in `earmark.codecs.contract`; a clip is [1, C, L], its latents [1, D, T], its codes [1, K, T].
"""

from __future__ import annotations

import abc
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from earmark.codecs.contract import Encoded, Info
from earmark.hub import fetch_command, is_cached, pretrained

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

# The latents that every residual quantiser has.
KINDS = ("unquantized", "quantized", "codebook:0")


class WeightsMissing(RuntimeError):  # noqa: N818 (a state of the machine, as in `Status.reason`)
    """A codec's weights are not on this machine; the message has the one command that gets them."""

    def __init__(self, name: str, repo: str, revision: str | None, files: tuple[str, ...] = ()) -> None:
        super().__init__(f"codec {name}: weights of {repo} missing; run: {fetch_command(repo, revision, files)}")


def load_model(class_name: str, info: Info, repo: str, revision: str | None) -> Any:
    """A model of `transformers` from the cache: pinned revision, safetensors, float32, no code from the hub.

    Raises WeightsMissing where it is not there, ValueError where the file lacks a tensor (transformers would fill it
    at random and go on).
    """
    if not is_cached(repo, revision):
        raise WeightsMissing(info.name, repo, revision)
    try:
        return pretrained(class_name, repo, revision)
    except ValueError as error:
        raise ValueError(f"codec {info.name}: {error}") from error


class Measures(NamedTuple):
    """What a model's config says of itself, for `Info` to agree with.

    hop            samples a frame.
    codebook_size  of every codebook, or of each where they differ.
    """

    sample_rate: int
    hop: int
    channels: int
    codebooks: int
    codebook_size: int | tuple[int, ...]


class ClipTokenizer(abc.ABC):
    """A codec that gives tokens and their latents and no sound. Subclasses name `model_class` and say the four verbs.

    repo, revision  the checkpoint, read from the cache only.
    model           a model already built, in its place.
    source          what else `load` takes.

    A batch goes through the network clip by clip, each on its true samples: no model here takes a padding mask that
    works (DAC and X-Codec take none, Mimi ignores its own, EnCodec's zeros what it should cut), so padding would reach
    the codes through convolutions, attention and normalisation. Clips of one length are not stacked either: float32
    kernels round differently by batch size, and a nearest-neighbour search turns that into other codes.
    """

    model_class: str

    def __init__(
        self, info: Info, device: str, *, repo: str = "", revision: str | None = None, model: Any = None, **source: Any
    ) -> None:
        if model is None:
            model = self.load(info, repo, revision, **source)
        self.info, self.device = info, device
        self.model = model.to(device).eval().requires_grad_(False)
        self.hop = self.measures().hop
        _agree(info, self.measures())

    @classmethod
    def load(cls, info: Info, repo: str, revision: str | None) -> Any:
        """The network with its weights: one of `transformers`, where a subclass says nothing else."""
        return load_model(cls.model_class, info, repo, revision)

    @abc.abstractmethod
    def measures(self) -> Measures:
        """What the model's config says."""

    @abc.abstractmethod
    def embed(self, clip: Tensor) -> Tensor:
        """The encoder's output [1, D, T] for a clip [1, C, L], before it is quantised."""

    @abc.abstractmethod
    def quantise(self, latents: Tensor) -> Tensor:
        """Codes int64 [1, K, T] of the encoder's output [1, D, T]."""

    @abc.abstractmethod
    def dequantise(self, codes: Tensor) -> Tensor:
        """What the decoder is given [1, D, T] for codes [1, K' <= K, T]."""

    def encode(self, wav: Tensor, lengths: Tensor, seed: int) -> Encoded:
        """Codes int64 [B, K, T] of wav [B, C, L], -1 beyond each clip's frames [B]. The seed does nothing."""
        del seed
        parts = [self.quantise(self.embed(clip)) for clip in self.clips(wav, lengths)]
        return Encoded(_stack(parts, -1, wav), _counts(parts, lengths))

    def latents(self, wav: Tensor, lengths: Tensor, kind: str, seed: int) -> tuple[Tensor, Tensor]:
        """Latents [B, D, T] of wav [B, C, L], zero beyond each clip's frames [B]. The seed does nothing.

        kind  'unquantized': the encoder's output. 'quantized': what the decoder is given for its codes.
              'codebook:0': the same for the first code alone.
        """
        del seed
        if kind not in KINDS:
            raise ValueError(f"{self.info.name} has no latents {kind!r}, only {', '.join(KINDS)}")
        parts = [self._latent(clip, kind) for clip in self.clips(wav, lengths)]
        return _stack(parts, 0.0, wav), _counts(parts, lengths)

    def _latent(self, clip: Tensor, kind: str) -> Tensor:
        latents = self.embed(clip)
        if kind == "unquantized":
            return latents
        codes = self.quantise(latents)
        return self.dequantise(codes if kind == "quantized" else codes[:, :1])

    def clips(self, wav: Tensor, lengths: Tensor) -> Iterator[Tensor]:
        """Each clip [1, C, L_i] of wav [B, C, L], cut to its true samples, on the model's device."""
        for i, length in enumerate(lengths.tolist()):
            yield wav[i : i + 1, :, :length].to(self.device)

    def whole_frames(self, clip: Tensor) -> Tensor:
        """The clip [1, C, L] with zeros on its right up to a whole number of hops."""
        from torch.nn.functional import pad

        return pad(clip, (0, -clip.shape[-1] % self.hop))


class ClipByClip(ClipTokenizer):
    """A codec that decodes too, again clip by clip; most are residual-quantised. Subclasses say a fifth verb."""

    @abc.abstractmethod
    def synthesise(self, latents: Tensor) -> Tensor:
        """The decoder's sound [1, C, L'] for [1, D, T]."""

    def decode(self, encoded: Encoded, seed: int) -> Tensor:
        """Sound [B, C, L'] of codes [B, K' <= K, T], zero beyond each clip's own; the seed is for `noise` alone."""
        parts = []
        for i, frames in enumerate(encoded.frames.tolist()):
            codes = encoded.codes[i : i + 1, :, :frames].to(self.device)
            if bool((codes < 0).any()):
                raise ValueError(f"{self.info.name} has no way to decode a token that is not there (-1)")
            with self.noise(seed, codes):
                parts.append(self.decode_clip(codes, {name: rows[i] for name, rows in encoded.side.items()}))
        return _stack(parts, 0.0, encoded.codes)

    def noise(self, seed: int, codes: Tensor) -> AbstractContextManager[Any]:
        """What a clip is decoded within: nothing here; a stochastic codec makes its noise follow seed and codes."""
        del seed, codes
        return nullcontext()

    def decode_clip(self, codes: Tensor, side: dict[str, Tensor]) -> Tensor:
        """Sound [1, C, L'] of the codes [1, K, T] and the side information of one clip."""
        del side
        return self.synthesise(self.dequantise(codes))


def _agree(info: Info, model: Measures) -> None:
    """Raise ValueError where the catalogue's row and the model's config tell different stories."""
    if info.num_codebooks > model.codebooks:
        raise ValueError(f"{info.name}: has {info.num_codebooks} codebooks, the model {model.codebooks}")
    size = model.codebook_size
    sizes = (size,) * model.codebooks if isinstance(size, int) else size
    said = (info.sample_rate, info.frame_rate, info.channels, info.codebook_sizes)
    true = (model.sample_rate, model.sample_rate / model.hop, model.channels, sizes[: info.num_codebooks])
    if said != true:
        raise ValueError(f"{info.name}: rate, frame rate, channels, codebook size are {said}, the model's are {true}")


def _stack(parts: list[Tensor], fill: float, like: Tensor) -> Tensor:
    """[1, K, T_i] of each clip -> [B, K, max T] on the device of `like`, filled beyond each clip's own."""
    import torch
    from torch.nn.functional import pad

    longest = max(part.shape[-1] for part in parts)
    return torch.cat([pad(part, (0, longest - part.shape[-1]), value=fill) for part in parts]).to(like.device)


def _counts(parts: list[Tensor], lengths: Tensor) -> Tensor:
    """Frames int64 [B] of each clip's [1, K, T_i]."""
    return lengths.new_tensor([part.shape[-1] for part in parts])
