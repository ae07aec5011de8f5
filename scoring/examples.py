"""The clips of a codec to look at and listen to: the median and the worst by mel loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from earmark.codecs.registry import Entry
from earmark.data.cards import Dataset
from earmark.data.manifest import Clip
from earmark.metrics import METRICS
from earmark.reports import attachments
from earmark.scoring.clips import clip_outcomes, pair
from earmark.store import fingerprint
from earmark.store.jobs import Job, prepare, sound_job
from earmark.store.shards import Outcome
from earmark.store.store import Store

RANKED_BY = "mel_loss"  # cheap, and for every domain
EXCERPT_S = 5.0  # of an example to listen to: a report of twenty codecs must still open


@dataclass(frozen=True)
class Example:
    """A clip to look at and listen to: what it shows, its spectrograms (Allure's image comparison) and its player."""

    title: str
    spectrograms: bytes
    player: bytes


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
    """The worst and the median clip by mel loss, at the lower of the two rates; drawn once, then read."""
    found = clip_outcomes(METRICS[RANKED_BY], entry, dataset, store)
    ranked = [(outcome.facts["value"], clip) for clip, outcome in found if outcome.error is None]
    ranked.sort(key=lambda item: (item[0], item[1].id))
    if not ranked:
        return []
    chosen = {"worst": ranked[-1], "median": ranked[len(ranked) // 2]}
    clips = [clip for _, clip in chosen.values()]
    job = Job("earmark.scoring.examples:drawn", entry, version=fingerprint.of_files(attachments.__file__), model=False)
    pictures = zip(chosen.items(), store.outcomes(job, clips), strict=True)
    return [
        Example(f"{place} clip by {RANKED_BY} ({value:.3g}): {clip.id}", *_bytes(made))
        for (place, (value, clip)), made in pictures
    ]


def _bytes(made: Outcome) -> tuple[bytes, bytes]:
    return made.arrays["spectrograms"].tobytes(), made.arrays["player"].tobytes()


def drawn(store: Store, job: Job, clips: Sequence[Clip]) -> list[Outcome]:
    """The maker of pictures and players: arrays `spectrograms` and `player`, the bytes of each."""
    return [
        _drawn(job.entry, clip, sound)
        for clip, sound in zip(clips, store.outcomes(sound_job(job.entry, job.seed), clips), strict=True)
    ]


def _drawn(entry: Entry, clip: Clip, sound: Outcome) -> Outcome:
    recorded_at = prepare(clip, None, channels=1).sample_rate
    reference, estimate, rate = pair(clip, sound, min(recorded_at, int(sound.facts["sample_rate"])))
    reference, estimate = (wav[: round(EXCERPT_S * rate)] for wav in (reference, estimate))
    pictures = attachments.spectrogram_pair(reference, estimate, rate, clip.id)
    page = attachments.player([("the recording", reference, rate), (entry.name, estimate, rate)])
    parts = {"spectrograms": pictures, "player": page.encode()}
    return Outcome(clip.sha256, {}, {name: np.frombuffer(data, np.uint8) for name, data in parts.items()})
