"""The Ray engine, on a local cluster of two CPUs: the local engine's results, no shard lost, none made twice."""

import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from earmark import Info
from earmark.codecs import registry
from earmark.data import cards
from earmark.data.manifest import SHARD_CLIPS
from earmark.metrics import METRICS
from earmark.reports.scores import read_scores
from earmark.scoring.clips import clip_outcomes
from earmark.store import shards
from earmark.store.jobs import Job, sound_job, tokens_job
from earmark.store.shards import Outcome, StoreError
from earmark.store.store import DEATHS, Store
from earmark.tests import own_codecs
from earmark.tests.helpers import ROOT, voice, write_dataset

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'earmark[ray]'")

HERE, OWN, MARKS = "earmark.tests.test_ray", "earmark.tests.own_codecs", "EARMARK_TEST_MARKS"


class DiesOnce(own_codecs.Same):
    """Ends its process the first time that it is used, and leaves a mark that it did."""

    info = Info(name="dies-once", sample_rate=16000)

    def reconstruct(self, wav, lengths, seed):
        mark = Path(os.environ[MARKS]) / self.info.name
        if not mark.exists():
            mark.touch()
            os._exit(1)
        return wav.clone(), None


class AlwaysDies(own_codecs.Same):
    """Ends its process on every clip that starts with a full-scale sample."""

    info = Info(name="always-dies", sample_rate=16000)

    def reconstruct(self, wav, lengths, seed):
        if float(wav[0, 0, 0]) > 0.9:
            os._exit(1)
        return wav.clone(), None


class RandomWeights(own_codecs.Same):
    """Its weights differ in every process."""

    info = Info(name="random-weights", sample_rate=16000)

    def __init__(self, info, device):
        self.weight = torch.frombuffer(bytearray(os.urandom(4)), dtype=torch.uint8)


def process_ids(store, job, clips):
    """A maker that says which process it ran in, and raises on the loud clip."""
    if any(clip.id == "99.flac" for clip in clips):
        raise LookupError("no such luck")
    return [Outcome(clip.sha256, {"pid": os.getpid()}) for clip in clips]


