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
from earmark.tests.helpers import PATIENCE_S, ROOT, read_rows, user_env, voice, write_dataset, write_manifest

PLAIN = Score("c", "s", "d", "pesq_wb", 3.0, "MOS", True, 2.9, 3.1, "", 8, 0, dataset_fingerprint="f")


def rows(values, groups=None):
    names = [f"{i}" for i in range(len(values))]
    return {
        name: {
            "clip": name,
            "group": group,
            "value": value,
            "error": None if value is not None else "it broke",
            "at_bound": False,
        }
        for name, group, value in zip(names, groups or names, values, strict=True)
    }


def mean(values):
    return float(np.mean([value for value in values if value is not None]))


def judged(before, after, margin=0.02, groups=None, **changed):
    old = replace(PLAIN, value=mean(before), **changed)
    new = replace(old, value=mean(after))
    return holm([compare(old, new, rows(before, groups), rows(after, groups), margin)])[0]


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


def test_the_unit_is_of_no_consequence():
    """A mean squared error lies twelve powers of ten below a MOS; chance is as much of one as of the other."""
    change = [0.3, -0.3, 0.2, -0.2, 0.1, -0.1, 0.25, -0.2]
    tiny = [1e-14 * value for value in BEFORE]
    found = judged(tiny, [value - 1e-14 * c for value, c in zip(tiny, change, strict=True)], margin=0.0)
    like = judged(BEFORE, [value - c for value, c in zip(BEFORE, change, strict=True)], margin=0.0)
    assert 0.3 < found.p == pytest.approx(like.p)


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


@pytest.mark.parametrize("clips", [6, 24])
def test_no_change_is_seldom_called_one(clips):
    """Of 100 runs of 100 metrics that vary by chance alone, about 5 say that anything is worse: of few speakers too."""
    draw, wrong = np.random.default_rng(1), 0
    for _ in range(100):
        found = []
        for _ in range(100):
            before = draw.normal(3, 0.5, clips)
            after = before + draw.normal(0, 0.2, clips)
            old, new = (replace(PLAIN, value=float(side.mean())) for side in (before, after))
            found.append(compare(old, new, rows(list(before)), rows(list(after)), 0.0))
        wrong += any(c.regressed for c in holm(found))
    assert wrong <= 12  # 5 expected; more than 12 have a chance of 1 in 700


def test_a_clear_loss_is_seen_among_a_thousand_scores():
    worse = judged(BEFORE, [value - 0.5 + 0.01 * i for i, value in enumerate(BEFORE)])
    many = [worse, *(replace(worse, p=0.5) for _ in range(1000))]
    assert holm(many)[0].regressed


def test_holm_by_hand():
    """p .01 .04 .03 of three: .01 x 3, .03 x 2, then no less than that."""
    old = replace(PLAIN, value=mean(BEFORE))
    plain = compare(old, old, rows(BEFORE), rows(BEFORE), 0.0)
    found = holm([replace(plain, p=p) for p in (0.01, 0.04, 0.03)])
    assert [c.holm for c in found] == pytest.approx([0.03, 0.06, 0.06])


def test_a_clip_that_fails_now_is_a_regression_by_itself():
    after = [*BEFORE[:-1], None]
    found = judged(BEFORE, after)
    assert found.regressed
    assert found.newly_failed == ["7"]
    assert "7: fails now" in describe(found)


def exact(names):
    return {name: {"clip": name, "group": name, "value": None, "error": None, "at_bound": True} for name in names}


def test_a_clip_that_was_exact_and_is_no_longer_is_a_regression_by_itself():
    """Fifteen clips were exact, and one at 20 dB: the mean is of that one alone, and it has not changed."""
    rest = {"z": {"clip": "z", "group": "z", "value": 20.0, "error": None, "at_bound": False}}
    before = exact([str(i) for i in range(15)]) | rest
    after = rows([5.0] * 15) | rest
    old, new = replace(PLAIN, value=20.0), replace(PLAIN, value=mean([5.0] * 15 + [20.0]))
    assert holm([compare(old, new, before, after, 1.0)])[0].regressed


def test_exact_clips_that_fail_now_are_a_regression():
    all_exact = replace(PLAIN, value=None, at_bound=True, ci_low=None, ci_high=None)
    after = exact(["0"]) | {"1": {"clip": "1", "group": "1", "value": None, "error": "broke", "at_bound": False}}
    assert holm([compare(all_exact, all_exact, exact(["0", "1"]), after)])[0].newly_failed == ["1"]


def test_a_mean_that_is_no_more_is_a_regression():
    assert holm([compare(PLAIN, replace(PLAIN, value=None), {}, {})])[0].regressed


