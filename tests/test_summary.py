"""What a run says at its end."""

from types import SimpleNamespace

from earmark import summary


def test_why_scores_are_not_gated_is_one_line_a_reason_whichever_lines_of_the_file_it_is_for():
    reasons = [
        "its threshold is for the data a (t.yaml:3)",
        "no threshold",
        "its threshold is for the data a (t.yaml:4)",
    ]
    run = SimpleNamespace(results=[{"ungated": reason} for reason in [*reasons, None]])
    assert summary._ungated_lines(run) == [
        "not gated: 2 scores: its threshold is for the data a (t.yaml)",
        "not gated: 1 scores: no threshold",
    ]
