"""Codecs that are slow, that hang in Python or in C, for the fault tests to run as `earmark.tests.faulty_codecs:Name`.

Each appends a line to the file EARMARK_TEST_LOG for every clip it is given: its name, its process, the clip's first
sample in units of 1 / 32768 (the tests number their clips by it).
"""

import ctypes
import os
import time
from pathlib import Path

from earmark import Info


def pytest_collection_finish(session):
    """As a plugin: import what takes long before any test, so that a short --hang-timeout means the codec alone."""
    if session.items:
        import torch  # noqa: F401


HANGS_AT = 10  # the clip that those who hang do not return from


class Slow:
    """Halves the level, and takes a tenth of a second for it."""

    info = Info(name="slow", sample_rate=16000, domains=("speech",))

    def __init__(self, info, device): ...

    def reconstruct(self, wav, lengths, seed):
        number = round(float(wav[0, 0, 0]) * 32768)
        with Path(os.environ["EARMARK_TEST_LOG"]).open("a") as log:
            log.write(f"{self.info.name} {os.getpid()} {number}\n")
        self.work(number)
        return wav * 0.5, None

    def work(self, number):
        time.sleep(0.1)


class HangsInPython(Slow):
    info = Info(name="hangs-in-python", sample_rate=16000, domains=("speech",))

    def work(self, number):
        while number == HANGS_AT:
            time.sleep(0.1)


class HangsInC(Slow):
    """Holds the GIL as it hangs: no thread of this process runs any more."""

    info = Info(name="hangs-in-c", sample_rate=16000, domains=("speech",))

    def work(self, number):
        if number == HANGS_AT:
            ctypes.PyDLL(None).pause()
