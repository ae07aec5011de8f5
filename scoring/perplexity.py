"""How predictable a codec's tokens are: a language model, or n-grams, trained on some speakers and asked about others.

Nothing is encoded for it: the codes are those of the store. What a model found of a dataset is kept there too, by all
that it depends on; a training run that was killed goes on from its checkpoint.
"""

from __future__ import annotations

import functools
import importlib.metadata
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from earmark import lm
from earmark.codecs.registry import Entry
from earmark.data.cards import Dataset
from earmark.lm import ngram, packing
from earmark.lm.evaluation import Losses
from earmark.lm.packing import Document
from earmark.lm.protocol import Protocol
from earmark.metrics import MetricError
from earmark.reports.compare import LEAST_GROUPS
from earmark.reports.intervals import mean_with_interval
from earmark.scoring.clips import one_thread
from earmark.scoring.found import Found
from earmark.store import fingerprint
from earmark.store.jobs import Job, tokens_job
from earmark.store.shards import Outcome
from earmark.store.store import Store

LM, NGRAM = "lm", "ngram"


@dataclass(frozen=True)
class Tokens:
    """The documents of a codec and dataset, only of codebooks in use (from 0), and why clips have none."""

    documents: Sequence[Document]
    codebooks: Sequence[int]
    codebook_sizes: Sequence[int]
    errors: Mapping[str, str]
    notes: Sequence[str]


@dataclass(frozen=True)
class Predicted:
    """What predicting the held-out documents cost; the training curve (step, training, validation), none of n-grams."""

    losses: Losses
    tokens: Tokens
    curve: Mapping[str, Sequence[float]]
    notes: Sequence[str]


def tokens_of(entry: Entry, dataset: Dataset, store: Store, seed: int = 0) -> Tokens:
    """The codes of every clip, from the store."""
    found, errors = [], {}
    for clip, outcome in zip(dataset.clips, store.outcomes(tokens_job(entry, seed), dataset.clips), strict=True):
        if outcome.error:
            errors[clip.id] = outcome.error
        elif outcome.arrays["codes"].shape[1]:
            found.append(Document(clip.id, clip.group, outcome.arrays["codes"]))
        else:
            errors[clip.id] = f"codec failed: {entry.name}: gave no frame of codes, expected at least one"
    used = packing.used_codebooks(found) if found else []
    sizes = entry.info.codebook_sizes
    unused = len(sizes) - len(used)
    notes = [f"{unused} of {len(sizes)} codebooks have no token and are left out"] if found and unused else []
    documents = [item._replace(codes=item.codes[used]) for item in found]
    return Tokens(documents, used, [sizes[k] for k in used], errors, notes)


def of_lm(entry: Entry, dataset: Dataset, store: Store, protocol: Protocol, ordering: str, seed: int = 0) -> Predicted:
    """What a language model trained by a protocol makes of the held-out documents; trained once, then read."""
    make = functools.partial(_train, store=store, protocol=protocol, ordering=ordering, seed=seed)
    return _predicted(LM, entry, dataset, store, protocol, ordering, seed, make)


def of_ngrams(entry: Entry, dataset: Dataset, store: Store, protocol: Protocol, seed: int = 0) -> Predicted:
    """What n-grams make of the same documents; counted once, then read."""
    make = functools.partial(_count, store=store, protocol=protocol, seed=seed)
    return _predicted(NGRAM, entry, dataset, store, protocol, "", seed, make)


def _predicted(
    kind: str,
    entry: Entry,
    dataset: Dataset,
    store: Store,
    protocol: Protocol,
    ordering: str,
    seed: int,
    make: Callable[[Tokens, Path], Outcome],
) -> Predicted:
    tokens = tokens_of(entry, dataset, store, seed)
    train, held_out = packing.split([item.group for item in tokens.documents], protocol.held_out, seed)
    documents = [tokens.documents[d] for d in held_out]
    asked = packing.used_codebooks(documents)
    if not asked:
        raise MetricError(f"the held-out clips ({len(held_out)}) have no token: nothing can be predicted")
    version = _version(dataset, tokens, protocol, ordering)
    job = Job(f"{__name__}:{kind}", entry, f"{kind} {protocol.name} {ordering}", seed, version, model=False)
    made = store.whole(job, lambda: make(tokens, store.folder(job) / "work"))
    losses = Losses(
        [item.name for item in documents],
        made.arrays["nats"][:, asked],
        made.arrays["tokens"][:, asked],
        np.array([item.codes.shape[1] for item in documents], np.float64),
        [tokens.codebook_sizes[k] for k in asked],
    )
    notes = [*tokens.notes, *_notes(tokens, train, held_out, made), *_not_asked(tokens, asked)]
    codebooks = [tokens.codebooks[k] for k in asked]
    scored = replace(tokens, codebooks=codebooks, codebook_sizes=losses.codebook_sizes)
    return Predicted(losses, scored, made.facts.get("curve", {}), notes)


def _not_asked(tokens: Tokens, asked: Sequence[int]) -> list[str]:
    """Of codebooks that are trained on, those without a token to predict: what is not asked has no perplexity."""
    lost = [f"codebook_{book}" for k, book in enumerate(tokens.codebooks) if k not in asked]
    return [f"no token of {', '.join(lost)} is held out: left out"] if lost else []


