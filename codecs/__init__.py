"""Codecs: the contract (`contract`), the catalogue and its registry (`registry`), one adapter a family."""
