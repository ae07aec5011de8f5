"""What the store saves and what it costs, by hand: `python benchmarks/store.py [shared|workers|again|overhead ...]`.

Prints a row of a Markdown table for each question; medians of a few turns. What is compared takes turns within one run
of this file, so that what else the machine does falls on all of it. One thread a process (OMP_NUM_THREADS=1).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy or torch is imported

import numpy as np
from safetensors import safe_open

from earmark import Encoded, Info
from earmark.codecs import registry
from earmark.data import cards
from earmark.store.jobs import prepare, sound_job, tokens_job
from earmark.store.store import Store

if TYPE_CHECKING:
    from earmark.data.cards import Dataset

ROOT = Path(__file__).parent.parent
SPEC = "earmark.benchmarks.store:RandomEncodec"
METRICS = ("pesq_wb", "pesq_nb", "stoi", "estoi", "sdr")  # bound by one core each
SUITE = "suites/test_reconstruction.py"


class RandomEncodec:
    """A codec of EnCodec's size, shape and cost (24 kHz, 6 kbit/s), with random weights."""

    info = Info(
        name="encodec-random", sample_rate=24000, frame_rate=75, codebook_sizes=(1024,) * 8, domains=("speech", "music")
    )

    def __init__(self, _: Info, device: str) -> None:
        import torch
        from transformers import EncodecConfig, EncodecModel

        torch.manual_seed(0)
        self.model = EncodecModel(EncodecConfig()).eval().to(device)

    def encode(self, wav: Any, lengths: Any, _: int) -> Encoded:
        import torch

        with torch.inference_mode():
            codes = self.model.encode(wav, bandwidth=6.0).audio_codes[0]
        return Encoded(codes, (lengths + 319) // 320)

    def decode(self, encoded: Encoded, _: int) -> Any:
        import torch

        with torch.inference_mode():
            return self.model.decode(encoded.codes.clamp(min=0)[None], [None]).audio_values


# -- what is timed ----------------------------------------------------------------------------------------------------


def seconds_of(call: Callable[..., Any], *arguments: Any) -> float:
    started = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - started


def suites(home: Path, *arguments: str) -> None:
    """Run pytest on the suites as a user does. A missed threshold (1) is no matter here; a usage error is."""
    env = os.environ | {"EARMARK_HOME": str(home), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--reports", str(home / "out")]
    done = subprocess.run([*command, *arguments], cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode > 1:
        raise SystemExit(done.stdout + done.stderr)


def turns(count: int, turn: Callable[[Path], dict[str, float]]) -> dict[str, list[float]]:
    """The seconds that `turn` gives, by name, of so many turns, each with an empty folder."""
    found: dict[str, list[float]] = {}
    for _ in range(count):
        with tempfile.TemporaryDirectory() as folder:
            for name, seconds in turn(Path(folder)).items():
                found.setdefault(name, []).append(seconds)
    return found


def median_of(found: dict[str, list[float]], value: Callable[[dict[str, float]], float]) -> str:
    """The median over turns of what is computed from one turn, and its range."""
    each = [value(dict(zip(found, turn, strict=True))) for turn in zip(*found.values(), strict=True)]
    return f"{statistics.median(each):.3g} ({min(each):.3g} to {max(each):.3g})"


def row(question: str, found: dict[str, list[float]], results: dict[str, str]) -> None:
    """One row of the table."""
    seconds = "; ".join(f"{name} {statistics.median(values):.2f} s" for name, values in found.items())
    shown = "; ".join(f"{name} {result}" for name, result in results.items())
    print(f"| {question} | {seconds} | {shown} |", flush=True)


# -- the questions ----------------------------------------------------------------------------------------------------


def shared(count: int) -> None:
    """Two sets of questions to the same sound: each with a store of its own, and both with one."""
    first = (
        SUITE,
        "--codec",
        SPEC,
        "--data",
        "sampler_speech",
        "--limit",
        "48",
        "--preset",
        "paper",
        "-k",
        "mse or bitrate",
    )
    second = (*first[:-1], "test_stoi or mel_loss")

    def turn(folder: Path) -> dict[str, float]:
        alone = [seconds_of(suites, folder / name, *asked) for name, asked in (("a", first), ("b", second))]
        together = [seconds_of(suites, folder / "c", *asked) for asked in (first, second)]
        check_encoded_once(folder / "c")
        return {"two stores": sum(alone), "one store": sum(together), "2nd, own": alone[1], "2nd, shared": together[1]}

    found = turns(count, turn)
    saved = {
        "both faster x": median_of(found, lambda s: s["two stores"] / s["one store"]),
        "second faster x": median_of(found, lambda s: s["2nd, own"] / s["2nd, shared"]),
    }
    row("(a) two suites on the same encodes, 48 clips", found, saved)


def check_encoded_once(home: Path) -> None:
    """Stop where a source file was edited meanwhile: what it made is then made again, and nothing is shared."""
    found = Counter[str]()
    for job in {path.parent for path in (home / "store").rglob("*.safetensors")}:
        with safe_open(next(job.glob("*.safetensors")), "numpy") as shard:
            found.update({name.rpartition("/")[2] for name in shard.keys()})  # noqa: SIM118 - it is no dict
    if not found["codes"] == found["wav"] == 1:
        raise SystemExit(f"encoded {found['codes']} times, decoded {found['wav']}: did the source change meanwhile?")


def workers(count: int) -> None:
    """CPU-bound metrics by one worker and by two, against a bare pool of processes on the same calls."""
    asked = (SUITE, "--codec", "uniform-8bit", "--data", "sampler_speech", "--limit", "64", "--preset", "paper")
    expression = " or ".join(f"test_{name}[" for name in METRICS)

    def turn(folder: Path) -> dict[str, float]:
        suites(folder / "made", *asked, "-k", "bitrate")  # the sound is there
        seconds = {f"pool {n}": pool_seconds(folder / "made", n) for n in (1, 2)}
        for n in (1, 2):
            shutil.copytree(folder / "made", folder / f"{n}")
            options = (*asked, "-k", expression, "-n", str(n))
            seconds[f"-n {n}"] = seconds_of(suites, folder / f"{n}", *options)
            seconds[f"-n {n} again"] = seconds_of(suites, folder / f"{n}", *options)
        return seconds

    found = turns(count, turn)
    row("(b) PESQ, STOI, ESTOI, SDR of 64 clips", found, gains(found))


def gains(found: dict[str, list[float]]) -> dict[str, str]:
    """What a second process gains: the bare pool, whole runs, and runs without what they take when all is there."""

    def pool(s: dict[str, float]) -> float:
        return s["pool 1"] / s["pool 2"]

    def whole(s: dict[str, float]) -> float:
        return s["-n 1"] / s["-n 2"]

    def net(s: dict[str, float]) -> float:
        return (s["-n 1"] - s["-n 1 again"]) / (s["-n 2"] - s["-n 2 again"])

    return {
        "gain of the pool x": median_of(found, pool),
        "of the run x": median_of(found, whole),
        "run / pool": median_of(found, lambda s: whole(s) / pool(s)),
        "beyond start-up, run / pool": median_of(found, lambda s: net(s) / pool(s)),
    }


def pool_seconds(home: Path, processes: int) -> float:
    """Seconds of the bare metric calls in a pool of processes that is warm and holds all sound already."""
    tasks = [(metric, clip) for metric in METRICS for clip in range(64)]
    with get_context("spawn").Pool(processes, initializer=_hold, initargs=(home,)) as pool:
        pool.map(_call, [(metric, 0) for metric in METRICS] * 4, chunksize=1)
        return seconds_of(pool.map, _call, tasks, 1)


_HELD: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}


def _hold(home: Path) -> None:
    """Read all references and estimates of a store, at every rate that a metric takes."""
    import torch

    from earmark.metrics import METRICS as ROWS
    from earmark.scoring.clips import pair

    torch.set_num_threads(1)
    clips, entry = speech(64).clips, registry.find("uniform-8bit")
    sounds = list(Store(home / "store", "cpu", "pool").outcomes(sound_job(entry), clips))
    for rate in {ROWS[name].rate for name in METRICS}:
        made = [pair(clip, sound, rate) for clip, sound in zip(clips, sounds, strict=True)]
        _HELD[rate or 0] = [(reference, estimate) for reference, estimate, _ in made]
        _RATES[rate or 0] = made[0][2]


_RATES: dict[int, int] = {}


def _call(task: tuple[str, int]) -> float:
    from earmark.metrics import METRICS as ROWS
    from earmark.metrics import compute

    metric, clip = task
    rate = ROWS[metric].rate or 0
    reference, estimate = _HELD[rate][clip]
    return float(compute(metric, reference[None], estimate[None], _RATES[rate])[0])


def speech(clips: int) -> Dataset:
    return cards.load(cards.select(["sampler_speech"])[0], clips)


def again(count: int) -> None:
    """A finished run, repeated: seconds beyond those of collecting its tests alone."""
    asked = (SUITE, "--codec", "identity", "--codec", "uniform-8bit", "--data", "sampler")
    with tempfile.TemporaryDirectory() as kept:
        suites(Path(kept), *asked, "-n", "2")

        def turn(_: Path) -> dict[str, float]:
            seconds = {"collect only": seconds_of(suites, Path(kept), *asked, "--collect-only")}
            metrics = (*asked, "-k", "not comes_back")  # without the pictures and players
            seconds["repeated, scores"] = seconds_of(suites, Path(kept), *metrics)
            return seconds | {"repeated, all": seconds_of(suites, Path(kept), *asked)}

        found = turns(count, turn)
    beyond = {
        "scores, beyond (s)": median_of(found, lambda s: s["repeated, scores"] - s["collect only"]),
        "all, beyond (s)": median_of(found, lambda s: s["repeated, all"] - s["collect only"]),
    }
    row("(c) a finished run of 2 codecs on the sampler, repeated", found, beyond)


def overhead(count: int) -> None:
    """Tokens of 24 clips through the store, into an empty folder, against the bare calls on sound that is in memory."""
    import torch

    torch.set_num_threads(1)
    entry, clips = registry.find(SPEC), speech(24).clips
    store = Store(Path("unused"), "cpu", "benchmark")
    store.adapter(entry)
    fingerprint_s = seconds_of(store.fingerprint, entry)
    wavs = [torch.from_numpy(prepare(clip, 24000, 1).wav)[None] for clip in clips]

    def bare() -> None:
        for wav in wavs:
            store.adapter(entry).encode(wav, torch.tensor([wav.shape[2]]), 0)

    def turn(folder: Path) -> dict[str, float]:
        store.root = folder
        bare_s, store_s = seconds_of(bare), seconds_of(lambda: list(store.outcomes(tokens_job(entry), clips)))
        return {"bare": (bare_s + seconds_of(bare)) / 2, "store": store_s}  # before and after

    bare()
    found = turns(count, turn)
    costs = {"store / bare": median_of(found, lambda s: s["store"] / s["bare"])}
    row("(d) encoding 24 clips, EnCodec-sized", found, costs | {"once a run, fingerprint (s)": f"{fingerprint_s:.2f}"})


QUESTIONS = {"shared": (shared, 5), "workers": (workers, 5), "again": (again, 5), "overhead": (overhead, 5)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("questions", nargs="*", choices=[[], *QUESTIONS], help="default: all")
    print("| question | seconds, medians | median (range) |\n| --- | --- | --- |", flush=True)
    for name in parser.parse_args().questions or QUESTIONS:
        question, count = QUESTIONS[name]
        question(count)
    print(f"\n{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
