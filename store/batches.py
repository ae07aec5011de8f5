"""Batches: the clips of a shard through a codec, by length, with true lengths, while the next ones are being read.

A plan depends on the clips alone, so that a shard made twice is the same to the bit. A codec is given batches only on
an accelerator, and only after it has shown that a clip in a batch comes out as it does alone; else one by one. A batch
for which the device has not enough memory, or on which the codec fails, is halved until one clip is left: the failure
is that clip's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from earmark.codecs import calls
from earmark.codecs.registry import Entry
from earmark.data.audio import AudioError
from earmark.data.manifest import Clip
from earmark.store.shards import Outcome

if TYPE_CHECKING:
    from torch import Tensor

    from earmark.store.store import Store

    Read = Callable[[Clip], "Audio"]
    Encode = Callable[[Tensor, Tensor], list[tuple[dict[str, Any], dict[str, np.ndarray]]]]

What = Literal["tokens", "sound", "latents"]

BATCH_SECONDS = 160  # audio in a batch, padding included
READERS = 4  # threads that read ahead


class Audio(NamedTuple):
    """A clip as a codec takes it: float32 [C, L] at sample_rate Hz."""

    wav: np.ndarray
    sample_rate: int


def encode_batches(
    store: Store, entry: Entry, clips: Sequence[Clip], encode: Encode, what: What, read: Read
) -> list[Outcome]:
    """`read` the clips, put them through `encode(wav [B, C, L], lengths [B])`, and give the outcomes in their order.

    `encode` returns facts and arrays of each clip of its batch; sample_rate and samples (as given) are added here.
    """
    outcomes: dict[str, Outcome] = {}
    for batch in _plan(_read_ahead(read, clips, outcomes), store.batches(entry, what)):
        store.beat(f"{entry.name}: {len(batch)} clips of {batch[0][1].wav.shape[1] / batch[0][1].sample_rate:.1f} s")
        outcomes |= {outcome.clip: outcome for outcome in _run(batch, encode, store.device)}
    return [outcomes[clip.sha256] for clip in clips]


class Ahead:
    """Recordings that are read before they are asked for: those of the next shard, while this one is being encoded."""

    def __init__(self) -> None:
        self._begun: deque[dict[tuple, Future[Audio]]] = deque(maxlen=2)  # of this shard, and of the next

    def begin(self, read: Callable[..., Audio], clips: Sequence[Clip], *how: Any) -> None:
        """Begin `read(clip, *how)` of each clip, in threads. What nobody took of the last but one is let go."""
        readers = ThreadPoolExecutor(READERS)
        self._begun.append({(clip.sha256, *how): readers.submit(read, clip, *how) for clip in clips})
        readers.shutdown(wait=False)  # its threads end with the last clip

    def take(self, read: Callable[..., Audio], clip: Clip, *how: Any) -> Audio:
        """What `read(clip, *how)` gives, or raises, begun before or now."""
        for begun in self._begun:
            if future := begun.pop((clip.sha256, *how), None):
                return future.result()
        return read(clip, *how)


def _read_ahead(read: Read, clips: Sequence[Clip], failed: dict[str, Outcome]) -> Iterator[tuple[Clip, Audio]]:
    """The clips that can be read, in order, decoded by threads ahead of their use; the others go into `failed`."""
    with ThreadPoolExecutor(READERS) as readers:
        futures = [readers.submit(read, clip) for clip in clips]
        for clip, future in zip(clips, futures, strict=True):
            try:
                yield clip, future.result()
            except AudioError as error:
                failed[clip.sha256] = Outcome(clip.sha256, error=str(error))


def _plan(read: Iterator[tuple[Clip, Audio]], batched: bool) -> Iterator[list[tuple[Clip, Audio]]]:
    """Batches of like length, the longest first; single clips, as they come, where the codec takes no batches."""
    if not batched:
        yield from ([item] for item in read)
        return
    batch: list[tuple[Clip, Audio]] = []
    for item in sorted(read, key=lambda item: (-item[1].wav.shape[1], item[0].sha256)):
        longest = (batch or [item])[0][1]
        if batch and (len(batch) + 1) * longest.wav.shape[1] > BATCH_SECONDS * longest.sample_rate:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _run(batch: list[tuple[Clip, Audio]], encode: Encode, device: str) -> list[Outcome]:
    """One batch; halved where memory does not suffice or the codec fails on it."""
    import torch

    parts, error = None, ""
    try:
        parts = encode(*_padded([audio.wav for _, audio in batch], device))
    except torch.OutOfMemoryError as fault:  # of the batch itself
        error = f"infrastructure fault: out of memory on {device}: {str(fault).splitlines()[0]}"
    except calls.CodecError as fault:
        error = str(fault)
    if parts is None:  # outside the handler, whose traceback would keep the failed batch in memory
        torch.cuda.empty_cache()
        if len(batch) == 1:
            return [Outcome(batch[0][0].sha256, error=error)]
        middle = len(batch) // 2
        return _run(batch[:middle], encode, device) + _run(batch[middle:], encode, device)
    return [
        Outcome(clip.sha256, {"sample_rate": audio.sample_rate, "samples": audio.wav.shape[1]} | facts, arrays)
        for (clip, audio), (facts, arrays) in zip(batch, parts, strict=True)
    ]


def _padded(wavs: list[np.ndarray], device: str) -> tuple[Tensor, Tensor]:
    """Zero-padded wav [B, C, L] and lengths [B] on the device; copied from pinned memory to an accelerator."""
    import torch

    longest = max(wav.shape[1] for wav in wavs)
    stacked = torch.from_numpy(np.stack([np.pad(wav, ((0, 0), (0, longest - wav.shape[1]))) for wav in wavs]))
    lengths = torch.tensor([wav.shape[1] for wav in wavs])
    if device.startswith("cuda"):
        stacked = stacked.pin_memory()
    return stacked.to(device, non_blocking=True), lengths.to(device)


def equal_in_batches(adapter: Any, entry: Entry, device: str, what: What, seed: int = 0) -> bool | None:
    """Whether a clip in a batch of other lengths gives the tokens, sound or latents that it gives alone.

    Tried on three clips of noise; codes must be equal, the others within 1e-4 (float32 sums in another order), latents
    of every kind: an encoder's first layer does not hear yet what its attention lets leak. A codec that takes no
    batches at all is simply not equal. None where the device has no room to try.
    """
    import torch

    rate = entry.info.sample_rate or 24000
    generator = np.random.default_rng(seed)
    lengths = [rate, rate * 2 // 3, rate // 2 + 7]
    wavs = [generator.normal(0, 0.1, (entry.info.channels, length)).astype(np.float32) for length in lengths]
    try:
        together = _probe(adapter, entry, wavs, device, what, seed)
        alone = [_probe(adapter, entry, [wav], device, what, seed)[0] for wav in wavs]
    except (calls.NoMemoryError, torch.OutOfMemoryError):
        return None
    except calls.CodecError:
        return False
    return all(_alike(batched, single) for batched, single in zip(together, alone, strict=True))


def _probe(adapter: Any, entry: Entry, wavs: list[np.ndarray], device: str, what: What, seed: int) -> list[np.ndarray]:
    """What each clip of a batch gives, without what lies beyond its end; of latents those of every kind in turn."""
    wav, lengths = _padded(wavs, device)
    if what == "tokens":
        encoded = calls.encode(adapter, entry.info, wav, lengths, seed)
        return [codes[:, : int(n)].cpu().numpy() for codes, n in zip(encoded.codes, encoded.frames, strict=True)]
    if what == "sound":
        decoded, _ = calls.reconstruct(adapter, entry.info, wav, lengths, seed)
        return [found[:, :n].cpu().numpy() for found, n in zip(decoded, lengths.tolist(), strict=True)]
    kinds = [calls.latents(adapter, entry.info, wav, lengths, kind, seed) for kind in entry.info.latent_kinds]
    return [
        np.concatenate([found[clip, :, : int(frames[clip])].cpu().numpy().ravel() for found, frames in kinds])
        for clip in range(len(wavs))
    ]


def _alike(batched: np.ndarray, alone: np.ndarray) -> bool:
    if batched.shape != alone.shape:
        return False
    tolerance = 0 if np.issubdtype(batched.dtype, np.integer) else 1e-4
    return float(np.abs(batched.astype(np.float64) - alone).max(initial=0.0)) <= tolerance
