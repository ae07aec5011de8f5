"""Token sources of known entropy, for tests of the language model."""

from __future__ import annotations

import numpy as np

from earmark.lm.packing import Document


def documents(lengths, sizes, seed=0):
    """Documents d0, d1, ... of uniform random codes, each of a group of its own."""
    rng = np.random.default_rng(seed)
    return [
        Document(f"d{d}", f"g{d}", np.stack([rng.integers(0, size, length) for size in sizes]))
        for d, length in enumerate(lengths)
    ]


def markov_documents(entries, count, length, seed=0):
    """Documents of one codebook from a first-order Markov source, two to a group; and its entropy rate in bits.

    The first token of each is drawn from the stationary distribution, so it costs more than the rate: a little.
    """
    rng = np.random.default_rng(seed)
    moves = rng.dirichlet(np.full(entries, 0.3), entries)
    values, vectors = np.linalg.eig(moves.T)
    share = np.real(vectors[:, np.argmax(np.real(values))])
    share /= share.sum()
    entropy = -float((share[:, None] * moves * np.log2(np.maximum(moves, 1e-300))).sum())
    steps = moves.cumsum(1)
    found = []
    for d in range(count):
        tokens = [int(rng.choice(entries, p=share))]
        for draw in rng.random(length - 1):
            tokens.append(min(int(np.searchsorted(steps[tokens[-1]], draw)), entries - 1))
        found.append(Document(f"d{d}", f"g{d // 2}", np.array([tokens])))
    return found, entropy
