"""How a codebook is used: which codes, how evenly, in which order.

clips: codes int [K, T] of each clip, -1 where there is no token. codebook: one of the K. size: V, its number of codes.
Everything is counted over the tokens of all clips; a sequence does not run on from one clip to the next.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from earmark.metrics.checks import MetricError
from earmark.metrics.information import CHANCE_LIMIT, entropy, shared_information
from earmark.metrics.rate import entropy_bits

Clips = Sequence[np.ndarray]


def usage(clips: Clips, codebook: int, size: int) -> np.ndarray:
    """How often each code is used, int [V]. Raises MetricError where there is no token."""
    counts = np.bincount(np.concatenate(sequences(clips, codebook)), minlength=size)
    if not counts.sum():
        raise MetricError("there is no token to count")
    return counts


def sequences(clips: Clips, codebook: int) -> list[np.ndarray]:
    """The tokens of each clip in turn, [N_i], without what is no token."""
    return [clip[codebook][clip[codebook] >= 0] for clip in clips]


def utilisation(clips: Clips, codebook: int, size: int) -> float:
    """Share of the codes that are used at all; never above the number of tokens over V.

    >>> utilisation([np.array([[0, 3, 3, -1]])], 0, 4)
    0.5
    """
    return float(np.mean(usage(clips, codebook, size) > 0))


def dead_codes(clips: Clips, codebook: int, size: int) -> float:
    """How many of the codes are never used."""
    return float(np.sum(usage(clips, codebook, size) == 0))


def relative_entropy(clips: Clips, codebook: int, size: int) -> float:
    """Entropy over log2 V: 1 where all codes are used equally often. As Miller and Madow correct it, but at most 1.

    >>> relative_entropy([np.arange(4000)[None] % 4], 0, 4)
    1.0
    """
    usage(clips, codebook, size)
    return min(1.0, entropy_bits(np.concatenate(sequences(clips, codebook))) / float(np.log2(size)))


def bigram_entropy(clips: Clips, codebook: int, size: int, limit: float = CHANCE_LIMIT) -> float:
    """What is left to know of a token when the one before is known, in bits, whatever V: H(X_t) - I(X_t; X_t-1).

    The information is corrected for chance (`information.shared_information`). Raises MetricError where there are not
    enough tokens; 0 where one code alone is used.

    >>> round(bigram_entropy([np.arange(4000)[None] % 4], 0, 4), 9)
    0.0
    """
    del size
    rows = [row for row in sequences(clips, codebook) if len(row) > 1]
    if not rows:
        raise MetricError("not enough tokens: no clip has two")
    before, after = (np.concatenate(side) for side in ([row[:-1] for row in rows], [row[1:] for row in rows]))
    if entropy(after) == 0:
        return 0.0
    return entropy_bits(after) * max(0.0, 1 - shared_information(after, before, limit))


def block_entropies(clips: Clips, codebook: int, longest: int = 4, shuffle: bool = False) -> list[float]:
    """Entropy in bits of blocks of 1 to `longest` successive tokens, as counted; `shuffle`: of the tokens in any order.

    Where there are few tokens, both end at the logarithm of their number: only the gap between them is order.
    """
    rows = sequences(clips, codebook)
    if shuffle:
        mixed = np.random.default_rng(0).permutation(np.concatenate(rows))
        rows = np.split(mixed, np.cumsum([len(row) for row in rows])[:-1])
    found = []
    for n in range(1, longest + 1):
        blocks = [np.lib.stride_tricks.sliding_window_view(row, n) for row in rows if len(row) >= n]
        counts = np.unique(np.concatenate(blocks), axis=0, return_counts=True)[1] if blocks else np.ones(1)
        share = counts / counts.sum()
        found.append(float(-(share * np.log2(share)).sum()) + 0.0)
    return found


def mean_run_length(clips: Clips, codebook: int, size: int) -> float:
    """Mean length of runs of the same token, in tokens, whatever V.

    >>> mean_run_length([np.array([[7, 7, 7, 2]]), np.array([[2, 2]])], 0, 8)  # runs of 3, 1 and 2
    2.0
    """
    del size
    rows = [row for row in sequences(clips, codebook) if len(row)]
    if not rows:
        raise MetricError("there is no token to count")
    return sum(map(len, rows)) / sum(1 + int(np.sum(row[1:] != row[:-1])) for row in rows)
