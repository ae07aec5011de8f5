"""Jobs: the kinds of result that the store keeps, each made of a few clips at a time by one codec.

    tokens    codes int32 [K, T] and what else the decoder needs
    sound     the reconstructed wav float32 [C, L]
    latents   latents float16 [D, T] of one kind, float32 where float16 would overflow

A codec that encodes and decodes has its sound made from its stored tokens, so each clip is encoded once whatever is
asked of it. A job may have steps (`store.transforms`): what is done to each clip before the codec is given it, rounds
of reconstruction among them. Other modules add jobs of their own (`earmark.scoring` has the metrics): a job names its
maker.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from earmark.codecs import calls, registry
from earmark.codecs.contract import Encoded
from earmark.codecs.registry import Entry
from earmark.data import audio
from earmark.data.manifest import Clip
from earmark.store.batches import Audio, encode_batches
from earmark.store.shards import Outcome
from earmark.store.transforms import Lost, Round, Transform

if TYPE_CHECKING:
    from pathlib import Path

    from earmark.store.store import Store

MISSING_S = 0.05  # a codec may return this much less than it was given; what it lacks beyond that is a failed clip
_FLOAT16_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Job:
    """One kind of result: all that it depends on beside the clips and the codec's fingerprint. Plain data, so that it
    can be sent to another process or machine.

    maker    "module:function" of ours: `function(store, job, clips) -> outcomes`.
    version  what of the maker itself its results depend on.
    model    whether the maker runs the codec; one that does not can run anywhere.
    steps    what is done to the clips before, in order; none: the recordings as they are.
    """

    maker: str
    entry: Entry
    detail: str = ""
    seed: int = 0
    version: str = ""
    model: bool = True
    steps: Transform = ()

    def make(self, store: Store, clips: Sequence[Clip]) -> list[Outcome]:
        module, _, function = self.maker.partition(":")
        maker: Callable = getattr(importlib.import_module(module), function)
        return maker(store, self, clips)


def tokens_job(entry: Entry, seed: int = 0, steps: Transform = ()) -> Job:
    return Job("earmark.store.jobs:tokens", entry, seed=seed, steps=steps)


def sound_job(entry: Entry, seed: int = 0, steps: Transform = ()) -> Job:
    return Job("earmark.store.jobs:sound", entry, seed=seed, steps=steps)


def latents_job(entry: Entry, kind: str, seed: int = 0) -> Job:
    return Job("earmark.store.jobs:latents", entry, detail=kind, seed=seed)


def tokens(store: Store, job: Job, clips: Sequence[Clip]) -> list[Outcome]:
    """Encode: arrays `codes` int32 [K, T] and `side.*`; facts frames and bits, side information included."""
    if job.steps and isinstance(job.steps[-1], Lost):
        return _damaged(store, job, clips)
    info = job.entry.info

    def encode(wav: Any, lengths: Any) -> list[tuple[dict, dict]]:
        encoded = calls.encode(store.adapter(job.entry), info, wav, lengths, job.seed)
        bits = calls.nominal_bits(info, encoded)
        return [_token_parts(encoded, float(bits[row]), row) for row in range(len(wav))]

    return encode_batches(store, job.entry, clips, encode, "tokens", source(store, job, clips))


def _damaged(store: Store, job: Job, clips: Sequence[Clip]) -> list[Outcome]:
    """The tokens of the steps before, some of them lost."""
    *before, lost = job.steps
    assert isinstance(lost, Lost)
    made = store.outcomes(replace(job, steps=tuple(before)), clips)
    return [
        replace(outcome, arrays=outcome.arrays | {"codes": lost(outcome.arrays["codes"], clip)})
        if not outcome.error
        else outcome
        for clip, outcome in zip(clips, made, strict=True)
    ]


def _token_parts(encoded: Encoded, bits: float, row: int) -> tuple[dict, dict]:
    frames = int(encoded.frames[row])
    arrays = {"codes": encoded.codes[row, :, :frames].cpu().numpy().astype(np.int32)}
    arrays |= {f"side.{name}": values[row].cpu().numpy() for name, values in encoded.side.items()}
    return {"frames": frames, "bits": bits}, arrays


def tokens_are_stored(entry: Entry) -> bool:
    """Whether a codec's sound is made from its stored tokens: it encodes and decodes, and has no other way."""
    return {"encode", "decode"} <= set(entry.info.capabilities) and not registry.reconstructs_itself(entry)


def sound(store: Store, job: Job, clips: Sequence[Clip]) -> list[Outcome]:
    """Reconstruct: array `wav`; facts sample_rate, samples (as given), over_range (beyond [-1, 1]) and bits."""
    if tokens_are_stored(job.entry) or (job.steps and isinstance(job.steps[-1], Lost)):
        made_of = store.outcomes(tokens_job(job.entry, job.seed, job.steps), clips)
        return [_decode(store, job, outcome) for outcome in made_of]

    def reconstruct(wav: Any, lengths: Any) -> list[tuple[dict, dict]]:
        decoded, bits = calls.reconstruct(store.adapter(job.entry), job.entry.info, wav, lengths, job.seed)
        spent = [None] * len(wav) if bits is None else [float(value) for value in bits]
        rows = zip(decoded.cpu().numpy(), spent, strict=True)
        return [({"bits": cost}, {"wav": array}) for array, cost in rows]

    made = encode_batches(store, job.entry, clips, reconstruct, "sound", source(store, job, clips))
    return [_checked_sound(job, outcome, outcome.arrays["wav"]) if not outcome.error else outcome for outcome in made]


