"""How fast a codec is, and what it takes: what is timed, the kernel that speeds are compared with, memory, size.

Seconds say how fast this machine is as much as how fast the codec is. So beside each real-time factor there is the same
time in units of a calibration kernel, fixed work that is measured in the same run: a threshold on that holds on a
slower machine too.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from earmark.codecs import calls
from earmark.codecs.registry import Entry
from earmark.data.cards import Card, Dataset, Source
from earmark.scoring.found import Found

if TYPE_CHECKING:
    from torch import Tensor, nn

    from earmark.store.store import Store

What = Literal["encode", "decode", "both"]
SYNTHETIC = "synthetic"  # the dataset that scores of speed are under: sound that is made, see `sound`
SECONDS = 5.0  # of sound that a timed call is given
ROUNDS = 5
BATCHES = (1, 2, 4, 8, 16, 32, 64)  # tried for the best batch, until one is no faster a clip
SIZED = ("quantized", "unquantized")  # kinds of latents whose size is told; a layer's is that of its network
LENGTHS = (4.0, 12.0)  # seconds of sound that frames are counted of
KERNEL_SIZE = 384  # of the calibration kernel's matrices
KERNEL_STEPS = 8
DEFAULT_HZ = 24_000


SOUND = Dataset(
    Card(
        name=SYNTHETIC, title="noise with the envelope of speech", version=1, domain="general", licence="CC0-1.0",
        uses=(), source=Source(folder="sampler", dataset=SYNTHETIC),
    ),
    clips=(), limit=None, fingerprint=f"noise-{SECONDS:g}s",
)  # fmt: skip


def sound(entry: Entry, seconds: float, batch: int, device: str) -> tuple[Tensor, Tensor]:
    """Speech-like noise [B, C, L] at the codec's rate, seeded, and its lengths: speed needs no recording."""
    import torch

    rate, channels = entry.info.sample_rate or DEFAULT_HZ, entry.info.channels
    samples = max(1, round(seconds * rate))
    envelope = 0.1 + 0.1 * np.sin(2 * np.pi * 4 * np.arange(samples) / rate)  # four syllables a second
    noise = np.random.default_rng(0).standard_normal((batch, channels, samples)) * envelope
    wav = torch.from_numpy(noise.clip(-1, 1).astype(np.float32)).to(device)
    return wav, torch.full((batch,), samples, device=device)


def timed(entry: Entry, store: Store, what: What, batch: int = 1, seconds: float = SECONDS) -> Callable[[], None]:
    """A call to time: it returns when the device has done its work. Decoding is given what encoding made, outside."""
    adapter, (wav, lengths) = store.adapter(entry), sound(entry, seconds, batch, store.device)
    wait = waits(store.device)
    if what == "encode":
        return lambda: wait(calls.encode(adapter, entry.info, wav, lengths, 0))
    if what == "decode":
        encoded = calls.encode(adapter, entry.info, wav, lengths, 0)
        return lambda: wait(calls.decode(adapter, entry.info, encoded, wav, 0))
    return lambda: wait(calls.reconstruct(adapter, entry.info, wav, lengths, 0))


def kernel(device: str) -> Callable[[], None]:
    """The calibration kernel: matrix products, a Fourier transform and a non-linearity, as codecs are made of."""
    import torch

    matrix = torch.linspace(-1, 1, KERNEL_SIZE**2, device=device).reshape(KERNEL_SIZE, KERNEL_SIZE) / KERNEL_SIZE
    wait = waits(device)

    def work() -> None:
        product = matrix
        for _ in range(KERNEL_STEPS):
            product = torch.tanh(product @ matrix + torch.fft.irfft(torch.fft.rfft(matrix), n=KERNEL_SIZE))
        wait(product)

    return work


def waits(device: str) -> Callable[[Any], None]:
    """What ends a timed call: nothing on the CPU, the end of all queued work on CUDA."""
    import torch

    return (lambda _: torch.cuda.synchronize(device)) if device.startswith("cuda") else (lambda _: None)


def of_rounds(seconds: Sequence[float], scale: float = 1.0, notes: Sequence[str] = ()) -> Found:
    """The median of rounds times `scale`, with the fastest and the slowest as its interval: rounds are no sample.

    One measurement has no interval.
    """
    values = scale * np.asarray(seconds, dtype=np.float64)
    if len(values) == 1:
        return Found(float(values[0]), math.nan, math.nan, "none: one measurement", 1, notes=notes)
    method = "fastest and slowest round"
    return Found(float(np.median(values)), float(values.min()), float(values.max()), method, len(values), notes=notes)


