"""The device pool, with stand-in device lists."""

from earmark.devices import DevicePool, visible_gpus


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


def test_the_callers_own_choice_of_devices_is_kept(monkeypatch):
    pynvml = __import__("pynvml")
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 8)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == [str(index) for index in range(8)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-3f")
    assert visible_gpus() == ["5", "GPU-3f"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []
