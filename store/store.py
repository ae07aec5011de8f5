"""The store: `outcomes(job, clips)` reads what is there and makes what is missing, once.

Workers cooperate without a coordinator: each takes the missing shards that no other holds the lock of. Locks only save
work; what makes a result true is that a shard is published whole, under the address of all that it depends on.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from earmark.codecs import calls
from earmark.codecs.calls import CodecError, device_is_lost, full_precision
from earmark.codecs.registry import Entry
from earmark.data.manifest import Clip
from earmark.store import batches, fingerprint, shards
from earmark.store.batches import What
from earmark.store.jobs import Job, begin_reading, tokens_are_stored
from earmark.store.shards import FINAL, Outcome, Shard

DEATHS = 2  # a shard that has ended this many workers of a run is marked failed
_WAIT_S = 0.05

Slices = dict[Path, Sequence[Clip]]


class Store:
    """Results under a root folder, made on one device. `run` names the run; failures are tried again by the next.

    engine      fills what is missing elsewhere (other processes, a cluster); None: here. `engine(store, job, missing)`.
    notify      told of every shard that is made or read, and of every batch: `notify(what, clips, doing)`.
    expendable  whether another process takes this one's place when it ends: one that lost its device then does.
    """

    def __init__(
        self,
        root: Path,
        device: str,
        run: str,
        engine: Callable[[Store, Job, Slices], None] | None = None,
        notify: Callable[[str, int, str], None] | None = None,
        expendable: bool = False,
    ) -> None:
        self.root, self.device, self.run = root, device, run
        self.engine, self.notify, self.expendable = engine, notify, expendable
        self.ahead = batches.Ahead()
        self._resident: tuple[str, Any] | None = None
        self._broken: dict[str, str] = {}
        self._lost = ""
        self._fingerprints: dict[str, str] = {}
        self._batches: dict[tuple[str, str], bool | None] = {}

    def __reduce__(self) -> tuple:
        """What another process needs of it: where, on what, for which run."""
        return Store, (self.root, self.device, self.run)

    def adapter(self, entry: Entry) -> Any:
        """The codec, loaded; one at a time stays in memory."""
        if entry.name in self._broken:  # tried once: a model that takes minutes to fail would be tried for every clip
            raise CodecError(self._broken[entry.name])
        if self._resident is None or self._resident[0] != entry.name:
            self._free()
            self._resident = (entry.name, self._load(entry))
        return self._resident[1]

    def _free(self) -> None:
        """The old codec goes first, also one that refers to itself, as many do: two may not fit into the memory."""
        if self._resident is not None:
            self._resident = None
            gc.collect()
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()  # another worker may have this GPU too

    def _load(self, entry: Entry) -> Any:
        try:
            return calls.load(entry, self.device)
        except CodecError as error:
            self._broken[entry.name] = str(error)
            raise

    def fingerprint(self, entry: Entry) -> str:
        """What the codec's results depend on. A codec that cannot be looked into has results for this run only."""
        if entry.name not in self._fingerprints:
            found = fingerprint.of_adapter(entry, self.adapter(entry)) if entry.own else fingerprint.of_row(entry)
            self._fingerprints[entry.name] = found or f"run-{self.run}"
        return self._fingerprints[entry.name]

    def know(self, fingerprints: dict[str, str]) -> None:
        """Take over what a process with the same codecs has found, so that none is loaded for it."""
        self._fingerprints |= fingerprints

    def batches(self, entry: Entry, what: What) -> bool:
        """Whether the codec is given batches: on an accelerator, once it has shown that they change nothing."""
        if not self.device.startswith("cuda"):
            return False  # on the CPU a batch is not faster, and one clip at a time cannot leak
        if (entry.name, what) not in self._batches:
            self._batches[entry.name, what] = self._equal_in_batches(entry, what)
        return bool(self._batches[entry.name, what])

    def _equal_in_batches(self, entry: Entry, what: What) -> bool | None:
        """The verdict, tried once for all workers and runs; None, and not kept, where it cannot be tried now."""
        source = fingerprint.of_files(batches.__file__)
        verdict = self.root / entry.name / self.fingerprint(entry) / f"batches-{what}-{source}.json"
        if found := _read_json(verdict):
            return found["equal"]
        try:
            equal = batches.equal_in_batches(self.adapter(entry), entry, self.device, what)
        except CodecError:  # it cannot be loaded, which each clip will say
            return None
        if equal is not None:
            _write_json(verdict, {"equal": equal})
        return equal

    def notes(self, entry: Entry) -> list[str]:
        """What a reader of the codec's scores should know of how they were made."""
        what: What = "tokens" if tokens_are_stored(entry) else "sound"
        self.batches(entry, what)
        alone = self._batches.get((entry.name, what)) is False
        return ["encoded one by one: in a batch it gives other tokens or sound"] if alone else []

    def beat(self, doing: str) -> None:
        """A sign of life before something that may take long."""
        if self.notify:
            self.notify("beat", 0, doing)

    def ensure(self, job: Job, clips: Sequence[Clip]) -> None:
        """Make what is missing of a job, together with the other workers."""
        if missing := self.missing(job, clips):
            (self.engine or fill)(self, job, missing)

    def outcomes(self, job: Job, clips: Sequence[Clip]) -> Iterator[Outcome]:
        """The outcome of every clip, in order; what is missing is made first."""
        self.ensure(job, clips)
        folder = self.folder(job)
        for name, group in itertools.groupby(clips, key=lambda clip: clip.shard):
            path, part = folder / f"{name}.safetensors", list(group)
            found = self._kept(shards.read(path))
            if any(clip.sha256 not in found for clip in part):  # damaged, which only reading finds
                found = self._kept(self.make(job, path, part))
            if self.notify:
                self.notify("read", len(part), job.entry.name)
            yield from (found[clip.sha256] for clip in part)

    def whole(self, job: Job, make: Callable[[], Outcome]) -> Outcome:
        """What is made of a whole dataset at once and takes long, such as a trained model's scores: made once.

        `job.version` must hold all that the result depends on beside the codec: the dataset's fingerprint, the sources
        and settings of the procedure. `make` is called with the lock held, so it must not wait for shards: read what it
        needs first. It should call `beat` now and then, or the watchdog takes it for hung. An error that it raises is
        not kept.
        """
        path = self.folder(job) / "whole.safetensors"
        full_precision(self.device)  # also where no codec was loaded before: the same in every run
        while (shard := shards.read(path)) is None:
            with _lock(path) as held:
                if held and shards.read(path) is None:  # not `peek`: a damaged one is to be made again
                    shards.write(path, Shard((make(),), self.run))
            if not held:
                self.beat(f"waiting for another worker at {job.maker}")
                time.sleep(_WAIT_S)
        return shard.outcomes[0]

    def missing(self, job: Job, clips: Sequence[Clip]) -> Slices:
        """The shards of a job that are still to be made."""
        return {path: part for path, part in self.slices(job, clips).items() if self.lacking(path, part)}

    def slices(self, job: Job, clips: Sequence[Clip]) -> Slices:
        """The shards of a job over clips: the file of each slice of the dataset, and its clips that are asked for."""
        folder, parts = self.folder(job), dict[Path, list[Clip]]()
        for clip in clips:
            parts.setdefault(folder / f"{clip.shard}.safetensors", []).append(clip)
        return dict(parts)

    def folder(self, job: Job) -> Path:
        """Where a job's shards lie: the address of all that they depend on but the clips."""
        kind = self.device.partition(":")[0]
        described = [job.maker, fingerprint.of_maker(job.maker), job.detail, job.seed, job.version, kind]
        described += [repr(job.steps), fingerprint.of_transforms()] if job.steps else []
        return self.root / job.entry.name / self.fingerprint(job.entry) / fingerprint.digest(*described)

    def _kept(self, shard: Shard | None) -> dict[str, Outcome]:
        """The outcomes of a shard that count: every success, final failures, and all failures of this very run."""
        if shard is None:
            return {}
        kept = (each for each in shard.outcomes if each.error is None or FINAL in each.facts or shard.run == self.run)
        return {outcome.clip: outcome for outcome in kept}

    def lacking(self, path: Path, clips: Sequence[Clip]) -> list[Clip]:
        """The clips that a shard has no outcome of; its arrays are not read for that."""
        kept = self._kept(shards.peek(path))
        return [clip for clip in clips if clip.sha256 not in kept]

    def make_if_free(self, job: Job, path: Path, clips: Sequence[Clip]) -> bool:
        """Make one shard unless another worker is at it; whether it is there now."""
        with _lock(path) as held:
            if held and self.lacking(path, clips):
                self.make(job, path, clips)
            return held

    def make(self, job: Job, path: Path, clips: Sequence[Clip]) -> Shard:
        """Make what a shard lacks; publish it whole, with what it had. One that has ended two workers is given up."""
        had = self._kept(shards.read(path))
        lacking = [clip for clip in clips if clip.sha256 not in had]
        attempts = path.with_suffix(".attempts")
        deaths = self._deaths(attempts)
        if deaths >= DEATHS:
            error = f"infrastructure fault: {deaths} workers ended, or hung, while making this shard; it is given up"
            made = [Outcome(clip.sha256, error=error) for clip in lacking]
        else:
            made = self._attempt(job, lacking, attempts, deaths + 1)
        shard = Shard((*had.values(), *made), self.run)
        shards.write(path, shard)
        attempts.unlink(missing_ok=True)
        if self.notify:
            self.notify("made", len(lacking), job.entry.name)
        return shard

    def _attempt(self, job: Job, clips: Sequence[Clip], attempts: Path, count: int) -> list[Outcome]:
        """Make clips with a note beside the shard for as long as it takes: it stays where this process is killed."""
        if job.model and (self._lost or device_is_lost()):
            self._end_without_device(f"before {job.entry.name}")  # by what did not go through the store
        _write_json(attempts, {"run": self.run, "deaths": count})
        try:
            return job.make(self, clips)
        finally:
            if job.model and device_is_lost():
                self._end_without_device(f"in {job.entry.name}")
            attempts.unlink(missing_ok=True)  # an error is not a death

    def _end_without_device(self, where: str) -> NoReturn:
        """End this process, or raise StoreError: every codec after this one would fail here, and be blamed for it."""
        self._lost = self._lost or f"infrastructure fault: {self.device} is lost since a CUDA error {where}"
        self.beat(self._lost)
        if self.expendable:
            os.kill(os.getpid(), signal.SIGKILL)  # at once: what is left of CUDA may hang at the interpreter's end
        raise shards.StoreError(f"{self._lost}: this process can use it no more; with -n 1 a new one would")

    def _deaths(self, attempts: Path) -> int:
        """How many workers of this run began this shard and never ended it."""
        found = _read_json(attempts)
        return found["deaths"] if found.get("run") == self.run else 0


def fill(store: Store, job: Job, missing: Slices) -> None:
    """Make the missing shards together with the other workers: take what is free, never wait holding a lock."""
    while missing:
        first = os.getpid() % len(missing)  # workers start at different shards
        paths = [*missing][first:] + [*missing][:first]
        done = set()
        for path, following in zip(paths, [*paths[1:], None], strict=True):
            if following:
                begin_reading(store, job, following, missing[following])
            if store.make_if_free(job, path, missing[path]):
                done.add(path)
        missing = {path: clips for path, clips in missing.items() if path not in done}
        if missing:
            store.beat(f"waiting for other workers at {len(missing)} shards")  # who waits does not hang
            time.sleep(_WAIT_S)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[bool]:
    """Try for a shard's lock: whether it was had."""
    from filelock import FileLock, Timeout

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"))
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    except OSError as error:
        raise shards.StoreError(
            f"infrastructure fault: the store cannot be written to: {error}; set EARMARK_HOME to a folder that can"
        ) from error
    try:
        yield True
    finally:
        lock.release()


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # it only helps; the shard's own writing says what is wrong
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    """The content of a small file of ours; nothing where it is not there or half written."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
