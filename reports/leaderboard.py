"""The leaderboard: scores of any number of runs, a row a codec, a column a dataset and metric, ranked and annotated.

Views of one `Board`: a page that needs no network (leaderboard.html), Markdown and CSV. Nothing is averaged over
datasets or metrics: a single number for "how good" would hide what a reader came to see.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark.reports.listening import PLACES, Listening
from earmark.reports.published import Figure, printed, source
from earmark.reports.ranks import rank
from earmark.reports.scores import Score
from earmark.reports.tables import cell as short
from earmark.reports.tables import is_headline

if TYPE_CHECKING:
    from earmark.reports.history import Trend

PAGE = Path(__file__).with_name("leaderboard.html")


@dataclass(frozen=True)
class Facts:
    """What is known of a codec beside its scores. All of it may be unknown, of a codec of one's own."""

    feature_type: str | None = None
    sample_rate: int | None = None
    frame_rate: float | None = None
    num_codebooks: int | None = None
    codebook_size: int | None = None
    token_rate: float | None = None
    bitrate_kbps: float | None = None
    parameters_million: float | None = None
    latents: Sequence[str] = ()  # of each kind, the numbers in a frame and the frames a second
    trained_on: Sequence[str] = ()


FACTS = {  # the table of models: what is known, and the head of its column
    "feature_type": "feature type",
    "sample_rate": "sample rate (Hz)",
    "frame_rate": "frames/s",
    "num_codebooks": "codebooks",
    "codebook_size": "codes in each",
    "token_rate": "tokens/s",
    "bitrate_kbps": "kbit/s",
    "parameters_million": "10⁶ parameters",
    "latents": "latents, numbers × frames/s",
    "trained_on": "trained on",
}


@dataclass(frozen=True)
class Column:
    """What is comparable: one metric, by one backend and protocol, on the same clips."""

    suite: str
    dataset: str
    metric: str
    backend: str
    protocol: str
    preset: str
    data: str
    unit: str
    higher_is_better: bool
    domain: str = ""
    device: str = ""  # of speed and memory, which are a machine's as much as a codec's


@dataclass(frozen=True)
class Cell:
    """A score in its column. rank: as `ranks.rank` has it.

    contaminated: the codec was trained on that corpus. published: what a paper prints for that codec, dataset and
    metric, and published_in, where.
    """

    score: Score
    rank: int
    contaminated: bool = False
    published: float | None = None
    published_in: str = ""


@dataclass(frozen=True)
class Board:
    """Columns, and of each codec its facts and its cells by the place of their column."""

    columns: Sequence[Column]
    cells: Mapping[str, Mapping[int, Cell]]
    facts: Mapping[str, Facts] = field(default_factory=dict)


def board(scores: Iterable[Score], facts: Mapping[str, Facts], domains: Mapping[str, str]) -> Board:
    """Arrange scores, in their order; of one measurement that several runs made, the newest counts.

    facts: codec -> what is known of it. domains: dataset -> speech, music, sound or general.
    """
    newest: dict[tuple[str, Column], Score] = {}
    for score in scores:
        at = score.codec, column_of(score, domains)
        if at not in newest or newest[at].time <= score.time:
            newest[at] = score
    peers: dict[Column, list[Score]] = {}
    for (_, column), score in newest.items():
        peers.setdefault(column, []).append(score)
    columns = [*peers]
    place = {column: index for index, column in enumerate(columns)}
    cells: dict[str, dict[int, Cell]] = {}
    for (codec, column), score in newest.items():
        made = Cell(score, rank(score, peers[column]), _trained_on(facts.get(codec, Facts()), column.dataset))
        cells.setdefault(codec, {})[place[column]] = _with_figure(made, printed(codec, column.dataset, column.metric))
    sizes: dict[str, dict[str, float | None]] = {codec: {} for codec in cells}
    for score in newest.values():
        if score.suite == "speed":
            sizes[score.codec][score.metric] = score.value
    known = {codec: replace(facts.get(codec, Facts()), **_sizes(measured)) for codec, measured in sizes.items()}
    return Board(columns, cells, known)


def _sizes(measured: Mapping[str, float | None]) -> dict[str, Any]:
    """What the speed suite counted of a codec, as facts; nothing of what was not measured."""
    counted = "latent_dimensions_"
    kinds = sorted(name.removeprefix(counted) for name in measured if name.startswith(counted))
    numbers = {kind: [measured.get(f"latent_{what}_{kind}") for what in ("dimensions", "frame_rate")] for kind in kinds}
    latents = [f"{kind} {' × '.join(map(_told, found))}" for kind, found in numbers.items()]
    return {"parameters_million": measured.get("parameters_million"), "latents": tuple(latents)}


def column_of(score: Score, domains: Mapping[str, str]) -> Column:
    """The column of a score; domains: dataset -> its domain."""
    shared = ("suite", "dataset", "metric", "backend", "protocol", "preset", "unit", "higher_is_better")
    same = {name: getattr(score, name) for name in shared}
    device = score.device if score.suite == "speed" else ""
    return Column(**same, data=score.dataset_fingerprint, domain=domains.get(score.dataset, ""), device=device)


def _trained_on(facts: Facts, dataset: str) -> bool:
    """Whether a codec was trained on the corpus of a dataset, or on a part of it, by name.

    "LibriSpeech" is that of librispeech_test_other, "ESC-10 folds 1-4" a part of esc10.
    """
    name, corpora = _plain(dataset), [_plain(corpus) for corpus in facts.trained_on]
    return any(name.startswith(corpus) or corpus.startswith(name) for corpus in corpora if corpus)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _with_figure(cell: Cell, figure: Figure | None) -> Cell:
    if figure is None:
        return cell
    return replace(cell, published=figure.value, published_in=source(figure))


