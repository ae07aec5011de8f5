"""What predictions are worth, by scikit-learn: of items (target, what was said by each seed), the mean over seeds.

An item of classification is (class, [S, C]); of several labels ([C] of 0 and 1, [S, C]); of a regression ([1], [S, 1]).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Item = tuple[Any, np.ndarray]


def correct(item: Item) -> float:
    """The share of seeds that named the class."""
    return float((item[1].argmax(-1) == item[0]).mean())


def macro_f1(items: Sequence[Item]) -> float:
    """The mean over classes of F1; classes that are neither there nor said are left out."""
    from sklearn.metrics import f1_score

    y = [item[0] for item in items]
    return _over_seeds(items, lambda said: float(f1_score(y, said.argmax(-1), average="macro")))


def mean_ap(items: Sequence[Item]) -> float:
    """Average precision, the mean over the labels that are there (mAP); NaN where there are none."""
    from sklearn.metrics import average_precision_score

    return _over_labels(items, average_precision_score)


def roc_auc(items: Sequence[Item]) -> float:
    """Area under the ROC curve, the mean over the labels that some clips have and some have not."""
    from sklearn.metrics import roc_auc_score

    return _over_labels(items, roc_auc_score)


def r2(items: Sequence[Item]) -> float:
    """The coefficient of determination: 1 is perfect, 0 as good as the mean of what is tested, below 0 worse."""
    from sklearn.metrics import r2_score

    y = np.array([item[0] for item in items])
    return _over_seeds(items, lambda said: float(r2_score(y, said)))


def _over_seeds(items: Sequence[Item], of: Callable[[np.ndarray], float]) -> float:
    said = np.stack([item[1] for item in items], axis=1)  # [S, N, C]
    return float(np.mean([of(by_seed) for by_seed in said]))


def _over_labels(items: Sequence[Item], of: Callable[[np.ndarray, np.ndarray], float]) -> float:
    y = np.array([item[0] for item in items])
    asked = [label for label in range(y.shape[1]) if 0 < y[:, label].sum() < len(y)]
    if not asked:
        return math.nan
    return _over_seeds(items, lambda said: float(np.mean([of(y[:, label], said[:, label]) for label in asked])))


MEASURES: dict[str, tuple[str, ...]] = {  # of each kind of task, by their names in the registry of metrics
    "classification": ("accuracy", "macro_f1"),
    "multi_label": ("mean_ap", "roc_auc"),
    "regression": ("r2",),
}
STATISTICS: dict[str, Callable[[Sequence[Item]], float]] = {
    "macro_f1": macro_f1, "mean_ap": mean_ap, "roc_auc": roc_auc, "r2": r2,
}  # fmt: skip
