"""Probes joined to the store: the latents and labels of a dataset in, what a probe found out.

Frames are made once (`latents_job`) and read from the store. Where only probes of means ask for a clip, its mean alone
is kept: frames may be a thousand times as much. What a protocol predicts is kept too (`Store.whole`), by all that it
depends on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from earmark.codecs.registry import Entry
from earmark.data.cards import Dataset
from earmark.data.manifest import Clip
from earmark.data.schema import Task
from earmark.data.splits import sides, told
from earmark.probes import protocol as protocols
from earmark.probes.folds import Fold, folds
from earmark.probes.protocol import Recipe
from earmark.probes.targets import Targets, targets
from earmark.store import fingerprint
from earmark.store.jobs import Job, latents_job
from earmark.store.shards import Outcome
from earmark.store.store import Store


@dataclass(frozen=True, eq=False)
class Labelled:
    """The clips of a dataset that a task has a label and a side for, in the manifest's order."""

    dataset: Dataset
    task: Task
    clips: tuple[Clip, ...]
    labels: tuple[str, ...]
    sides: tuple[str, ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Labelled) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple:
        return self.dataset.fingerprint, self.task, tuple(clip.id for clip in self.clips)

    def folds(self, seed: int = 0) -> list[Fold]:
        """Indices into `clips`: of what is learned from, chosen by, tested on."""
        classes = self.labels if self.task.kind == "classification" else None
        return folds(self.sides, [clip.group for clip in self.clips], classes, seed)

    def targets(self) -> Targets:
        return targets(self.task.kind, self.labels)

    def of(self, kept: Sequence[bool]) -> Labelled:
        """The same without the clips that are not kept (those that the codec failed on)."""
        rows = zip(self.clips, self.labels, self.sides, strict=True)
        columns = [*zip(*(row for row, keep in zip(rows, kept, strict=True) if keep), strict=True)] or [(), (), ()]
        return Labelled(self.dataset, self.task, *columns)


def labelled(dataset: Dataset, task: Task) -> Labelled:
    """The clips with a label for the task, and the sides that the dataset's card gives them.

    Verification learns from none: all are tested, be they of fewer speakers than the card has folds.
    """
    verified = task.kind == "verification"
    where = {clip.id: "test" for clip in told(dataset, task)} if verified else sides(dataset, task)
    clips = tuple(clip for clip in dataset.clips if clip.id in where)
    return Labelled(
        dataset, task, clips, tuple(c.fields[task.target] for c in clips), tuple(where[c.id] for c in clips)
    )


def tested_clips(split: Sequence[Fold]) -> list[int]:
    """The clips that some fold tests, in order."""
    return sorted({int(clip) for fold in split for clip in fold.test})


# -- features ---------------------------------------------------------------------------------------------------------


def frames_of(entry: Entry, kind: str, clips: Sequence[Clip], store: Store) -> Iterator[Outcome]:
    """Of each clip its array `latents` [D, T] over its own frames, or its error; nothing is padded."""
    return store.outcomes(latents_job(entry, kind), clips)


def means_of(entry: Entry, kind: str, clips: Sequence[Clip], store: Store) -> Iterator[Outcome]:
    """Of each clip its array `mean` float32 [D], over its own frames, or its error."""
    return store.outcomes(Job("earmark.scoring.probes:means", entry, detail=kind), clips)


def means(store: Store, job: Job, clips: Sequence[Clip]) -> list[Outcome]:
    """The maker of the means: each clip's frames are read where they are stored, else made; averaged and let go."""
    frames = latents_job(job.entry, job.detail, job.seed)
    made = frames.make(store, clips) if store.missing(frames, clips) else store.outcomes(frames, clips)
    return [_mean(outcome) for outcome in made]


def _mean(outcome: Outcome) -> Outcome:
    if outcome.error:
        return outcome
    mean = outcome.arrays["latents"].mean(axis=1, dtype=np.float64).astype(np.float32)
    return Outcome(outcome.clip, {"frames": outcome.facts["frames"]}, {"mean": mean})


