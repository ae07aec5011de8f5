"""Shards a second of the Ray engine against the local one, by hand: `python -m earmark.benchmarks.ray_engine`.

Shards of 8 short clips, a codec that spends about 50 ms of one core on each clip, two CPUs: two processes that share a
store (as `-n 2` does) against Ray. Both are warm (processes started, codec loaded) and take turns, so that what else
the machine does falls on both; medians of 3.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from earmark import Info
from earmark.codecs import registry
from earmark.data import cards
from earmark.data.manifest import SHARD_CLIPS
from earmark.store.jobs import sound_job
from earmark.store.store import Store
from earmark.tests.helpers import voice, write_dataset

WORKERS, REPEATS, CLIP_S = 2, 5, 0.05


class Busy:
    """Gives back what it gets, after a fixed amount of work in numpy on one core."""

    info = Info(name="busy", sample_rate=16000)

    def __init__(self, info: Info, device: str) -> None: ...

    def reconstruct(self, wav: Any, *_: Any) -> tuple[Any, None]:
        work(ROUNDS)
        return wav.clone(), None


def work(rounds: int) -> None:
    values = np.linspace(0.0, 1.0, 50_000)
    for _ in range(rounds):
        values = np.sort(np.sin(values))


ROUNDS = int(os.environ.get("EARMARK_BENCHMARK_ROUNDS", "1"))


def rounds_of(seconds: float) -> int:
    """How often `work` goes round in so many seconds on an idle core."""
    work(20)
    started = time.perf_counter()
    work(100)
    return round(seconds * 100 / (time.perf_counter() - started))


def ensure(root: Path, shards: int) -> None:
    """Fill a store in this process, and together with whoever else does."""
    Store(root, "cpu", "run").ensure(*job_of(shards))


def job_of(shards: int) -> tuple[Any, Any]:
    dataset = cards.load(cards.select(["busy"])[0])
    return sound_job(registry.find("earmark.benchmarks.ray_engine:Busy")), dataset.clips[: shards * SHARD_CLIPS]


def seconds_of(fill: Callable[[Path, int], None], root: Path, shards: int) -> float:
    """Seconds to fill an empty store."""
    started = time.perf_counter()
    fill(root, shards)
    return time.perf_counter() - started


def local(root: Path, shards: int) -> None:
    """By the processes of the pool, which share the store."""
    for task in [_POOL[0].submit(ensure, root, shards) for _ in range(WORKERS)]:
        task.result()


def by_ray(root: Path, shards: int) -> None:
    """By the tasks of a cluster on this machine."""
    import ray

    from earmark.store.ray_engine import connect

    if not ray.is_initialized():
        ray.init("local", num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
    Store(root, "cpu", "run", connect(None)).ensure(*job_of(shards))


_POOL: list[ProcessPoolExecutor] = []
ENGINES = {f"local, {WORKERS} processes": local, f"ray, {WORKERS} CPUs": by_ray}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=40)
    shards = parser.parse_args().shards
    os.environ |= {"EARMARK_BENCHMARK_ROUNDS": str(rounds_of(CLIP_S)), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(WORKERS, get_context("spawn")) as pool:
        _POOL.append(pool)
        print_table(measured(Path(folder), shards), shards)


def measured(folder: Path, shards: int) -> dict[str, list[float]]:
    """Seconds of each engine, in turns, after a warm-up of a few shards."""
    wavs = {f"{i:04}.flac": voice(0.2, 16000, 100 + i) for i in range(shards * SHARD_CLIPS)}
    os.environ["EARMARK_DATA"] = str(write_dataset(folder / "data", wavs, dataset="busy", domain="speech"))
    for name, fill in ENGINES.items():
        fill(folder / f"{name} warm", 2 * WORKERS)
    found: dict[str, list[float]] = {name: [] for name in ENGINES}
    for turn in range(REPEATS):
        for name, fill in ENGINES.items():
            found[name].append(seconds_of(fill, folder / f"{name} {turn}", shards))
    return found


def print_table(found: dict[str, list[float]], shards: int) -> None:
    base = statistics.median(next(iter(found.values())))
    print(f"| engine | s for {shards} shards: median (all) | shards/s | of local |\n| --- | --- | --- | --- |")
    for name, seconds in found.items():
        median, each = statistics.median(seconds), ", ".join(f"{value:.2f}" for value in seconds)
        print(f"| {name} | {median:.2f} ({each}) | {shards / median:.2f} | {base / median:.2f} |")


if __name__ == "__main__":
    main()
