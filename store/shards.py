"""Shards on disk: what was made of a few clips, in one safetensors file, checked by checksum, never half written.

Metadata is JSON in the file's header; nothing here is ever unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from earmark.paths import publishing

FINAL = "final"  # a fact of a failure that the next run need not try again: a metric has no answer for such sound


class StoreError(RuntimeError):
    """The store cannot do its work (disk full, read-only); the message says where and what to do."""


@dataclass(frozen=True)
class Outcome:
    """What became of one clip: numbers, arrays by name, or the error that says why there are none.

    clip is the sha256 of its file. Facts are JSON values; infinities are allowed.
    """

    clip: str
    facts: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class Shard:
    """The outcomes of one slice of a dataset. `run` is the run that made it."""

    outcomes: tuple[Outcome, ...]
    run: str


def write(path: Path, shard: Shard) -> None:
    """Publish a shard: written beside its place, then moved there at once, so that a reader never meets half of it.

    Raises StoreError, and leaves nothing behind, where the disk is full or the store read-only.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    tensors = {
        f"{index}/{name}": np.ascontiguousarray(array)
        for index, outcome in enumerate(shard.outcomes)
        for name, array in outcome.arrays.items()
    }
    rows = [[outcome.clip, outcome.facts, outcome.error] for outcome in shard.outcomes]
    described = json.dumps({"outcomes": rows, "run": shard.run})
    try:
        with publishing(path) as partial:
            save_file(tensors, partial, metadata={"shard": described, "sha256": _checksum(tensors, described)})
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"infrastructure fault: the store cannot write {path}: {error}; free some space (`earmark store prune`) "
            f"or set EARMARK_HOME to a folder that can be written to"
        ) from error


def read(path: Path) -> Shard | None:
    """The shard of a file; None where there is none or it is damaged (truncated, bits flipped), and is redone.

    Its modification time becomes now: the last use, by which `store.keep` prunes.
    """
    shard = _read(path, whole=True)
    if shard is not None:
        with contextlib.suppress(OSError):  # a read-only store is read all the same
            os.utime(path)
    return shard


def peek(path: Path) -> Shard | None:
    """The shard of a file without its arrays, and without their checksum: to know whether it is there."""
    return _read(path, whole=False)


def _read(path: Path, whole: bool) -> Shard | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()} if whole else {}  # noqa: SIM118
        described = json.loads(metadata["shard"])
    except (OSError, SafetensorError, ValueError, KeyError):
        return None
    if whole and metadata.get("sha256") != _checksum(tensors, metadata["shard"]):
        return None
    arrays: list[dict[str, np.ndarray]] = [{} for _ in described["outcomes"]]
    for key, array in tensors.items():
        index, _, name = key.partition("/")
        arrays[int(index)][name] = array
    rows = zip(described["outcomes"], arrays, strict=True)
    return Shard(tuple(Outcome(clip, facts, found, error) for (clip, facts, error), found in rows), described["run"])


def _checksum(tensors: dict[str, np.ndarray], described: str) -> str:
    content = hashlib.sha256(described.encode())
    for name in sorted(tensors):
        array = tensors[name]
        content.update(f"{name}{array.dtype}{array.shape}".encode() + array.tobytes())
    return content.hexdigest()
