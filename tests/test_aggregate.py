"""Scores of probes together: X-ARES's average, tables by domain, radar plots."""

import math

import pytest

from earmark.reports import plots
from earmark.reports.aggregate import Result, by_domain, normalised, radar_lines, results, weighted_average
from earmark.reports.scores import Score


def score(codec, dataset, metric, value, n=10):
    return Score(codec, "probe", dataset, metric, value, "1", True, None, None, "", n, 0)


def test_the_average_is_weighted_by_the_true_test_sizes():
    """X-ARES: (0.5 * 400 + 0.9 * 100 + 0.2 * 1500) / 2000 = 0.295."""
    found = [Result("ESC-50", 0.5, 400), Result("GTZAN", 0.9, 100), Result("NSynth", 0.2, 1500)]
    assert weighted_average(found) == pytest.approx(0.295)
    assert math.isnan(weighted_average([]))


def test_scales():
    assert normalised(0.25, 0.5, 0) == 0.5  # an equal error rate half way between a coin and none
    assert normalised(-3, 0, 1) == 0
    assert normalised(1, 0, 1) == 1


SCORES = [
    score("a", "speech1", "accuracy_sex_xares_quantized", 0.6, 30),
    score("a", "speech1", "accuracy_sex_xares_unquantized", 0.9, 30),
    score("a", "speech1", "macro_f1_sex_xares_quantized", 0.1, 30),
    score("a", "speech1", "accuracy_sex_xares-knn_quantized", 0.2, 30),
    score("a", "sound1", "accuracy_sound_class_xares_quantized", 0.2, 10),
    score("b", "speech1", "accuracy_sex_xares_unquantized", 0.7, 30),
    score("b", "sound1", "accuracy_sound_class_xares_unquantized", 1.0, 10),
    score("b", "music1", "accuracy_style_xares_unquantized", 1.0, 10),
]


def test_one_kind_of_latents_a_codec_and_one_protocol():
    found = results(SCORES, "xares", ["quantized", "unquantized"])
    assert found["a"]["speech1", "sex"].value == 0.6
    assert found["b"]["speech1", "sex"].value == 0.7
    assert set(found["a"]) == {("speech1", "sex"), ("sound1", "sound_class")}


def test_what_is_measured_in_another_way_is_another_axis():
    """One machine had no BERT, and trained embeddings of words; their runs are merged, in whatever order."""
    ways = {
        "a": {"recall_at_1_both_caption": 0.1, "recall_at_1_bert_both_caption": 0.4, "iwer_lm_words": 0.9},
        "b": {"recall_at_1_both_caption": 0.2, "iwer_lm_words": 0.8, "iwer_ctc_words": 0.5},
    }
    scores = [
        score(codec, "d", f"{metric}_xares_quantized", value)
        for codec, of in ways.items()
        for metric, value in of.items()
    ]
    for order in (scores, scores[::-1]):
        found = results(order, "xares", ["quantized"])
        assert found["a"]["d", "caption, read by BERT"].value == 0.4
        assert radar_lines(found) == {
            "a": {"caption (d)": 0.1, "words, by a language model (d)": 0.9},
            "b": {"caption (d)": 0.2, "words, by a language model (d)": 0.8},
        }


def test_by_domain_only_what_all_have():
    table = by_domain(
        results(SCORES, "xares", ["quantized", "unquantized"]),
        {"speech1": "speech", "sound1": "sound", "music1": "music"},
    )
    assert table["a"] == pytest.approx({"speech": 0.6, "sound": 0.2, "overall": 0.5})  # (.6 * 30 + .2 * 10) / 40
    assert table["b"] == pytest.approx({"speech": 0.7, "sound": 1.0, "overall": 0.775})


def test_radar():
    lines = radar_lines(results(SCORES, "xares", ["quantized", "unquantized"]))
    assert lines["a"] == {"sound_class (sound1)": 0.2, "sex (speech1)": 0.6}
    three = {"a": {"x": 0.1, "y": 0.5, "z": 1.0}, "b": {"x": 0.4, "y": 0.2, "z": 0.3}}
    assert plots.png(plots.radar(three, "title")).startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="at least three"):
        plots.radar(lines, "title")
    with pytest.raises(ValueError, match="same axes"):
        plots.radar({"a": three["a"], "b": {"x": 1, "y": 1, "w": 1}}, "title")
