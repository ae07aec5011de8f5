"""Sides: what is trained on and what is held out, so that nothing of one recording or speaker is on both.

A card says it for each task (`held_out`): what the publishers did, or folds of ours.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from earmark.data.cards import Dataset
from earmark.data.manifest import Clip
from earmark.data.schema import HeldOut, Task
from earmark.names import mistaken

OUR_FOLDS = 5


def sides(dataset: Dataset, task: Task, seed: int = 0) -> dict[str, str]:
    """Clip id -> `train`, `valid` or `test`, or the name of its fold, of the clips that the task has a label for.

    Where the card says nothing: the column `fold`, else `split`, else five folds of ours by group. Raises ValueError
    where no clip has a label, naming the column that may be meant, or where there are too few groups for its folds.
    """
    clips, rule = told(dataset, task), rule_of(dataset, task)
    if not clips:
        there = {name for clip in dataset.clips for name in clip.fields}
        hint = f"; is {meant!r} meant?" if (meant := mistaken(task.target, there)) else ""
        raise ValueError(f"{dataset.name}: no clip has a label in the column {task.target!r}{hint}")
    if rule.column:
        return {clip.id: clip.fields[rule.column] for clip in clips if clip.fields.get(rule.column)}
    assert rule.folds is not None
    return grouped_folds(clips, task.target, rule.by, rule.folds, seed)


def told(dataset: Dataset, task: Task) -> list[Clip]:
    """The clips that the task has a label for."""
    return [clip for clip in dataset.clips if clip.fields.get(task.target)]


def rule_of(dataset: Dataset, task: Task) -> HeldOut:
    """By what is held out: as the task says, or the card, or what columns the clips have."""
    return task.held_out or dataset.card.held_out or _found(told(dataset, task))


def _found(clips: Sequence[Clip]) -> HeldOut:
    for column in ("fold", "split"):
        if len({clip.fields.get(column) for clip in clips}) > 1:
            return HeldOut(column=column)
    return HeldOut(folds=OUR_FOLDS)


def grouped_folds(clips: Sequence[Clip], target: str, by: str, folds: int, seed: int = 0) -> dict[str, str]:
    """Clip id -> fold `1`.. `folds`: whole groups, the largest first, each to where its labels are rarest.

    Greedy, as scikit-learn's StratifiedGroupKFold. Raises ValueError where there are fewer groups than folds.
    """
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        groups[group_of(clip, by)].append(clip)
    if len(groups) < folds:
        raise ValueError(f"{folds} folds by {by}: there are only {len(groups)} of them; use fewer folds")
    order = sorted(groups)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda group: -len(groups[group]))
    held: list[Counter[str]] = [Counter() for _ in range(folds)]
    found: dict[str, str] = {}
    for group in order:
        labels = Counter(clip.fields[target] for clip in groups[group])
        best = min(range(folds), key=lambda fold: (_crowding(held[fold], labels), held[fold].total()))
        held[best].update(labels)
        found |= {clip.id: str(best + 1) for clip in groups[group]}
    return found


def _crowding(held: Mapping[str, int], labels: Mapping[str, int]) -> int:
    """How many of these labels a fold has already."""
    return sum(count * held.get(label, 0) for label, count in labels.items())


def group_of(clip: Clip, by: str) -> str:
    """What a clip must not be parted from: its value in a column; as `group` the clip's own.

    Raises ValueError where it has none: clips would be held out alone, and their speaker would be on both sides.
    """
    if by == "group":
        return clip.group
    if not clip.fields.get(by):
        raise ValueError(
            f"{clip.id} has no {by}, by which its card holds out; index the dataset from a layout that has it"
        )
    return clip.fields[by]


def leaks(dataset: Dataset, task: Task, by: str = "group") -> dict[str, set[str]]:
    """Groups that are on more than one side, with those sides; empty is what it must be."""
    found: dict[str, set[str]] = defaultdict(set)
    where = sides(dataset, task)
    for clip in dataset.clips:
        if clip.id in where:
            found[group_of(clip, by)].add(where[clip.id])
    return {group: on for group, on in found.items() if len(on) > 1}
