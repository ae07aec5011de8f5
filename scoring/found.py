"""What a metric found, before it is written down as a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


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
