"""The same words by several speakers: are their tokens more alike than those of other words?

The texts are a column of the manifest: `sentence`, else `transcript`. A limit takes a square of the clips: so many
speakers, and as many texts that all of them read.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from earmark.codecs.registry import Entry
from earmark.data.cards import Dataset, load, of
from earmark.data.manifest import Clip
from earmark.metrics import tokens
from earmark.scoring.found import Found, mean_of
from earmark.scoring.stability import token_outcomes
from earmark.store.store import Store

COLUMNS = ("sentence", "transcript")
MOST_CLIPS = 200  # compared each with each


@dataclass(frozen=True)
class Repeated:
    """Clips of repeated texts, what each is of, and how far each's tokens lie from each other's, [N, N]."""

    dataset: Dataset
    clips: tuple[Clip, ...]
    texts: np.ndarray
    speakers: np.ndarray
    distance: np.ndarray
    errors: Mapping[str, str]


def repeated_texts(dataset: Dataset) -> Dataset:
    """The clips of a card whose text another speaker reads too, within the limit; none where texts do not repeat."""
    readings: dict[str, dict[str, list[Clip]]] = defaultdict(lambda: defaultdict(list))
    for clip in load(dataset.card).clips:
        if (text := text_of(clip)) and clip.fields.get("speaker"):
            readings[text][clip.fields["speaker"]].append(clip)
    readings = {text: by for text, by in readings.items() if len(by) > 1}
    limit = min(dataset.limit or MOST_CLIPS, MOST_CLIPS)
    if sum(len(clips) for by in readings.values() for clips in by.values()) > limit:
        readings = _square(readings, math.isqrt(limit))
    return of(dataset, [clip for by in readings.values() for clips in by.values() for clip in clips])


def text_of(clip: Clip) -> str | None:
    """What is said in a clip."""
    return next((clip.fields[column] for column in COLUMNS if clip.fields.get(column)), None)


def _square(readings: Mapping[str, Mapping[str, list[Clip]]], side: int) -> dict[str, dict[str, list[Clip]]]:
    """One clip of each of `side` texts by each of `side` speakers: those who read most texts, and what most of them
    read."""
    read = Counter(speaker for by in readings.values() for speaker in by)
    speakers = {speaker for speaker, _ in sorted(read.items(), key=lambda item: (-item[1], item[0]))[:side]}
    texts = sorted(readings, key=lambda text: (-len(speakers & set(readings[text])), text))[:side]
    return {
        text: {speaker: clips[:1] for speaker, clips in readings[text].items() if speaker in speakers} for text in texts
    }


def compared(entry: Entry, dataset: Dataset, store: Store, codebook: int | None = None) -> Repeated:
    """Every clip of repeated texts compared with every other."""
    made = dict(zip(dataset.clips, token_outcomes(entry, dataset, store), strict=True))
    errors = {clip.id: outcome.error for clip, outcome in made.items() if outcome.error}
    clips = tuple(clip for clip, outcome in made.items() if not outcome.error and (outcome.arrays["codes"] >= 0).any())
    store.beat(f"comparing the tokens of {len(clips)} clips")
    return Repeated(
        dataset,
        clips,
        np.array([text_of(clip) for clip in clips]),
        np.array([clip.fields["speaker"] for clip in clips]),
        tokens.distances([made[clip].arrays["codes"] for clip in clips], codebook),
        errors,
    )


def distance(of: Repeated, same_text: bool, same_speaker: bool) -> Found:
    """Token edit distance of each clip to the others of the same text or another, by the same speaker or another."""
    texts = (of.texts[:, None] == of.texts) == same_text
    speakers = (of.speakers[:, None] == of.speakers) == same_speaker
    asked = texts & speakers & ~np.eye(len(of.clips), dtype=bool)
    values = {
        clip.id: float(row[to].mean()) for clip, row, to in zip(of.clips, of.distance, asked, strict=True) if to.any()
    }
    return _mean(of, values, "no other clip to compare with")


def abx(of: Repeated) -> Found:
    """Of each clip how often one of the same text lies farther away than one of another, both by one other speaker."""
    errors = tokens.abx_errors(of.distance, list(of.texts), list(of.speakers))
    values = {clip.id: float(error) for clip, error in zip(of.clips, errors, strict=True) if not np.isnan(error)}
    return _mean(of, values, "no other speaker reads this text and another")


def _mean(of: Repeated, values: Mapping[str, float], why: str) -> Found:
    unasked = {clip.id: why for clip in of.clips if clip.id not in values}
    return mean_of(values, of.dataset, of.errors, unasked)
