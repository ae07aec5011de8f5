"""From reconstructions to a score: the metric of every clip, the failures by name, the mean and its interval."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from earmark import __version__
from earmark.codecs import registry
from earmark.codecs.registry import Entry, catalogue
from earmark.data import audio
from earmark.data.cards import Dataset
from earmark.data.manifest import Clip
from earmark.metrics import METRICS, Metric
from earmark.reports.intervals import mean_with_interval
from earmark.reports.scores import Score, finite
from earmark.scoring import whole
from earmark.scoring.clips import ORIGINAL, clip_outcomes, stored_values
from earmark.scoring.found import Found
from earmark.store import fingerprint
from earmark.store.store import Store


@dataclass(frozen=True)
class Measured:
    """A score, and by clip what it was made of: values, errors, why there is no answer. A metric of all clips at once
    has none of these.
    """

    score: Score
    values: Mapping[str, float]
    errors: Mapping[str, str]
    no_answer: Mapping[str, str]
    groups: Mapping[str, str]
    best: float

    def clip_rows(self) -> list[dict[str, Any]]:
        """Rows for clips.parquet."""
        names = ("codec", "suite", "dataset", "metric", "backend", "protocol", "preset", "seed", "dataset_fingerprint")
        common = {name: getattr(self.score, name) for name in names}
        return [
            common
            | {
                "clip": clip,
                "group": group,
                "value": finite(self.values.get(clip, math.nan)),
                "at_bound": self.values.get(clip) == self.best,
                "error": self.errors.get(clip) or self.no_answer.get(clip),
            }
            for clip, group in self.groups.items()
            if clip in self.values or clip in self.errors or clip in self.no_answer
        ]


def measure(
    metric: Metric,
    entry: Entry,
    dataset: Dataset,
    store: Store,
    *,
    suite: str,
    preset: str,
    device: str,
    encoder: Entry | None = None,
    found: Found | None = None,
    variant: str = "",
    protocol: str = "",
    seed: int = 0,
) -> Measured:
    """Score a codec on a dataset by one metric. A clip that fails is counted, named and in no mean.

    encoder: by whose embeddings distributions are compared; its name is then part of the metric's.
    found: what the procedure of a suite found, for metrics of that kind; `variant` of the procedure is then part of the
    metric's name, and `protocol` says how it was done.
    """
    started, groups = time.perf_counter(), {clip.id: clip.group for clip in dataset.clips}
    if found is None and metric.kind in whole.KINDS:
        found = whole.statistic(metric, entry, dataset, store, encoder, seed)
    elif found is None:
        found = _of_clips(metric, entry, dataset, store, groups, seed)
    variant = encoder.name if encoder else variant
    score = Score(
        codec=entry.name,
        suite=suite,
        dataset=dataset.name,
        metric=f"{metric.name}_{variant}" if variant else metric.name,
        value=finite(found.value),
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        ci_low=finite(found.low),
        ci_high=finite(found.high),
        ci_method=found.method,
        n=found.n,
        failed=len(found.errors),
        no_answer=len(found.no_answer),
        exact=sum(value == _perfect(metric) for value in found.values.values()),
        at_bound=found.value == _perfect(metric),
        out_of_domain=dataset.domain not in metric.domains,
        backend=f"{encoder.name}-{store.fingerprint(encoder)}" if encoder else metric.backend,
        protocol=protocol or _protocol(metric),
        preset=preset,
        limit=dataset.limit,
        seed=seed,
        device=device,
        seconds=round(time.perf_counter() - started, 3),
        codec_revision=entry.info.revision or store.fingerprint(entry),
        dataset_fingerprint=dataset.fingerprint,
        versions={"earmark": __version__, "resampler": audio.resampler()} | fingerprint.versions(entry),
        notes=(*store.notes(entry), *found.notes),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        run=store.run,
    )
    return Measured(score, found.values, found.errors, found.no_answer, groups, _perfect(metric))


def _of_clips(
    metric: Metric, entry: Entry, dataset: Dataset, store: Store, groups: Mapping[str, str], seed: int
) -> Found:
    """The mean over clips, each with its weight: of a rate of errors, the words that were spoken."""
    values, weights, errors = {}, {}, {}
    for clip, outcome in clip_outcomes(metric, entry, dataset, store, seed):
        if outcome.error is None:
            values[clip.id] = float(outcome.facts["value"])
            weights[clip.id] = float(outcome.facts.get("weight", 1.0))
        else:
            errors[clip.id] = outcome.error
    kept, notes = _without_exact(values, metric)
    interval = mean_with_interval(kept, groups, seed, weights)
    failed = [clip for clip in dataset.clips if clip.id in errors]
    no_answer = {clip: errors.pop(clip) for clip in without_answer(metric, failed, store, seed)}
    return Found(*interval, len(kept), values, errors, no_answer, notes)


def without_answer(metric: Metric, failed: Sequence[Clip], store: Store, seed: int) -> list[str]:
    """Those of the failed clips on which the identity codec fails too: theirs is not the codec's fault."""
    if not failed or metric.kind == "bits":
        return []
    outcomes = stored_values(metric, registry.find(ORIGINAL), failed, store, seed)
    return [clip.id for clip, outcome in zip(failed, outcomes, strict=True) if outcome.error]


