"""Chance: the metrics of a task without listening, beside which every score of a probe stands."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from earmark.probes.targets import Targets
from earmark.reports.intervals import jackknife_interval, mean_with_interval
from earmark.scoring.found import Found
from earmark.scoring.probes import Labelled, seconds_of, segment_counts_of, tested_clips


@functools.lru_cache(maxsize=64)  # the same for every codec, protocol and kind of latents
def chance(items: Labelled, resolution_s: float | None = None, average: str = "macro") -> Mapping[str, Found]:
    """By metric: always the most frequent class; scores at random; the mean; every event all the time; a coin.

    Over the clips that are tested; resolution_s, average: as the events are scored.
    """
    kind = items.task.kind
    tested = [*range(len(items.clips))] if kind == "verification" else tested_clips(items.folds())
    n = len(tested)
    if kind == "verification":
        return {"eer": Found(0.5, math.nan, math.nan, "by definition", n)}
    if kind == "regression":
        return {"r2": Found(0.0, math.nan, math.nan, "by definition: the mean of what is tested", n)}
    aims = items.targets()
    if kind == "events":
        assert resolution_s is not None
        return {"segment_f1": _always(items, aims, tested, resolution_s, average)}
    values = aims.values[tested]
    return _majority(values, aims) if kind == "classification" else _random(values)


def _majority(values: np.ndarray, aims: Targets) -> dict[str, Found]:
    """The interval is over clips: whichever class it is, it is not a fact of a group."""
    from earmark.probes.baselines import majority
    from earmark.probes.measures import correct, macro_f1

    said = majority(values, len(aims.names))
    items = {str(at): (value, said[:, at]) for at, value in enumerate(values)}
    alone = {clip: clip for clip in items}
    right = {clip: correct(item) for clip, item in items.items()}
    return {
        "accuracy": Found(*mean_with_interval(right, alone), len(items)),
        "macro_f1": Found(*jackknife_interval(macro_f1, items, alone), len(items)),
    }


def _random(values: np.ndarray) -> dict[str, Found]:
    """The mean of many draws, and the interval in which 95 % of them lie."""
    from earmark.probes.baselines import draws
    from earmark.probes.measures import mean_ap, roc_auc

    found = {}
    for name, of in {"mean_ap": mean_ap, "roc_auc": roc_auc}.items():
        drawn = [of([(value, said[None, at]) for at, value in enumerate(values)]) for said in draws(values)]
        low, high = np.percentile(drawn, [2.5, 97.5])
        found[name] = Found(float(np.mean(drawn)), float(low), float(high), "percentiles of random scores", len(values))
    return found


def _always(items: Labelled, aims: Targets, tested: Sequence[int], resolution_s: float, average: str) -> Found:
    from earmark.probes.events import f1

    always = [
        [{"label": name, "onset_s": 0.0, "offset_s": seconds_of(clip, true)} for name in aims.names]
        for clip, true in zip(items.clips, aims.events, strict=True)
    ]
    counts = segment_counts_of(items, aims, always, resolution_s)
    by_clip = {str(clip): counts[clip] for clip in tested}
    alone = {clip: clip for clip in by_clip}
    interval = jackknife_interval(lambda part: f1(np.sum(part, axis=0), average), by_clip, alone)
    return Found(*interval, len(by_clip))
