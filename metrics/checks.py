"""What every pair must satisfy before any metric looks at it, and the forms in which the metrics take it.

Works on numpy arrays and torch tensors alike; importing it costs no torch.
"""

from __future__ import annotations

import functools
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Array: TypeAlias = "np.ndarray | Tensor"
Kept = TypeVar("Kept")


class MetricError(ValueError):
    """A pair that this metric cannot score; the message says why. Such a clip is counted as failed, never averaged."""


def check_pair(reference: Array, estimate: Array) -> None:
    """Raise unless reference and estimate [..., L] can be compared.

    A mistake of the caller (shapes differ, not floats of 32 or 64 bits) is a ValueError; a clip without an answer
    (empty, NaN or infinite, silent reference) is a MetricError that says which clip of the batch.
    """
    if tuple(reference.shape) != tuple(estimate.shape):
        raise ValueError(
            f"reference {tuple(reference.shape)} and estimate {tuple(estimate.shape)} differ in shape; "
            "trim both to the shorter one first"
        )
    for name, wav in (("reference", reference), ("estimate", estimate)):
        if str(wav.dtype).removeprefix("torch.") not in ("float32", "float64"):
            raise ValueError(
                f"{name} is {wav.dtype}; expected floats of 32 or 64 bits in [-1, 1] (divide int16 by 32768)"
            )
        if 0 in wav.shape:
            raise MetricError(f"{name} is empty: shape {tuple(wav.shape)}")
        magnitude: Any = abs(wav)
        require((magnitude < float("inf")).all(-1), f"{name} holds NaN or infinite samples")
    require((reference != 0).any(-1), "reference is silent, so there is nothing to compare with")


def require(ok: Any, message: str) -> None:
    """Raise MetricError, naming the first clip whose flag in ok (bool [...]) is False."""
    flags = ok.reshape(-1).tolist()
    if not all(flags):
        raise MetricError(f"clip {flags.index(False)}: {message}")


def float64_pair(reference: Array, estimate: Array) -> tuple[Tensor, Tensor]:
    """The checked pair as float64 tensors, each on the device where it already is."""
    check_pair(reference, estimate)
    return _float64_tensor(reference), _float64_tensor(estimate)


def to_numpy(array: Array) -> np.ndarray:
    """The same values as a numpy array, wherever they are."""
    return array if isinstance(array, np.ndarray) else array.detach().cpu().numpy()


def clip_by_clip(score: Callable[..., float], reference: Array, estimate: Array) -> np.ndarray:
    """`score(reference [L], estimate [L])` of each clip of checked [..., L] as float64; an error names the clip."""
    check_pair(reference, estimate)
    values = []
    for index, pair in enumerate(zip(rows(reference), rows(estimate), strict=True)):
        try:
            values.append(score(*pair))
        except MetricError as error:
            raise MetricError(f"clip {index}: {error}") from error
    return np.array(values, dtype=np.float64).reshape(tuple(reference.shape[:-1]))


def remembered(clips: int) -> Callable[[Callable[[np.ndarray], Kept]], Callable[[np.ndarray], Kept]]:
    """Keep what a function makes of a wave [L] for so many clips, by the digest of the wave.

    Several metrics look at one analysis of a clip, and many codecs are compared with one recording.
    """

    def keep(function: Callable[[np.ndarray], Kept]) -> Callable[[np.ndarray], Kept]:
        kept: OrderedDict[bytes, Kept] = OrderedDict()

        @functools.wraps(function)
        def call(wav: np.ndarray) -> Kept:
            key = hashlib.blake2b(wav.tobytes(), digest_size=16).digest()
            if key not in kept:
                kept[key] = function(wav)
                while len(kept) > clips:
                    kept.popitem(last=False)
            return kept[key]

        return call

    return keep


def rows(wav: Array) -> np.ndarray:
    """The clips of [..., L] as float64 [N, L], contiguous, on the CPU."""
    return np.ascontiguousarray(to_numpy(wav).reshape(-1, wav.shape[-1]), dtype=np.float64)


def _float64_tensor(wav: Array) -> Tensor:
    import torch

    # a copy: torch refuses reversed arrays and warns of read-only ones
    return torch.from_numpy(np.array(wav, np.float64, order="C")) if isinstance(wav, np.ndarray) else wav.double()
