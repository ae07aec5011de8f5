"""Readings: what probes find in a codec, as scores, each beside what is found without listening and by log-mel.

The name of a score has task, protocol and kind of latents in it: accuracy_speaker_earmark_quantized.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from earmark.codecs import registry
from earmark.codecs.registry import Entry
from earmark.data.cards import Dataset
from earmark.metrics.registry import METRICS
from earmark.probes import protocol as protocols
from earmark.reports.intervals import jackknife_interval, mean_with_interval
from earmark.scoring.chance import chance
from earmark.scoring.found import Found
from earmark.scoring.probes import Labelled, Read, labelled, read_out, tested_clips
from earmark.scoring.verification import verified
from earmark.store.store import Store

BASELINE = "logmel"  # the encoder that a learned one must beat


@dataclass(frozen=True)
class Reading:
    """One score to record: `scores(metric, codec, dataset, found=found, variant=variant, protocol=protocol)`; and what
    it was made of, where a probe predicts.
    """

    metric: str
    variant: str
    protocol: str
    found: Found
    read: Read | None = None


def readings(entry: Entry, dataset: Dataset, task_kind: str, protocol: str, store: Store) -> Iterator[Reading]:
    """Every score of a protocol for the tasks of a kind: by task, by kind of latents, by metric.

    None of a protocol that chooses on the test clips where others validate: nobody has published it so.
    """
    recipe = protocols.load(protocol).recipes[task_kind]
    title = f"{protocols.load(protocol).title}, version {protocols.load(protocol).version}"
    for task in dataset.card.tasks:
        if task.kind != task_kind:
            continue
        items = labelled(dataset, task)
        if recipe.select == "test" and "valid" in items.sides:
            continue
        unheard = chance(items, **_of_events(items, protocol))
        is_baseline = entry.name == BASELINE
        beside = {} if is_baseline else _measured(registry.find(BASELINE), "unquantized", items, protocol, store)[0]
        for kind in entry.info.latent_kinds:
            measured, read = _measured(entry, kind, items, protocol, store)
            for metric, value in measured.items():
                others = {"without listening": unheard[metric], "log-mel": beside.get(metric)}
                notes = [*value.notes, *_flag(protocol), *compared(metric, value, others)]
                variant = f"{task.name}_{protocol}_{kind.replace(':', '')}"
                yield Reading(metric, variant, title, replace(value, notes=notes), read)


@dataclass(frozen=True)
class Confusion:
    """shares [C, C]: of the clips of a class (row) the share that was taken for each (column); names: the classes."""

    task: str
    names: tuple[str, ...]
    shares: np.ndarray


def confusions(found: Iterable[Reading]) -> list[Confusion]:
    """Of each classification task what was taken for what, by the last kind of latents; the mean of the seeds."""
    last = {reading.read.of.task: reading.read for reading in found if reading.read is not None}
    aims = {task: read.of.targets() for task, read in last.items()}
    return [Confusion(task.name, aims[task].names, confused(aims[task].values, last[task].said)) for task in last]


def confused(classes: np.ndarray, said: np.ndarray) -> np.ndarray:
    """Shares [C, C] of int64 [N] and float [S, N, C]; clips that were not tested (NaN) are left out, as are classes
    without any (their row is NaN).

    >>> confused(np.array([0, 0, 1]), np.array([[[2.0, 1.0], [1.0, 2.0], [0.0, 1.0]]])).tolist()
    [[0.5, 0.5], [0.0, 1.0]]
    """
    counts = np.zeros((said.shape[2],) * 2)
    for one in said:
        tested = ~np.isnan(one).any(axis=1)
        np.add.at(counts, (classes[tested], one[tested].argmax(axis=1)), 1)
    with np.errstate(invalid="ignore"):
        return counts / counts.sum(axis=1, keepdims=True)


def _flag(protocol: str) -> list[str]:
    flag = protocols.load(protocol).flag
    return [flag] if flag else []


def _of_events(items: Labelled, protocol: str) -> dict[str, Any]:
    """How a protocol scores events: the length of a segment, the average over classes."""
    if items.task.kind != "events":
        return {"resolution_s": None}
    options = protocols.load(protocol).recipes["events"].for_set(items.dataset.name).options
    return {name: options[name] for name in ("resolution_s", "average")}


def compared(metric: str, value: Found, beside: Mapping[str, Found | None]) -> list[str]:
    """What stands beside a score, and whether it is no better: not beyond the other's interval.

    Where the other has none (a coin's 0.5 is no measurement), its value must lie beyond the score's own.
    """
    notes, sign = [], 1 if METRICS[metric].higher_is_better else -1
    for name, other in beside.items():
        if other is None:
            continue
        exact = math.isnan(other.low)
        notes.append(f"{name}: {other.value:.3f}" + ("" if exact else f" [{other.low:.3f}, {other.high:.3f}]"))
        nearer, farther = (value.low, other.high) if sign > 0 else (value.high, other.low)
        mine = value.value if not exact or math.isnan(nearer) else nearer
        if not sign * mine > sign * (other.value if exact else farther):
            notes.append(f"not better than {name}")
    return notes


def _measured(
    entry: Entry, kind: str, items: Labelled, protocol: str, store: Store
) -> tuple[dict[str, Found], Read | None]:
    """The metrics of a task, by name, and what they are made of."""
    if items.task.kind == "verification":
        return {"eer": verified(entry, kind, items, store)}, None
    read = read_out(entry, kind, items, protocol, store)
    if items.task.kind == "events":
        return {"segment_f1": _of_counts(read, _of_events(items, protocol)["average"])}, read
    return _of_predictions(read), read


def _of_predictions(read: Read) -> dict[str, Found]:
    from earmark.probes.measures import MEASURES, STATISTICS, correct

    values = read.of.targets().values
    tested = [at for at in range(len(read.of.clips)) if not np.isnan(read.said[:, at]).any()]
    items = {read.of.clips[at].id: (values[at], read.said[:, at]) for at in tested}
    found = {}
    for metric in MEASURES[read.of.task.kind]:
        if metric == "accuracy":
            right = {clip: correct(item) for clip, item in items.items()}
            interval = mean_with_interval(right, _groups(read.of))
            found[metric] = _found(interval, len(items), read, _by_seed(items), right)
        else:
            interval = jackknife_interval(STATISTICS[metric], items, _groups(read.of))
            found[metric] = _found(interval, len(items), read, [], {})
    return found


def _by_seed(items: Mapping[str, Any]) -> list[str]:
    """The accuracy of each seed, where there are several."""
    right = np.array([said.argmax(-1) == y for y, said in items.values()])  # [N, S]
    return [f"by seed: {', '.join(f'{value:.3f}' for value in right.mean(0))}"] if right.shape[1] > 1 else []


def _of_counts(read: Read, average: str) -> Found:
    from earmark.probes.events import f1

    items = {read.of.clips[at].id: read.counts[:, at] for at in tested_clips(read.of.folds())}

    def of(counts: Sequence[np.ndarray]) -> float:
        return float(np.mean([f1(by_seed, average) for by_seed in np.sum(counts, axis=0)]))

    interval = jackknife_interval(of, items, _groups(read.of))
    return _found(interval, len(items), read, [f"{average} average"], {})


def _groups(items: Labelled) -> dict[str, str]:
    return {clip.id: clip.group for clip in items.clips}


Interval = tuple[float, float, float, str]


def _found(interval: Interval, n: int, read: Read, notes: list[str], values: Mapping[str, float]) -> Found:
    return Found(*interval, n, values=values, errors=read.errors, notes=notes)
