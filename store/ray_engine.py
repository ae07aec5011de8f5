"""The Ray engine: each missing shard is a task of a Ray cluster, which runs the function that the local engine runs.

A task of a job that runs the codec takes one GPU where the store's device is CUDA, and one CPU elsewhere; what needs
no model takes one CPU. A worker process keeps its codec loaded from task to task. Results go through the shared file
system and not through Ray's object store: a task publishes its shard and returns what it made, so that any number of
runs share one cluster and one store, and a run that is stopped loses only the shards in the making.

What a cluster needs, on every node:

* one folder, shared and at the same path, as EARMARK_HOME (store and weights), with working `flock` (NFS 4 has it);
* the recordings at the same path (EARMARK_DATA), and the same versions of Earmark, of the codec and of its packages. A
  node whose codec, code or packages give a shard another address than the caller's does not make it: an error says so;
* a caller with the kind of device that the tasks have: the address of a shard depends on it;
* Ray's own token, where it asks for one (RAY_AUTH_MODE).

Environment variables and import paths of the caller go with it (`runtime_env`), so that a codec of one's own, in the
folder where pytest is started, is found on every node that has that folder. Nothing is uploaded.

With no address, Ray joins the cluster of RAY_ADDRESS or of this machine, else starts one here; RAY_ADDRESS then names
it to the processes started from here, so that all workers of pytest-xdist share the one that their controller started.
"""

from __future__ import annotations

import functools
import gc
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import ray
from ray.exceptions import RayError, RayTaskError

from earmark import paths
from earmark.data.manifest import Clip
from earmark.store.jobs import Job
from earmark.store.shards import StoreError
from earmark.store.store import DEATHS, Slices, Store

Notes = list[tuple[str, int, str]]  # what `Store.notify` was told in a task

NAMESPACE = "earmark"
MOST_FAILURES = 16  # after as many failed shards no more are begun: the codec or the disk is at fault, not a shard
IDLE_S = 60  # an idle worker process gives its GPU's memory back after this
_WINDOW = 256  # tasks waiting or running at least; on a large cluster _PER_SLOT for each task that it can run at once
_PER_SLOT = 4
_WAIT_S = 0.2  # until a shard that another run is making is looked at again
_BEAT_S = 10
_PASSED_ON = ("EARMARK_DATA", "HF_HOME", "HF_HUB_OFFLINE", "HF_TOKEN_PATH")


def connect(address: str | None) -> Callable[[Store, Job, Slices], None]:
    """Join the cluster at an address ("host:6379"; None: see above), and give the engine that fills stores by it.

    Raises ConnectionError where there is no cluster at that address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would send statistics of its use to its makers
    ray.init(
        address,
        ignore_reinit_error=True,
        namespace=NAMESPACE,
        log_to_driver=False,
        logging_level=logging.ERROR,
        include_dashboard=False,
        runtime_env={"env_vars": _environment()},
    )
    if address is None:
        os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    return fill


def _environment() -> dict[str, str]:
    """The caller's variables and import paths, for tasks on any node."""
    found = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    installed = tuple(str(Path(prefix).resolve()) for prefix in {sys.prefix, sys.base_prefix})
    folders = [str(Path(entry).resolve()) for entry in [*sys.path, ""]]
    added = [folder for folder in dict.fromkeys(folders) if Path(folder).is_dir() and not folder.startswith(installed)]
    return found | {"EARMARK_HOME": str(paths.home().absolute()), "PYTHONPATH": os.pathsep.join(added)}


# -- in the caller ----------------------------------------------------------------------------------------------------


def fill(store: Store, job: Job, missing: Slices) -> None:
    """Make the missing shards by tasks. What a maker raised is raised here once every other shard is made."""
    there = Store(store.root.absolute(), store.device, store.run)
    missing = {path.absolute(): clips for path, clips in missing.items()}
    task, failures = _task(store, job), list[RayError]()
    while missing and len(failures) < MOST_FAILURES:
        first = os.getpid() % len(missing)  # callers start at different shards
        order = [*missing][first:] + [*missing][:first]
        submitted = ((path, lambda p=path: task.remote(there, job, p, missing[p])) for path in order)
        for path, result in _results(store, submitted, failures):
            if result is not None:  # None: it is another's, and looked at again in the next round
                del missing[path]
                _tell(store, result)
        if missing and len(failures) < MOST_FAILURES:
            store.beat(f"waiting for others at {len(missing)} shards")  # who waits does not hang
            time.sleep(_WAIT_S)
    if failures:
        _raise(failures)


