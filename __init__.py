"""Earmark: how good is an audio codec, really? A pytest suite that measures it and gates its releases.

The three names that a codec author writes against are here; importing them costs nothing heavy.
"""

from earmark.codecs.contract import Encoded, Info

__all__ = ["Encoded", "Info"]
__version__ = "0.1.0"
