"""The clips of a codec to look at and listen to: the best, the median and the worst by mel loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from earmark.codecs.registry import Entry
from earmark.data.cards import Dataset
from earmark.data.manifest import Clip
from earmark.metrics import METRICS
from earmark.reports import attachments
from earmark.reports.attachments import Sound
from earmark.scoring import clips as pairs
from earmark.scoring.clips import clip_outcomes, pair
from earmark.store import fingerprint
from earmark.store.jobs import Job, prepare, sound_job
from earmark.store.shards import Outcome
from earmark.store.store import Store

RANKED_BY = "mel_loss"  # cheap, and for every domain
EXCERPT_S = 5.0  # of an example to listen to: a report of twenty codecs must still open
HIGHEST_HZ = 48_000  # more is not heard
SOUNDS = ("recording", "estimate")


@dataclass(frozen=True)
class Example:
    """A clip to look at and listen to: its place among all, its spectrograms (Allure's image comparison) and how the
    recording and its reconstruction sound.
    """

    place: str
    clip: str
    value: float  # by RANKED_BY
    spectrograms: bytes
    recording: Sound
    estimate: Sound

    @property
    def title(self) -> str:
        return f"{self.place} clip by {RANKED_BY} ({self.value:.3g}): {self.clip}"


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
    """The worst, the median and the best clip by mel loss, each once; drawn once, then read."""
    found = clip_outcomes(METRICS[RANKED_BY], entry, dataset, store)
    ranked = [(outcome.facts["value"], clip) for clip, outcome in found if outcome.error is None]
    ranked.sort(key=lambda item: (item[0], item[1].id))
    if not ranked:
        return []
    places = {len(ranked) // 2: "median", 0: "best", len(ranked) - 1: "worst"}  # of one clip, only the last
    chosen = [(place, *ranked[at]) for at, place in sorted(places.items(), reverse=True)]
    job = Job("earmark.scoring.examples:drawn", entry, version=_version(), model=False)
    made = store.outcomes(job, [clip for _, _, clip in chosen])
    return [_example(*which, drawn) for which, drawn in zip(chosen, made, strict=True)]


def _version() -> str:
    """Of the sources beside the maker's own: what brings a pair together, and what draws it."""
    return fingerprint.of_files(pairs.__file__, attachments.__file__)


def _example(place: str, value: float, clip: Clip, made: Outcome) -> Example:
    parts = {name: array.tobytes() for name, array in made.arrays.items()}
    recording, estimate = (Sound(made.facts[name], parts[name]) for name in SOUNDS)
    return Example(place, clip.id, value, parts["spectrograms"], recording, estimate)


def drawn(store: Store, job: Job, clips: Sequence[Clip]) -> list[Outcome]:
    """The maker of pictures and sounds: arrays `spectrograms`, `recording` and `estimate`, the bytes of each, and as
    facts the captions of both sounds.
    """
    return [
        _drawn(job.entry, clip, sound)
        for clip, sound in zip(clips, store.outcomes(sound_job(job.entry, job.seed), clips), strict=True)
    ]


def _drawn(entry: Entry, clip: Clip, sound: Outcome) -> Outcome:
    """At the recording's rate, so that what a narrower codec cuts off is seen and heard to be missing."""
    rate = min(prepare(clip, None, channels=1).sample_rate, HIGHEST_HZ)
    both = pair(clip, sound, rate)[:2]
    part = f", first {EXCERPT_S:g} s" if len(both[0]) > EXCERPT_S * rate else ""
    reference, estimate = (wav[: round(EXCERPT_S * rate)] for wav in both)
    pictures = attachments.spectrogram_pair(reference, estimate, rate, clip.id)
    named = ((f"the recording{part}", reference, rate), (f"{entry.name}{part}", estimate, rate))
    heard = dict(zip(SOUNDS, attachments.sounds(named), strict=True))
    parts = {"spectrograms": pictures} | {name: each.flac for name, each in heard.items()}
    captions = {name: each.caption for name, each in heard.items()}
    return Outcome(clip.sha256, captions, {name: np.frombuffer(data, np.uint8) for name, data in parts.items()})
