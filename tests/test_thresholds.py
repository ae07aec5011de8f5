"""Thresholds: what judges a score, and that no mistake in the file is silent."""

from dataclasses import replace

import pytest

from earmark import fixtures, thresholds
from earmark.reports.scores import Score
from earmark.tests.helpers import ROOT
from earmark.thresholds import Names, ThresholdsError, load

NAMES = Names(["opus-6", "opus-12", "mp3-32"], ["reconstruction"], ["speech", "music"], ["pesq_wb", "mse"])
SCORE = Score(
    codec="opus-6",
    suite="reconstruction",
    dataset="speech",
    metric="pesq_wb",
    value=2.0,
    unit="MOS-LQO",
    higher_is_better=True,
    ci_low=1.9,
    ci_high=2.1,
    ci_method="",
    n=100,
    failed=0,
    dataset_fingerprint="d1",
)


@pytest.fixture
def read(tmp_path):
    def read(text, names=NAMES):
        path = tmp_path / "my.yaml"
        path.write_text(text)
        return load(path, names)

    return read


BOUND = "{min: 2, unit: x, from: y}"


def entry(bound, codec="opus-6", dataset="speech", metric="pesq_wb"):
    return f"thresholds:\n  '{codec}':\n    reconstruction:\n      '{dataset}':\n        {metric}: {bound}\n"


def test_a_mean_at_or_above_its_minimum_passes(read):
    judged = read(entry("{min: 2.0, unit: MOS-LQO, from: here}")).judge(SCORE)
    assert judged == thresholds.Verdict()


def test_a_miss_shows_value_interval_wish_and_line(read):
    judged = read(entry("{min: 2.5, unit: MOS-LQO, from: paper}")).judge(SCORE)
    assert judged.failed is not None
    assert "pesq_wb of opus-6 on speech is 2 [1.9, 2.1] MOS-LQO (n 100), expected at least 2.5" in judged.failed
    assert "my.yaml:5, from paper" in judged.failed


def test_a_maximum_bounds_from_above(read):
    assert read(entry("{max: 1.5, unit: MOS-LQO, from: here}")).judge(SCORE).failed.endswith("from here)")


def test_the_more_specific_entry_judges(read):
    text = entry("{min: 3, unit: MOS-LQO, from: all}", codec="opus-*") + (
        "  opus-6:\n    reconstruction:\n      speech:\n        pesq_wb: {min: 1, unit: MOS-LQO, from: this}\n"
    )
    judge = read(text)
    assert judge.judge(SCORE) == thresholds.Verdict()
    assert judge.judge(replace(SCORE, codec="opus-12")).failed


def test_of_equally_specific_entries_the_later_judges(read):
    text = entry("{min: 3, unit: MOS-LQO, from: first}", codec="opus-*") + (
        "  'op*':\n    reconstruction:\n      speech:\n        pesq_wb: {min: 1, unit: MOS-LQO, from: later}\n"
    )
    assert read(text).find(SCORE).bound.origin == "later"


def test_defaults_judge_what_no_entry_matches(read):
    judge = read("defaults:\n  pesq_wb: {min: 2.5, unit: MOS-LQO, from: house}\n")
    assert "from house" in judge.judge(SCORE).failed


def test_a_backend_is_a_library_with_or_without_its_version(read):
    score = replace(SCORE, backend="pesq-0.0.4")
    for backend, judged in (("pesq", True), ("pesq-0.0.4", True), ("pesq-0.0.5", False)):
        verdict = read(entry(f"{{min: 3, unit: MOS-LQO, from: x, backend: {backend}}}")).judge(score)
        assert (verdict.failed is not None) == judged, backend


@pytest.mark.parametrize(
    ("bound", "reason"),
    [
        ("{min: 3, unit: MOS-LQO, from: x, data: d2}", "data d2"),
        ("{min: 3, unit: MOS-LQO, from: x, backend: other}", "backend 'other'"),
        ("{min: 3, unit: MOS-LQO, from: x, preset: paper}", "preset 'paper'"),
        ("{min: 3, unit: dB, from: x}", "the unit 'dB'"),
    ],
)
def test_a_bound_for_other_conditions_does_not_judge_and_says_so(read, bound, reason):
    judged = read(entry(bound)).judge(SCORE)
    assert judged.failed is None
    assert reason in judged.ungated


def test_without_a_threshold_a_score_is_not_gated(read):
    assert read("{}").judge(SCORE).ungated == "no threshold"


@pytest.mark.parametrize(
    "score",
    [replace(SCORE, value=None, n=0, failed=0), replace(SCORE, n=98, failed=2)],
    ids=["not a number", "2 % failed clips"],
)
def test_nan_and_failed_clips_fail_without_any_threshold(read, score):
    assert read("{}").judge(score).failed.startswith("codec failed:")


