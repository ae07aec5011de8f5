"""Manifests: the clips of a folder, one CSV row a file. Nothing is parsed out of file names.

A manifest has at least the columns `path` (relative to its folder), `dataset` and `sha256`; every other column is a
label or a fact of the clip. Known ones are `seconds`, `domain`, `split`, `fold`, `speaker`, `group`, `licence`.
"""

from __future__ import annotations

import csv
import functools
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

SHARD_CLIPS = 8  # the store's unit of work: seconds of encoding, so that eight workers share even a small dataset
REQUIRED = ("path", "dataset", "sha256")


class ManifestError(ValueError):
    """A manifest that cannot be used; the message names file, line and column."""


@dataclass(frozen=True, eq=False)
class Clip:
    """One recording. `group` is what makes clips dependent (speaker, instrument): the unit of intervals and splits."""

    id: str
    path: Path
    sha256: str
    group: str
    domain: str
    seconds: float | None
    fields: Mapping[str, str]
    shard: str = ""


@functools.cache
def read_manifest(path: Path) -> dict[str, tuple[Clip, ...]]:
    """The clips of each dataset in a manifest.csv, in its order.

    Raises ManifestError where the file, a required column or value is missing, or a path is there twice.
    """
    if not path.is_file():
        raise ManifestError(f"data missing: {path}: no such manifest; EARMARK_DATA must name a folder that holds one")
    with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a byte order mark
        rows = csv.DictReader(file)
        absent = [name for name in REQUIRED if name not in (rows.fieldnames or ())]
        if absent:
            raise ManifestError(f"{path}: the column {absent[0]!r} is missing; columns needed: {', '.join(REQUIRED)}")
        datasets: dict[str, dict[str, Clip]] = {}
        for row in rows:
            clip = _clip(path, rows.line_num, row)
            clips = datasets.setdefault(row["dataset"], {})
            if clip.id in clips:
                raise ManifestError(f"{path}:{rows.line_num}: {clip.id} is in {row['dataset']} twice")
            clips[clip.id] = clip
    return {name: tuple(_sliced([*clips.values()])) for name, clips in datasets.items()}


def _sliced(clips: list[Clip]) -> Iterator[Clip]:
    """The clips, each with the name of its slice of the whole dataset: the same whichever of its clips a run takes."""
    for at in range(0, len(clips), SHARD_CLIPS):
        part = clips[at : at + SHARD_CLIPS]
        name = hashlib.sha256(" ".join(clip.sha256 for clip in part).encode()).hexdigest()[:16]
        yield from (replace(clip, shard=name) for clip in part)


def _clip(manifest: Path, line: int, row: dict[str, str]) -> Clip:
    for name in REQUIRED:
        if not row[name]:
            raise ManifestError(f"{manifest}:{line}: the column {name!r} is empty")
    try:
        seconds = float(row["seconds"]) if row.get("seconds") else None
    except ValueError:
        raise ManifestError(f"{manifest}:{line}: seconds is {row['seconds']!r}, expected a number") from None
    return Clip(
        id=row["path"],
        path=manifest.parent / row["path"],
        sha256=row["sha256"].lower(),
        group=row.get("group") or row.get("speaker") or row["path"],
        domain=row.get("domain") or "general",
        seconds=seconds,
        fields={name: value for name, value in row.items() if name and value},
    )
