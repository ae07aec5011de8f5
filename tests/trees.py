"""Miniature datasets laid as their publishers lay them: a few tiny clips, and the rows that a reader must find.

`build(root, card, layout)` writes the files and returns {end of the clip's path: its columns}.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from earmark.data.schema import Card, Layout
from earmark.tests.published import BESIDE, CELLS, NAMES, PATHS

Expected = dict[str, dict[str, str]]
_COUNT = itertools.count()


def wav_bytes(seconds: float = 0.05, rate: int = 8000) -> bytes:
    """A WAV file of noise, another one each time."""
    file = io.BytesIO()
    noise = np.random.default_rng(next(_COUNT)).uniform(-0.5, 0.5, round(seconds * rate))
    soundfile.write(file, noise, rate, "PCM_16", format="WAV")
    return file.getvalue()


def write(path: Path, content: bytes | str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = wav_bytes() if content is None else content
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def concrete(pattern: str, fill: str = "0000000") -> str:
    """A path that a glob pattern matches."""
    return pattern.replace("**/", "some/folder/").replace("*", fill)


def build(root: Path, card: Card, layout: Layout) -> Expected:
    """Write a miniature of a card's dataset in one of its layouts; what its reader must find."""
    for name, content in BESIDE.get(card.name, {}).items() if layout.reader == "folders" else ():
        write(root / name, content)
    return globals()[f"_{layout.reader}"](root, card, dict(layout.options))


def sides(spec: Any) -> list[tuple[str, str]]:
    return list(spec.items()) if isinstance(spec, dict) else [("", spec)]


def labelled(card: Card, options: dict[str, Any], theirs: str, ours: str, i: int) -> tuple[str, str]:
    """What the publishers write into a column, and what it means: of the labels that the card knows, where it does."""
    words = (options.get("values") or {}).get(ours)
    if words:
        code = list(words)[i % len(words)]
        return code, str(words[code])
    known = next((task.labels for task in card.tasks if task.target == ours and task.labels), None)
    label = known[i % len(known)] if known else f"{theirs}{i}"
    return label, label


# -- the general readers ----------------------------------------------------------------------------------------------


def _folders(root: Path, card: Card, options: dict[str, Any]) -> Expected:
    for path in PATHS[card.name]:
        write(root / "unpacked" / path)
    return PATHS[card.name]


def _webdataset(root: Path, card: Card, options: dict[str, Any]) -> Expected:
    expected: Expected = {}
    for number, (side, pattern) in enumerate(sides(options["tars"])):
        path = root / concrete(pattern)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as tar:
            for i, (name, found) in enumerate(NAMES.get(card.name, [(f"clip{i}", {}) for i in range(3)])):
                name, found = name.replace("§", str(number)), {k: v.replace("§", str(number)) for k, v in found.items()}
                labels, columns = _sample(card, options, i)
                _add(tar, f"{name}.wav", wav_bytes())
                _add(tar, f"{name}.json", json.dumps(labels).encode())
                columns |= found | ({options.get("side", "split"): side} if side else {})
                expected[f"{path.name}/{name}.wav"] = columns
    return expected


def _sample(card: Card, options: dict[str, Any], i: int) -> tuple[Any, dict[str, str]]:
    """The JSON of a sample, and its columns."""
    if keys := options.get("events"):
        known = next(task.labels for task in card.tasks if task.kind == "events")
        notes = [(known[i], 0.5, 1.0), (known[i + 1], 0.25, 0.75)]
        rows = [{keys["label"]: name, keys["onset"]: on, keys["offset"]: off} for name, on, off in notes]
        events = [{"label": name, "onset_s": on, "offset_s": off} for name, on, off in reversed(notes)]
        return rows, {"events": json.dumps(events)}
    if "*" in options["columns"].values():
        captions = {f"caption_{n}": f"sound {i} of {n}" for n in range(1, 6)}
        return captions, {"caption": "|".join(captions.values())}
    cells = {theirs: (ours, labelled(card, options, theirs, ours, i)) for ours, theirs in options["columns"].items()}
    return (
        {theirs: code for theirs, (_, (code, _)) in cells.items()},
        {ours: word for ours, (_, word) in cells.values()},
    )


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _tables(root: Path, card: Card, options: dict[str, Any]) -> Expected:
    expected: Expected = {}
    cells, told = CELLS.get(card.name, ({}, {}))
    for number, (side, pattern) in enumerate(sides(options["tables"])):
        path, lines = root / concrete(pattern, "x"), []
        for i in range(1, 6):
            fill = {"i": str(i), "side": side or "dev", "hex": "04bcdf"[i]}
            line, columns = _line(card, options, side, i + 5 * number)
            line |= {name: cell.format(**fill) for name, cell in cells.items()}
            for ours, theirs in (options.get("columns") or {}).items():
                if theirs in cells and theirs in line and ours not in told:
                    columns[ours] = line[theirs]
            columns |= {name: value.format(**fill) for name, value in told.items()}
            audio = options["path"].format(side=side, folder=(options.get("folders") or {}).get(side, side), **line)
            audio = concrete(audio, "some")
            if card.name == "magnatagatune":
                columns["split"] = options["values"]["split"][fill["hex"]]
            if card.name == "meld":
                columns["group"] = f"{Path(audio).parent.name}/dia{i}"
            write(root / audio)
            lines.append(line)
            expected[audio] = columns | ({"split": side} if side else {})
        _write_table(path, lines, options)
    return expected


