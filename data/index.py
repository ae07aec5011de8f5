"""Manifests made: from what a layout's reader finds to a Parquet manifest with checksums, lengths and segments."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from earmark.data import layouts
from earmark.data.cards import how_to_get
from earmark.data.errors import DataError
from earmark.data.layouts import LayoutError, Row
from earmark.data.manifest import Part, read_manifest, write_manifest
from earmark.data.schema import Card, Segments
from earmark.data.window import open_part

CHUNK = 256
READERS = 8  # files read at once: checksums wait for the disk


class Header(NamedTuple):
    """What an audio file says of itself."""

    seconds: float
    sample_rate: int
    channels: int


@dataclass(frozen=True)
class Indexed:
    """What was written: the manifest, its rows, and the files that are no audio, with why."""

    manifest: Path
    rows: int
    unreadable: dict[str, str]


def index(card: Card, root: Path, manifest: Path, notify: Callable[[int], None] | None = None) -> Indexed:
    """Build a card's manifest from its files below a folder; `notify` is told how many rows are done.

    Audio that is only in tables (Arrow, Parquet) is written beside the manifest, as it is. Raises DataError where the
    folder has none of the card's layouts, with what each looked for.
    """
    unreadable: dict[str, str] = {}
    rows: list[dict[str, str]] = []
    base, done = root.resolve(), 0
    with ThreadPoolExecutor(READERS) as pool:
        for chunk in _chunks(_found(card, root)):
            if chunk[0].content is not None:
                base = manifest.parent
            for columns, why in pool.map(functools.partial(_described, card, base), chunk):
                if why:
                    unreadable[columns["path"]] = why
                rows += _segments(columns, card.segments)
            done += len(chunk)
            if notify:
                notify(done)
    write_manifest(manifest, rows, None if base == manifest.parent else base)
    read_manifest.cache_clear()
    return Indexed(manifest, len(rows), unreadable)


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """So many rows at a time: those of tables hold their audio, and a dataset of it does not fit into memory."""
    rows = iter(rows)
    while chunk := list(itertools.islice(rows, CHUNK)):
        yield chunk


def _found(card: Card, root: Path) -> Iterable[Row]:
    """The rows of the first of the card's layouts that the folder has."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; --root is the folder that {card.name} was unpacked to")
    if not card.layouts:
        raise DataError(f"{how_to_get(card)} (a card that is indexed has `layouts:`)")
    looked = []
    for layout in card.layouts:
        rows = iter(layouts.read(layout, root))
        try:
            return _rest(next(rows), rows)
        except StopIteration:
            looked.append(f"  {layout.reader}: no clip")
        except LayoutError as error:
            looked.append(f"  {layout.reader}: {error}")
    raise DataError("\n".join([f"{root}: not laid as {card.name} is published. Looked for:", *looked]))


def _rest(first: Row, rows: Iterator[Row]) -> Iterator[Row]:
    yield first
    try:
        yield from rows
    except LayoutError as error:
        raise DataError(str(error)) from error


def _described(card: Card, base: Path, row: Row) -> tuple[dict[str, str], str | None]:
    """A row's columns with its checksum and what its header says; and why it cannot be read, where it cannot."""
    columns = {"path": row.path, "dataset": card.name, "domain": card.domain, **row.columns}
    if row.member:
        columns |= {"member": row.member, "offset": str(row.offset), "size": str(row.size)}
    if row.content is not None:
        columns["path"] = f"audio/{row.path}"
        _keep(row.content, base / columns["path"])
    path, part = base / columns["path"], Part(offset=row.offset, size=row.size, member=row.member)
    try:
        columns["sha256"], header = look(path, part)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        with open_part(path, part.offset, part.size) as file:
            columns["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        return columns, str(error)
    lengths = {"seconds": f"{header.seconds:.6g}", "sample_rate": header.sample_rate, "channels": header.channels}
    return columns | {name: str(value) for name, value in lengths.items()}, None


def _keep(content: bytes, path: Path) -> None:
    """Audio that has no file of its own gets one."""
    if path.is_file() and path.stat().st_size == len(content):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    part.replace(path)


def look(path: Path, part: Part | None = None) -> tuple[str, Header]:
    """Checksum and header of a file, or of a member of an archive. Raises ValueError where it is no audio."""
    part = part or Part()
    with open_part(path, part.offset, part.size) as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), header(file, part.name(path))


def header(file: BinaryIO, name: Path) -> Header:
    """Length, rate and channels of an audio file; little of it is read. Raises ValueError where it is none."""
    import av
    import soundfile

    if not file.seek(0, os.SEEK_END):
        raise ValueError(f"{name}: an empty file")  # FFmpeg seeks before its beginning
    file.seek(0)
    try:
        info = soundfile.info(file)
        return Header(info.frames / info.samplerate, info.samplerate, info.channels)
    except soundfile.LibsndfileError:
        file.seek(0)
    try:
        with av.open(file) as container:
            stream: Any = container.streams.audio[0]
            whole: Any = getattr(container, "duration", 0) or 0
            length = stream.duration * stream.time_base if stream.duration else whole / 1e6
            return Header(float(length), stream.rate, stream.channels)
    except (av.FFmpegError, IndexError, OSError) as error:
        raise ValueError(f"{name}: not readable as audio ({error})") from error


def _segments(columns: dict[str, str], rule: Segments | None) -> Iterator[dict[str, str]]:
    """The rows of a recording: itself, or its segments of whole length; one shorter than a segment stays whole."""
    total = float(columns.get("seconds") or 0)
    if rule is None or not total:
        yield columns
        return
    end = min(total, rule.first_s or total)
    step = min(rule.segment_s or end, end)
    if step >= total:
        yield columns
        return
    for at in range(int(end / step + 1e-9)):
        start, stop = at * step, (at + 1) * step
        part = {"start_s": f"{start:g}", "end_s": f"{stop:g}", "seconds": f"{step:g}"}
        yield columns | part | _events(columns.get("events"), start, stop)


def _events(events: str | None, start: float, stop: float) -> dict[str, str]:
    """Those events that are heard in a segment, by its own clock."""
    if not events:
        return {}
    heard: Iterable[dict[str, Any]] = json.loads(events)
    cut = [
        event | {"onset_s": max(event["onset_s"] - start, 0.0), "offset_s": min(event["offset_s"], stop) - start}
        for event in heard
        if event["onset_s"] < stop and event["offset_s"] > start
    ]
    return {"events": json.dumps(cut)}
