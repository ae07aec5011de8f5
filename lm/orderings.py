"""Orderings: how the codes of a clip become the steps that a language model takes.

A step is K slots, one a codebook, of which some may be empty. The model is given the steps so far and predicts every
token of the next one, so an ordering says what each token may be predicted from:

    parallel   step t is frame t: its K tokens are predicted at once, from the frames before (AudioCodecBench)
    delay      codebook k is k steps late: its token of frame t sees those of codebooks below it (MusicGen)
    flattened  one token a step, frame by frame: each token sees all before it (AudioLM)

A codebook of a coarser stride has its token in the frame where it begins, and an empty slot in those between; so all
three hold for codecs of several rates.
Source: Copet et al., "Simple and controllable music generation", NeurIPS 2023, section 2.2.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

EMPTY = -1


def parallel(codes: np.ndarray) -> np.ndarray:
    """Codes int [K, T] as they are: steps [K, T].

    >>> parallel(np.array([[1, 2], [3, 4]])).tolist()
    [[1, 2], [3, 4]]
    """
    return codes


def delay(codes: np.ndarray) -> np.ndarray:
    """Codes int [K, T], codebook k put k steps later: steps [K, T + K - 1].

    >>> delay(np.array([[1, 2], [3, 4]])).tolist()
    [[1, 2, -1], [-1, 3, 4]]
    """
    books, frames = codes.shape
    steps = np.full((books, frames + books - 1 if frames else 0), EMPTY, codes.dtype)
    for k in range(books):
        steps[k, k : k + frames] = codes[k]
    return steps


def flattened(codes: np.ndarray) -> np.ndarray:
    """Codes int [K, T] one after another, codebook by codebook within a frame: steps [K, N] for N tokens.

    >>> flattened(np.array([[1, 2], [3, 4]])).tolist()
    [[1, -1, 2, -1], [-1, 3, -1, 4]]
    """
    frame, book = np.nonzero(codes.T != EMPTY)
    steps = np.full((len(codes), len(frame)), EMPTY, codes.dtype)
    steps[book, np.arange(len(frame))] = codes[book, frame]
    return steps


ORDERINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "parallel": parallel,
    "delay": delay,
    "flattened": flattened,
}
