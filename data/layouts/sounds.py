"""Sound events with layouts of their own: DESED."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from earmark.data.layouts.rows import LayoutError, Row, one, relative, table


def desed(root: Path, tables: Mapping[str, str]) -> Iterator[Row]:
    """DESED: tables of events, a line each (filename, onset, offset, event_label), beside folders of audio.

    tables: split -> pattern of its table. A clip in which nothing happens is a line without an event.
    """
    audio = {path.name: path for path in sorted(root.glob("**/*.wav"))}
    for split, pattern in tables.items():
        path = one(root, pattern)
        clips: dict[str, list[dict[str, Any]]] = {}
        for row in table(path, "\t"):
            events = clips.setdefault(row["filename"], [])
            if row["event_label"]:
                onset, offset = float(row["onset"]), float(row["offset"])
                events.append({"label": row["event_label"], "onset_s": onset, "offset_s": offset})
        for name, events in clips.items():
            if name not in audio:
                raise LayoutError(f"{path}: {name} is nowhere below {root}; get the dataset again, whole")
            ordered = sorted(events, key=lambda event: event["onset_s"])
            yield Row(relative(audio[name], root), {"split": split, "events": json.dumps(ordered)})
