"""Probes joined to the store: the latents and labels of a dataset in, what a probe found out.

Frames are made once (`latents_job`) and read from the store; a probe of means reads each clip's mean, which is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from earmark.codecs.registry import Entry
from earmark.data.cards import Dataset
from earmark.data.manifest import Clip
from earmark.data.schema import Task
from earmark.data.splits import sides
from earmark.probes.folds import Fold, folds
from earmark.store.jobs import Job, latents_job
from earmark.store.shards import Outcome
from earmark.store.store import Store


@dataclass(frozen=True)
class Labelled:
    """The clips of a dataset that a task has a label and a side for, in the manifest's order."""

    dataset: Dataset
    task: Task
    clips: tuple[Clip, ...]
    labels: tuple[str, ...]
    sides: tuple[str, ...]

    def folds(self, seed: int = 0) -> list[Fold]:
        """Indices into `clips`: of what is learned from, chosen by, tested on."""
        classes = self.labels if self.task.kind == "classification" else None
        return folds(self.sides, [clip.group for clip in self.clips], classes, seed)

    def of(self, kept: Sequence[bool]) -> Labelled:
        """The same without the clips that are not kept (those that the codec failed on)."""
        rows = [row for row, keep in zip(zip(self.clips, self.labels, self.sides, strict=True), kept, strict=True) if keep]
        return Labelled(self.dataset, self.task, *(zip(*rows, strict=True) if rows else ((), (), ())))


def labelled(dataset: Dataset, task: Task) -> Labelled:
    """The clips with a label for the task, and the sides that the dataset's card gives them."""
    where = sides(dataset, task)
    clips = tuple(clip for clip in dataset.clips if clip.id in where)
    return Labelled(dataset, task, clips, tuple(c.fields[task.target] for c in clips), tuple(where[c.id] for c in clips))


def frames_of(entry: Entry, kind: str, clips: Sequence[Clip], store: Store) -> Iterator[Outcome]:
    """Of each clip its array `latents` [D, T] over its own frames, or its error; nothing is padded."""
    return store.outcomes(latents_job(entry, kind), clips)


def means_of(entry: Entry, kind: str, clips: Sequence[Clip], store: Store) -> Iterator[Outcome]:
    """Of each clip its array `mean` float32 [D], over its own frames, or its error."""
    job = Job("earmark.scoring.probes:means", entry, detail=kind, model=False)
    if store.missing(job, clips):
        store.ensure(latents_job(entry, kind), clips)
    return store.outcomes(job, clips)


def means(store: Store, job: Job, clips: Sequence[Clip]) -> list[Outcome]:
    """The maker of the means: each clip's frames are read, averaged and let go."""
    return [_mean(outcome) for outcome in store.outcomes(latents_job(job.entry, job.detail, job.seed), clips)]


def _mean(outcome: Outcome) -> Outcome:
    if outcome.error:
        return outcome
    mean = outcome.arrays["latents"].mean(axis=1, dtype=np.float64).astype(np.float32)
    return Outcome(outcome.clip, {"frames": outcome.facts["frames"]}, {"mean": mean})
