"""Score tables: one row a codec and dataset, one column a metric, as terminal text, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import re
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from earmark.reports.scores import Score

if TYPE_CHECKING:
    from rich.table import Table

WIDTH = 200  # of a table in a log, where there is no terminal to fit
ROOMY = 120  # characters in a line, from which a name is kept on one
OUTSIDE = "†"  # beside a score of audio that its metric was not validated for
ROUNDING = 1e-12  # of an interval, as a share of the value: clips that are alike but for it have no spread
COLUMNS = 10  # metrics beside each other
MANY = 30  # of more metrics a terminal shows the headlines alone
HEADLINES = (  # of each dimension a few; a name stands for all that begin with it
    "bitrate_kbps", "pesq_wb", "stoi", "estoi", "si_sdr", "mel_distance_7scale", "visqol_speech", "visqol_audio",
    "speaker_similarity", "wer", "dnsmos_ovrl_increase", "fad_logmel",
    "same_id_ratio_round_1", "same_id_kappa_round_1", "same_id_ratio_shift_2ms", "estoi_lost_5pct_frames_repeat",
    "codebook_utilisation", "perplexity_overall", "lm_bitrate_kbps",
    "accuracy", "mean_ap", "r2", "segment_f1", "eer", "recall_at_1", "iwer", "real_time_factor",
)  # fmt: skip


def cell(score: Score | None) -> str:
    """A score in a table: its value, half of its interval, and marks: out of domain, clips exact and failed."""
    if score is None:
        return ""
    failed = OUTSIDE * score.out_of_domain + (f" ({score.failed} failed)" if score.failed else "")
    if score.value is None:
        return ("∞" if score.at_bound else "-") + failed
    if score.exact:  # in no mean
        failed = f" ({score.exact} exact)" + failed
    spread = ""
    if score.ci_low is not None and score.ci_high is not None:
        half = (score.ci_high - score.ci_low) / 2
        spread = f" ±{half if half > ROUNDING * abs(score.value) else 0:.2g}"
    return f"{score.value:.3g}{spread}{failed}"


def _grid(scores: Sequence[Score]) -> tuple[list[str], list[list[str]]]:
    """Header and rows. The arrow beside a metric says which way is better."""
    metrics = list(dict.fromkeys((score.metric, score.unit, score.higher_is_better) for score in scores))
    # scores of other clips (a preset, a limit) are other rows: they do not compare
    places = list(dict.fromkeys((score.codec, score.dataset, score.dataset_fingerprint) for score in scores))
    places.sort(key=lambda place: place[1])
    by_place = {(score.codec, score.dataset, score.dataset_fingerprint, score.metric): score for score in scores}
    header = ["codec", "dataset", "n"]
    header += [f"{name} {'↑' if higher else '↓'}" for name, _, higher in metrics]
    rows = []
    for codec, dataset, data in places:
        cells = [by_place.get((codec, dataset, data, name)) for name, _, _ in metrics]
        n = max(score.n for score in cells if score)
        rows.append([codec, dataset, str(n), *(cell(score) for score in cells)])
    return header, rows


def _blocks(scores: Sequence[Score]) -> list[tuple[str, list[Score]]]:
    """Scores that stand in one table: of a dataset, of the same clips, of so many metrics as fit beside each other."""
    places = sorted({(score.dataset, score.dataset_fingerprint): None for score in scores}, key=lambda place: place[0])
    blocks = []
    for place in places:
        here = [score for score in scores if (score.dataset, score.dataset_fingerprint) == place]
        names = list(dict.fromkeys(score.metric for score in here))
        parts = [names[at : at + COLUMNS] for at in range(0, len(names), COLUMNS)]
        blocks += [(place[0], [score for score in here if score.metric in part]) for part in parts]
    return blocks


def is_headline(metric: str) -> bool:
    """Whether a metric is one of the few that a first look needs."""
    detail = metric.endswith(("_original", "_aligned", "_native")) or re.search(r"_codebook_?\d+$", metric)
    return not detail and any(metric == name or metric.startswith(f"{name}_") for name in HEADLINES)


def headlines(scores: Sequence[Score]) -> tuple[list[Score], int]:
    """What a terminal has room for: all scores, of more than MANY metrics the headlines; and how many it leaves out."""
    if len({score.metric for score in scores}) <= MANY:
        return [*scores], 0
    shown = [score for score in scores if is_headline(score.metric)]
    return shown, len(scores) - len(shown)


def terminal(scores: Sequence[Score]) -> str:
    """A table for a terminal, one block a dataset."""
    from rich.console import Console
    from rich.table import Table

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    for dataset, block in _blocks(scores):
        header, rows = _grid(block)
        table = Table(title=f"{dataset} (mean ± half of the 95 % interval)", title_justify="left")
        for index, name in enumerate(header):
            if name != "dataset":
                table.add_column(name, justify="left" if index == 0 else "right", overflow="fold")
        for codec, _, *cells in rows:
            table.add_row(codec, *cells)
        console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def listing(*heads: str) -> Table:
    """An empty table of what there is, of which nothing is cut: not the names that commands take, nor an address."""
    from rich.table import Table

    table = Table(*heads)
    for column in table.columns:
        column.overflow = "fold"
    return table


def show(table: Table) -> None:
    """Print a table: as wide as the terminal, or as a log is where there is none (a pipe to search in)."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else shutil.get_terminal_size((WIDTH, 24)).columns)
    table.columns[0].no_wrap = console.width >= ROOMY
    console.print(table)


def markdown(scores: Sequence[Score]) -> str:
    """The same as Markdown tables."""
    return "\n".join(_markdown(block) for _, block in _blocks(scores))


def _markdown(scores: Sequence[Score]) -> str:
    header, rows = _grid(scores)
    lines = [header, ["---"] * 2 + ["---:"] * (len(header) - 2), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def as_csv(scores: Sequence[Score]) -> str:
    """One line a score, with its interval, n and failures: for a spreadsheet."""
    names = (
        "codec", "suite", "dataset", "metric", "value", "unit", "higher_is_better", "ci_low", "ci_high", "n", "exact",
        "failed", "no_answer", "at_bound", "out_of_domain", "backend", "protocol", "preset", "limit", "device",
        "codec_revision", "dataset_fingerprint", "time",
    )  # fmt: skip
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([getattr(score, name) for name in names] for score in scores)
    return text.getvalue()
