"""A dataset held against its card: counts, labels, what is held out, and every clip's sound."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from earmark.data import audio, splits
from earmark.data.audio import AudioError
from earmark.data.cards import Dataset
from earmark.data.manifest import Clip
from earmark.data.schema import Task

SILENT_DB = -80.0  # peak, dBFS: below it a clip holds nothing to be heard
READERS = 4
SHOWN = 5


def problems(dataset: Dataset, notify: Callable[[int], None] | None = None, sound: bool = True) -> Iterator[str]:
    """What is wrong with a whole dataset, a line each; nothing where it is as its card says.

    sound: whether to read every clip. `notify` is told how many were read.
    """
    yield from _counts(dataset)
    for task in dataset.card.tasks:
        yield from _labels(dataset, task)
        yield from _held_out(dataset, task)
    yield from _twice(dataset)
    if sound:
        yield from _sounds(dataset, notify)


def _counts(dataset: Dataset) -> Iterator[str]:
    card, there = dataset.card, len(dataset.clips)
    if card.clips is not None and there != card.clips:
        yield f"{there} clips; the card says {card.clips}"
    for side, number in card.splits.items():
        of_side = sum(side in (clip.fields.get("split"), clip.fields.get("fold")) for clip in dataset.clips)
        if of_side != number:
            yield f"{of_side} clips in {side}; the card says {number}"


def labels_of(clip: Clip, task: Task) -> list[str]:
    """A clip's labels for a task, none where it is not asked of it."""
    value = clip.fields.get(task.target, "")
    if task.kind == "events":
        return [event["label"] for event in json.loads(value or "[]")]
    return value.split(";") if task.kind == "multi_label" and value else [value] if value else []


def _labels(dataset: Dataset, task: Task) -> Iterator[str]:
    found = Counter(label for clip in dataset.clips for label in labels_of(clip, task))
    if not found:
        return  # what is held out of nothing says so
    if task.labels and (strange := [label for label in found if label not in task.labels]):
        yield f"task {task.name}: {_some(strange)} are none of the card's labels"
    elif task.classes is not None and len(found) != task.classes:
        yield f"task {task.name}: {len(found)} labels; the card says {task.classes}"
    elif task.kind == "regression":
        wrong = [label for label in found if not _is_number(label)]
        yield from [f"task {task.name}: {_some(wrong)} are no numbers"] if wrong else []


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _held_out(dataset: Dataset, task: Task) -> Iterator[str]:
    """Sides there must be at least two of; a group (speaker, recording) on two of them leaks, but where the task is to
    know that very group."""
    try:
        sides = splits.sides(dataset, task)
    except ValueError as error:
        yield f"task {task.name}: {error}"
        return
    if len(set(sides.values())) < 2:
        yield f"task {task.name}: all is on one side ({', '.join(set(sides.values())) or 'none'}); nothing is held out"
    leaks = splits.leaks(dataset, task)
    targets = defaultdict(set)
    for clip in dataset.clips:
        targets[clip.group].add(clip.fields.get(task.target))
    identity = all(len(found) == 1 for found in targets.values()) and len(targets) == len(
        set().union(*targets.values())
    )
    if leaks and not identity:
        yield f"task {task.name}: {len(leaks)} groups are on several sides: {_some(sorted(leaks))}"


def _twice(dataset: Dataset) -> Iterator[str]:
    times = Counter(clip.sha256 for clip in dataset.clips)
    same = [clip.id for clip in dataset.clips if times[clip.sha256] > 1]
    if same:
        yield f"{len(same)} clips are byte for byte the same as another: {_some(same)}"


def _sounds(dataset: Dataset, notify: Callable[[int], None] | None) -> Iterator[str]:
    bad: dict[str, list[str]] = defaultdict(list)
    with ThreadPoolExecutor(READERS) as pool:
        for done, (clip, found) in enumerate(zip(dataset.clips, pool.map(_heard, dataset.clips), strict=True), 1):
            if found:
                bad[found].append(clip.id)
            if notify:
                notify(done)
    for what, clips in bad.items():
        yield f"{len(clips)} clips {what}: {_some(clips)}"


def _heard(clip: Clip) -> str | None:
    """What is wrong with the sound of a clip."""
    try:
        wav, rate = audio.read_clip(clip)
    except AudioError as error:
        return f"cannot be read ({str(error).removeprefix(str(clip.part.name(clip.path))).lstrip(': ')})"
    if 20 * np.log10(np.abs(wav).max() + 1e-12) < SILENT_DB:
        return f"are silent (peak below {SILENT_DB:g} dBFS)"
    if clip.seconds is not None and abs(wav.shape[1] / rate - clip.seconds) > 0.1:
        return "are longer or shorter than the manifest says"
    return None


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
