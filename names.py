"""How a name that nobody knows is answered, in every error the same."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the nearest valid names, for the end of an error.

    >>> nearest("pesqwb", ["pesq_wb", "stoi"])
    '; did you mean pesq_wb?'
    """
    known = [*dict.fromkeys(known)]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return f"; did you mean {' or '.join(close)}?" if close else f"; expected one of {', '.join(sorted(known)[:12])}"
