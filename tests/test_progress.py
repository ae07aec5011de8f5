"""Hearts, the watchdog and the bar: with clocks of their own, and on terminals that are pipes."""

import errno
import io
import os
import pty
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from earmark import progress
from earmark.progress import Bar, Heart, Lines, Progress, Tally, read_beats
from earmark.tests.helpers import PATIENCE_S, ROOT, user_env
from earmark.watchdog import Beat, Watchdog


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def state(test="", visits=0, clips=0, doing="", pid=1):
    return {"test": test, "visits": visits, "clips": clips, "doing": doing, "pid": pid}


@pytest.fixture
def make_heart(tmp_path):
    """`make_heart(folder)`: a heart that is closed after the test."""
    hearts = []

    def make(folder=tmp_path):
        hearts.append(Heart(folder, "gw0", 10))
        return hearts[-1]

    yield make
    for heart in hearts:
        heart.pytest_unconfigure()


def in_test(heart, nodeid="t.py::test_a[mimi-8-small]"):
    """Begin a test, as pytest does."""
    item = SimpleNamespace(nodeid=nodeid, callspec=SimpleNamespace(params={"codec": "mimi-8", "odd": object()}))
    running = heart.pytest_runtest_protocol(item)
    next(running)
    return running


# -- hearts -----------------------------------------------------------------------------------------------------------


def test_a_heart_writes_what_it_counts(tmp_path, make_heart):
    heart = make_heart()
    running = in_test(heart)
    for what, clips, doing in (("beat", 0, "a"), ("made", 8, "b"), ("made", 3, "c"), ("read", 8, "d")):
        heart(what, clips, doing)
    found = read_beats(tmp_path)["gw0"].state
    assert found["pid"] == os.getpid()
    assert read_beats(tmp_path)["gw0"].traced == 0
    assert (found["test"], found["params"]) == ("t.py::test_a[mimi-8-small]", {"codec": "mimi-8"})
    assert (found["made"], found["read"], found["visits"], found["clips"], found["doing"]) == (2, 1, 3, 11, "d")
    with pytest.raises(StopIteration):
        running.send(None)
    found = read_beats(tmp_path)["gw0"].state
    assert (found["test"], found["doing"], found["clips"]) == ("", "", 11)


def test_a_heart_that_does_the_same_writes_seldom(make_heart, monkeypatch):
    heart = make_heart()
    writes = []
    monkeypatch.setattr(heart, "_write", lambda: writes.append(1))
    for _ in range(1000):
        heart("read", 8, "mimi")
    assert len(writes) < 10


def test_a_heart_beats_on_when_the_disk_is_full(tmp_path, make_heart, monkeypatch):
    heart = make_heart()
    heart("beat", 0, "a")
    os.utime(heart.path, (1, 1))
    before = read_beats(tmp_path)["gw0"]

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    heart("beat", 0, "b")
    after = read_beats(tmp_path)["gw0"]
    assert after.state["doing"] == "a"
    assert after.mark != before.mark


def test_a_heart_without_a_folder_is_silent(tmp_path, make_heart):
    make_heart(tmp_path / "none")("made", 8, "a")
    assert read_beats(tmp_path / "none") == {}


