"""What a codec leaves behind: modules in training, gradients, other settings of the process, memory, a broken clip."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from earmark.codecs import calls
from earmark.contract.process import in_fresh_process
from earmark.contract.subject import SEED, Subject, difference
from earmark.contract.verdict import Broken, asked

CALLS, TRACED = 100, 20  # of them the last two times 20 are looked at
MOST = 0.5, 1024, 2**19, 2**19  # a call: tensors, bytes of Python's, of the process (allocators keep some), of the GPU
COUNTED = "tensors", "bytes of Python's", "bytes of the process", "bytes of the GPU"


@asked("Dropout and batch statistics in training make tokens differ from call to call, and from the paper's.")
def eval_mode(subject: Subject) -> None:
    """No part of the network is in training mode."""
    subject.given = "the adapter as it was built"
    training = [name or "the module itself" for name, module in modules(subject.adapter()) if module.training]
    if training:
        raise Broken("every module in eval mode", f"{len(training)} in training, such as {training[0]}")


def modules(adapter: Any) -> Iterator[tuple[str, Any]]:
    """The torch modules that an adapter holds, by where they are, parts included; lists and dicts are looked into."""
    import torch

    found, seen = [("", adapter)], set()
    while found:
        where, value = found.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.nn.Module):
            yield from ((f"{where}.{name}".strip("."), part) for name, part in value.named_modules())
        elif isinstance(value, list | tuple):
            found += [(f"{where}[{i}]", part) for i, part in enumerate(value)]
        elif isinstance(value, dict):
            found += [(f"{where}[{key!r}]", part) for key, part in value.items()]
        elif where.count(".") < 2 and hasattr(value, "__dict__") and not isinstance(value, type):
            found += [(f"{where}.{name}", part) for name, part in vars(value).items()]


@asked("A graph that is kept for gradients holds every activation in memory: a corpus does not fit.")
def gradients(subject: Subject) -> None:
    """Nothing that comes back carries gradients."""
    wav, lengths = _tensors(subject)
    outputs: dict[str, Any] = {}
    if subject.can("encode"):
        encoded = calls.encode(subject.adapter(), subject.info, wav, lengths, SEED)
        outputs |= {f"side information {name!r}": values for name, values in encoded.side.items()}
    if subject.can("reconstruct"):
        outputs["sound"] = calls.reconstruct(subject.adapter(), subject.info, wav, lengths, SEED)[0]
    for kind in subject.kinds:
        outputs[f"latents {kind!r}"] = calls.latents(subject.adapter(), subject.info, wav, lengths, kind, SEED)[0]
    carrying = [what for what, tensor in outputs.items() if tensor.requires_grad]
    if carrying:
        raise Broken("tensors without gradients", f"{', '.join(carrying)} with requires_grad")


@asked("The caller's batch goes to the next codec, or is the reference that the sound is scored against.")
def input_is_left_alone(subject: Subject) -> None:
    """The sound and the lengths that a codec is given are afterwards what they were."""
    for use in ("encode", "reconstruct", "latents"):
        wav, lengths = _tensors(subject)
        before = wav.clone(), lengths.clone()
        if use == "encode" and subject.can("encode"):
            calls.encode(subject.adapter(), subject.info, wav, lengths, SEED)
        elif use == "reconstruct" and subject.can("reconstruct"):
            calls.reconstruct(subject.adapter(), subject.info, wav, lengths, SEED)
        elif use == "latents" and subject.kinds:
            calls.latents(subject.adapter(), subject.info, wav, lengths, subject.kinds[0], SEED)
        if not (wav.equal(before[0]) and lengths.equal(before[1])):
            raise Broken("the input as it was", f"another one after {use}")


def _tensors(subject: Subject) -> tuple[Any, Any]:
    """A clip that is longer than it says, so that what masks it in place is seen: wav [1, C, L], lengths [1]."""
    import torch

    wav = subject.speech(8 * subject.hop)[None]
    subject.say("speech-like sound and two frames beyond its length", [6 * subject.hop])
    return torch.from_numpy(wav).to(subject.device), torch.tensor([6 * subject.hop], device=subject.device)


@asked("A codec that seeds the random generators, or sets the threads, does so to the training run around it.")
def global_state(subject: Subject) -> None:
    """Building and calling it leaves dtype, device, threads, gradient mode and random generators alone."""
    subject.adapter()
    _draw()  # so that a generator which is seeded again is seen, whatever it was seeded with before
    before = process_state()
    subject.of(subject.speech(6 * subject.hop))
    if changed := changes(before, process_state()):
        raise Broken("the process as it was", f"changed by a call: {', '.join(changed)}")
    if changed := [*in_fresh_process(subject).changed]:
        subject.given = "its row, to be built from"
        raise Broken("the process as it was", f"changed by building: {', '.join(changed)}")


def _draw() -> None:
    """One number from each random generator."""
    import torch

    torch.rand(1), np.random.rand(), random.random()


def process_state() -> dict[str, Any]:
    """The settings of this process that others depend on, by name. Random generators are 'random ...'."""
    import torch

    return {
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "threads": torch.get_num_threads(),
        "gradient mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "cuDNN": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32),
        "numpy's error handling": np.geterr(),
        "folder": os.getcwd(),  # noqa: PTH109 (a string to compare)
        "random numbers of torch": torch.get_rng_state().numpy().tobytes(),
        "random numbers of CUDA": _cuda_random(),
        "random numbers of numpy": repr(np.random.get_state()),
        "random numbers of Python": random.getstate(),
    }


def _cuda_random() -> bytes:
    import torch

    return torch.cuda.get_rng_state().numpy().tobytes() if torch.cuda.is_initialized() else b""


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The names of what is no longer as it was."""
    return [name for name in before if before[name] != after[name]]


