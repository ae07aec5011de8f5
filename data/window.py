"""A member of an archive as a file of its own, read where it lies."""

from __future__ import annotations

import io
import os
from pathlib import Path


class _Window(io.RawIOBase):
    """Bytes `offset` to `offset + size` of a file."""

    def __init__(self, path: Path, offset: int, size: int) -> None:
        self._file, self._offset, self._size, self._at = path.open("rb"), offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def readinto(self, buffer) -> int:
        self._file.seek(self._offset + self._at)
        content = self._file.read(max(min(len(buffer), self._size - self._at), 0))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()


def open_part(path: Path, offset: int | None = None, size: int | None = None) -> io.BufferedReader:
    """A file, or a member of an archive that is not compressed, open to be read."""
    if offset is None or size is None:
        return path.open("rb")
    return io.BufferedReader(_Window(path, offset, size))
