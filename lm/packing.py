"""Packing: documents (the codes of a clip) as rows of one length, several to a row, none seeing another.

On disk, a corpus is one array of steps, all documents one after another, which is memory-mapped, and a small JSON file
that says where each begins. A document longer than a row is cut into pieces; the first input of a piece is the step
before it, so each token of each document is predicted once, and nothing else is.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from earmark.lm.orderings import EMPTY, ORDERINGS
from earmark.metrics import MetricError

_OPEN_ROWS = 64  # rows that are filled at a time: enough to leave little empty


class TooFewGroupsError(MetricError):
    """The data cannot be split into speakers (recordings) to learn from and others to be asked about."""


class Document(NamedTuple):
    """The codes int [K, T] of a clip (-1: no token), its name, and the group (speaker, recording) it belongs to."""

    name: str
    group: str
    codes: np.ndarray


class Piece(NamedTuple):
    """A part of a document, steps [start, stop) of the corpus; `begins` where it is the document's first."""

    document: int
    start: int
    stop: int
    begins: bool


@dataclass(frozen=True)
class Corpus:
    """steps int32 [N, K], memory-mapped; document d has the steps starts[d] to starts[d + 1]."""

    steps: np.ndarray
    starts: Sequence[int]
    names: Sequence[str]
    groups: Sequence[str]
    frames: Sequence[int]
    codebook_sizes: Sequence[int]

    def pieces(self, documents: Iterable[int], context: int) -> list[Piece]:
        """The documents, cut where they are longer than `context` steps."""
        return [
            Piece(d, at, min(at + context, self.starts[d + 1]), at == self.starts[d])
            for d in documents
            for at in range(self.starts[d], self.starts[d + 1], context)
        ]

    def tokens(self, row: Iterable[Piece]) -> int:
        """How many tokens some pieces have."""
        return sum(int((self.steps[piece.start : piece.stop] != EMPTY).sum()) for piece in row)


class Batch(NamedTuple):
    """B rows of S steps, int64: inputs and targets [B, K, S], document and position [B, S] (see `TokenLM.forward`).

    `document` is the index in the corpus, -1 where a row is not filled; targets are -1 wherever there is no token.
    """

    inputs: np.ndarray
    targets: np.ndarray
    document: np.ndarray
    position: np.ndarray


def used_codebooks(documents: Sequence[Document]) -> list[int]:
    """The codebooks that have any token: a stage that a codec leaves out (-1) is not one to be predicted."""
    return [k for k in range(len(documents[0].codes)) if any((item.codes[k] != EMPTY).any() for item in documents)]


def write(folder: Path, documents: Sequence[Document], codebook_sizes: Sequence[int], ordering: str) -> Corpus:
    """Write a corpus into a folder and open it. Raises MetricError for a code outside its codebook."""
    folder.mkdir(parents=True, exist_ok=True)
    lengths = [ORDERINGS[ordering](_checked(item, codebook_sizes)).shape[1] for item in documents]
    starts = np.concatenate([[0], np.cumsum(lengths)]).tolist()
    shape = (starts[-1], len(codebook_sizes))
    steps = np.lib.format.open_memmap(folder / "steps.npy", "w+", np.int32, shape)
    for item, start, length in zip(documents, starts, lengths, strict=False):
        steps[start : start + length] = ORDERINGS[ordering](item.codes).T
    steps.flush()
    index = {
        "starts": starts,
        "names": [item.name for item in documents],
        "groups": [item.group for item in documents],
        "frames": [item.codes.shape[1] for item in documents],
        "codebook_sizes": [*codebook_sizes],
    }
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")
    return read(folder)


def read(folder: Path) -> Corpus:
    """Open a corpus; its steps stay on disk until they are needed."""
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    return Corpus(np.load(folder / "steps.npy", mmap_mode="r"), **index)


def _checked(document: Document, codebook_sizes: Sequence[int]) -> np.ndarray:
    codes, sizes = document.codes, np.asarray(codebook_sizes)
    if len(codes) != len(sizes):
        raise MetricError(f"{document.name}: {len(codes)} codebooks, expected {len(sizes)}")
    if codes.size and ((codes < EMPTY) | (codes >= sizes[:, None])).any():
        raise MetricError(f"{document.name}: a code is not in its codebook; expected -1 or 0 to V - 1, V = {[*sizes]}")
    return codes


def split(groups: Sequence[str], held_out: float, seed: int) -> tuple[list[int], list[int]]:
    """Documents to train on and documents to validate on: whole groups, drawn by the seed until the share is reached.

    At least two groups validate, and one trains. Raises TooFewGroupsError where there are fewer than three.
    """
    names = sorted(set(groups))
    if len(names) < 3:
        raise TooFewGroupsError(f"{len(names)} speakers or recordings: expected at least 3, two of them to be held out")
    order = np.random.default_rng(seed).permutation(len(names))
    sizes, out = Counter(groups), set[str]()
    for place in order[:-1]:
        if len(out) >= 2 and sum(sizes[name] for name in out) >= held_out * len(groups):
            break
        out.add(names[place])
    train = [d for d, group in enumerate(groups) if group not in out]
    return train, [d for d, group in enumerate(groups) if group in out]


def rows(pieces: Iterable[Piece], context: int) -> Iterator[list[Piece]]:
    """The pieces, each put where it fits closest among the rows being filled."""
    being_filled: list[list[Piece]] = []
    free: list[int] = []
    for piece in pieces:
        length = piece.stop - piece.start
        fitting = [at for at, left in enumerate(free) if left >= length]
        if fitting:
            at = min(fitting, key=free.__getitem__)
            being_filled[at].append(piece)
            free[at] -= length
            continue
        if len(free) == _OPEN_ROWS:
            fullest = free.index(min(free))
            free.pop(fullest)
            yield being_filled.pop(fullest)
        being_filled.append([piece])
        free.append(context - length)
    yield from being_filled


def training_batches(pieces: Sequence[Piece], context: int, batch: int, seed: int) -> Iterator[list[list[Piece]]]:
    """Rows for one optimiser's step after another, without end: each epoch shuffles the pieces, by seed and epoch."""
    epoch = 0
    while True:
        rng = np.random.default_rng((seed, epoch))
        packed = [*rows((pieces[at] for at in rng.permutation(len(pieces))), context)]
        packed = [packed[at] for at in rng.permutation(len(packed))]
        yield from (packed[at : at + batch] for at in range(0, len(packed), batch))
        epoch += 1


def collate(corpus: Corpus, packed: Sequence[Sequence[Piece]], width: int | None = None) -> Batch:
    """Rows as arrays, `width` steps wide; by default as wide as the fullest."""
    width = width or max((sum(piece.stop - piece.start for piece in row) for row in packed), default=1)
    books = len(corpus.codebook_sizes)
    inputs, targets = (np.full((len(packed), books, width), EMPTY, np.int64) for _ in range(2))
    document = np.full((len(packed), width), -1, np.int64)
    position = np.zeros((len(packed), width), np.int64)
    for b, row in enumerate(packed):
        at = 0
        for piece in row:
            length = piece.stop - piece.start
            here, steps = slice(at, at + length), corpus.steps[piece.start - (not piece.begins) : piece.stop].T
            targets[b, :, here] = steps[:, -length:]
            inputs[b, :, at + piece.begins : at + length] = steps[:, :-1]
            document[b, here], position[b, here] = piece.document, np.arange(length)
            at += length
    return Batch(inputs, targets, document, position)
