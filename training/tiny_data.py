"""The sound that `tiny` is trained on: read once, kept as int16 at 16 kHz, cut into one-second crops.

`tiny_data.csv` lists every file (root, path, group, sha256): `data` is the folder of the variable EARMARK_DATA,
`sampler` the embedded one. Group `held` are speakers kept out of training to watch it by. `python -m
earmark.training.tiny_data` makes the list anew from the two manifests.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soxr
import torch
from torch import Tensor

from earmark.data import audio

LIST = Path(__file__).parent / "tiny_data.csv"
SAMPLER = Path(audio.__file__).parent / "sampler"
SAMPLE_RATE = 16000  # Hz
SPEEDS = (1.0, 0.9, 1.11)  # each file is also there slower and faster, with another pitch: more voices
SHARES = {"speech": 0.85, "sound": 0.08, "music": 0.05, "notes": 0.02}  # of the crops
HELD_EVERY = 25  # every 25th LibriSpeech speaker is held out


def rows() -> list[dict[str, str]]:
    """The list's rows."""
    with LIST.open(newline="") as file:
        return list(csv.DictReader(file))


def read(row: dict[str, str]) -> np.ndarray:
    """One file of the list, float32 [L] at 16 kHz, mono. Raises AudioError where its checksum is another."""
    root = SAMPLER if row["root"] == "sampler" else Path(os.environ["EARMARK_DATA"])
    wav, rate = audio.read(root / row["path"], row["sha256"])
    return np.asarray(soxr.resample(wav.mean(0), rate, SAMPLE_RATE, "VHQ"), np.float32)


def held(count: int = 10, seconds: int = 8) -> list[np.ndarray]:
    """The beginnings of the held-out clips, float32 [L]."""
    chosen = [row for row in rows() if row["group"] == "held"][:count]
    return [read(row)[: seconds * SAMPLE_RATE] for row in chosen]


class Crops:
    """Random crops. What a step gets depends on the seed and the step alone, so that a resumed run goes on the same.

    clips  int16 [L_i] of each group, speeds beside each other; the longer, the more often it is drawn.
    ends   where each would end if they stood in a row, samples.
    """

    def __init__(self, seed: int, length: int, limit: int | None = None) -> None:
        self.seed, self.length = seed, length
        self.clips: dict[str, list[np.ndarray]] = {group: [] for group in SHARES}
        for row in [row for row in rows() if row["group"] != "held"][:limit]:
            self.clips[row["group"]] += _speeds(read(row), length)
        self.clips = {group: clips for group, clips in self.clips.items() if clips}
        self.ends = {group: np.cumsum([len(clip) for clip in clips]) for group, clips in self.clips.items()}

    def batch(self, step: int, size: int) -> Tensor:
        """float32 [size, length], each crop at a random gain (+-6 dB) and polarity."""
        draw = np.random.default_rng([self.seed, step])
        shares = np.array([SHARES[group] for group in self.clips])
        groups = draw.choice(list(self.clips), size, p=shares / shares.sum())
        return torch.from_numpy(np.stack([self._crop(str(group), draw) for group in groups]))

    def _crop(self, group: str, draw: np.random.Generator) -> np.ndarray:
        clip = self.clips[group][np.searchsorted(self.ends[group], draw.random() * self.ends[group][-1], "right")]
        start = draw.integers(len(clip) - self.length + 1)
        gain = 10 ** (draw.uniform(-6, 6) / 20) * draw.choice([-1, 1])
        crop = clip[start : start + self.length].astype(np.float32) * np.float32(gain / 32768)
        return np.asarray(crop / max(1.0, np.abs(crop).max()), np.float32)


def _speeds(wav: np.ndarray, length: int) -> list[np.ndarray]:
    """The clip at each speed, int16, at least `length` long."""
    versions = [wav if speed == 1 else soxr.resample(wav, SAMPLE_RATE, SAMPLE_RATE / speed, "HQ") for speed in SPEEDS]
    whole = [np.pad(one, (0, max(0, length - len(one)))) for one in versions]
    return [(np.clip(one, -1, 1) * 32767).astype(np.int16) for one in whole]


def _group(row: dict[str, str], place: int) -> str | None:
    """The group of a manifest's row, None where it is not for training: see the licence table of the data."""
    if row["dataset"] == "librispeech_train_clean_100":
        return "held" if place % HELD_EVERY == 0 else "speech"
    if row["dataset"] == "esc10":
        return "sound" if row["fold"] in {"1", "2", "3", "4"} else None
    if row["dataset"] == "music":
        return "music" if re.match(r"CC-BY-3|Public domain", row["licence"]) else None
    groups = {"speech": "speech", "sounds": "sound", "music": "music", "notes": "notes"}
    return groups.get(row["dataset"].removeprefix("sampler_"))


def make() -> None:
    """Write the list."""
    with LIST.open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["root", "path", "group", "sha256"])
        for root, folder in (("data", Path(os.environ["EARMARK_DATA"])), ("sampler", SAMPLER)):
            out.writerows([root, row["path"], group, row["sha256"]] for row, group in _chosen(folder))


def _chosen(folder: Path) -> Iterator[tuple[dict[str, str], str]]:
    """The rows of a folder's manifest that may train, and their groups."""
    seen: dict[str, int] = {}
    with (folder / "manifest.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            place = seen[row["dataset"]] = seen.get(row["dataset"], -1) + 1
            if group := _group(row, place):
                yield row, group


if __name__ == "__main__":
    make()
