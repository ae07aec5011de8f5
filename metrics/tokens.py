"""Tokens before and after something was done to the sound: how many stay the same, and is that more than chance?

codes    int [K, T], -1 where there is no token. Before and after may differ in T: what both have is compared.
lag      frames by which what came after is late: after[t + lag] is compared with before[t].
codebook one of the K; None is all of them, each weighing alike.

A place where neither side has a token is not compared; where one side alone has one, it changed.
Sources: AudioCodecBench (same-ID ratio); Cohen, "A coefficient of agreement for nominal scales", 1960 (kappa);
Levenshtein distance by rapidfuzz; Schatz, "ABX-discriminability measures and applications", 2016.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from earmark.metrics.checks import MetricError

Pair = tuple[np.ndarray, np.ndarray]


def compared(before: np.ndarray, after: np.ndarray, lag: int = 0) -> list[Pair]:
    """Of each codebook the tokens that lie over each other: [N_k] before and [N_k] after.

    >>> compared(np.array([[1, 2, 3, -1]]), np.array([[9, 1, 2, -1]]), lag=1)
    [(array([1, 2, 3]), array([ 1,  2, -1]))]
    """
    early, late = before[:, max(-lag, 0) :], after[:, max(lag, 0) :]
    frames = min(early.shape[1], late.shape[1])
    rows = zip(early[:, :frames], late[:, :frames], strict=True)
    return [(x[there], y[there]) for x, y in rows for there in [(x >= 0) | (y >= 0)]]


def same_id_ratio(before: np.ndarray, after: np.ndarray, codebook: int | None = None, lag: int = 0) -> float:
    """Share of tokens that are the same, of one clip; the mean of its codebooks, in [0, 1].

    A codec that always gives the same code has 1: see `same_id_kappa`. Raises MetricError where there is no token.

    >>> same_id_ratio(np.array([[1, 2, 3, 4], [5, 5, 5, 5]]), np.array([[1, 2, 0, 0], [5, 5, 5, 5]]))
    0.75
    """
    books = _chosen(compared(before, after, lag), codebook)
    shares = [float(np.mean(x == y)) for x, y in books if len(x)]
    if not shares:
        raise MetricError("there is no token to compare")
    return float(np.mean(shares))


def same_id_kappa(pairs: Sequence[Pair], codebook: int | None = None, lag: int = 0) -> float:
    """Cohen's kappa of the tokens of all clips: 1 where all stay the same, 0 where no more do than by chance.

    (p_o - p_e) / (1 - p_e), with p_o the share that is the same and p_e the share that would be if after had nothing
    to do with before: sum_v p_before(v) p_after(v) of each codebook. Over several codebooks p_o and p_e are their means
    first, so that one that always gives the same code adds nothing. Raises MetricError where p_e is 1.

    >>> same_id_kappa([(np.array([[0, 0, 1, 1]]), np.array([[0, 0, 1, 0]]))])  # p_o 3/4, p_e 1/2
    0.5
    """
    books = zip(*(_chosen(compared(*pair, lag), codebook) for pair in pairs), strict=True)
    rows = [tuple(np.concatenate(side) for side in zip(*book, strict=True)) for book in books]
    found = [(float(np.mean(x == y)), _by_chance(x, y)) for x, y in rows if len(x)]
    if not found:
        raise MetricError("there is no token to compare")
    same, chance = np.mean(found, axis=0)
    if chance >= 1:
        raise MetricError("one and the same code everywhere: it stays the same by chance alone")
    return float((same - chance) / (1 - chance))


def _chosen(books: list[Pair], codebook: int | None) -> list[Pair]:
    return books if codebook is None else books[codebook : codebook + 1]


def _by_chance(x: np.ndarray, y: np.ndarray) -> float:
    size = int(max(x.max(), y.max())) + 2
    return float(np.bincount(x + 1, minlength=size) @ np.bincount(y + 1, minlength=size) / len(x) / len(y))


def token_edit_distance(before: np.ndarray, after: np.ndarray, codebook: int | None = None) -> float:
    """Edits (insert, delete, replace) that turn one token sequence into the other, over the longer one's length.

    In [0, 1], the mean of the codebooks; what is no token is left out. Unlike the same-ID ratio it forgives a shift.
    Raises MetricError where there is no token.

    >>> token_edit_distance(np.array([[1, 2, 3, 4]]), np.array([[2, 3, 4, 5]]))  # one deleted, one inserted
    0.5
    """
    from rapidfuzz.distance import Levenshtein

    rows = list(zip(before, after, strict=True))
    rows = rows if codebook is None else rows[codebook : codebook + 1]
    tokens = [(x[x >= 0].tolist(), y[y >= 0].tolist()) for x, y in rows]
    tokens = [(x, y) for x, y in tokens if x or y]
    if not tokens:
        raise MetricError("there is no token to compare")
    return float(np.mean([Levenshtein.normalized_distance(x, y) for x, y in tokens]))


def distances(clips: Sequence[np.ndarray], codebook: int | None = None) -> np.ndarray:
    """The token edit distance of every two clips, [N, N]."""
    found = np.zeros((len(clips), len(clips)))
    for i, clip in enumerate(clips):
        for j in range(i):
            found[i, j] = found[j, i] = token_edit_distance(clip, clips[j], codebook)
    return found


def abx_errors(distance: np.ndarray, texts: Sequence[str], speakers: Sequence[str]) -> np.ndarray:
    """Of each clip X how often a clip A of the same text lies farther away than a B of another; NaN where not asked.

    A and B are by one speaker, X by another, so that a voice cannot help: 0 is best, 0.5 is chance; a tie is half an
    error. Returns float [N].

    >>> apart = np.array([[0, 9, 1], [9, 0, 5], [1, 5, 0]])  # X: clip 2; A: clip 0; B: clip 1
    >>> abx_errors(apart, ["a", "b", "a"], ["s", "s", "t"])
    array([nan, nan,  0.])
    """
    text, speaker = np.unique(texts, return_inverse=True)[1], np.unique(speakers, return_inverse=True)[1]
    found = np.full(len(text), np.nan)
    for x in range(len(text)):
        asked = [_abx(distance[x], text == text[x], speaker == other) for other in set(speaker) - {speaker[x]}]
        answers = np.concatenate([np.zeros(0), *asked])
        if len(answers):
            found[x] = answers.mean()
    return found


def _abx(to_x: np.ndarray, same_text: np.ndarray, of_speaker: np.ndarray) -> np.ndarray:
    """Errors of every A and B of one speaker."""
    a, b = to_x[same_text & of_speaker], to_x[~same_text & of_speaker]
    return ((a[:, None] > b) + 0.5 * (a[:, None] == b)).ravel()
