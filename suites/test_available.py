"""Is each codec ready here? What is missing is a skip that says how to get it; `--require` makes it a failure."""

import pytest


def test_available(listed_codec):
    """The codec's packages and weights are on this machine."""
    entry, status, required = listed_codec
    if status.ready:
        return
    message = f"{status.reason}: {entry.name}; run: {status.command}"
    pytest.fail(message, pytrace=False) if required else pytest.skip(message)
