"""From reconstructions to a score: the metric of every clip, the failures by name, the mean and its interval."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from earmark import __version__
from earmark.codecs.registry import Entry, catalogue
from earmark.data import audio
from earmark.data.cards import Dataset
from earmark.data.manifest import Clip
from earmark.metrics import METRICS, RATES, Metric, MetricError, bitrate_kbps, checks, compute
from earmark.metrics import registry as metric_rows
from earmark.reports.scores import Score, finite, mean_with_interval
from earmark.store import fingerprint
from earmark.store.jobs import Job, prepare, sound_job
from earmark.store.shards import Outcome
from earmark.store.store import Store

SCORED = RATES | METRICS  # every name that a score can have
_RANKED_BY = "mel_loss"  # cheap, and for every domain
EXCERPT_S = 5.0  # of an example to listen to: a report of twenty codecs must still open
CACHED_CLIPS = 64  # clips kept at a metric's rate, so that nine metrics do not resample each of them nine times


@dataclass(frozen=True)
class Measured:
    """A score and what it was made of: values and errors, by clip."""

    score: Score
    values: dict[str, float]
    errors: dict[str, str]
    groups: dict[str, str]

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
                "at_bound": self.values.get(clip) == _perfect(SCORED[self.score.metric]),
                "error": self.errors.get(clip),
            }
            for clip, group in self.groups.items()
        ]


@dataclass(frozen=True)
class Example:
    """A clip to listen to: reference and estimate [L], mono, at sample_rate (Hz)."""

    place: str
    title: str
    reference: np.ndarray
    estimate: np.ndarray
    sample_rate: int


def measure(
    metric_name: str,
    entry: Entry,
    dataset: Dataset,
    store: Store,
    *,
    suite: str,
    preset: str,
    device: str,
    seed: int = 0,
) -> Measured:
    """Score a codec on a dataset by one metric of the registry. A clip that fails is counted, named and in no mean."""
    metric, started = SCORED[metric_name], time.perf_counter()
    values, errors = {}, {}
    for clip, outcome in clip_outcomes(metric, entry, dataset, store, seed):
        if outcome.error is None:
            values[clip.id] = float(outcome.facts["value"])
        else:
            errors[clip.id] = outcome.error
    groups = {clip.id: clip.group for clip in dataset.clips}
    finite_values, notes = _without_exact(values, metric)
    mean, low, high, method = mean_with_interval(finite_values, groups, seed)
    score = Score(
        codec=entry.name,
        suite=suite,
        dataset=dataset.name,
        metric=metric.name,
        value=finite(mean),
        unit=metric.unit,
        higher_is_better=metric.higher_is_better,
        ci_low=finite(low),
        ci_high=finite(high),
        ci_method=method,
        n=len(values),
        failed=len(errors),
        at_bound=mean == _perfect(metric),
        backend=metric.backend,
        protocol=_protocol(metric),
        preset=preset,
        limit=dataset.limit,
        seed=seed,
        device=device,
        seconds=round(time.perf_counter() - started, 3),
        codec_revision=entry.info.revision or store.fingerprint(entry),
        dataset_fingerprint=dataset.fingerprint,
        versions={"earmark": __version__, "resampler": audio.resampler()} | fingerprint.versions(entry),
        notes=(*store.notes(entry), *notes),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        run=store.run,
    )
    return Measured(score, values, errors, groups)


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
    return finite, [f"{len(values) - len(finite)} clips came back exactly and are not in the mean"]


def _protocol(metric: Metric) -> str:
    """The rate that a metric was evaluated at is part of its score: the papers differ in it."""
    if metric.name in RATES:
        return ""
    return "at the codec's rate" if metric.rate is None else f"at {metric.rate} Hz"


def clip_outcomes(
    metric: Metric, entry: Entry, dataset: Dataset, store: Store, seed: int = 0
) -> Iterator[tuple[Clip, Outcome]]:
    """The metric's value of every clip, from the store; sound first, so that no worker waits for it holding a lock."""
    job = _value_job(metric, entry, seed)
    if store.missing(job, dataset.clips):
        store.ensure(sound_job(entry, seed), dataset.clips)
    yield from zip(dataset.clips, store.outcomes(job, dataset.clips), strict=True)


def _value_job(metric: Metric, entry: Entry, seed: int) -> Job:
    sources = fingerprint.of_files(inspect.getfile(metric.load()), str(checks.__file__), str(metric_rows.__file__))
    version = f"{metric.backend} {metric.rate} {sources}"
    return Job("earmark.scoring:values", entry, detail=metric.name, seed=seed, version=version, model=False)


