"""The calls through which everything reaches an adapter: shapes checked, no gradients, one clear error.

An adapter is somebody's code. What it raises, and what it returns in the wrong shape, becomes a `CodecError` that
names the codec and says what was expected; the caller counts the clip as failed and goes on.
"""

from __future__ import annotations

import math
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from earmark.codecs import registry
from earmark.codecs.contract import Encoded, Info

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor


class CodecError(RuntimeError):
    """A codec raised, or returned what the contract does not allow."""


class NoMemoryError(CodecError):
    """The device has not enough memory for a call: the machine's limit, and not the codec's fault."""


def load(entry: registry.Entry, device: str) -> Any:
    """The codec, built on a device, with full precision.

    Raises CodecError that names the codec where it cannot be built; NoMemoryError where the device has no room for it.
    """
    full_precision(device)
    try:
        adapter = registry.load(entry, device)
    except Exception as error:
        import torch

        why = f"{entry.name}: cannot be loaded: {type(error).__name__}: {error}{where(error)}"
        if isinstance(error, torch.OutOfMemoryError):
            raise NoMemoryError(f"infrastructure fault: {why}") from error
        # a class without such an __init__ is a common first mistake
        built_as = "; it is built as Class(info, device)" if isinstance(error, TypeError) else ""
        raise CodecError(f"codec failed: {why}{built_as}") from error
    full_precision(device)  # again: some packages allow TF32 as they are imported
    return adapter


def reconstruct(adapter: Any, info: Info, wav: Tensor, lengths: Tensor, seed: int) -> tuple[Tensor, Tensor | None]:
    """Encode and decode wav [B, C, L]: the decoded wav [B, C, L'] and the bits [B] spent (None where not known).

    A codec without a `reconstruct` of its own is encoded and decoded, and its tokens are counted at log2 V_k bits each.
    """
    check_finite(info, wav, lengths)
    if hasattr(adapter, "reconstruct"):
        made = _guarded(info, "reconstruct", adapter.reconstruct, wav, lengths, seed)
        if not isinstance(made, tuple) or len(made) != 2:
            raise CodecError(
                f"codec failed: {info.name}: reconstruct returned {type(made).__name__}, "
                f"expected a pair (wav, bits or None)"
            )
        decoded, bits = made
    else:
        encoded = encode(adapter, info, wav, lengths, seed)
        decoded, bits = _guarded(info, "decode", adapter.decode, encoded, seed), nominal_bits(info, encoded)
    _per_clip(info, "bits", bits, len(wav))
    return _covered(info, check_wav(info, decoded, wav)), bits


def encode(adapter: Any, info: Info, wav: Tensor, lengths: Tensor, seed: int) -> Encoded:
    """The tokens of wav [B, C, L], checked against `Info`: dtype, K, and every code in [0, V_k) or -1."""
    check_finite(info, wav, lengths)
    encoded = _guarded(info, "encode", adapter.encode, wav, lengths, seed)
    check_codes(info, encoded, len(wav))
    return encoded


def decode(adapter: Any, info: Info, encoded: Encoded, like: Tensor, seed: int) -> Tensor:
    """The sound of the tokens [B, C, L'], checked against the wav [B, C, L] that they came from."""
    return _covered(info, check_wav(info, _guarded(info, "decode", adapter.decode, encoded, seed), like))


def latents(adapter: Any, info: Info, wav: Tensor, lengths: Tensor, kind: str, seed: int) -> tuple[Tensor, Tensor]:
    """Latents [B, D, T] of one kind and the true frames [B], checked: float, finite, a frame count for each clip."""
    import torch

    check_finite(info, wav, lengths)
    made = _guarded(info, "latents", adapter.latents, wav, lengths, kind, seed)
    if not isinstance(made, tuple) or len(made) != 2 or not all(isinstance(part, torch.Tensor) for part in made):
        raise CodecError(
            f"codec failed: {info.name}: latents returned {_kinds(made)}, expected a pair of tensors "
            f"(latents [{len(wav)}, D, T], frames [{len(wav)}])"
        )
    found, frames = made
    if found.ndim != 3 or len(found) != len(wav) or frames.shape != (len(wav),) or frames.is_floating_point():
        raise CodecError(
            f"codec failed: {info.name}: latents {kind!r} must be [{len(wav)}, D, T] and frames int64 [{len(wav)}], "
            f"and are {list(found.shape)} and {frames.dtype} {list(frames.shape)}"
        )
    if not bool(torch.isfinite(found).all()):
        raise CodecError(f"codec failed: {info.name}: latents {kind!r} hold NaN or infinity")
    if bool(((frames < 1) | (frames > found.shape[2])).any()):
        raise CodecError(
            f"codec failed: {info.name}: frames of latents {kind!r} are {frames.tolist()}, expected 1 to "
            f"T = {found.shape[2]} of each clip"
        )
    return found.float(), frames


def _kinds(made: Any) -> str:
    """What was returned, in words: its type, or those of a tuple's parts."""
    return f"({', '.join(type(part).__name__ for part in made)})" if isinstance(made, tuple) else type(made).__name__


