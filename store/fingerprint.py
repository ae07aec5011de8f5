"""Fingerprints: what a stored result depends on, as a short hash. Change any part, and the result is made again."""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import re
import threading
import warnings
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from earmark.codecs.registry import Entry
from earmark.data import audio
from earmark.data.audio import resampler

LENGTH = 16  # hexadecimal digits kept

# Packages that every codec's output depends on, beside those that its row names.
_ALWAYS = ("numpy", "soxr", "torch")
_NOT_SOURCES = {"site-packages", "node_modules", "venv", "env", "build", "dist"}
_OURS = ("earmark.codecs.", "earmark.hub")  # what adapters are made of
# What is only said of a codec: no result depends on it.
_SAID = dict.fromkeys(("title", "paper", "proved", "family", "known_failures", "install"), True)
_SAID_IN_INFO = {"feature_type", "domains", "trained_on", "licence"}
_PARSING = threading.Lock()  # two threads that parse at once break CPython 3.11's count of its own depth
_PLAIN = (str, int, float, bool, bytes, type(None), Path)


def digest(*parts: Any) -> str:
    """A short hash of JSON-like parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:LENGTH]


def of_row(entry: Entry) -> str:
    """The fingerprint of a catalogue codec: its row, its pinned weights, its adapter's sources, versions of libraries.

    Nothing is loaded or imported: a finished run is known to be finished in milliseconds.
    """
    sources = _ours(entry.adapter.partition(":")[0], "earmark.codecs.calls")
    parts = [_row(entry), _snapshot(entry), _hash_files(sources), versions(entry), resampler()]
    if entry.checkout:
        parts.append(entry.checkout.source())
    if entry.weights and (stamps := entry.weights.stamps()):
        parts.append(stamps)
    return digest(*parts)


@functools.cache
def of_maker(maker: str) -> str:
    """The source of what makes a job's results ("module:function"), and of what every job goes through."""
    from earmark.codecs import calls
    from earmark.store import batches, jobs

    module = importlib.import_module(maker.partition(":")[0])
    return _hash_files(Path(str(source.__file__)) for source in (module, audio, calls, batches, jobs))


def of_transforms() -> str:
    """The source of the steps before a codec, and the sampler that noise is taken from."""
    from earmark.store import transforms

    return of_files(transforms.__file__, str(transforms.SAMPLER / "manifest.csv"))


@functools.cache
def of_files(*paths: str) -> str:
    """The contents of source files, as they were when this process first asked."""
    return _hash_files(Path(path) for path in paths)[:LENGTH]


def of_adapter(entry: Entry, adapter: Any) -> str | None:
    """The fingerprint of a user's own codec: all its tensors, its source files and its plain settings.

    None where something in it cannot be looked into (a session of another runtime, an open file); a class can then
    give its own `fingerprint() -> str`.
    """
    own = getattr(adapter, "fingerprint", None)
    if callable(own):
        return digest(_row(entry), str(own()), versions(entry), resampler())
    content = hashlib.sha256()
    if not _absorb(content, vars(adapter), {}):
        return None
    sources = _sources(type(adapter))
    libraries = versions(entry) | _imported(sources)
    return digest(_row(entry), content.hexdigest(), _hash_files(sources), libraries, resampler())


def _row(entry: Entry) -> dict[str, Any]:
    return entry.model_dump(mode="json", exclude={**_SAID, "info": _SAID_IN_INFO})


def versions(entry: Entry) -> dict[str, str]:
    """Versions of the packages that a codec's output depends on."""
    return {name: _version(name) for name in (*_ALWAYS, *entry.packages)}


@functools.cache
def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _snapshot(entry: Entry) -> str | None:
    """The commits of the weights that are really here, for a row that pins none; None where there is nothing to say."""
    from earmark.hub import cached_revision

    found = [cached_revision(each.repo, each.files) for each in entry.checkpoints if not each.revision]
    return " ".join(map(str, found)) or None


def _ours(*modules: str) -> list[Path]:
    """The files of modules and of all that they import of ours, found without importing them."""
    found: dict[str, Path] = {}
    waiting = list(modules)
    while waiting:
        if (name := waiting.pop()) in found:
            continue
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin:
            found[name] = Path(spec.origin)
            waiting += [each for each in _imports(found[name]) if each.startswith(_OURS)]
    return sorted(found.values())