def test_folders_of_runs_killed_long_ago_are_removed(tmp_path):
    for name, age_s in (("old", 2 * progress.STALE_S), ("running", 60)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    progress.make_folder(tmp_path / "new")
    assert {path.name for path in tmp_path.iterdir()} == {"running", "new"}


# -- the watchdog -----------------------------------------------------------------------------------------------------


@pytest.fixture
def dog(clock):
    ended, said = [], []
    watchdog = Watchdog(30, ended.append, said.append, clock)
    watchdog.ended, watchdog.said = ended, said
    return watchdog


def test_a_worker_that_is_silent_in_a_test_is_ended_once(dog, clock):
    silent = {"gw0": Beat(state("t", doing="mimi: 4 clips", pid=77), 1)}
    for seconds, ended in ((0, []), (30, []), (31, [77]), (90, [77])):
        clock.now = 100 + seconds
        dog.look(silent)
        assert dog.ended == ended, seconds
    assert dog.reasons == {"gw0": "no sign of life for 30 s (--hang-timeout), at mimi: 4 clips, in t"}
    assert len(dog.said) == 1


def test_a_silent_worker_is_ended_once_its_tracebacks_are_whole(dog, clock):
    """Else it would be ended without them where the machine is busy. What it wrote in an earlier silence is not it."""
    beats = [(1, 0, 0), (1, 31, 0), (1, 32, 50), (2, 33, 50), (2, 64, 50), (2, 65, 70), (2, 66, 90)]
    for mark, seconds, traced in beats:
        clock.now = 100 + seconds
        dog.look({"gw0": Beat(state("t", pid=77), mark, traced)})
        assert dog.ended == [], seconds
    clock.now += 1
    dog.look({"gw0": Beat(state("t", pid=77), 2, 90)})
    assert dog.ended == [77]


def test_a_worker_that_cannot_say_where_it_is_is_ended_a_little_later(dog, clock):
    for seconds, ended in ((0, []), (31, []), (60, []), (61, [77])):
        clock.now = 100 + seconds
        dog.look({"gw0": Beat(state("t", pid=77), 1, 0)})
        assert dog.ended == ended, seconds


def test_signs_of_life_and_idleness_are_no_hang(dog, clock):
    for step in range(100):
        clock.now += 29
        dog.look({"busy": Beat(state("t"), step), "idle": Beat(state(""), 1)})
    assert dog.ended == []


def test_a_timeout_of_zero_ends_nobody(clock):
    dog = Watchdog(0, pytest.fail, pytest.fail, clock)
    for _ in range(3):
        dog.look({"gw0": Beat(state("t"), 1)})
        clock.now += 1e6


def test_where_nobody_can_end_it_a_hang_is_said_once(clock):
    said = []
    dog = Watchdog(30, None, said.append, clock)
    for mark, seconds, count in ((1, 0, 0), (1, 31, 1), (1, 40, 1), (2, 41, 1), (2, 80, 2)):
        clock.now = 100 + seconds
        dog.look({"main": Beat(state("t"), mark)})
        assert len(said) == count, seconds


# -- what is counted --------------------------------------------------------------------------------------------------


@pytest.fixture
def tally(clock):
    tally = Tally({"a": 4, "b": 4, "c": 1}.__getitem__, clock)
    tally.expect(["a", "b", "c"])
    return tally


def test_progress_only_rises_and_ends_full(tally):
    def done(*states):
        return tally.progress(states).done

    assert tally.progress([]).total == 9
    assert done(state("a", 2), state("b", 1)) == 3
    assert done(state("a", 9), state("b", 3)) == 7  # reads its shards twice: no more than its four count
    assert done(state("", 0), state("b", 3)) == 7  # between the end of the test and its report
    tally.end("a")
    assert done(state("", 0), state("b", 3)) == 7
    tally.end("b")  # crashed: its worker's last state stays behind
    assert done(state("c", 0), state("b", 3)) == 8
    tally.end("c")
    assert done() == 9


def test_rates_are_of_the_last_minute(tally, clock):
    tally.end("a")  # in no time: it was in the store
    tally.progress([state("b", 0, 100)])
    clock.now += 10
    found = tally.progress([state("b", 2, 150)])
    assert found.clips_per_s == pytest.approx(5)
    assert found.left_s == pytest.approx(15)  # two shards in 10 s, three to go
    assert (found.rate(), found.left()) == ("5 clips/s", "about 15 s left")


@pytest.mark.parametrize(("seconds", "words"), [(None, ""), (59, "about 59 s left"), (90, "about 2 min left"),
                                                (4200, "about 1 h 10 min left")])  # fmt: skip
def test_what_is_left_in_words(seconds, words):
    assert Progress(1, 2, 3, 4.0, seconds).left() == words


# -- what is shown ----------------------------------------------------------------------------------------------------


def test_lines_are_few_and_only_news(clock):
    file = io.StringIO()
    lines = Lines(file, clock)
    for second in range(40):
        clock.now = 100.0 + second
        lines.show(Progress(min(second, 21), 96, 8, 0.8, 25))
    assert file.getvalue().splitlines() == [
        f"earmark: {done} of 96 shards, 0.8 clips/s, about 25 s left" for done in (10, 20, 21)
    ]


@pytest.mark.parametrize(
    ("terminal", "term", "capture", "verbose", "kind"),
    [
        (True, "xterm", "fd", 0, "Bar"),
        (False, "xterm", "fd", 0, "Lines"),  # a pipe or a file
        (True, "dumb", "fd", 0, "Lines"),
        (True, "xterm", "no", 0, "Lines"),  # what tests print would run through the bar
        (True, "xterm", "fd", -2, "None"),
    ],
)
def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(monkeypatch, terminal, term, capture, verbose, kind):
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: terminal))
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(progress, "_duplicate", lambda descriptor: io.StringIO())
    option = SimpleNamespace(verbose=verbose, capture=capture)
    reporter = SimpleNamespace(_tw=SimpleNamespace(_file=None), hasmarkup=False)
    shown = progress.display_for(reporter, SimpleNamespace(option=option))
    assert (type(shown).__name__ if shown else "None") == kind


