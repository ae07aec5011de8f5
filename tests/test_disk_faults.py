"""Disks that fail: one that is full and one that is read-only. A clear error, no broken shard, no score lost.

The real ones are small tmpfs mounts, which take root; elsewhere the writer that raises ENOSPC stands in for them.
"""

import errno
import json
import os
import re
import subprocess

import numpy as np
import pytest

from earmark.codecs import registry
from earmark.data import cards
from earmark.data.manifest import SHARD_CLIPS
from earmark.store import shards
from earmark.store.jobs import sound_job
from earmark.store.shards import Outcome, Shard, StoreError
from earmark.store.store import Store
from earmark.tests import own_codecs
from earmark.tests.helpers import voice, write_dataset

OWN = "earmark.tests.own_codecs"
FULL = r"^infrastructure fault: the store cannot write .*[Nn]o space left on device.*; free some space \(`earmark store"


@pytest.fixture
def disk(tmp_path):
    """Mount a small disk of its own: `disk(bytes)` gives its folder."""
    mounted = []

    def mount(size):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "earmark-test", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("a disk cannot be mounted here: it takes root")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def folder(tmp_path):
    wavs = {f"{i:02}.flac": voice(1.0, 16000, 100 + i) for i in range(SHARD_CLIPS + 4)}
    return write_dataset(tmp_path / "d", wavs, dataset="d", domain="speech", seconds="1.0")


@pytest.fixture
def dataset(folder, monkeypatch):
    monkeypatch.setenv("EARMARK_DATA", str(folder))
    return cards.load(cards.select(["d"])[0])


def halver():
    return registry.find(f"{OWN}:Halver")


def sounds(root, dataset, run="run"):
    return list(Store(root, "cpu", run).outcomes(sound_job(halver()), dataset.clips))


def files(root, *suffixes):
    return sorted(path for path in root.rglob("*") if path.suffix in suffixes)


def read_only(folder):
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def test_a_writer_without_space_leaves_nothing_behind(tmp_path, monkeypatch):
    """The writer gets half of its file down before the disk is full."""

    def save_file(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("safetensors.numpy.save_file", save_file)
    with pytest.raises(StoreError, match=FULL):
        shards.write(tmp_path / "s.safetensors", Shard((Outcome("a", {}, {"wav": np.zeros(9)}),), "run"))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_what_it_had_and_goes_on_when_there_is_space(dataset, disk):
    root = disk("800k")  # the first shard of sound takes 512 kB, beside its tokens of 256 kB; the second has no space
    with pytest.raises(StoreError, match=FULL):
        sounds(root, dataset)
    assert files(root, ".partial", ".attempts") == []
    whole = files(root, ".safetensors")
    assert whole
    assert all(shards.read(path) for path in whole)
    subprocess.run(["mount", "-o", "remount,size=8m", str(root)], check=True)
    own_codecs.Halver.encoded = 0
    assert not any(sound.error for sound in sounds(root, dataset, "later"))
    assert own_codecs.Halver.encoded < len(dataset.clips)


def test_a_disk_that_is_full_from_the_start_says_so(dataset, disk):
    root = disk("64k")
    (root / "filler").write_bytes(bytes(64 * 1024))
    with pytest.raises(StoreError, match=r"^infrastructure fault: the store cannot .*EARMARK_HOME"):
        sounds(root, dataset)
    assert files(root, ".partial", ".attempts", ".safetensors") == []


def test_a_finished_store_is_read_where_nothing_can_be_written(dataset, disk):
    root = disk("8m")
    made = sounds(root, dataset)
    read_only(root)
    own_codecs.Halver.encoded = 0
    for before, after in zip(made, sounds(root, dataset, "later"), strict=True):
        np.testing.assert_array_equal(before.arrays["wav"], after.arrays["wav"])
    assert own_codecs.Halver.encoded == 0


def test_what_a_read_only_store_lacks_is_a_clear_error(dataset, disk):
    root = disk("8m")
    sounds(root, dataset)
    for path in files(root, ".safetensors"):
        path.unlink()
    read_only(root)
    with pytest.raises(
        StoreError, match=r"^infrastructure fault: the store cannot be written to: .*Read-only.*EARMARK_"
    ):
        sounds(root, dataset, "later")


def test_a_read_only_store_stands_in_without_root(dataset, tmp_path, monkeypatch):
    """As above where nothing can be mounted: every way to change a file is refused."""
    made = sounds(tmp_path / "store", dataset)

    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("earmark.store.shards.os.utime", refuse)
    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    monkeypatch.setattr("safetensors.numpy.save_file", refuse)
    assert len(sounds(tmp_path / "store", dataset, "later")) == len(made)
    for path in files(tmp_path / "store", ".safetensors"):
        path.unlink()
    with pytest.raises(StoreError, match=r"^infrastructure fault: the store cannot be written to: .*Read-only"):
        sounds(tmp_path / "store", dataset, "later")


CHOSEN = ("suites/test_reconstruction.py", "--data", "d", "-k", "test_mse or test_loudness or comes_back")


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_a_run_on_a_full_disk_fails_in_few_words_and_keeps_its_scores(disk, tmp_path, folder, earmark_pytest, workers):
    """Sound at 16 kHz of the first codec has space; a shard at 48 kHz of the second is larger than the disk."""
    (tmp_path / "home").symlink_to(disk("1200k"))
    first, both = ("--codec", "identity"), ("--codec", "identity", "--codec", "opus-48")
    if workers:  # neither worker's half of a shard is then in the other's way
        assert earmark_pytest(*CHOSEN, *first, data=folder).returncode in (0, 1)
        (tmp_path / "out" / "scores.jsonl").unlink()
    found = earmark_pytest(*CHOSEN, *both, *workers, data=folder)
    assert found.returncode == 1, found.stdout + found.stderr
    assert re.search(FULL.strip("^"), found.stdout)
    assert {json.loads(line)["codec"] for line in scores(tmp_path)} == {"identity"}
    assert len(scores(tmp_path)) == 3  # mse, mse_aligned, loudness_difference
    assert files(tmp_path / "home", ".partial", ".attempts") == []
    assert "Traceback" not in found.stdout
    assert len(found.stdout.splitlines()) < 60, found.stdout


def scores(tmp_path):
    return (tmp_path / "out" / "scores.jsonl").read_text().splitlines()


def test_a_run_on_a_finished_read_only_store_is_a_run_like_any_other(disk, tmp_path, folder, earmark_pytest):
    home = disk("8m")
    (tmp_path / "home").symlink_to(home)
    made = earmark_pytest(*CHOSEN, "--codec", "identity", data=folder)
    values = sorted(json.loads(line)["value"] or 0.0 for line in scores(tmp_path))
    (tmp_path / "out" / "scores.jsonl").unlink()
    read_only(home)
    read = earmark_pytest(*CHOSEN, "--codec", "identity", data=folder)
    assert read.returncode == made.returncode, read.stdout + read.stderr
    assert sorted(json.loads(line)["value"] or 0.0 for line in scores(tmp_path)) == values
