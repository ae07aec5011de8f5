"""One accelerator a worker: a pool that the controller holds, so that a restarted worker gets what a dead one had.
And its share of the cores.

Nothing here imports torch: a worker's CUDA_VISIBLE_DEVICES must be set before that happens.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import os
from collections import Counter


def visible_gpus() -> list[str]:
    """The CUDA devices that this process may use, as entries for CUDA_VISIBLE_DEVICES; empty where there are none.

    None where torch is built for the CPU alone. A GPU that is cut up (MIG) counts as its instances: a process sees one.
    """
    import pynvml

    if importlib.metadata.version("torch").endswith("+cpu"):
        return []
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
        if allowed is None:
            return [name for index in range(count) for name in _instances(index)]
    except pynvml.NVMLError:
        return []
    return _allowed(allowed, count)


def _instances(index: int) -> list[str]:
    """A GPU as CUDA_VISIBLE_DEVICES names it: by its number, or where it is cut up by the ids of its instances."""
    import pynvml

    gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
    try:
        if not pynvml.nvmlDeviceGetMigMode(gpu)[0]:
            return [str(index)]
    except pynvml.NVMLError:  # one that cannot be cut up
        return [str(index)]
    found = []
    for place in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu)):
        try:
            found.append(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, place)))
        except pynvml.NVMLError:  # no instance there
            continue
    return found


def _allowed(devices: str, count: int) -> list[str]:
    """The devices that CUDA_VISIBLE_DEVICES names, on a machine with so many GPUs.

    Like CUDA, it reads up to the first that is none: `-1`, a number too high, Slurm's `NoDevFiles`. One that is named
    twice makes the whole choice void: no device at all (torch.cuda's `_parse_visible_devices` reads it so too).
    """
    named = (device.strip() for device in devices.split(","))
    found = [*itertools.takewhile(lambda device: _is_device(device, count), named)] if count else []
    different = {int(device) if device.isdecimal() else device for device in found}
    return found if len(different) == len(found) else []


def _is_device(name: str, count: int) -> bool:
    return name.startswith(("GPU-", "MIG-")) or (name.isdecimal() and int(name) < count)


def cores_of(workers: int) -> int:
    """The cores that each of so many workers may use, of those that this process may: a container's, a job's."""
    may_use = getattr(os, "sched_getaffinity", None)  # macOS has none
    return (len(may_use(0)) if may_use else os.cpu_count() or 1) // max(workers, 1)


class DevicePool:
    """Hands the least used device to each worker, and takes it back when the worker ends or dies."""

    def __init__(self, devices: list[str]) -> None:
        self._users = Counter(dict.fromkeys(devices, 0))
        self._held: dict[str, str] = {}

    def take(self, worker: str) -> str | None:
        """A device for a worker; None where there are none. Shared only when workers outnumber devices."""
        if not self._users:
            return None
        device = min(self._users, key=lambda name: self._users[name])
        self._users[device] += 1
        self._held[worker] = device
        return device

    def give_back(self, worker: str) -> None:
        device = self._held.pop(worker, None)
        if device is not None:
            self._users[device] -= 1
