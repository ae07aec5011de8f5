"""Fingerprints: what a stored result depends on, as a short hash. Change any part, and the result is made again."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import inspect
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from earmark.codecs.registry import Entry
from earmark.data import audio
from earmark.data.audio import resampler

LENGTH = 16  # hexadecimal digits kept

# Packages that every codec's output depends on, beside those that its row names.
_ALWAYS = ("numpy", "soxr", "torch")
_PLAIN = (str, int, float, bool, bytes, type(None), Path)


def digest(*parts: Any) -> str:
    """A short hash of JSON-like parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:LENGTH]


def of_row(entry: Entry) -> str:
    """The fingerprint of a catalogue codec: its row, its pinned weights, its adapter's source, its libraries' versions.

    No weights are loaded: a finished run is known to be finished in milliseconds.
    """
    from earmark.codecs import calls, contract

    module, _, name = entry.adapter.partition(":")
    classes = getattr(importlib.import_module(module), name).__mro__
    ours = {inspect.getfile(cls) for cls in classes if cls.__module__.startswith("earmark.")}
    sources = sorted(Path(file) for file in {*ours, str(calls.__file__), str(contract.__file__)})
    return digest(entry.model_dump(mode="json"), _snapshot(entry), _hash_files(sources), versions(entry), resampler())


@functools.cache
def of_maker(maker: str) -> str:
    """The source of what makes a job's results ("module:function"), and of the one resampler."""
    module = importlib.import_module(maker.partition(":")[0])
    return _hash_files([Path(str(module.__file__)), Path(str(audio.__file__))])


def of_files(*paths: str) -> str:
    """The contents of source files."""
    return _hash_files(Path(path) for path in paths)[:LENGTH]


def of_adapter(entry: Entry, adapter: Any) -> str | None:
    """The fingerprint of a user's own codec: all its tensors, its source files and its plain settings.

    None where something in it cannot be looked into (a session of another runtime, an open file); a class can then
    give its own `fingerprint() -> str`.
    """
    own = getattr(adapter, "fingerprint", None)
    if callable(own):
        return digest(entry.model_dump(mode="json"), str(own()), versions(entry), resampler())
    content = hashlib.sha256()
    if not _absorb(content, vars(adapter), set()):
        return None
    source = _hash_files(_sources(type(adapter)))
    return digest(entry.model_dump(mode="json"), content.hexdigest(), source, versions(entry), resampler())


def versions(entry: Entry) -> dict[str, str]:
    """Versions of the packages that a codec's output depends on."""
    found = {}
    for name in (*_ALWAYS, *entry.packages):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


def _snapshot(entry: Entry) -> str | None:
    """The commit of the weights that are really here, for a row that pins none."""
    if entry.checkpoint is None or entry.checkpoint.revision:
        return None
    from earmark.codecs.hub import cached_revision

    return cached_revision(entry.checkpoint.repo)


def _sources(cls: type) -> list[Path]:
    """The Python files of a class's package, or those beside its module."""
    module = inspect.getmodule(cls)
    if module is None or module.__file__ is None:
        return []
    file, package = Path(module.__file__), module.__name__.partition(".")[0]
    depth = module.__name__.count(".") + (file.name == "__init__.py")
    if depth == 0:
        return sorted(file.parent.glob("*.py"))
    root = file.parents[depth - 1]
    return sorted(root.rglob("*.py")) if root.name == package else [file]


def _hash_files(paths: Iterable[Path]) -> str:
    content = hashlib.sha256()
    for path in paths:
        content.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return content.hexdigest()


def _absorb(content: Any, value: Any, seen: set[int]) -> bool:
    """Feed a value into the hash; False where there is something in it that cannot be looked into."""
    import numpy as np
    import torch

    if id(value) in seen:
        return True
    seen.add(id(value))
    content.update(type(value).__qualname__.encode())
    if isinstance(value, torch.nn.Module):
        content.update(str(value).encode())
        named = dict([*value.named_parameters(), *value.named_buffers()])
        return _absorb(content, named, seen)
    if isinstance(value, torch.Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1)
        content.update(f"{value.dtype}{tuple(value.shape)}".encode() + flat.view(torch.uint8).numpy().tobytes())
        return True
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        content.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
        return True
    if isinstance(value, dict):
        return all(_absorb(content, part, seen) for item in value.items() for part in item)
    if isinstance(value, list | tuple):
        return all(_absorb(content, part, seen) for part in value)
    if isinstance(value, (*_PLAIN, torch.device, torch.dtype)) or hasattr(value, "model_dump_json"):
        content.update(str(value).encode())
        return True
    return False
