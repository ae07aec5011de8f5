"""The codec contract: what a codec is (`Info`) and what it does (five small Protocols).

Conventions, the same everywhere in Earmark:

wav      float32 [B, C, L] in [-1, 1], zero-padded on the right; `lengths` int64 [B] are the true samples.
codes    int64 [B, K, T], entry k in [0, V_k); -1 means "no token here".
latents  float32 [B, D, T].

An adapter is a class built as `Adapter(info, device, **options)`; it implements the Protocols that it can. Nothing in
this module imports torch, so that reading the catalogue costs milliseconds.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

Capability = Literal["encode", "decode", "reconstruct", "embed", "stream"]
FeatureType = Literal["acoustic", "semantic", "fused", "decoupled"]
Domain = Literal["speech", "music", "sound", "general"]

# The method by which an adapter shows each capability.
METHODS: dict[str, Capability] = {
    "encode": "encode",
    "decode": "decode",
    "reconstruct": "reconstruct",
    "latents": "embed",
    "stream": "stream",
}


class Info(BaseModel):
    """What a codec is. No weights are loaded and no torch is imported to know this.

    sample_rate    Hz; None: any rate, the codec is given each clip at its own.
    frame_rate     frames/s (float: 12.5 exists); None where there are no frames.
    codebook_sizes (V_1 .. V_K), also written "8x1024"; empty where there are no codes.
    strides        frames per token of each codebook; ones where not given.
    latent_kinds   'unquantized', 'quantized', 'codebook:0', 'layer:7', ...
    capabilities   what the adapter can do; filled from its methods for a class of your own.
    nested         True where lowering K keeps the first codes (residual quantisers).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    sample_rate: int | None = Field(gt=0)
    channels: int = Field(1, gt=0)
    frame_rate: float | None = Field(None, gt=0)
    codebook_sizes: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    latent_kinds: tuple[str, ...] = ()
    capabilities: tuple[Capability, ...] = ()
    stochastic: bool = False
    nested: bool = False
    feature_type: FeatureType | None = None
    domains: tuple[Domain, ...] = ()
    trained_on: tuple[str, ...] = ()
    licence: str | None = None
    revision: str | None = None

    @field_validator("codebook_sizes", mode="before")
    @classmethod
    def _read_k_by_v(cls, value: Any) -> Any:
        """Accept "8x1024" for eight codebooks of 1024 entries."""
        if not isinstance(value, str):
            return value
        match = re.fullmatch(r"(\d+)x(\d+)", value)
        if not match:
            raise ValueError(f"expected K x V such as '8x1024' or a list of sizes, not {value!r}")
        return (int(match[2]),) * int(match[1])

    @model_validator(mode="after")
    def _agree(self) -> Info:
        if self.strides and len(self.strides) != len(self.codebook_sizes):
            raise ValueError(f"{len(self.strides)} strides for {len(self.codebook_sizes)} codebooks")
        if self.codebook_sizes and self.frame_rate is None:
            raise ValueError("codebook_sizes need a frame_rate")
        return self

    @property
    def num_codebooks(self) -> int:
        """K, the number of codebooks in use; 0 where there are no codes."""
        return len(self.codebook_sizes)

    @property
    def token_rate(self) -> float | None:
        """Tokens a second, of all codebooks. None where there are none."""
        if not self.codebook_sizes or self.frame_rate is None:
            return None
        return self.frame_rate * sum(1 / stride for stride in self.strides or (1,) * self.num_codebooks)

    @property
    def bitrate_kbps(self) -> float | None:
        """Nominal bitrate of the codes: frame_rate * sum(log2(V_k) / stride_k) / 1000. None where there are none."""
        if not self.codebook_sizes or self.frame_rate is None:
            return None
        strides = self.strides or (1,) * self.num_codebooks
        bits = sum(math.log2(size) / stride for size, stride in zip(self.codebook_sizes, strides, strict=True))
        return self.frame_rate * bits / 1000


@dataclass
class Encoded:
    """What an encoder hands to a decoder.

    codes     int64 [B, K, T], -1 where there is no token.
    frames    int64 [B], true frames of each clip.
    side      what else the decoder needs (EnCodec's scales), tensors whose first dimension is B.
    side_bits float [B], the cost of `side` in bits; None where it is empty.
    """

    codes: Tensor
    frames: Tensor
    side: dict[str, Tensor] = field(default_factory=dict)
    side_bits: Tensor | None = None


@runtime_checkable
class Encodes(Protocol):
    def encode(self, wav: Tensor, lengths: Tensor, seed: int) -> Encoded:
        """Tokens of wav [B, C, L]; what lies beyond `lengths` must not change them."""
        ...


@runtime_checkable
class Decodes(Protocol):
    def decode(self, encoded: Encoded, seed: int) -> Tensor:
        """The sound of the tokens, [B, C, L']; L' covers the longest clip."""
        ...


@runtime_checkable
class Reconstructs(Protocol):
    def reconstruct(self, wav: Tensor, lengths: Tensor, seed: int) -> tuple[Tensor, Tensor | None]:
        """The decoded wav [B, C, L'] and the bits [B] really spent on each clip (None where not known)."""
        ...


@runtime_checkable
class Embeds(Protocol):
    def latents(self, wav: Tensor, lengths: Tensor, kind: str, seed: int) -> tuple[Tensor, Tensor]:
        """Latents [B, D, T] of one of `Info.latent_kinds`, and the true frames [B]."""
        ...


@runtime_checkable
class Streams(Protocol):
    def stream(self, chunks: Iterator[Tensor], seed: int) -> Iterator[tuple[Tensor | None, Tensor | None]]:
        """Codes [1, K, t] and sound [1, C, n] of one clip that comes in chunks, each as soon as it is known.

        chunks  wav [1, C, chunk_samples] each, of which the last may be shorter. `chunk_samples` is an attribute of the
                adapter; where it has none, a chunk is one frame, or the frames that fill 10 ms where they are shorter.

        Yields one pair for each chunk, before it takes the next: None where there is nothing yet, as the codec looks
        ahead, or nothing at all, as it has no codes. After the last chunk it may yield what it still held back. Every
        call is a stream of its own: what is carried from chunk to chunk is best kept in the generator. In the end all
        codes are those of `encode` and the sound is that of `reconstruct`, sample for sample: no delay in front.
        """
        ...


def capabilities_of(adapter: type) -> tuple[Capability, ...]:
    """What an adapter class can do, read from its methods.

    A codec that encodes and decodes also reconstructs, by doing both, unless the class has its own way.
    """
    found = {capability for method, capability in METHODS.items() if callable(getattr(adapter, method, None))}
    if {"encode", "decode"} <= found:
        found.add("reconstruct")
    return tuple(capability for capability in METHODS.values() if capability in found)
