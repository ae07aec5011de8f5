"""Prints the tables of `tiny`'s model card.

    EARMARK_DATA=... python -m earmark.training.evaluate_tiny [--parts speech,use,speed,other] [--limit N]

speech  STOI, ESTOI and PESQ-wb on librispeech_test_other at each K, and of a codec without a network at 4 kbps; paired
        differences.
use     how much of each codebook half an hour of audio uses.
speed   real-time factors on one thread.
other   mel distances on music and sound, beside Opus and Lyra.

Means have 95 % intervals by bootstrap over speakers or recordings.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from earmark import metrics
from earmark.codecs import calls, registry
from earmark.codecs.tiny.model import BOOKS, DELAY, DIM, ENTRIES, SAMPLE_RATE, count
from earmark.data import audio
from earmark.reports.intervals import mean_with_interval
from earmark.training.mdct_rvq import MdctRvq

SPEECH = ("stoi", "estoi", "pesq_wb")
OTHER = ("mel_loss", "mel_distance_7scale")
NAMES = ("tiny-1", "tiny-2", "tiny-4", "tiny-8")
BESIDE = ("opus-6", "opus-12", "lyra-3.2")
PIECE_S, USE_S = 5, 30 * 60
UNHEARD = {"music/encodec_test_48k.wav", "music/encodec_test_24k.wav", "conformance/glock48_stereo.wav"}

Codec = Callable[[np.ndarray, int], np.ndarray]  # clip float32 [L] at a rate in Hz -> the same, decoded


class Clip(NamedTuple):
    """wav float32 [L] at `rate` Hz; `group` is its speaker or recording."""

    name: str
    group: str
    wav: np.ndarray
    rate: int


def load(name: str) -> Codec:
    """A codec of the catalogue as a function of a clip at any rate."""
    entry = registry.find(name)
    adapter, rate = registry.load(entry, "cpu"), entry.info.sample_rate or SAMPLE_RATE

    def run(wav: np.ndarray, hz: int) -> np.ndarray:
        there = torch.from_numpy(audio.resample(wav[None], hz, rate))[None]
        decoded, _ = calls.reconstruct(adapter, entry.info, there, torch.tensor([there.shape[-1]]), 0)
        back = audio.resample(decoded[0, :, : there.shape[-1]].numpy(), rate, hz)[0]
        return np.pad(back, (0, max(0, len(wav) - len(back))))[: len(wav)]

    return run


def manifest(keep: Callable[[dict[str, str]], bool], seconds: float = 1e9) -> Iterable[Clip]:
    """The clips of EARMARK_DATA that are wanted, mixed to mono, up to so many seconds of each."""
    root = Path(os.environ["EARMARK_DATA"])
    with (root / "manifest.csv").open(newline="") as file:
        for row in filter(keep, csv.DictReader(file)):
            wav, rate = audio.read(root / row["path"], row["sha256"])
            yield Clip(row["path"], row["speaker"] or row["path"], wav.mean(0)[: int(seconds * rate)], rate)


def test_speech(row: dict[str, str]) -> bool:
    return row["dataset"] == "librispeech_test_other"


def score(clips: Iterable[Clip], codec: Codec, names: Iterable[str]) -> dict[str, dict[str, float]]:
    """Metric -> clip -> value. A clip without an answer (silence) is left out of that metric."""
    found: dict[str, dict[str, float]] = {name: {} for name in names}
    for clip in clips:
        decoded = codec(clip.wav, clip.rate)
        for name, values in found.items():
            try:
                values[clip.name] = float(metrics.compute(name, clip.wav[None], decoded[None], clip.rate)[0])
            except metrics.MetricError as error:
                print(f"left out: {error}", flush=True)
    return found


def interval(values: dict[str, float], groups: dict[str, str], digits: int = 3) -> str:
    """Mean and its interval as text."""
    mean, low, high, _ = mean_with_interval(values, groups)
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def head(*cells: str) -> None:
    print()
    row(*cells)
    row(*["---"] * len(cells))


def speech(limit: int | None) -> None:
    """The table of speech, and that of paired differences."""
    clips = list(manifest(test_speech))[:limit]
    groups = {clip.name: clip.group for clip in clips}
    baseline = MdctRvq()
    codecs = {"MDCT, k-means, 4 kbps": lambda wav, _hz: baseline(wav)} | {name: load(name) for name in NAMES}
    head(f"{len(clips)} clips", "STOI", "ESTOI", "PESQ-wb")
    found = {}
    for name, codec in codecs.items():
        found[name] = score(clips, codec, SPEECH)
        row(name, *(interval(values, groups) for values in found[name].values()))
    head("difference", "STOI", "ESTOI", "PESQ-wb")
    for low, high in zip(("MDCT, k-means, 4 kbps", *NAMES[:-1]), ("tiny-8", *NAMES[1:]), strict=True):
        pairs = zip(found[low].values(), found[high].values(), strict=True)
        cells = [interval({clip: b[clip] - a[clip] for clip in a.keys() & b.keys()}, groups) for a, b in pairs]
        row(f"{high} - {low}", *cells)


def half_an_hour(limit: int | None) -> Iterable[np.ndarray]:
    """Speech and sound at 16 kHz: what training did not see first, then LibriSpeech train-clean-100."""
    unseen = [test_speech, lambda row: row["dataset"] == "fsdd", lambda row: row["fold"] == "5"]
    seen = [lambda row: row["dataset"] == "librispeech_train_clean_100"]
    left = USE_S * SAMPLE_RATE if limit is None else limit * 5 * SAMPLE_RATE
    for keep in unseen + seen:
        for clip in manifest(keep):
            wav = audio.resample(clip.wav[None], clip.rate, SAMPLE_RATE)[0][:left]
            left -= len(wav)
            if len(wav):
                yield wav


def use(limit: int | None) -> None:
    """Entries of each codebook that are used, and the perplexity of their use."""
    entry = registry.find("tiny-8")
    adapter, counts, seconds = registry.load(entry, "cpu"), torch.zeros(BOOKS, ENTRIES), 0.0
    for wav in half_an_hour(limit):
        codes = calls.encode(adapter, entry.info, torch.from_numpy(wav)[None, None], torch.tensor([len(wav)]), 0).codes
        counts += torch.stack([torch.bincount(book, minlength=ENTRIES) for book in codes[0]])
        seconds += len(wav) / SAMPLE_RATE
    shares = counts / counts.sum(-1, keepdim=True)
    head(f"codebook, over {seconds / 60:.1f} min", *map(str, range(1, BOOKS + 1)))
    row(f"entries used of {ENTRIES}", *(counts > 0).sum(-1).tolist())
    row("perplexity", *(round(float(x)) for x in torch.special.entr(shares).sum(-1).exp()))


def speed(limit: int | None) -> None:
    """Seconds of work a second of sound on one thread, best of five, and the network's size."""
    del limit
    torch.set_num_threads(1)
    entry = registry.find("tiny-8")
    adapter, wav = registry.load(entry, "cpu"), 0.1 * torch.randn(1, 1, 10 * SAMPLE_RATE)
    lengths = torch.tensor([wav.shape[-1]])
    encoded = calls.encode(adapter, entry.info, wav, lengths, 0)
    coding = best(lambda: calls.encode(adapter, entry.info, wav, lengths, 0)) / 10
    decoding = best(lambda: calls.decode(adapter, entry.info, encoded, wav, 0)) / 10
    head("numbers in the weights", "of them codebooks", "delay (ms)", "encode (s/s)", "decode (s/s)", "times real time")
    books, delay = BOOKS * ENTRIES * DIM, 1000 * DELAY / SAMPLE_RATE
    times = f"{1 / (coding + decoding):.0f}"
    row(count(adapter.model), books, f"{delay:.0f}", f"{coding:.4f}", f"{decoding:.4f}", times)


