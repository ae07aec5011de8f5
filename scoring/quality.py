"""How good the sound still is after what was done to it: the metrics of reconstruction after a transform."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from earmark.codecs.registry import Entry
from earmark.data import audio
from earmark.data.cards import Dataset
from earmark.data.manifest import Clip
from earmark.metrics import METRICS, MetricError, compute
from earmark.metrics.registry import Metric
from earmark.scoring.clips import one_thread, stored_values
from earmark.scoring.found import Found, mean_of
from earmark.scoring.measure import without_answer
from earmark.scoring.stability import make_rounds
from earmark.store import fingerprint
from earmark.store.batches import Audio
from earmark.store.jobs import Job, sound_job, source, tokens_are_stored, tokens_job
from earmark.store.shards import Outcome
from earmark.store.store import Store
from earmark.store.transforms import Noise, Round, Transform

HEARD_BY = "mel_loss"  # what tells how far a sound is from the clean and from the noisy one


def metrics_for(dataset: Dataset, names: Sequence[str]) -> list[Metric]:
    """Those metrics that were validated for such audio."""
    return [METRICS[name] for name in names if dataset.domain in METRICS[name].domains]


def quality(metric: Metric, entry: Entry, dataset: Dataset, store: Store, steps: Transform) -> Found:
    """A metric of what the codec gives back after the steps, against the recording: the mean over clips."""
    make_rounds(entry, dataset, store, (*steps, Round()))
    return _gathered(metric, dataset, store, stored_values(metric, entry, dataset.clips, store, 0, steps))


def _gathered(metric: Metric, dataset: Dataset, store: Store, outcomes: Iterable[Outcome]) -> Found:
    """The mean of the outcomes' values, the errors, and the recordings that the metric has no answer for."""
    found = {clip.id: outcome for clip, outcome in zip(dataset.clips, outcomes, strict=True)}
    errors = {clip: outcome.error for clip, outcome in found.items() if outcome.error}
    values = {clip: float(outcome.facts["value"]) for clip, outcome in found.items() if not outcome.error}
    failed = [clip for clip in dataset.clips if clip.id in errors]
    no_answer = {clip: errors.pop(clip) for clip in without_answer(metric, failed, store, 0)}
    return mean_of(values, dataset, errors, no_answer)


def noise_followed(entry: Entry, dataset: Dataset, store: Store, noise: Noise) -> Found:
    """Whether what comes back of a noisy clip is nearer to the noisy one (towards 1) or to the clean one (towards 0).

    d(clean) / (d(clean) + d(noisy)) of each clip, d being the mel loss between what comes back and each of the two.
    """
    if tokens_are_stored(entry):
        store.ensure(tokens_job(entry, steps=(noise,)), dataset.clips)
    heard_by = METRICS[HEARD_BY]
    files = (inspect.getfile(heard_by.implementation()), __file__)
    version = f"{heard_by.backend} {heard_by.rate} {fingerprint.of_files(*files)}"
    job = Job("earmark.scoring.quality:nearness", entry, version=version, steps=(noise,))
    return _gathered(heard_by, dataset, store, store.outcomes(job, dataset.clips))


def nearness(store: Store, job: Job, clips: Sequence[Clip]) -> list[Outcome]:
    """The maker of `noise_followed`: fact `value` of each clip. The sound is of no other use, and is not kept."""
    given = [source(store, replace(job, steps=steps), clips) for steps in ((), job.steps)]
    sounds = sound_job(job.entry, job.seed, job.steps).make(store, clips)
    with one_thread():
        return [_near(clip, sound, *given) for clip, sound in zip(clips, sounds, strict=True)]


def _near(clip: Clip, sound: Outcome, *given: Callable[[Clip], Audio]) -> Outcome:
    if sound.error:
        return sound
    try:
        to_clean, to_noisy = (_apart(read(clip), sound.arrays["wav"]) for read in given)
    except (MetricError, audio.AudioError) as error:
        return Outcome(clip.sha256, error=str(error))
    return Outcome(clip.sha256, {"value": to_clean / (to_clean + to_noisy)})


def _apart(given: Audio, wav: np.ndarray) -> float:
    """The mel loss between what the codec was given, or might have been, and what it gave back, both as mono."""
    reference, estimate = (audio.to_channels(sound, 1) for sound in (given.wav, wav))
    length = min(reference.shape[1], estimate.shape[1])
    return float(compute(HEARD_BY, reference[:, :length], estimate[:, :length], given.sample_rate)[0])
