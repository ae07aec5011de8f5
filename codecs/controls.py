"""Codecs with a known answer, on which every suite is tried: what they score is known before they are run.

    Identity       gives back what it gets.
    Uniform        n-bit uniform quantiser: 6.02 n + 1.76 dB on a full-scale sine.
    LowPass        the 3.5 kHz anchor of MUSHRA listening tests.
    ConstantCodes  tokens that say nothing: always code 0.
    RandomCodes    tokens that say nothing, each equally often.

Shapes as in `earmark.codecs.contract`. All but RandomCodes are the same whatever the seed.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

from earmark.codecs.contract import Encoded, Info


class Identity:
    """The codec that changes nothing. Its bits are None: nothing was coded."""

    def __init__(self, info: Info, device: str) -> None:
        del device
        self.info = info

    def reconstruct(self, wav: Tensor, lengths: Tensor, seed: int) -> tuple[Tensor, None]:
        """wav [B, C, L] as it came."""
        del lengths, seed
        return wav.clone(), None


class Uniform:
    """A uniform mid-tread quantiser of `bits` bits a sample: silence stays silence.

    Its 2^n levels are the multiples of 2^(1-n) in [-1, 1 - 2^(1-n)]; what lies beyond goes to the nearest. A sine of
    amplitude 1 - 2^-n, the largest that is not overloaded, keeps an SNR of 6.02 n + 1.76 dB (within 0.2 dB for 8 bits).
    """

    def __init__(self, info: Info, device: str, *, bits: int) -> None:
        del device
        self.info, self.bits = info, bits

    def reconstruct(self, wav: Tensor, lengths: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """The rounded wav [B, C, L], and n bits for each true sample of each channel [B]."""
        del seed
        top = 2 ** (self.bits - 1)
        rounded = (wav * top).round().clamp(-top, top - 1) / top
        return rounded, lengths.to("cpu", torch.float64) * wav.shape[1] * self.bits


class LowPass:
    """A low-pass filter without delay: flat within 0.1 dB to `pass_hz`, at least 60 dB down from `stop_hz` on.

    ITU-R BS.1534-3 asks of the 3.5 kHz anchor: within 0.1 dB to 3.5 kHz, 25 dB down at 4 kHz, 50 dB down at 4.5 kHz.
    The filter is a symmetric FIR (Kaiser window). Bits are None: nothing was coded.
    """

    def __init__(self, info: Info, device: str, *, pass_hz: float, stop_hz: float) -> None:
        from scipy.signal import firwin, kaiserord

        del device
        self.info = info
        count, beta = kaiserord(60, (stop_hz - pass_hz) * 2 / _needed(info.sample_rate))
        taps = firwin(count | 1, (pass_hz + stop_hz) / 2, window=("kaiser", beta), fs=info.sample_rate)
        self.taps = taps[None, None]

    def reconstruct(self, wav: Tensor, lengths: Tensor, seed: int) -> tuple[Tensor, None]:
        """The filtered wav [B, C, L], zero beyond each clip's length."""
        from scipy.signal import oaconvolve

        del seed
        inside = _within(wav, lengths).cpu().double().numpy()
        filtered = torch.from_numpy(oaconvolve(inside, self.taps, axes=-1)).to(wav.device, torch.float32)
        early = self.taps.shape[-1] // 2
        return _within(filtered[..., early : early + wav.shape[-1]], lengths), None


class ConstantCodes:
    """Tokens of the right shape that are all 0; `RandomCodes` draws them instead.

    A code stands for a frame of noise, the same at every run, and the K frames of a time step are summed. Their level
    is `level_db`, in dB of full scale (RMS). Constant codes so sound as a buzz at the frame rate.
    """

    def __init__(self, info: Info, device: str, *, level_db: float) -> None:
        self.info = info
        self.hop = round(_needed(info.sample_rate) / _needed(info.frame_rate))
        noise = torch.randn(*self._shape(), self.hop, generator=torch.Generator().manual_seed(0))
        self.codebooks = (noise * 10 ** (level_db / 20) / math.sqrt(info.num_codebooks)).to(device)

    def encode(self, wav: Tensor, lengths: Tensor, seed: int) -> Encoded:
        """Codes [B, K, T] of wav [B, 1, L]: one a started frame, -1 beyond the clip."""
        frames = (lengths + self.hop - 1) // self.hop
        codes = wav.new_full((len(wav), self.info.num_codebooks, -(-wav.shape[-1] // self.hop)), -1, dtype=torch.int64)
        for i, (length, count) in enumerate(zip(lengths.tolist(), frames.tolist(), strict=True)):
            codes[i, :, :count] = self.draw(wav[i, :, :length], count, seed).to(codes.device)
        return Encoded(codes, frames)

    def decode(self, encoded: Encoded, seed: int) -> Tensor:
        """Sound [B, 1, T * hop] of codes [B, K, T]; silence where there is no code."""
        del seed
        codes = encoded.codes
        books = zip(self.codebooks.to(codes.device), codes.unbind(1), strict=True)
        return sum(book[code.clamp(min=0)] * (code >= 0)[..., None] for book, code in books).flatten(1)[:, None]

    def draw(self, clip: Tensor, frames: int, seed: int) -> Tensor:
        """The codes of one clip, int64 [K, frames]."""
        del clip, seed
        return torch.zeros(self.info.num_codebooks, frames, dtype=torch.int64)

    def _shape(self) -> tuple[int, int]:
        return self.info.num_codebooks, max(self.info.codebook_sizes)


class RandomCodes(ConstantCodes):
    """Tokens drawn uniformly, by a generator seeded with the seed and what is in the clip.

    The same clip so gets the same codes whatever it is batched with and however far it is padded.
    """

    def draw(self, clip: Tensor, frames: int, seed: int) -> Tensor:
        """The codes of one clip, int64 [K, frames], uniform in [0, V_k)."""
        digest = hashlib.sha256(str(seed).encode() + clip.cpu().numpy().tobytes()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        rows = [torch.randint(size, (frames,), generator=generator) for size in self.info.codebook_sizes]
        return torch.stack(rows)


def _needed(rate: float | None) -> float:
    """A rate that this codec cannot do without, in Hz."""
    if rate is None:
        raise ValueError("this control needs a sample_rate, and a frame_rate where it has tokens; one is None")
    return rate


def _within(wav: Tensor, lengths: Tensor) -> Tensor:
    """wav [B, C, L], zero beyond each clip's length."""
    inside = torch.arange(wav.shape[-1], device=wav.device) < lengths.to(wav.device)[:, None]
    return wav * inside[:, None]
