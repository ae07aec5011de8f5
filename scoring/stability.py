"""How far tokens stay the same when something is done to the sound: from the store to what was found.

A `Change` holds the tokens of every clip before and after; what is done is a transform (`earmark.store.transforms`).
What is said of tokens is said in `earmark.metrics.tokens` and `earmark.metrics.information`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from earmark.codecs.registry import Entry
from earmark.data.cards import Dataset, of
from earmark.metrics import MetricError, information, tokens
from earmark.metrics.tokens import Pair
from earmark.reports.plots import Curve
from earmark.scoring.found import Found, mean_of, statistic_of
from earmark.store.jobs import sound_job, tokens_job
from earmark.store.shards import Outcome
from earmark.store.store import Store
from earmark.store.transforms import Excerpt, Round, Transform

SHOWN = 8  # codebooks that a plot has lines for
AS_IT_IS: Transform = ()


@dataclass(frozen=True)
class Change:
    """Codes [K, T] before and after of every clip, by its id; errors of the codec; clips of which it is not asked."""

    dataset: Dataset
    pairs: Mapping[str, Pair]
    errors: Mapping[str, str]
    no_answer: Mapping[str, str]


def change(entry: Entry, dataset: Dataset, store: Store, after: Transform, before: Transform = AS_IT_IS) -> Change:
    """The tokens after one transform against those after another; of the recordings as they are where none is given."""
    sides = [token_outcomes(entry, dataset, store, steps) for steps in (before, after)]
    found = [(clip.id, *pair) for clip, *pair in zip(dataset.clips, *sides, strict=True)]
    errors = {clip: error for clip, one, other in found if (error := one.error or other.error)}
    pairs = {clip: (_codes(one), _codes(other)) for clip, one, other in found if clip not in errors}
    return Change(dataset, pairs, errors, {})


def token_outcomes(entry: Entry, dataset: Dataset, store: Store, steps: Transform = AS_IT_IS) -> Sequence[Outcome]:
    """The tokens of every clip after what is done to it."""
    make_rounds(entry, dataset, store, steps)
    return [*store.outcomes(tokens_job(entry, steps=steps), dataset.clips)]


def make_rounds(entry: Entry, dataset: Dataset, store: Store, steps: Transform) -> None:
    """Make the sounds that a transform goes through, one after the other: no worker then waits holding a lock."""
    for at, step in enumerate(steps):
        if step == Round():
            store.ensure(sound_job(entry, steps=steps[:at]), dataset.clips)


def _codes(outcome: Outcome) -> np.ndarray:
    return outcome.arrays["codes"]


# -- what is found in a change ----------------------------------------------------------------------------------------


def same_ids(change: Change, codebook: int | None = None, lag: int = 0) -> Found:
    """The share of tokens that are the same: of each clip, and its mean over clips."""
    return _of_clips(change, lambda before, after: tokens.same_id_ratio(before, after, codebook, lag))


def kappa(change: Change, codebook: int | None = None, lag: int = 0) -> Found:
    """The share that is the same beyond chance, of all clips together."""
    found = statistic_of(
        lambda pairs: tokens.same_id_kappa(pairs, codebook, lag), change.pairs, change.dataset, change.errors
    )
    return replace(found, no_answer={**change.no_answer, **found.no_answer})


def edit_distance(change: Change) -> Found:
    """The edits from one sequence of tokens to the other, over its length: the mean over clips."""
    return _of_clips(change, tokens.token_edit_distance)


def _of_clips(change: Change, metric: Callable[[np.ndarray, np.ndarray], float]) -> Found:
    values, no_answer = dict[str, float](), dict(change.no_answer)
    for clip, pair in change.pairs.items():
        try:
            values[clip] = metric(*pair)
        except MetricError as error:
            no_answer[clip] = str(error)
    return mean_of(values, change.dataset, change.errors, no_answer)


def best_lag(change: Change, entry: Entry, shift_ms: float) -> int:
    """The whole frames of lag, one for all clips, at which most tokens are the same after a shift."""
    assert entry.info.frame_rate is not None, "a codec with codes has a frame rate"
    late = shift_ms / 1000 * entry.info.frame_rate
    return max(range(int(late) + 2), key=lambda lag: (same_ids(change, lag=lag).value, -lag))


def information_kept(change: Change, codebooks: Sequence[int]) -> Found:
    """The share of the information in the tokens before that those after still tell: the mean of codebooks.

    A codebook of one code alone has none to keep, and is left out with a note; no answer where all are such.
    """
    pairs = [*change.pairs.values()]
    told = [k for k in codebooks if not (pairs and information.is_constant(pairs, k))] or codebooks
    silent = [k for k in codebooks if k not in told]

    def kept(pairs: Sequence[Pair], limit: float = 1.0) -> float:
        return float(np.mean([information.information_kept(pairs, k, limit) for k in told]))

    notes = [f"codebooks left out, as each is one code alone: {', '.join(map(str, silent))}"] if silent else []
    return _enough(kept, change.pairs, change.dataset, change.errors, notes)


def information_shared(
    codes: Mapping[str, np.ndarray], errors: Mapping[str, str], dataset: Dataset, books: Sequence[tuple[int, int]]
) -> Found:
    """What the tokens of one codebook tell of another's, of the same frames: the mean of pairs of codebooks."""

    def shared(clips: Sequence[np.ndarray], limit: float = 1.0) -> float:
        joined = np.concatenate(clips, axis=1)
        return float(np.mean([information.shared_information(joined[k], joined[j], limit) for j, k in books]))

    return _enough(shared, codes, dataset, errors)


