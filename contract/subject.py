"""The codec under test, and the sounds that it is given.

Shapes: a clip is float32 [C, L]; what a codec makes of it is a dict of arrays: 'codes' int64 [K, T], 'sound' float32
[C, L], 'bits' float64 [], 'latents <kind>' float32 [D, T], those that it can do.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from earmark.codecs import calls
from earmark.codecs.contract import Info
from earmark.codecs.registry import Entry

if TYPE_CHECKING:
    from torch import Tensor

Made = dict[str, np.ndarray]

DEFAULT_HZ = 24000  # for a codec that takes any rate
SEED = 0
SOUND_TOLERANCE = 1e-4  # float32 sums in another order
LATENT_TOLERANCE = 1e-4  # of the largest value


@dataclass
class Subject:
    """A codec on a device. `given` says what it was given last, `measured` what a check found beside its answer.

    adapter  gives the adapter; called for each use, so that whoever keeps it decides how long.
    """

    entry: Entry
    device: str
    adapter: Callable[[], Any]
    given: str = "nothing yet"
    measured: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def info(self) -> Info:
        return self.entry.info

    @property
    def rate(self) -> int:
        """Hz."""
        return self.info.sample_rate or DEFAULT_HZ

    @property
    def hop(self) -> int:
        """Samples of a frame; 20 ms where the codec has no frames."""
        return max(1, round(self.rate / (self.info.frame_rate or 50)))

    def can(self, capability: str) -> bool:
        return capability in self.info.capabilities

    @property
    def kinds(self) -> tuple[str, ...]:
        """The first and the last kind of latents: each of a dozen layers would cost a dozen runs."""
        kinds = self.info.latent_kinds if self.can("embed") else ()
        return kinds if len(kinds) < 2 else (kinds[0], kinds[-1])

    def speech(self, samples: int, pitch_hz: float = 140.0) -> np.ndarray:
        """A speech-like clip [C, samples], at most .5 in size."""
        return self.channels(np.resize(_babble(self.rate, pitch_hz), samples))

    def channels(self, wav: np.ndarray) -> np.ndarray:
        """[L] -> [C, L], the same in every channel."""
        return np.repeat(wav[None].astype(np.float32), self.info.channels, axis=0)

    def of(self, clip: np.ndarray, what: str = "speech-like sound") -> Made:
        """What the codec makes of one clip [C, L]."""
        return self.of_batch([clip], what)[0]

    def of_batch(self, clips: Sequence[np.ndarray], what: str = "speech-like sound") -> list[Made]:
        """What the codec makes of clips [C, L_i] in one zero-padded batch."""
        longest = max(clip.shape[1] for clip in clips)
        padded = np.stack([np.pad(clip, ((0, 0), (0, longest - clip.shape[1]))) for clip in clips])
        return self.of_padded(padded, [clip.shape[1] for clip in clips], what)

    def of_padded(self, wav: np.ndarray, lengths: Sequence[int], what: str) -> list[Made]:
        """What the codec makes of wav [B, C, L] with so many true samples each."""
        import torch

        self.say(what, lengths)
        tensor = torch.from_numpy(np.ascontiguousarray(wav)).to(self.device)
        return make(self.adapter(), self.info, tensor, torch.tensor(lengths, device=self.device), self.kinds)

    def say(self, what: str, lengths: Sequence[int], batched: str = "in") -> None:
        """Note what the codec is given, for the message of a failure; `batched`: `what` is in a batch, or of it."""
        samples = ", ".join(f"{length}" for length in lengths)
        frames = f", {lengths[0] / self.hop:.4g} frames of {self.hop}" if len(lengths) == 1 else ""
        batch = f" {batched} a batch of {len(lengths)}" if len(lengths) > 1 else ""
        self.given = f"{what}{batch}: {samples} samples at {self.rate} Hz{frames}, on {self.device}"


@functools.cache
def _babble(rate: int, pitch_hz: float) -> np.ndarray:
    """Two seconds: harmonics of a gliding pitch, noise and pauses, at most .5 in size."""
    time = np.arange(2 * rate) / rate
    phase = 2 * np.pi * pitch_hz * (time + 0.05 * np.sin(2 * np.pi * 1.5 * time))
    voice = sum(np.sin(k * phase) / k for k in range(1, 12))
    noise = np.random.default_rng(round(pitch_hz)).standard_normal(len(time))
    wave = (voice + 0.2 * noise) * (np.sin(2 * np.pi * 1.1 * time) > -0.6)
    return (0.5 * wave / np.abs(wave).max()).astype(np.float32)


def make(adapter: Any, info: Info, wav: Tensor, lengths: Tensor, kinds: Sequence[str]) -> list[Made]:
    """All that a codec can make of wav [B, C, L], each clip's own part of it; a clip is encoded once for it."""
    made: list[Made] = [{} for _ in range(len(wav))]
    encoded = calls.encode(adapter, info, wav, lengths, SEED) if "encode" in info.capabilities else None
    if encoded is not None:
        for row, codes, frames in zip(made, encoded.codes, encoded.frames.tolist(), strict=True):
            row["codes"] = array(codes[:, :frames])
    if "reconstruct" in info.capabilities:
        if encoded is None or hasattr(adapter, "reconstruct"):
            sound, bits = calls.reconstruct(adapter, info, wav, lengths, SEED)
        else:
            sound, bits = calls.decode(adapter, info, encoded, wav, SEED), calls.nominal_bits(info, encoded)
        for i, (row, length) in enumerate(zip(made, lengths.tolist(), strict=True)):
            row["sound"] = array(sound[i, :, :length])
            if bits is not None:
                row["bits"] = np.array(float(bits[i]))
    for kind in kinds:
        latents, counts = calls.latents(adapter, info, wav, lengths, kind, SEED)
        for row, values, count in zip(made, latents, counts.tolist(), strict=True):
            row[f"latents {kind}"] = array(values[:, :count])
    return made


def array(tensor: Tensor) -> np.ndarray:
    """A tensor of any device as an array, whether it carries gradients or not."""
    return tensor.detach().cpu().numpy()


def difference(expected: Made, came: Made, *, exact: bool = False) -> str:
    """How two results differ, in words; empty where they do not. Codes must be equal, the rest within tolerance."""
    for what, wanted in expected.items():
        if found := _differs(what, wanted, came[what], exact):
            return found
    return ""


def _differs(what: str, wanted: np.ndarray, came: np.ndarray, exact: bool) -> str:
    if wanted.shape != came.shape:
        return f"{what} of shape {list(came.shape)} for {list(wanted.shape)}"
    if not wanted.size or np.array_equal(wanted, came):
        return ""
    if what == "codes":
        book, frame = np.argwhere((wanted != came).T)[0][::-1]
        return f"{(wanted != came).sum()} of {wanted.size} codes differ, the first in frame {frame}, codebook {book}"
    largest = float(np.abs(came - wanted).max())
    return f"{what} differ by up to {largest:.2e}" if exact or largest > tolerance(what, wanted) else ""


def tolerance(what: str, wanted: np.ndarray) -> float:
    """How much of a result may differ where sums are taken in another order."""
    return LATENT_TOLERANCE * max(1.0, float(np.abs(wanted).max())) if what.startswith("latents") else SOUND_TOLERANCE