def _version(dataset: Dataset, tokens: Tokens, protocol: Protocol, ordering: str) -> str:
    """All that a result depends on beside codec and seed."""
    sources = sorted(map(str, Path(str(lm.__file__)).parent.glob("*.py")))
    libraries = [importlib.metadata.version(name) for name in ("torch", "transformers", "accelerate", "numpy")]
    names = [item.name for item in tokens.documents]
    described = (dataset.fingerprint, names, protocol.model_dump(), ordering, libraries)
    return fingerprint.digest(*described, fingerprint.of_files(*sources))


def _notes(tokens: Tokens, train: Sequence[int], held_out: Sequence[int], made: Outcome) -> list[str]:
    groups = [len({tokens.documents[d].group for d in part}) for part in (train, held_out)]
    over = "these others" if groups[1] >= LEAST_GROUPS else "those clips: too few others"
    sizes = [sum(int((tokens.documents[d].codes >= 0).sum()) for d in part) for part in (train, held_out)]
    split = (
        f"split by speaker or recording: trained on {groups[0]} ({len(train)} clips, {sizes[0]} tokens), "
        f"asked about {groups[1]} others ({len(held_out)} clips, {sizes[1]} tokens); the interval is over {over}"
    )
    return [split, *made.facts.get("notes", [])]


# -- makers: called with the lock of the result held ------------------------------------------------------------------


def _train(tokens: Tokens, folder: Path, *, store: Store, protocol: Protocol, ordering: str, seed: int) -> Outcome:
    from earmark.lm.evaluation import document_losses
    from earmark.lm.model import parameters
    from earmark.lm.training import train, write_plan

    with one_thread():
        corpus = packing.write(folder, tokens.documents, tokens.codebook_sizes, ordering)
        parts = packing.split(corpus.groups, protocol.held_out, seed)
        write_plan(folder, *parts, protocol, seed)
        done = train(corpus, *parts, protocol, seed=seed, device=store.device, folder=folder, beat=store.beat)
        nats, counts = document_losses(done.model, corpus, parts[1], protocol)
    shutil.rmtree(folder, ignore_errors=True)
    million = parameters(done.model) / 1e6
    notes = [f"language model of {million:.3g} million parameters, {protocol.steps} steps, {done.tokens} tokens seen"]
    return Outcome("", {"curve": vars(done.curve), "notes": notes}, {"nats": nats, "tokens": counts})


def _count(tokens: Tokens, folder: Path, *, store: Store, protocol: Protocol, seed: int) -> Outcome:
    del folder
    documents = tokens.documents
    train, held_out = packing.split([item.group for item in documents], protocol.held_out, seed)
    learnt, asked = ([documents[d] for d in part] for part in (train, held_out))
    nats, counts = ngram.losses(learnt, asked, tokens.codebook_sizes, store.beat)
    return Outcome("", {}, {"nats": nats, "tokens": counts})


# -- from what was predicted to scores --------------------------------------------------------------------------------


def found(predicted: Predicted, entry: Entry) -> dict[tuple[str, str], Found]:
    """Every score of a prediction, by metric (as after `lm_` or `ngram_`) and variant, each with its interval.

    perplexity, perplexity_raw: overall and of each codebook; bits_per_frame, bitrate_kbps; bitrate_ratio: to nominal.
    """
    losses, scores = predicted.losses, {}
    for name, normalised in (("perplexity", True), ("perplexity_raw", False)):
        books = enumerate(predicted.tokens.codebooks)
        of = {f"codebook_{book}": losses.codebook(k, normalised) for k, book in books}
        of["overall"] = losses.overall(normalised)
        for variant, (logs, weights) in of.items():
            scores[name, variant] = _found(predicted, logs, weights, math.exp)
    bits, frames = losses.bits_per_frame()
    nominal = float((losses.tokens @ np.log2(losses.codebook_sizes)).sum() / losses.frames.sum())
    assert entry.info.frame_rate is not None, "codes come at a frame rate"
    for name, factor in {
        "bits_per_frame": 1.0,
        "bitrate_kbps": entry.info.frame_rate / 1000,
        "bitrate_ratio": 1 / nominal,
    }.items():
        scores[name, ""] = _found(predicted, bits * factor, frames, float)
    return scores


def _found(predicted: Predicted, values: np.ndarray, weights: np.ndarray, scale: Callable[[float], float]) -> Found:
    """The weighted mean over documents and its interval, brought to scale: perplexities are means of logarithms.

    The interval is over the held-out groups, as the clips of one are alike; over clips where there are too few groups.
    """
    kept = [d for d, weight in enumerate(weights) if weight > 0]
    names = [predicted.losses.names[d] for d in kept]
    by_name: dict[str, Any] = {name: float(values[d]) for name, d in zip(names, kept, strict=True)}
    of = {name: float(weights[d]) for name, d in zip(names, kept, strict=True)}
    groups = {item.name: item.group for item in predicted.tokens.documents if item.name in by_name}
    if len(set(groups.values())) < LEAST_GROUPS:
        groups = {name: name for name in names}
    *numbers, method = mean_with_interval(by_name, groups, weights=of)
    value, low, high = (scale(number) for number in numbers)
    clips = {name: scale(number) for name, number in by_name.items()}
    return Found(value, low, high, method, len(names), clips, predicted.tokens.errors, {}, predicted.notes)
