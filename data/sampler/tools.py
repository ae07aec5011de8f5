"""What the makers of the sampler share: programs, random numbers, levels.

Audio here is float64 [L] at SAMPLE_RATE unless a function says otherwise.
"""

from __future__ import annotations

import shutil
import subprocess
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import soxr

SAMPLE_RATE = 24000


@dataclass(frozen=True)
class Made:
    """One clip: its folder and name, the audio [L], and the manifest columns that only its maker knows."""

    dataset: str
    folder: str
    name: str
    wav: np.ndarray
    labels: Mapping[str, str] = field(default_factory=dict)


class ToolMissingError(RuntimeError):
    """A program, package or file that the sampler is made with and that is not here."""


def random_state(seed: int, *names: object) -> np.random.Generator:
    """A generator that depends on the seed and the names alone, not on what was drawn before."""
    return np.random.default_rng([seed, zlib.crc32("/".join(map(str, names)).encode())])


def run(program: str, *arguments: str) -> str:
    """Run a program and return what it printed. Raises ToolMissingError with the way to get it."""
    if shutil.which(program) is None:
        raise ToolMissingError(f"{program} is not installed; the sampler is made with it (apt install {program})")
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{program} failed ({done.returncode}): {done.stderr.strip()[-300:]}")
    return done.stdout


def resample(wav: np.ndarray, from_hz: int) -> np.ndarray:
    """[L] at from_hz to [L'] at SAMPLE_RATE."""
    return wav if from_hz == SAMPLE_RATE else soxr.resample(wav, from_hz, SAMPLE_RATE, quality="VHQ")


def fit(wav: np.ndarray, seconds: float, fade_s: float = 0.05) -> np.ndarray:
    """Cut or pad to a length and fade the end out."""
    length = round(seconds * SAMPLE_RATE)
    wav = np.pad(wav[:length], (0, max(0, length - len(wav))))
    return fade(wav, 0.0, fade_s)


def fade(wav: np.ndarray, in_s: float, out_s: float) -> np.ndarray:
    """Raise the start and lower the end with half a cosine each."""
    wav = wav.copy()
    for edge, seconds in ((wav, in_s), (wav[::-1], out_s)):
        length = min(round(seconds * SAMPLE_RATE), len(wav))
        edge[:length] *= 0.5 - 0.5 * np.cos(np.pi * np.arange(length) / max(length, 1))
    return wav


def to_peak(wav: np.ndarray, peak: float) -> np.ndarray:
    """Scale so that the largest absolute sample is `peak`."""
    loudest = np.abs(wav).max()
    if not loudest > 1e-4:
        raise RuntimeError("a clip came out silent")
    return wav * (peak / loudest)