def test_one_percent_failed_clips_is_allowed(read):
    assert read("{}").judge(replace(SCORE, n=99, failed=1)).failed is None


def test_clips_that_came_back_exactly_are_clips(read):
    """They are in no mean and so not in n, but one of a hundred clips failed."""
    assert read("{}").judge(replace(SCORE, n=9, exact=90, failed=1)).failed is None
    assert "1 of 90 clips failed" in read("{}").judge(replace(SCORE, n=9, exact=80, failed=1)).failed
    assert "2 of 101 clips failed" in read("{}").judge(replace(SCORE, n=99, exact=99, at_bound=True, failed=2)).failed


@pytest.mark.parametrize(
    ("errors", "whose"),
    [
        (
            ("infrastructure fault: a: out of memory in encode: CUDA", "infrastructure fault: no lock"),
            "infrastructure fault",
        ),
        (("infrastructure fault: a: out of memory in encode: CUDA", "codec failed: a: no"), "codec failed"),
        (("codec failed: a: no", "codec failed: a: no"), "codec failed"),
    ],
)
def test_clips_that_failed_by_the_machine_alone_are_not_the_codecs_failure(read, errors, whose):
    score = replace(SCORE, n=8, failed=2)
    record = {"score": {"metric": score.metric}, "errors": dict(zip("xy", errors, strict=True))}
    said = fixtures._verdict(read("{}"), score, [record]).splitlines()
    assert said[0] == f"{whose}: pesq_wb of opus-6 on speech: 2 of 10 clips failed"
    assert said[1:] == [f"  x: {errors[0]}", f"  y: {errors[1]}"]


@pytest.mark.parametrize(("higher", "bound"), [(True, "min: 1e9"), (False, "max: -1e9")])
def test_an_infinite_score_is_at_its_best(read, higher, bound):
    score = replace(SCORE, value=None, at_bound=True, higher_is_better=higher)
    assert read(entry(f"{{{bound}, unit: MOS-LQO, from: x}}")).judge(score) == thresholds.Verdict()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (entry(BOUND, codec="opus-7"), r"my.yaml:2: unknown codec 'opus-7'; did you mean opus-6"),
        (entry(BOUND, codec="flac-*"), r"my.yaml:2: unknown codec 'flac-\*'"),
        (entry(BOUND, dataset="speach"), r"my.yaml:4: unknown dataset 'speach'; did you mean speech"),
        (entry(BOUND, metric="pesq_bw"), r"my.yaml:5: unknown metric 'pesq_bw'; did you mean pesq_wb"),
        (entry("{mim: 2, unit: x, from: y}"), r"my.yaml:5: unknown key 'mim'; did you mean min"),
        (entry("{unit: x, from: y}"), r"my.yaml:5: .*expected min, max or max_failed"),
        (entry("{min: two, unit: x, from: y}"), r"my.yaml:5: min: Input should be a valid number"),
        (entry("{min: 2, from: y}"), r"my.yaml:5: unit: Field required"),
        (entry("3.1"), r"my.yaml:5: expected a mapping, found 3.1"),
        ("threshold: {}\n", r"my.yaml:1: unknown key 'threshold'; did you mean thresholds"),
        ("thresholds:\n  opus-6: {}\n  opus-6: {}\n", r"my.yaml:3: the key 'opus-6' is there twice"),
        ("thresholds: [\n", r"my.yaml: not YAML"),
    ],
)
def test_every_mistake_names_its_line_and_the_nearest_name(read, text, message):
    with pytest.raises(ThresholdsError, match=message):
        read(text)


@pytest.mark.parametrize("metric", ["pesq_wb", "pesq_*"])
def test_a_unit_that_the_metric_does_not_have_is_a_mistake_and_not_a_bound_that_judges_nothing(read, metric):
    names = replace(NAMES, units={"pesq_wb": "MOS-LQO", "mse": "1"})
    with pytest.raises(ThresholdsError, match=r"my.yaml:5: pesq_.* is in 'MOS-LQO', not in 'MOS'"):
        read(entry("{min: 3, unit: MOS, from: x}", metric=f"'{metric}'"), names)
    assert read(entry("{min: 3, unit: MOS-LQO, from: x}", metric=f"'{metric}'"), names).entries
    assert read(entry("{min: 3, unit: any, from: x}", metric="pesq_w*"), NAMES).entries  # where units are not known


