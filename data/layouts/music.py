"""Music collections with layouts of their own: MTG-Jamendo, FMA, GiantSteps, MAESTRO, EmoMusic."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from earmark.data.layouts.rows import LayoutError, Row, find, one, relative, table


def jamendo(root: Path, subsets: Sequence[str], split: str = "split-0") -> Iterator[Row]:
    """MTG-Jamendo: tags of several subsets (genre, instrument, moodtheme, top50tags), each with a split of its own.

    A track is one row, with `<subset>` (its tags) and `<subset>_split`. Audio is `<folder>/<id>.mp3`, or `.low.mp3`.
    """
    tracks: dict[str, dict[str, str]] = {}
    for subset in subsets:
        for side, theirs in {"train": "train", "valid": "validation", "test": "test"}.items():
            path = one(root, f"**/{split}/autotagging_{subset}-{theirs}.tsv")
            with path.open(encoding="utf-8") as file:
                for track, artist, _, audio, _, *tags in csv.reader(file, delimiter="\t"):
                    if track == "TRACK_ID":
                        continue
                    of_track = tracks.setdefault(audio, {"group": artist, "track": track})
                    labels = ";".join(tag.rpartition("---")[2] for tag in tags)
                    of_track |= {subset: labels, f"{subset}_split": side}
    audio_files = {_track(path): path for path in find(root, "**/*.mp3")}
    for audio, columns in sorted(tracks.items()):
        if _track(Path(audio)) not in audio_files:
            raise LayoutError(f"{root}: {audio} is not there; get the dataset again, whole")
        yield Row(relative(audio_files[_track(Path(audio))], root), columns)


def _track(path: Path) -> str:
    return f"{path.parent.name}/{path.name.partition('.')[0]}"


def fma(root: Path, subset: str = "small") -> Iterator[Row]:
    """FMA: `fma_metadata/tracks.csv` (three lines of header) and `fma_<subset>/<three digits>/<six digits>.mp3`."""
    path = one(root, "**/tracks.csv")
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        names = list(zip(next(rows), next(rows), strict=True))
        next(rows)
        try:
            at = {
                ours: names.index(theirs)
                for ours, theirs in {
                    "genre": ("track", "genre_top"), "split": ("set", "split"), "subset": ("set", "subset"),
                    "group": ("artist", "id"),
                }.items()
            }  # fmt: skip
        except ValueError as error:
            raise LayoutError(f"{path}: not the header of tracks.csv ({error})") from error
        tracks = {f"{int(row[0]):06d}": {ours: row[place] for ours, place in at.items()} for row in rows}
    splits = {"training": "train", "validation": "valid", "test": "test"}
    for audio in find(root, f"**/fma_{subset}/*/*.mp3"):
        of_track = tracks[audio.stem]
        yield Row(
            relative(audio, root),
            {"genre": of_track["genre"], "split": splits[of_track["split"]], "group": of_track["group"]},
        )


FLATS = {"C#": "Db", "D#": "Eb", "F#": "Gb", "G#": "Ab", "A#": "Bb"}


def giantsteps(root: Path) -> Iterator[Row]:
    """GiantSteps key: the key of `audio/<track>.mp3` in `<folder of keys>/<track>.txt` (or .key); flats, not sharps.

    Tracks without one key of 24 (none, several, other modes) are left out, as in the task.
    """
    keys = {path.stem: path for kind in ("txt", "key") for path in root.glob(f"**/*key*/*.{kind}")}
    if not keys:
        raise LayoutError(f"{root}: no folder of keys with a .txt or .key file a track")
    for audio in find(root, "**/*.mp3"):
        key = _key(keys[audio.stem].read_text(encoding="utf-8")) if audio.stem in keys else None
        if key:
            yield Row(relative(audio, root), {"key": key})


def _key(text: str) -> str | None:
    """`F# minor` -> `Gb minor`; None where it is not one key, major or minor."""
    words = text.strip().split("\n")[0].replace("\t", " ").split()
    if len(words) != 2 or words[1].lower() not in ("major", "minor"):
        return None
    tonic = words[0][0].upper() + words[0][1:]
    return f"{FLATS.get(tonic, tonic)} {words[1].lower()}"


def maestro(root: Path) -> Iterator[Row]:
    """MAESTRO: `maestro-v*.csv`, recordings and their MIDI files; the notes are events, labelled by MIDI number."""
    path = one(root, "**/maestro-v*.csv")
    splits = {"train": "train", "validation": "valid", "test": "test"}
    for row in table(path):
        audio = path.parent / row["audio_filename"]
        columns = {
            "split": splits[row["split"]],
            "composer": row["canonical_composer"],
            "piece": row["canonical_title"],
            "events": json.dumps(_notes(path.parent / row["midi_filename"])),
        }
        yield Row(relative(audio, root), columns)


def _notes(midi: Path) -> list[dict[str, object]]:
    """The notes of a MIDI file, by the clock: from key down to key up."""
    import mido

    now, down, notes = 0.0, {}, []
    for message in mido.MidiFile(midi):
        now += message.time
        if message.type == "note_on" and message.velocity > 0:
            down.setdefault(message.note, now)
        elif message.type in ("note_on", "note_off") and message.note in down:
            notes.append((down.pop(message.note), now, message.note))
    return [
        {"label": str(note), "onset_s": round(start, 4), "offset_s": round(stop, 4)}
        for start, stop, note in sorted(notes)
    ]


def emomusic(root: Path) -> Iterator[Row]:
    """EmoMusic: `clips_45seconds/<song>.mp3`, the mean ratings of static_annotations.csv, the set of songs_info.csv."""
    ratings = {row["song_id"]: row for row in table(one(root, "**/static_annotations.csv"))}
    sets = {row["song_id"]: row for row in table(one(root, "**/songs_info.csv"))}
    for audio in find(root, "**/clips_45*/*.mp3"):
        if audio.stem not in ratings:
            continue
        row, song = ratings[audio.stem], sets[audio.stem]
        side = "train" if song["Mediaeval 2013 set"].startswith("dev") else "test"
        yield Row(
            relative(audio, root),
            {"arousal": row["mean_arousal"], "valence": row["mean_valence"], "split": side, "group": song["Artist"]},
        )
