"""Two runs compared: what counts as worse, by hand, by property, and as a codec author meets it."""

import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from earmark.reports.compare import Baseline, compare, describe, holm
from earmark.reports.scores import Score, append_scores, write_clips
from earmark.tests.helpers import ROOT, read_rows, voice, write_dataset, write_manifest

PLAIN = Score("c", "s", "d", "pesq_wb", 3.0, "MOS", True, 2.9, 3.1, "", 8, 0, dataset_fingerprint="f")


def rows(values, groups=None):
    names = [f"{i}" for i in range(len(values))]
    return {
        name: {"clip": name, "group": group, "value": value, "error": None if value is not None else "it broke"}
        for name, group, value in zip(names, groups or names, values, strict=True)
    }


def judged(before, after, margin=0.02, groups=None, **changed):
    old = replace(PLAIN, value=3.0, **changed)
    return holm([compare(old, replace(old, value=2.9), rows(before, groups), rows(after, groups), margin)])[0]


BEFORE = [3.0, 3.1, 2.9, 3.2, 3.0, 2.8, 3.1, 3.3]


def test_the_same_values_are_no_regression():
    found = judged(BEFORE, BEFORE, margin=0.0)
    assert (found.difference, found.p, found.regressed, found.improved) == (0.0, 1.0, False, False)


def test_every_clip_a_tenth_worse_is_a_regression_and_better_is_none():
    found = judged(BEFORE, [value - 0.1 for value in BEFORE])
    assert found.regressed
    assert (found.difference, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))  # each clip alike: no spread
    better = judged(BEFORE, [value + 0.1 for value in BEFORE])
    assert better.improved
    assert not better.regressed


def test_of_a_metric_that_is_better_lower_a_higher_value_is_worse():
    assert judged(BEFORE, [value + 0.1 for value in BEFORE], higher_is_better=False).regressed


def test_within_the_margin_is_as_before():
    assert not judged(BEFORE, [value - 0.1 for value in BEFORE], margin=0.11).regressed


def test_differences_about_zero_are_chance():
    change = [0.3, -0.3, 0.2, -0.2, 0.1, -0.1, 0.25, -0.2]
    found = judged(BEFORE, [value + c for value, c in zip(BEFORE, change, strict=True)], margin=0.0)
    assert found.low < 0 < found.high
    assert not found.regressed


def test_clips_of_one_speaker_count_as_one():
    """Eight clips of two speakers cannot be judged, however much worse they are."""
    found = judged(BEFORE, [value - 1 for value in BEFORE], groups=list("aaaabbbb"))
    assert "2 groups of clips are too few" in found.skipped
    assert not found.regressed


def test_the_interval_covers_the_true_difference():
    """Of 200 draws with a true difference of .1, about 95 % of the intervals hold it."""
    draw, held = np.random.default_rng(0), 0
    for _ in range(200):
        before = draw.normal(3, 0.5, 30)
        found = judged(list(before), list(before - draw.normal(0.1, 0.2, 30)))
        held += found.low <= 0.1 <= found.high
    assert 0.9 <= held / 200 <= 0.99


def test_no_change_is_seldom_called_one():
    """Of 200 runs of 20 metrics that only vary by chance, at most about 5 % say that anything is worse."""
    draw, wrong = np.random.default_rng(1), 0
    for _ in range(60):
        found = []
        for _ in range(20):
            before = draw.normal(3, 0.5, 24)
            after = before + draw.normal(0, 0.2, 24)
            found.append(compare(PLAIN, PLAIN, rows(list(before)), rows(list(after)), 0.0))
        wrong += any(c.regressed for c in holm(found))
    assert wrong / 60 <= 0.15


def test_holm_by_hand():
    """p .01 .04 .03 of three: .01 x 3, .03 x 2, then no less than that."""
    plain = compare(PLAIN, PLAIN, rows(BEFORE), rows(BEFORE), 0.0)
    found = holm([replace(plain, p=p) for p in (0.01, 0.04, 0.03)])
    assert [c.holm for c in found] == pytest.approx([0.03, 0.06, 0.06])


def test_a_clip_that_fails_now_is_a_regression_by_itself():
    after = [*BEFORE[:-1], None]
    found = judged(BEFORE, after)
    assert found.regressed
    assert found.newly_failed == ["7"]
    assert "7: fails now" in describe(found)


def test_the_worst_clips_are_named():
    after = [value - 0.1 * i for i, value in enumerate(BEFORE)]
    assert [clip for clip, _, _ in judged(BEFORE, after).worst] == ["7", "6", "5"]


def test_to_lose_what_was_exact_is_worse():
    exact = replace(PLAIN, value=None, at_bound=True, ci_low=None, ci_high=None)
    assert holm([compare(exact, PLAIN, {}, {}, 5.0)])[0].regressed
    assert not holm([compare(exact, exact, {}, {})])[0].regressed
    assert holm([compare(PLAIN, exact, {}, {})])[0].improved