def test_a_missed_bound_names_its_unit_and_no_1_where_there_is_none(read):
    stoi = replace(SCORE, metric="mse", unit="1", value=0.9, ci_low=0.8, ci_high=0.95)
    said = read(entry("{min: 0.99, unit: '1', from: x}", metric="mse")).judge(stoi).failed
    assert "is 0.9 [0.8, 0.95] (n 100), expected at least 0.99" in said
    assert "2 [1.9, 2.1] MOS-LQO (n 100)" in read(entry("{min: 3, unit: MOS-LQO, from: x}")).judge(SCORE).failed


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ThresholdsError, match=r"none.yaml: cannot be read"):
        load(tmp_path / "none.yaml")


def test_written_thresholds_pass_what_they_were_written_from_and_catch_less(read):
    scores = [
        SCORE,
        replace(SCORE, metric="mse", unit="1", value=0.01, higher_is_better=False, ci_low=None, ci_high=None),
    ]
    judge = read(thresholds.as_yaml(scores, "measured"))
    assert [judge.judge(score) for score in scores] == [thresholds.Verdict()] * 2
    assert judge.judge(replace(SCORE, value=1.85)).failed  # half of the interval, .1, is more than 2 %
    assert judge.judge(replace(scores[1], value=0.0103)).failed
    assert "not gated" not in str(judge.judge(replace(SCORE, dataset_fingerprint="d2")))
    assert judge.judge(replace(SCORE, dataset_fingerprint="d2")).ungated


def test_the_shipped_file_is_valid():
    from earmark.codecs.registry import catalogue
    from earmark.data.cards import cards
    from earmark.scoring import metric_names, metric_units, metric_variants

    suites = [path.stem.removeprefix("test_") for path in (ROOT / "suites").glob("test_*.py")]
    names = Names([*catalogue()], suites, [*cards()], metric_names(), metric_variants(), metric_units())
    shipped = load(thresholds.DEFAULT, names)
    assert {entry.codec for entry in shipped.entries} >= {"identity", "opus-6", "opus-12", "opus-24"}


def test_what_a_control_is_expected_to_fail_on_is_let_pass(read):
    judge = read(entry("{max_failed: 1, unit: MOS-LQO, from: x}")).judge
    assert judge(replace(SCORE, value=None, n=0, failed=10)) == thresholds.Verdict()
    assert judge(replace(SCORE, n=5, failed=5)) == thresholds.Verdict()
    half = read(entry("{max_failed: 0.5, min: 0, unit: MOS-LQO, from: x}")).judge
    assert half(replace(SCORE, n=4, failed=6)).failed.startswith("codec failed:")
    assert half(replace(SCORE, n=5, failed=5)) == thresholds.Verdict()


def test_an_infinite_mean_is_let_pass_where_the_bound_is_infinite(read):
    lost = replace(SCORE, value=None, higher_is_better=False)
    assert read(entry("{max: 3, unit: MOS-LQO, from: x}")).judge(lost).failed.endswith("has no finite mean")
    assert read(entry("{max: .inf, unit: MOS-LQO, from: x}")).judge(lost) == thresholds.Verdict()


def test_out_of_domain_a_score_fails_by_its_threshold_only(read):
    outside = replace(SCORE, out_of_domain=True)
    assert read("{}").judge(outside).ungated == thresholds.OUT_OF_DOMAIN
    assert read("{}").judge(replace(outside, n=5, failed=5)).ungated == thresholds.OUT_OF_DOMAIN
    assert read(entry("{min: 1e9, unit: MOS-LQO, from: x}")).judge(outside).failed


def test_recordings_without_an_answer_are_nobodys_failure(read):
    silent = replace(SCORE, value=None, n=0, failed=0, no_answer=3)
    assert "no answer" in read("{}").judge(silent).ungated
    assert read("{}").judge(replace(SCORE, n=5, no_answer=5)).failed is None


@pytest.mark.parametrize("option", ["--write-thresholds", "--reports"])
def test_what_cannot_be_written_is_said_before_anything_is_measured(earmark_pytest, tmp_path, option):
    (tmp_path / "file").write_text("in the way")
    done = earmark_pytest("suites/test_reconstruction.py", "-k", "test_mse", option, str(tmp_path / "file" / "x.yaml"))
    assert done.returncode == 4, done.stdout + done.stderr
    assert f"{option}: cannot write to {tmp_path / 'file'}" in done.stderr
    assert not (tmp_path / "out" / "scores.jsonl").exists()


def test_a_folder_is_no_file_for_thresholds(earmark_pytest, tmp_path):
    done = earmark_pytest("suites/test_reconstruction.py", "-k", "test_mse", "--write-thresholds", str(tmp_path))
    assert done.returncode == 4
    assert "it is a folder, a file is wanted" in done.stderr
