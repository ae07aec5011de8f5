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


def mistaken(name: str, known: Iterable[str]) -> str | None:
    """The known name that another is so like that it may be meant: letters swapped, a capital, a blank.

    >>> mistaken("speker", ["speaker", "label"]), mistaken("Path ", ["path"]), mistaken("take", ["label"])
    ('speaker', 'path', None)
    """
    plain = {other.strip().lower(): other for other in known}
    close = difflib.get_close_matches(name.strip().lower(), plain, n=1, cutoff=0.75)
    return plain[close[0]] if close else None
