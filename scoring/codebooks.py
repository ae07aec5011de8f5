"""How the codebooks of a codec are used over a dataset: from the store to what was found. See `metrics.codebook`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from earmark.codecs.registry import Entry
from earmark.data.cards import Dataset
from earmark.metrics import codebook as use
from earmark.reports.plots import Curve
from earmark.scoring.found import Found, statistic_of
from earmark.scoring.stability import token_outcomes
from earmark.store.store import Store


@dataclass(frozen=True)
class Tokens:
    """The codes [K, T] of every clip of a dataset, by its id; the codec's errors; V of each codebook."""

    dataset: Dataset
    sizes: Sequence[int]
    codes: Mapping[str, np.ndarray]
    errors: Mapping[str, str]

    def found(self, of: Callable, codebooks: Sequence[int], total: Callable = np.mean, smooth: bool = True) -> Found:
        """`of(clips, codebook, size)`: the mean, or another total, of codebooks."""

        def statistic(clips: Sequence[np.ndarray]) -> float:
            return float(total([of(clips, k, self.sizes[k]) for k in codebooks]))

        counted = sum(int((clip[list(codebooks)] >= 0).sum()) for clip in self.codes.values())
        note = f"{counted} tokens of {len(codebooks)} codebooks"
        return statistic_of(statistic, self.codes, self.dataset, self.errors, smooth=smooth, notes=[note])


def tokens_of(entry: Entry, dataset: Dataset, store: Store) -> Tokens:
    """The tokens of the recordings as they are."""
    made = list(zip(dataset.clips, token_outcomes(entry, dataset, store), strict=True))
    errors = {clip.id: outcome.error for clip, outcome in made if outcome.error}
    codes = {clip.id: outcome.arrays["codes"] for clip, outcome in made if not outcome.error}
    return Tokens(dataset, entry.info.codebook_sizes, codes, errors)


def bigram_entropy(tokens: Tokens, codebooks: Sequence[int]) -> Found:
    """What is left to know of a token when the one before is known; no answer where there are not enough."""
    asked = tokens.found(use.bigram_entropy, codebooks, smooth=False)
    return asked if asked.n == 0 else tokens.found(partial(use.bigram_entropy, limit=1.0), codebooks)


def zipf(tokens: Tokens, codebook: int) -> Curve:
    """How often the codes are used, the most frequent first; those that are, over their rank from 1."""
    counts = np.sort(use.usage([*tokens.codes.values()], codebook, tokens.sizes[codebook]))[::-1]
    counts = counts[counts > 0]
    return Curve([*range(1, len(counts) + 1)], [*map(float, counts)])


def blocks(tokens: Tokens, codebook: int, shuffle: bool) -> Curve:
    """Entropy of blocks of successive tokens over their length."""
    entropies = use.block_entropies([*tokens.codes.values()], codebook, shuffle=shuffle)
    return Curve([*range(1, len(entropies) + 1)], entropies)