class Part(NamedTuple):
    """What a stream gave for a chunk, or after the last: codes [1, K, t] and sound [1, C, n], None where nothing.

    given  samples of the clip that it had been given by then.
    """

    codes: Tensor | None
    sound: Tensor | None
    given: int


def chunk_samples(adapter: Any, info: Info, rate: int) -> int:
    """Samples a chunk of a stream at `rate` Hz: the adapter's `chunk_samples`, else a frame (`contract.Streams`)."""
    frame_rate = info.frame_rate or 50
    return getattr(adapter, "chunk_samples", None) or round(rate * math.ceil(frame_rate / 100) / frame_rate)


def stream(adapter: Any, info: Info, wav: Tensor, size: int, seed: int) -> Iterator[Part]:
    """What becomes of wav [1, C, L] when it comes in chunks of `size` samples, part by part, each part checked.

    Raises CodecError too where chunks are taken ahead: a live sound would wait for the next to hear of the last.
    """
    import torch

    chunks, taken, end = -(-wav.shape[-1] // size), 0, object()

    def feed() -> Iterator[Tensor]:
        nonlocal taken
        for start in range(0, wav.shape[-1], size):
            taken, chunk = taken + 1, wav[..., start : start + size]
            check_finite(info, chunk, torch.tensor([chunk.shape[-1]]))
            yield chunk.clone()

    parts, yielded = _guarded(info, "stream", lambda: iter(adapter.stream(feed(), seed))), 0
    while (part := _guarded(info, "stream", next, parts, end)) is not end:
        yielded += 1
        if taken != min(yielded, chunks):
            raise CodecError(
                f"codec failed: {info.name}: stream took {taken} chunks and yielded {yielded} times, expected one pair "
                f"(codes, wav) for each chunk before the next is taken; None where there is nothing yet"
            )
        yield Part(*_checked(info, part, wav), min(taken * size, wav.shape[-1]))
    if yielded < chunks:
        raise CodecError(f"codec failed: {info.name}: stream ended after {yielded} of {chunks} chunks")


def stream_delay(parts: Iterable[Part]) -> int:
    """Samples that a stream had been given, at most, before it gave a sample of sound, counted from that sample on."""
    delay = told = 0
    for part in parts:
        if part.sound is not None and part.sound.shape[-1]:
            delay, told = max(delay, part.given - told), told + part.sound.shape[-1]
    return delay


def _checked(info: Info, part: Any, wav: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The codes and the sound that a stream yielded, or CodecError where the contract does not allow them."""
    import torch

    if not isinstance(part, tuple) or len(part) != 2:
        raise CodecError(
            f"codec failed: {info.name}: stream yielded {type(part).__name__}, "
            f"expected a pair (codes or None, wav or None)"
        )
    codes, sound = part
    if codes is not None:
        frames = codes.shape[-1] if isinstance(codes, torch.Tensor) and codes.ndim else 0
        check_codes(info, Encoded(codes, torch.tensor([frames])), len(wav))
    return codes, sound if sound is None else check_wav(info, sound, wav)


def nominal_bits(info: Info, encoded: Encoded) -> Tensor:
    """Bits [B] of the tokens that are there, at log2 V_k each, plus the side information."""
    import torch

    cost = torch.tensor([math.log2(size) for size in info.codebook_sizes], dtype=torch.float64)
    frames = torch.arange(encoded.codes.shape[2], device=encoded.codes.device)
    own = frames[None, None] < encoded.frames.to(frames.device)[:, None, None]  # beyond a clip nothing is paid for
    tokens = ((encoded.codes >= 0) & own).sum(dim=2).to("cpu", torch.float64)
    bits = tokens @ cost
    return bits if encoded.side_bits is None else bits + encoded.side_bits.to("cpu", torch.float64)


def check_finite(info: Info, wav: Tensor, lengths: Tensor) -> None:
    """Raise CodecError where a clip holds NaN or infinity: most networks would code it, and the codes look valid.

    What lies beyond a clip's length is not looked at; it must not matter.
    """
    import torch

    clips = zip(wav, lengths.tolist(), strict=True)
    if not all(bool(torch.isfinite(clip[:, :length]).all()) for clip, length in clips):
        raise CodecError(f"codec failed: {info.name}: given NaN or infinite samples, expected finite ones in [-1, 1]")


def check_codes(info: Info, encoded: Encoded, batch: int) -> None:
    """Raise CodecError unless codes are int64 [B, K, T] within their codebooks and frames int64 [B]."""
    import torch

    if not isinstance(encoded, Encoded):
        raise CodecError(
            f"codec failed: {info.name}: encode returned {type(encoded).__name__}, "
            f"expected earmark.Encoded(codes, frames)"
        )
    codes = encoded.codes
    if not isinstance(codes, torch.Tensor):
        raise CodecError(f"codec failed: {info.name}: codes are {type(codes).__name__}, expected a tensor")
    if codes.dtype != torch.int64 or codes.ndim != 3 or codes.shape[:2] != (batch, info.num_codebooks):
        raise CodecError(
            f"codec failed: {info.name}: codes are {codes.dtype} {list(codes.shape)}, "
            f"expected int64 [{batch}, {info.num_codebooks}, T]"
        )
    sizes = torch.tensor(info.codebook_sizes, device=codes.device)[None, :, None]
    if bool(((codes < -1) | (codes >= sizes)).any()):
        raise CodecError(
            f"codec failed: {info.name}: codes run from {int(codes.min())} to {int(codes.max())}, "
            f"expected 0 to V-1 with V = {info.codebook_sizes}, or -1 for no token"
        )
    frames = encoded.frames
    if not isinstance(frames, torch.Tensor) or tuple(frames.shape) != (batch,) or frames.is_floating_point():
        got = f"{frames.dtype} {list(frames.shape)}" if isinstance(frames, torch.Tensor) else type(frames).__name__
        raise CodecError(f"codec failed: {info.name}: frames are {got}, expected a tensor int64 [{batch}]")
    _per_clip(info, "side_bits", encoded.side_bits, batch)
    for name, values in encoded.side.items():
        if not isinstance(values, torch.Tensor):
            got = type(values).__name__
            raise CodecError(f"codec failed: {info.name}: side information {name!r} is {got}, expected a tensor")
    if bool(((frames < 0) | (frames > codes.shape[2])).any()):
        raise CodecError(
            f"codec failed: {info.name}: frames are {frames.tolist()}, expected 0 to T = {codes.shape[2]} of the codes"
        )


def _per_clip(info: Info, what: str, bits: Any, batch: int) -> None:
    """Raise CodecError unless bits are none, or a number of each clip."""
    import torch

    if bits is not None and (not isinstance(bits, torch.Tensor) or tuple(bits.shape) != (batch,)):
        got = list(bits.shape) if isinstance(bits, torch.Tensor) else type(bits).__name__
        raise CodecError(f"codec failed: {info.name}: {what} are {got}, expected a tensor [{batch}] or None")


def _covered(info: Info, sound: Tensor) -> Tensor:
    """The sound of whole clips, or CodecError where there is none; a part of a stream may be empty."""
    if not sound.shape[2]:
        raise CodecError(f"codec failed: {info.name}: returned no samples, expected as many as it was given, or more")
    return sound


def check_wav(info: Info, decoded: Any, wav: Tensor) -> Tensor:
    """The decoded wav, or CodecError unless it is finite float32 [B, C, L'] with the batch and channels of `wav`."""
    import torch

    if not isinstance(decoded, torch.Tensor) or decoded.ndim != 3 or decoded.shape[:2] != wav.shape[:2]:
        got = list(decoded.shape) if isinstance(decoded, torch.Tensor) else type(decoded).__name__
        raise CodecError(
            f"codec failed: {info.name}: returned {got} for a wav of {list(wav.shape)}, "
            f"expected [{wav.shape[0]}, {wav.shape[1]}, L']"
        )
    if decoded.dtype != torch.float32:
        raise CodecError(f"codec failed: {info.name}: returned {decoded.dtype}, expected torch.float32")
    if not bool(torch.isfinite(decoded).all()):
        raise CodecError(f"codec failed: {info.name}: returned NaN or infinite samples")
    return decoded


def _guarded(info: Info, what: str, call: Any, *args: Any) -> Any:
    """Call an adapter without gradients; anything that it raises is named as the codec's failure."""
    import torch

    try:
        with torch.inference_mode():
            return call(*args)
    except CodecError:  # said already, of a chunk
        raise
    except torch.OutOfMemoryError as error:
        why = str(error).partition("\n")[0]
        raise NoMemoryError(f"infrastructure fault: {info.name}: out of memory in {what}: {why}") from error
    except Exception as error:
        why = f"{what} raised {type(error).__name__}: {error}{where(error)}"
        raise CodecError(f"codec failed: {info.name}: {why}") from error


def where(error: BaseException) -> str:
    """The line of the codec's own code that raised, for the end of a message: the innermost that is neither of an
    installed package nor of the standard library. Nothing where there is none, as where the call itself was wrong."""
    foreign = (__file__, registry.__file__, sysconfig.get_path("stdlib"))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if not frame.filename.startswith(foreign) and "site-packages" not in path.parts and path.is_file():
            return f" ({'/'.join(path.parts[-2:])}:{frame.lineno})"
    return ""


def full_precision(device: str) -> None:
    """Float32 on CUDA as on the CPU, for the whole process: TF32 flips codes, and a token is right or wrong.

    For the same reason cuDNN keeps to the algorithms that give the same bits every time, and tries none out by its
    clock.
    """
    if device.startswith("cuda"):
        import torch

        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False


def device_is_lost() -> bool:
    """Whether CUDA takes no more work from this process: a bad index or address in a kernel ends its context, and from
    then on every call of every codec raises that one's error.
    """
    torch = sys.modules.get("torch")  # a process that never imported it never asked a device for anything
    if torch is None or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False