def _task(store: Store, job: Job) -> Any:
    """The task with what it takes. GPU tasks have processes of their own: one bound to a GPU must not get others."""
    if job.model and store.device.startswith("cuda"):
        # All GPUs stay visible, and the task takes the one it is given: a process cannot change what CUDA sees.
        environment = {"env_vars": {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}}
        return make.options(num_cpus=1, num_gpus=1, runtime_env=environment)
    return make.options(num_cpus=1, num_gpus=0)


def _results(
    store: Store, submitted: Iterator[tuple[Path, Callable]], failures: list[RayError]
) -> Iterator[tuple[Path, Notes | None]]:
    """What becomes of each shard, as it comes, with a bounded number of tasks under way; a failed one is noted."""
    window, running = _window(), dict[Any, Path]()
    while True:
        if len(failures) < MOST_FAILURES:
            running |= {submit(): path for path, submit in islice(submitted, window - len(running))}
        if not running:
            return
        done, _ = ray.wait([*running], timeout=_BEAT_S)
        if not done:
            _wait_aloud(store, running.values())
        for reference in done:
            path = running.pop(reference)
            try:
                yield path, ray.get(reference)
            except RayError as error:
                failures.append(error)
                yield path, []


def _window() -> int:
    return max(_WINDOW, int(_PER_SLOT * ray.cluster_resources().get("CPU", 1)))


def _wait_aloud(store: Store, waiting: Collection[Path]) -> None:
    """A sign of life while the cluster is busy with others' work. Not once ours has begun: a codec may hang."""
    if not any(path.with_suffix(".attempts").exists() for path in waiting):
        store.beat(f"waiting for the Ray cluster to begin one of {len(waiting)} shards")


def _tell(store: Store, notes: Notes) -> None:
    for note in notes:
        if store.notify:
            store.notify(*note)


def _raise(failures: list[RayError]) -> NoReturn:
    """The first failure as the task raised it, with Ray's account of where as its cause."""
    first = failures[0]
    found = first.cause if isinstance(first, RayTaskError) else None
    if not isinstance(found, Exception):
        found = StoreError(f"infrastructure fault: Ray gave up on a shard: {type(first).__name__}: {first}")
    if len(failures) > 1:
        found.add_note(f"{len(failures) - 1} more shards failed")
    raise found from first


# -- in a worker process of the cluster -------------------------------------------------------------------------------

_notes: Notes = []
_timers: list[threading.Timer] = []


def _make(store: Store, job: Job, path: Path, clips: Sequence[Clip]) -> Notes | None:
    """The task: make one shard unless it is being made elsewhere (None); what was made for it."""
    while _timers:
        _timers.pop().cancel()
    device = _device(store.device)
    resident = _resident(store.root, device, store.run)
    _check_address(resident, job, path, clips)
    _notes.clear()
    free = resident.make_if_free(job, path, clips)
    if device.startswith("cuda"):
        _release_later()
    return [*_notes] if free else None


# Not as a decorator: `_make` then is sent by its name, and finds the variables of this module in the worker's process.
# A shard that has ended as many processes is then marked failed by one more, and the run goes on.
make = ray.remote(max_retries=DEATHS)(_make)


def _device(asked: str) -> str:
    """The GPU that Ray gives to this task, as torch counts them in this process; else the device as asked for."""
    given = [str(gpu) for gpu in ray.get_gpu_ids()]
    if not given:
        return asked
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return f"cuda:{visible.split(',').index(given[0]) if visible else given[0]}"


@functools.lru_cache(maxsize=1)
def _resident(root: Path, device: str, run: str) -> Store:
    """The store of this process, with the codec that it has loaded."""
    return Store(root, device, run, notify=_note, expendable=True)


def _note(what: str, clips: int, doing: str) -> None:
    if what == "made":
        _notes.append((what, clips, doing))


def _check_address(store: Store, job: Job, path: Path, clips: Sequence[Clip]) -> None:
    """Make a shard only where the caller's address of it holds. Without a model to run, the codec is not loaded."""
    if not job.model:
        store._fingerprints[job.entry.name] = path.parent.parent.name
    if path not in store.slices(job, clips):
        raise StoreError(
            f"infrastructure fault: on {socket.gethostname()} the results of {job.entry.name} have another address "
            f"than {path}: install the same code, packages and weights on every node; a codec with random weights "
            f"must give its own `fingerprint()`"
        )


def _release_later() -> None:
    """Give the GPU's memory back if no task comes for a while: another process may be given this GPU."""
    _timers.append(threading.Timer(IDLE_S, _release))
    _timers[-1].daemon = True
    _timers[-1].start()


def _release() -> None:
    import torch

    _resident.cache_clear()
    gc.collect()  # a codec that refers to itself
    torch.cuda.empty_cache()
