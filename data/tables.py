"""The table of datasets in the documents, made from the cards, so that it cannot differ from them."""

from __future__ import annotations

import re
from typing import get_args

from earmark.data.cards import how_to_get, written
from earmark.data.errors import DataError
from earmark.data.schema import Card, Domain

MARKS = re.compile(
    r"(<!-- (datasets|datasets by domain): made by `earmark data docs` -->\n).*?(<!-- end of datasets -->)", re.S
)
HEAD = "| dataset | what | domain | clips | rate | tasks | held out | used by | licence | got by |"


def with_table(text: str, name: str) -> str:
    """A Markdown text with the table between its marks made again. Raises DataError where it has no such marks."""
    made, count = MARKS.subn(lambda found: f"{found[1]}{TABLES[found[2]]()}\n{found[3]}", text)
    if count != 1:
        raise DataError(f"{name}: expected `<!-- datasets: made by `earmark data docs` -->` and an end of it, once")
    return made


def whole() -> str:
    """A line a card, in the order of their names."""
    return "\n".join([HEAD, re.sub(r"[^|]+", "---", HEAD), *(_line(card) for card in written().values())])


def by_domain() -> str:
    """A line a domain, with the names of its datasets."""
    lines = ["| domain | datasets |", "|---|---|"]
    for domain in get_args(Domain):
        names = [f"`{card.name}`" for card in written().values() if card.domain == domain]
        lines.append(f"| {domain} | {', '.join(names)} |")
    return "\n".join(lines)


TABLES = {"datasets": whole, "datasets by domain": by_domain}


def _line(card: Card) -> str:
    rate = f"{card.sample_rate / 1000:g} kHz" if card.sample_rate else ""
    name = f"[`{card.name}`]({card.homepage})" if card.homepage else f"`{card.name}`"
    tasks = ", ".join(_task(card, number) for number in range(len(card.tasks)))
    used = ", ".join(card.benchmarks)
    cells = [name, card.title, card.domain, str(card.clips or ""), rate, tasks, _held_out(card), used, card.licence]
    return "| " + " | ".join([*cells, _got(card)]) + " |"


def _task(card: Card, number: int) -> str:
    task = card.tasks[number]
    return f"{task.name} ({task.kind.replace('_', '-')}{f', {task.classes}' if task.classes else ''})"


def _held_out(card: Card) -> str:
    rule = card.held_out
    if not card.tasks or rule is None:
        return "its folds or split, else 5 folds by group" if card.tasks else ""
    return f"{rule.column}, as published" if rule.column else f"{rule.folds} folds by {rule.by}"


def _got(card: Card) -> str:
    source = card.source
    if source.folder:
        return "part of the package" if source.folder == "sampler" else "`EARMARK_DATA`"
    if source.ask:
        return f"[ask its owners]({source.ask}), then `earmark data index`"
    return how_to_get(card) if source.unavailable else f"`earmark data get {card.name}`"
