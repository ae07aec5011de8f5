"""Speech corpora with layouts of their own: LibriSpeech and LibriTTS, AISHELL-1, Kaldi folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from earmark.data.layouts.rows import LayoutError, Row, find, one, relative


def librispeech(root: Path, splits: Mapping[str, str]) -> Iterator[Row]:
    """`<part>/<speaker>/<chapter>/<id>.flac` with *.trans.txt (LibriSpeech), or .wav with .normalized.txt (LibriTTS).

    splits: split -> the corpus' part, as in `train: train-clean-100`. The sex of a speaker is in SPEAKERS.TXT or
    speakers.tsv. Transcripts are in lower case.
    """
    sexes = _sexes(root)
    for split, part in splits.items():
        files = [path for kind in ("flac", "wav") for path in sorted(root.glob(f"**/{part}/*/*/*.{kind}"))]
        if not files:
            raise LayoutError(f"{root}: no {part}/<speaker>/<chapter>/*.flac (or .wav)")
        texts: dict[str, str] = {}
        for path in files:
            if path.stem not in texts:
                texts |= _transcripts(path)
            speaker = path.parent.parent.name
            columns = {"split": split, "speaker": speaker, "transcript": texts.get(path.stem, ""), "part": part}
            yield Row(relative(path, root), columns | ({"sex": sexes[speaker]} if speaker in sexes else {}))


def _transcripts(audio: Path) -> dict[str, str]:
    """Utterance -> words, of the utterance (LibriTTS) or of its whole chapter (LibriSpeech)."""
    beside = audio.with_suffix(".normalized.txt")
    if beside.is_file():
        return {audio.stem: beside.read_text(encoding="utf-8").strip().lower()}
    found: dict[str, str] = {}
    for path in audio.parent.glob("*.trans.txt"):
        found |= {name: words.lower() for name, words in _pairs(path)}
    return found


def _pairs(path: Path) -> list[tuple[str, str]]:
    """Lines of a name and, after a space, the rest."""
    lines = path.read_text(encoding="utf-8").splitlines()
    parted = (line.strip().split(maxsplit=1) for line in lines if line.strip())
    return [(parts[0], parts[1] if len(parts) > 1 else "") for parts in parted]


def _sexes(root: Path) -> dict[str, str]:
    """Speaker -> M or F."""
    for path in [*root.glob("**/SPEAKERS.[tT][xX][tT]"), *root.glob("**/speakers.tsv")]:
        separator = "\t" if path.suffix == ".tsv" else "|"
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith(";")]
        cells = [[cell.strip() for cell in line.split(separator)] for line in lines]
        return {row[0]: row[1] for row in cells if len(row) > 1 and row[1] in ("M", "F")}
    return {}


def aishell(root: Path) -> Iterator[Row]:
    """AISHELL-1: `wav/<split>/<speaker>/<id>.wav` and one table of transcripts, its words parted by spaces."""
    texts = dict(_pairs(one(root, "**/transcript/aishell_transcript_v0.8.txt")))
    for path in find(root, "**/wav/*/*/*.wav"):
        if path.stem not in texts:  # a few recordings have no transcript, so nobody uses them
            continue
        split = {"dev": "valid"}.get(path.parts[-3], path.parts[-3])
        columns = {"split": split, "speaker": path.parent.name, "transcript": texts[path.stem].replace(" ", "")}
        yield Row(relative(path, root), columns)


def kaldi(root: Path, splits: Mapping[str, str], columns: Mapping[str, str] | None = None) -> Iterator[Row]:
    """Kaldi's data folders: `wav.scp`, `text`, `utt2spk`; splits: split -> pattern of the folder.

    columns: our name -> another file of utterance (or speaker) and value, as in `sex: spk2gender`.
    """
    for split, pattern in splits.items():
        folder = one(root, f"{pattern}/wav.scp").parent
        texts, speakers = dict(_pairs(folder / "text")), dict(_pairs(folder / "utt2spk"))
        more = {ours: dict(_pairs(folder / theirs)) for ours, theirs in (columns or {}).items()}
        for name, wav in _pairs(folder / "wav.scp"):
            path = root / wav
            if not path.is_file():
                raise LayoutError(
                    f"{folder / 'wav.scp'}: {path} is not there; --root is the folder that paths start from"
                )
            found = {ours: values.get(name) or values.get(speakers[name], "") for ours, values in more.items()}
            yield Row(
                relative(path, root),
                {"split": split, "speaker": speakers[name], "transcript": texts.get(name, "").lower(), **found},
            )
