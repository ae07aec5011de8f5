"""Signs of life of the processes of a run, and the one bar that the controller draws of them.

Each process that runs tests writes `<home>/runs/<run>/<worker>.json` (`Heart`); the controller reads them (`Monitor`).

What is counted is shards: a test of a dataset of n shards counts n once it has ended, however it ended, and while it
runs as many as it has had so far, made or read, but never more than n. A test without a dataset counts as one. So the
bar only rises, ends full, and needs nothing but the tests' ids and the workers' counts.
"""

from __future__ import annotations

import collections
import contextlib
import faulthandler
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import pytest

from earmark.watchdog import Beat, Watchdog

EVERY_S = 0.2  # between two writes of a heart that keeps doing the same
POLL_S = 0.25  # between two looks at all hearts
LINE_S = 10  # between two lines where there is no terminal
RATE_S = 60  # the past that a rate is of: a run that goes on where it stopped begins much faster than it continues
STALE_S = 86400  # a run's folder that nobody wrote to for so long is of a run that was killed


# -- in the process that runs tests -----------------------------------------------------------------------------------


class Heart:
    """The signs of life of this process: a plugin of pytest, and what a `Store` notifies.

    hang_s  after so long without a sign of life in a test the tracebacks of all threads are written, whoever holds the
            GIL: into `<worker>.trace` for the controller to read, or, by the process `main`, to the terminal. 0: never.
    """

    def __init__(self, folder: Path, worker: str, hang_s: float = 0) -> None:
        self.path, self._hang_s = folder / f"{worker}.json", hang_s
        self._file, self._size = _open(self.path), 0
        self._trace = None
        if hang_s:
            self._trace = _duplicate(2) if worker == "main" else _open(folder / f"{worker}.trace")
        self._state: dict[str, Any] = {"pid": os.getpid(), "time": 0.0, "test": "", "params": {}, "doing": ""}
        self._state |= {"visits": 0, "made": 0, "read": 0, "clips": 0}
        self._written = self._armed = -EVERY_S

    def __call__(self, what: str, clips: int, doing: str) -> None:
        """`Store.notify`: count what was made or read, and beat."""
        if what in ("made", "read"):
            self._state[what] += 1
            self._state["visits"] += 1
        if what == "made":
            self._state["clips"] += clips
        if doing != self._state["doing"] or time.monotonic() - self._written >= EVERY_S:
            self._beat(doing=doing)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        params = getattr(getattr(item, "callspec", None), "params", {})
        plain = {name: value for name, value in params.items() if isinstance(value, str | int | float | None)}
        self._beat(test=item.nodeid, params=plain, doing="", visits=0)
        try:
            return (yield)
        finally:
            self._beat(test="", params={}, doing="")

    def pytest_unconfigure(self) -> None:
        if self._trace is not None:
            faulthandler.cancel_dump_traceback_later()
        for file in filter(None, (self._file, self._trace)):
            file.close()
        self._file = self._trace = None

    def _beat(self, **changes: Any) -> None:
        self._written = time.monotonic()
        self._state |= changes | {"time": time.time()}
        if not self._state["test"] or self._written - self._armed >= EVERY_S:
            self._arm()
        self._write()

    def _arm(self) -> None:
        """Have the tracebacks written later, unless there is another sign of life; outside a test, never."""
        if self._trace is None:
            return
        faulthandler.cancel_dump_traceback_later()
        self._armed = self._written if self._state["test"] else -EVERY_S
        if self._state["test"]:
            faulthandler.dump_traceback_later(self._hang_s, file=self._trace)

    def _write(self) -> None:
        """Over what was there, in one call: that costs microseconds, and needs no space on a full disk."""
        if self._file is None:
            return
        text = json.dumps(self._state).encode().ljust(self._size)
        self._size = len(text)
        try:
            os.pwrite(self._file.fileno(), text, 0)
        except OSError:  # a file system that writes elsewhere; its time alone shows that this process lives
            with contextlib.suppress(OSError):
                os.utime(self.path)


def _open(path: Path) -> IO[str] | None:
    try:
        return path.open("w", encoding="utf-8")
    except OSError:
        return None


def read_beats(folder: Path) -> dict[str, Beat]:
    """The last sign of life of every worker that gave one."""
    beats = {}
    for path in folder.glob("*.json"):
        with contextlib.suppress(OSError, ValueError):
            state = json.loads(path.read_text(encoding="utf-8"))
            beats[path.stem] = Beat(state, path.stat().st_mtime_ns, _size(path.with_suffix(".trace")))
    return beats


