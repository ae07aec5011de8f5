"""The suite of ID sensitivity as a user runs it, on controls whose answers are known."""

import json

import pytest

from earmark.reports.scores import read_scores


def test_controls_have_their_known_answers(earmark_pytest, tmp_path):
    """Constant codes never change and that says nothing; random ones do by chance; identity has no codes to ask of."""
    names = [word for name in ("constant", "random-codes", "identity") for word in ("--codec", name)]
    select = ["--data", "sampler_speech", "--limit", "2", "-k", "rounds or codebook_use or (loss and identity)"]
    done = earmark_pytest("suites/test_id_sensitivity.py", *names, *select, "-n", "0")
    assert done.returncode == 0, done.stdout
    scores = {(score.codec, score.metric): score for score in read_scores(tmp_path / "out" / "scores.jsonl")}
    assert {score.limit for score in scores.values()} == {2}
    of = {name: {metric: score for (codec, metric), score in scores.items() if codec == name} for name in names[1::2]}
    assert {metric: score.value for metric, score in of["identity"].items() if "per_round" in metric} == dict.fromkeys(
        ("mel_loss_per_round", "estoi_per_round", "pesq_wb_per_round"), 0
    )
    for metric, score in of["constant"].items():
        if metric.startswith("same_id_ratio"):
            assert score.value == (0 if "per_round" in metric else 1), metric
        if metric.startswith("same_id_kappa"):
            assert (score.value, score.no_answer, score.failed) == (None, 2, 0), metric
    for metric, score in of["random-codes"].items():
        if metric.startswith("same_id_"):
            assert score.value == pytest.approx(0, abs=0.02), metric
    assert of["constant"]["dead_codes"].value == 8 * 1023
    curves = [json.loads(path.read_text()) for path in (tmp_path / "out" / "allure-results").glob("*-result.json")]
    named = {kept["name"] for result in curves for kept in result.get("attachments", [])}
    assert {"rounds of reconstruction", "rounds, by codebook", "Zipf: frequency over rank", "mel_loss"} <= named


def test_nothing_is_said_of_a_rate_that_is_the_codecs_own(earmark_pytest, tmp_path):
    """A clip at 44.1 kHz that is resampled to 44.1 kHz and back keeps all its tokens, which is no merit."""
    select = ["--codec", "earmark.tests.own_codecs:HalverAt44", "--data", "sampler_speech", "--limit", "2"]
    done = earmark_pytest("suites/test_id_sensitivity.py", *select, "-k", "test_sample_rate", "-n", "0")
    assert done.returncode == 0, done.stdout
    scores = {score.metric: score.value for score in read_scores(tmp_path / "out" / "scores.jsonl")}
    assert [*scores] == ["same_id_ratio_resampled_8000hz"]
    assert 0 < scores["same_id_ratio_resampled_8000hz"] < 1