def exact(value: float, notes: Sequence[str] = ()) -> Found:
    """A number that is counted, not sampled."""
    return Found(float(value), float(value), float(value), "exact: counted", 1, notes=notes)


def seconds_of(call: Callable[[], None], rounds: int = 3) -> float:
    """The median seconds of a call, after one that is not counted."""
    call()
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return float(np.median(found))


def best_batch(entry: Entry, store: Store, time_of: Callable[[Callable[[], None]], float]) -> tuple[int, float]:
    """The batch that takes least a clip, and its seconds a second of sound; stops at the first that is no better."""
    best, least = 1, np.inf
    for batch in BATCHES:
        try:
            each = time_of(timed(entry, store, "both", batch)) / (batch * SECONDS)
        except (calls.CodecError, MemoryError, RuntimeError):  # out of memory, or a codec that takes one at a time
            break
        if each >= least:
            break
        best, least = batch, each
    return best, least


def modules(adapter: Any) -> list[nn.Module]:
    """The torch modules that an adapter holds, itself included; none of a codec that is not made of them."""
    from torch import nn

    held = [adapter, *vars(adapter).values()] if hasattr(adapter, "__dict__") else [adapter]
    return [value for value in held if isinstance(value, nn.Module)]


def parameters(adapter: Any) -> int | None:
    """Numbers in the codec's parameters and buffers' codebooks; None where it holds no torch module."""
    unique = {id(tensor): tensor.numel() for module in modules(adapter) for tensor in _tensors(module)}
    return sum(unique.values()) if unique else None


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Parameters, and buffers of floating point with two dimensions or more: codebooks are often buffers."""
    yield from module.parameters()
    yield from (buffer for buffer in module.buffers() if buffer.is_floating_point() and buffer.ndim > 1)


def macs_per_second(entry: Entry, store: Store) -> float | None:
    """Multiply-adds for a second of sound, encoded and decoded; None where torch runs none of it.

    Counted by torch.utils.flop_counter: matrix products, convolutions and attention. Recurrent layers are not in it.
    """
    from torch.utils.flop_counter import FlopCounterMode

    call = timed(entry, store, "both", seconds=SECONDS)
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 2 / SECONDS or None


def sized_kinds(entry: Entry) -> list[str]:
    """The kinds of latents of a codec whose size is told."""
    return [kind for kind in SIZED if kind in entry.info.latent_kinds]


def latent_size(entry: Entry, store: Store, kind: str) -> tuple[int, float]:
    """Numbers in a frame of latents [B, D, T], and frames a second.

    The rate is how many frames more a longer sound has: what a codec adds or loses at the ends is in both.
    """
    adapter, frames = store.adapter(entry), []
    for seconds in LENGTHS:
        found, counts = calls.latents(adapter, entry.info, *sound(entry, seconds, 1, store.device), kind, 0)
        frames.append(int(counts[0]))
    return found.shape[1], (frames[1] - frames[0]) / (LENGTHS[1] - LENGTHS[0])


def fresh_process(entry: Entry, device: str) -> dict[str, float]:
    """What a process of its own takes: `start_s` to load and to code its first second, `peak_mb` beyond torch's own.

    Raises RuntimeError with its last words where it fails.
    """
    spec = entry.adapter if entry.own else entry.name
    command = [sys.executable, "-m", "earmark.scoring.speed", spec, device]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"codec failed: {entry.name}: in a process of its own: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _measure_this_process(spec: str, device: str) -> dict[str, float]:
    import torch

    from earmark.codecs import registry

    started, before = time.perf_counter(), _peak_mib()
    entry = registry.find(spec)
    adapter = calls.load(entry, device)
    wav, lengths = sound(entry, 1.0, 1, device)
    calls.reconstruct(adapter, entry.info, wav, lengths, 0)
    start_s = time.perf_counter() - started
    calls.reconstruct(adapter, entry.info, *sound(entry, SECONDS, 1, device), 0)
    if device.startswith("cuda"):
        return {"start_s": start_s, "peak_mb": torch.cuda.max_memory_allocated(device) / 2**20}
    return {"start_s": start_s, "peak_mb": _peak_mib() - before}


def _peak_mib() -> float:
    """The most memory that this process ever held. (What `resource` says on Linux has the parent's peak in it.)"""
    status = Path("/proc/self/status")
    if status.exists():
        return int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes, where there is no /proc


if __name__ == "__main__":
    print(json.dumps(_measure_this_process(*sys.argv[1:])))
