"""A batch is its clips: what the tests of every adapter ask alike."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from earmark.codecs import calls


def assert_a_batch_is_its_clips(
    adapter: Any, batch: Tensor, lengths: Sequence[int], seed: int = 0, kinds: Sequence[str] = ()
) -> None:
    """Each clip of wav [B, C, L] gives in the batch what it gives alone, tokens, sound and latents, and nothing more.

    What lies beyond the clips is made loud, and not a number.
    """
    for row, length in zip(batch, lengths, strict=True):
        row[:, length:] = torch.tensor([1e3, float("nan")]).repeat(row.shape[-1])[: row.shape[-1] - length]
    together = calls.encode(adapter, adapter.info, batch, torch.tensor(lengths), 0)
    sound = adapter.decode(together, seed) if hasattr(adapter, "decode") else None
    latents = {kind: adapter.latents(batch, torch.tensor(lengths), kind, 0)[0] for kind in kinds}
    for i, length in enumerate(lengths):
        wav, own = batch[i : i + 1, :, :length], torch.tensor([length])
        alone = calls.encode(adapter, adapter.info, wav, own, 0)
        _starts_with(together.codes[i], alone.codes[0], beyond=-1)
        assert together.frames[i] == alone.frames[0]
        for key, rows in alone.side.items():
            assert torch.equal(together.side[key][i].reshape(-1)[: rows.numel()], rows.reshape(-1))
        if sound is not None:
            _starts_with(sound[i], adapter.decode(alone, seed)[0], beyond=0)
        for kind, found in latents.items():
            _starts_with(found[i], adapter.latents(wav, own, kind, 0)[0][0], beyond=0)


def _starts_with(row: Tensor, alone: Tensor, beyond: float) -> None:
    """A row [K, T] of a batch is what came of the clip alone [K, T' <= T], and `beyond` after it."""
    assert torch.equal(row[:, : alone.shape[-1]], alone)
    assert bool((row[:, alone.shape[-1] :] == beyond).all())
