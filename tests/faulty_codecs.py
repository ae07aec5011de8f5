"""Codecs that are slow, that are killed, that hang in Python or in C, for the fault tests to run by name:
`earmark.tests.faulty_codecs:Name`.

Each appends a line to the file EARMARK_TEST_LOG for every clip it is given: its name, its process, the clip's first
sample in units of 1 / 32768 (the tests number their clips by it).
"""

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

from earmark import Info, watchdog

HANGS_AT = 10  # the clip that those who hang do not return from
DIES_AT = 5  # the encode that Killed does not end


def pytest_configure():
    """As a plugin: the watchdog looks at who is in a codec that hangs. Of what else takes long on a busy machine, such
    as importing torch, a short --hang-timeout would make a hang."""
    look = watchdog.Watchdog.look

    def at_hanging(self, beats):
        hanging = {pid for pid, number in encodes() if number == HANGS_AT}
        look(self, {worker: beat for worker, beat in beats.items() if beat.state["pid"] in hanging})

    watchdog.Watchdog.look = at_hanging


def encodes(log=None):
    """Process and clip of every call of a codec so far, in order; of the log of this process, if none is given."""
    log = log or Path(os.environ["EARMARK_TEST_LOG"])
    lines = log.read_text().split("\n")[:-1] if log.exists() else []  # a last one without an end is being written
    return [(int(pid), int(number)) for _, pid, number in map(str.split, lines)]


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


class Together(Slow):
    """Encodes nothing until another process is at it too."""

    def work(self, number):
        while len({pid for pid, _ in encodes()}) < 2:
            time.sleep(0.05)
        super().work(number)


class Killed(Slow):
    """Its process is killed in the middle of a shard, once."""

    def work(self, number):
        super().work(number)
        if len(encodes()) >= DIES_AT:
            with contextlib.suppress(FileExistsError):
                Path(os.environ["EARMARK_TEST_LOG"]).with_suffix(".killed").touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)


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
