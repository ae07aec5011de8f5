"""Verification joined to the store: which clips of a dataset are compared, and their equal error rate."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import numpy as np

from earmark.codecs.registry import Entry
from earmark.data import cards
from earmark.data.cards import Dataset
from earmark.data.splits import rule_of, sides, told
from earmark.scoring.found import Found, statistic_of
from earmark.scoring.probes import Labelled, features
from earmark.store.store import Store

TOGETHER = 8  # clips of a speaker that are taken before the next speaker's: with one of each there is nothing to verify
LEARNED_FROM = ("train", "valid")


def verification_set(dataset: Dataset, seed: int = 0) -> Dataset:
    """The clips to compare: of a published split its test side, of folds all. At most as many as the dataset is limited
    to, eight of a speaker together; drawn by the seed.
    """
    task = next((task for task in dataset.card.tasks if task.kind == "verification"), None)
    if task is None:
        return dataset
    whole = cards.load(dataset.card)
    tested = told(whole, task)
    if rule_of(whole, task).column:
        where = sides(whole, task)
        tested = [clip for clip in tested if where.get(clip.id, "train") not in LEARNED_FROM]
    if dataset.limit is not None and len(tested) > dataset.limit:
        chosen = _several_each([clip.fields[task.target] for clip in tested], dataset.limit, seed)
        tested = [tested[at] for at in sorted(chosen)]
    return cards.of(dataset, tested)


def _several_each(speakers: Sequence[str], limit: int, seed: int) -> list[int]:
    """So many clips: the first eight of each speaker, one speaker after another; then the next eight of each."""
    order = list(range(len(speakers)))
    random.Random(seed).shuffle(order)
    place = {speaker: at for at, speaker in enumerate(dict.fromkeys(speakers[clip] for clip in order))}
    taken, turns = Counter[str](), {}
    for clip in order:
        turns[clip] = taken[speakers[clip]] // TOGETHER
        taken[speakers[clip]] += 1
    return sorted(order, key=lambda clip: (turns[clip], place[speakers[clip]]))[:limit]


def verified(entry: Entry, kind: str, items: Labelled, store: Store) -> Found:
    """The equal error rate, from the pairs of the clips that the codec did not fail on.

    Its interval is over speakers: what is left out of the jackknife is a block of them, with every pair that one is in.
    """
    from earmark.probes.verification import cosines, equal_error_rate, trials

    found = features(entry, kind, items, store, of_frames=False)
    held = trials(found.of.labels)
    scored = cosines(np.stack(found.arrays), held.first, held.second) if found.arrays else np.zeros(0)

    def of(clips: Sequence[int]) -> float:
        there = np.zeros(len(found.arrays), dtype=bool)
        there[list(clips)] = True
        both = there[held.first] & there[held.second]
        return equal_error_rate(scored[both], held.same[both])

    by_id = {clip.id: at for at, clip in enumerate(found.of.clips)}
    speakers = {clip.id: speaker for clip, speaker in zip(found.of.clips, found.of.labels, strict=True)}
    same = int(held.same.sum())
    drawn = "" if len(held.same) == held.of else f", drawn from {held.of}"
    notes = [f"{same} pairs of one speaker, {len(held.same) - same} of two{drawn}"]
    return statistic_of(of, by_id, items.dataset, found.errors, notes=notes, groups=speakers)
