"""What is ready here? What is not is a skip that says how to get it; `--require` makes it a failure."""

import pytest


def test_available(listed_codec):
    """The codec's packages and weights are on this machine."""
    entry, status, required = listed_codec
    if status.ready:
        return
    message = f"{status.reason}: {entry.name}; run: {status.command}"
    pytest.fail(message, pytrace=False) if required else pytest.skip(message)


def test_metric_available(listed_need):
    """What some metrics need is on this machine: a library, a recogniser, a speaker model."""
    name, command = listed_need
    if command:
        pytest.skip(f"missing: {name}; run: {command}")
