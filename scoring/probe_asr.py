"""Speech probes joined to the store: a codec's latents or codes and a dataset's transcripts in, error rates out.

What was heard in every clip is kept in the store; errors are counted from that, so that all scores are of one training.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from earmark.codecs import registry
from earmark.codecs.registry import Entry
from earmark.data.cards import Dataset
from earmark.data.manifest import Clip
from earmark.data.schema import Task
from earmark.hub import cached_revision
from earmark.metrics import content
from earmark.probes import protocol as protocols
from earmark.probes import recognition, sequences
from earmark.probes.folds import Fold
from earmark.probes.protocol import Protocol, Recipe
from earmark.probes.recognition import Speech
from earmark.probes.vocabulary import Subwords
from earmark.reports.intervals import mean_with_interval
from earmark.scoring.clips import one_thread
from earmark.scoring.found import Found
from earmark.scoring.probes import Labelled, labelled, sources
from earmark.scoring.readings import BASELINE, compared
from earmark.store import fingerprint
from earmark.store.jobs import Job, latents_job, tokens_job
from earmark.store.shards import Outcome
from earmark.store.store import Store

CONTROL = "random-latents"  # the encoder that hears nothing
TOKENS = "tokens"  # the mode in which a probe is given codes and not latents
MEMORY = 4_000_000_000  # bytes of frames that stay in memory; what is beyond is read again for every batch
_COUNTS: dict[str, Callable] = {"wer": content.word_errors, "cer": content.character_errors}
SHOWN = 3  # clips that a note names


@dataclass(frozen=True)
class Words:
    """What one probe heard: of each test clip the texts (one a seed); what would be said without hearing anything, for
    the fewest word and for the fewest character errors; and whatever a reader should know.
    """

    labelled: Labelled
    language: str
    prescribed: str
    heard: Mapping[str, Sequence[str]]
    always: Mapping[str, Mapping[str, str]]
    errors: Mapping[str, str]
    no_answer: Mapping[str, str]
    notes: Sequence[str] = ()
    vocabulary: str = ""

    @property
    def protocol(self) -> str:
        """The protocol's name; with the vocabulary, where that is not the one which it prescribes."""
        return f"{self.prescribed}-{self.vocabulary}" if self.vocabulary else self.prescribed

    @property
    def title(self) -> str:
        found = protocols.load(self.prescribed)
        return f"{found.title}{', ' * bool(self.vocabulary)}{self.vocabulary}, version {found.version}"

    @property
    def metrics(self) -> tuple[str, ...]:
        """The measures that the language allows."""
        return ("cer",) if content.unspaced(self.language) else ("wer", "cer", "iwer")

    def _plain(self, text: str) -> str:
        return content.plain(text, self.language)

    def found(self, metric: str, head: str, others: Mapping[str, Words] | None = None) -> Found:
        """A corpus error rate (`wer`, `cer`) or `iwer`, max(0, 1 - wer), with its interval over speakers.

        head: what the metric's name has beside that (`wer_ctc`); others: what the same probe heard elsewhere, by name.
        """
        constant = self.always["cer" if metric == "cer" else "wer"]
        deaf = replace(self, heard={clip: [text] for clip, text in constant.items()}, errors={}, no_answer={})
        value, unheard = self._found(metric), deaf._found(metric)
        found = {name: words._found(metric) for name, words in (others or {}).items()}
        notes = compared(f"{metric}_{head}", value, {"without listening": unheard} | found)
        flag = protocols.load(self.prescribed).flag
        return replace(value, notes=(*([flag] if flag else []), *self.notes, *self._silence(), *notes))

    def _silence(self) -> list[str]:
        """In how many clips nothing was heard. A CTC probe writes blanks alone until it has learned the first letter:
        an error rate of 1 may say that the training was too short, and not what the codec holds.
        """
        silent = sum(not any(texts) for texts in self.heard.values())
        return [f"nothing was heard in {silent} of {len(self.heard)} clips"] if silent else []

    def _found(self, metric: str) -> Found:
        if metric == "iwer":
            return _inverted(self._found("wer"))
        values, weights = self._rates(metric, self.heard)
        groups = {clip.id: clip.group for clip in self.labelled.clips}
        interval = mean_with_interval(values, groups, weights=weights)
        return Found(*interval, len(values), values, self.errors, self.no_answer)

    def _rates(self, metric: str, heard: Mapping[str, Sequence[str]]) -> tuple[dict[str, float], dict[str, float]]:
        """Errors a word (or character) of each clip, the mean over seeds, and how many there are to get wrong."""
        spoken = {clip.id: said for clip, said in zip(self.labelled.clips, _texts(self.labelled), strict=True)}
        count = _COUNTS[metric]
        values, weights = {}, {}
        for clip, texts in heard.items():
            made = [count(spoken[clip], text, normalised=self._plain) for text in texts]
            values[clip], weights[clip] = float(np.mean([errors / total for errors, total in made])), float(made[0][1])
        return values, weights


