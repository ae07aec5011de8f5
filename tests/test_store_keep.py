"""The store kept in hand: what lies there, what goes first, what never goes, and how that is said."""

import errno
import os
import time

import numpy as np
import pytest
from filelock import FileLock
from typer.testing import CliRunner

from earmark.cli import app
from earmark.store import keep, shards
from earmark.store.shards import Outcome, Shard, StoreError

DAY_S = 86400
PLACES = {  # codec / fingerprint / job / shard: days since its last use
    "opus/aa/job/old": 40,
    "opus/aa/job/mid": 20,
    "opus/bb/job/new": 1,
    "mimi/cc/job/mid": 30,
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path))
    monkeypatch.delenv(keep.LIMIT, raising=False)
    for place, days in PLACES.items():
        path = tmp_path / "store" / f"{place}.safetensors"
        shards.write(path, Shard((Outcome("clip", {}, {"wav": np.zeros(1000, np.float32)}),), "run"))
        age(path, days * DAY_S)
    return tmp_path / "store"


def age(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


def left(root):
    return {str(path.relative_to(root).with_suffix("")) for path in root.rglob("*.safetensors")}


def earmark(*arguments):
    found = CliRunner().invoke(app, ["store", *arguments])
    return found.exit_code, found.output


def one_size(root):
    return keep.stored(root)[0].size


def test_groups_are_codecs_and_fingerprints(root):
    found = [(group.codec, group.fingerprint, group.shards) for group in keep.groups(root)]
    assert found == [("mimi", "cc", 1), ("opus", "bb", 1), ("opus", "aa", 2)]  # of one codec, the last used first
    assert keep.groups(root)[2].size == 2 * one_size(root)


def test_the_least_recently_used_shards_go_first(root):
    pruned = keep.prune(root, max_size=2 * one_size(root))
    assert left(root) == {"opus/aa/job/mid", "opus/bb/job/new"}  # 20 days and 1; those of 40 and 30 went
    assert (pruned.shards, pruned.freed) == (2, 2 * one_size(root))
    assert not (root / "mimi").exists()  # nor are empty folders left


def test_reading_a_shard_is_using_it(root):
    shards.read(root / "opus/aa/job/old.safetensors")
    keep.prune(root, max_size=1 * one_size(root))
    assert left(root) == {"opus/aa/job/old"}


@pytest.mark.parametrize(
    ("asked", "gone"),
    [
        ({"codec": "opus"}, {"opus/aa/job/old", "opus/aa/job/mid", "opus/bb/job/new"}),
        ({"older_than_s": 25 * DAY_S}, {"opus/aa/job/old", "mimi/cc/job/mid"}),
        ({"older_than_s": 25 * DAY_S, "codec": "opus"}, {"opus/aa/job/old"}),
        ({"max_size": 10**9}, set()),
        ({"max_size": 0}, set(PLACES)),
        ({"max_size": 0, "codec": "mimi"}, {"mimi/cc/job/mid"}),
        ({}, set()),
    ],
)
def test_only_what_all_conditions_name_goes(root, asked, gone):
    tried = keep.prune(root, **asked, dry_run=True)
    assert left(root) == set(PLACES)
    assert keep.prune(root, **asked) == tried
    assert left(root) == set(PLACES) - gone


def test_a_shard_that_is_in_use_stays(root):
    with FileLock(root / "opus/aa/job/old.lock"):
        pruned = keep.prune(root, max_size=0)
    assert left(root) == {"opus/aa/job/old"}
    assert (pruned.shards, pruned.held) == (3, 1)


def test_leftovers_of_dead_runs_go_and_those_of_a_living_one_stay(root):
    folder = root / "opus/aa/job"
    names = ["x.safetensors.123.partial", "x.lock", "x.attempts", "y.safetensors.123.partial", "y.lock", "y.attempts"]
    for name in names:
        (folder / name).touch()
        age(folder / name, 2 * keep.STALE_S)
    (folder / "z.attempts").touch()  # written just now
    with FileLock(folder / "y.lock"):
        os.utime(folder / "y.lock", (0, 0))
        assert keep.prune(root).leftovers == 3
    assert {path.name for path in folder.iterdir() if path.suffix != ".safetensors"} == {*names[3:], "z.attempts"}


def test_a_limit_is_enforced_at_the_end_of_a_run(root, monkeypatch):
    assert keep.enforce(root, keep.limit()) == 0
    monkeypatch.setenv(keep.LIMIT, "5kB")
    assert keep.enforce(root, keep.limit()) == 3 * one_size(root)  # a shard is a little more than 4 kB
    assert left(root) == {"opus/bb/job/new"}


def test_a_store_that_cannot_be_written_to_stays_as_it_is(root, monkeypatch):
    def refuse(self, missing_ok=False):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("pathlib.Path.unlink", refuse)
    assert keep.enforce(root, 0) == 0
    with pytest.raises(StoreError, match=r"^infrastructure fault: the store cannot be pruned: .*Read-only.*; run it"):
        keep.prune(root, max_size=0)
    assert left(root) == set(PLACES)


def test_an_empty_store_is_no_error(tmp_path):
    assert keep.groups(tmp_path / "none") == []
    assert keep.prune(tmp_path / "none", max_size=0) == keep.Pruned()


@pytest.mark.parametrize("text", ["", "GB", "20XB", "-3GB", "20GB more", "1e3", "nan"])
def test_a_bad_size_is_a_clear_error(text, monkeypatch):
    with pytest.raises(ValueError, match=r"is not a size; expected a number and a unit, like 500MB"):
        keep.parse_size(text)
    monkeypatch.setenv(keep.LIMIT, text)
    if text:
        with pytest.raises(ValueError, match=r"EARMARK_STORE_MAX: .* is not a size"):
            keep.limit()


@pytest.mark.parametrize("text", ["30", "d", "30y", "-1d"])
def test_a_bad_age_is_a_clear_error(text):
    with pytest.raises(ValueError, match="is not an age; expected a number and one of"):
        keep.parse_age_s(text)


def test_the_command_lists_and_weighs(root, monkeypatch):
    monkeypatch.setenv(keep.LIMIT, "50GB")
    code, output = earmark("ls")
    assert code == 0
    rows = [line.split("│")[1:5] for line in output.splitlines() if "│" in line]
    assert [[cell.strip() for cell in row[:2]] for row in rows] == [["mimi", "cc"], ["opus", "bb"], ["opus", "aa"]]
    assert rows[2][2].strip() == keep.human_size(2 * one_size(root))
    code, output = earmark("size")
    assert code == 0
    assert f"{keep.human_size(4 * one_size(root))} in 4 shards, at most 50.0 GB (EARMARK_STORE_MAX)" in output


def test_the_command_prunes_and_says_what_it_freed(root, monkeypatch):
    code, output = earmark("prune", "--older-than", "30.5d", "--dry-run")
    assert (code, output) == (0, f"would free {keep.human_size(one_size(root))}: 1 shards, 0 leftovers\n")
    assert left(root) == set(PLACES)
    code, output = earmark("prune", "--max-size", "0")
    assert (code, output.startswith("freed 1")) == (0, True)
    assert left(root) == set()


def test_prune_without_conditions_asks_for_some_unless_there_is_a_limit(root, monkeypatch):
    assert "say which shards may go: --max-size 20GB" in earmark("prune")[1]
    assert left(root) == set(PLACES)
    monkeypatch.setenv(keep.LIMIT, "5kB")
    assert "3 shards" in earmark("prune")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-size", "20XB"], "error: '20XB' is not a size"),
        (["--older-than", "soon"], "error: 'soon' is not an age"),
        (["--codec", "opu"], "error: the store has nothing of opu; did you mean opus?"),
    ],
)
def test_the_command_explains_what_it_cannot_read(root, arguments, message):
    code, output = earmark("prune", *arguments)
    assert code == 1
    assert message in output
    assert left(root) == set(PLACES)
