"""What a metric found, before it is written down as a score."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from earmark.data.cards import Dataset
from earmark.metrics import MetricError
from earmark.reports.intervals import jackknife_interval, mean_with_interval

Item = TypeVar("Item")


@dataclass(frozen=True)
class Found:
    """What a metric found: its value and 95 % interval, from how many clips; and of each clip its value or error.

    errors     why the codec failed on a clip.
    no_answer  why the metric has none for a recording, whoever codes it.
    """

    value: float
    low: float
    high: float
    method: str
    n: int
    values: Mapping[str, float] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    no_answer: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def mean_of(
    values: Mapping[str, float],
    dataset: Dataset,
    errors: Mapping[str, str] | None = None,
    no_answer: Mapping[str, str] | None = None,
) -> Found:
    """The mean of the values of clips, by id."""
    interval = mean_with_interval(values, {clip.id: clip.group for clip in dataset.clips})
    return Found(*interval, len(values), values, errors or {}, no_answer or {})


def statistic_of(
    statistic: Callable[[Sequence[Item]], float],
    items: Mapping[str, Item],
    dataset: Dataset,
    errors: Mapping[str, str] | None = None,
    smooth: bool = True,
    notes: Sequence[str] = (),
    groups: Mapping[str, str] | None = None,
) -> Found:
    """One number of all clips at once, of which each gives an item; no answer where the statistic has none.

    Its interval is a jackknife's; there is none where the statistic is not smooth (a count of codes that occur), or
    has no answer without some of the clips. groups: clip id -> group, where that is not the dataset's own.
    """
    errors = errors or {}
    if not items:
        return Found(math.nan, math.nan, math.nan, "no clips", 0, errors=errors)
    try:
        value = float(statistic(list(items.values())))
    except MetricError as error:
        nothing = dict.fromkeys(items, str(error))
        return Found(math.nan, math.nan, math.nan, "none", 0, errors=errors, no_answer=nothing, notes=[str(error)])
    if not smooth:
        return Found(value, math.nan, math.nan, "none: a count of what occurs", len(items), errors=errors, notes=notes)
    try:
        interval = jackknife_interval(statistic, items, groups or {clip.id: clip.group for clip in dataset.clips})
    except MetricError as error:
        interval = (value, math.nan, math.nan, f"none: without some of the clips, {error}")
    return Found(*interval, len(items), errors=errors, notes=notes)
