"""What a run keeps to listen to: of each codec and dataset a few clips, the recording and what became of it.

    listening/manifest.jsonl   a line a clip, as `Heard`; the controller alone writes it
    listening/<name>.flac      its sounds, named by their content: a recording that two codecs share is one file

The leaderboard has them inside its page, as many as fit into the megabytes that it may take.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark.paths import publishing
from earmark.reports.scores import lines_of

if TYPE_CHECKING:
    from earmark.reports.attachments import Sound

FOLDER, MANIFEST = "listening", "manifest.jsonl"
MOST_MB = 20.0  # of sound in a page: it still opens at once
PLACES = ("worst", "median", "best")  # what is shown first, and kept longest where not all fit


@dataclass(frozen=True)
class Heard:
    """A clip to listen to. recording, estimate: (caption, name of the file). value: by `metric`, which ranked it."""

    codec: str
    dataset: str
    place: str
    clip: str
    metric: str
    value: float
    recording: Sequence[str]
    estimate: Sequence[str]
    run: str


@dataclass(frozen=True)
class Listening:
    """What a page has to listen to: the clips, their sounds (name of the file -> Base64), and what to say of those
    that had no place.
    """

    clips: Sequence[Heard] = ()
    sounds: dict[str, str] = field(default_factory=dict)
    left_out: str = ""


def keep_sound(reports: Path, sound: Sound) -> tuple[str, str]:
    """Write a sound where it is not yet; returns its caption and the name of its file. Safe in several processes."""
    name = f"{hashlib.sha256(sound.flac).hexdigest()[:16]}.flac"
    path = reports / FOLDER / name
    if not path.exists():
        with publishing(path) as partial:
            partial.write_bytes(sound.flac)
    return sound.caption, name


def write_manifest(reports: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Add the clips of a run: of a codec and dataset they replace those of earlier runs, whose sounds then go."""
    new = [Heard(**row) for row in rows]
    if not new:
        return
    again = {(heard.codec, heard.dataset) for heard in new}
    kept = [heard for heard in read_manifest(reports) if (heard.codec, heard.dataset) not in again] + new
    folder = reports / FOLDER
    lines = (json.dumps(asdict(heard), ensure_ascii=False) + "\n" for heard in kept)
    with publishing(folder / MANIFEST) as partial:
        partial.write_bytes("".join(lines).encode())
    used = {name for heard in kept for _, name in (heard.recording, heard.estimate)}
    for path in folder.glob("*.flac"):
        if path.name not in used:
            path.unlink(missing_ok=True)


def read_manifest(reports: Path) -> list[Heard]:
    """The clips that the runs of a folder kept; none where it has no manifest.

    Raises ValueError with file and line where a line is not a clip.
    """
    path, found = reports / FOLDER / MANIFEST, []
    for number, line in enumerate(lines_of(path) if path.exists() else (), start=1):
        try:
            found.append(Heard(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}:{number}: not a clip to listen to ({error})") from error
    return found


def gather(folders: Iterable[Path], measured: Iterable[tuple[str, str, str]], most_mb: float = MOST_MB) -> Listening:
    """The clips of these reports folders that belong to what was measured, with their sounds, while they fit.

    measured: (run, codec, dataset) of the scores on the page; the clips of another run are of another codec's version
    and left away. The worst of all codecs and datasets come first, then the median, then the best. most_mb: of Base64;
    0 for none. Raises ValueError where a manifest is damaged or a sound is gone.
    """
    if not most_mb:
        return Listening()
    asked = set(measured)
    found = [
        (heard, folder)
        for folder in dict.fromkeys(folders)
        for heard in read_manifest(folder)
        if (heard.run, heard.codec, heard.dataset) in asked
    ]
    found.sort(key=lambda each: PLACES.index(each[0].place))
    clips: list[Heard] = []
    sounds: dict[str, str] = {}
    missed: set[Path] = set()
    room = most_mb * 1e6
    for heard, folder in found:
        files = {folder / FOLDER / name for _, name in (heard.recording, heard.estimate) if name not in sounds}
        size = sum(_coded_size(path) for path in files)
        if size <= room:
            room -= size
            sounds |= {path.name: base64.b64encode(path.read_bytes()).decode() for path in files}
            clips.append(heard)
        else:
            missed |= files
    return Listening(clips, sounds, _left_out(len(found) - len(clips), len(found), most_mb, room, missed))


def _coded_size(path: Path) -> int:
    """Bytes of a file as Base64."""
    if not path.is_file():
        raise ValueError(f"{path}: {MANIFEST} beside it names this sound; run again, or leave out all with --sounds 0")
    return (path.stat().st_size + 2) // 3 * 4


def _left_out(count: int, of: int, most_mb: float, room: float, missed: set[Path]) -> str:
    if not count:
        return ""
    needed = most_mb + (sum(map(_coded_size, missed)) - room) / 1e6
    return (
        f"{count} of {of} clips are left out, as the page holds at most {most_mb:g} MB of sound: they are in the "
        f"folder {FOLDER} beside the scores; earmark report --sounds {math.ceil(needed)} has them all."
    )
