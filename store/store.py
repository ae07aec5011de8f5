"""The store itself: `reconstructions(codec, dataset)` reads what is there and makes what is missing, once.

Workers cooperate without a coordinator: each takes the missing shards that no other holds the lock of. Locks only save
work; what makes a result true is that a shard is published whole, under the address of all that it depends on.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from earmark.codecs import calls, registry
from earmark.codecs.registry import Entry
from earmark.data import audio
from earmark.data.cards import Dataset
from earmark.data.manifest import Clip
from earmark.store import fingerprint, shards
from earmark.store.shards import Outcome, Shard

SHARD_CLIPS = 8  # a unit of work: seconds of encoding, so that eight workers share even a small dataset
MISSING_S = 0.05  # a codec may return this much less than it was given; what it lacks beyond that is a failed clip
_WAIT_S = 0.05


@dataclass(frozen=True)
class Reconstruction:
    """One clip after the codec. wav: float32 [C, L] at sample_rate (Hz), None where `outcome.error` says why."""

    clip: Clip
    outcome: Outcome
    wav: np.ndarray | None


class Store:
    """Results under a root folder, made on one device. `run` names the run; failures are tried again by the next."""

    def __init__(self, root: Path, device: str, run: str) -> None:
        self.root, self.device, self.run = root, device, run
        self._resident: tuple[str, Any] | None = None
        self._fingerprints: dict[str, str] = {}

    def adapter(self, entry: Entry) -> Any:
        """The codec, loaded; one at a time stays in memory."""
        if self._resident is None or self._resident[0] != entry.name:
            self._resident = None  # free the old one first
            if self.device.startswith("cuda"):
                _full_precision()
            self._resident = (entry.name, registry.load(entry, self.device))
        return self._resident[1]

    def fingerprint(self, entry: Entry) -> str:
        """What the codec's results depend on. A codec that cannot be looked into has results for this run only."""
        if entry.name not in self._fingerprints:
            found = fingerprint.of_adapter(entry, self.adapter(entry)) if entry.own else fingerprint.of_row(entry)
            self._fingerprints[entry.name] = found or f"run-{self.run}"
        return self._fingerprints[entry.name]

    def reconstructions(self, entry: Entry, dataset: Dataset, seed: int = 0) -> Iterator[Reconstruction]:
        """Every clip of the dataset after the codec, in the dataset's order; what is missing is made first."""
        slices = [dataset.clips[at : at + SHARD_CLIPS] for at in range(0, len(dataset.clips), SHARD_CLIPS)]
        paths = [self._path(entry, clips, seed) for clips in slices]
        self._fill(entry, dict(zip(paths, slices, strict=True)), seed)
        for path, clips in zip(paths, slices, strict=True):
            shard = self._read(path) or self._make(entry, path, clips, seed)
            outcomes = {outcome.clip: outcome for outcome in shard.outcomes}
            for clip in clips:
                yield Reconstruction(clip, outcomes[clip.sha256], shard.wavs.get(clip.sha256))

    def _path(self, entry: Entry, clips: Sequence[Clip], seed: int) -> Path:
        """A shard's address: the codec, the transform, the seed, the kind of device and the audio of its clips."""
        kind = self.device.partition(":")[0]
        name = fingerprint.digest("identity", seed, kind, [clip.sha256 for clip in clips])
        return self.root / entry.name / self.fingerprint(entry) / f"{name}.safetensors"

    def _read(self, path: Path) -> Shard | None:
        """A shard that can be used: whole, and with failures only from this very run."""
        shard = shards.read(path)
        return shard if shard and (shard.complete or shard.run == self.run) else None

    def _fill(self, entry: Entry, missing: dict[Path, Sequence[Clip]], seed: int) -> None:
        """Make the missing shards together with the other workers: take what is free, never wait holding a lock."""
        missing = {path: clips for path, clips in missing.items() if self._read(path) is None}
        while missing:
            first = os.getpid() % len(missing)  # workers start at different shards
            for path in [*missing][first:] + [*missing][:first]:
                with _lock(path) as held:
                    if held and self._read(path) is None:
                        self._make(entry, path, missing[path], seed)
            missing = {path: clips for path, clips in missing.items() if self._read(path) is None}
            if missing:
                time.sleep(_WAIT_S)

    def _make(self, entry: Entry, path: Path, clips: Sequence[Clip], seed: int) -> Shard:
        made = [reconstruct(self.adapter(entry), entry, clip, self.device, seed) for clip in clips]
        shard = Shard(
            tuple(outcome for outcome, _ in made),
            {outcome.clip: wav for outcome, wav in made if wav is not None},
            self.run,
        )
        shards.write(path, shard)
        return shard


def _full_precision() -> None:
    """Float32 on CUDA as on the CPU: TF32 convolutions flip codes, and a token is right or wrong."""
    import torch

    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Try for a shard's lock: whether it was had."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def prepare(clip: Clip, sample_rate: int | None, channels: int) -> tuple[np.ndarray, int]:
    """A clip as a codec is given it: float32 [C, L] with its channels and rate (None: the clip's own), and the rate."""
    wav, clip_rate = audio.read(clip.path, clip.sha256)
    rate = sample_rate or clip_rate
    return audio.resample(audio.to_channels(wav, channels), clip_rate, rate), rate


def reconstruct(adapter: Any, entry: Entry, clip: Clip, device: str, seed: int) -> tuple[Outcome, np.ndarray | None]:
    """One clip through the codec. A clip that cannot be read, or that it fails on, is an outcome with a reason."""
    import torch

    try:
        wav, rate = prepare(clip, entry.info.sample_rate, entry.info.channels)
        batch, lengths = torch.from_numpy(wav)[None].to(device), torch.tensor([wav.shape[1]], device=device)
        decoded, bits = calls.reconstruct(adapter, entry.info, batch, lengths, seed)
        estimate = _trim(entry, decoded[0].cpu().numpy(), wav.shape[1], rate)
    except (audio.AudioError, calls.CodecError) as error:
        return Outcome(clip.sha256, error=str(error)), None
    over_range = int((np.abs(estimate) > 1).sum())
    spent = None if bits is None else float(bits[0])
    return Outcome(clip.sha256, rate, estimate.shape[1], over_range, spent), estimate


def _trim(entry: Entry, estimate: np.ndarray, length: int, rate: int) -> np.ndarray:
    """The estimate without what the codec added at the end. What it took away beyond MISSING_S is its failure."""
    if estimate.shape[1] < length - MISSING_S * rate:
        raise calls.CodecError(
            f"codec failed: {entry.name}: returned {estimate.shape[1]} samples for {length}; "
            f"expected at least as many as it was given"
        )
    return np.ascontiguousarray(estimate[:, :length])
