"""Where things are kept between runs; the one module that every part of the house may import."""

from __future__ import annotations

import os
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
