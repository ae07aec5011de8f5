"""How much one token tells of another, in shares of its entropy, beyond what it would tell by chance.

Counted, mutual information is never 0: two codebooks of 1024 codes that have nothing to do with each other, of which
2400 tokens are there, have 84 % of their entropy in common. So the mean of pairs that were shuffled is taken off:

    kept = (I(X; Y) - mean I(X; Y shuffled)) / (H(X) - mean I(X; Y shuffled))

which is 1 where Y tells X, 0 on average where they are independent. It is the adjusted mutual information of Vinh et
al. with H(X) as its bound and the permutations drawn. Where the shuffled pairs alone reach CHANCE_LIMIT of the entropy,
what is between 0 and 1 is found too low, by a tenth and more: there are not enough tokens, and that is the answer.
Source: Vinh, Epps and Bailey, "Information theoretic measures for clusterings comparison", JMLR 2010.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from earmark.metrics.checks import MetricError
from earmark.metrics.tokens import Pair, compared

CHANCE_LIMIT = 0.6  # at half of the tokens kept, of 1024 equal codes, .395 is found for .401; at .69 it is .339
SHUFFLES = 8


def information_kept(pairs: Sequence[Pair], codebook: int, limit: float = CHANCE_LIMIT) -> float:
    """Share of the entropy of a codebook's tokens that the tokens of the same frames afterwards still tell.

    pairs: codes [K, T] before and after, of each clip; frames where either has no token are left out.
    Raises MetricError where there are not enough tokens, or one code alone.
    """
    return shared_information(*_of_codebook(pairs, codebook), limit)


def is_constant(pairs: Sequence[Pair], codebook: int) -> bool:
    """Whether a codebook's tokens are one and the same before: it tells nothing, so there is nothing to keep.

    >>> is_constant([(np.array([[5, 5, 5, 7]]), np.array([[5, 6, 5, -1]]))], 0)  # the last frame is not compared
    True
    """
    before, after = _of_codebook(pairs, codebook)
    return len(np.unique(before[(before >= 0) & (after >= 0)])) == 1


def _of_codebook(pairs: Sequence[Pair], codebook: int) -> tuple[np.ndarray, np.ndarray]:
    """Its tokens [N] before and after, of all clips."""
    rows = [compared(*pair)[codebook] for pair in pairs]
    before, after = (np.concatenate(side) for side in zip(*rows, strict=True))
    return before, after


def shared_information(x: np.ndarray, y: np.ndarray, limit: float = CHANCE_LIMIT, seed: int = 0) -> float:
    """Share of H(X) that Y tells, corrected for chance; x, y int [N], pairs with a -1 are left out.

    >>> float(shared_information(np.arange(4000) % 8, (np.arange(4000) % 8 + 3) % 8))  # renamed, nothing lost
    1.0
    """
    there = (x >= 0) & (y >= 0)
    x, y = x[there], y[there]
    if not len(x):
        raise MetricError("not enough tokens: there is none")
    own = entropy(x)
    if own == 0:
        raise MetricError("one and the same code everywhere: it holds no information")
    generator = np.random.default_rng(seed)
    chance = float(np.mean([mutual_information(x, generator.permutation(y)) for _ in range(SHUFFLES)]))
    if chance > limit * own:
        raise MetricError(
            f"not enough tokens: {len(x)}, of which shuffled ones alone seem to share {chance / own:.0%} of the "
            f"entropy; at most {limit:.0%} is allowed"
        )
    return (mutual_information(x, y) - chance) / (own - chance)


def mutual_information(x: np.ndarray, y: np.ndarray) -> float:
    """Mutual information in bits of int [N] and [N], as counted: too high where there are few tokens."""
    return entropy(x) + entropy(y) - entropy(x.astype(np.int64) * (int(y.max()) + 1) + y)


def entropy(tokens: np.ndarray) -> float:
    """Entropy in bits of int [N], as counted.

    >>> entropy(np.array([0, 0, 1, 2]))
    1.5
    """
    share = np.unique(tokens, return_counts=True)[1] / len(tokens)
    return float(-(share * np.log2(share)).sum()) + 0.0
