"""The processes beside a worker: the same values as alone, to the byte; one that dies costs a shard at most."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from pathlib import Path
from types import SimpleNamespace

import pytest

from earmark import planning
from earmark.codecs import registry
from earmark.data import cards
from earmark.data.manifest import SHARD_CLIPS
from earmark.metrics import METRICS
from earmark.scoring.clips import clip_outcomes, value_job
from earmark.store import pool
from earmark.store.jobs import Job, sound_job
from earmark.store.pool import FEWEST, Pool
from earmark.store.shards import Outcome
from earmark.store.store import Store
from earmark.tests.helpers import voice, write_dataset

OWN = "earmark.tests.own_codecs"


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """As many shards as are worth a pool."""
    wavs = {f"{i:03}.flac": voice(0.3, 16000, 80 + i) for i in range(FEWEST * SHARD_CLIPS)}
    monkeypatch.setenv("EARMARK_DATA", str(write_dataset(tmp_path / "d", wavs, dataset="d", domain="speech")))
    return cards.load(cards.select(["d"])[0])


@pytest.fixture
def two():
    engine = Pool(2)
    yield engine
    engine.close()


def who(store, job, clips):
    """A maker that says which process it ran in."""
    return [Outcome(clip.sha256, {"pid": os.getpid()}) for clip in clips]


def dies_at_first(store, job, clips):
    """A maker that ends its process on the first clip, whenever it comes to it."""
    if any(clip.id == "000.flac" for clip in clips):
        os.kill(os.getpid(), signal.SIGKILL)
    return who(store, job, clips)


def test_values_are_those_of_the_worker_alone(dataset, two, tmp_path):
    metric, entry = METRICS["mse"], registry.find(f"{OWN}:Halver")
    stores = [Store(tmp_path / "pool", "cpu", "run", engine=two), Store(tmp_path / "alone", "cpu", "run")]
    by_pool, alone = ([found for _, found in clip_outcomes(metric, entry, dataset, store)] for store in stores)
    assert by_pool == alone
    assert two._executor is not None
    assert not stores[0].missing(value_job(metric, entry), dataset.clips)


def test_a_job_without_a_model_runs_in_other_processes_and_one_with_it_here(dataset, two, tmp_path):
    made = []
    store = Store(tmp_path / "s", "cpu", "run", engine=two, notify=lambda *what: made.append(what))
    entry = registry.find("uniform-8bit")
    job = Job("earmark.tests.test_pool:who", entry, model=False)
    pids = {outcome.facts["pid"] for outcome in store.outcomes(job, dataset.clips)}
    assert os.getpid() not in pids
    assert [what for what, _, _ in made].count("made") == FEWEST
    assert {outcome.error for outcome in store.outcomes(sound_job(entry), dataset.clips)} == {None}
    of_a_codec = Job("earmark.tests.test_pool:who", entry, detail="with its model")
    assert {outcome.facts["pid"] for outcome in store.outcomes(of_a_codec, dataset.clips)} == {os.getpid()}


def test_few_shards_are_not_worth_a_pool(dataset, two, tmp_path):
    store = Store(tmp_path / "s", "cpu", "run", engine=two)
    job = Job("earmark.tests.test_pool:who", registry.find("uniform-8bit"), model=False)
    clips = dataset.clips[: SHARD_CLIPS * (FEWEST - 1)]
    assert {outcome.facts["pid"] for outcome in store.outcomes(job, clips)} == {os.getpid()}
    assert two._executor is None


def test_a_process_that_dies_costs_its_shard(dataset, two, tmp_path):
    store = Store(tmp_path / "s", "cpu", "run", engine=two)
    job = Job("earmark.tests.test_pool:dies_at_first", registry.find("uniform-8bit"), model=False)
    outcomes = [*store.outcomes(job, dataset.clips)]
    failed = [outcome for outcome in outcomes if outcome.error]
    assert len(failed) == SHARD_CLIPS
    assert all("2 workers ended, or hung" in outcome.error for outcome in failed)


def test_a_process_that_dies_while_shards_are_still_handed_out_costs_its_shard(dataset, two, tmp_path, monkeypatch):
    """The executor then takes no more of them: an error of `submit`, and not of a result."""
    handed, submit = [], ProcessPoolExecutor.submit

    def once_broken(executor, *given):
        handed.append(submit(executor, *given))
        if len(handed) == FEWEST - 1:
            wait(handed, return_when=FIRST_EXCEPTION)
        return handed[-1]

    monkeypatch.setattr(ProcessPoolExecutor, "submit", once_broken)
    store = Store(tmp_path / "s", "cpu", "run", engine=two)
    job = Job("earmark.tests.test_pool:dies_at_first", registry.find("uniform-8bit"), model=False)
    assert sum(outcome.error is not None for outcome in store.outcomes(job, dataset.clips)) == SHARD_CLIPS


def test_the_processes_end_when_their_worker_is_killed(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(
        "import os, time\nfrom earmark.store.pool import Pool\n"
        "if __name__ == '__main__':\n"
        "    engine = Pool(2)\n"
        "    pid = engine._running().submit(os.getpid).result()\n"
        "    print(pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    worker = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    child = int(worker.stdout.readline())
    worker.kill()
    worker.wait()
    worker.stdout.close()
    deadline = time.monotonic() + 300
    while _alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(child)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # also one that ends as it is read
        return False
    return state.rpartition(")")[2].split()[0] not in "ZX"


def test_the_engine_has_no_more_processes_than_the_memory_is_good_for(monkeypatch):
    monkeypatch.setattr(planning, "cores_of", lambda workers: 64 // workers)
    config = SimpleNamespace(option=SimpleNamespace(engine="local"), workerinput={"workercount": 2})
    assert planning._engine(config).processes == pool.MOST
    config.workerinput["workercount"] = 8
    assert planning._engine(config).processes == 8
