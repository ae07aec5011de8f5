"""What the project's own tests share: a home of their own, a tiny dataset, and the real recordings where they are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from earmark.tests.helpers import ROOT, read_rows, voice, write_dataset, write_manifest

SHARED = ROOT.parent / "shared"

settings.register_profile("earmark", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("earmark")

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here may reach a model hub
for variable, folder in {"EARMARK_DATA": SHARED / "data", "EARMARK_WEIGHTS": SHARED / "weights"}.items():
    if folder.is_dir():
        os.environ.setdefault(variable, str(folder))


@pytest.fixture
def real() -> Path:
    """The folder of real recordings; tests that need it are skipped where it is not."""
    folder = os.environ.get("EARMARK_DATA")
    if not folder:
        pytest.skip("EARMARK_DATA is not set: real recordings are needed")
    return Path(folder)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Three clips of speech-like sound by three speakers, as a dataset called `small`."""
    wavs = {f"{pitch}.flac": voice(2.0, 16000, pitch) for pitch in (100, 140, 190)}
    folder = write_dataset(tmp_path / "data", wavs, dataset="small", domain="speech")
    write_manifest(folder, [row | {"speaker": row["path"], "seconds": "2.0"} for row in read_rows(folder)])
    return folder


@pytest.fixture
def earmark_pytest(tmp_path: Path):
    """Run pytest as a user would, in a process of its own: `run(*args, data=folder)` gives the completed process."""

    def run(*args: str, data: Path | None = None, cwd: Path = ROOT, timeout: int = 240) -> subprocess.CompletedProcess:
        env = os.environ | {"EARMARK_HOME": str(tmp_path / "home"), "PYTHONWARNINGS": "default"}
        env.pop("EARMARK_DATA", None)
        env.pop("PYTEST_XDIST_WORKER", None)
        if data:
            env["EARMARK_DATA"] = str(data)
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--reports", str(tmp_path / "out"), *args]
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout)

    return run


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread: two of one test wait for each other on a busy machine, and sums are in one order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def inference(one_thread: None) -> Iterator[None]:
    """No gradients, and one thread."""
    import torch

    with torch.inference_mode():
        yield
