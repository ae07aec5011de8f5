"""Events: lists of labels with times as frames and back, and the segment-based F1 of them, counted by sed_eval.

Source: Mesaros et al., "Metrics for polyphonic sound event detection", Applied Sciences 2016.
Times are in seconds; frame t of a rate r stands for [t / r, (t + 1) / r).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

Event = dict[str, Any]  # label, onset_s, offset_s
ACTIVE = 0.0  # of a logit: a probability of one half
EDGE_S = 1e-6  # what an event is shorter at both ends: sed_eval has .3 s in the third segment of .1 s, as .3 / .1 < 3


def frame_targets(events: Sequence[Event], names: Sequence[str], frames: int, rate: float) -> np.ndarray:
    """float32 [frames, C]: 1 where an event covers at least half of the frame."""
    found = np.zeros((frames, len(names)), np.float32)
    middle = (np.arange(frames) + 0.5) / rate
    for event in events:
        on = (event["onset_s"] <= middle) & (middle < event["offset_s"])
        found[on, names.index(event["label"])] = 1
    return found


def found_events(logits: np.ndarray, names: Sequence[str], rate: float) -> list[Event]:
    """The events of logits [T, C]: each run of frames with a probability above one half."""
    edges = np.diff((logits > ACTIVE).astype(np.int8), axis=0, prepend=0, append=0)
    return [
        {"label": name, "onset_s": float(on / rate), "offset_s": float(off / rate)}
        for column, name in enumerate(names)
        for on, off in zip(np.flatnonzero(edges[:, column] > 0), np.flatnonzero(edges[:, column] < 0), strict=True)
    ]


def segment_counts(
    reference: Sequence[Event], estimated: Sequence[Event], names: Sequence[str], seconds: float, resolution_s: float
) -> np.ndarray:
    """Of one clip the counts int64 [C, 3] of segments that are true positive, false positive, false negative."""
    sed_eval, dcase_util = _libraries()
    evaluator = sed_eval.sound_event.SegmentBasedMetrics(list(names), time_resolution=resolution_s)
    lists = [
        dcase_util.containers.MetaDataContainer(
            [
                {
                    "event_label": e["label"],
                    "onset": e["onset_s"] + EDGE_S,
                    "offset": min(e["offset_s"], seconds) - EDGE_S,
                }
                for e in events
            ]
        )
        for events in (reference, estimated)
    ]
    evaluator.evaluate(*lists, evaluated_length_seconds=seconds)
    counted: Mapping = evaluator.class_wise
    return np.array([[counted[name][key] for key in ("Ntp", "Nfp", "Nfn")] for name in names], np.int64)


def _libraries() -> tuple[ModuleType, ModuleType]:
    """sed_eval and the lists that it takes; importing them warns of a package that they still use."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
        import dcase_util
        import sed_eval
    return sed_eval, dcase_util


def f1(counts: np.ndarray, average: str = "macro") -> float:
    """F1 of counts [C, 3]; macro: the mean over classes that were there or were said to be; micro: of all together.

    NaN where nothing was there and nothing was said to be.

    >>> f1(np.array([[1, 0, 0], [1, 1, 1]]))
    0.75
    """
    counts = counts.sum(0, keepdims=True) if average == "micro" else counts
    there = counts[counts.sum(1) > 0]
    return (
        float(np.mean(2 * there[:, 0] / (2 * there[:, 0] + there[:, 1] + there[:, 2]))) if len(there) else float("nan")
    )
