"""Datasets whose labels are in tables (CSV, TSV, JSON) beside the audio."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from earmark.data.layouts.rows import Files, LayoutError, Row, find, mapped, renamed, sides
from earmark.data.layouts.rows import table as text_table
from earmark.data.manifest import SEVERAL, as_text


def read(
    root: Path,
    tables: Mapping[str, str] | str,
    path: str,
    columns: Mapping[str, str] | None = None,
    separator: str = ",",
    header: Sequence[str] | None = None,
    values: Mapping[str, Mapping[str, str]] | None = None,
    tags: Mapping[str, Sequence[str]] | None = None,
    side: str = "split",
    missing: str = "error",
    match: str = "",
    folders: Mapping[str, str] | None = None,
    optional: Sequence[str] = (),
    commas: Sequence[str] = (),
    texts: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[Row]:
    """Each line of each table is a clip.

    tables: a pattern, or side -> pattern. path: where the audio is, of the table's columns and `{side}`, as in
    `clips/{path}`; relative to the root, and it may hold wildcards. columns: our name -> theirs. values: column -> code
    -> word. tags: our name -> their columns of 0 and 1, joined by semicolons. side: our column for the table's name.
    match: the named groups that are found in the audio's path are columns too. folders: `{folder}` of each side.
    optional: columns that not every table has. commas: columns whose labels are parted by commas. texts: our name ->
    their columns of text, with `|` between them.
    missing: `skip` where the publishers say that some files of the table are not in the dataset.
    """
    files = Files(root)
    for name, pattern in sides(tables):
        folder = (folders or {}).get(name, name)
        for file in find(root, pattern):
            for line in _lines(file, separator, header):
                wanted = path.format(side=name, folder=folder, **line)
                audio = files.at(wanted)
                if audio is None and missing == "skip":
                    continue
                if audio is None:
                    raise LayoutError(f"{file}: {root / wanted} is not there; get the dataset again, whole")
                found = _columns(line, columns or {}, optional, file)
                found |= {ours: found[ours].replace(",", ";") for ours in commas}
                found |= {ours: _joined(line, theirs, file) for ours, theirs in (tags or {}).items()}
                found |= {ours: _texts(line, theirs, file) for ours, theirs in (texts or {}).items()}
                in_path = re.search(match, audio) if match else None
                found |= in_path.groupdict() if in_path else {}
                yield Row(audio, ({side: name} if name else {}) | mapped(found, values or {}, file))


def _columns(
    line: Mapping[str, str], columns: Mapping[str, str], optional: Sequence[str], file: Path
) -> dict[str, str]:
    return renamed(line, {ours: key for ours, key in columns.items() if key in line or ours not in optional}, file)


def _joined(line: Mapping[str, str], names: Sequence[str], file: Path) -> str:
    """The names of the columns that hold a 1."""
    return ";".join(name for name, flag in renamed(line, {name: name for name in names}, file).items() if flag == "1")


def _texts(line: Mapping[str, str], names: Sequence[str], file: Path) -> str:
    """The texts of several columns, without those that are empty."""
    return SEVERAL.join(text for text in renamed(line, {name: name for name in names}, file).values() if text)


def _lines(file: Path, separator: str, header: Sequence[str] | None) -> Iterable[dict[str, str]]:
    if file.suffix not in (".json", ".jsonl"):
        return text_table(file, separator, header)
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".jsonl":
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]  # as U+2028 in a caption ends no line
    elif isinstance(rows := json.loads(text), dict):  # id -> what is known of it
        rows = [{"id": key, **value} for key, value in rows.items()]
    return [{name: as_text(value) for name, value in row.items()} for row in rows]
