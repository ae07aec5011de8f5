"""The suite of ID sensitivity as a user runs it, on controls whose answers are known."""

import json

import pytest

from earmark.reports.scores import read_scores
from earmark.tests.helpers import run_pytest


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


@pytest.fixture(scope="module")
def settled(tmp_path_factory):
    """The whole suite on a codec of which much is known (`Settles`): its scores by name, and what is attached."""
    folder = tmp_path_factory.mktemp("settled")
    codecs = ["--codec", "earmark.tests.own_codecs:Settles", "--codec", "earmark.tests.own_codecs:HalverAt44"]
    select = ["--data", "sampler_music", "--limit", "2", "-k", "settles or (halver and test_sample_rate)"]
    done = run_pytest(folder, "suites/test_id_sensitivity.py", *codecs, *select, "-n", "0")
    assert done.returncode == 0, done.stdout
    results = [json.loads(path.read_text()) for path in (folder / "out" / "allure-results").glob("*-result.json")]
    attached = {kept["name"] for result in results for kept in result.get("attachments", [])}
    scores: dict[str, dict[str, float | None]] = {"settles": {}, "halver-at-44": {}}
    for score in read_scores(folder / "out" / "scores.jsonl"):
        scores[score.codec][score.metric] = score.value
    return scores["settles"], scores["halver-at-44"], attached


def test_each_ratio_has_its_kappa(settled):
    ratios = {name.removeprefix("same_id_ratio") for name in settled[0] if name.startswith("same_id_ratio")}
    kappas = {name.removeprefix("same_id_kappa") for name in settled[0] if name.startswith("same_id_kappa")}
    assert {name for name in ratios if not name.startswith("_per_round")} == kappas
    assert len(kappas) == 24


def test_codebooks_are_told_apart_against_the_original_and_the_round_before(settled):
    """Codebook 0 is never changed. Codebook 1 is silent in the ninth round and the tenth, as few of its tokens were."""
    ratio, kappa = ({name.removeprefix(f"same_id_{of}_round_10"): value for name, value in settled[0].items()}
                    for of in ("ratio", "kappa"))  # fmt: skip
    for of in (ratio, kappa):
        assert of["_codebook_0"] == of["_previous_codebook_0"] == of["_previous"] == 1
    assert (ratio["_previous_codebook_1"], kappa["_previous_codebook_1"]) == (1, None)  # one and the same code
    assert ratio["_codebook_1"] < 0.05
    assert ratio[""] == pytest.approx((1 + ratio["_codebook_1"]) / 2)
    assert settled[0]["same_id_ratio_per_round_codebook_0"] == 0
    assert settled[0]["information_kept_codebook_0"] == pytest.approx(1)
    assert 0.5 < settled[0]["information_kept_codebook_1"] < 0.95  # two levels have become one
    each = [settled[0][f"information_kept_codebook_{k}"] for k in (0, 1)]
    assert settled[0]["information_kept"] == pytest.approx(sum(each) / 2)


def test_whole_frames_of_shift_are_undone_and_what_is_around_a_frame_changes_nothing(settled):
    """20 ms are two frames."""
    for of in ("same_id_ratio", "same_id_kappa"):
        shift = {name: settled[0][f"{of}_shift_{name}"] for name in ("2ms", "2ms_realigned", "20ms", "20ms_realigned")}
        assert shift["20ms_realigned"] == 1
        assert shift["20ms"] < shift["2ms"] == shift["2ms_realigned"] < 0.5
        made = settled[0][f"{of}_shift_20ms_reconstructed_realigned"]
        assert made == pytest.approx(settled[0][f"{of}_round_1"], abs=0.02)
        assert settled[0][f"{of}_shift_20ms_reconstructed"] < shift["2ms"] < made
        assert settled[0][f"{of}_context_0s"] == settled[0][f"{of}_context_0.5s"] == 1
        assert settled[0][f"{of}_resampled_8000hz"] < settled[0][f"{of}_resampled_44100hz"]


def test_each_loss_and_each_noise_is_another(settled):
    lost = {settled[0][f"mel_loss_lost_5pct_{of}_{how}"] for of in ("frames", "tokens") for how in ("repeat", "zero")}
    noise = {value for name, value in settled[0].items() if name.startswith(("same_id_ratio_noise", "noise_followed"))}
    assert (len(lost), len(noise)) == (4, 9)


def test_every_curve_is_attached(settled):
    noises = ("white", "babble", "music")
    assert settled[2] >= {
        "rounds of reconstruction", "rounds by codebook, against the original", "mel_loss", "Zipf: frequency over rank",
        "rounds by codebook, against the round before", "time shift", "shift, reconstructed", "level", "rates",
        "context", "frames lost: mel_loss", "tokens lost: mel_loss", "by codebook", "codebooks", "n-gram entropy",
        *noises, *(f"{noise} noise" for noise in noises),
    }  # fmt: skip


def test_nothing_is_said_of_a_rate_that_is_the_codecs_own(settled):
    """A clip at 44.1 kHz that is resampled to 44.1 kHz and back keeps all its tokens, which is no merit."""
    assert [*settled[1]] == ["same_id_ratio_resampled_8000hz", "same_id_kappa_resampled_8000hz"]
    assert 0 < settled[1]["same_id_ratio_resampled_8000hz"] < 1