def _inverted(wer: Found) -> Found:
    low, high = (max(0.0, 1 - bound) if math.isfinite(bound) else bound for bound in (wer.high, wer.low))
    values = {clip: max(0.0, 1 - value) for clip, value in wer.values.items()}
    return replace(wer, value=max(0.0, 1 - wer.value), low=low, high=high, values=values)


def _texts(of: Labelled) -> list[str]:
    language = language_of(of)
    return [content.plain(label, language) for label in of.labels]


def language_of(of: Labelled) -> str:
    """The language of the transcripts, as the manifest says it; English where it does not. One for all clips."""
    found = Counter(clip.fields.get("language") or "en" for clip in of.clips)
    if len(found) > 1:
        raise ValueError(
            f"{of.dataset.name}: transcripts in {', '.join(sorted(found))}; a speech probe takes one language"
        )
    return next(iter(found), "en")


# -- hearing ----------------------------------------------------------------------------------------------------------


def words(
    entry: Entry, mode: str, dataset: Dataset, task: Task, protocol: str, preset: str, store: Store, seed: int = 0
) -> Words:
    """Train a probe on a codec's latents (mode: their kind) or codes (mode: `tokens`) and hear the test clips.

    preset: by which the protocol may have a smaller recipe (`asr_quick`). A clip that the codec fails on is an error,
    and neither learned from nor heard; one whose transcript has no letter is no answer. Raises SplitError or ValueError
    where there is too little to learn from.
    """
    recipe = _recipe(protocols.load(protocol), mode, preset).for_set(dataset.name)
    job = tokens_job(entry) if mode == TOKENS else latents_job(entry, mode)
    of, errors, empty = _usable(labelled(dataset, task), job, store)
    parts = (dataset.fingerprint, task.name, recipe.model_dump(mode="json"), sorted(errors), _sources(recipe))
    made_of = fingerprint.digest(*parts)
    whole = Job("earmark.scoring.probe_asr:words", entry, f"{protocol} {mode}", seed, made_of, model=False)
    frames = Frames(entry, job, of.clips, recipe, store)
    facts = store.whole(whole, lambda: _heard(of, frames, recipe, store, seed)).facts
    return Words(of, language_of(of), protocol, errors=errors, no_answer=empty, **facts)


def _usable(everything: Labelled, job: Job, store: Store) -> tuple[Labelled, dict[str, str], dict[str, str]]:
    """The clips that can be heard and have words; why the codec failed on others; why others have no words."""
    outcomes = zip(everything.clips, store.outcomes(job, everything.clips), strict=True)
    errors = {clip.id: made.error for clip, made in outcomes if made.error}
    texts = zip(everything.clips, _texts(everything), strict=True)
    empty = {clip.id: "its transcript has no letter" for clip, text in texts if not text and clip.id not in errors}
    return everything.of([clip.id not in errors and clip.id not in empty for clip in everything.clips]), errors, empty


def beside(entry: Entry, preset: str, *of: Any) -> dict[str, Words]:
    """What the same probe hears in other things: in random latents, which tell it no more than how long a clip is (that
    and what texts are like is worth more than any constant text); but for the quick preset, in log-mel spectra.
    """
    names = {"random latents": CONTROL} | ({} if preset == "quick" else {"log-mel": BASELINE})
    others = {name: registry.find(codec) for name, codec in names.items() if codec != entry.name}
    return {name: words(other, "unquantized", *of) for name, other in others.items()}


def _recipe(protocol: Protocol, mode: str, preset: str) -> Recipe:
    name = "asr_tokens" if mode == TOKENS else "asr"
    return protocol.recipes.get(f"{name}_{preset}") or protocol.recipes[name]


def modes(entry: Entry, preset: str) -> list[str]:
    """The kinds of latents that a speech probe hears: all; in the quick preset what the decoder is given, and of an
    encoder the last.
    """
    kinds = list(entry.info.latent_kinds)
    if preset != "quick":
        return kinds
    nearest = next((kind for kind in ("quantized", "unquantized") if kind in kinds), kinds[-1])
    return [nearest]