def _decode(store: Store, job: Job, tokens: Outcome) -> Outcome:
    """The sound of one clip's stored tokens."""
    if tokens.error:
        return tokens
    import torch

    info = job.entry.info
    like = torch.empty(1, info.channels, int(tokens.facts["samples"]), device=store.device)
    try:
        encoded = encoded_of(tokens, store.device)
        decoded = calls.decode(store.adapter(job.entry), info, encoded, like, job.seed)
        return _checked_sound(job, tokens, decoded[0].cpu().numpy())
    except calls.CodecError as error:
        return Outcome(tokens.clip, error=str(error))


def encoded_of(tokens: Outcome, device: str) -> Encoded:
    """The stored tokens of a clip as its decoder takes them, a batch of one."""
    import torch

    tensors = {name: torch.from_numpy(array).to(device)[None] for name, array in tokens.arrays.items()}
    side = {name.removeprefix("side."): value for name, value in tensors.items() if name.startswith("side.")}
    return Encoded(tensors["codes"].long(), torch.tensor([tokens.facts["frames"]], device=device), side)


def _checked_sound(job: Job, made: Outcome, wav: np.ndarray) -> Outcome:
    """The sound without what the codec added at the end. What it took away beyond MISSING_S is its failure."""
    length, rate = int(made.facts["samples"]), made.facts["sample_rate"]
    if wav.shape[1] < length - MISSING_S * rate:
        return Outcome(
            made.clip,
            error=f"codec failed: {job.entry.name}: returned {wav.shape[1]} samples for {length}; "
            f"expected at least as many as it was given",
        )
    wav = np.ascontiguousarray(wav[:, :length])
    over_range = int((np.abs(wav) > 1).sum())
    facts = {"sample_rate": rate, "samples": length, "over_range": over_range, "bits": made.facts.get("bits")}
    return Outcome(made.clip, facts, {"wav": wav})


def latents(store: Store, job: Job, clips: Sequence[Clip]) -> list[Outcome]:
    """Embed: array `latents` [D, T] of the kind that `job.detail` names, over the clip's own frames."""

    def embed(wav: Any, lengths: Any) -> list[tuple[dict, dict]]:
        found, frames = calls.latents(store.adapter(job.entry), job.entry.info, wav, lengths, job.detail, job.seed)
        return [
            ({"frames": int(count)}, {"latents": _halved(array[:, : int(count)].cpu().numpy())})
            for array, count in zip(found, frames, strict=True)
        ]

    return encode_batches(store, job.entry, clips, embed, "latents", source(store, job, clips))


def _halved(array: np.ndarray) -> np.ndarray:
    """As float16, half the disk; as it is where a value would overflow."""
    return array.astype(np.float16) if np.abs(array).max(initial=0.0) < _FLOAT16_MAX else array


def source(store: Store, job: Job, clips: Sequence[Clip]) -> Callable[[Clip], Audio]:
    """What the codec is given of each clip: the recording, or its own last reconstruction, and the steps after that.

    The function raises AudioError where a clip cannot be had.
    """
    info, after = job.entry.info, job.steps
    before = dict[str, Outcome]()
    if Round() in job.steps:
        rounds = len(job.steps) - job.steps[::-1].index(Round())
        earlier, after = job.steps[: rounds - 1], job.steps[rounds:]
        found = store.outcomes(sound_job(job.entry, job.seed, earlier), clips)
        before = {outcome.clip: outcome for outcome in found}

    def read(clip: Clip) -> Audio:
        how = info.sample_rate, info.channels
        given = _again(before[clip.sha256]) if before else store.ahead.take(prepare, clip, *how)
        for step in after:
            assert not isinstance(step, Lost | Round), "tokens are lost last, and a round is made by the store"
            given = given._replace(wav=np.ascontiguousarray(step(given.wav, given.sample_rate, clip)))
        return given

    return read


def begin_reading(store: Store, job: Job, path: Path, clips: Sequence[Clip]) -> None:
    """Begin to read what a shard of a job lacks, where an accelerator makes it of recordings and would wait for them.

    The CPU has its hands full: there, clips are read ahead within a shard alone.
    """
    of_recordings = job.maker.startswith(f"{__name__}:") and not any(
        isinstance(step, Round | Lost) for step in job.steps
    )
    if of_recordings and store.device.startswith("cuda") and (lacking := store.lacking(path, clips)):
        store.ahead.begin(prepare, lacking, job.entry.info.sample_rate, job.entry.info.channels)


def _again(sound: Outcome) -> Audio:
    if sound.error:
        raise audio.AudioError(sound.error)
    return Audio(sound.arrays["wav"], int(sound.facts["sample_rate"]))


def prepare(clip: Clip, sample_rate: int | None, channels: int) -> Audio:
    """A clip as a codec is given it: float32 [C, L] with its channels and rate (None: the clip's own), and the rate."""
    wav, clip_rate = audio.read_clip(clip)
    rate = sample_rate or clip_rate
    return Audio(audio.resample(audio.to_channels(wav, channels), clip_rate, rate), rate)
