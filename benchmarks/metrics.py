"""Clips a second of every metric, by hand: `python -m earmark.benchmarks.metrics [metric ...]`.

On real speech (EARMARK_DATA; LibriSpeech, 100 clips) and what Opus at 12 kbit/s makes of it: on one core, on two, and
the peak memory of a process that measures nothing else; then the totals of the sets that the two benchmarks publish.
Start-up and the first clip of each process are not counted. One thread a process.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from multiprocessing import get_context

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy or torch is imported

import numpy as np

CLIPS, HEAVY_CLIPS = 100, 20
CODEC = "opus-12"
AUDIOCODECBENCH = (
    "pesq_wb",
    "stoi",
    "visqol_speech",
    "mel_distance_7scale",
    "wer_pocketsphinx",
    "speaker_similarity_resemblyzer",
)
CODECBENCH = (
    "mel_loss", "mse", "spectral_convergence", "sdr", "si_sdr", "pesq_nb", "pesq_wb", "stoi", "visqol_audio",
    "speaker_similarity_resemblyzer",
)  # fmt: skip
_PAIRS: list[tuple[np.ndarray, np.ndarray, str]] = []


def read_pairs(count: int) -> list[tuple[np.ndarray, np.ndarray, str]]:
    """References and estimates float32 [L] at 16 kHz, and what was said."""
    import torch

    from earmark.codecs import calls, registry
    from earmark.data import cards
    from earmark.store.jobs import prepare

    entry = registry.find(CODEC)
    codec, found = registry.load(entry, "cpu"), []
    names = ["librispeech_test_other", "librispeech_train_clean_100"]
    for clip in [clip for card in cards.select(names) for clip in cards.load(card).clips][:count]:
        from earmark.data.audio import resample

        sound = prepare(clip, entry.info.sample_rate, 1)
        wav = torch.from_numpy(sound.wav)[None]
        decoded, _ = calls.reconstruct(codec, entry.info, wav, torch.tensor([wav.shape[2]]), 0)
        estimate = resample(decoded[0].numpy(), sound.sample_rate, 16_000)[0]
        reference = prepare(clip, 16_000, 1).wav[0]
        length = min(len(reference), len(estimate))
        found.append((reference[:length], estimate[:length], clip.fields.get("transcript") or "nothing"))
    return found


def hold(pairs: list[tuple[np.ndarray, np.ndarray, str]]) -> None:
    import torch

    torch.set_num_threads(1)
    _PAIRS[:] = pairs


def measure(task: tuple[str, int]) -> float:
    """Score one clip; the peak memory of this process in MB."""
    from earmark.metrics import compute, find

    name, at = task
    metric, (reference, estimate, said) = find(name), _PAIRS[at]
    if metric.kind == "transcript":
        assert metric.model is not None
        metric.load()(said, metric.model.load().transcribe(estimate))
    else:
        compute(name, reference[None], estimate[None], 16_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(name: str, clips: int, processes: int, pairs: list) -> tuple[float, float]:
    """Seconds for so many clips in warm processes, and the peak memory of the largest."""
    with get_context("spawn").Pool(processes, initializer=hold, initargs=(pairs[:clips],)) as pool:
        pool.map(measure, [(name, 0)] * 4 * processes, chunksize=1)
        started = time.perf_counter()
        peak = max(pool.map(measure, [(name, at) for at in range(clips)], chunksize=1))
        return time.perf_counter() - started, peak


def main() -> None:
    from earmark.metrics import METRICS

    chosen = sys.argv[1:] or [
        name
        for name, metric in METRICS.items()
        if metric.kind in ("pair", "estimate", "transcript") and metric.of == "estimate" and not metric.missing()
        if not (metric.aligned or metric.native)
    ]
    pairs, each = read_pairs(CLIPS), {}
    seconds = sum(len(reference) for reference, _, _ in pairs) / 16_000
    print(f"{len(pairs)} clips, {seconds / len(pairs):.1f} s on average; {CODEC}\n")
    print("| metric | clips | ms a clip, one core | clips/s, one core | clips/s, two | gain | peak, MB |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name in chosen:
        clips = HEAVY_CLIPS if METRICS[name].heavy else CLIPS
        (one, peak), (two, _) = timed(name, clips, 1, pairs), timed(name, clips, 2, pairs)
        each[name] = (one / clips, two / clips)
        rates = f"{clips / one:.1f} | {clips / two:.1f} | {one / two:.2f}"
        print(f"| {name} | {clips} | {1000 * one / clips:.1f} | {rates} | {peak:.0f} |", flush=True)
    for title, names in (("AudioCodecBench", AUDIOCODECBENCH), ("CodecBench", CODECBENCH)):
        if set(names) <= set(each):
            one, two = (CLIPS * sum(each[name][at] for name in names) for at in (0, 1))
            print(f"\n{title}, {CLIPS} clips: {one:.0f} s on one core, {two:.0f} s on two ({', '.join(names)})")
    print(f"\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
