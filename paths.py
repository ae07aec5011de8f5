"""Where things are kept between runs, and how a file gets there; every part of the house may import it."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


def home() -> Path:
    """The one folder for weights, the store and the report's renderer: EARMARK_HOME, else ~/.cache/earmark."""
    return Path(os.environ.get("EARMARK_HOME") or "~/.cache/earmark").expanduser()


def data_folder() -> Path | None:
    """The folder of a user's real recordings (EARMARK_DATA); None where it is not set."""
    folder = os.environ.get("EARMARK_DATA")
    return Path(folder).expanduser().resolve() if folder else None


def weights_folders() -> tuple[Path, ...]:
    """The folders in which plain files of weights are looked for: EARMARK_WEIGHTS where it is set, then home's own."""
    own = os.environ.get("EARMARK_WEIGHTS")
    return (*([Path(own).expanduser().resolve()] if own else []), home() / "weights")


@contextlib.contextmanager
def publishing(path: Path) -> Iterator[Path]:
    """The file to write instead, which takes this path once it is whole: nobody ever reads half of it.

    Of this process alone: on a shared disk another machine, or a container, may have one of the same number.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
