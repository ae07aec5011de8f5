"""A pytest plugin (`-p earmark.tests.standin_gpus`): a machine with two GPUs, as far as anybody asks for them.

Workers log what they were given to the file EARMARK_TEST_LOG; the first that begins a test dies of it.
"""

import os
import signal
import sys
import time
from pathlib import Path

from earmark import devices

devices.visible_gpus = lambda: ["5", "GPU-3f"]  # before earmark.plugin imports it
WORKER = os.environ.get("PYTEST_XDIST_WORKER")


def log(*words):
    with Path(os.environ["EARMARK_TEST_LOG"]).open("a") as file:
        print(*words, file=file)


def pytest_sessionstart():
    if WORKER:
        log("started", WORKER, os.environ.get("CUDA_VISIBLE_DEVICES"), "torch" in sys.modules)


def wait_for_replacement():
    """The survivor stays until the dead worker's replacement is there: else both devices would be free for that."""
    deadline = time.monotonic() + 300
    while Path(os.environ["EARMARK_TEST_LOG"]).read_text().count("started") < 3 and time.monotonic() < deadline:
        time.sleep(0.05)


def pytest_runtest_setup():
    first = Path(os.environ["EARMARK_TEST_LOG"]).with_suffix(".killed")
    try:
        first.touch(exist_ok=False)
    except FileExistsError:
        wait_for_replacement()
        return
    log("killed", WORKER)
    os.kill(os.getpid(), signal.SIGKILL)