def best(work: Callable[[], object], times: int = 5) -> float:
    """The shortest of some runs, in seconds."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def pieces(clips: Iterable[Clip]) -> Iterable[Clip]:
    """Clips cut into pieces of five seconds, grouped by recording."""
    for clip in clips:
        size = PIECE_S * clip.rate
        for i in range(max(1, len(clip.wav) // size)):
            yield Clip(f"{clip.name}:{i}", clip.name, clip.wav[i * size : (i + 1) * size], clip.rate)


def other(limit: int | None) -> None:
    """Music and sound that training did not see, beside codecs of higher and lower rate."""
    sets = {
        "sound (ESC-10, fold 5)": list(pieces(manifest(lambda row: row["fold"] == "5" and row["dataset"] == "esc10"))),
        "music (three recordings)": list(pieces(manifest(lambda row: row["path"] in UNHEARD))),
    }
    there = registry.catalogue()
    for title, clips in sets.items():
        head(f"{title}, {len(clips[:limit])} pieces", *OTHER)
        for name in NAMES + tuple(name for name in BESIDE if name in there and registry.status(there[name]).ready):
            found = score(clips[:limit], load(name), OTHER)
            groups = {clip.name: clip.group for clip in clips}
            row(name, *(interval(values, groups) for values in found.values()))


PARTS = {"speech": speech, "use": use, "speed": speed, "other": other}


def main() -> None:
    """Print the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--limit", type=int, help="first clips only: a quick look")
    args = parser.parse_args()
    for part in args.parts.split(","):
        with torch.inference_mode():
            PARTS[part](args.limit)


if __name__ == "__main__":
    main()
