"""Targets: the labels of a task as arrays. What a label means is the dataset's; train and test are not told apart."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SEPARATOR = ";"  # between the labels of one clip


class TargetError(ValueError):
    """A label that is not one; the message quotes it."""


@dataclass(frozen=True)
class Targets:
    """kind: classification, multi_label, regression or events; names: the classes, in order.

    values: int64 [N]; float32 [N, C] of 0 and 1; float32 [N, 1]; None for events, whose `events` are of each clip the
    list of {label, onset_s, offset_s}.
    """

    kind: str
    names: tuple[str, ...]
    values: np.ndarray
    events: tuple[list[dict[str, Any]], ...] = ()


def targets(kind: str, labels: Sequence[str]) -> Targets:
    """The arrays of the labels of N clips, as the manifest has them.

    Raises TargetError for a label that is no number (regression) or no JSON list of events.

    >>> targets("multi_label", ["dog;rain", "rain"]).values.tolist()
    [[1.0, 1.0], [0.0, 1.0]]
    """
    if kind == "regression":
        return Targets(kind, ("value",), np.array([[_number(label)] for label in labels], np.float32))
    if kind == "events":
        events = tuple(_events(label) for label in labels)
        return Targets(kind, _named([event["label"] for of in events for event in of]), np.zeros(0), events)
    if kind == "multi_label":
        several = [label.split(SEPARATOR) for label in labels]
        names = _named([name for of in several for name in of])
        return Targets(kind, names, np.array([[name in of for name in names] for of in several], np.float32))
    names = _named(labels)
    return Targets(kind, names, np.array([names.index(label) for label in labels], np.int64))


def _named(labels: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(set(labels)))


def _number(label: str) -> float:
    try:
        value = float(label)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise TargetError(f"the label {label!r} is no finite number; a regression needs one in every clip")
    return value


def _events(label: str) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = [
            {"label": str(event["label"]), "onset_s": float(event["onset_s"]), "offset_s": float(event["offset_s"])}
            for event in json.loads(label)
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise TargetError(f"not a list of events with label, onset_s and offset_s: {label[:80]!r} ({error})") from error
    if any(not 0 <= event["onset_s"] < event["offset_s"] for event in found):
        raise TargetError(f"an event must end after it begins, and begin at 0 or later: {label[:80]!r}")
    return found
