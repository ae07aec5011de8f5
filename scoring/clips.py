"""The value of a metric for one clip, from the store: what a metric of each kind is given."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from earmark.codecs import registry
from earmark.codecs.registry import Entry
from earmark.data import audio
from earmark.data.cards import Dataset
from earmark.data.manifest import Clip
from earmark.metrics import METRICS, Backend, Metric, MetricError, align, checks, compute
from earmark.metrics import registry as metric_rows
from earmark.metrics.registry import backends
from earmark.store import fingerprint
from earmark.store.jobs import Job, prepare, sound_job
from earmark.store.shards import FINAL, Outcome
from earmark.store.store import Store
from earmark.store.transforms import Transform

CACHED_CLIPS = 64  # clips kept at a metric's rate, so that thirty metrics do not resample each of them thirty times
TRANSCRIPT = "transcript"  # the manifest's column
HEARD_AT = 16_000  # Hz that recognisers take
ORIGINAL = "identity"  # the codec that gives back the recording


def clip_outcomes(
    metric: Metric, entry: Entry, dataset: Dataset, store: Store, seed: int = 0
) -> Iterator[tuple[Clip, Outcome]]:
    """The metric's value of every clip: of the estimate, of the recording itself, or the increase between them.

    The recording is what the identity codec gives back, so what is heard in it is found once for all codecs.
    """
    if metric.of == "estimate":
        found = stored_values(metric, entry, dataset.clips, store, seed)
    elif metric.of == "original":
        found = stored_values(metric, registry.find(ORIGINAL), dataset.clips, store, seed)
    else:
        both = (stored_values(metric, of, dataset.clips, store, seed) for of in (registry.find(ORIGINAL), entry))
        found = itertools.starmap(_increase, zip(*both, strict=True))
    yield from zip(dataset.clips, found, strict=True)


def _increase(before: Outcome, after: Outcome) -> Outcome:
    if before.error or after.error:
        return after if after.error else before
    return Outcome(after.clip, {**after.facts, "value": after.facts["value"] - before.facts["value"]})


def stored_values(
    metric: Metric, entry: Entry, clips: Sequence[Clip], store: Store, seed: int, steps: Transform = ()
) -> Iterator[Outcome]:
    """The values from the store; what they are made of first, so that no worker waits for that holding a lock."""
    job = value_job(metric, entry, seed, steps)
    if metric.kind == "transcript":
        job = replace(job, version=f"{job.version} {_spoken(clips)}")
    if store.missing(job, clips):
        store.ensure(sound_job(entry, seed, steps), clips)
        if metric.model and metric.kind == "transcript":
            store.ensure(_transcript_job(metric.model, entry, seed, steps), clips)
    return store.outcomes(job, clips)


def _spoken(clips: Sequence[Clip]) -> str:
    """The words of clips, which a manifest may have put right while the sound, their address, is as it was."""
    return fingerprint.digest([(clip.sha256, clip.fields.get(TRANSCRIPT)) for clip in clips])


def value_job(metric: Metric, entry: Entry, seed: int = 0, steps: Transform = ()) -> Job:
    """What a metric's values depend on beside codec and clips: library, rate, sources, and what it needs."""
    files = [metric.source_file(), checks.__file__, metric_rows.__file__]
    files += [align.__file__] if metric.aligned else []
    files += [metric.model.source_file()] if metric.model else []
    needed = (metric.model or metric.needs).version
    version = f"{metric.backend} {metric.function} {metric.rate} {fingerprint.of_files(*map(str, files))} {needed}"
    maker = "earmark.scoring.clips:values"
    return Job(maker, entry, detail=metric.base, seed=seed, version=version, model=False, steps=steps)


def values(store: Store, job: Job, clips: Sequence[Clip]) -> list[Outcome]:
    """The maker of a metric's values: fact `value` of each clip, or the error of the codec or the metric."""
    metric = METRICS[job.detail]
    made_of = [store.outcomes(sound_job(job.entry, job.seed, job.steps), clips)]
    if metric.model and metric.kind == "transcript":
        made_of.append(store.outcomes(_transcript_job(metric.model, job.entry, job.seed, job.steps), clips))
    with one_thread():
        return [_outcome(metric, job.entry, *parts) for parts in zip(clips, *made_of, strict=True)]


