"""Processes beside a worker: what needs no model (PESQ, STOI, SDR: a core each) runs on the cores that workers leave.

An engine of the store: `devices.cores_of` single-threaded processes make the shards of such jobs by the same
function, locks and files as the worker itself; jobs of a codec, and those of a few shards, stay with the worker. A
process that dies leaves its note beside the shard, as a worker does: the pool is built anew, and what has ended two
processes is given up. Processes end with their worker, however that ends.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from pathlib import Path

from earmark.data.manifest import Clip
from earmark.store.jobs import Job
from earmark.store.store import Slices, Store, fill

FEWEST = 8  # shards for which processes are worth their start, some seconds
MOST = 16  # processes beside a worker; each holds some 400 MB


class Pool:
    """The engine: `pool(store, job, missing)`. Its processes start when they are first needed."""

    def __init__(self, processes: int) -> None:
        self.processes = processes
        self._executor: ProcessPoolExecutor | None = None

    def __call__(self, store: Store, job: Job, missing: Slices) -> None:
        if job.model or self.processes < 2 or (len(missing) < FEWEST and self._executor is None):
            return fill(store, job, missing)
        while not self._make(store, job, missing):
            for path in [path for path in missing if path.with_suffix(".attempts").exists()]:
                self._make(store, job, {path: missing[path]})  # alone: all end with one that dies; which was it?
        return fill(store, job, missing)  # what other workers are still at

    def _make(self, store: Store, job: Job, missing: Slices) -> bool:
        """Make the missing shards that no other worker is at; False where a process died of one of them."""
        executor, known = self._running(), {job.entry.name: store.fingerprint(job.entry)}
        try:
            futures: dict[Future[bool], Sequence[Clip]] = {
                executor.submit(_make_shard, store, known, job, path, clips): clips for path, clips in missing.items()
            }
            for future in as_completed(futures):
                if future.result() and store.notify:
                    store.notify("made", len(futures[future]), job.entry.name)
        except BrokenProcessPool:
            self.close()
            return False
        return True

    def _running(self) -> ProcessPoolExecutor:
        if self._executor is None:
            context = multiprocessing.get_context("spawn")  # a forked CUDA or OpenMP does not work
            self._executor = ProcessPoolExecutor(self.processes, mp_context=context, initializer=_begin)
        return self._executor

    def close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None


def _make_shard(store: Store, fingerprints: dict[str, str], job: Job, path: Path, clips: Sequence[Clip]) -> bool:
    """In a process of the pool: make a shard unless another is at it. No codec is loaded to know its fingerprint."""
    store.know(fingerprints)
    return store.make_if_free(job, path, clips)


def _begin() -> None:
    """In a new process: one thread, no accelerator, and an end when the worker ends, even when that is killed."""
    os.environ["OMP_NUM_THREADS"] = "1"  # before numpy's and torch's libraries start theirs
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
