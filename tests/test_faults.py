"""Faults that really happen: processes are killed and codecs hang, and no score, clip or test is lost for it."""

import collections
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from earmark.data.manifest import SHARD_CLIPS
from earmark.reports.scores import read_scores
from earmark.tests.faulty_codecs import DIES_AT, HANGS_AT, encodes
from earmark.tests.helpers import PATIENCE_S, ROOT, user_env, voice, write_dataset

FAULTY = "earmark.tests.faulty_codecs"
CLIPS = 3 * SHARD_CLIPS
HANG_TIMEOUT = 3  # seconds of a codec that hangs: `faulty_codecs` has the watchdog look at nothing else


class Bench:
    """A home, a dataset of three shards, and runs of two metrics on them in processes of their own."""

    def __init__(self, folder, data):
        self.folder, self.data, self.log = folder, data, folder / "codec.log"
        folder.mkdir(parents=True)

    def start(self, *args, out="out", codec="Slow"):
        """Start pytest in a group of its own; its output goes to a file."""
        env = user_env(EARMARK_HOME=self.folder / "home", EARMARK_DATA=self.data)
        env |= {"EARMARK_TEST_LOG": str(self.log), "PYTHONPATH": str(ROOT.parent)}
        select = ["suites/test_reconstruction.py", "--preset", "paper", "-p", FAULTY]
        select += ["--codec", f"{FAULTY}:{codec}", "-k", "test_mse or test_mel_loss"]
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--reports", str(self.folder / out)]
        with (self.folder / f"{out}.txt").open("w") as output:
            return subprocess.Popen(
                [*command, *select, *args], cwd=ROOT, env=env, stdout=output, stderr=output, start_new_session=True
            )

    def run(self, *args, out="out", codec="Slow"):
        return self.wait(self.start(*args, out=out, codec=codec))

    def wait(self, process):
        try:
            return process.wait(timeout=PATIENCE_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)

    def said(self, out="out"):
        return (self.folder / f"{out}.txt").read_text()

    def scores(self, out="out"):
        """Every measured number, to the bit."""
        found = read_scores(self.folder / out / "scores.jsonl")
        return {s.metric: (s.value, s.ci_low, s.ci_high, s.n, s.failed) for s in found}

    def encodes(self):
        """Process and clip of every call of the codec, in order."""
        return encodes(self.log)

    def wait_for_encodes(self, count):
        """The process that made the last of so many encodes; it has just begun it."""
        deadline = time.monotonic() + PATIENCE_S
        while len(found := self.encodes()) < count:
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.05)
        return found[count - 1][0]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Clips of half a second that are numbered by their first sample."""
    wavs = {}
    for number in range(1, CLIPS + 1):
        wav = voice(0.5, 16000, 90 + 5 * number)
        wav[0] = number / 32768
        wavs[f"{number:02}.flac"] = wav
    return write_dataset(tmp_path_factory.mktemp("numbered") / "data", wavs, dataset="small", domain="speech")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, data):
    """The scores of a run that nothing happened to."""
    bench = Bench(tmp_path_factory.mktemp("undisturbed") / "bench", data)
    assert bench.run() == 0, bench.said()
    assert sorted(number for _, number in bench.encodes()) == [*range(1, CLIPS + 1)]
    assert set(bench.scores()) == {"mel_loss", "mel_loss_aligned", "mse", "mse_aligned"}
    return bench.scores()


@pytest.fixture
def bench(tmp_path, data):
    return Bench(tmp_path / "bench", data)


def times_encoded(bench):
    return collections.Counter(number for _, number in bench.encodes())


def crashes(bench, out="out"):
    """The Allure results of tests that ended with their worker."""
    found = [json.loads(path.read_text()) for path in (bench.folder / out / "allure-results").glob("*-result.json")]
    return [result for result in found if result["status"] == "broken"]


def test_a_worker_killed_in_mid_shard_costs_one_test_and_no_score(bench, undisturbed):
    assert bench.run("-n", "2", codec="Killed") == 1, bench.said()
    assert len(bench.encodes()) >= DIES_AT
    assert "1 failed, 1 passed" in bench.said()
    [crash] = crashes(bench)
    assert crash["statusDetails"]["message"].startswith("infrastructure fault: worker gw")
    assert bench.run(out="again", codec="Killed") == 0, bench.said("again")
    assert bench.scores("again") == undisturbed
    assert sum(times_encoded(bench).values()) <= CLIPS + SHARD_CLIPS
    the_same_test = [json.loads(p.read_text()) for p in (bench.folder / "again/allure-results").glob("*-result.json")]
    [healthy] = [result for result in the_same_test if result["name"] == crash["name"]]
    for same in ("fullName", "historyId", "testCaseId", "titlePath"):
        assert crash[same] == healthy[same]
    kept = {"parentSuite", "suite", "subSuite", "framework", "language", "package", "host"}
    labels = [{(x["name"], x["value"]) for x in r["labels"] if x["name"] in kept} for r in (crash, healthy)]
    assert labels[0] == labels[1]


def test_two_runs_at_once_on_one_store_encode_each_clip_once(bench, undisturbed):
    both = [bench.start(out=out, codec="Together") for out in ("one", "two")]
    assert [bench.wait(process) for process in both] == [0, 0], bench.said("one") + bench.said("two")
    assert bench.scores("one") == bench.scores("two") == undisturbed
    assert set(times_encoded(bench).values()) == {1}
    assert len({pid for pid, _ in bench.encodes()}) == 2  # and both did some of it


def test_a_run_that_was_killed_goes_on_where_it_stopped(bench, undisturbed):
    running = bench.start("-n", "2")
    bench.wait_for_encodes(2 * SHARD_CLIPS + 3)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    time.sleep(0.2)
    before = len(bench.encodes())
    assert bench.run(out="again") == 0, bench.said("again")
    assert bench.scores("again") == undisturbed
    assert len(bench.encodes()) - before <= CLIPS - SHARD_CLIPS  # two workers had begun a shard each


def test_a_codec_that_hangs_loses_one_shard(bench):
    """In Python and in C. A worker is ended, then another that takes up the shard; then the shard is given up."""
    select = ["--codec", f"{FAULTY}:HangsInC", "-k", "test_mse or test_mel_loss or test_si_sdr"]
    code = bench.run("-n", "2", "--hang-timeout", str(HANG_TIMEOUT), *select, codec="HangsInPython")
    said, hung = bench.said(), [crash["statusDetails"] for crash in crashes(bench)]
    assert code == 1, said
    assert said.count("it is ended") == 4, said
    for codec in ("hangs-in-python", "hangs-in-c"):
        reason = f"no sign of life for {HANG_TIMEOUT} s (--hang-timeout), at {codec}: 1 clips"
        assert [reason in details["message"] for details in hung].count(True) == 2, said
        found = [score for score in read_scores(bench.folder / "out/scores.jsonl") if score.codec == codec]
        assert {(score.n, score.failed) for score in found} == {(CLIPS - SHARD_CLIPS, SHARD_CLIPS)}
    assert all("in work" in details["trace"] for details in hung)  # where it hung
    assert said.count("2 workers ended, or hung, while making this shard") >= 2
    assert times_encoded(bench)[HANGS_AT] == 4


def test_without_workers_a_hang_is_said_and_traced(bench):
    running = bench.start("--hang-timeout", str(HANG_TIMEOUT), codec="HangsInPython")
    try:
        silent = f"main: no sign of life for {HANG_TIMEOUT} s (--hang-timeout), at hangs-in-python: 1 clips"
        deadline = time.monotonic() + PATIENCE_S
        while not (silent in bench.said() and "faulty_codecs.py" in bench.said()):  # they come in either order
            assert time.monotonic() < deadline, bench.said()
            time.sleep(0.1)
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
