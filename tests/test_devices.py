"""The device pool, with stand-in device lists; the cores of a worker."""

import importlib.metadata
import os

import pynvml
import pytest

from earmark.devices import DevicePool, cores_of, visible_gpus


def test_each_worker_gets_a_device_of_its_own():
    pool = DevicePool([str(index) for index in range(8)])
    assert {pool.take(f"gw{index}") for index in range(8)} == {str(index) for index in range(8)}


def test_the_replacement_of_a_dead_worker_gets_its_device():
    """xdist numbers a replacement anew (gw8 for gw3): by number it would share another's GPU."""
    pool = DevicePool(["0", "1", "2", "3"])
    held = {worker: pool.take(worker) for worker in ("gw0", "gw1", "gw2", "gw3")}
    pool.give_back("gw2")
    assert pool.take("gw4") == held["gw2"]


def test_more_workers_than_devices_share_evenly():
    pool = DevicePool(["a", "b"])
    taken = [pool.take(f"gw{index}") for index in range(6)]
    assert sorted(taken) == ["a", "a", "a", "b", "b", "b"]


def test_without_devices_there_is_none():
    pool = DevicePool([])
    assert pool.take("gw0") is None
    pool.give_back("gw0")


@pytest.fixture
def gpus(monkeypatch):
    """`gpus(count, instances, allowed)`: stand-in GPUs for NVIDIA's library, some of them cut into instances (MIG)."""

    def put(count, instances=None, allowed=None):
        def of(index, place=None):
            found = (instances or {}).get(index)
            if found is None or (place is not None and place >= len(found)):
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
            return found[place] if place is not None else (pynvml.NVML_DEVICE_MIG_ENABLE, 0)

        stand_ins = {
            "nvmlInit": lambda: None,
            "nvmlDeviceGetCount": lambda: count,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetMigMode": of,
            "nvmlDeviceGetMaxMigDeviceCount": lambda index: 7,
            "nvmlDeviceGetMigDeviceHandleByIndex": of,
            "nvmlDeviceGetUUID": lambda name: name,
        }
        for name, stand_in in stand_ins.items():
            monkeypatch.setattr(pynvml, name, stand_in)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if allowed is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allowed)
        return visible_gpus()

    return put


def test_the_callers_own_choice_of_devices_is_kept(gpus):
    assert gpus(8) == [str(index) for index in range(8)]
    assert gpus(8, allowed="5, GPU-3f") == ["5", "GPU-3f"]
    assert gpus(8, allowed="MIG-1,MIG-2") == ["MIG-1", "MIG-2"]
    assert gpus(8, allowed="") == []


@pytest.mark.parametrize("allowed", ["4,5,-1,6", "4,5,8", "4,5,NoDevFiles", "4,5,,6"])
def test_a_choice_is_read_up_to_the_first_that_is_no_device(gpus, allowed):
    """As CUDA reads it: a worker with a device that CUDA does not see would fail all its tests."""
    assert gpus(8, allowed=allowed) == ["4", "5"]


@pytest.mark.parametrize("allowed", ["4,4", "4,5,04", "GPU-3f,GPU-3f", "4,5,4,-1"])
def test_a_device_named_twice_is_no_device_at_all(gpus, allowed):
    """As CUDA reads it: two workers would each be given what CUDA gives to nobody."""
    assert gpus(8, allowed=allowed) == []
    assert gpus(8, allowed="4,-1,4") == ["4"]  # what comes after the end is not read


def test_a_job_that_was_given_no_gpu_has_none(gpus):
    assert gpus(8, allowed="NoDevFiles") == []  # Slurm's words
    assert gpus(8, allowed="-1") == []


def test_a_gpu_that_is_cut_up_counts_as_its_instances(gpus):
    """A process sees one instance only, and by its id: "1" would name the second GPU of one that sees one."""
    assert gpus(3, {0: ["MIG-a", "MIG-b"], 2: []}) == ["MIG-a", "MIG-b", "1"]


def test_a_torch_for_the_cpu_alone_uses_no_gpu(gpus, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.11.0+cpu")
    assert gpus(2) == []


def test_cores_are_those_that_the_process_may_use_shared_out(monkeypatch):
    """A container of 64 cores on a machine of 128."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(os, "cpu_count", lambda: 128)
    assert [cores_of(workers) for workers in (0, 1, 8, 100)] == [64, 64, 8, 0]
