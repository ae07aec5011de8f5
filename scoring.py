"""From reconstructions to a score: the metric of every clip, the failures by name, the mean and its interval."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from earmark import __version__
from earmark.codecs.registry import Entry, catalogue
from earmark.data import audio
from earmark.data.cards import Dataset
from earmark.data.manifest import Clip
from earmark.metrics import METRICS, RATES, Metric, MetricError, bitrate_kbps, compute
from earmark.reports.scores import Score, finite, mean_with_interval
from earmark.store import fingerprint
from earmark.store.store import Reconstruction, Store, prepare

SCORED = RATES | METRICS  # every name that a score can have
_RANKED_BY = "mel_loss"  # cheap, and for every domain
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
                "at_bound": math.isinf(self.values.get(clip, 0.0)),
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
    for result in store.reconstructions(entry, dataset, seed):
        try:
            with _one_thread():
                values[result.clip.id] = clip_value(metric, entry, result)
        except (MetricError, audio.AudioError) as error:
            errors[result.clip.id] = str(error)
    groups = {clip.id: clip.group for clip in dataset.clips}
    mean, low, high, method = mean_with_interval(values, groups, seed)
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
        at_bound=mean == (math.inf if metric.higher_is_better else -math.inf),
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
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return Measured(score, values, errors, groups)


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


def _protocol(metric: Metric) -> str:
    """The rate that a metric was evaluated at is part of its score: the papers differ in it."""
    if metric.name in RATES:
        return ""
    return "at the codec's rate" if metric.rate is None else f"at {metric.rate} Hz"


def clip_value(metric: Metric, entry: Entry, result: Reconstruction) -> float:
    """One clip's value. Raises MetricError where the codec failed on it or the metric has none."""
    if result.wav is None:
        raise MetricError(result.outcome.error or "no reconstruction")
    if metric.name in RATES:
        return _bitrate_kbps(entry, result)
    reference, estimate, rate = pair(result, metric.rate)
    return float(compute(metric.name, reference[None], estimate[None], rate)[0])


def _bitrate_kbps(entry: Entry, result: Reconstruction) -> float:
    if result.outcome.bits is None:
        raise MetricError(f"{entry.name} does not say how many bits it spent")
    return bitrate_kbps(result.outcome.bits, result.outcome.samples, result.outcome.sample_rate)


def pair(result: Reconstruction, rate: int | None) -> tuple[np.ndarray, np.ndarray, int]:
    """Reference and estimate [L], mono, at a rate (None: the codec's own), cut to the shorter; and that rate.

    The reference is always the recording itself, resampled once: what the codec's own rate or bandwidth loses counts.
    """
    assert result.wav is not None
    rate = rate or result.outcome.sample_rate
    estimate = audio.resample(audio.to_channels(result.wav, 1), result.outcome.sample_rate, rate)[0]
    reference = _reference(result.clip, rate)
    length = min(len(reference), len(estimate))
    return reference[:length], estimate[:length], rate


@functools.lru_cache(maxsize=CACHED_CLIPS)
def _reference(clip: Clip, rate: int) -> np.ndarray:
    return prepare(clip, rate, channels=1)[0][0]


def in_order(scores: Iterable[Score]) -> list[Score]:
    """Scores in the order of catalogue and registry, whichever worker was first; own codecs last."""
    codecs = {name: place for place, name in enumerate(catalogue())}
    metrics = {name: place for place, name in enumerate(SCORED)}
    last = len(codecs)
    return sorted(scores, key=lambda score: (codecs.get(score.codec, last), score.codec, metrics.get(score.metric, 0)))


def clips_that_failed(entry: Entry, dataset: Dataset, store: Store) -> dict[str, str]:
    """The clips that the codec gave nothing back for, with the reason."""
    results = store.reconstructions(entry, dataset)
    return {result.clip.id: result.outcome.error for result in results if result.outcome.error}


def states_bits(entry: Entry, dataset: Dataset, store: Store) -> bool:
    """Whether the codec says what it spends; the identity and an encoder's baseline do not code."""
    return any(result.outcome.bits is not None for result in store.reconstructions(entry, dataset))


def listening_examples(entry: Entry, dataset: Dataset, store: Store) -> list[Example]:
    """The median and the worst clip by mel loss, at the codec's rate, to look at and listen to."""
    ranked = []
    for result in store.reconstructions(entry, dataset):
        with contextlib.suppress(MetricError, audio.AudioError):
            ranked.append((clip_value(METRICS[_RANKED_BY], entry, result), result))
    ranked.sort(key=lambda item: item[0])
    places = {"median": len(ranked) // 2, "worst": len(ranked) - 1} if ranked else {}
    return [_example(place, *ranked[index]) for place, index in places.items()]


def _example(place: str, distance: float, result: Reconstruction) -> Example:
    reference, estimate, rate = pair(result, None)
    title = f"{place} clip by {_RANKED_BY} ({distance:.3g}): {result.clip.id}"
    return Example(place, title, reference, estimate, rate)
