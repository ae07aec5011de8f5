"""What the project's own tests share: a home of their own, a tiny dataset, and the real recordings where they are."""

from __future__ import annotations

import functools
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from earmark.tests.helpers import ROOT, run_pytest, three_voices

SHARED = ROOT.parent / "shared"

# How long an example takes says how busy the machine is. And the same examples are tried everywhere: one that fails
# is seen where it was broken, and not some day by somebody else.
settings.register_profile(
    "earmark", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True, database=None
)
settings.load_profile("earmark")

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here may reach a model hub
os.environ["OMP_NUM_THREADS"] = "1"  # workers share the cores, and sums are in one order whoever runs them
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each process that a test starts compiles everything anew
for variable in ("COLUMNS", "FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "PYTEST_ADDOPTS"):
    os.environ.pop(variable, None)  # what is printed is compared, by these processes too
for variable, folder in {"EARMARK_DATA": SHARED / "data", "EARMARK_WEIGHTS": SHARED / "weights"}.items():
    if folder.is_dir():
        os.environ.setdefault(variable, str(folder))


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """What a test draws from the global generators is the same, whichever tests ran before it."""
    random.seed(0)
    np.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


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
    return three_voices(tmp_path / "data")


@pytest.fixture
def earmark_pytest(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Run pytest as a user would, in a process of its own: `run(*args, data=folder)` gives the completed process."""
    return functools.partial(run_pytest, tmp_path)


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
