"""What is done to a clip before a codec is given it, or to its tokens before they are decoded: steps, in order.

A transform is a tuple of steps. Plain data: it is part of the address of what is made, and can be sent elsewhere.

    Round      the codec's own reconstruction; (Round(),) * 10 is the tenth
    Shift      later by some ms
    Noise      white noise, babble or music added at an SNR
    Level      louder or softer
    Resampled  to another sample rate and back
    Excerpt    a middle part, and what is around it
    Lost       tokens lost on the way, and concealed

Sounds are float32 [C, L] at a rate in Hz. All but Round are functions of the sound, the rate and the clip alone: what
is drawn is drawn by a generator seeded with the clip, so that it is the same in every run, at every SNR, whatever the
codec.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from earmark.data import audio
from earmark.data.cards import SAMPLER
from earmark.data.manifest import Clip, read_manifest

NoiseKind = Literal["white", "babble", "music"]

WHITE_HZ = 16_000  # sample rate that white noise is drawn at
TALKERS = 6  # of a babble: one more is not heard apart
_NOISE_OF = {"babble": "sampler_speech", "music": "sampler_music"}


@dataclass(frozen=True)
class Round:
    """What the codec gives back of the sound so far. The store makes it."""


@dataclass(frozen=True)
class Shift:
    """Later by `ms`: rolled right, the head zeroed, the end lost; as long as it was.

    Source: AudioCodecBench, ID sensitivity (2 ms). To the nearest sample.
    """

    ms: float

    def __call__(self, wav: np.ndarray, rate: int, clip: Clip) -> np.ndarray:
        del clip
        late = min(round(self.ms * rate / 1000), wav.shape[1])
        return np.pad(wav, ((0, 0), (late, 0)))[:, : wav.shape[1]]


@dataclass(frozen=True)
class Noise:
    """Noise added at `snr_db`, of powers over the whole clip; what goes beyond [-1, 1] is clipped, as a recorder does.

    White noise is flat up to 8 kHz, so that codecs of all rates from 16 kHz up are given the same: flat up to half of
    a codec's own rate, it would be 5 dB softer in the band of speech at 48 kHz than at 16 kHz. Babble is six talkers of
    the embedded sampler, music one of its tunes; never what is of the clip's own group. A clip's noise is the same at
    every SNR. A silent clip stays silent.
    """

    kind: NoiseKind
    snr_db: float

    def __call__(self, wav: np.ndarray, rate: int, clip: Clip) -> np.ndarray:
        noise = _noise(self.kind, wav.shape[1], rate, clip)
        power = float(np.mean(np.square(wav, dtype=np.float64)))
        gain = np.sqrt(power / float(np.mean(np.square(noise))) / 10 ** (self.snr_db / 10))
        return np.clip(wav + gain * noise, -1, 1).astype(np.float32)


@dataclass(frozen=True)
class Level:
    """Louder by `db` (softer where negative); what goes beyond [-1, 1] is clipped."""

    db: float

    def __call__(self, wav: np.ndarray, rate: int, clip: Clip) -> np.ndarray:
        del rate, clip
        return np.clip(wav * 10 ** (self.db / 20), -1, 1).astype(np.float32)


@dataclass(frozen=True)
class Resampled:
    """To `hz` and back; as long as it was."""

    hz: int

    def __call__(self, wav: np.ndarray, rate: int, clip: Clip) -> np.ndarray:
        del clip
        return _as_long(audio.resample(audio.resample(wav, rate, self.hz), self.hz, rate), wav.shape[1])


@dataclass(frozen=True)
class Excerpt:
    """The middle `seconds` of a clip with `context_s` on either side, as far as the clip goes; in whole hops.

    hop  samples of a frame at the rate of the codec, so that an excerpt starts where a frame of the whole clip does.
    """

    seconds: float
    context_s: float
    hop: int

    def place(self, samples: int, rate: int) -> tuple[int, int, int]:
        """In hops, of a clip of so many samples: where the excerpt begins, where its middle part does, its length."""
        whole, middle = samples // self.hop, round(self.seconds * rate / self.hop)
        if whole < middle:
            raise audio.AudioError(f"shorter than the {self.seconds:g} s that are compared in contexts")
        start = (whole - middle) // 2
        return max(0, start - round(self.context_s * rate / self.hop)), start, middle

    def __call__(self, wav: np.ndarray, rate: int, clip: Clip) -> np.ndarray:
        del clip
        first, start, middle = self.place(wav.shape[1], rate)
        after = round(self.context_s * rate / self.hop)
        return wav[:, first * self.hop : (start + middle + after) * self.hop]


@dataclass(frozen=True)
class Lost:
    """A share of the tokens lost: whole frames, or tokens anywhere (`tokens`); concealed before they are decoded.

    `repeat` puts the last token that arrived of the same codebook in place of a lost one, `zero` code 0. The first
    frame always arrives. What is lost at one share is lost at every larger one.
    """

    share: float
    of: Literal["frames", "tokens"]
    conceal: Literal["repeat", "zero"]

    def __call__(self, codes: np.ndarray, clip: Clip) -> np.ndarray:
        """codes int [K, T], -1 where there is no token, which cannot be lost."""
        lost = self.mask(codes.shape, clip) & (codes >= 0)
        if self.conceal == "zero":
            return np.where(lost, 0, codes)
        arrived = ~lost & (codes >= 0)
        arrived[:, 0] = True
        last = np.maximum.accumulate(np.where(arrived, np.arange(codes.shape[1]), 0), axis=1)
        return np.where(lost, np.take_along_axis(codes, last, axis=1), codes)

    def mask(self, shape: tuple[int, ...], clip: Clip) -> np.ndarray:
        """bool [K, T]: which tokens are lost. Their number is the share, rounded, of those after the first frame."""
        books, frames = shape
        rows = 1 if self.of == "frames" else books
        order = _generator(clip, self.of).permutation(rows * max(frames - 1, 0))
        lost = np.zeros((rows, frames), bool)
        lost[:, 1:] = (order < round(self.share * len(order))).reshape(rows, -1)
        return np.broadcast_to(lost, shape)


OnSound = Shift | Noise | Level | Resampled | Excerpt
Step = Round | OnSound | Lost
Transform = tuple[Step, ...]


def _generator(clip: Clip, name: str) -> np.random.Generator:
    return np.random.default_rng([int(clip.sha256[:15], 16), *name.encode()])


def _noise(kind: NoiseKind, samples: int, rate: int, clip: Clip) -> np.ndarray:
    """float64 [1, L], the same for all channels; its level is what it happens to be."""
    generator = _generator(clip, kind)
    if kind == "white":
        drawn = generator.standard_normal((1, math.ceil(samples * WHITE_HZ / rate)))
        return _as_long(audio.resample(drawn, WHITE_HZ, rate), samples)
    others = [other for other in _sampler(kind) if other.group != clip.group]
    chosen = generator.choice(len(others), TALKERS if kind == "babble" else 1, replace=False)
    parts = [_repeated(others[index], samples, rate, generator) for index in chosen]
    return np.sum(parts, axis=0)


def _as_long(wav: np.ndarray, samples: int) -> np.ndarray:
    """[C, L] cut, or filled with zeros, to so many samples."""
    return np.pad(wav[:, :samples], ((0, 0), (0, max(0, samples - wav.shape[1]))))


def _repeated(clip: Clip, samples: int, rate: int, generator: np.random.Generator) -> np.ndarray:
    """A clip over and over from anywhere in it, float64 [1, samples]; the whole clip has power 1."""
    wav = _sampler_sound(clip, rate).astype(np.float64)
    wav = wav / np.sqrt(np.mean(np.square(wav)))
    return np.take(wav, generator.integers(wav.shape[1]) + np.arange(samples), axis=1, mode="wrap")


@functools.lru_cache(maxsize=32)
def _sampler_sound(clip: Clip, rate: int) -> np.ndarray:
    wav, clip_rate = audio.read(clip.path, clip.sha256)
    return audio.resample(audio.to_channels(wav, 1), clip_rate, rate)


def _sampler(kind: str) -> tuple[Clip, ...]:
    return read_manifest(SAMPLER / "manifest.csv")[_NOISE_OF[kind]]
