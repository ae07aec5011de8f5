"""Half precision, and another device: the same codec, within what rounding explains."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from earmark.codecs import calls, registry
from earmark.codecs.contract import Encoded
from earmark.contract.subject import SEED, Made, Subject, array
from earmark.contract.verdict import Broken, NotAsked, asked

HALF = 0.1  # relative error (RMS) of latents, and of sound from the same tokens, in float16
ELSEWHERE = 1e-3  # the same, on another device in float32
TOKENS = 0.95  # share of equal tokens of the first codebook on another device: near-ties may fall otherwise


def autocasts(device: str) -> bool:
    """Whether half precision is tried on a device: only where people run it. On a CPU it is slower than float32."""
    return device.startswith("cuda")


def peer_of(device: str) -> str | None:
    """The device to compare with: the CPU, for a CUDA device; None for the CPU itself."""
    return "cpu" if device.startswith("cuda") else None


@asked("Models are trained and served in half precision; an overflow there is a NaN in the middle of a run.")
def half_precision(subject: Subject) -> None:
    """Under float16 autocast, latents, and the sound of the same tokens, stay within 10 % of float32."""
    import torch

    if not autocasts(subject.device):
        raise NotAsked(f"half precision is tried on CUDA, not on {subject.device}")
    clip = subject.speech(20 * subject.hop)
    exact, encoded = _numbers(subject, subject.adapter(), subject.device, clip)
    with torch.autocast(subject.device.partition(":")[0], dtype=torch.float16):
        half, _ = _numbers(subject, _InFloat32(subject.adapter()), subject.device, clip, encoded)
    subject.say("speech-like sound under float16 autocast", [clip.shape[1]])
    if "codes" in exact:
        subject.measured["half_equal_codes"] = _share(exact["codes"], half["codes"])
    _close(exact, half, HALF)


@asked("Tokens made on a GPU are decoded on other machines, and a corpus is encoded on more than one kind.")
def devices_agree(subject: Subject) -> None:
    """The CPU gives what the GPU gives: tokens but for near-ties, sound of the same tokens and latents within 0.1 %."""
    peer = peer_of(subject.device)
    if peer is None:
        raise NotAsked(f"a CUDA device is needed to compare with, and this run is on {subject.device}")
    clip = subject.speech(20 * subject.hop)
    here, encoded = _numbers(subject, subject.adapter(), subject.device, clip)
    there, _ = _numbers(subject, registry.load(subject.entry, peer), peer, clip, encoded)
    subject.say(f"speech-like sound on {peer}, compared with {subject.device}", [clip.shape[1]])
    if "codes" in here:
        share = subject.measured["peer_equal_codes"] = _share(here["codes"], there["codes"])
        if share < TOKENS:
            raise Broken(f"at least {TOKENS:.0%} of the first codebook's tokens equal", f"{share:.1%}")
    _close(here, there, ELSEWHERE)


def _numbers(
    subject: Subject, adapter: Any, device: str, clip: np.ndarray, encoded: Encoded | None = None
) -> tuple[Made, Encoded | None]:
    """Codes, sound (of the tokens `encoded` where they are given) and latents of a clip, and its tokens."""
    import torch

    subject.say("speech-like sound", [clip.shape[1]])
    info, wav = subject.info, torch.from_numpy(clip[None]).to(device)
    lengths, made = torch.tensor([clip.shape[1]], device=device), {}
    if subject.can("encode"):
        own = calls.encode(adapter, info, wav, lengths, SEED)
        made["codes"], encoded = array(own.codes[0]), _on(device, encoded or own)
    if encoded is not None and subject.can("decode"):
        made["sound"] = array(calls.decode(adapter, info, encoded, wav, SEED)[0])
    elif subject.can("reconstruct"):
        made["sound"] = array(calls.reconstruct(adapter, info, wav, lengths, SEED)[0][0])
    for kind in subject.kinds:
        made[f"latents {kind}"] = array(calls.latents(adapter, info, wav, lengths, kind, SEED)[0][0])
    return made, encoded


def _on(device: str, encoded: Encoded) -> Encoded:
    """Tokens on a device."""
    side = {name: values.to(device) for name, values in encoded.side.items()}
    return dataclasses.replace(encoded, codes=encoded.codes.to(device), frames=encoded.frames.to(device), side=side)


class _InFloat32:
    """An adapter whose sound and latents are turned to float32: under autocast they come in half precision."""

    def __init__(self, adapter: Any) -> None:
        self._adapter = adapter

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._adapter, name)
        return _turned(found) if callable(found) else found


def _turned(call: Callable[..., Any]) -> Callable[..., Any]:
    def to_float32(*args: Any) -> Any:
        found = call(*args)
        if isinstance(found, tuple):
            return found[0].float(), *found[1:]
        return found if isinstance(found, Encoded) else found.float()

    return to_float32


def _share(wanted: np.ndarray, came: np.ndarray) -> float:
    """Share of equal tokens of the first codebook [K, T]; 0 where the frames are not as many."""
    return float(np.mean(wanted[0] == came[0])) if wanted.shape == came.shape else 0.0


def _close(wanted: Made, came: Made, most: float) -> None:
    """Raise Broken where sound or latents differ by more than a part of their own size (RMS)."""
    for what in (what for what in wanted if what != "codes"):
        if wanted[what].shape != came[what].shape:
            raise Broken(f"{what} {list(wanted[what].shape)}", f"{list(came[what].shape)}")
        apart = np.sqrt(np.mean(np.square(came[what] - wanted[what]))) / (np.sqrt(np.mean(wanted[what] ** 2)) + 1e-6)
        if not apart <= most:
            raise Broken(f"{what} within {most:.1%}", f"{apart:.3g} times its size apart")
