"""The table of datasets in the documents, made from the cards, so that it cannot differ from them."""

from __future__ import annotations

import re

from earmark.data.cards import how_to_get, written
from earmark.data.errors import DataError
from earmark.data.schema import Card

BEGIN, END = "<!-- datasets: made by `earmark data docs` -->", "<!-- end of datasets -->"
HEAD = "| dataset | what | domain | clips | rate | tasks | held out | used by | licence | got by |"


def with_table(text: str, name: str) -> str:
    """A Markdown text with the table between its two marks made again. Raises DataError where it has no such marks."""
    parts = re.split(f"({re.escape(BEGIN)}|{re.escape(END)})", text)
    if len(parts) != 5:
        raise DataError(f"{name}: expected the line {BEGIN} and after it {END}, once each")
    return f"{parts[0]}{BEGIN}\n{markdown()}\n{END}{parts[4]}"


def markdown() -> str:
    """A line a card, in the order of their names."""
    return "\n".join([HEAD, re.sub(r"[^|]+", "---", HEAD), *(_line(card) for card in written().values())])


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
        return "its folds or split, else 5 folds" if card.tasks else ""
    return f"{rule.column}, as published" if rule.column else f"{rule.folds} folds by {rule.by}"


def _got(card: Card) -> str:
    source = card.source
    if source.folder:
        return "part of the package" if source.folder == "sampler" else "`EARMARK_DATA`"
    if source.ask:
        return f"[ask its owners]({source.ask}), then `earmark data index`"
    return how_to_get(card) if source.unavailable else f"`earmark data get {card.name}`"