def test_scores_without_clips_are_compared_by_their_intervals():
    """Errors of .1 / 1.96 each: the difference .5 has 1.96 sqrt(2) .1 / 1.96 on either side."""
    found = holm([compare(PLAIN, replace(PLAIN, value=2.5, ci_low=2.4, ci_high=2.6), {}, {}, 0.02)])[0]
    assert (found.low, found.high) == pytest.approx((0.5 - math.sqrt(2) * 0.1, 0.5 + math.sqrt(2) * 0.1))
    assert found.regressed
    assert not holm([compare(PLAIN, replace(PLAIN, value=2.95), {}, {}, 0.02)])[0].regressed


def test_other_data_and_other_backends_are_not_compared():
    other = replace(PLAIN, dataset_fingerprint="g")
    assert "the data differ" in compare(PLAIN, other, {}, {}).skipped
    assert "pesq-1" in compare(replace(PLAIN, backend="pesq-1"), replace(PLAIN, backend="pesq-2"), {}, {}).skipped


def test_a_folder_without_scores_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"has no scores\.jsonl; name the folder"):
        Baseline(tmp_path)


def test_a_baseline_is_read_back(tmp_path):
    append_scores(tmp_path / "scores.jsonl", [PLAIN])
    shared = {
        "codec": "c",
        "suite": "s",
        "dataset": "d",
        "metric": "pesq_wb",
        "backend": "",
        "protocol": "",
        "preset": "",
    }
    old = [shared | row | {"seed": 0, "dataset_fingerprint": "f", "at_bound": False} for row in rows(BEFORE).values()]
    write_clips(tmp_path / "clips.parquet", old)
    new = [row | {"value": row["value"] - 0.2} for row in old]
    found = Baseline(tmp_path).compare([replace(PLAIN, value=2.8), replace(PLAIN, metric="new")], new, lambda _: 0.02)
    assert [c.regressed for c in found] == [True]


CODEC = """
import torch
from earmark import Info

class Mine:
    info = Info(name="mine", sample_rate=16000, domains=("speech",))
    def __init__(self, info, device): pass
    def reconstruct(self, wav, lengths, seed):
        noise = torch.randn(wav.shape, generator=torch.Generator().manual_seed(0))
        return wav + {level} * noise, None
"""


@pytest.fixture
def author(tmp_path):
    """A codec author's folder: a codec of eight speakers' data, and pytest as the author calls it."""
    wavs = {f"{pitch}.flac": voice(1.0, 16000, pitch) for pitch in range(100, 180, 10)}
    data = write_dataset(tmp_path / "data", wavs, dataset="mine_data", domain="speech")
    write_manifest(data, [row | {"speaker": row["path"], "seconds": "1.0"} for row in read_rows(data)])

    def run(level, out, *args):
        (tmp_path / "my_codec.py").write_text(CODEC.replace("{level}", str(level)))
        env = os.environ | {"EARMARK_HOME": str(tmp_path / "home"), "EARMARK_DATA": str(data)}
        env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), env.get("PYTHONPATH", "")])
        command = [
            sys.executable,
            "-m",
            "pytest",
            str(ROOT / "suites" / "test_reconstruction.py"),
            "-k",
            "test_snr",
            "-n0",
        ]
        options = ["--codec", "my_codec:Mine", "--reports", str(tmp_path / out), "-p", "no:cacheprovider", *args]
        return subprocess.run([*command, *options], cwd=ROOT, env=env, capture_output=True, text=True, timeout=240)

    return run


def test_a_release_that_got_worse_fails_with_the_reason(author, tmp_path):
    assert author(0.01, "v1").returncode == 0
    same = author(0.01, "again", "--baseline", str(tmp_path / "v1"))
    assert (same.returncode, "as before" in same.stdout) == (0, True), same.stdout
    worse = author(0.02, "v2", "--baseline", str(tmp_path / "v1"), "--junitxml", str(tmp_path / "junit.xml"))
    assert worse.returncode == 1, worse.stdout
    assert "regression: snr of mine on mine_data (higher is better)" in worse.stdout
    assert "worse by 6.02" in worse.stdout  # twice the noise
    assert ".flac: " in worse.stdout  # the clips that lost most
    assert "test_no_worse_than_the_baseline[mine-mine_data-snr]" in (tmp_path / "junit.xml").read_text()
    assert "**worse**" in (tmp_path / "v2" / "baseline.md").read_text()
    results = [path.read_text() for path in (tmp_path / "v2" / "allure-results").glob("*-result.json")]
    assert any("regression: snr of mine" in text for text in results)


def test_a_baseline_that_is_none_is_one_clear_error(author, tmp_path):
    done = author(0.01, "v1", "--baseline", str(tmp_path / "nowhere"))
    assert done.returncode == 4
    assert "nowhere has no scores.jsonl; name the folder that --reports of the earlier run named" in done.stderr
