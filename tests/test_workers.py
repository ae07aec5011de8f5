"""Workers and devices through the plugin's hooks, with stand-in device lists."""

import os
from types import SimpleNamespace

import pytest

from earmark import plugin
from earmark.tests.helpers import ROOT


@pytest.fixture
def nodes(monkeypatch):
    """`nodes(name)`: a worker's node as xdist gives it to the hooks, of one run on a machine with four GPUs."""
    monkeypatch.setattr(plugin, "_runs_suites", lambda config: True)
    monkeypatch.setattr(plugin, "visible_gpus", lambda: ["0", "1", "2", "3"])
    monkeypatch.setattr(plugin, "run_of", lambda config: SimpleNamespace(plan=SimpleNamespace(model_dump_json=str)))
    config = SimpleNamespace(stash=pytest.Stash(), option=SimpleNamespace(device=None))
    return lambda name: SimpleNamespace(config=config, gateway=SimpleNamespace(id=name), workerinput={})


def device_of(node):
    plugin.pytest_configure_node(node)
    return node.workerinput["earmark_gpu"]


def test_n_auto_is_the_number_of_gpus(nodes, monkeypatch):
    assert plugin.pytest_xdist_auto_num_workers(nodes("gw0").config) == 4
    monkeypatch.setattr(plugin, "visible_gpus", list)
    assert plugin.pytest_xdist_auto_num_workers(nodes("gw0").config) is None  # xdist's own way


def test_n_auto_follows_the_device_that_was_named(nodes):
    """One GPU that is named is not for four workers, and the CPU is for as many as it has cores."""
    config = nodes("gw0").config
    for device, workers in (("cuda", 4), ("cuda:1", 1), ("cpu", None)):
        config.option.device = device
        assert plugin.pytest_xdist_auto_num_workers(config) == workers


def test_every_worker_has_a_device_and_a_replacement_that_of_the_dead(nodes):
    workers = [nodes(f"gw{index}") for index in range(4)]
    assert [device_of(node) for node in workers] == ["0", "1", "2", "3"]
    plugin.pytest_testnodedown(workers[2])
    assert device_of(nodes("gw4")) == "2"


@pytest.mark.parametrize(("workers", "threads"), [(0, None), (2, "32"), (8, "8"), (100, "1")])
def test_threads_are_shared_out_by_the_cores_that_the_process_may_use(monkeypatch, workers, threads):
    """64 of the machine's 128: a worker of eight with 16 threads would have two threads a core."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(os, "cpu_count", lambda: 128)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    plugin._share_cores(workers)
    assert os.environ["OMP_NUM_THREADS"] == "3"
    monkeypatch.delenv("OMP_NUM_THREADS")
    plugin._share_cores(workers)
    assert os.environ.pop("OMP_NUM_THREADS", None) == threads


def test_a_device_that_was_named_is_not_shared_out(nodes):
    node = nodes("gw0")
    node.config.option.device = "cuda:1"
    assert device_of(node) is None


def test_a_replaced_worker_has_its_device_before_torch_is_imported(earmark_pytest, monkeypatch, small, tmp_path):
    """-n auto on a machine with two stand-in GPUs, where the first worker to begin a test is killed."""
    monkeypatch.setenv("EARMARK_TEST_LOG", str(tmp_path / "workers.log"))
    codecs = [word for bitrate in (6, 12, 24) for word in ("--codec", f"opus-{bitrate}")]
    select = ["suites/test_available.py", "-k", "opus", *codecs, "-n", "auto", "-p", "earmark.tests.standin_gpus"]
    done = earmark_pytest(*select, data=small)
    assert "1 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    lines = [line.split() for line in (tmp_path / "workers.log").read_text().splitlines()]
    given = {worker: (device, torch) for what, worker, *rest in lines if what == "started" for device, torch in [rest]}
    assert {given[worker] for worker in ("gw0", "gw1")} == {("5", "False"), ("GPU-3f", "False")}
    [[_, dead]] = [line for line in lines if line[0] == "killed"]
    assert given["gw2"] == given[dead]


def test_a_run_outlives_its_workers_however_many_crash(earmark_pytest, monkeypatch, small, tmp_path):
    """Each costs its test. By its own default, pytest-xdist ends the whole run at the fifth crash of one worker."""
    (tmp_path / "crashes.py").write_text("import os\ndef pytest_runtest_call(item): os._exit(1)\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT.parent)]))
    select = ["suites/test_available.py", "--codec", "opus-6,opus-12,opus-24,opus-48,opus-96,identity"]
    done = earmark_pytest(*select, "-k", "opus or identity", "-n", "1", "-p", "crashes", data=small)
    assert "6 failed" in done.stdout, done.stdout + done.stderr
