"""Metrics of all clips at once: what the codes of a dataset hold, and how far two distributions lie apart.

Their intervals come from leaving out groups of clips; a clip has no value of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from earmark.codecs import calls, registry
from earmark.codecs.registry import Entry
from earmark.data import audio
from earmark.data.cards import Dataset
from earmark.data.manifest import Clip
from earmark.metrics import Metric, MetricError
from earmark.reports.intervals import jackknife_interval
from earmark.scoring.clips import ORIGINAL
from earmark.scoring.found import Found
from earmark.store.jobs import Job, sound_job, tokens_job
from earmark.store.shards import Outcome
from earmark.store.store import Store

KINDS = ("info", "codes", "embedding")
WINDOW_S = 1.0  # of sound that one embedding stands for: long enough to hear what it is, as VGGish's 0.96 s


def statistic(metric: Metric, entry: Entry, dataset: Dataset, store: Store, encoder: Entry | None, seed: int) -> Found:
    """The one number of all clips, and its interval."""
    if metric.kind == "info":
        value = float(metric.load()(entry.info))
        return Found(value, value, value, "exact: what the codec declares", len(dataset.clips))
    groups = {clip.id: clip.group for clip in dataset.clips}
    if metric.kind == "codes":
        codes, errors = _codes(entry, dataset, store, seed)
        return _found(lambda part: metric.load()(part, entry.info), codes, groups, errors, [])
    assert encoder is not None, f"{metric.name} is measured by the embeddings of an encoder"
    pairs, errors = _embeddings(entry, encoder, dataset, store, seed)
    return _found(_apart(metric.load()), pairs, groups, errors, _size_notes(pairs))


def _found(
    of: Callable[[Sequence], float],
    items: Mapping[str, Any],
    groups: Mapping[str, str],
    errors: Mapping[str, str],
    notes: Sequence[str],
) -> Found:
    try:
        return Found(*jackknife_interval(of, items, groups), len(items), errors=errors, notes=notes)
    except MetricError as error:  # no number of any of them
        nothing = dict.fromkeys(items, str(error)) | dict(errors)
        return Found(math.nan, math.nan, math.nan, "none", 0, errors=nothing)


def _codes(entry: Entry, dataset: Dataset, store: Store, seed: int) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The codes [K, T] of every clip by its id, and the errors."""
    found = zip(dataset.clips, store.outcomes(tokens_job(entry, seed), dataset.clips), strict=True)
    codes, errors = {}, {}
    for clip, outcome in found:
        if outcome.error:
            errors[clip.id] = outcome.error
        else:
            codes[clip.id] = outcome.arrays["codes"]
    return codes, errors


def _apart(distance: Callable[[np.ndarray, np.ndarray], float]) -> Callable[[Sequence], float]:
    """The distance between all references and all estimates of (reference, estimate) of each clip."""

    def of(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
        return float(distance(*(np.concatenate(side).astype(np.float64) for side in zip(*pairs, strict=True))))

    return of


def _size_notes(items: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[str]:
    windows = sum(len(reference) for reference, _ in items.values())
    dimensions = next((reference.shape[1] for reference, _ in items.values()), 0)
    few = (
        f", fewer than its {dimensions} dimensions: compare only scores of the same clips"
        if windows < dimensions
        else ""
    )
    return [f"{windows} windows of {WINDOW_S:g} s{few}"]


def _embeddings(
    entry: Entry, encoder: Entry, dataset: Dataset, store: Store, seed: int
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[str, str]]:
    """Of every clip by its id the embeddings [N, D] of the recording and of the estimate, and the errors."""
    sides = (_embedded(of, encoder, dataset, store, seed) for of in (registry.find(ORIGINAL), entry))
    items, errors = {}, {}
    for clip, reference, estimate in zip(dataset.clips, *sides, strict=True):
        if error := reference.error or estimate.error:
            errors[clip.id] = error
        else:
            items[clip.id] = (reference.arrays["embeddings"], estimate.arrays["embeddings"])
    return items, errors


def _embedded(entry: Entry, encoder: Entry, dataset: Dataset, store: Store, seed: int) -> Iterator[Outcome]:
    spec = encoder.adapter if encoder.own else encoder.name
    job = Job("earmark.scoring.whole:embeddings", entry, spec, seed, version=store.fingerprint(encoder))
    if store.missing(job, dataset.clips):
        store.ensure(sound_job(entry, seed), dataset.clips)
    return store.outcomes(job, dataset.clips)


def embeddings(store: Store, job: Job, clips: Sequence[Clip]) -> list[Outcome]:
    """The maker of what an encoder hears in a codec's sound: array `embeddings` float32 [N, D], one a second."""
    encoder, made = registry.find(job.detail), []
    for sound in [*store.outcomes(sound_job(job.entry, job.seed), clips)]:  # the codec before the encoder is loaded
        made.append(sound if sound.error else _embed(store, encoder, sound, job.seed))
    return made


def _embed(store: Store, encoder: Entry, sound: Outcome, seed: int) -> Outcome:
    import torch

    info, made_at = encoder.info, int(sound.facts["sample_rate"])
    rate = info.sample_rate or made_at
    wav = audio.resample(audio.to_channels(sound.arrays["wav"], info.channels), made_at, rate)
    batch = torch.from_numpy(np.ascontiguousarray(wav, np.float32))[None].to(store.device)
    lengths = torch.tensor([wav.shape[1]], device=store.device)
    try:
        found, frames = calls.latents(store.adapter(encoder), info, batch, lengths, info.latent_kinds[-1], seed)
    except calls.CodecError as error:
        return Outcome(sound.clip, error=str(error))
    latents = found[0, :, : int(frames[0])].cpu().numpy()
    return Outcome(sound.clip, {}, {"embeddings": _windows(latents, wav.shape[1] / rate)})


def _windows(latents: np.ndarray, seconds: float) -> np.ndarray:
    """The mean of the frames of each second: [D, T] -> float32 [N, D]; what is left over at the end joins the last."""
    count = max(1, min(int(seconds / WINDOW_S), latents.shape[1]))
    edges = np.round(np.arange(count) * WINDOW_S / seconds * latents.shape[1]).astype(int)
    return np.stack([part.mean(1) for part in np.split(latents, edges[1:], axis=1)]).astype(np.float32)
