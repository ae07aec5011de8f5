"""The score record and its files."""

import json
import math
from dataclasses import replace

import pytest

from earmark.reports import scores, tables
from earmark.reports.scores import Score

SCORE = Score("opus-6", "reconstruction", "speech", "stoi", 0.8, "1", True, 0.7, 0.9, "bootstrap", 10, 0)


def test_scores_survive_the_file(tmp_path):
    path = tmp_path / "out" / "scores.jsonl"
    scores.append_scores(path, [SCORE])
    scores.append_scores(path, [replace(SCORE, codec="opus-12")])
    assert scores.read_scores(path) == [SCORE, replace(SCORE, codec="opus-12")]


def test_what_a_killed_run_left_of_a_line_does_not_spoil_the_next(tmp_path):
    path = tmp_path / "scores.jsonl"
    path.write_text(SCORE.to_json() + "\n" + SCORE.to_json()[:50])
    scores.append_scores(path, [replace(SCORE, codec="opus-12")])
    assert [score.codec for score in scores.read_scores(path)] == ["opus-6", "opus-12"]


def test_a_line_separator_within_a_text_ends_no_score(tmp_path):
    """A clip's name may have one, and be in a note: JSON leaves U+2028 and U+0085 as they are."""
    odd, path = replace(SCORE, notes=("a\u2028b.wav\u0085",)), tmp_path / "scores.jsonl"
    scores.append_scores(path, [odd, replace(SCORE, codec="opus-12")])
    assert scores.read_scores(path) == [odd, replace(SCORE, codec="opus-12")]


def test_what_is_measured_again_comes_last(tmp_path):
    path = tmp_path / "scores.jsonl"
    scores.append_scores(path, [SCORE, replace(SCORE, codec="opus-12"), replace(SCORE, run="2")])
    assert [score.run for score in scores.read_scores(path)] == ["", "2"]


def test_an_exact_clip_does_not_make_the_mean_infinite():
    from earmark.metrics import METRICS
    from earmark.scoring.measure import _without_exact

    values = {"a": math.inf, "b": -50.0, "c": -48.0}
    kept, notes = _without_exact(values, METRICS["si_sdr"])
    assert kept == {"b": -50.0, "c": -48.0}
    assert notes == ["came back exactly, so neither in the mean nor in n: 1 clips"]
    assert _without_exact({"a": math.inf}, METRICS["si_sdr"]) == ({"a": math.inf}, [])
    assert _without_exact({"a": -math.inf, "b": 1.0}, METRICS["si_sdr"]) == ({"a": -math.inf, "b": 1.0}, [])


def test_scores_of_other_clips_are_in_other_tables():
    text = tables.markdown([SCORE, replace(SCORE, dataset_fingerprint="other", value=0.5)])
    first, second = text.split("\n\n")
    assert "0.8 ±" in first
    assert "0.5 ±" in second


def test_metrics_that_do_not_fit_beside_each_other_are_in_other_tables():
    many = [replace(SCORE, metric=f"metric{at}") for at in range(tables.COLUMNS + 1)]
    first, second = tables.markdown(many).split("\n\n")
    assert f"metric{tables.COLUMNS} " in second
    assert f"metric{tables.COLUMNS} " not in first


def test_a_score_outside_its_domain_is_marked():
    assert tables.cell(replace(SCORE, out_of_domain=True)).endswith(tables.OUTSIDE)


def test_the_newest_of_a_measurement_is_read(tmp_path):
    path = tmp_path / "scores.jsonl"
    scores.append_scores(path, [SCORE, replace(SCORE, value=0.9), replace(SCORE, dataset_fingerprint="other")])
    assert [score.value for score in scores.read_scores(path)] == [0.9, 0.8]


def test_a_line_cut_off_by_a_kill_is_passed_over_and_a_broken_one_named(tmp_path):
    path = tmp_path / "scores.jsonl"
    path.write_text(SCORE.to_json() + "\n" + SCORE.to_json()[:50])
    assert scores.read_scores(path) == [SCORE]
    path.write_text('{"codec": 1\n' + SCORE.to_json() + "\n")
    with pytest.raises(ValueError, match=r"scores.jsonl:1: not a score"):
        scores.read_scores(path)


def test_a_score_is_strict_json():
    with pytest.raises(ValueError, match="JSON"):
        replace(SCORE, value=math.nan).to_json()
    assert json.loads(SCORE.to_json())["value"] == 0.8


def clip_row(clip, value):
    names = ("codec", "suite", "dataset", "metric", "backend", "protocol", "preset", "dataset_fingerprint")
    return dict.fromkeys(names, "x") | {"seed": 0, "clip": clip, "group": clip, "value": value} | {
        "at_bound": False, "error": None
    }  # fmt: skip


def test_clip_values_are_merged_not_lost(tmp_path):
    import pyarrow.parquet

    path = tmp_path / "clips.parquet"
    scores.write_clips(path, [clip_row("a", 1.0), clip_row("b", 2.0)])
    scores.write_clips(path, [clip_row("b", 3.0), clip_row("c", None)])
    table = pyarrow.parquet.read_table(path).to_pylist()
    assert {row["clip"]: row["value"] for row in table} == {"a": 1.0, "b": 3.0, "c": None}


def test_tables_show_failures_and_bounds():
    listed = [SCORE, replace(SCORE, metric="sdr", value=None, at_bound=True, failed=2)]
    assert tables.cell(replace(SCORE, value=1.0, ci_low=1 - 2e-16, ci_high=1.0)) == "1 ±0"
    assert tables.cell(replace(SCORE, exact=3)) == "0.8 ±0.1 (3 exact)"
    assert tables.cell(replace(listed[1], exact=10)) == "∞ (2 failed)"
    for text in (tables.terminal(listed), tables.markdown(listed)):
        assert "0.8 ±0.1" in text
        assert "∞ (2 failed)" in text
    lines = tables.as_csv(listed).splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("opus-6,reconstruction,speech,sdr,,1,True")


@pytest.mark.parametrize("columns", [80, 120])
def test_a_list_of_what_there_is_never_cuts_the_names_that_commands_take(columns, monkeypatch, capsys):
    name = "speaker_similarity_resemblyzer"
    table = tables.listing("metric", "unit", "source")
    table.add_row(name, "cosine", "a long explanation of where it is from " * 3)
    monkeypatch.setenv("COLUMNS", str(columns))
    tables.show(table)
    first = "".join(line.split("│")[1].strip() for line in capsys.readouterr().out.splitlines() if "│" in line)
    assert first == name


def test_a_list_ends_where_the_terminal_does(monkeypatch, capsys):
    table = tables.listing(*"abcdefgh")
    table.add_row("speaker_similarity_resemblyzer", *["some words to break"] * 7)
    monkeypatch.setenv("COLUMNS", "80")
    tables.show(table)
    assert all(line.endswith(tuple("┓┃┩│┘")) for line in capsys.readouterr().out.splitlines())


def test_a_list_in_a_pipe_has_a_row_a_line(monkeypatch, capsys):
    table = tables.listing("codec", "type", "status")
    table.add_row("mimi-8", "semantic", "weights missing: " + "x" * 60)
    monkeypatch.delenv("COLUMNS", raising=False)
    tables.show(table)
    assert any("mimi-8" in line and "x" * 60 in line for line in capsys.readouterr().out.splitlines())
