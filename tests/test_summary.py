"""What a run says at its end."""

from pathlib import Path
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


def test_the_command_that_renders_the_report_names_the_folder_of_this_run(tmp_path, monkeypatch):
    """Else it renders the folder of another run."""
    monkeypatch.chdir(tmp_path)
    assert summary.rendered_by(Path.cwd() / "reports" / "out") == "earmark report"
    assert summary.rendered_by(Path.cwd() / "v1") == "earmark report --reports v1"
    assert summary.rendered_by(Path("/elsewhere")) == "earmark report --reports /elsewhere"