def _line(card: Card, options: dict[str, Any], side: str, i: int) -> tuple[dict[str, str], dict[str, str]]:
    """A line of a table, with every column that the path and the labels come from."""
    line = {name: f"{name}{i}" for name in re.findall(r"\{(\w+)\}", options["path"]) if name not in ("side", "folder")}
    columns = {}
    for ours, theirs in (options.get("columns") or {}).items():
        if side and ours in options.get("optional", ()):
            continue
        if theirs in line:
            columns[ours] = line[theirs]
        else:
            line[theirs], columns[ours] = labelled(card, options, theirs, ours, i)
    for ours, theirs in (options.get("texts") or {}).items():
        line |= {name: f"{name} of {i}" for name in theirs}
        columns[ours] = "|".join(line[name] for name in theirs)
    for ours, theirs in (options.get("tags") or {}).items():
        on = {theirs[i % len(theirs)], theirs[(i + 7) % len(theirs)]}
        line |= {name: "1" if name in on else "0" for name in theirs}
        columns[ours] = ";".join(name for name in theirs if name in on)
    return line, columns


def _write_table(path: Path, lines: list[dict[str, str]], options: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps({line["id"]: line for line in lines}))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    else:
        with path.open("w", newline="") as file:
            names = options.get("header") or list(lines[0])
            writer = csv.DictWriter(file, names, delimiter=options.get("separator", ","))
            if not options.get("header"):
                writer.writeheader()
            writer.writerows(lines)


def _arrow(root: Path, card: Card, options: dict[str, Any]) -> Expected:
    import datasets

    expected: Expected = {}
    for side, pattern in sides(options["files"]):
        path, rows = root / concrete(pattern, f"a_{side}_b"), []
        for i in range(3):
            row: dict[str, Any] = {"audio": {"bytes": wav_bytes(), "path": f"{i}.wav"}}
            columns = {options.get("side", "split"): side} if side else {}
            for ours, theirs in (options.get("columns") or {}).items():
                row[theirs], columns[ours] = labelled(card, options, theirs, ours, i)
            for theirs, ours in (options.get("pairs") or {}).items():
                row[theirs] = [0.25 * i, 0.5]
                columns |= dict(zip(ours, (str(0.25 * i), "0.5"), strict=True))
            rows.append(row)
            expected[f"{path.name}/{i:06d}.wav"] = columns
        path.parent.mkdir(parents=True, exist_ok=True)
        table = datasets.Dataset.from_list(rows).cast_column("audio", datasets.Audio(decode=False))
        if path.suffix == ".parquet":
            table.to_parquet(path)
        else:
            table.save_to_disk(path.parent)
            next(path.parent.glob("data-*.arrow")).rename(path)
    return expected


# -- layouts of their own ---------------------------------------------------------------------------------------------


def _librispeech(root: Path, card: Card, options: dict[str, Any]) -> Expected:
    tts, expected = card.name.startswith("libritts"), {}
    speakers = [str(n) for n in range(19, 34)]
    for start, (split, part) in enumerate(options["splits"].items()):
        for n, speaker in enumerate(speakers[start * 5 : start * 5 + 5]):
            chapter = root / "LibriX" / part / speaker / f"12{n}"
            name = f"{speaker}-12{n}-0000" if not tts else f"{speaker}_12{n}_000001_000000"
            write(chapter / f"{name}.{'wav' if tts else 'flac'}")
            if tts:
                write(chapter / f"{name}.normalized.txt", f"Chapter {n}.\n")
            else:
                write(chapter / f"{speaker}-12{n}.trans.txt", f"{name} CHAPTER {n}.\n{speaker}-12{n}-0001 OTHER\n")
            expected[f"{part}/{speaker}/12{n}/{name}.{'wav' if tts else 'flac'}"] = {
                "split": split, "speaker": speaker, "sex": "FM"[int(speaker) % 2], "transcript": f"chapter {n}."
            }  # fmt: skip
    if tts:
        lines = [f"{speaker}\t{'FM'[int(speaker) % 2]}\ttest-other\tA Name" for speaker in speakers]
        write(root / "LibriX" / "speakers.tsv", "\n".join(["READER\tGENDER\tSUBSET\tNAME", *lines]))
    else:
        lines = [f"{speaker:5}| {'FM'[int(speaker) % 2]} | x | 25.0 | A Name" for speaker in speakers]
        write(root / "LibriX" / "SPEAKERS.TXT", "\n".join([";ID  |SEX| SUBSET |MINUTES| NAME", *lines]))
    return expected