@pytest.fixture(scope="module", autouse=True)
def no_task_is_killed():
    """By Ray itself, which does so when the memory of the machine is short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_memory_monitor_refresh_ms", "0")
        yield


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster of two CPUs and, in name, two GPUs; connected to."""
    from earmark.store.ray_engine import connect

    marks = tmp_path_factory.mktemp("marks")
    before = os.environ.pop("RAY_ADDRESS", None)
    environment = {"env_vars": {MARKS: str(marks)}}
    ray.init("local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False, runtime_env=environment)
    yield connect(None)
    ray.shutdown()
    os.environ.pop("RAY_ADDRESS", None)
    os.environ |= {"RAY_ADDRESS": before} if before else {}


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Three shards; the last clip of the last one starts at full scale."""
    wavs = {f"{i:02}.flac": voice(0.2, 16000, 100 + i) for i in range(2 * SHARD_CLIPS + 3)}
    wavs["99.flac"] = np.concatenate([[0.99], voice(0.2, 16000, 99)]).astype(np.float32)
    monkeypatch.setenv("EARMARK_DATA", str(write_dataset(tmp_path / "d", wavs, dataset="d", domain="speech")))
    return cards.load(cards.select(["d"])[0])


@pytest.fixture
def stores(tmp_path, cluster):
    """Two stores at different places: one filled by Ray, one here."""
    return Store(tmp_path / "ray", "cpu", "run", engine=cluster), Store(tmp_path / "local", "cpu", "run")


def content(store):
    """Every shard: its address, and its outcomes to the byte (the order of a safetensors header is anybody's)."""
    found = {path.relative_to(store.root): shards.read(path) for path in store.root.rglob("*.safetensors")}
    return {path: [plain(outcome) for outcome in shard.outcomes] for path, shard in found.items()}


def plain(outcome):
    arrays = {name: (str(array.dtype), array.shape, array.tobytes()) for name, array in outcome.arrays.items()}
    return outcome.clip, outcome.facts, arrays, outcome.error


def test_tokens_and_sound_are_the_local_engines_to_the_byte(dataset, stores):
    entry = registry.find(f"{OWN}:Halver")
    for store in stores:
        for job in (tokens_job(entry), sound_job(entry)):
            assert not any(outcome.error for outcome in store.outcomes(job, dataset.clips))
    by_ray, local = map(content, stores)
    assert len(by_ray) == 6
    assert by_ray == local


def test_values_are_the_local_engines(dataset, stores):
    entry = registry.find(f"{OWN}:Halver")
    by_ray, local = (
        [found.facts["value"] for _, found in clip_outcomes(METRICS["mel_loss"], entry, dataset, store)]
        for store in stores
    )
    assert by_ray == local
    assert by_ray[0] > 0
    assert content(stores[0]) == content(stores[1])


def test_a_failing_clip_is_named_and_its_shard_completes(dataset, stores):
    job = sound_job(registry.find(f"{OWN}:RaisesOnOne"))
    found = dict(zip([clip.id for clip in dataset.clips], stores[0].outcomes(job, dataset.clips), strict=True))
    assert [name for name, outcome in found.items() if outcome.error] == ["99.flac"]
    assert "I do not like this clip" in found["99.flac"].error


def test_what_a_maker_raises_comes_with_its_cause_and_the_other_shards_are_there(dataset, stores):
    job = Job(f"{HERE}:process_ids", registry.find(f"{OWN}:Same"), model=False)
    with pytest.raises(LookupError, match="no such luck") as raised:
        stores[0].ensure(job, dataset.clips)
    assert "in process_ids" in str(raised.value.__cause__)  # the traceback in the task
    assert len(stores[0].missing(job, dataset.clips)) == 1
    pids = {outcome.facts["pid"] for outcome in stores[0].outcomes(job, dataset.clips[: 2 * SHARD_CLIPS])}
    assert os.getpid() not in pids


def test_a_finished_job_makes_nothing_and_progress_is_told_once_a_shard(dataset, tmp_path, cluster):
    told, job = [], sound_job(registry.find(f"{OWN}:Same"))
    for run in ("run1", "run2"):
        Store(tmp_path / "s", "cpu", run, cluster, notify=lambda *note: told.append(note)).ensure(job, dataset.clips)
        assert sorted(told) == [("made", 4, "same"), ("made", 8, "same"), ("made", 8, "same")]


def test_a_shard_whose_worker_dies_is_made_by_another(dataset, stores):
    found = list(stores[0].outcomes(sound_job(registry.find(f"{HERE}:DiesOnce")), dataset.clips))
    assert not any(outcome.error for outcome in found)


def test_a_shard_that_ends_every_worker_is_given_up_and_the_run_goes_on(dataset, stores):
    found = list(stores[0].outcomes(sound_job(registry.find(f"{HERE}:AlwaysDies")), dataset.clips))
    failed = [outcome.error for outcome in found if outcome.error]
    assert len(failed) == len(dataset.clips) - 2 * SHARD_CLIPS
    assert f"{DEATHS} workers ended, or hung, while making this shard" in failed[0]


def test_a_shard_that_another_run_is_making_is_waited_for(dataset, stores):
    from filelock import FileLock

    store, job = stores[0], sound_job(registry.find(f"{OWN}:Same"))
    path = next(iter(store.slices(job, dataset.clips)))
    path.parent.mkdir(parents=True)
    waits = threading.Event()
    store.notify = lambda what, clips, doing: waits.set() if doing == "waiting for others at 1 shards" else None
    with ThreadPoolExecutor() as thread, FileLock(path.with_suffix(".lock")):  # which is let go of first
        filled = thread.submit(store.engine, store, job, store.missing(job, dataset.clips))
        while not (waits.wait(0.05) or filled.done()):
            pass
        assert [*store.missing(job, dataset.clips)] == [path]
        assert not filled.done()
    filled.result()
    assert not store.missing(job, dataset.clips)


def test_a_node_whose_codec_is_another_makes_nothing(dataset, stores):
    with pytest.raises(StoreError, match=r"results of random-weights have another address .* on every node"):
        stores[0].ensure(sound_job(registry.find(f"{HERE}:RandomWeights")), dataset.clips)
    assert not content(stores[0])


def test_each_gpu_task_takes_the_gpu_it_is_given(stores, tmp_path, monkeypatch):
    """By Ray's count of GPUs, there being none here: two tasks at once have one each."""
    from earmark.store import ray_engine

    store, job = Store(stores[0].root, "cuda:0", "run"), tokens_job(registry.find(f"{OWN}:Halver"))
    here = tmp_path / "here"
    here.mkdir()

    def device(task):
        (here / str(task)).touch()
        while task in (0, 1) and len(os.listdir(here)) < 2:  # noqa: PTH208 (Ray sends what it refers to)
            time.sleep(0.05)
        return ray_engine._device("cuda:0"), ray.get_runtime_context().get_assigned_resources()

    def options(**taken):
        return ray.remote(device).options(**taken)

    monkeypatch.setattr(ray_engine, "make", type("", (), {"options": staticmethod(options)}))
    both = ray.get([ray_engine._task(store, job).remote(i) for i in range(2)])
    assert sorted(device for device, _ in both) == ["cuda:0", "cuda:1"]
    assert ray.get(ray_engine._task(stores[0], job).remote(2)) == ("cuda:0", {"CPU": 1.0})


OWN_MODULE = f"""
import sys
from pathlib import Path
from {OWN} import Halver

class Mine(Halver):
    def encode(self, *args):
        Path(__file__).with_name("encoded_by").write_text(Path(sys.argv[0]).name)
        return super().encode(*args)
"""


def test_the_suites_score_the_same_by_ray(earmark_pytest, small, tmp_path, monkeypatch):
    """Two workers of pytest-xdist share the cluster that their controller starts; a codec in the user's own folder."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "mine.py").write_text(OWN_MODULE)
    suites = [str(ROOT / "suites"), "-p", "earmark.plugin", "-k", "mel_loss or bitrate"]
    select = [*suites, "--codec", "mine:Mine", "--data", "small"]
    by_ray = scored(earmark_pytest(*select, "--engine", "ray", "-n", "2", data=small, cwd=tmp_path), tmp_path)
    assert (tmp_path / "encoded_by").read_text() == "default_worker.py"  # Ray's, and not pytest
    assert len(by_ray) >= 2
    assert by_ray == scored(earmark_pytest(*select, data=small, cwd=tmp_path), tmp_path)


def scored(done, tmp_path):
    """The scores of a run, which are then taken away with its store."""
    assert done.returncode == 0, done.stdout + done.stderr
    scores = read_scores(tmp_path / "out" / "scores.jsonl")
    for folder in ("out", "home"):
        shutil.rmtree(tmp_path / folder)
    return {(score.codec, score.metric): (score.value, score.ci_low, score.n, score.failed) for score in scores}
