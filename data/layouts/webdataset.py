"""Tar archives of samples, as X-ARES and Emilia publish them: `<key>.flac` beside `<key>.json`; read where they lie.

Nothing is unpacked: a row holds the member's place in its archive, and audio is read from there.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from earmark.data.layouts.rows import LayoutError, Row, find, mapped, relative, renamed, sides
from earmark.data.manifest import SEVERAL, as_text

AUDIO = ("flac", "wav", "mp3", "ogg", "opus", "m4a")


def read(
    root: Path,
    tars: Mapping[str, str] | str = "**/*.tar",
    columns: Mapping[str, str] | None = None,
    values: Mapping[str, Mapping[str, str]] | None = None,
    side: str = "split",
    events: Mapping[str, str] | None = None,
    match: str = "",
) -> Iterator[Row]:
    """Each sample of each archive.

    tars: a pattern, or side -> pattern. columns: our name -> the key in the sample's JSON; `*` are all its values,
    with `|` between them. events: `label`, `onset`, `offset` -> the keys in a JSON that is a list of events.
    match: the named groups that are found in a member's name are columns too.
    """
    for name, pattern in sides(tars):
        for tar in find(root, pattern):
            for sample in _samples(tar):
                audio = next((kind for kind in AUDIO if kind in sample), None)
                if audio is None:
                    raise LayoutError(f"{tar}: {sample['__key__']} has no audio ({', '.join(AUDIO)})")
                found = _labels(json.loads(sample.get("json", b"{}")), columns or {}, events, tar)
                where: tarfile.TarInfo = sample[audio]
                in_name = re.search(match, where.name) if match else None
                found |= in_name.groupdict() if in_name else {}
                yield Row(
                    relative(tar, root),
                    ({side: name} if name else {}) | mapped(found, values or {}, tar),
                    member=where.name.removeprefix("./"),
                    offset=where.offset_data,
                    size=where.size,
                )


def _samples(tar: Path) -> Iterator[dict[str, Any]]:
    """The samples of an archive as the library groups them: of audio its place, of JSON its bytes."""
    from webdataset.tariterators import group_by_keys

    try:
        yield from group_by_keys(_members(tar), keys=_key_and_suffix)
    except (tarfile.ReadError, ValueError) as error:
        raise LayoutError(f"{tar}: not an archive of samples ({error})") from error


def _key_and_suffix(name: str) -> tuple[str, str]:
    """Parted at the last dot: `blues.00000.wav` is a key with a dot in it, which the library's own rule takes apart."""
    key, _, suffix = name.rpartition(".")
    return key, suffix


def _members(tar: Path) -> Iterator[dict[str, Any]]:
    if tar.stat().st_size % tarfile.BLOCKSIZE:  # within a header, which the library takes for the archive's end
        raise tarfile.ReadError("unexpected end of data: it is no whole number of blocks")
    with tarfile.open(tar, "r:") as archive:
        for member in archive:
            if member.isfile() and not Path(member.name).name.startswith("._"):
                is_json = member.name.lower().endswith(".json")
                file = archive.extractfile(member) if is_json else None
                yield {"fname": member.name, "__url__": str(tar), "data": file.read() if file else member}


def _labels(found: Any, columns: Mapping[str, str], events: Mapping[str, str] | None, tar: Path) -> dict[str, str]:
    if events is not None:
        rows = found if isinstance(found, list) else found.get("events", [])
        found = [event for row in rows for event in _events(row, events)]
        return {"events": json.dumps(sorted(found, key=lambda event: event["onset_s"]))}
    if not isinstance(found, dict):
        raise LayoutError(f"{tar}: expected a JSON object a sample")
    text = {name: as_text(value) for name, value in found.items()}
    if found:
        text["*"] = SEVERAL.join(text.values())
    return renamed(text, columns, tar)


def _events(row: Mapping[str, Any], keys: Mapping[str, str]) -> list[dict[str, Any]]:
    """An event a label: DESED's weak ones are several in one line, parted by commas."""
    times = {"onset_s": float(row[keys["onset"]]), "offset_s": float(row[keys["offset"]])}
    return [{"label": label, **times} for label in str(row[keys["label"]]).split(",")]
