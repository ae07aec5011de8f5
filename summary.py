"""What a run says on the terminal when it ends: its scores, what nothing gated, and the clips that failed, by name."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from earmark.reports.scores import Score

if TYPE_CHECKING:
    from earmark.run import Run


def lines(run: Run) -> list[str]:
    """The table of a run's scores, and what a reader of it must know."""
    from earmark.reports.tables import OUTSIDE, terminal
    from earmark.scoring import in_order

    table = terminal(in_order([Score.from_dict(entry["score"]) for entry in run.results]))
    outside = [f"{OUTSIDE} the metric was not validated for such audio"] if OUTSIDE in table else []
    where = f"scores: {run.out / 'scores.jsonl'}; `earmark report` renders the Allure report"
    return [table, *outside, *_ungated_lines(run), *_failed_lines(run), where]


def describe(score: Score) -> str:
    """A score in one line: value, unit, interval, n, failures."""
    value = "at its bound" if score.at_bound else "none" if score.value is None else f"{score.value:.4g} {score.unit}"
    interval = "" if score.ci_low is None or score.at_bound else f" [{score.ci_low:.4g}, {score.ci_high:.4g}]"
    failed = f", {score.failed} failed" if score.failed else ""
    failed += f", {score.no_answer} without an answer" if score.no_answer else ""
    outside = ["the metric was not validated for such audio"] if score.out_of_domain else []
    return "; ".join([f"{value}{interval}, n {score.n}{failed}", *outside, *score.notes])


def _ungated_lines(run: Run) -> list[str]:
    """Why nothing judged some scores, and of how many: one line a reason, whichever lines of the file it is for."""
    found = [entry["ungated"] for entry in run.results if entry.get("ungated")]
    reasons = Counter(re.sub(r" \((.*):\d+\)$", r" (\1)", reason) for reason in found)
    return [f"not gated: {count} scores: {reason}" for reason, count in reasons.most_common()]


def _failed_lines(run: Run, most: int = 10) -> list[str]:
    failed = [
        f"failed clip: {entry['score']['metric']} of {entry['score']['codec']} on {clip}: {why}"
        for entry in run.results
        for clip, why in entry["errors"].items()
    ]
    more = [f"... and {len(failed) - most} more, all in clips.parquet"] if len(failed) > most else []
    return failed[:most] + more