def _perfect(metric: Metric) -> float:
    return math.inf if metric.higher_is_better else -math.inf


def _without_exact(values: dict[str, float], metric: Metric) -> tuple[dict[str, float], list[str]]:
    """The values that have a mean. One clip that comes back exactly (infinite dB) must not make the mean infinite.

    Where all are exact, the mean is at its bound. A clip of which nothing is left (infinite the other way) stays: the
    mean is then none, and fails.
    """
    finite = {clip: value for clip, value in values.items() if value != _perfect(metric)}
    if not finite or len(finite) == len(values):
        return values, []
    return finite, [f"came back exactly, so neither in the mean nor in n: {len(values) - len(finite)} clips"]


def _protocol(metric: Metric) -> str:
    """The rate that a metric was evaluated at is part of its score: the papers differ in it."""
    if metric.kind in ("bits", "codes", "info", "embedding", "procedure"):
        return ""
    return "at the codec's rate" if metric.rate is None else f"at {metric.rate} Hz"


def metric_names(encoders: Iterable[str] = ()) -> list[str]:
    """Every name that a score can have; `encoders` are those that the catalogue does not know."""
    embedding = [name for name, metric in METRICS.items() if metric.kind == "embedding"]
    known = [entry.name for entry in catalogue().values() if "embed" in entry.info.capabilities]
    of_encoders = [f"{name}_{encoder}" for name in embedding for encoder in dict.fromkeys([*known, *encoders])]
    return [name for name in METRICS if name not in embedding] + of_encoders


def metric_variants() -> list[str]:
    """Regular expressions of the names that scores of procedures can have beside the rows' own."""
    return [f"{re.escape(name)}_({metric.variants})" for name, metric in METRICS.items() if metric.variants]


def metric_units() -> dict[str, str]:
    """The unit of each metric that has a row."""
    return {name: metric.unit for name, metric in METRICS.items()}


def in_order(scores: Iterable[Score]) -> list[Score]:
    """Scores in the order of catalogue and registry, whichever worker was first; own codecs last."""
    codecs = {name: place for place, name in enumerate(catalogue())}
    metrics = {name: place for place, name in enumerate(METRICS)}
    last = len(codecs)

    def place(score: Score) -> tuple:
        rows = (name for name in metrics if f"{score.metric}_".startswith(f"{name}_"))  # fad_logmel: a fad
        row = max(rows, key=len, default="")
        return codecs.get(score.codec, last), score.codec, metrics.get(row, len(metrics)), score.metric, score.dataset

    return sorted(scores, key=place)
