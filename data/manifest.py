"""Manifests: the clips of a folder, one row a clip, as CSV, JSON lines or Parquet. Nothing is parsed out of file names.

A manifest has at least the columns `path` (relative to its folder, or to the `root` that a Parquet file names),
`dataset` and `sha256` (of the file, or of the member of an archive); every other column is a label or a fact of the
clip. Known ones are

    seconds domain split fold speaker group licence
    start_s end_s         the part of the file that is the clip, in seconds
    member offset size    the file inside an archive that is not compressed: its name, first byte and length in bytes
"""

from __future__ import annotations

import contextlib
import csv
import functools
import gc
import hashlib
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from earmark.names import mistaken

SHARD_CLIPS = 8  # the store's unit of work: seconds of encoding, so that eight workers share even a small dataset
REQUIRED = ("path", "dataset", "sha256")
SUFFIXES = (".csv", ".jsonl", ".parquet")
SEVERAL = "|"  # between texts that stand in one column, such as the captions of a clip
ROOT = b"earmark.root"  # the key of a Parquet manifest's metadata that names the folder its paths are relative to


class ManifestError(ValueError):
    """A manifest that cannot be used; the message names file, line and column."""


@dataclass(frozen=True)
class Part:
    """Which part of a file is the clip: seconds from start to end (None: its end), and the bytes in an archive."""

    start_s: float = 0.0
    end_s: float | None = None
    offset: int | None = None
    size: int | None = None
    member: str = ""

    def name(self, path: Path) -> Path:
        """What messages call the file: of a member, the archive and its name in it."""
        return path / self.member if self.member else path

    @property
    def is_segment(self) -> bool:
        return self.start_s > 0 or self.end_s is not None


WHOLE = Part()


@dataclass(frozen=True, eq=False)
class Clip:
    """One recording. `group` is what makes clips dependent (speaker, instrument): the unit of intervals and splits.

    `sha256` is the clip's own address: for a whole file its checksum, for a part of one a hash of checksum and part.
    `checksum` is what the file (or member) must have.
    """

    id: str
    path: Path
    sha256: str
    group: str
    domain: str
    seconds: float | None
    fields: Mapping[str, str]
    shard: str = ""
    part: Part = WHOLE
    checksum: str | None = None


@functools.cache
def read_manifest(path: Path) -> dict[str, tuple[Clip, ...]]:
    """The clips of each dataset in a manifest (.csv, .jsonl or .parquet), in its order.

    Raises ManifestError where the file, a required column or value is missing, or a clip is there twice.
    """
    if not path.is_file():
        raise ManifestError(f"data missing: {path}: no such manifest; EARMARK_DATA must name a folder that holds one")
    with _no_collection():
        return _read(path)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """A hundred thousand rows are no garbage: looking for cycles among them would take as long as reading them."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _read(path: Path) -> dict[str, tuple[Clip, ...]]:
    columns, rows, root = _rows(path)
    needs(path, columns, REQUIRED)
    datasets: dict[str, dict[str, tuple[int, dict[str, str]]]] = {}
    for line, row in rows:
        for name in REQUIRED:
            if not row.get(name):  # a JSON line may not have it at all
                raise ManifestError(f"{path}:{line}: the column {name!r} is empty")
        numbered = datasets.setdefault(row["dataset"], {})
        if (clip := id_of(row)) in numbered:
            raise ManifestError(f"{path}:{line}: {clip} is in {row['dataset']} twice")
        numbered[clip] = line, row
    return {name: tuple(_clips(path, root, numbered)) for name, numbered in datasets.items()}


def needs(path: Path, columns: Sequence[str], needed: Sequence[str]) -> None:
    """Raises ManifestError where a manifest lacks a column, with what it has, and what that looks like."""
    absent = [name for name in needed if name not in columns]
    if not absent:
        return
    has = f"it has {', '.join(columns) or 'none'}"
    if len(columns) == 1 and (found := set(columns[0]) & {";", "\t"}):
        has += f": write commas, not {found.pop()!r}, between columns"
    elif meant := mistaken(absent[0], columns):
        has += f"; rename {meant!r}"
    raise ManifestError(f"{path}: the column {absent[0]!r} is missing; columns needed: {', '.join(needed)}; {has}")


def raw_rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """A manifest's columns, and its numbered rows as they are, without what is empty."""
    columns, rows, _ = _rows(path)
    return columns, [(line, {name: value for name, value in row.items() if name and value}) for line, row in rows]


Rows = tuple[list[str], Iterable[tuple[int, dict[str, str]]], Path]


def _rows(path: Path) -> Rows:
    """Columns, numbered rows of text, and the folder that paths are relative to."""
    try:
        return {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows}[path.suffix.lower()](path)
    except KeyError:
        raise ManifestError(f"{path}: expected a manifest that ends in {', '.join(SUFFIXES)}") from None
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not a text file in UTF-8 ({error})") from error
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror})") from error


def _csv_rows(path: Path) -> Rows:
    with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a byte order mark
        reader = csv.DictReader(file)
        try:
            columns = [*(reader.fieldnames or ())]
            rows = [(reader.line_num, row) for row in reader]
        except csv.Error as error:
            raise ManifestError(f"{path}:{reader.line_num}: {error}; longer texts can stand in .jsonl") from error
    twice = [name for name, count in Counter(columns).items() if name and count > 1]
    if twice:
        raise ManifestError(f"{path}: the column {twice[0]!r} is there twice")
    for line, row in rows:  # a comma in a text that has no quotes: the rest of the text would be lost
        if None in row and any(cells := row.pop(None)):
            told = f"more cells than columns ({cells[0]!r}); a text with a comma needs quotes"
            raise ManifestError(f"{path}:{line}: {told}")
    return columns, rows, path.parent


