"""The store kept in hand: what lies there, how much of it, and what may go.

A shard's modification time is its last use: `shards.read` sets it. Nothing that is in use goes: neither a shard whose
lock another process holds, nor what a living run may be writing. Whatever went is made again when it is asked for.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from earmark.store.shards import StoreError

LIMIT = "EARMARK_STORE_MAX"  # the environment variable with the size above which the end of a run prunes
STALE_S = 3600  # what a run writes beside its shards is a leftover once it is older than this
_LEFTOVERS = (".partial", ".lock", ".attempts")
_PREFIXES = ("", "k", "m", "g", "t")
_UNITS = {f"{prefix}{end}": 1000**power for power, prefix in enumerate(_PREFIXES) for end in ("", "b")}
_UNITS |= {f"{prefix}ib": 1024**power for power, prefix in enumerate(_PREFIXES) if prefix}
_AGES_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True)
class Stored:
    """A file of the store; `used` is its last use, in seconds since the epoch."""

    path: Path
    codec: str
    fingerprint: str
    size: int
    used: float


@dataclass(frozen=True)
class Group:
    """All shards of a codec with one fingerprint."""

    codec: str
    fingerprint: str
    size: int
    shards: int
    used: float


@dataclass(frozen=True)
class Pruned:
    """What went, in bytes and files; `held` shards were in use and stayed."""

    freed: int = 0
    shards: int = 0
    leftovers: int = 0
    held: int = 0


def stored(root: Path) -> list[Stored]:
    """Every shard under a store's root, the least recently used first."""
    found = [file for file in _files(root) if file.path.suffix == ".safetensors"]
    return sorted(found, key=lambda file: (file.used, file.path))


def groups(root: Path) -> list[Group]:
    """What lies in the store by codec and fingerprint, by name; of one codec, the last used first."""
    together: dict[tuple[str, str], list[Stored]] = {}
    for file in stored(root):
        together.setdefault((file.codec, file.fingerprint), []).append(file)
    found = [
        Group(codec, fingerprint, sum(file.size for file in files), len(files), files[-1].used)
        for (codec, fingerprint), files in together.items()
    ]
    return sorted(found, key=lambda group: (group.codec, -group.used))


def prune(
    root: Path,
    *,
    max_size: int | None = None,
    codec: str | None = None,
    older_than_s: float | None = None,
    dry_run: bool = False,
) -> Pruned:
    """Remove shards, the least recently used first, and what dead runs left behind.

    codec         only shards of this codec go.
    older_than_s  only shards that were not used for so many seconds go.
    max_size      they go only until the whole store has at most so many bytes.
    With none of the three only leftovers go. Raises StoreError where the store cannot be written to.
    """
    everything = stored(root)
    chosen = [file for file in everything if _may_go(file, codec, older_than_s)]
    if max_size is None and codec is None and older_than_s is None:
        chosen = []
    excess = None if max_size is None else sum(file.size for file in everything) - max_size
    freed, removed, held = _remove_shards(chosen, excess, dry_run)
    leftovers = [file for file in _files(root) if _is_leftover(file)]
    gone = [file for file in leftovers if _remove(file.path, dry_run)]
    if not dry_run:
        _remove_empty_folders(root)
    return Pruned(freed + sum(file.size for file in gone), removed, len(gone), held)


def enforce(root: Path, limit: int | None) -> int:
    """Prune the store to a limit in bytes (None: there is none), as at the end of a run; the bytes that were freed.

    A store that cannot be written to stays as it is: a run that has its scores does not fail for that.
    """
    if limit is None:
        return 0
    try:
        return prune(root, max_size=limit).freed
    except StoreError:
        return 0


def limit() -> int | None:
    """The store's upper size in bytes (EARMARK_STORE_MAX); None where it is not set. ValueError where it is bad."""
    given = os.environ.get(LIMIT, "").strip()
    try:
        return parse_size(given) if given else None
    except ValueError as error:
        raise ValueError(f"{LIMIT}: {error}") from error


def parse_size(text: str) -> int:
    """Bytes of a size with its unit; powers of 1000, and of 1024 with an i.

    >>> parse_size("20GB"), parse_size("1.5 GiB"), parse_size("512")
    (20000000000, 1610612736, 512)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"{text!r} is not a size; expected a number and a unit, like 500MB, 20GB or 16GiB")
    return int(float(match[1]) * _UNITS[match[2]])


def parse_age_s(text: str) -> float:
    """Seconds of an age with its unit.

    >>> parse_age_s("30d"), parse_age_s("1.5h")
    (2592000.0, 5400.0)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdw])\s*", text.lower())
    if match is None:
        raise ValueError(f"{text!r} is not an age; expected a number and one of s, m, h, d, w, like 30d or 12h")
    return float(match[1]) * _AGES_S[match[2]]


def human_size(size: float) -> str:
    """A size to read.

    >>> human_size(999), human_size(1_234_567), human_size(20e9)
    ('999 B', '1.2 MB', '20.0 GB')
    """
    if size < 1000:
        return f"{size:.0f} B"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.95:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"


def _files(root: Path) -> Iterator[Stored]:
    """All files where shards lie: root / codec / fingerprint / job / file. Other workers may remove them meanwhile."""
    for path in root.glob("*/*/*/*"):
        with contextlib.suppress(OSError):
            stat = path.stat()
            yield Stored(path, path.parts[-4], path.parts[-3], stat.st_size, stat.st_mtime)


def _may_go(file: Stored, codec: str | None, older_than_s: float | None) -> bool:
    old = older_than_s is None or time.time() - file.used > older_than_s
    return old and codec in (None, file.codec)


def _is_leftover(file: Stored) -> bool:
    return file.path.suffix in _LEFTOVERS and time.time() - file.used > STALE_S


def _remove_shards(chosen: Iterable[Stored], excess: int | None, dry_run: bool) -> tuple[int, int, int]:
    """Remove shards until `excess` bytes are free (None: all of them): bytes freed, shards removed, shards held."""
    freed = removed = held = 0
    for file in chosen:
        if excess is not None and freed >= excess:
            break
        if _remove(file.path, dry_run):
            freed, removed = freed + file.size, removed + 1
        else:
            held += 1
    return freed, removed, held


def _remove(path: Path, dry_run: bool) -> bool:
    """Remove a file unless its shard is in use; its lock file goes with it. Whether it went (or would go)."""
    lock = path.with_name(path.name.partition(".")[0] + ".lock")
    try:
        with _unheld(lock) as free:
            if free and not dry_run:
                path.unlink(missing_ok=True)
                lock.unlink(missing_ok=True)
            return free
    except OSError as error:
        raise StoreError(
            f"infrastructure fault: the store cannot be pruned: {error}; run it where {path.parent} can be written to"
        ) from error


@contextlib.contextmanager
def _unheld(lock: Path) -> Iterator[bool]:
    """Hold a shard's lock; False where another process does. None is made where there is none: the disk may be full."""
    from filelock import FileLock, Timeout

    if not lock.exists():
        yield True
        return
    try:
        taken = FileLock(lock)
        taken.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        taken.release()


def _remove_empty_folders(root: Path) -> None:
    for pattern in ("*/*/*", "*/*", "*"):
        for folder in root.glob(pattern):
            with contextlib.suppress(OSError):  # it has something in it
                folder.rmdir()