@asked("A corpus is millions of calls: a few kilobytes kept of each end the job in the night.")
def memory(subject: Subject) -> None:
    """Memory stays flat over 100 calls with short clips."""
    clip, sizes = subject.speech(3 * subject.hop), []
    _call(subject, clip, CALLS - 2 * TRACED)  # what fills caches
    with _traced():
        for _ in range(3):
            sizes.append(_sizes())
            _call(subject, clip, TRACED)
    subject.given = f"{CALLS} times {subject.given}"
    halves = [(later - sooner) / TRACED for sooner, later in itertools.pairwise(sizes)]
    least = np.min(halves, axis=0)  # a leak goes on, a cache is full at some time
    subject.measured["bytes_per_call"] = float(round(least[1]))
    for kept, most, what in zip(least, MOST, COUNTED, strict=True):
        if kept > most:
            raise Broken("nothing kept", f"{kept:.0f} {what} more at every call")


def _call(subject: Subject, clip: np.ndarray, times: int) -> None:
    for _ in range(times):
        subject.of(clip)


@contextlib.contextmanager
def _traced() -> Iterator[None]:
    """Python's memory, and numpy's, is counted."""
    already = tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        yield
    finally:
        if not already:
            tracemalloc.stop()


def _sizes() -> np.ndarray:
    """Tensors, bytes of Python's, of the process, of the GPU; Python does not see what tensors hold."""
    import torch

    gc.collect()
    tensors = sum(issubclass(type(kept), torch.Tensor) for kept in gc.get_objects())
    return np.array([tensors, tracemalloc.get_traced_memory()[0], _resident(), _on_cuda()], dtype=np.float64)


def _resident() -> int:
    """Bytes of this process in memory; 0 where Linux does not say."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else 0


def _on_cuda() -> int:
    import torch

    return torch.cuda.memory_allocated() if torch.cuda.is_initialized() else 0


@asked("A broken file in a corpus must cost itself and nothing else: not look coded, nor spoil the clips after it.")
def not_finite(subject: Subject) -> None:
    """A clip with NaN or infinity is refused, and the clip after it is coded as ever.

    The calls refuse it before the adapter sees it: LAME ends the process at a NaN, and most networks give codes that
    look valid. So it must go through `earmark.codecs.calls`, here as everywhere.
    """
    clip = subject.speech(6 * subject.hop)
    before = subject.of(clip)
    for value in (np.nan, np.inf):
        bad = clip.copy()
        bad[:, 2 * subject.hop] = value
        try:
            subject.of(bad, f"speech-like sound with one sample of {value}")
        except calls.CodecError:
            pass
        else:
            raise Broken("a CodecError", "a result")
        if found := difference(before, subject.of(clip, f"speech-like sound after a clip with {value}")):
            raise Broken("what came before it", found)
