"""Distances between two sets of embeddings: does what a codec gives back sound, as a whole, like recordings?

Conventions
-----------
reference, estimate: float [N, D] and [M, D], numpy or torch, an embedding a row: of all recordings of a dataset, and
of all that the codec made of them. Computed in float64. The order of the rows is of no consequence. What the number is
depends on the encoder, which is part of the score's name; it does not compare across encoders.
A set without an answer (fewer than two embeddings, NaN) raises MetricError.

Both are meant for independent samples. Of a codec the two sets hold the same clips, which makes both smaller than two
sets of different recordings would: compare codecs on the same clips only.

`frechet_distance`  FAD: both sets as Gaussians; biased upwards with few embeddings
`kernel_distance`   KAD: no such assumption, no such bias; may be slightly negative
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from earmark.metrics.checks import Array, MetricError, to_numpy

KAD_SCALE = 100.0
TILE = 512  # rows and columns of a kernel matrix that are held at once: what a processor's cache takes
EQUAL = 1e-12  # squared distances below this share of the largest are rounding
BANDWIDTH_SAMPLE = 4096  # reference embeddings whose distances are compared for the bandwidth


def frechet_distance(reference: Array, estimate: Array) -> float:
    """Fréchet distance of the Gaussians of two sets of embeddings; lower is better, 0 for equal sets.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), with covariances over N - 1. reference, estimate: [N, D], [M, D].
    It is in the squared unit of the embeddings: twice as large embeddings, four times the distance. Symmetric.
    Two independent samples of one distribution do not give 0 but more, the fewer they are (for N unit Gaussians each,
    about (2 D + D (D + 1) / 2) / N): compare scores of equal N. With N <= D the covariances are singular; the number
    then is exact for these embeddings, but biased so much that it says little of others.
    Raises MetricError for fewer than two embeddings, ValueError where D differs.
    Source: Kilgour et al., "Fréchet Audio Distance", Interspeech 2019; Dowson and Landau 1982, eq. 4.
    Ours: the square root of a matrix product loses half of the digits and turns complex for singular covariances. The
    term of the covariances is the same as min_U |A - U B|^2 over rotations U, with A'A = S1 and B'B = S2 (Bhatia, Jain
    and Lim, "On the Bures-Wasserstein distance between positive definite matrices", 2019, theorem 1), which is never
    negative.

    >>> round(frechet_distance(np.array([[0.0], [2.0]]), np.array([[1.0], [5.0]])), 6)  # (3-1)^2 + (sqrt(8)-sqrt(2))^2
    6.0
    """
    first, second = _checked(reference, estimate)
    if np.array_equal(first, second):
        return 0.0
    means = np.square(first.mean(0) - second.mean(0)).sum()
    return float(means + _covariance_distance(_factor(first), _factor(second)))


def _factor(embeddings: np.ndarray) -> np.ndarray:
    """A with A'A = the covariance [D, D]; at most D rows."""
    centred = embeddings - embeddings.mean(0)
    return np.linalg.qr(centred, mode="r") / np.sqrt(len(embeddings) - 1)