@dataclass(frozen=True)
class Features:
    """What a codec made of the clips that it did not fail on; `errors` says of the others why."""

    of: Labelled
    arrays: list[np.ndarray]
    errors: dict[str, str]


def features(entry: Entry, kind: str, items: Labelled, store: Store, of_frames: bool) -> Features:
    """The frames [D, T] or the mean [D] of each clip, in the order of `of.clips`."""
    read, name = (frames_of, "latents") if of_frames else (means_of, "mean")
    outcomes = list(read(entry, kind, items.clips, store))
    errors = {clip.id: o.error for clip, o in zip(items.clips, outcomes, strict=True) if o.error}
    arrays = [outcome.arrays[name] for outcome in outcomes if not outcome.error]
    return Features(items.of([outcome.error is None for outcome in outcomes]), arrays, errors)


# -- predictions ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Read:
    """What a probe read out of a codec: said float32 [S, N, C] of the clips of `of`, NaN where a clip was not tested;
    of events instead counts int64 [S, N, C, 3] and which clips were tested.
    """

    of: Labelled
    said: np.ndarray
    counts: np.ndarray
    errors: dict[str, str]
    facts: dict


def read_out(entry: Entry, kind: str, items: Labelled, protocol: str, store: Store) -> Read:
    """Train the probe of a protocol on one kind of a codec's latents, or read what it found when that was done."""
    recipe = protocols.load(protocol).recipes[items.task.kind].for_set(items.dataset.name)
    found = features(entry, kind, items, store, of_frames=recipe.learner in ("conv", "frames"))
    version = fingerprint.digest(
        items.dataset.fingerprint, items.task.model_dump(), recipe.model_dump(), sorted(found.errors), sources()
    )
    job = Job("earmark.scoring.probes:read_out", entry, f"{kind} {items.task.name} {protocol}", version=version)
    made = store.whole(job, lambda: _train(found, entry, recipe, store))
    said, counts = (made.arrays.get(name, np.zeros(0)) for name in ("said", "counts"))
    return Read(found.of, said, counts, found.errors, json.loads(made.facts["facts"]))


def sources() -> str:
    """The sources that predictions depend on, and the library that trains."""
    import torch

    from earmark import probes
    from earmark.data import splits

    folder = Path(str(probes.__file__)).parent
    return f"{fingerprint.of_files(*sorted(map(str, folder.glob('*.py'))), str(splits.__file__))} {torch.__version__}"


def _train(found: Features, entry: Entry, recipe: Recipe, store: Store) -> Outcome:
    from earmark.probes.learn import learn

    aims, split, rate = found.of.targets(), found.of.folds(), entry.info.frame_rate
    made = learn(recipe, aims, found.arrays, split, rate, store.device, store.beat)
    arrays = {"said": made.said}
    if aims.kind == "events":
        resolution = recipe.options["resolution_s"]
        arrays = {"counts": np.stack([segment_counts_of(found.of, aims, events, resolution) for events in made.events])}
    return Outcome("", {"facts": json.dumps(made.facts)}, arrays)


def segment_counts_of(items: Labelled, aims: Targets, estimated: Sequence, resolution_s: float) -> np.ndarray:
    """Counts int64 [N, C, 3] of each clip's segments: true positive, false positive, false negative."""
    from earmark.probes.events import segment_counts

    rows = zip(items.clips, aims.events, estimated, strict=True)
    return np.stack(
        [segment_counts(true, said, aims.names, seconds_of(clip, true), resolution_s) for clip, true, said in rows]
    )


def seconds_of(clip: Clip, events: Sequence[dict]) -> float:
    """How long a clip is; where its manifest does not say, until its last event ends."""
    return clip.seconds or max((event["offset_s"] for event in events), default=0.0)
