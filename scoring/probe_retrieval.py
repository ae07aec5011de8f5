"""Retrieval joined to the store: means of a codec's latents and a dataset's captions in, recalls out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from earmark.codecs import registry
from earmark.codecs.registry import Entry
from earmark.data.cards import Dataset
from earmark.data.manifest import SEVERAL
from earmark.data.schema import Task
from earmark.hub import cached_revision
from earmark.metrics import content, retrieval
from earmark.probes import protocol as protocols
from earmark.probes.protocol import Recipe
from earmark.reports.intervals import mean_with_interval
from earmark.scoring.clips import one_thread
from earmark.scoring.found import Found
from earmark.scoring.probes import Features, features, labelled, sources
from earmark.scoring.readings import BASELINE, Reading, compared
from earmark.store import fingerprint
from earmark.store.jobs import Job
from earmark.store.shards import Outcome
from earmark.store.store import Store

AT = (1, 5, 10)
WAYS = ("audio_to_text", "text_to_audio", "both")


def recalls(entry: Entry, dataset: Dataset, protocol: str, preset: str, store: Store) -> Iterator[Reading]:
    """Recall at 1, 5 and 10, both ways, of every retrieval task and every kind of a codec's latents.

    A recall at k is measured where more than k can be found; every clip counts alike, whatever captions it has. Beside
    it stand what drawing at random finds, and log-mel. preset: by which the protocol may have a smaller recipe.
    """
    for task in dataset.card.tasks:
        if task.kind == "retrieval":
            of = (dataset, task, protocol, preset, store)
            logmel = None if entry.name == BASELINE else _ranks(registry.find(BASELINE), "unquantized", *of)
            for kind in entry.info.latent_kinds:
                yield from _of_kind(_ranks(entry, kind, *of), logmel, f"{task.name}_{protocol}_{kind}", protocol)


def _of_kind(found: _Found, logmel: _Found | None, name: str, protocol: str) -> Iterator[Reading]:
    prescribed = protocols.load(protocol)
    title, head = f"{prescribed.title}, version {prescribed.version}", "_bert" if found.frozen_text else ""
    for k, way in itertools.product(AT, WAYS):
        value = _recall(found, way, k)
        if value.n:
            beside = {"at random": _chance(found, way, k), "log-mel": _recall(logmel, way, k) if logmel else None}
            notes = (*value.notes, *compared(f"recall_at_{k}{head}", value, beside))
            variant = f"{way}_{name.replace(':', '')}"
            yield Reading(f"recall_at_{k}{head}", variant, title, replace(value, notes=notes))


@dataclass(frozen=True)
class _Found:
    """What towers found: `folds`, of each fold and seed the ranks by clip (`towers.Ranks`, clips by id); whether a
    frozen encoder read the captions.
    """

    items: Features
    folds: list[dict[str, Any]]
    frozen_text: bool


def _ranks(entry: Entry, kind: str, dataset: Dataset, task: Task, protocol: str, preset: str, store: Store) -> _Found:
    """Train the towers of a protocol, or read what they found when that was done."""
    recipes = protocols.load(protocol).recipes
    recipe = (recipes.get(f"retrieval_{preset}") or recipes["retrieval"]).for_set(dataset.name)
    items = features(entry, kind, labelled(dataset, task), store, of_frames=False)
    parts = (dataset.fingerprint, task.model_dump(), recipe.model_dump(), sorted(items.errors), _sources(recipe))
    job = Job(
        "earmark.scoring.probe_retrieval:recalls",
        entry,
        f"{kind} {task.name} {protocol}",
        version=fingerprint.digest(*parts),
    )
    made = store.whole(job, lambda: Outcome("", {"folds": _found(items, recipe, store)}))
    return _Found(items, made.facts["folds"], "text_encoder" in recipe.options)


def _sources(recipe: Recipe) -> str:
    """The code and the pretrained parts that a result depends on."""
    parts = [sources(), fingerprint.of_files(str(content.__file__), str(retrieval.__file__))]
    if repo := recipe.options.get("text_encoder"):
        parts.append(f"{repo} {cached_revision(repo)} transformers {version('transformers')}")
    return " ".join(parts)


def _found(items: Features, recipe: Recipe, store: Store) -> list[dict[str, Any]]:
    from earmark.probes.towers import Captioned, retrieve

    captions = [[one.strip() for one in label.split(SEVERAL) if one.strip()] for label in items.of.labels]
    captioned, ids = Captioned(items.arrays, captions), [clip.id for clip in items.of.clips]
    made = []
    for fold in items.of.folds():
        for seed in range(recipe.seeds):
            with one_thread():
                found = asdict(retrieve(recipe, captioned, fold, seed, store.device, store.beat))
            made.append({name: _by_id(value, ids) for name, value in found.items()})
    return made


def _by_id(value: Any, ids: list[str]) -> Any:
    return {ids[at]: of for at, of in value.items()} if isinstance(value, dict) else value


def _recall(found: _Found, way: str, k: int) -> Found:
    """The mean over clips (and seeds) of what is found among the first k."""
    values = _means(found, way, k, _hit)
    groups = {clip.id: clip.group for clip in found.items.of.clips}
    sizes = sorted({(fold["sounds"], fold["texts"]) for fold in found.folds})
    notes = [f"among {sounds} clips and {texts} captions" for sounds, texts in sizes]
    return Found(*mean_with_interval(values, groups), len(values), values, found.items.errors, notes=notes)


def _chance(found: _Found, way: str, k: int) -> Found:
    value = float(np.mean([*_means(found, way, k, _chance_of).values()]))
    return Found(value, float("nan"), float("nan"), "by definition", len(found.items.of.clips))


def _means(found: _Found, way: str, k: int, of: Any) -> dict[str, float]:
    """Clip -> the mean over seeds and captions of `of(rank, items, own, k)`; folds with k items or fewer have none."""
    made: dict[str, list[float]] = {}
    for fold in found.folds:
        if min(fold["texts"], fold["sounds"]) <= k:
            continue
        for clip, rank in fold["to_text"].items():
            there = of(rank, fold["texts"], fold["own_texts"][clip], k)
            pairs = zip(fold["to_sound"][clip], fold["own_sounds"][clip], strict=True)
            back = float(np.mean([of(rank, fold["sounds"], own, k) for rank, own in pairs]))
            ways: Mapping[str, float] = dict(zip(WAYS, (there, back, (there + back) / 2), strict=True))
            made.setdefault(clip, []).append(ways[way])
    return {clip: float(np.mean(values)) for clip, values in made.items()}


def _hit(rank: int, items: int, own: int, k: int) -> float:
    del items, own
    return float(rank <= k)


def _chance_of(rank: int, items: int, own: int, k: int) -> float:
    del rank
    return retrieval.chance_at(k, items, own)
