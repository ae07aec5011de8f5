"""Data of the user's own, outside the repository: a manifest, a card, or a folder of audio with nothing else.

--data my.csv        CSV, JSON lines or Parquet; only the column `path` is needed. One dataset for each name in its
                     column `dataset`, else one by the file's name
--data my_card.yaml  a card; the paths in it are relative to its folder
--data folder/       every audio file below it, or what its manifest.csv says
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from earmark.data import audio
from earmark.data.errors import DataError
from earmark.data.index import look
from earmark.data.manifest import (
    REQUIRED,
    SUFFIXES,
    ManifestError,
    id_of,
    needs,
    part_of,
    raw_rows,
    read_manifest,
    write_manifest,
)
from earmark.data.schema import NAME, Card, Domain, Source
from earmark.names import mistaken
from earmark.paths import home

CARDS = (".yaml", ".yml")

# columns that a run reads wherever they are; tasks name more
READ = (
    *("path", "dataset", "sha256", "seconds", "domain", "split", "fold", "speaker", "group", "licence", "label"),
    *("transcript", "sentence", "language", "start_s", "end_s", "member", "offset", "size"),
)


def is_own(name: str) -> bool:
    """Whether `--data` names a file or a folder rather than a dataset."""
    return "/" in name or "\\" in name or Path(name).suffix.lower() in (*SUFFIXES, *CARDS)


def cards_of(path: Path) -> list[Card]:
    """The cards that a file or folder of the user's own is. Raises DataError, saying what it may be."""
    path = path.expanduser().resolve()
    if path.is_dir():
        manifest = path / "manifest.csv"
        return _of_manifest(manifest) if manifest.is_file() else _of_folder(path)
    if not path.is_file():
        raise DataError(f"--data {path}: no such file or folder")
    if path.suffix.lower() in CARDS:
        return [_of_card(path)]
    if path.suffix.lower() in SUFFIXES:
        return _of_manifest(path)
    raise DataError(f"--data {path}: expected a folder of audio, a card ({', '.join(CARDS)}) or {', '.join(SUFFIXES)}")


def remarks(card: Card) -> Iterator[str]:
    """What in a manifest of the user's own looks misspelt: a column like one that is read and is not there, a domain
    that is none. Other columns are the user's affair."""
    from earmark.data.cards import load

    if card.source.manifest is None:
        return
    clips = load(card).clips
    there = set[str]().union(*(clip.fields for clip in clips))
    asked = {*READ, *(task.target for task in card.tasks)}
    rules = [rule for rule in (card.held_out, *(task.held_out for task in card.tasks)) if rule]
    asked |= {rule.column or rule.by for rule in rules}
    for name in sorted(there - asked):
        if meant := mistaken(name, asked - there):
            yield f"{card.name}: nothing reads its column {name!r}; is {meant!r} meant?"
    known = get_args(Domain)
    for domain in sorted({clip.domain for clip in clips}):
        if domain.partition("_")[0] not in known:
            yield f"{card.name}: its domain {domain!r} is none of {', '.join(known)}"


def _of_card(path: Path) -> Card:
    from earmark.data.cards import lacking, read_card

    card = read_card(path)
    if card.source.manifest:
        manifest = (path.parent / card.source.manifest).resolve()
        whole = _completed(manifest, manifest.stem)
        card = card.model_copy(update={"source": card.source.model_copy(update={"manifest": str(whole)})})
    if why := lacking(card):
        raise DataError(f"data missing: {why}")
    return card


def _of_manifest(path: Path) -> list[Card]:
    from earmark.data.cards import plain_card

    whole = _completed(path, path.parent.name if path.stem == "manifest" else path.stem)
    source = {name: Source(manifest=str(whole), dataset=name) for name in read_manifest(whole)}
    found = read_manifest(whole)
    return [plain_card(_name(name), f"{name} of {path.name}", source[name], found[name]) for name in found]


def _of_folder(folder: Path) -> list[Card]:
    from earmark.data.cards import plain_card

    name = _name(folder.name)
    rows = [{"path": path.relative_to(folder).as_posix()} for path in _audio_below(folder)]
    if not rows:
        raise DataError(f"--data {folder}: no audio below it ({' '.join(sorted(audio.SUFFIXES))})")
    whole = _complete(folder, rows, name)
    clips = read_manifest(whole)[name]
    return [plain_card(name, f"the audio below {folder.name}/", Source(manifest=str(whole), dataset=name), clips)]


def _audio_below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in audio.SUFFIXES and path.is_file() and not hidden:
            yield path


def _name(text: str) -> str:
    """A name that can stand in a test id: what cannot becomes an underscore."""
    name = re.sub(rf"(?!{NAME}).", "_", text) or "data"
    return name


def _completed(path: Path, name: str) -> Path:
    """The manifest, or where it lacks names or checksums one that has them."""
    columns, rows = raw_rows(path)
    needs(path, columns, ("path",))
    if not rows:
        raise ManifestError(f"{path}: it has no rows; expected one a clip below its line of columns")
    if all(column in columns for column in REQUIRED):
        return path
    seen = set()
    for line, row in rows:
        if "path" not in row:
            raise ManifestError(f"{path}:{line}: the column 'path' is empty")
        part_of(path, line, row)
        clip = row.get("dataset"), id_of(row)
        if clip in seen:
            raise ManifestError(f"{path}:{line}: {clip[1]} is there twice")
        seen.add(clip)
    return _complete(path.parent, [row for _, row in rows], _name(name))


def _complete(root: Path, rows: list[dict[str, str]], name: str) -> Path:
    """A manifest in our own folder with checksums and lengths, made again when a row or a file has changed."""
    content = hashlib.sha256(str(root).encode())
    for row in rows:
        path = root / row["path"]
        if not path.is_file():
            raise DataError(f"{path}: no such file; check the column 'path' (it is relative to {root})")
        seen = path.stat()
        content.update(json.dumps([sorted(row.items()), seen.st_size, seen.st_mtime_ns]).encode())
    manifest = home() / "data" / "own" / f"{name}-{content.hexdigest()[:16]}.parquet"
    if not manifest.is_file():
        write_manifest(manifest, [_whole(root, row, name) for row in rows], root)
    return manifest


def _whole(root: Path, row: dict[str, str], name: str) -> dict[str, str]:
    """A row with what it lacks. A file that is no audio stays: the run counts and names it."""
    try:
        checksum, header = look(root / row["path"])
    except ValueError:
        return {"dataset": name, "sha256": hashlib.sha256((root / row["path"]).read_bytes()).hexdigest()} | row
    seconds = float(row.get("end_s") or header.seconds) - float(row.get("start_s") or 0)
    return {"dataset": name, "sha256": checksum, "seconds": f"{seconds:.6g}"} | row
