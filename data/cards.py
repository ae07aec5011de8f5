"""Cards by name, which of them are here, and datasets: a card's clips.

Data lies in four places: the sampler in this package; the folder that EARMARK_DATA names, with one manifest of many
datasets (one without a card gets the plain card that its manifest implies); a folder a card below `home()/data`, filled
by `earmark data get` or `index`; and files of the user's own, which `--data` names by their path.
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
from typing import Any

import yaml
from pydantic import ValidationError

from earmark import yamls
from earmark.data.errors import DataError
from earmark.data.manifest import Clip, read_manifest
from earmark.data.schema import NAME, Card, Derived, HeldOut, Layout, Segments, Source, Task
from earmark.names import mistaken, nearest
from earmark.paths import data_folder, home

_HERE = Path(__file__).parent
SAMPLER = _HERE / "sampler"


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
def written() -> dict[str, Card]:
    """The cards of this package, by name."""
    found = (read_card(path) for path in sorted((_HERE / "cards").glob("*.yaml")))
    return {card.name: card for card in found}


def read_card(path: Path) -> Card:
    """A card's YAML file. Raises DataError, naming the file and the key."""
    try:
        return Card.model_validate(yamls.read(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise DataError(f"{path}: not a dataset card: {'; '.join(map(_fault, error.errors()))}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a dataset card: {error}") from error


def _fault(found: Any) -> str:
    """One of a card's mistakes: the key, what is wrong with it, and for a key that there is not the one meant."""
    *above, last = found["loc"] or ("the card",)
    known = (name for model in (Card, Source, Task, HeldOut, Segments, Layout, Derived) for name in model.model_fields)
    meant = mistaken(last, known) if found["type"] == "extra_forbidden" and isinstance(last, str) else None
    return f"{'.'.join(map(str, [*above, last]))}: {found['msg']}" + (f"; is {meant!r} meant?" if meant else "")


def cards() -> dict[str, Card]:
    """Every dataset by name: the written cards, and those that the manifest of EARMARK_DATA implies."""
    folder = data_folder()
    names = read_manifest(folder / "manifest.csv") if folder else ()
    implied = {name: _implied(name) for name in names if re.fullmatch(NAME, name)}
    return implied | written()


def _implied(name: str) -> Card:
    """A card for a dataset that has none: for reconstruction, with the domain that its clips agree on."""
    folder = data_folder()
    assert folder is not None
    clips = read_manifest(folder / "manifest.csv")[name]
    return plain_card(name, f"{name} of EARMARK_DATA", Source(folder="EARMARK_DATA", dataset=name), clips)


def plain_card(name: str, title: str, source: Source, clips: Sequence[Clip]) -> Card:
    """For data of which nothing else is known: reconstruction, and the domain that its clips agree on."""
    domains = {clip.domain.partition("_")[0] for clip in clips}
    domain: Any = domains.pop() if len(domains) == 1 and domains <= {"speech", "music", "sound"} else "general"
    return Card(
        name=name,
        title=title,
        version=1,
        domain=domain,
        source=source,
        uses=("reconstruction",),
        licence="see its manifest",
    )


def select(names: Sequence[str]) -> list[Card]:
    """The cards that `--data` asks for: exact names, `sampler` (all embedded), `real` (all of EARMARK_DATA), `all` (all
    that are here but the sampler's), or files and folders of the user's own.

    With no names: every card whose data is here but the sampler's, else the sampler. Raises DataError with the nearest
    names, and the command that gets what is missing.
    """
    from earmark.data import own

    chosen: dict[str, Card] = {}
    for name in names or [_default()]:
        found = _group(name) if name in GROUPS else own.cards_of(Path(name)) if own.is_own(name) else [_named(name)]
        for card in found:
            if chosen.setdefault(card.name, card) != card:
                raise DataError(f"--data {name}: there is another {card.name!r} in --data; rename one of them")
    return list(chosen.values())


GROUPS = ("sampler", "real", "all")


def _default() -> str:
    return "all" if any(card.source.folder != "sampler" for card in present()) else "sampler"


def _group(name: str) -> list[Card]:
    if name == "all":
        return [card for card in present() if card.source.folder != "sampler"]
    if name == "real" and data_folder() is None:
        raise DataError("data missing: --data real: set EARMARK_DATA to a folder with a manifest.csv")
    return [card for card in present() if card.source.folder == {"sampler": "sampler", "real": "EARMARK_DATA"}[name]]


def present() -> list[Card]:
    """The cards whose data is here."""
    return [card for card in cards().values() if not lacking(card)]


def _named(name: str) -> Card:
    """The card of that name, or DataError where it or its data is not here: one error now rather than one a test."""
    known = cards()
    if name not in known:
        unset = "" if data_folder() else " EARMARK_DATA is not set: only the embedded data and what was got is known."
        folder = f" The folder of that name is written {name}/" if Path(name).is_dir() else ""
        raise DataError(f"unknown dataset {name!r}{nearest(name, [*known, *GROUPS])}{unset}{folder}")
    if why := lacking(known[name]):
        raise DataError(f"data missing: {why}")
    return known[name]


def lacking(card: Card) -> str | None:
    """Why the data of a card is not here, and what to do; None where it is."""
    source = card.source
    if source.folder == "EARMARK_DATA" and data_folder() is None:
        return f"{card.name} is in the folder EARMARK_DATA, and that is not set"
    manifest = manifest_of(card)
    if source.folder or source.manifest:
        there = read_manifest(manifest)
        absent = [name for name in source.names if name not in there]
        return f"{manifest} has no dataset {absent[0]!r}" if absent else None
    return None if manifest.is_file() else how_to_get(card)


def how_to_get(card: Card) -> str:
    """What a user must do to have a card's data."""
    source, index = card.source, f"earmark data index {card.name} --root FOLDER"
    if source.unavailable:
        return f"{card.name} cannot be had: {source.unavailable}"
    if source.manifest:
        return f"{card.name} is what {source.manifest} lists: there is nothing to get or to index"
    if source.folder == "sampler":
        return f"{card.name} is part of the package: there is nothing to get or to index"
    if source.folder:
        return f"{card.name} comes in a folder with a manifest.csv, not by a download; set EARMARK_DATA to that folder"
    if source.ask:
        return f"{card.name} is not here: its owners give it at {source.ask}; then run: {index}"
    return f"{card.name} is not here; run: earmark data get {card.name} (or, where you have it: {index})"


def folder_of(card: Card) -> Path:
    """Where `earmark data get` and `index` put what a card needs."""
    return home() / "data" / card.name


def manifest_of(card: Card) -> Path:
    """The manifest that has a card's clips."""
    if card.source.manifest:
        return Path(card.source.manifest)
    if card.source.folder == "sampler":
        return SAMPLER / "manifest.csv"
    if card.source.folder == "EARMARK_DATA":
        folder = data_folder()
        if folder is None:
            raise DataError(f"data missing: {card.name} is in the folder EARMARK_DATA, and that is not set")
        return folder / "manifest.csv"
    return folder_of(card) / "manifest.parquet"


def load(card: Card, limit: int | None = None, seed: int = 0) -> Dataset:
    """The clips of a card; with a limit, a subset that is stratified by label and drawn by the seed."""
    if why := lacking(card):
        raise DataError(f"data missing: {why}")
    there = read_manifest(manifest_of(card))
    clips = [clip for name in card.source.names or there for clip in there[name]]
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
    clips = dataset.clips if limit >= len(dataset.clips) else _subset(dataset.clips, limit, _label(dataset), seed)
    return _dataset(dataset.card, clips, limit)


def having(dataset: Dataset, column: str) -> Dataset:
    """The clips of a dataset that have a label in a column of the manifest."""
    return of(dataset, [clip for clip in dataset.clips if clip.fields.get(column)])


def of(dataset: Dataset, clips: Sequence[Clip]) -> Dataset:
    """A dataset of other clips of the same card, within the same limit."""
    return _dataset(dataset.card, clips, dataset.limit)


# What of a card its datasets' fingerprint follows. A card may say more of itself (homepage, layouts, counts, labels)
# without its scores being of other data; thresholds and stored results go by the fingerprint.
_ASKED: Any = {
    **dict.fromkeys(("name", "title", "version", "domain", "uses", "licence", "citation"), True),
    "source": {"folder", "dataset"},
    "tasks": {"__all__": {"name", "kind", "target"}},
}


def _dataset(card: Card, clips: Sequence[Clip], limit: int | None) -> Dataset:
    """The fingerprint follows the card's questions, what it holds out from all of them, and every clip."""
    digest = hashlib.sha256(card.model_dump_json(include=_ASKED).encode())
    if card.held_out:
        digest.update(card.held_out.model_dump_json().encode())
    for clip in clips:
        digest.update(repr(sorted(clip.fields.items())).encode())
    return Dataset(card, tuple(clips), limit, digest.hexdigest()[:16])


def _subset(clips: Sequence[Clip], limit: int, label: str, seed: int) -> tuple[Clip, ...]:
    """Draw by the seed, taking labels in turn, and within a label groups in turn; then back in the manifest's order."""
    shuffled = list(clips)
    random.Random(seed).shuffle(shuffled)
    by_group = _in_turn(shuffled, lambda clip: (clip.fields.get(label), clip.group))
    chosen = set(_in_turn(by_group, lambda clip: clip.fields.get(label))[:limit])
    return tuple(clip for clip in clips if clip in chosen)


def _label(dataset: Dataset) -> str:
    """The column that a subset is stratified by: `label`, else what the first task of classes asks for."""
    if any("label" in clip.fields for clip in dataset.clips):
        return "label"
    return next((task.target for task in dataset.card.tasks if task.kind == "classification"), "label")


def _in_turn(clips: Sequence[Clip], key: Callable[[Clip], Hashable]) -> list[Clip]:
    """Reorder: the first clip of each key, then the second of each, and so on."""
    turns: Counter[Hashable] = Counter()
    ranked = []
    for clip in clips:
        turns[key(clip)] += 1
        ranked.append((turns[key(clip)], clip))
    return [clip for _, clip in sorted(ranked, key=lambda item: item[0])]
