"""Datasets whose labels are in the names of their folders and files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from earmark.data.layouts.rows import LayoutError, Row, find, mapped, relative


def read(
    root: Path,
    files: str = "**/*.wav",
    match: str = "",
    skip: str = "",
    values: Mapping[str, Mapping[str, str]] | None = None,
    splits: Mapping[str, str] | None = None,
) -> Iterator[Row]:
    """Each file of a pattern; the named groups of `match` in its relative path are its columns.

    skip: files whose path this matches are no clips. values: column -> code -> word. splits: split -> a file that lists
    its members, by path or by name; the split of what no file lists is `train`.
    """
    listed = {split: _listed(root, pattern) for split, pattern in (splits or {}).items()}
    for path in find(root, files):
        name = relative(path, root)
        if skip and re.search(skip, name):
            continue
        found = re.search(match, name)
        if found is None:
            raise LayoutError(f"{path}: its path does not match {match}")
        columns = {key: value for key, value in found.groupdict().items() if value}
        if listed:
            columns["split"] = next((split for split, names in listed.items() if _is_in(name, names)), "train")
        yield Row(name, mapped(columns, values or {}, path))


def _listed(root: Path, pattern: str) -> set[str]:
    lines = [line.strip() for path in find(root, pattern) for line in path.read_text(encoding="utf-8").splitlines()]
    return {line.removeprefix("./") for line in lines if line}


def _is_in(name: str, names: set[str]) -> bool:
    """Whether a list names a file: by any end of its path, with or without its suffix."""
    parts = name.split("/")
    ends = ["/".join(parts[at:]) for at in range(len(parts))]
    return any(end in names or end.rpartition(".")[0] in names for end in ends)
