"""Scores of speech held out of the training set, to watch a run by. The test set plays no part in training."""

from __future__ import annotations

import copy
import functools

import numpy as np
import torch
from pesq import pesq
from pystoi import stoi

from earmark.codecs.tiny.model import HOP, SAMPLE_RATE, Network
from earmark.training import tiny_data


@functools.cache
def clips() -> list[np.ndarray]:
    """Held-out clips, float32 [L], whole frames."""
    return [clip[: len(clip) // HOP * HOP] for clip in tiny_data.held()]


@torch.no_grad()
def decoded(network: Network, clip: np.ndarray, books: int) -> np.ndarray:
    """A clip [L] through the codec with the first `books` codebooks."""
    latents = network.encoder(torch.from_numpy(clip)[None])
    quantised = network.quantiser.decode(network.quantiser.encode(latents, books))
    return network.decoder(quantised)[0].numpy()


def scores(network: Network) -> dict[str, float]:
    """Mean STOI, ESTOI and PESQ-wb with 8 and 2 codebooks."""
    network = copy.deepcopy(network).to("cpu")
    found: dict[str, float] = {}
    for books in (8, 2):
        rows = [_row(clip, decoded(network, clip, books)) for clip in clips()]
        values = [round(float(value), 4) for value in np.mean(rows, axis=0)]
        found |= {f"{name}_{books}": value for name, value in zip(("stoi", "estoi", "pesq"), values, strict=True)}
    return found


def _row(reference: np.ndarray, estimate: np.ndarray) -> tuple[float, float, float]:
    return (
        stoi(reference, estimate, SAMPLE_RATE),
        stoi(reference, estimate, SAMPLE_RATE, extended=True),
        pesq(SAMPLE_RATE, reference, estimate, "wb"),
    )
