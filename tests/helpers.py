"""Sounds and datasets made on the spot, for tests that need some."""

from __future__ import annotations

import csv
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).parent.parent
GIT = ("git", "-c", "safe.directory=*")  # also of a checkout that belongs to another user, as in a container
PATIENCE_S = 900  # for a process to end, however busy the machine is; never how long a test takes


def voice(seconds: float, sample_rate: int, pitch_hz: float = 120.0) -> np.ndarray:
    """float32 [L]: a gliding buzz with pauses and a little noise, enough like speech for PESQ to find utterances."""
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    phase = 2 * np.pi * pitch_hz * (time + 0.1 * np.sin(2 * np.pi * 0.7 * time))
    buzz = sum(np.sin(k * phase) / k for k in range(1, 20))
    syllables = np.clip(np.sin(2 * np.pi * 2.3 * time), 0, 1) ** 0.5
    noise = np.random.default_rng(round(pitch_hz)).standard_normal(len(time))
    return (0.15 * (buzz + 0.1 * noise) * syllables + 1e-4 * noise).astype(np.float32)


def write_dataset(folder: Path, wavs: dict[str, np.ndarray], sample_rate: int = 16000, **columns: str) -> Path:
    """A folder with a manifest.csv and one FLAC a wav [L] or [L, C]; columns are the same for every clip."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, wav in wavs.items():
        soundfile.write(folder / name, wav, sample_rate)
        rows.append({"path": name, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()} | columns)
    write_manifest(folder, rows)
    return folder


def read_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write_manifest(folder: Path, rows: list[dict[str, str]]) -> None:
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def three_voices(folder: Path) -> Path:
    """Three clips of speech-like sound by three speakers, as a dataset called `small`."""
    wavs = {f"{pitch}.flac": voice(2.0, 16000, pitch) for pitch in (100, 140, 190)}
    write_dataset(folder, wavs, dataset="small", domain="speech")
    write_manifest(folder, [row | {"speaker": row["path"], "seconds": "2.0"} for row in read_rows(folder)])
    return folder


def user_env(**more: object) -> dict[str, str]:
    """The environment of a run as a user's own: a worker that runs this test is not that run's. more: variables."""
    here = {name: value for name, value in os.environ.items() if name != "PYTEST_XDIST_WORKER"}
    return here | {name: str(value) for name, value in more.items()}


def run_pytest(
    folder: Path, *args: str, data: Path | None = None, cwd: Path = ROOT, timeout: int = PATIENCE_S
) -> subprocess.CompletedProcess:
    """Pytest as a user would run it, in a process of its own, with its home and its reports (`out`) in a folder."""
    env = user_env(EARMARK_HOME=folder / "home", PYTHONWARNINGS="default")
    env.pop("EARMARK_DATA", None)
    if data:
        env["EARMARK_DATA"] = str(data)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--reports", str(folder / "out"), *args]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout)