def values(store: Store, job: Job, clips: Sequence[Clip]) -> list[Outcome]:
    """The maker of a metric's values: fact `value` of each clip, or the error of the codec or the metric."""
    metric = SCORED[job.detail]
    sounds = store.outcomes(sound_job(job.entry, job.seed), clips)
    with _one_thread():
        return [_value(metric, job.entry, clip, sound) for clip, sound in zip(clips, sounds, strict=True)]


def _value(metric: Metric, entry: Entry, clip: Clip, sound: Outcome) -> Outcome:
    if sound.error:
        return Outcome(clip.sha256, error=sound.error)
    try:
        return Outcome(clip.sha256, {"value": clip_value(metric, entry, clip, sound)})
    except (MetricError, audio.AudioError) as error:
        return Outcome(clip.sha256, error=str(error))


def clip_value(metric: Metric, entry: Entry, clip: Clip, sound: Outcome) -> float:
    """One clip's value. Raises MetricError where the metric has none."""
    if metric.name in RATES:
        if sound.facts["bits"] is None:
            raise MetricError(f"{entry.name} does not say how many bits it spent")
        return bitrate_kbps(sound.facts["bits"], sound.facts["samples"], sound.facts["sample_rate"])
    reference, estimate, rate = pair(clip, sound, metric.rate)
    return float(compute(metric.name, reference[None], estimate[None], rate)[0])


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in one order, so that a score is the same to the bit however many workers share the cores."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def pair(clip: Clip, sound: Outcome, rate: int | None) -> tuple[np.ndarray, np.ndarray, int]:
    """Reference and estimate [L], mono, at a rate (None: the codec's own), cut to the shorter; and that rate.

    The reference is always the recording itself, resampled once: what the codec's own rate or bandwidth loses counts.
    """
    made_at = int(sound.facts["sample_rate"])
    rate = rate or made_at
    estimate = audio.resample(audio.to_channels(sound.arrays["wav"], 1), made_at, rate)[0]
    reference = _reference(clip, rate)
    length = min(len(reference), len(estimate))
    return reference[:length], estimate[:length], rate


@functools.lru_cache(maxsize=CACHED_CLIPS)
def _reference(clip: Clip, rate: int) -> np.ndarray:
    return prepare(clip, rate, channels=1).wav[0]


def in_order(scores: Iterable[Score]) -> list[Score]:
    """Scores in the order of catalogue and registry, whichever worker was first; own codecs last."""
    codecs = {name: place for place, name in enumerate(catalogue())}
    metrics = {name: place for place, name in enumerate(SCORED)}
    last = len(codecs)
    return sorted(scores, key=lambda score: (codecs.get(score.codec, last), score.codec, metrics.get(score.metric, 0)))


def sounds(entry: Entry, dataset: Dataset, store: Store) -> Iterator[tuple[Clip, Outcome]]:
    """Every clip and what the codec made of it."""
    yield from zip(dataset.clips, store.outcomes(sound_job(entry), dataset.clips), strict=True)


def clips_that_failed(entry: Entry, dataset: Dataset, store: Store) -> dict[str, str]:
    """The clips that the codec gave nothing back for, with the reason."""
    return {clip.id: sound.error for clip, sound in sounds(entry, dataset, store) if sound.error}


def states_bits(entry: Entry, dataset: Dataset, store: Store) -> bool:
    """Whether the codec says what it spends; the identity and an anchor do not code."""
    return any(sound.facts.get("bits") is not None for _, sound in sounds(entry, dataset, store))


def listening_examples(entry: Entry, dataset: Dataset, store: Store) -> list[Example]:
    """The median and the worst clip by mel loss, at the lower of the two rates, to look at and listen to."""
    found = clip_outcomes(SCORED[_RANKED_BY], entry, dataset, store)
    ranked = [(outcome.facts["value"], clip) for clip, outcome in found if outcome.error is None]
    ranked.sort(key=lambda item: (item[0], item[1].id))
    if not ranked:
        return []
    chosen = {"worst": ranked[-1], "median": ranked[len(ranked) // 2]}
    places = {clip.id: (place, value) for place, (value, clip) in chosen.items()}
    made = [(clip, sound) for clip, sound in sounds(entry, dataset, store) if clip.id in places]
    return [_example(clip, sound, *places[clip.id]) for clip, sound in made]


def _example(clip: Clip, sound: Outcome, place: str, distance: float) -> Example:
    recorded_at = prepare(clip, None, channels=1).sample_rate
    reference, estimate, rate = pair(clip, sound, min(recorded_at, int(sound.facts["sample_rate"])))
    end = round(EXCERPT_S * rate)
    title = f"{place} clip by {_RANKED_BY} ({distance:.3g}): {clip.id}"
    return Example(place, title, reference[:end], estimate[:end], rate)
