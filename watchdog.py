"""The watchdog: it ends a worker that has given no sign of life for long, so that a codec that hangs costs one test.

Whether a worker lives is judged by its heart file changing (see `earmark.progress`), never by comparing clocks.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import Any, NamedTuple

TRACE_S = 30  # for tracebacks to be written, where they are late, before the worker is ended without them


class Beat(NamedTuple):
    """A worker's last sign of life: what it wrote, and a mark that differs from that of the sign before.

    traced  bytes of tracebacks that it has written, when it was silent for too long; None: it writes none.
    """

    state: dict[str, Any]
    mark: Any
    traced: int | None = None


class Watchdog:
    """Looks after the workers that run a test. `reasons` has why it ended which worker.

    A silent worker itself writes where it is, after the same time; on a busy machine it is late, and is waited for.

    timeout_s  the silence after which a worker is ended; 0: never.
    end        ends a process by its id; None: nobody outside can, and the silence is only reported.
    """

    def __init__(
        self,
        timeout_s: float,
        end: Callable[[int], None] | None = None,
        say: Callable[[str], object] = print,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.timeout_s, self.end, self.say, self.clock = timeout_s, end, say, clock
        self.reasons: dict[str, str] = {}
        self._heard: dict[str, tuple[Beat, float]] = {}
        self._traced: dict[str, int | None] = {}

    def look(self, beats: dict[str, Beat]) -> None:
        """End every worker that is in a test and has been silent for too long."""
        for worker, beat in beats.items():
            silence_s, traced = self._silence_s(worker, beat), self._has_traced(worker, beat)
            silent = silence_s > self.timeout_s > 0 and (traced or silence_s > self.timeout_s + TRACE_S)
            if silent and beat.state["test"] and worker not in self.reasons:
                self._give_up(worker, beat.state)

    def _silence_s(self, worker: str, beat: Beat) -> float:
        """Seconds since the sign of life was first seen as it is."""
        now = self.clock()
        if worker not in self._heard or self._heard[worker][0].mark != beat.mark:
            self._heard[worker] = (beat, now)
            if self.end is None:
                self.reasons.pop(worker, None)  # it was only slow
        return now - self._heard[worker][1]

    def _has_traced(self, worker: str, beat: Beat) -> bool:
        """Whether its tracebacks are whole: more than at its last sign of life, and no more than at the last look."""
        last, self._traced[worker] = self._traced.get(worker), beat.traced
        before = self._heard[worker][0].traced
        return beat.traced is None or before is None or before < beat.traced == last

    def _give_up(self, worker: str, state: dict[str, Any]) -> None:
        at = f"at {state['doing']}, " if state["doing"] else ""
        self.reasons[worker] = f"no sign of life for {self.timeout_s:g} s (--hang-timeout), {at}in {state['test']}"
        what = "the tracebacks say where; with -n 1 it would be ended" if self.end is None else "it is ended"
        self.say(f"{worker}: {self.reasons[worker]}; {what}")
        if self.end is not None:
            self.end(state["pid"])


def kill(pid: int) -> None:
    """End a process that may be deaf to anything milder. Its locks go with it."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
