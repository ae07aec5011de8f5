"""Retrieval: where what belongs to a query stands among all that could be found."""

from __future__ import annotations

import math

import numpy as np


def ranks(similarity: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Of each query the rank of the best of what belongs to it: int64 [N], 1 is the top.

    similarity: float [N, M], how alike query and item are; relevant: bool [N, M]. An item that does not belong, and is
    as alike as the one that does, stands before it: whoever finds all alike finds nothing. Raises ValueError for NaN
    and for a query to which nothing belongs.

    >>> ranks(np.array([[0.9, 0.1], [0.5, 0.5]]), np.eye(2, dtype=bool)).tolist()
    [1, 2]
    """
    if similarity.shape != relevant.shape or np.isnan(similarity).any():
        raise ValueError(f"similarities {similarity.shape} must be as many as relevances {relevant.shape}, and no NaN")
    if not relevant.any(1).all():
        raise ValueError("there is a query to which nothing belongs, so nothing can be found")
    best = np.where(relevant, similarity, -np.inf).max(1, keepdims=True)
    return 1 + ((similarity >= best) & ~relevant).sum(1)


def chance_at(k: int, items: int, relevant: int) -> float:
    """How often one of `relevant` items is among k drawn from all.

    >>> chance_at(1, 8, 1), round(chance_at(2, 4, 2), 4)
    (0.125, 0.8333)
    """
    return 1 - math.comb(items - relevant, k) / math.comb(items, k)