def _size(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return None


# -- in the controller ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Progress:
    """How far a run is. Clips are those made: read, encoded, decoded or measured."""

    done: int
    total: int
    clips: int
    clips_per_s: float
    left_s: float | None

    def rate(self) -> str:
        return f"{self.clips_per_s:.3g} clips/s"

    def left(self) -> str:
        """What is left, in words: `about 1 h 10 min left`."""
        if self.left_s is None:
            return ""
        seconds = round(self.left_s)
        hours, minutes = seconds // 3600, seconds % 3600 // 60
        words = f"{hours} h {minutes} min" if hours else f"{minutes + 1} min" if seconds >= 60 else f"{seconds} s"
        return f"about {words} left"


class Display(Protocol):
    """Where progress is shown."""

    def show(self, progress: Progress) -> None: ...

    def say(self, text: str) -> None: ...

    def close(self) -> None: ...


class Tally:
    """How many shards are done, of how many: the weights of the tests, the tests that ended, and what the workers say.

    weigh  the shards of a test, by its id.
    """

    def __init__(self, weigh: Callable[[str], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._weigh, self._clock = weigh, clock
        self._weights: dict[str, int] = {}
        self._ended: set[str] = set()
        self._most = 0
        self._past: collections.deque[tuple[float, int, int]] = collections.deque()

    def expect(self, tests: Iterable[str]) -> None:
        self._weights = {test: self._weigh(test) for test in tests}

    def end(self, test: str) -> None:
        self._ended.add(test)

    def progress(self, states: Iterable[dict[str, Any]]) -> Progress:
        """Where the run is, given what each worker last wrote."""
        states = [*states]
        running = {state["test"]: state["visits"] for state in states if state["test"] not in self._ended}
        done = sum(weight for test, weight in self._weights.items() if test in self._ended)
        done += sum(min(visits, self._weights.get(test, 0)) for test, visits in running.items())
        self._most = max(self._most, done)  # the visits of a worker that died are taken back only when its test ends
        return self._with_rates(self._most, sum(self._weights.values()), sum(state["clips"] for state in states))

    def _with_rates(self, done: int, total: int, clips: int) -> Progress:
        now = self._clock()
        while len(self._past) > 1 and self._past[0][0] < now - RATE_S:
            self._past.popleft()
        self._past.append((now, done, clips))
        then, done_then, clips_then = self._past[0]
        passed = max(now - then, 1e-9)
        left_s = (total - done) * passed / (done - done_then) if done > done_then else None
        return Progress(done, total, clips, (clips - clips_then) / passed, left_s)


class Monitor:
    """A plugin of the controller, with a thread that watches the workers, shows progress and ends what hangs."""

    def __init__(self, folder: Path, tally: Tally, display: Display | None, watchdog: Watchdog) -> None:
        self.folder, self.tally, self.display, self.watchdog = folder, tally, display, watchdog
        self._down: set[str] = set()
        self._stopped, self._paused = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="earmark-monitor", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        if not self._stopped.is_set():
            self._stopped.set()
            self._thread.join()
            if self.display is not None:
                self.display.close()

    def last(self, worker: str) -> dict[str, Any]:
        """What a worker wrote last; empty where it wrote nothing."""
        found = read_beats(self.folder).get(worker)
        return found.state if found else {}

    def trace(self, worker: str) -> str:
        """The tracebacks that a worker wrote when it had been silent for too long; empty where it did not."""
        try:
            return (self.folder / f"{worker}.trace").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def _watch(self) -> None:
        while not self._stopped.wait(POLL_S):
            beats = read_beats(self.folder)
            self.watchdog.look({worker: beat for worker, beat in beats.items() if worker not in self._down})
            if self.display is not None and not self._paused.is_set():
                with contextlib.suppress(OSError):  # a terminal that was closed must not stop the watchdog
                    self.display.show(self.tally.progress(beat.state for beat in beats.values()))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if session.items:  # without xdist
            self.tally.expect(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self.tally.expect(ids)  # the same for every worker

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when not in ("setup", "call"):  # the teardown, or xdist's report of a crash
            self.tally.end(report.nodeid)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self._down.add(node.gateway.id)

    def pytest_enter_pdb(self) -> None:
        self._paused.set()

    def pytest_leave_pdb(self) -> None:
        self._paused.clear()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        self.stop()

    def pytest_unconfigure(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def make_folder(folder: Path) -> None:
    """The folder of a run, and none of runs that were killed long ago. A full or read-only disk has none."""
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True)
        for other in folder.parent.iterdir():
            if other.stat().st_mtime < time.time() - STALE_S:
                shutil.rmtree(other, ignore_errors=True)


def display_for(reporter: Any, config: pytest.Config) -> Display | None:
    """A bar below pytest's output on a terminal, lines elsewhere, nothing where pytest itself is to be silent."""
    option = config.option
    if reporter is None or option.verbose < -1 or getattr(option, "usepdb", False):
        return None
    capable = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb" and sys.platform != "win32"
    return Bar(reporter) if capable and option.capture != "no" else Lines(_duplicate(2))


def _duplicate(descriptor: int) -> IO[str]:
    """The terminal, or file, as it is now: pytest puts a file in its place while a test runs."""
    return os.fdopen(os.dup(descriptor), "w", encoding="utf-8", errors="replace")


class Lines:
    """Progress as plain lines: for logs. At most one every LINE_S seconds, and none where nothing changed."""

    def __init__(self, file: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._file, self._clock = file, clock
        self._shown, self._at = (0, 0), clock()

    def show(self, progress: Progress) -> None:
        counts = (progress.done, progress.clips)
        if self._clock() - self._at < LINE_S or counts == self._shown:
            return
        self._shown, self._at = counts, self._clock()
        parts = [f"{progress.done} of {progress.total} shards", progress.rate(), progress.left()]
        self.say(", ".join(part for part in parts if part))

    def say(self, text: str) -> None:
        self._file.write(f"earmark: {text}\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class Bar:
    """Progress as a bar in the line below what pytest writes; pytest's own output stays as it is.

    It stands in for the file that pytest's terminal writer writes to: whatever pytest writes first takes the bar away,
    and the next look at the workers draws it again, below.
    """

    _BELOW = "\x1bD\x1b[A\x1b7\x1b[B\r\x1b[2K"  # make room, keep the cursor in mind, go to the start of the next line
    _BACK = "\x1b8"
    _ERASE = "\x1b[J"  # from the cursor to the end of the screen: nothing of pytest's is there

    def __init__(self, reporter: Any) -> None:
        self._terminal = _duplicate(1)
        self._lock, self._drawn = threading.Lock(), ""
        self._writer = reporter._tw
        self._file = self._writer._file
        self._coloured = bool(reporter.hasmarkup)
        self._writer._file = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, text: str) -> int:
        """What pytest writes."""
        with self._lock:
            self._erase()
            return self._file.write(text)

    def show(self, progress: Progress) -> None:
        line = self._render(progress) if progress.total else ""
        if line == self._drawn:
            return
        with self._lock:
            self._terminal.write(f"{self._BELOW}{line}{self._BACK}")
            self._terminal.flush()
            self._drawn = line

    def say(self, text: str) -> None:
        with self._lock:
            self._erase()
            self._terminal.write(f"\r\nearmark: {text}\r\n")
            self._terminal.flush()

    def close(self) -> None:
        with self._lock:
            self._erase()
            self._writer._file = self._file
            self._terminal.close()

    def _erase(self) -> None:
        if self._drawn:
            self._terminal.write(self._ERASE)
            self._terminal.flush()
            self._drawn = ""

    def _render(self, progress: Progress) -> str:
        """One line, as wide as the terminal."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as RichProgress

        console = Console(force_terminal=True, no_color=not self._coloured, width=self._width() - 1)
        words = [TextColumn("shards"), TextColumn("{task.fields[rate]}"), TextColumn("{task.fields[left]}")]
        columns = [TextColumn("earmark"), BarColumn(bar_width=None), MofNCompleteColumn(), *words]
        bar = RichProgress(*columns, console=console, expand=True, auto_refresh=False)
        bar.add_task("", total=progress.total, completed=progress.done, rate=progress.rate(), left=progress.left())
        with console.capture() as rendered:
            console.print(bar.get_renderable(), end="")
        return rendered.get().partition("\n")[0]

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._terminal.fileno()).columns or 80
        except OSError:
            return 80