def test_the_bar_leaves_what_pytest_writes_as_it_is(monkeypatch):
    """What pytest writes passes unchanged, and takes the bar away first; the bar itself moves the cursor back."""
    written, shown = io.StringIO(), io.StringIO()
    monkeypatch.setattr(progress, "_duplicate", lambda descriptor: shown)
    reporter = SimpleNamespace(_tw=SimpleNamespace(_file=written), hasmarkup=False)
    bar = Bar(reporter)
    reporter._tw._file.write("..")
    bar.show(Progress(3, 12, 24, 2.5, 60))
    drawn = shown.getvalue()
    bar.show(Progress(3, 12, 24, 2.5, 60))
    assert shown.getvalue() == drawn  # nothing new
    assert drawn.startswith(Bar._BELOW)
    assert drawn.endswith(Bar._BACK)
    assert "\n" not in drawn
    for words in ("3/12", "2.5 clips/s", "about 2 min left"):
        assert words in drawn
    reporter._tw._file.write(".F\n")
    assert shown.getvalue() == drawn + Bar._ERASE
    shown.close = lambda: None
    bar.close()
    assert reporter._tw._file is written
    assert written.getvalue() == "...F\n"


def test_a_run_on_a_terminal_has_a_bar_and_one_into_a_file_has_none(tmp_path):
    """A finished run is quick, so the poll is made quicker still."""
    env = user_env(EARMARK_HOME=tmp_path / "home", TERM="xterm")
    env.pop("EARMARK_DATA", None)
    code = "import earmark.progress as p, pytest, sys; p.POLL_S = 0.02; sys.exit(pytest.main(sys.argv[1:]))"
    select = [
        "suites/test_reconstruction.py",
        "--codec",
        "identity",
        "--data",
        "sampler_speech",
        "--limit",
        "4",
        "-k",
        "test_mse",
    ]
    command = [sys.executable, "-c", code, "-p", "no:cacheprovider", "--reports", str(tmp_path / "out"), *select]
    piped = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert piped.returncode == 0, piped.stdout
    assert "\x1b" not in piped.stdout + piped.stderr  # lines at most, where it takes long
    seen = _on_a_terminal(command, env)
    assert re.search(r"\d+/\d+.* shards .*clips/s", seen), seen
    assert seen.count(Bar._BELOW) == seen.count(Bar._BACK)
    assert "1 passed" in seen[seen.rindex(Bar._ERASE) :]
    assert [*(tmp_path / "home" / "runs").iterdir()] == []


def _on_a_terminal(command, env):
    """What a process writes to a terminal of its own."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 65536):
            seen += part
    except OSError:  # Linux: the other side is closed
        pass
    assert process.wait(timeout=PATIENCE_S) == 0, seen.decode()
    os.close(ours)
    return seen.decode()


def test_a_test_weighs_the_shards_of_its_dataset(monkeypatch):
    from earmark.run import Plan, Run

    card = SimpleNamespace(name="small")
    run = Run(Plan.model_construct(cards=[card, SimpleNamespace(name="small_more")], limit=None), None, "cpu")
    shards = {"small": "aabbbc", "small_more": "aa"}
    monkeypatch.setattr(
        Run, "dataset", lambda self, name: SimpleNamespace(clips=[SimpleNamespace(shard=s) for s in shards[name]])
    )
    ids = ("t.py::test_x[mimi-8-small]", "t.py::test_x[mimi-8-small_more]", "t.py::test_y[mimi-8]", "t.py::test_z")
    assert [run.weight(test) for test in ids] == [3, 1, 1, 1]
