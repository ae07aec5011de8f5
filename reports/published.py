"""The figures that the papers print (published.yaml), under our names of codecs, datasets and metrics."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earmark import yamls

_FILE = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class Figure:
    """One printed number.

    model    the codec's name in the paper; codec: its name in our catalogue, None where there is none.
    dataset  None where the number is a mean over the paper's datasets of that domain.
    metric   as a score's: of a probe, measure, task, protocol and kind of latents.
    """

    paper: str
    table: str
    model: str
    codec: str | None
    domain: str
    dataset: str | None
    metric: str
    value: float


def figures() -> tuple[Figure, ...]:
    """All of them, in the order of the file."""
    return tuple(figure for table in content()["tables"] for figure in _of_table(table))


def values(dataset: str, metric: str, paper: str = "audiocodecbench") -> dict[str, float]:
    """Of one dataset and metric, what each model has: model -> value; the first table that prints a number counts."""
    found: dict[str, float] = {}
    for figure in figures():
        if (figure.paper, figure.dataset, figure.metric) == (paper, dataset, metric):
            found.setdefault(figure.model, figure.value)
    return found


@functools.cache
def _printed() -> Mapping[tuple, Figure]:
    found: dict[tuple, Figure] = {}
    for figure in figures():
        found.setdefault((figure.codec, figure.dataset, figure.metric), figure)
    return found


def printed(codec: str, dataset: str, metric: str) -> Figure | None:
    """What is printed for a codec of our catalogue on a dataset, in the first table that has it; None where none is."""
    return _printed().get((codec, dataset, metric))


def source(figure: Figure) -> str:
    """Where a figure stands, in a few words: "CodecBench, Table 5", "X-ARES README at 161f0ef, kNN"."""
    where = f", Table {figure.table}" if figure.table[0].isdigit() else f" {figure.table}"
    return content()["papers"][figure.paper]["short"] + where


@functools.cache
def content() -> Mapping[str, Any]:
    """The file as it is: papers, models, correlation, averages, tables."""
    return yamls.read(_FILE.read_text(encoding="utf-8"))


def _of_table(table: Mapping[str, Any]) -> Iterator[Figure]:
    paper, domain = table["paper"], table["domain"]
    codecs = content()["papers"][paper]["codecs"]
    for model, numbers in table["rows"].items():
        for column, value in zip(table["columns"], numbers, strict=True):
            if value is not None:
                dataset, metric = _named(column, table)
                yield Figure(paper, str(table["table"]), model, codecs[model], domain, dataset, metric, float(value))


def _named(column: str, table: Mapping[str, Any]) -> tuple[str | None, str]:
    """Dataset and metric of a column."""
    if "/" not in column:
        return table.get("dataset"), column
    dataset, task, measure = column.split("/")
    return dataset, f"{measure}_{task}_{table.get('protocol', table['paper'])}_{table['probe'].replace(':', '')}"
