"""Dataset cards: what a dataset is, where it lies and which suites use it, as YAML; and datasets, a card's clips.

Two folders hold data: the sampler in this package, and the folder that EARMARK_DATA names. A dataset of that folder's
manifest that has no card gets the plain card that its manifest implies.
"""

from __future__ import annotations

import functools
import hashlib
import random
import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from earmark.data.manifest import Clip, read_manifest
from earmark.names import nearest
from earmark.paths import data_folder

Domain = Literal["speech", "music", "sound", "general"]
Use = Literal["reconstruction", "id_sensitivity", "lm", "probe"]
TaskKind = Literal["classification", "multi_label", "regression", "events", "asr", "retrieval", "verification"]

_NAME = r"[A-Za-z0-9_.+-]+"  # what can stand in a test id and in --data
_HERE = Path(__file__).parent
SAMPLER = _HERE / "sampler"


class DataError(ValueError):
    """A dataset that cannot be had; the message says what to do."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Strict):
    """Where the clips are: the embedded sampler, or the folder EARMARK_DATA; and their name in its manifest."""

    folder: Literal["sampler", "EARMARK_DATA"]
    dataset: str


class Task(_Strict):
    """A question that the labels can answer; `target` is the manifest's column."""

    name: str
    kind: TaskKind
    target: str


class Card(_Strict):
    """A dataset, declared."""

    name: str = Field(pattern=_NAME)
    title: str
    version: int
    domain: Domain
    source: Source
    uses: tuple[Use, ...]
    tasks: tuple[Task, ...] = ()
    licence: str
    citation: str | None = None

    def manifest(self) -> Path:
        folder = SAMPLER if self.source.folder == "sampler" else data_folder()
        if folder is None:
            raise DataError(f"data missing: {self.name} is in the folder EARMARK_DATA, and that is not set")
        return folder / "manifest.csv"


@dataclass(frozen=True)
class Dataset:
    """The clips of a card that a run uses. The fingerprint changes with any clip, its audio or its labels."""

    card: Card
    clips: tuple[Clip, ...]
    limit: int | None
    fingerprint: str

    @property
    def name(self) -> str:
        return self.card.name

    @property
    def domain(self) -> str:
        return self.card.domain


@functools.cache
def _written_cards() -> dict[str, Card]:
    cards = {}
    for path in sorted((_HERE / "cards").glob("*.yaml")):
        try:
            card = Card.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        except (ValidationError, yaml.YAMLError) as error:
            raise DataError(f"{path}: not a dataset card: {error}") from error
        cards[card.name] = card
    return cards


def cards() -> dict[str, Card]:
    """Every dataset by name: the written cards, and those that the manifest of EARMARK_DATA implies."""
    folder = data_folder()
    names = read_manifest(folder / "manifest.csv") if folder else ()
    return {name: _implied(name) for name in names if re.fullmatch(_NAME, name)} | _written_cards()


def _implied(name: str) -> Card:
    """A card for a dataset that has none: for reconstruction, with the domain that its clips agree on."""
    folder = data_folder()
    assert folder is not None
    clips = read_manifest(folder / "manifest.csv")[name]
    domains = {clip.domain.partition("_")[0] for clip in clips}
    domain = domains.pop() if len(domains) == 1 else "general"
    return Card(
        name=name,
        title=f"{name} of EARMARK_DATA",
        version=1,
        domain=domain if domain in ("speech", "music", "sound") else "general",
        source=Source(folder="EARMARK_DATA", dataset=name),
        uses=("reconstruction",),
        licence="see its manifest",
    )


def select(names: Sequence[str]) -> list[Card]:
    """The cards that `--data` asks for: exact names, `sampler` (all embedded), `real` (all of EARMARK_DATA).

    With no names: the real data where there is any, else the sampler. Raises DataError with the nearest names.
    """
    known = cards()
    groups = {"sampler": "sampler", "real": "EARMARK_DATA"}
    chosen: dict[str, Card] = {}
    for name in names or (["real"] if data_folder() else ["sampler"]):
        if name in groups:
            if name == "real" and data_folder() is None:
                raise DataError("data missing: --data real: set EARMARK_DATA to a folder with a manifest.csv")
            members = [card for card in known.values() if card.source.folder == groups[name]]
            chosen |= {card.name: card for card in members if card.source.dataset in read_manifest(card.manifest())}
        elif name in known:
            chosen[name] = _present(known[name])
        else:
            unset = "" if data_folder() else " EARMARK_DATA is not set: only the embedded data is known."
            raise DataError(f"unknown dataset {name!r}{nearest(name, [*known, *groups])}{unset}")
    return list(chosen.values())


def _present(card: Card) -> Card:
    """The card, or DataError where its data is not here: one error now rather than one a test."""
    if card.source.dataset not in read_manifest(card.manifest()):
        raise DataError(f"data missing: {card.manifest()} has no dataset {card.source.dataset!r}")
    return card


def load(card: Card, limit: int | None = None, seed: int = 0) -> Dataset:
    """The clips of a card; with a limit, a subset that is stratified by label and drawn by the seed."""
    clips = read_manifest(card.manifest()).get(card.source.dataset)
    if not clips:
        raise DataError(f"data missing: {card.manifest()} has no dataset {card.source.dataset!r}")
    return at_most(_dataset(card, clips, None), limit, seed)


def at_most(dataset: Dataset, limit: int | None, seed: int = 0) -> Dataset:
    """A dataset of at most so many clips (None: all), stratified by label and drawn by the seed."""
    if limit is None:
        return dataset
    clips = dataset.clips if limit >= len(dataset.clips) else _subset(dataset.clips, limit, seed)
    return _dataset(dataset.card, clips, limit)


def having(dataset: Dataset, column: str) -> Dataset:
    """The clips of a dataset that have a label in a column of the manifest."""
    return of(dataset, [clip for clip in dataset.clips if clip.fields.get(column)])


def of(dataset: Dataset, clips: Sequence[Clip]) -> Dataset:
    """A dataset of other clips of the same card, within the same limit."""
    return _dataset(dataset.card, clips, dataset.limit)


def _dataset(card: Card, clips: Sequence[Clip], limit: int | None) -> Dataset:
    digest = hashlib.sha256(card.model_dump_json().encode())
    for clip in clips:
        digest.update(repr(sorted(clip.fields.items())).encode())
    return Dataset(card, tuple(clips), limit, digest.hexdigest()[:16])


def _subset(clips: Sequence[Clip], limit: int, seed: int) -> tuple[Clip, ...]:
    """Draw by the seed, taking labels in turn, and within a label groups in turn; then back in the manifest's order."""
    shuffled = list(clips)
    random.Random(seed).shuffle(shuffled)
    by_group = _in_turn(shuffled, lambda clip: (clip.fields.get("label"), clip.group))
    chosen = set(_in_turn(by_group, lambda clip: clip.fields.get("label"))[:limit])
    return tuple(clip for clip in clips if clip in chosen)


def _in_turn(clips: Sequence[Clip], key: Callable[[Clip], Hashable]) -> list[Clip]:
    """Reorder: the first clip of each key, then the second of each, and so on."""
    turns: Counter[Hashable] = Counter()
    ranked = []
    for clip in clips:
        turns[key(clip)] += 1
        ranked.append((turns[key(clip)], clip))
    return [clip for _, clip in sorted(ranked, key=lambda item: item[0])]
