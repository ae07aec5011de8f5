"""Earmark: how good is an audio codec, really? A pytest suite that measures it and gates its releases.

The names that a codec author writes against are here; importing them costs nothing heavy.
"""

from typing import Any

from earmark.codecs.contract import Encoded, Info

__all__ = ["Encoded", "Info", "check"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`earmark.check` is `earmark.contract.check`, imported when it is first asked for."""
    if name != "check":
        raise AttributeError(f"module 'earmark' has no attribute {name!r}")
    from earmark.contract import check

    return check