def _covariance_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Squared Bures distance of two covariances by their factors [K1, D], [K2, D]: an orthogonal Procrustes problem."""
    rows = max(len(first), len(second))
    a, b = (np.pad(factor, ((0, rows - len(factor)), (0, 0))) for factor in (first, second))
    left, _, right = np.linalg.svd(a @ b.T)
    return float(np.square(a - left @ right @ b).sum())


def kernel_distance(reference: Array, estimate: Array) -> float:
    """Kernel audio distance: 100 times the unbiased squared maximum mean discrepancy; lower is better.

    Kernel exp(-|x - y|^2 / (2 s^2)), s the median distance of two reference embeddings; so it is not symmetric.
    reference, estimate: [N, D], [M, D]. At most 200 (two clusters far apart); the scale of the embeddings is of no
    consequence. Two samples of one distribution give 0 on average, so one such pair may be negative. A set against
    itself gives -(200 / N) (1 - k), k the mean kernel of two different embeddings: the lowest there is for that set
    is no constant, and a codec that changes next to nothing lies below 0.
    Raises MetricError for fewer than two embeddings and where half of the distances of the reference are 0 (s would
    be 0), ValueError where D differs. Time: some seconds for 10 000 each.
    Source: Chung et al., "KAD: No More FAD!", 2025 (arXiv:2502.15602), and its toolkit kadtk, whose scale is 100;
    Gretton et al., "A kernel two-sample test", JMLR 2012, eq. 3.
    Ours, for float64 and tiles (kadtk has float32 and all matrices at once); without its 1e-8 beside 2 s^2; of more
    than 4096 reference embeddings, s is of 4096 that are evenly spaced.

    >>> x, y = np.array([[0.0], [1.0]]), np.array([[0.0], [2.0]])  # s = 1; within: e^-.5, e^-2
    >>> round(kernel_distance(x, y), 4)  # 100 (e^-.5 + e^-2 - 2 (1 + e^-2 + e^-.5 + e^-.5) / 4) = 50 (e^-2 - 1)
    -43.2332
    """
    first, second = _checked(reference, estimate)
    centre = first.mean(0)  # of no consequence but for rounding: distances come from differences of large squares
    first, second = first - centre, second - centre
    gamma = 1 / (2 * _bandwidth(first) ** 2)
    within = [2 * _kernel_sum(_pairs_within(rows), gamma) / (len(rows) * (len(rows) - 1)) for rows in (first, second)]
    across = _kernel_sum(_pairs_across(first, second), gamma) / (len(first) * len(second))
    return float(KAD_SCALE * (sum(within) - 2 * across))


def _bandwidth(reference: np.ndarray) -> float:
    """The median distance of two reference embeddings; the lower of the middle two, as kadtk has it."""
    chosen = np.linspace(0, len(reference) - 1, min(len(reference), BANDWIDTH_SAMPLE)).round().astype(int)
    squares = np.concatenate([tile.ravel() for tile in _pairs_within(reference[chosen])])
    middle = (len(squares) - 1) // 2
    median = float(np.partition(squares, middle)[middle])
    if median <= EQUAL * squares.max():
        raise MetricError("half of the distances between reference embeddings are 0, so the kernel has no width")
    return float(np.sqrt(median))


def _kernel_sum(tiles: Iterator[np.ndarray], gamma: float) -> float:
    return float(sum(np.exp(np.multiply(tile, -gamma, out=tile), out=tile).sum() for tile in tiles))


def _pairs_within(rows: np.ndarray) -> Iterator[np.ndarray]:
    """|x - y|^2 of every two different rows, each pair once."""
    for start in range(0, len(rows), TILE):
        block = rows[start : start + TILE]
        yield _squared_distances(block, block)[np.triu_indices(len(block), 1)]
        yield from _pairs_across(block, rows[start + TILE :])


def _pairs_across(first: np.ndarray, second: np.ndarray) -> Iterator[np.ndarray]:
    """|x - y|^2 of every row of the one with every row of the other, in tiles."""
    for row in range(0, len(first), TILE):
        for column in range(0, len(second), TILE):
            yield _squared_distances(first[row : row + TILE], second[column : column + TILE])


def _squared_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """|x - y|^2 of every pair, [N, M]."""
    product = first @ second.T
    product *= -2
    product += np.square(first).sum(1)[:, None]
    product += np.square(second).sum(1)
    return np.maximum(product, 0, out=product)


def _checked(reference: Array, estimate: Array) -> tuple[np.ndarray, np.ndarray]:
    """Both sets as float64 [N, D] and [M, D]."""
    sets = [np.asarray(to_numpy(found), dtype=np.float64) for found in (reference, estimate)]
    if any(found.ndim != 2 for found in sets) or sets[0].shape[1] != sets[1].shape[1]:
        raise ValueError(f"expected embeddings [N, D] and [M, D], not {sets[0].shape} and {sets[1].shape}")
    for name, found in zip(("reference", "estimate"), sets, strict=True):
        if len(found) < 2:
            raise MetricError(f"{name} has {len(found)} embeddings; a distribution needs at least 2")
        if not np.isfinite(found).all():
            raise MetricError(f"{name} holds NaN or infinite embeddings")
    return sets[0], sets[1]
