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
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml
from pydantic import ValidationError

from earmark.data.manifest import Clip, read_manifest
from earmark.data.schema import NAME, Card, Derived, Source
from earmark.names import nearest
from earmark.paths import data_folder

_HERE = Path(__file__).parent
SAMPLER = _HERE / "sampler"


class DataError(ValueError):
    """A dataset that cannot be had; the message says what to do."""


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
    return {name: _implied(name) for name in names if re.fullmatch(NAME, name)} | _written_cards()


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
            chosen |= {card.name: card for card in members if not _absent(card)}
        elif name in known:
            chosen[name] = _present(known[name])
        else:
            unset = "" if data_folder() else " EARMARK_DATA is not set: only the embedded data is known."
            raise DataError(f"unknown dataset {name!r}{nearest(name, [*known, *groups])}{unset}")
    return list(chosen.values())


def _manifest(card: Card) -> Path:
    folder = SAMPLER if card.source.folder == "sampler" else data_folder()
    if folder is None:
        raise DataError(f"data missing: {card.name} is in the folder EARMARK_DATA, and that is not set")
    return folder / "manifest.csv"


def _absent(card: Card) -> list[str]:
    """The names of a card's source that its manifest lacks."""
    there = read_manifest(_manifest(card))
    return [name for name in card.source.names if name not in there]


def _present(card: Card) -> Card:
    """The card, or DataError where its data is not here: one error now rather than one a test."""
    if absent := _absent(card):
        raise DataError(f"data missing: {_manifest(card)} has no dataset {absent[0]!r}")
    return card


def load(card: Card, limit: int | None = None, seed: int = 0) -> Dataset:
    """The clips of a card; with a limit, a subset that is stratified by label and drawn by the seed."""
    there = read_manifest(_manifest(_present(card)))
    clips = [clip for name in card.source.names for clip in there[name]]
    return at_most(_dataset(card, [_with(clip, card.columns) for clip in clips], None), limit, seed)


def _with(clip: Clip, columns: Mapping[str, Derived]) -> Clip:
    """The clip with the columns that its card derives from others; `group` is what makes clips dependent."""
    found = {}
    for name, rule in columns.items():
        match = re.search(rule.match, clip.fields.get(rule.of, ""))
        if not match:
            raise DataError(f"{clip.id}: the column {rule.of!r} does not match {rule.match!r}, from which {name} comes")
        found[name] = match[1]
    return replace(clip, fields={**clip.fields, **found}, group=found.get("group", clip.group)) if found else clip


def at_most(dataset: Dataset, limit: int | None, seed: int = 0) -> Dataset:
    """A dataset of at most so many clips (None: all), stratified by label and drawn by the seed."""
    if limit is None:
        return dataset
    clips = dataset.clips if limit >= len(dataset.clips) else _subset(dataset.clips, limit, seed)
    return _dataset(dataset.card, clips, limit)


def having(dataset: Dataset, column: str) -> Dataset:
    """The clips of a dataset that have a label in a column of the manifest."""
    return _dataset(dataset.card, [clip for clip in dataset.clips if clip.fields.get(column)], dataset.limit)


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
