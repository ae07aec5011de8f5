"""`earmark data`: which datasets are here, getting them, and whether they are what their cards say."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from earmark.data import cards
from earmark.data.errors import DataError
from earmark.data.manifest import ManifestError
from earmark.data.schema import Card

data_app = typer.Typer(invoke_without_command=True)

Name = Annotated[str, typer.Argument(metavar="CARD", help="a dataset's name; `earmark data ls --all` has them")]


@data_app.callback()
def data(context: typer.Context) -> None:
    """List, get, index and check datasets; without a command, list those that are here.

    Example: earmark data ls
    """
    if context.invoked_subcommand is None:
        ls()


@data_app.command()
def ls(everything: Annotated[bool, typer.Option("--all", help="also those that are not here")] = False) -> None:
    """List every dataset that is here, with its clips and the suites that use it; with --all how to get the rest.

    Example: earmark data ls --all
    """
    from earmark.reports.tables import listing, show

    table = listing("dataset", "domain", "clips", "minutes", "used by", "licence", "title")
    with _errors():
        for card in cards.cards().values():
            away = cards.lacking(card) is not None
            if everything or not away:
                size = [str(card.clips or ""), _away(card)] if away else _size(card)
                table.add_row(card.name, card.domain, *size, ", ".join(card.uses), card.licence, card.title)
    show(table)
    if everything:
        typer.echo("where you have it already: earmark data index NAME --root FOLDER")


def _away(card: Card) -> str:
    """How to get what is not here, in a cell."""
    source = card.source
    if source.folder:
        return "in EARMARK_DATA"
    return source.unavailable or (f"ask: {source.ask}" if source.ask else f"earmark data get {card.name}")


def _size(card: Card) -> list[str]:
    clips = cards.load(card).clips
    return [str(len(clips)), f"{sum(clip.seconds or 0 for clip in clips) / 60:.1f}"]


@data_app.command()
def get(name: Name) -> None:
    """Download a dataset, unpack it and build its manifest; a broken download goes on where it stopped.

    Example: earmark data get esc50
    """
    from earmark.data import get as getting

    with _errors():
        card = _card(name)
        typer.echo(f"{card.title}\nlicence: {card.licence}" + (f"; {card.size_gb:g} GB" if card.size_gb else ""))
        with _progress() as bar:
            root = getting.get(card, bar)
    _index(card, root)


@data_app.command()
def index(
    name: Name,
    root: Annotated[Path, typer.Option(help="the folder that the dataset was unpacked to")],
) -> None:
    """Build the manifest of a dataset that you have, from its files as they were published.

    Example: earmark data index librispeech --root ~/corpora/LibriSpeech
    """
    with _errors():
        card = _card(name)
    _index(card, root)


def _index(card: Card, root: Path) -> None:
    from earmark.data import index as indexing

    with _errors(), _progress() as bar:
        made = indexing.index(
            card, root, cards.folder_of(card) / "manifest.parquet", lambda done: bar("clips", done, None)
        )
    typer.echo(f"{made.rows} clips: {made.manifest}")
    for path, why in sorted(made.unreadable.items()):
        typer.echo(f"  no audio: {path}: {why}")
    if made.unreadable:
        typer.echo(f"{len(made.unreadable)} clips cannot be read; runs count and name them")


@data_app.command()
def check(
    name: Name,
    sound: Annotated[bool, typer.Option(help="read every clip: silent, corrupt, of another length")] = True,
) -> None:
    """Hold a dataset against its card: counts, labels, what is held out, silent and corrupt clips.

    A manifest or folder of your own is looked at as well.

    Example: earmark data check esc10
    """
    with _errors():
        checked = [_checked(card, sound) for card in cards.select([name])]
    if not all(checked):
        raise typer.Exit(1)


def _checked(card: Card, sound: bool) -> bool:
    """Whether a dataset is as its card says; what is not, is said."""
    from earmark.data import checks, own

    dataset = cards.load(card)
    with _progress() as bar:
        found = list(checks.problems(dataset, lambda done: bar(card.name, done, len(dataset.clips)), sound))
    for remark in own.remarks(card):
        typer.secho(remark, fg="yellow")
    for problem in found:
        typer.secho(f"{card.name}: {problem}", fg="red")
    if not found:
        well = "nothing is wrong" if card.source.manifest and not card.tasks else "as its card says"
        typer.echo(f"{card.name}: {len(dataset.clips)} clips, {well}")
    return not found


@data_app.command()
def docs(write: Annotated[Path, typer.Option(help="the file whose table of datasets is made again")]) -> None:
    """Write the table of datasets, made from the cards, between its two marks in a Markdown file.

    Example: earmark data docs --write docs/datasets.md
    """
    from earmark.data import tables

    with _errors():
        write.write_text(tables.with_table(write.read_text(encoding="utf-8"), write.name), encoding="utf-8")


def _card(name: str) -> Card:
    from earmark.names import nearest

    known = cards.cards()
    if name.endswith((".yaml", ".yml")) and Path(name).is_file():
        return cards.read_card(Path(name))
    if name not in known:
        raise DataError(f"unknown dataset {name!r}{nearest(name, known)}")
    return known[name]


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """A known fault is one line and not a traceback."""
    try:
        yield
        return
    except (DataError, ManifestError, ImportError, OSError) as error:
        hint = "; run: pip install 'earmark[data]'" if isinstance(error, ImportError) else ""
        typer.secho(f"error: {error}{hint}", err=True, fg="red")
    raise typer.Exit(1)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """A bar a file: `bar(name, done, total)`."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}")]
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, Any] = {}

        def bar(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total)
            progress.update(tasks[name], completed=done, total=total)

        yield bar