# -- views ------------------------------------------------------------------------------------------------------------


def to_html(
    board: Board,
    pictures: Sequence[tuple[str, str]] = (),
    listening: Listening = Listening(),  # noqa: B008
    trends: Sequence[Trend] = (),
    title: str = "Earmark leaderboard",
) -> str:
    """One page, complete in itself. pictures: (caption, SVG). listening: clips to play, with their sounds."""
    data = {
        "facts": FACTS,
        "columns": [asdict(column) | {"headline": is_headline(column.metric)} for column in board.columns],
        "codecs": [
            {
                "name": codec,
                "facts": asdict(board.facts[codec]),
                "cells": {at: _json(cell) for at, cell in cells.items()},
            }
            for codec, cells in board.cells.items()
        ],
        "places": PLACES,
        "clips": [asdict(heard) for heard in listening.clips],
        "trends": _trends(board, trends),
    }
    drawn = "".join(
        f"<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>" for caption, svg in pictures
    )
    sounds = (f'<script type="text/plain" id="{name}">{coded}</script>\n' for name, coded in listening.sounds.items())
    # "</" inside a script would end it, "<!--" begin a comment
    filled = {"TITLE": html.escape(title), "DATA": json.dumps(data).replace("<", "\\u003c"), "PICTURES": drawn}
    filled |= {"SOUNDS": "".join(sounds), "LEFT_OUT": html.escape(listening.left_out)}
    return re.sub(r"\{\{([A-Z_]+)\}\}", lambda match: filled[match[1]], PAGE.read_text(encoding="utf-8"))


def _trends(board: Board, trends: Sequence[Trend]) -> list[dict[str, Any]]:
    """The trends of what is on the board, each with the place of its column."""
    place = {column: at for at, column in enumerate(board.columns)}
    found = [(trend, place.get(trend.column)) for trend in trends]
    return [trend.as_data() | {"at": at} for trend, at in found if at in board.cells.get(trend.codec, {})]


def _json(cell: Cell) -> dict[str, Any]:
    score = cell.score
    names = (
        "value", "ci_low", "ci_high", "ci_method", "n", "exact", "failed", "no_answer", "limit", "at_bound",
        "out_of_domain",
    )  # fmt: skip
    flags = {name: getattr(cell, name) for name in ("rank", "contaminated", "published", "published_in")}
    return {name: getattr(score, name) for name in names} | flags | {"text": short(score), "notes": list(score.notes)}


def to_markdown(board: Board) -> str:
    """A table of the headline metrics for each dimension and dataset."""
    parts = ["# Leaderboard", ""]
    groups = dict.fromkeys((column.suite, column.dataset, column.data) for column in board.columns)
    for suite, dataset, data in groups:
        chosen = [
            (at, column)
            for at, column in enumerate(board.columns)
            if (column.suite, column.dataset, column.data) == (suite, dataset, data) and is_headline(column.metric)
        ]
        if chosen:
            parts += [f"## {suite}: {dataset}", "", *_markdown_table(board, chosen), ""]
    return "\n".join([*parts, _LEGEND, "", "## Models", "", *_models(board), ""])


_LEGEND = (
    "Mean ± half of the 95 % interval, and the rank: 1 and how many are better beyond both intervals. † the metric was "
    "not validated for such audio. ‡ the codec was trained on that corpus."
)


def _markdown_table(board: Board, chosen: Sequence[tuple[int, Column]]) -> list[str]:
    names = [f"{column.metric} {'↑' if column.higher_is_better else '↓'}" for _, column in chosen]
    lines = [f"| codec | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
    for codec, cells in board.cells.items():
        found = [cells.get(at) for at, _ in chosen]
        if any(found):
            lines.append(f"| {codec} | {' | '.join(_marked(cell) for cell in found)} |")
    return lines


def _models(board: Board) -> list[str]:
    """A row a codec, with what is known of it."""
    lines = [f"| codec | {' | '.join(FACTS.values())} |", "|---|" + "---|" * len(FACTS)]
    for codec, facts in board.facts.items():
        lines.append(f"| {codec} | {' | '.join(_told(getattr(facts, name)) for name in FACTS)} |")
    return lines


def _told(fact: Any) -> str:
    """A fact as text; nothing where it is not known."""
    if isinstance(fact, float):
        return f"{fact:.4g}"
    return "; ".join(fact) if isinstance(fact, list | tuple) else "" if fact is None else str(fact)


def _marked(cell: Cell | None) -> str:
    return "" if cell is None else f"{short(cell.score)}{'‡' * cell.contaminated} ({cell.rank})"


def to_csv(board: Board) -> str:
    """One line a cell, with its rank, flags and published figure, and what is known of the codec."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = (
        "suite",
        "dataset",
        "metric",
        "backend",
        "protocol",
        "preset",
        "data",
        "unit",
        "higher_is_better",
        "domain",
        "device",
    )
    numbers = (
        "value", "ci_low", "ci_high", "n", "exact", "failed", "no_answer", "at_bound", "out_of_domain",
        "codec_revision",
    )  # fmt: skip
    flags = ("rank", "contaminated", "published", "published_in")
    writer.writerow(["codec", *names, *numbers, *flags, *FACTS])
    for codec, cells in board.cells.items():
        for at, cell in cells.items():
            column = board.columns[at]
            writer.writerow(
                [codec]
                + [getattr(column, name) for name in names]
                + [getattr(cell.score, name) for name in numbers]
                + [getattr(cell, name) for name in flags]
                + [_told(getattr(board.facts[codec], name)) for name in FACTS]
            )
    return text.getvalue()
