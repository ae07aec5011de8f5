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
