"""Hugging Face `datasets`: repositories as they lie on the hub, and folders that `save_to_disk` wrote.

Audio inside Arrow or Parquet has no file of its own: its bytes are handed over as they are, nothing is decoded.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from earmark.data.layouts.rows import LayoutError, Row, find, mapped, relative, renamed
from earmark.data.manifest import as_text


def read(
    root: Path,
    files: Mapping[str, str] | str,
    audio: str = "audio",
    columns: Mapping[str, str] | None = None,
    values: Mapping[str, Mapping[str, str]] | None = None,
    side: str = "split",
    pairs: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[Row]:
    """Each row of each file (.parquet, .arrow); files: a pattern, or side -> pattern. columns: our name -> theirs.
    pairs: their column of several numbers -> our names of them.

    Audio is an `Audio` feature (its bytes, or a file beside it), or samples and their rate.
    """
    named = files.items() if isinstance(files, Mapping) else [("", files)]
    for name, pattern in named:
        for file in find(root, pattern):
            for number, row in enumerate(_rows(file)):
                if audio not in row:
                    raise LayoutError(f"{file}: no column {audio!r}; it has {', '.join(row)}")
                for theirs, ours in (pairs or {}).items():
                    row |= dict(zip(ours, row[theirs], strict=True))
                text = {key: as_text(value) for key, value in row.items() if key != audio}
                wanted = {**(columns or {}), **{name: name for ours in (pairs or {}).values() for name in ours}}
                labels = mapped(({side: name} if name else {}) | renamed(text, wanted, file), values or {}, file)
                yield _row(root, file, number, row[audio], labels)


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file; class labels as their names, audio as it is stored."""
    import datasets

    if file.suffix == ".arrow":
        table = datasets.Dataset.from_file(str(file))
    else:
        table = datasets.Dataset.from_parquet(str(file), cache_dir=None, keep_in_memory=True)
    for name, feature in table.features.items():
        if isinstance(feature, datasets.Audio):
            table = table.cast_column(name, datasets.Audio(decode=False))
    names = {name: feature for name, feature in table.features.items() if isinstance(feature, datasets.ClassLabel)}
    for row in table:
        yield row | {name: feature.int2str(row[name]) for name, feature in names.items() if row[name] is not None}


def _row(root: Path, file: Path, number: int, audio: Any, labels: dict[str, str]) -> Row:
    where = f"{relative(file, root)}/{number:06d}"
    if isinstance(audio, bytes):
        audio = {"bytes": audio}
    if not isinstance(audio, Mapping):
        raise LayoutError(f"{file}: row {number}: expected audio, got {type(audio).__name__}")
    if audio.get("bytes"):
        suffix = Path(audio.get("path") or "").suffix or _suffix(audio["bytes"])
        return Row(f"{where}{suffix}", labels, content=audio["bytes"])
    if audio.get("array") is not None:
        return Row(f"{where}.wav", labels, content=_wav(audio["array"], int(audio["sampling_rate"])))
    beside = file.parent / str(audio.get("path"))
    if not beside.is_file():
        raise LayoutError(f"{file}: row {number}: neither audio nor the file {beside}")
    return Row(relative(beside, root), labels)


def _suffix(content: bytes) -> str:
    """By the first bytes, as rows may not name a file."""
    for start, suffix in ((b"RIFF", ".wav"), (b"fLaC", ".flac"), (b"OggS", ".ogg")):
        if content.startswith(start):
            return suffix
    return ".m4a" if content[4:8] == b"ftyp" else ".mp3"


def _wav(samples: Any, sample_rate: int) -> bytes:
    """Samples as they are, in a WAV file of floats."""
    import soundfile

    file, wav = io.BytesIO(), np.asarray(samples, np.float32)
    soundfile.write(
        file, wav.T if wav.ndim > 1 and len(wav) < wav.shape[1] else wav, sample_rate, "FLOAT", format="WAV"
    )
    return file.getvalue()
