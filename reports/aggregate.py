"""Scores of probes together: X-ARES's weighted average, tables by domain, the axes of a radar plot.

A score of a probe is named <metric>_<task>_<protocol>_<kind of latents>. Each is put on a scale of its own before it is
averaged: 0 is the worst end of its metric (for an equal error rate a coin's 0.5), 1 the best.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from earmark.reports.scores import Score

SCALES = {  # the worst and the best value of the metric that stands for each kind of task
    "accuracy": (0.0, 1.0),
    "mean_ap": (0.0, 1.0),
    "r2": (0.0, 1.0),
    "segment_f1": (0.0, 1.0),
    "eer": (0.5, 0.0),
    "iwer_ctc": (0.0, 1.0),
    "iwer_lm": (0.0, 1.0),
    "recall_at_1_both": (0.0, 1.0),
    "recall_at_1_bert_both": (0.0, 1.0),
}
# Of tasks that can be scored in two ways, what the second is called: another question, so another axis.
ANOTHER_WAY = {"iwer_lm": "by a language model", "recall_at_1_bert_both": "read by BERT"}
OVERALL = "overall"


@dataclass(frozen=True)
class Result:
    """A score on the scale 0 to 1, and how many test clips it is of."""

    name: str
    value: float
    n: int


def normalised(value: float, worst: float, best: float) -> float:
    """(value - worst) / (best - worst), cut to 0..1: what is below the scale (an R2 of -3) is no worse than its end.

    >>> normalised(0.1, 0.5, 0.0)
    0.8
    """
    return min(1.0, max(0.0, (value - worst) / (best - worst)))


def weighted_average(results: Sequence[Result]) -> float:
    """The mean of normalised results, each weighted by its number of test clips; NaN of none.

    Source: X-ARES, its equation 2, with the true numbers of test clips. Its code weighs otherwise (2000 for the 190 948
    clips of ASVspoof), and its printed averages are by those weights, where they add up: tests/test_published.py.

    >>> weighted_average([Result("a", 1.0, 300), Result("b", 0.5, 100)])
    0.875
    """
    total = sum(result.n for result in results)
    return sum(result.value * result.n for result in results) / total if total else math.nan


def results(scores: Iterable[Score], protocol: str, kinds: Sequence[str]) -> dict[str, dict[tuple[str, str], Result]]:
    """codec -> (dataset, task) -> result, of the scores of a protocol.

    kinds: of latents, the first that a codec has counts (quantized before unquantized); of equal scores the latest.
    """
    name = re.compile(rf"({'|'.join(SCALES)})_(.+)_{re.escape(protocol)}_([\w.-]+)")
    ranked: dict[str, dict[tuple[str, str], tuple[int, Result]]] = defaultdict(dict)
    for score in scores:
        match = name.fullmatch(score.metric)
        if match is None or score.value is None or match[3] not in kinds:
            continue
        task = ", ".join(filter(None, (match[2], ANOTHER_WAY.get(match[1]))))
        at, rank = (score.dataset, task), kinds.index(match[3])
        found = Result(f"{task} ({score.dataset})", normalised(score.value, *SCALES[match[1]]), score.n)
        if rank <= ranked[score.codec].get(at, (rank, found))[0]:
            ranked[score.codec][at] = (rank, found)
    return {codec: {at: result for at, (_, result) in of.items()} for codec, of in ranked.items()}


def by_domain(
    found: Mapping[str, Mapping[tuple[str, str], Result]], domains: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """codec -> domain, and `overall` -> weighted average; domains: dataset -> its domain.

    Only tasks that every codec has a result for are in it: an average of other tasks would compare other things.
    """
    shared = set.intersection(*(set(of) for of in found.values())) if found else set()
    table: dict[str, dict[str, float]] = {}
    for codec, of in found.items():
        parts: dict[str, list[Result]] = defaultdict(list)
        for at in sorted(shared):
            for name in (domains[at[0]], OVERALL):
                parts[name].append(of[at])
        table[codec] = {name: weighted_average(part) for name, part in parts.items()}
    return table


def radar_lines(found: Mapping[str, Mapping[tuple[str, str], Result]]) -> dict[str, dict[str, float]]:
    """codec -> axis (task and dataset) -> value from 0 to 1, over the tasks that every codec has: for `plots.radar`."""
    shared = sorted(set.intersection(*(set(of) for of in found.values()))) if found else []
    return {codec: {of[at].name: of[at].value for at in shared} for codec, of in found.items()}
