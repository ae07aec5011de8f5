"""Make the sampler: the small embedded data with which every kind of task runs offline.

    python -m earmark.data.sampler.make --out FOLDER [--seed 0]

writes `manifest.csv` and mono 24 kHz 16-bit FLAC files in `speech`, `music`, `notes` and `sounds`. Runs use the
committed files; this script shows where they came from. On one machine it makes the same bytes again; other versions of
espeak-ng, fluidsynth, numpy or libsndfile may make others. It needs espeak-ng, fluidsynth, fluid-soundfont-gm and mido,
none of which a run needs.

Splits go by fold, and a fold holds whole groups: the last fold is `test`, the one before it `valid`, the others
`train`.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile

from earmark.data.sampler import make_music, make_sounds, make_speech
from earmark.data.sampler.tools import SAMPLE_RATE, Made, ToolMissingError, run

# The two lowest of the 16 bits are zero: the noise of that is at -89 dBFS, and the files are a quarter smaller.
BITS = 14

# dataset: its maker, its domain, its number of folds
MAKERS: dict[str, tuple[Callable[[int], Iterator[Made]], str, int]] = {
    "sampler_speech": (make_speech.clips, "speech", 5),
    "sampler_music": (make_music.music, "music", 4),
    "sampler_notes": (make_music.notes, "music", 5),
    "sampler_sounds": (make_sounds.clips, "sound", 5),
}
COLUMNS = (
    *("path", "dataset", "split", "domain", "seconds", "sample_rate", "channels", "sha256", "label", "speaker", "sex"),
    *("fold", "transcript", "reference", "licence", "source", "note", "group"),
    *("text", "language", "voice", "sentence", "sentence_fold", "phrase", "emotion", "language_id"),
    *("style", "key", "chord", "tempo_bpm", "dynamics", "instruments", "arousal", "valence"),
    *("instrument", "pitch", "level", "events", "tags", "caption"),
)


def versions() -> dict[str, str]:
    """What made each dataset, as the manifest's `source` says it."""
    speech = "espeak-ng " + run("espeak-ng", "--version").split("text-to-speech:")[1].split()[0]
    music = "fluidsynth " + run("fluidsynth", "--version").split("version")[1].split()[0] + " with FluidR3_GM"
    sounds = f"numpy {np.__version__}"
    return {"sampler_speech": speech, "sampler_music": music, "sampler_notes": music, "sampler_sounds": sounds}


def write(made: Made, out: Path) -> dict[str, object]:
    """Write one clip; return what the manifest says of its file. Raises ValueError where its audio will not do."""
    peak = np.abs(made.wav).max()
    if not 0.2 <= peak <= 0.98:
        raise ValueError(f"{made.folder}/{made.name}: its peak is {peak:.3f}, expected 0.2 to 0.98")
    path = out / made.folder / f"{made.name}.flac"
    path.parent.mkdir(parents=True, exist_ok=True)
    wav = np.round(made.wav * 2 ** (BITS - 1)) / 2 ** (BITS - 1)
    soundfile.write(path, wav, SAMPLE_RATE, subtype="PCM_16", compression_level=1.0)
    return {
        "path": path.relative_to(out).as_posix(),
        "seconds": round(len(made.wav) / SAMPLE_RATE, 6),
        "sample_rate": SAMPLE_RATE,
        "channels": 1,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def split(fold: int, folds: int) -> str:
    """
    >>> [split(fold, 5) for fold in range(1, 6)]
    ['train', 'train', 'train', 'valid', 'test']
    """
    return {folds: "test", folds - 1: "valid"}.get(fold, "train")


def rows(seed: int, out: Path) -> Iterator[dict[str, object]]:
    """Make every clip; yield its row of the manifest."""
    sources = versions()
    for dataset, (maker, domain, folds) in MAKERS.items():
        for made in maker(seed):
            facts = {"dataset": dataset, "domain": domain, "licence": "CC0-1.0", "source": sources[dataset]}
            part = split(int(made.labels["fold"]), folds)
            yield facts | {"split": part, "note": "synthetic"} | dict(made.labels) | write(made, out)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the sampler.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        made = list(rows(options.seed, options.out))
    except ToolMissingError as error:
        sys.exit(f"make.py: {error}")
    with (options.out / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(made)
    print(f"{len(made)} clips, {sum(float(str(row['seconds'])) for row in made) / 60:.1f} minutes, in {options.out}")


if __name__ == "__main__":
    main()
