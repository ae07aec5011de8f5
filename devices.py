"""One accelerator a worker: a pool that the controller holds, so that a restarted worker gets what a dead one had.

Nothing here imports torch: a worker's CUDA_VISIBLE_DEVICES must be set before that happens.
"""

from __future__ import annotations

import os
from collections import Counter


def visible_gpus() -> list[str]:
    """The CUDA devices that this process may use, as entries for CUDA_VISIBLE_DEVICES; empty where there are none."""
    import pynvml

    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:
        return []
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is None:
        return [str(index) for index in range(count)]
    return [gpu.strip() for gpu in allowed.split(",") if gpu.strip() not in ("", "-1")] if count else []


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
