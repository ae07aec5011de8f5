"""Shards on disk: the reconstructions of a few clips in one safetensors file, checked by checksum, never half written.

Metadata is JSON in the file's header; nothing here is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Outcome:
    """What became of one clip. `error` says why there is no wav; bits is None where the codec does not tell.

    sample_rate in Hz; samples and over_range count the samples of the wav and those of them beyond [-1, 1].
    """

    clip: str
    sample_rate: int = 0
    samples: int = 0
    over_range: int = 0
    bits: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Shard:
    """Outcomes and wavs (float32 [C, L], by clip) of one slice of a dataset. `run` is the run that made it."""

    outcomes: tuple[Outcome, ...]
    wavs: dict[str, np.ndarray]
    run: str

    @property
    def complete(self) -> bool:
        return all(outcome.error is None for outcome in self.outcomes)


def write(path: Path, shard: Shard) -> None:
    """Publish a shard: written beside its place, then moved there at once, so that a reader never meets half of it."""
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        str(index): shard.wavs[outcome.clip] for index, outcome in enumerate(shard.outcomes) if not outcome.error
    }
    described = json.dumps({"outcomes": [asdict(outcome) for outcome in shard.outcomes], "run": shard.run})
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        save_file(tensors, partial, metadata={"shard": described, "sha256": _checksum(tensors, described)})
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read(path: Path) -> Shard | None:
    """The shard of a file; None where there is none or it is damaged (truncated, bits flipped), and is redone."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (FileNotFoundError, SafetensorError):
        return None
    if not metadata or metadata.get("sha256") != _checksum(tensors, metadata["shard"]):
        return None
    described = json.loads(metadata["shard"])
    outcomes = tuple(Outcome(**outcome) for outcome in described["outcomes"])
    wavs = {outcome.clip: tensors[str(index)] for index, outcome in enumerate(outcomes) if not outcome.error}
    return Shard(outcomes, wavs, described["run"])


def _checksum(tensors: dict[str, np.ndarray], described: str) -> str:
    content = hashlib.sha256(described.encode())
    for name in sorted(tensors):
        content.update(name.encode() + np.ascontiguousarray(tensors[name]).tobytes())
    return content.hexdigest()