def _aishell(root: Path, card: Card, options: dict[str, Any]) -> Expected:
    expected, lines = {}, []
    for split, ours in (("train", "train"), ("dev", "valid"), ("test", "test")):
        for speaker in (f"S000{len(split)}", f"S100{len(split)}"):
            name = f"BAC009{speaker}{split}W0122"
            write(root / "data_aishell" / "wav" / split / speaker / f"{name}.wav")
            write(root / "data_aishell" / "wav" / split / speaker / f"{name}x.wav")  # not in the transcripts: no clip
            lines.append(f"{name} 而 对 楼市")
            expected[f"{split}/{speaker}/{name}.wav"] = {"split": ours, "speaker": speaker, "transcript": "而对楼市"}
    write(root / "data_aishell" / "transcript" / "aishell_transcript_v0.8.txt", "\n".join(lines))
    return expected


def _kaldi(root: Path, card: Card, options: dict[str, Any]) -> Expected:
    expected = {}
    extra = options.get("columns", {})
    for split, pattern in options["splits"].items():
        folder = root / pattern.replace("**/", "")
        files: dict[str, list[str]] = {name: [] for name in ("wav.scp", "text", "utt2spk", *extra.values())}
        for n in range(3):
            utterance, speaker, wav = f"{split}{n}", f"{split}speaker{n}", f"WAVE/{split}{n}.WAV"
            write(root / wav)
            files["wav.scp"].append(f"{utterance}\t{wav}")
            files["text"].append(f"{utterance} WE CALL IT BEAR")
            files["utt2spk"].append(f"{utterance}\t{speaker}")
            for theirs in extra.values():
                files[theirs].append(f"{utterance if theirs.startswith('utt2') else speaker} {theirs}{n}")
            expected[wav] = {"split": split, "speaker": speaker, "transcript": "we call it bear"} | {
                ours: f"{theirs}{n}" for ours, theirs in extra.items()
            }
        for name, lines in files.items():
            write(folder / name, "\n".join(lines) + "\n")
    return expected


def _jamendo(root: Path, card: Card, options: dict[str, Any]) -> Expected:
    """Track 214 is in the training part of one subset and in the test part of another."""
    expected: Expected = {}
    head = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS"
    tracks = ["14/214.mp3", "15/215.mp3", "16/1416.mp3"]
    for shift, subset in enumerate(options["subsets"]):
        for n, (side, theirs) in enumerate((("train", "train"), ("valid", "validation"), ("test", "test"))):
            track = tracks[(n + shift) % 3]
            line = f"track_{n}\tartist_{track[:2]}\talbum_1\t{track}\t180.0\tgenre---a{n}\tgenre---b"
            name = f"autotagging_{subset}-{theirs}.tsv"
            write(root / "data" / "splits" / "split-0" / name, f"{head}\n{line}\n")
            columns = {subset: f"a{n};b", f"{subset}_split": side, "group": f"artist_{track[:2]}"}
            low = track.replace(".mp3", ".low.mp3")
            expected[low] = expected.get(low, {}) | columns
    for track in expected:
        write(root / "raw_30s" / track)
    return expected


def _fma(root: Path, card: Card, options: dict[str, Any]) -> Expected:
    head = [",artist,set,set,track", ",id,split,subset,genre_top", "track_id,,,,"]
    rows, expected = [], {}
    for n, (theirs, ours) in enumerate((("training", "train"), ("validation", "valid"), ("test", "test"))):
        rows.append(f"{n + 2},{n + 7},{theirs},small,Hip-Hop")
        write(root / "fma_small" / "000" / f"{n + 2:06d}.mp3")
        expected[f"000/{n + 2:06d}.mp3"] = {"genre": "Hip-Hop", "split": ours, "group": str(n + 7)}
    write(root / "fma_metadata" / "tracks.csv", "\n".join([*head, *rows]) + "\n")
    return expected