def _heard(of: Labelled, frames: Frames, recipe: Recipe, store: Store, seed: int) -> Outcome:
    """Each fold's test clips as each seed's probe hears them, in one outcome."""
    texts, heard, notes = _texts(of), dict[str, list[str]](), Counter[str]()
    constant: dict[str, dict[str, str]] = {metric: {} for metric in _COUNTS}
    speech, device = Speech(frames, texts, frames.sizes), store.device
    folds = of.folds()[: recipe.options.get("folds")]
    for fold in folds:
        for metric, count in _COUNTS.items():
            said = recognition.always([texts[clip] for clip in fold.train], count)
            constant[metric] |= {of.clips[clip].id: said for clip in fold.test}
        for extra in range(recipe.seeds):
            with one_thread():
                found = recognition.recognise(recipe, speech, fold, seed + extra, device, store.beat)
            for clip, text in found.texts.items():
                heard.setdefault(of.clips[clip].id, []).append(text)
            notes.update(found.notes)
        notes.update(_left_out(of, found.left_out))
    notes.update(_seen(folds, texts))
    facts = {"heard": heard, "always": constant, "notes": [*notes], "vocabulary": found.vocabulary}
    return Outcome(of.dataset.fingerprint, facts)


def _left_out(of: Labelled, why: Mapping[int, str]) -> list[str]:
    """The training clips of a fold that CTC cannot be taught on, counted and named."""
    if not why:
        return []
    named = [f"{of.clips[clip].id} ({reason})" for clip, reason in [*why.items()][:SHOWN]]
    return [f"not learned from: {len(why)} clips: {'; '.join(named)}{'; ...' if len(why) > SHOWN else ''}"]


def _seen(folds: Sequence[Fold], texts: Sequence[str]) -> list[str]:
    """How many test clips say a sentence that is also in the training clips, from others' mouths."""
    told = 0
    for fold in folds:
        known = {texts[clip] for clip in fold.train}
        told += sum(texts[clip] in known for clip in fold.test)
    return [f"the words of {told} test clips are also said in training clips"] if told else []


class Frames(Sequence[np.ndarray]):
    """The frames of clips, latents float32 [T, D] or codes int64 [T, K], at the rate that the recipe asks for.

    They are read from the store when they are asked for, and kept while MEMORY lasts.
    """

    def __init__(self, entry: Entry, job: Job, clips: Sequence[Clip], recipe: Recipe, store: Store) -> None:
        self.job, self.clips, self.store, self.coded = job, clips, store, job == tokens_job(entry)
        self.rate_hz = entry.info.frame_rate or 0.0
        self.minimum_hz = float(recipe.options.get("minimum_hz", 0))
        self.maximum_hz = float(recipe.options.get("maximum_hz", 0))
        self.interpolate = bool(recipe.options.get("interpolate", False)) and not self.coded
        self.sizes = entry.info.codebook_sizes if self.coded else ()
        self.strides = entry.info.strides or (1,) * entry.info.num_codebooks
        self._kept: dict[int, np.ndarray] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, at: Any) -> Any:
        if at not in self._kept:
            frames = self._read(self.clips[at])
            if self._bytes + frames.nbytes > MEMORY:
                return frames
            self._kept[at], self._bytes = frames, self._bytes + frames.nbytes
        return self._kept[at]

    def _read(self, clip: Clip) -> np.ndarray:
        arrays = next(self.store.outcomes(self.job, [clip])).arrays
        if self.coded:
            frames = sequences.held(arrays["codes"].T.astype(np.int64), self.strides)
        else:
            frames = arrays["latents"].T.astype(np.float32)
            frames = sequences.at_most(frames, self.rate_hz, self.maximum_hz) if self.maximum_hz else frames
        if not self.minimum_hz:
            return frames
        return sequences.at_least(frames, self.rate_hz, self.minimum_hz, self.interpolate)


def _sources(recipe: Recipe) -> str:
    """The code and the pretrained parts that a result depends on."""
    parts = [sources(), fingerprint.of_files(str(content.__file__))]
    if recipe.options.get("vocabulary") == "speech2text":
        parts.append(f"subwords: {Subwords.missing() is None}")
    if repo := recipe.options.get("repo"):
        parts.append(f"{repo} {cached_revision(repo)} transformers {version('transformers')}")
    return " ".join(parts)
