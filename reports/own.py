"""What a run's own codecs said of themselves, kept beside its scores: no catalogue has it when the report is made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FILE = "codecs.json"


def keep(folder: Path, said: Mapping[str, Mapping[str, Any]]) -> None:
    """Add to a reports folder what codecs say of themselves, by name; the newest counts."""
    if said:
        (folder / FILE).write_text(json.dumps({**kept([folder]), **said}, indent=1), encoding="utf-8")


def kept(folders: Iterable[Path]) -> dict[str, dict[str, Any]]:
    """What the codecs of these folders said; nothing of a folder without any. Raises ValueError, naming the file."""
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        path = folder / FILE
        try:
            found |= json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except ValueError as error:
            raise ValueError(f"{path}: not JSON ({error}); remove it") from error
    return found
