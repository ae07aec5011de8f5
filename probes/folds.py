"""Folds: which clips a probe learns from, which it is chosen by, and which it is tested on; each clip on one side only.

The sides come from the dataset (`data.splits.sides`): train, valid, test, or the names of folds, whole groups in each.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NAMED = {"train", "valid", "test"}
SHARE = 5  # where no clips are set apart for validation, every fifth group of those to learn from is


class SplitError(ValueError):
    """Clips that cannot be divided; the message says why and what to do."""


@dataclass(frozen=True)
class Fold:
    """Indices of clips, int64: disjoint, and together all."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray

    def poorer(self) -> Fold:
        """The same with nothing set apart for validation: those clips are learned from."""
        return Fold(np.concatenate([self.train, self.valid]), self.valid[:0], self.test)


def folds(sides: Sequence[str], groups: Sequence[str], labels: Sequence[str] | None, seed: int = 0) -> list[Fold]:
    """The folds of clips whose sides are given: one for train/valid/test, else each named fold is tested once.

    sides, groups: of each clip the side it is on and what it must not be parted from. labels: its class; None where the
    task has no classes. Of k >= 3 folds, the next after the tested one validates; else validation clips are set apart
    from the training ones, by whole groups (by clips where a class is one group: who is a speaker can only be learned
    from that speaker). Raises SplitError where nothing is left to learn from or to test.
    """
    side = np.asarray(sides)
    named = sorted(set(sides))
    if set(named) <= NAMED:
        found = [tuple(np.flatnonzero(side == name) for name in ("train", "valid", "test"))]
    elif NAMED & set(named):
        raise SplitError(f"the sides are {named}: expected train, valid, test, or only names of folds")
    else:
        found = [_turn(side, named, at) for at in range(len(named))]
    made = [Fold(*(parts if len(parts[1]) else _with_valid(parts, groups, labels, seed))) for parts in found]
    for fold in made:
        if not (len(fold.train) and len(fold.valid) and len(fold.test)):
            raise SplitError(
                f"{len(fold.train)} clips to learn from, {len(fold.valid)} to choose by, {len(fold.test)} to test: "
                "none may be 0; use more clips (--limit, --preset paper) or other folds (held_out of its card)"
            )
    return made


def _turn(side: np.ndarray, names: list[str], at: int) -> tuple[np.ndarray, ...]:
    test = side == names[at]
    valid = (side == names[(at + 1) % len(names)]) if len(names) > 2 else np.zeros_like(test)
    return tuple(np.flatnonzero(part) for part in (~test & ~valid, valid, test))


def _with_valid(parts: tuple, groups: Sequence[str], labels: Sequence[str] | None, seed: int) -> tuple:
    """Every fifth group of each class of the training clips, set apart."""
    train, _, test = parts
    units = [groups[clip] for clip in train]
    if labels is not None and _one_group_a_class(train, groups, labels):
        units = [str(clip) for clip in train]
    class_of = {unit: labels[clip] if labels is not None else "" for unit, clip in zip(units, train, strict=True)}
    order = sorted(class_of)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda unit: class_of[unit])
    chosen = set(order[SHARE // 2 :: SHARE] or order[:1])
    apart = np.array([unit in chosen for unit in units], dtype=bool)
    return train[~apart], train[apart], test


def _one_group_a_class(train: np.ndarray, groups: Sequence[str], labels: Sequence[str]) -> bool:
    """Whether holding out a group would leave a class without any clip to learn it from."""
    of_class: dict[str, set[str]] = {}
    for clip in train:
        of_class.setdefault(labels[clip], set()).add(groups[clip])
    return any(len(found) < 2 for found in of_class.values())