def test_a_rate_over_all_words_is_not_judged_by_the_mean_of_its_clips():
    """The clips' mean got worse by one short clip; the rate over all words got better."""
    before, after = rows([0.1] * 8), rows([0.1] * 7 + [1.0])
    old = replace(PLAIN, metric="wer", higher_is_better=False, value=0.2, ci_low=0.19, ci_high=0.21)
    found = holm([compare(old, replace(old, value=0.15, ci_low=0.14, ci_high=0.16), before, after, 0.01)])[0]
    assert not found.regressed
    assert found.method == "from the two intervals"


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


def test_seconds_and_other_devices_are_not_compared():
    timed = replace(PLAIN, suite="speed", metric="start_up_s")
    assert "are the machine's too" in compare(timed, replace(timed, value=9.0), {}, {}).skipped
    assert "from cpu to cuda" in compare(replace(PLAIN, device="cpu"), replace(PLAIN, device="cuda"), {}, {}).skipped
    kernels = replace(PLAIN, suite="speed", metric="kernels_per_second_both", higher_is_better=False)
    slower = [replace(kernels, value=3 * by, ci_low=2.9 * by, ci_high=3.1 * by) for by in (1.2, 1.5)]
    assert [holm([compare(kernels, new, {}, {})])[0].regressed for new in slower] == [False, True]
    of_stream = [replace(timed, metric=name) for name in ("chunk_ms_p95", "kernels_per_chunk_p95", "stream_delay_ms")]
    assert [compare(each, each, {}, {}).skipped is None for each in of_stream] == [False, True, True]


def test_other_data_and_other_backends_are_not_compared():
    other = replace(PLAIN, dataset_fingerprint="g")
    assert "the data differ" in compare(PLAIN, other, {}, {}).skipped
    assert "pesq-1" in compare(replace(PLAIN, backend="pesq-1"), replace(PLAIN, backend="pesq-2"), {}, {}).skipped


def test_a_folder_without_scores_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"has no scores\.jsonl; name the folder"):
        Baseline(tmp_path)


def test_a_baseline_is_read_back(tmp_path):
    append_scores(tmp_path / "scores.jsonl", [replace(PLAIN, value=mean(BEFORE))])
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
    found = Baseline(tmp_path).compare(
        [replace(PLAIN, value=mean(BEFORE) - 0.2), replace(PLAIN, metric="new")], new, lambda _: 0.02
    )
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


@pytest.fixture(scope="module")
def author(tmp_path_factory):
    """A codec author's folder: a codec, data of eight speakers, and pytest as the author calls it; v1 is measured."""
    folder = tmp_path_factory.mktemp("author")
    wavs = {f"{pitch}.flac": voice(1.0, 16000, pitch) for pitch in range(100, 180, 10)}
    data = write_dataset(folder / "data", wavs, dataset="mine_data", domain="speech")
    write_manifest(data, [row | {"speaker": row["path"], "seconds": "1.0"} for row in read_rows(data)])

    def run(level, out, *args):
        (folder / "my_codec.py").write_text(CODEC.replace("{level}", str(level)))
        env = user_env(EARMARK_HOME=folder / "home", EARMARK_DATA=data)
        env["PYTHONPATH"] = os.pathsep.join([str(folder), env.get("PYTHONPATH", "")])
        command = [sys.executable, "-m", "pytest", str(ROOT / "suites" / "test_reconstruction.py"), "-n0"]
        options = ["--codec", "my_codec:Mine", "--reports", str(folder / out), "-p", "no:cacheprovider", *args]
        command += ["-k", "test_snr", *options]
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=PATIENCE_S)

    run.folder = folder
    run.v1 = ["--baseline", str(folder / "v1")]
    assert run(0.01, "v1").returncode == 0
    return run


def test_a_release_that_got_worse_fails_with_the_reason(author):
    same = author(0.01, "again", *author.v1)
    assert (same.returncode, "as before" in same.stdout) == (0, True), same.stdout
    worse = author(0.02, "v2", *author.v1, "--junitxml", str(author.folder / "junit.xml"))
    assert worse.returncode == 1, worse.stdout
    assert "regression: snr of mine on mine_data (higher is better)" in worse.stdout
    assert "worse by 6.02" in worse.stdout  # twice the noise
    assert ".flac: " in worse.stdout  # the clips that lost most
    assert "test_no_worse_than_the_baseline[mine-mine_data-snr]" in (author.folder / "junit.xml").read_text()
    assert "**worse**" in (author.folder / "v2" / "baseline.md").read_text()
    results = [path.read_text() for path in (author.folder / "v2" / "allure-results").glob("*-result.json")]
    assert any("regression: snr of mine" in text for text in results)


def test_a_gate_that_compared_nothing_is_not_passed(author):
    done = author(0.01, "fewer", *author.v1, "--limit", "6")
    assert done.returncode == 1
    assert "nothing was compared with the baseline" in done.stdout
    assert "the data differ" in done.stdout


def test_a_baseline_that_is_none_is_one_clear_error(author):
    done = author(0.01, "none", "--baseline", str(author.folder / "nowhere"))
    assert done.returncode == 4
    assert "nowhere has no scores.jsonl; name the folder that --reports of the earlier run named" in done.stderr