def _imports(path: Path) -> set[str]:
    """The dotted names of the modules that a source file imports; nothing of one that is no Python."""
    names = set()
    with _PARSING, warnings.catch_warnings(), contextlib.suppress(SyntaxError, UnicodeDecodeError):
        warnings.simplefilter("ignore")  # of escapes that are none; raised as an error, one would hide the imports
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module)
    return names


def _sources(cls: type) -> list[Path]:
    """The Python files of a class's package, or those in the folder of its module and below."""
    module = inspect.getmodule(cls)
    if module is None or module.__file__ is None:
        return []
    file, package = Path(module.__file__), module.__name__.partition(".")[0]
    depth = module.__name__.count(".") + (file.name == "__init__.py")
    root = file.parents[max(depth - 1, 0)]
    return sorted(_python_files(root)) if depth == 0 or root.name == package else [file]


def _python_files(root: Path) -> Iterator[Path]:
    """Every Python file below a folder, but for environments, caches, what is hidden, and links to nowhere."""
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if not name.startswith((".", "__")) and name not in _NOT_SOURCES]
        found = (Path(folder, name) for name in files if name.endswith(".py") and not name.startswith("."))
        yield from (path for path in found if path.is_file())


def _imported(sources: Sequence[Path]) -> dict[str, str]:
    """Versions of the installed packages that source files import by name."""
    names = {name.partition(".")[0] for path in sources for name in _imports(path)}
    distributions = importlib.metadata.packages_distributions()
    found = sorted({distribution for name in names for distribution in distributions.get(name, ())})
    return {distribution: importlib.metadata.version(distribution) for distribution in found}


def _hash_files(paths: Iterable[Path]) -> str:
    content = hashlib.sha256()
    for path in paths:
        content.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return content.hexdigest()


def _absorb(content: Any, value: Any, seen: dict[int, tuple[int, Any]]) -> bool:
    """Feed a value into the hash; False where there is something in it that cannot be looked into.

    `seen` numbers what was met, so that a cycle ends and a shared part is told from an equal one; it also keeps each
    alive, as an id may be used again.
    """
    import numpy as np
    import torch

    if isinstance(value, (*_PLAIN, torch.device, torch.dtype, np.generic)):
        plain = repr(value)
        if type(value) in (str, torch.device) and re.fullmatch(r"cuda:\d+", str(value)):
            plain = "cuda"  # whichever GPU a worker was given
        content.update(f"{type(value).__qualname__} {plain};".encode())
        return True
    if id(value) in seen:
        content.update(f"again {seen[id(value)][0]};".encode())
        return True
    seen[id(value)] = (len(seen), value)
    content.update(f"{type(value).__module__}.{type(value).__qualname__};".encode())
    if isinstance(value, torch.Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1)
        content.update(f"{value.dtype}{tuple(value.shape)}".encode() + flat.view(torch.uint8).numpy().tobytes())
        return True
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        content.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
        return True
    return all(_absorb(content, part, seen) for part in parts) if (parts := _parts(value)) is not None else False


def _parts(value: Any) -> list[Any] | None:
    """What a value is made of; None where that cannot be seen (an open file, a session of another runtime)."""
    import torch

    if isinstance(value, dict):
        return [part for item in value.items() for part in item]
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, weakref.ref):
        return [value()]
    if isinstance(value, FunctionType):
        return [value.__module__, value.__qualname__, value.__defaults__, value.__kwdefaults__, _closed_over(value)]
    if isinstance(value, type | ModuleType | BuiltinFunctionType):
        return [getattr(value, "__module__", ""), getattr(value, "__qualname__", value.__name__)]
    if isinstance(value, torch.nn.Module):
        own = set(vars(torch.nn.Module())) - {"training", "_parameters", "_buffers", "_modules"}  # hooks, and the like
        return [{name: part for name, part in vars(value).items() if name not in own}]
    return [vars(value)] if hasattr(value, "__dict__") else None


def _closed_over(function: FunctionType) -> list[Any]:
    """The values that a function has from where it was made; None for one that is not set yet."""
    found = []
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # empty
            found.append(None)
    return found