def _enough(
    statistic: Callable, items: Mapping, dataset: Dataset, errors: Mapping[str, str], notes: Sequence[str] = ()
) -> Found:
    """A statistic that needs tokens enough: asked of all clips with its limit, and for the interval without."""
    strict = statistic_of(
        lambda all_of: statistic(all_of, information.CHANCE_LIMIT), items, dataset, errors, smooth=False
    )
    return strict if strict.n == 0 else statistic_of(statistic, items, dataset, errors, notes=notes)


# -- the same second of sound, alone and in contexts ------------------------------------------------------------------


def in_context(
    entry: Entry, dataset: Dataset, store: Store, seconds: float, contexts_s: Iterable[float]
) -> dict[float, Change]:
    """The middle of each clip encoded with so much around it, against the same frames of the whole clip.

    A clip that is no longer than a context asks for is not asked: it would be compared with itself.
    """
    whole = dict(zip(dataset.clips, token_outcomes(entry, dataset, store), strict=True))
    frames = max(entry.info.strides, default=1)  # whole groups of frames, where codebooks have rates of their own
    rate = entry.info.sample_rate or 0
    hop = round(rate / (entry.info.frame_rate or 1)) * frames
    found = {}
    for context_s in contexts_s:
        needed = seconds + 2 * context_s + 2 * hop / rate
        asked = [clip for clip, made in whole.items() if made.error or made.facts["samples"] >= needed * rate]
        short = {clip.id: f"shorter than {needed:g} s" for clip in dataset.clips if clip not in asked}
        excerpt = Excerpt(seconds, context_s, hop)
        made = change(entry, of(dataset, asked), store, (excerpt,))
        pairs = {}
        for clip in asked:
            if clip.id in made.pairs:
                places = excerpt.place(whole[clip].facts["samples"], rate)
                pairs[clip.id] = _middle(*made.pairs[clip.id], *(place * frames for place in places))
        found[context_s] = Change(dataset, pairs, made.errors, short)
    return found


def _middle(whole: np.ndarray, part: np.ndarray, first: int, start: int, count: int) -> Pair:
    """The frames of the middle in the codes of the whole clip, and in those of the excerpt that begins at `first`."""
    return whole[:, start : start + count], part[:, start - first :][:, :count]


# -- curves -----------------------------------------------------------------------------------------------------------


Sweep = Mapping[int, Found] | Mapping[float, Found]


def curve(found: Sweep) -> Curve:
    """What was found at each x, as a line with its intervals; nothing where there is no answer."""
    points = [(x, one.value, one.low, one.high) for x, one in found.items() if one.n]
    return Curve(*zip(*points, strict=True)) if points else Curve([], [])


def slope(found: Sweep, dataset: Dataset) -> Found:
    """The change a step of x: a straight line through each clip's values, by least squares; the mean over clips.

    A clip that lacks a value at any x has none, for the first reason there.
    """
    backwards = [*found.values()][::-1]
    errors = {clip: why for one in backwards for clip, why in one.errors.items()}
    no_answer = {clip: why for one in backwards for clip, why in one.no_answer.items()}
    clips = [clip for clip in backwards[0].values if all(clip in one.values for one in found.values())]
    rows = np.array([[one.values[clip] for clip in clips] for one in found.values()])
    steps = np.array([*found]) - np.mean([*found])
    slopes = steps @ (rows - rows[0]) / (steps @ steps)  # less the first row, so that what stays has exactly 0
    unanswered = {clip: why for clip, why in no_answer.items() if clip not in errors}
    return mean_of(dict(zip(clips, map(float, slopes), strict=True)), dataset, errors, unanswered)


def shown(codebooks: int) -> list[int]:
    """The codebooks to draw: all, or SHOWN of them from the first to the last."""
    return sorted({int(k) for k in np.linspace(0, codebooks - 1, min(codebooks, SHOWN)).round()})
