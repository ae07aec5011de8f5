"""Tokens: in their codebooks, all there, as dear as declared, and the first K of more."""

from __future__ import annotations

from typing import Any

import numpy as np

from earmark.codecs import calls, registry
from earmark.codecs.registry import Entry
from earmark.contract.subject import SEED, Subject
from earmark.contract.verdict import Broken, NotAsked, asked


@asked("A token beyond its codebook has no embedding, and one that is missing shifts a flattened sequence.", "encode")
def codes(subject: Subject) -> None:
    """Codes lie in their codebooks, and each codebook has all the tokens that its stride promises."""
    made = subject.of(subject.speech(4 * subject.rate))["codes"]
    strides = subject.info.strides or (1,) * subject.info.num_codebooks
    for book, (row, stride) in enumerate(zip(made, strides, strict=True)):
        wanted, there = len(row) / stride, int((row >= 0).sum())
        if abs(there - wanted) > (0 if stride == 1 else 1):
            raise Broken(f"{wanted:g} tokens of codebook {book} in {len(row)} frames", f"{there}, the others are -1")


@asked("Codecs are compared at equal bitrate: one that spends more than it says wins unjustly.")
def bitrate_is_declared(subject: Subject) -> None:
    """The bits that are spent, side information included, are those that codebooks and frame rate promise."""
    made = subject.of(subject.speech(4 * subject.rate))
    declared = subject.info.bitrate_kbps
    if "bits" in made:
        subject.measured["bitrate_kbps"] = float(made["bits"]) / 4000
    if declared is None or "bits" not in made:
        raise NotAsked("it declares no codebooks")
    if abs(float(made["bits"]) / 4000 - declared) > 0.05 * declared:
        raise Broken(f"{declared:.3g} kbit/s, within 5 %", f"{float(made['bits']) / 4000:.3g}")


@asked("Models train on the first K codebooks and count on them meaning the same at any K.", "encode")
def fewer_codebooks(subject: Subject) -> None:
    """Where the codec is declared nested, lowering K gives a prefix of the codes."""
    import torch

    if not subject.info.nested or subject.info.num_codebooks < 2:
        raise NotAsked("it is not declared nested, or has one codebook")
    clip = subject.speech(12 * subject.hop + 5)
    full = subject.of(clip)["codes"]
    smaller = _with_fewer(subject)
    adapter = _built(subject, smaller)
    wav, lengths = torch.from_numpy(clip[None]).to(subject.device), torch.tensor([clip.shape[1]], device=subject.device)
    part = calls.encode(adapter, smaller.info, wav, lengths, SEED).codes[0].cpu().numpy()
    count = smaller.info.num_codebooks
    if not np.array_equal(part, full[:count, : part.shape[1]]) or part.shape[1] < full.shape[1]:
        wrong = int((part[:, : full.shape[1]] != full[:count, : part.shape[1]]).sum()) if part.size else 0
        raise Broken(f"with {count} codebooks the first {count} of {len(full)}", f"{wrong} other codes of {part.size}")


def _with_fewer(subject: Subject) -> Entry:
    """The same codec with fewer codebooks: the catalogue's next smaller one, else one with half of them."""
    entry, info = subject.entry, subject.info
    alike = [
        other for other in registry.catalogue().values()
        if (other.family, other.adapter, other.checkpoint) == (entry.family, entry.adapter, entry.checkpoint)
        and other.info.sample_rate == info.sample_rate and other.info.num_codebooks in range(1, info.num_codebooks)
    ]  # fmt: skip
    if alike:
        return max(alike, key=lambda other: other.info.num_codebooks)
    half = info.num_codebooks // 2
    fewer = {"codebook_sizes": info.codebook_sizes[:half], "strides": info.strides[:half]}
    return entry.model_copy(update={"info": info.model_copy(update=fewer)})


def _built(subject: Subject, entry: Entry) -> Any:
    """The smaller codec. A user's class that is declared nested must take an Info with fewer codebooks."""
    try:
        return registry.load(entry, subject.device)
    except Exception as error:
        if not subject.entry.own:
            raise NotAsked(f"the catalogue has no smaller one: {error}") from error
        raise Broken(f"a class that can be built with {entry.info.num_codebooks} codebooks", str(error)) from error