def _outcome(metric: Metric, entry: Entry, clip: Clip, *made_of: Outcome) -> Outcome:
    for part in made_of:
        if part.error:
            return Outcome(clip.sha256, error=part.error)
    try:
        return Outcome(clip.sha256, _KINDS[metric.kind](metric, entry, clip, made_of[-1]))
    except MetricError as error:  # the same sound will not do next time either
        return Outcome(clip.sha256, {FINAL: True}, error=str(error))
    except audio.AudioError as error:
        return Outcome(clip.sha256, error=str(error))


# -- a clip's value, by what the metric is given; facts `value` and, where clips do not count alike, `weight` ----------


def _of_bits(metric: Metric, entry: Entry, clip: Clip, sound: Outcome) -> dict[str, float]:
    del clip
    if sound.facts["bits"] is None:
        raise MetricError(f"{entry.name} does not say how many bits it spent")
    return {"value": metric.load()(sound.facts["bits"], sound.facts["samples"], sound.facts["sample_rate"])}


def _of_pair(metric: Metric, entry: Entry, clip: Clip, sound: Outcome) -> dict[str, float]:
    del entry
    if metric.aligned:
        sound = _on_the_grid(clip, sound, metric.rate)
    reference, estimate, rate = pair(clip, sound, metric.rate)
    assert not np.shares_memory(reference, estimate), "the reference would be compared with itself"
    return {"value": float(compute(metric.name, reference[None], estimate[None], rate)[0])}


def _of_transcript(metric: Metric, entry: Entry, clip: Clip, heard: Outcome) -> dict[str, float]:
    """Edits per word (or character) spoken, and their number as the weight: the mean over clips is the corpus' rate."""
    del entry
    errors, spoken = metric.load()(clip.fields[TRANSCRIPT], heard.facts["text"])
    return {"value": errors / spoken, "weight": float(spoken)}


_KINDS: dict[str, Callable[..., dict[str, float]]] = {
    "bits": _of_bits,
    "pair": _of_pair,
    "estimate": _of_pair,
    "transcript": _of_transcript,
}


# -- what a recogniser hears ------------------------------------------------------------------------------------------


def _transcript_job(model: Backend, entry: Entry, seed: int, steps: Transform) -> Job:
    maker = "earmark.scoring.clips:transcripts"
    version = f"{model.version} {fingerprint.of_files(model.source_file())}"
    return Job(maker, entry, model.name, seed, version=version, model=False, steps=steps)


def transcripts(store: Store, job: Job, clips: Sequence[Clip]) -> list[Outcome]:
    """The maker of transcripts: fact `text` of each clip's sound, as a recogniser hears it."""
    recogniser = next(model for model in backends("asr") if model.name == job.detail).load()
    with one_thread():
        sounds = store.outcomes(sound_job(job.entry, job.seed, job.steps), clips)
        return [_heard(store, recogniser, clip, sound) for clip, sound in zip(clips, sounds, strict=True)]


def _heard(store: Store, recogniser: Any, clip: Clip, sound: Outcome) -> Outcome:
    if sound.error:
        return Outcome(clip.sha256, error=sound.error)
    store.beat(f"transcribing {clip.id}")
    try:
        return Outcome(clip.sha256, {"text": recogniser.transcribe(pair(clip, sound, HEARD_AT)[1])})
    except MetricError as error:
        return Outcome(clip.sha256, error=str(error))


# -- reference and estimate -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
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


def _on_the_grid(clip: Clip, sound: Outcome, rate: int | None) -> Outcome:
    """The sound cut at its start so that its delay, in samples of the codec's rate, is whole ones at the metric's.

    Delays are taken out in whole samples (`metrics.align`). One sample at 24 kHz is two thirds of one at 16 kHz, and
    what is then left, a third, is as bad as noise 17 dB under speech.
    """
    made_at = int(sound.facts["sample_rate"])
    step = made_at // math.gcd(made_at, rate or made_at)
    if step == 1:
        return sound
    reference, estimate, _ = pair(clip, sound, made_at)
    late = align.lag_samples(reference.astype(np.float64), estimate.astype(np.float64), made_at)
    return replace(sound, arrays=sound.arrays | {"wav": sound.arrays["wav"][:, late % step :]})


@functools.lru_cache(maxsize=CACHED_CLIPS)
def _reference(clip: Clip, rate: int) -> np.ndarray:
    return prepare(clip, rate, channels=1).wav[0]
