"""What readers give, and the few things that all of them do."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path


class LayoutError(ValueError):
    """Files that are not laid as a reader expects; the message says what it looked for, and where."""


@dataclass(frozen=True)
class Row:
    """A clip as its publishers have it: its file (relative to the root) or its bytes, and its columns.

    `content` is audio that has no file of its own; `offset` and `size` are where a member lies in an archive.
    """

    path: str
    columns: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    member: str = ""
    offset: int | None = None
    size: int | None = None


def find(root: Path, pattern: str) -> list[Path]:
    """The files below a folder that match a glob pattern, in order. Raises LayoutError where there is none."""
    found = sorted(path for path in root.glob(pattern) if path.is_file() and not path.name.startswith("._"))
    if not found:
        raise LayoutError(f"{root}: no file matches {pattern}")
    return found


def one(root: Path, pattern: str) -> Path:
    """The one file that matches a pattern. Raises LayoutError where there is none, or several."""
    found = find(root, pattern)
    if len(found) > 1:
        raise LayoutError(f"{root}: {len(found)} files match {pattern}, among them {found[0]}; expected one")
    return found[0]


def relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def table(path: Path, separator: str = ",", header: Iterable[str] | None = None) -> Iterator[dict[str, str]]:
    """The rows of a text table, by the names of its first line, or by those of `header`."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        quoting = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
        rows = csv.DictReader(file, [*header] if header else None, delimiter=separator, quoting=quoting, restkey="")
        for row in rows:
            yield {name: (value or "").strip() for name, value in row.items() if isinstance(value, str | None) and name}


def renamed(row: Mapping[str, str], columns: Mapping[str, str], path: object) -> dict[str, str]:
    """The columns that a card asks for, by the names that the publishers gave them."""
    absent = [theirs for theirs in columns.values() if theirs not in row]
    if absent:
        raise LayoutError(f"{path}: no column {absent[0]!r}; it has {', '.join(row)}")
    return {ours: row[theirs] for ours, theirs in columns.items()}


def mapped(columns: dict[str, str], values: Mapping[str, Mapping[str, str]], path: object) -> dict[str, str]:
    """The columns with codes turned into words; a code that the card does not know is an error."""
    for name, words in values.items():
        if columns.get(name) and columns[name] not in words:
            raise LayoutError(f"{path}: {name} is {columns[name]!r}, expected one of {', '.join(words)}")
        if columns.get(name):
            columns[name] = str(words[columns[name]])
    return columns
