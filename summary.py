"""What a run says on the terminal when it ends: its scores, what nothing gated, and the clips that failed, by name."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from earmark.reports import published
from earmark.reports.scores import Score, named_unit, with_unit

if TYPE_CHECKING:
    from earmark.metrics import Metric
    from earmark.run import Run


def lines(run: Run) -> list[str]:
    """The table of a run's scores, and what a reader of it must know."""
    from earmark.reports.tables import OUTSIDE, headlines, terminal
    from earmark.scoring import in_order

    shown, more = headlines(in_order([Score.from_dict(entry["score"]) for entry in run.results]))
    table = terminal(shown)
    outside = [f"{OUTSIDE} the metric was not validated for such audio"] if OUTSIDE in table else []
    command = rendered_by(run.out)
    outside += [f"and {more} more scores: `{command}` has them all"] if more else []
    where = f"scores: {run.out / 'scores.jsonl'}; `{command}` renders the Allure report"
    return [table, *outside, *_ungated_lines(run), *_corrupt_lines(run), *_failed_lines(run), where]


def rendered_by(out: Path) -> str:
    """The command that renders what a run wrote, from the folder that this is run in."""
    here = out.relative_to(Path.cwd()) if out.is_relative_to(Path.cwd()) else out
    return "earmark report" if here == Path("reports/out") else f"earmark report --reports {here}"


def describe(score: Score) -> str:
    """A score in one line: value, unit, interval, n, failures."""
    number = "none" if score.value is None else with_unit(f"{score.value:.4g}", score.unit)
    value = "at its bound" if score.at_bound else number
    interval = "" if score.ci_low is None or score.at_bound else f" [{score.ci_low:.4g}, {score.ci_high:.4g}]"
    failed = f", {score.failed} failed" if score.failed else ""
    failed += f", {score.no_answer} without an answer" if score.no_answer else ""
    outside = ["the metric was not validated for such audio"] if score.out_of_domain else []
    figure = published.printed(score.codec, score.dataset, score.metric)
    paper = [f"{published.source(figure)} prints {figure.value:g}"] if figure else []
    return "; ".join([f"{value}{interval}, n {score.n}{failed}", *outside, *paper, *score.notes])


def define(metric: Metric) -> str:
    """What a metric's number means, in one line: direction, unit, best value, where it was validated, source."""
    best = "" if metric.best is None else f", best {metric.best:g}"
    direction = "higher is better" if metric.higher_is_better else "lower is better"
    unit = f", in {named}" if (named := named_unit(metric.unit)) else ""
    return f"{direction}{best}{unit}; for {', '.join(metric.domains)}. {metric.source}"


def _ungated_lines(run: Run) -> list[str]:
    """Why nothing judged some scores, and of how many: one line a reason, whichever lines of the file it is for."""
    found = [entry["ungated"] for entry in run.results if entry.get("ungated")]
    reasons = Counter(re.sub(r" \((.*):\d+\)$", r" (\1)", reason) for reason in found)
    return [f"not gated: {count} scores: {reason}" for reason, count in reasons.most_common()]


def _corrupt_lines(run: Run, most: int = 10) -> list[str]:
    """The recordings that could not be read, whoever codes them: what is wrong with a file begins with its name."""
    wrong = {
        f"corrupt clip, in no score: {row['dataset']}: {row['error']}": None
        for entry in run.results
        for row in entry["clips"]
        if row["error"] and row["error"].partition(": ")[0].endswith(row["clip"].partition("[")[0])
    }
    more = [f"... and {len(wrong) - most} more, all in clips.parquet"] if len(wrong) > most else []
    return [*wrong][:most] + more


def _failed_lines(run: Run, most: int = 10) -> list[str]:
    failed = [
        f"failed clip: {entry['score']['metric']} of {entry['score']['codec']} on {clip}: {why}"
        for entry in run.results
        for clip, why in entry["errors"].items()
    ]
    more = [f"... and {len(failed) - most} more, all in clips.parquet"] if len(failed) > most else []
    return failed[:most] + more
