"""Readers: from the files of a dataset, as its publishers lay them, to rows of a manifest.

A reader is a function `read(root, **options) -> rows`; a card names it and gives its options. It raises LayoutError
where the files that it looks for are not there, so that the next layout of the card is tried.

    folders      labels in the names of folders and files, by a regular expression
    tables       labels in CSV, TSV or JSON tables beside the audio
    webdataset   tar archives of samples (X-ARES, Emilia): audio beside a JSON file of labels
    arrow        Hugging Face `datasets`: a repository, or what `save_to_disk` wrote (AudioCodecBench)
    corpora, music, sounds    published layouts that need a few lines of their own
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from pathlib import Path

from earmark.data.layouts.rows import LayoutError, Row
from earmark.data.schema import Layout
from earmark.names import nearest

__all__ = ["READERS", "LayoutError", "Row", "read"]

# reader -> module and function
READERS = {
    "folders": "folders:read",
    "tables": "tables:read",
    "webdataset": "webdataset:read",
    "arrow": "arrow:read",
    "librispeech": "corpora:librispeech",
    "aishell": "corpora:aishell",
    "kaldi": "corpora:kaldi",
    "jamendo": "music:jamendo",
    "fma": "music:fma",
    "giantsteps": "music:giantsteps",
    "maestro": "music:maestro",
    "emomusic": "music:emomusic",
    "desed": "sounds:desed",
}


def read(layout: Layout, root: Path) -> Iterable[Row]:
    """The rows that a layout's reader finds below a folder. Raises LayoutError where it is not that layout."""
    if layout.reader not in READERS:
        raise LayoutError(f"unknown reader {layout.reader!r}{nearest(layout.reader, READERS)}")
    module, _, name = READERS[layout.reader].partition(":")
    reader: Callable[..., Iterable[Row]] = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    return reader(root, **layout.options)