def _giantsteps(root: Path, card: Card, options: dict[str, Any]) -> Expected:
    keys = {
        "F# minor": "Gb minor",
        "D major": "D major",
        "a minor": "A minor",
        "Bb major": "Bb major",
        "c minor": "C minor",
    }
    expected = {}
    for n, (theirs, ours) in enumerate(keys.items()):
        name = f"1008{n} Jason Sparks - Close My Eyes feat. J. Little (Original Mix)"
        write(root / "audio" / f"{name}.mp3")
        write(root / "keys_gs+" / f"{name}.txt", f"{theirs}\n")
        expected[f"{name}.mp3"] = {"key": ours}
    for n, several in enumerate(("D major | E minor", "-", "D other")):  # not one key of 24: no clips
        write(root / "audio" / f"2008{n}.mp3")
        write(root / "keys_gs+" / f"2008{n}.txt", several)
    return expected


def _maestro(root: Path, card: Card, options: dict[str, Any]) -> Expected:
    """Two notes at 120 beats a minute, 480 ticks a beat: 60 from 0 to .5 s, 64 from .25 to 1 s."""
    import mido

    track = mido.MidiTrack()
    for kind, note, velocity, ticks in (
        ("note_on", 60, 64, 0), ("note_on", 64, 64, 240), ("note_on", 60, 0, 240), ("note_off", 64, 0, 480),
    ):  # fmt: skip
        track.append(mido.Message(kind, note=note, velocity=velocity, time=ticks))
    folder = root / "maestro-v3.0.0"
    lines = ["canonical_composer,canonical_title,split,year,midi_filename,audio_filename,duration"]
    events = [{"label": "60", "onset_s": 0.0, "offset_s": 0.5}, {"label": "64", "onset_s": 0.25, "offset_s": 1.0}]
    expected = {}
    for n, (theirs, ours) in enumerate((("train", "train"), ("validation", "valid"), ("test", "test"))):
        write(folder / "2004" / f"{n}.wav")
        mido.MidiFile(ticks_per_beat=480, tracks=[track]).save(folder / "2004" / f"{n}.midi")
        lines.append(f'Frédéric Chopin,"Étude, Op. {n}",{theirs},2004,2004/{n}.midi,2004/{n}.wav,1.0')
        expected[f"2004/{n}.wav"] = {"split": ours, "piece": f"Étude, Op. {n}", "events": json.dumps(events)}
    write(folder / "maestro-v3.0.0.csv", "\n".join(lines) + "\n")
    return expected


def _emomusic(root: Path, card: Card, options: dict[str, Any]) -> Expected:
    ratings, songs, expected = ["song_id,mean_arousal,std_arousal,mean_valence,std_valence"], [], {}
    head = "song_id,file_name,Artist,Song title,start of the segment (min.sec),"
    head += "end of the segment (min.sec),Genre,Mediaeval 2013 set"
    for n, side in ((2, "development"), (3, "evaluation"), (1000, "development")):
        write(root / "clips_45seconds" / f"{n}.mp3")
        ratings.append(f"{n},{3.1 + n / 1000},1.44,3.0,1.14")
        songs.append(f'{n},{n}.mp3,"\tArtist {n}",\t"Title",1.0,1.45,Blues,{side}')
        columns = {"arousal": str(3.1 + n / 1000), "valence": "3.0", "group": f"Artist {n}"}
        expected[f"/{n}.mp3"] = columns | {"split": "train" if side == "development" else "test"}
    write(root / "clips_45seconds" / "1001.mp3")  # without a rating: no clip
    write(root / "annotations" / "static_annotations.csv", "\n".join(ratings))
    write(root / "annotations" / "songs_info.csv", "\n".join([head, *songs]))
    return expected


def _desed(root: Path, card: Card, options: dict[str, Any]) -> Expected:
    expected = {}
    for split, pattern in options["tables"].items():
        lines = ["filename\tonset\toffset\tevent_label"]
        lines += [f"{split}1.wav\t3.5\t4.0\tDog", f"{split}1.wav\t0.25\t1.0\tSpeech", f"{split}2.wav\t\t\t"]
        write(root / concrete(pattern, "x"), "\n".join(lines) + "\n")
        events = [
            {"label": "Speech", "onset_s": 0.25, "offset_s": 1.0}, {"label": "Dog", "onset_s": 3.5, "offset_s": 4.0}
        ]  # fmt: skip
        for name, found in (("1", events), ("2", [])):
            write(root / "audio" / split / f"{split}{name}.wav")
            expected[f"{split}{name}.wav"] = {"split": split, "events": json.dumps(found)}
    return expected


def layouts(cards: Any) -> Iterator[tuple[Card, Layout]]:
    yield from ((card, layout) for card in cards for layout in card.layouts)
