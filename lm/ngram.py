"""The n-gram estimate: what the last two tokens of a codebook say about its next, in seconds and without chance.

Each codebook is predicted from its own past, by interpolated maximum likelihood:

    P_n(w | h) = l P_ML(w | last n - 1 tokens) + (1 - l) P_(n-1)(w | h),    P_0 = 1 / V

with l by how often the n - 1 tokens were seen (in powers of two). The weights are those that predict each training
group best from the counts of all other groups, found by expectation maximisation: deleted interpolation, so that what
is only a habit of one recording is not believed. Exact: the probabilities of a codebook sum to 1.
Source: Jelinek and Mercer, "Interpolated estimation of Markov source parameters from sparse data", 1980.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from earmark.lm.orderings import EMPTY
from earmark.lm.packing import Corpus, Document

ORDER = 3
ROUNDS = 30  # of expectation maximisation; what a weight still moves after them is far below a hundredth of a bit
_BUCKETS = 32


@dataclass(frozen=True)
class _Tokens:
    """The tokens of one codebook, [N]: each token, its history (the n - 1 tokens before it) as one number for each n,
    and the index of its group and its document."""

    token: np.ndarray
    histories: tuple[np.ndarray, ...]
    group: np.ndarray
    document: np.ndarray


@dataclass(frozen=True)
class NGram:
    """The model of a codebook of V entries: for each n counts of (history, token) and of histories, and weights."""

    entries: int
    pairs: tuple[_Counts, ...]
    contexts: tuple[_Counts, ...]
    weights: tuple[np.ndarray, ...]

    def probability(self, tokens: _Tokens) -> np.ndarray:
        """P(token | history) of each, float64 [N]."""
        found = np.full(len(tokens.token), 1 / self.entries)
        for n, history in enumerate(tokens.histories):
            seen = self.contexts[n](history)
            both = self.pairs[n](history * self.entries + tokens.token)
            found = _mixed(both, seen, found, self.weights[n])
        return found


class _Counts:
    """How often each number was seen."""

    def __init__(self, seen: np.ndarray) -> None:
        self.values, self.counts = np.unique(seen, return_counts=True)

    def __call__(self, asked: np.ndarray) -> np.ndarray:
        if not len(self.values):
            return np.zeros(len(asked))
        at = np.minimum(np.searchsorted(self.values, asked), len(self.values) - 1)
        return np.where(self.values[at] == asked, self.counts[at], 0).astype(np.float64)


def losses(
    training: Sequence[Document],
    validation: Sequence[Document],
    codebook_sizes: Sequence[int],
    beat: Callable[[str], None] = lambda _: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Nats and tokens, float64 [D, K], of D documents as a trigram model of the others predicts them."""
    nats, counts = (np.zeros((len(validation), len(codebook_sizes))) for _ in range(2))
    for k, entries in enumerate(codebook_sizes):
        beat(f"counting n-grams, codebook {k}")
        asked = _tokens(validation, k, entries)
        probability = fit(_tokens(training, k, entries), entries).probability(asked)
        nats[:, k] = np.bincount(asked.document, -np.log(probability), len(validation))
        counts[:, k] = np.bincount(asked.document, minlength=len(validation))
    return nats, counts


def unigrams(corpus: Corpus, documents: Sequence[int]) -> list[np.ndarray]:
    """The probability of each entry of each codebook, whatever came before, float64 [V_k]; none is 0."""
    items = [
        Document(corpus.names[d], corpus.groups[d], corpus.steps[corpus.starts[d] : corpus.starts[d + 1]].T)
        for d in documents
    ]
    found = []
    for k, entries in enumerate(corpus.codebook_sizes):
        model = fit(_tokens(items, k, entries, order=1), entries)
        every = np.arange(entries)
        found.append(model.probability(_Tokens(every, (np.zeros_like(every),), every, every)))
    return found


def fit(tokens: _Tokens, entries: int) -> NGram:
    """Counts and weights of a codebook of `entries` entries."""
    below = np.full(len(tokens.token), 1 / entries)
    pairs, contexts, weights = [], [], []
    for history in tokens.histories:
        pair = history * entries + tokens.token
        pairs.append(_Counts(pair))
        contexts.append(_Counts(history))
        both, seen = (_elsewhere(of, tokens.group) for of in (pair, history))
        weights.append(_weights(both, seen, below))
        below = _mixed(both, seen, below, weights[-1])
    return NGram(entries, tuple(pairs), tuple(contexts), tuple(weights))


def _elsewhere(numbers: np.ndarray, group: np.ndarray) -> np.ndarray:
    """How often each number of [N] was seen in the other groups."""
    _, kind = np.unique(numbers, return_inverse=True)
    _, own = np.unique(kind * (group.max(initial=0) + 1) + group, return_inverse=True)
    return (np.bincount(kind)[kind] - np.bincount(own)[own]).astype(np.float64)


def _weights(both: np.ndarray, seen: np.ndarray, below: np.ndarray) -> np.ndarray:
    """The weight of maximum likelihood in each bucket of `seen`, by expectation maximisation from one half; [_BUCKETS].

    A bucket with few tokens is drawn to one half by the two that it is started with.
    """
    bucket, likely = _bucket(seen), np.divide(both, seen, out=np.zeros_like(both), where=seen > 0)
    weight, size = np.full(_BUCKETS, 0.5), np.bincount(bucket, minlength=_BUCKETS)
    for _ in range(ROUNDS):
        part = weight[bucket] * likely
        share = part / (part + (1 - weight[bucket]) * below)
        weight = (np.bincount(bucket, share, _BUCKETS) + 1) / (size + 2)
    return weight


def _mixed(both: np.ndarray, seen: np.ndarray, below: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """l both / seen + (1 - l) below; below alone where the history is new."""
    weight = weights[_bucket(seen)]
    known = seen > 0
    likely = np.divide(both, seen, out=np.zeros_like(both), where=known)
    return np.where(known, weight * likely + (1 - weight) * below, below)


def _bucket(seen: np.ndarray) -> np.ndarray:
    return np.floor(np.log2(seen + 1)).astype(np.int64)


def _tokens(documents: Sequence[Document], k: int, entries: int, order: int = ORDER) -> _Tokens:
    """The tokens of codebook k; before a document begins stands the entry V, which is never predicted."""
    own = [item.codes[k][item.codes[k] != EMPTY].astype(np.int64) for item in documents]
    lengths = [len(tokens) for tokens in own]
    names = {name: index for index, name in enumerate(sorted({item.group for item in documents}))}
    histories = []
    for n in range(order):
        parts = [np.zeros(len(tokens), np.int64) for tokens in own]
        for part, tokens in zip(parts, own, strict=True):
            for back in range(1, n + 1):
                part *= entries + 1
                part += np.concatenate([np.full(back, entries), tokens])[: len(tokens)]
        histories.append(np.concatenate(parts) if parts else np.zeros(0, np.int64))
    return _Tokens(
        np.concatenate(own),
        tuple(histories),
        np.repeat([names[item.group] for item in documents], lengths),
        np.repeat(np.arange(len(documents)), lengths),
    )