def _jsonl_rows(path: Path) -> Rows:
    rows = []
    with path.open(encoding="utf-8-sig") as file:  # `str.splitlines` would end a line within a text, at U+2028
        lines = file.readlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line) if line.strip() else None
        except json.JSONDecodeError as error:
            raise ManifestError(f"{path}:{number}: not JSON ({error})") from error
        if row is not None and not isinstance(row, dict):
            raise ManifestError(f"{path}:{number}: expected one JSON object a line")
        if row is not None:
            rows.append((number, {name: as_text(value) for name, value in row.items()}))
    return [*dict.fromkeys(name for _, row in rows for name in row)], rows, path.parent


def as_text(value: object) -> str:
    """A label as a column holds it: text as it is, lists and objects as JSON, nothing as nothing.

    >>> as_text([{"label": "dog"}]), as_text(None), as_text(4)
    ('[{"label": "dog"}]', '', '4')
    """
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict | bool) else str(value)


def _parquet_rows(path: Path) -> Rows:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise ManifestError(f"{path}: not a Parquet file ({error}); delete it and build it again") from error
    root = (table.schema.metadata or {}).get(ROOT)
    columns = [column.to_pylist() for column in table.columns]
    if any(not isinstance(value, str | None) for column in columns for value in column[:1]):
        columns = [[as_text(value) for value in column] for column in columns]
    rows = (dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True))
    folder = path.parent / root.decode() if root else path.parent
    return table.column_names, enumerate(rows, 1), folder


def write_manifest(path: Path, rows: Iterable[Mapping[str, str]], root: Path | None = None) -> None:
    """A Parquet manifest of text columns, whole or not at all; paths are relative to `root`, or to its own folder."""
    import pyarrow
    import pyarrow.parquet

    rows = [*rows]
    names = list(dict.fromkeys(itertools.chain(REQUIRED, *rows)))
    table = pyarrow.table({name: pyarrow.array([row.get(name) or None for row in rows], "string") for name in names})
    if root is not None:
        table = table.replace_schema_metadata({ROOT: str(root).encode()})
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    pyarrow.parquet.write_table(table, part, compression="zstd")
    part.replace(path)


def _clips(manifest: Path, root: Path, rows: Mapping[str, tuple[int, dict[str, str]]]) -> Iterator[Clip]:
    """The clips, each with the name of its slice of the whole dataset: the same whichever of its clips a run takes."""
    parts = [(row["sha256"].lower(), part_of(manifest, line, row)) for line, row in rows.values()]
    addresses = [_address(checksum, part) if part.is_segment else checksum for checksum, part in parts]
    slices = [
        hashlib.sha256(" ".join(addresses[at : at + SHARD_CLIPS]).encode()).hexdigest()[:16]
        for at in range(0, len(addresses), SHARD_CLIPS)
    ]
    for at, (name, (line, row)) in enumerate(rows.items()):
        yield Clip(
            id=name,
            path=root / row["path"],
            sha256=addresses[at],
            group=row.get("group") or row.get("speaker") or row["path"] + (row.get("member") or ""),
            domain=row.get("domain") or "general",
            seconds=_number(manifest, line, row, "seconds"),
            fields={column: value for column, value in row.items() if column and value},
            shard=slices[at // SHARD_CLIPS],
            part=parts[at][1],
            checksum=parts[at][0],
        )


def id_of(row: Mapping[str, str]) -> str:
    """The path, the member of an archive, and the seconds of a part: a name that no other clip has."""
    found = row["path"]
    if row.get("member"):
        found += "/" + row["member"]
    if row.get("start_s") or row.get("end_s"):
        found += f"[{row.get('start_s') or 0}-{row.get('end_s') or ''}]"
    return found


def part_of(manifest: Path, line: int, row: Mapping[str, str]) -> Part:
    """Which part of its file a row says. Raises ManifestError where there can be no such part."""
    if not (row.get("start_s") or row.get("end_s") or row.get("offset")):
        return WHOLE
    start, end, offset, size = (_number(manifest, line, row, name) for name in ("start_s", "end_s", "offset", "size"))
    if (start or 0) < 0 or (end is not None and end <= (start or 0)):
        raise ManifestError(
            f"{manifest}:{line}: the part {start or 0} to {end} s is none; expected 0 <= start_s < end_s"
        )
    if (offset is None) != (size is None):
        raise ManifestError(f"{manifest}:{line}: `offset` and `size` stand together")
    first, length = (None if number is None else int(number) for number in (offset, size))
    return Part(start or 0.0, end, first, length, row.get("member") or "")


def _number(manifest: Path, line: int, row: Mapping[str, str], name: str) -> float | None:
    try:
        number = float(row[name]) if row.get(name) else None
    except ValueError:
        number = math.nan
    if number is not None and not math.isfinite(number):
        raise ManifestError(f"{manifest}:{line}: {name} is {row[name]!r}, expected a number")
    return number


def _address(checksum: str, part: Part) -> str:
    return hashlib.sha256(f"{checksum} {part.start_s!r} {part.end_s!r}".encode()).hexdigest()
