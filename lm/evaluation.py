"""From the loss of every token to perplexities and bits.

A codebook's perplexity is exp(CE), CE its mean negative log-likelihood in nats over all its tokens. Codebooks of other
sizes are compared by how far below an even guess they are: PPL = exp(CE) / (V / 1024), the perplexity that a codebook
of 1024 entries would have. Overall is the geometric mean over codebooks, exp of the mean CE.
Source: AudioCodecBench, equation 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from earmark.lm.packing import Corpus, Piece, collate, rows
from earmark.lm.protocol import Protocol

REFERENCE_SIZE = 1024  # entries of the codebook that perplexities are normalised to


@dataclass(frozen=True)
class Losses:
    """What predicting D held-out documents of K codebooks costs: nats and tokens float64 [D, K], frames [D]."""

    names: Sequence[str]
    nats: np.ndarray
    tokens: np.ndarray
    frames: np.ndarray
    codebook_sizes: Sequence[int]

    def codebook(self, k: int, normalised: bool) -> tuple[np.ndarray, np.ndarray]:
        """log PPL of codebook k in each document, and each document's weight: its tokens. Float64 [D] both."""
        tokens = self.tokens[:, k]
        entropy = np.divide(self.nats[:, k], tokens, out=np.zeros(len(tokens)), where=tokens > 0)
        return entropy - self._offset(k, normalised), tokens

    def overall(self, normalised: bool) -> tuple[np.ndarray, np.ndarray]:
        """As `codebook`, of the geometric mean over codebooks; the weighted mean is that of the codebooks' own means.

        A codebook of a coarse stride has few tokens, and counts as much as another.
        """
        shares = self.frames.sum() * self.nats / self.tokens.sum(0)  # nats of the mean's, spread over frames
        offset = np.mean([self._offset(k, normalised) for k in range(len(self.codebook_sizes))])
        return shares.mean(1) / self.frames - offset, self.frames

    def bits_per_frame(self) -> tuple[np.ndarray, np.ndarray]:
        """Bits that a frame takes in each document, all codebooks together, and each document's weight: its frames."""
        return self.nats.sum(1) / math.log(2) / self.frames, self.frames

    def _offset(self, k: int, normalised: bool) -> float:
        return math.log(self.codebook_sizes[k] / REFERENCE_SIZE) if normalised else 0.0


def overall_perplexity(codebooks: Sequence[float]) -> float:
    """The overall perplexity of perplexities of codebooks, normalised or not: their geometric mean.

    >>> round(overall_perplexity([1.0, 100.0]), 6)
    10.0
    """
    return float(np.exp(np.mean(np.log(codebooks))))


def document_losses(
    model: Any, corpus: Corpus, documents: Sequence[int], protocol: Protocol, accelerator: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """Nats and tokens, float64 [D, K], of each of D documents, in the order given. Each token is predicted once.

    accelerator: of a training run; its processes share the rows, and each is given all the sums.
    """
    import torch

    device = next(model.parameters()).device
    share = (0, 1) if accelerator is None else (accelerator.process_index, accelerator.num_processes)
    packed = [*rows(corpus.pieces(documents, protocol.context), protocol.context)][share[0] :: share[1]]
    sums = torch.zeros(2, len(corpus.names), len(corpus.codebook_sizes), dtype=torch.float64, device=device)
    width = protocol.context if device.type == "cuda" else None
    model.eval()
    with torch.no_grad():
        for at in range(0, len(packed), protocol.batch):
            _add_losses(sums, model, corpus, packed[at : at + protocol.batch], width, accelerator)
    model.train()
    if accelerator is not None:
        sums = accelerator.reduce(sums)
    nats, tokens = sums[:, list(documents)].cpu().numpy()
    return nats, tokens


def _add_losses(
    sums: Any, model: Any, corpus: Corpus, packed: Sequence[Sequence[Piece]], width: int | None, accelerator: Any
) -> None:
    """Add the losses and counts of a batch's tokens to the sums [2, documents, K]."""
    import contextlib

    from earmark.lm.model import token_losses
    from earmark.lm.training import tensors

    batch: Any = tensors(collate(corpus, packed, width), sums.device)
    with accelerator.autocast() if accelerator is not None else contextlib.nullcontext():
        logits = model(batch.inputs, batch.document, batch.position)
    losses = token_losses(logits, batch.targets).transpose(1, 2)  # [B, S, K]
    inside = batch.document >= 0
    sums[0].index_add_(0, batch.document[inside], losses[inside].double())
    sums[1].index_add_(0, batch.document[inside], (batch.targets >= 0).transpose(1, 2)[inside].double())
