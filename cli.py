"""The `earmark` command: what is here, and what a run left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Reports = Annotated[Path, typer.Option(help="where the run wrote its scores")]


@app.command()
def codecs() -> None:
    """List every codec: kbit/s, rate, type, and whether it can run here.

    Example: earmark codecs
    """
    from rich.console import Console
    from rich.table import Table

    from earmark.codecs import registry

    table = Table("codec", "kbit/s", "Hz", "frames/s", "K", "type", "proved", "status")
    needed: dict[str, str] = {}
    for entry in registry.catalogue().values():
        info, status = entry.info, registry.status(entry)
        numbers = (info.bitrate_kbps, info.sample_rate, info.frame_rate, info.num_codebooks or None)
        cells = ["" if number is None else f"{round(number, 2):g}" for number in numbers]
        table.add_row(info.name, *cells, info.feature_type or "", entry.proved or "", status.reason)
        if status.command:
            needed[status.command] = f"{needed.get(status.command, '')} {info.name}".strip()
    Console().print(table)
    for command, names in needed.items():
        typer.echo(f"for {names}:\n    {command}")


@app.command()
def data() -> None:
    """List every dataset that is here, with its clips and the suites that use it.

    Example: EARMARK_DATA=~/recordings earmark data
    """
    from rich.console import Console
    from rich.table import Table

    from earmark import paths
    from earmark.data import cards
    from earmark.data.manifest import ManifestError

    table = Table("dataset", "domain", "clips", "minutes", "used by", "licence", "title")
    try:
        present = cards.select(["sampler", *(["real"] if paths.data_folder() else [])])
        for card in present:
            clips = cards.load(card).clips
            minutes = sum(clip.seconds or 0 for clip in clips) / 60
            table.add_row(
                card.name,
                card.domain,
                str(len(clips)),
                f"{minutes:.1f}",
                ", ".join(card.uses),
                card.licence,
                card.title,
            )
    except (cards.DataError, ManifestError) as error:
        raise _fail(error) from error
    Console().print(table)


@app.command()
def report(reports: Reports = Path("reports/out"), html: bool = True) -> None:
    """Print the score table, write it as Markdown and CSV, and render the Allure report.

    Example: earmark report --reports reports/out
    """
    from earmark.reports import allure, tables
    from earmark.reports.scores import read_scores
    from earmark.scoring import in_order

    path = reports / "scores.jsonl"
    if not path.is_file():
        raise _fail(f"{path}: no scores there; run `pytest suites/` first, or name its folder with --reports")
    try:
        scores = in_order(read_scores(path))
    except ValueError as error:
        raise _fail(error) from error
    typer.echo(tables.terminal(scores))
    for name, text in (("scores.md", tables.markdown(scores)), ("scores.csv", tables.as_csv(scores))):
        (reports / name).write_text(text, encoding="utf-8")
        typer.echo(f"table:  {reports / name}")
    if html:
        try:
            rendered = allure.render(reports / "allure-results", reports / "report.html", reports / "history.jsonl")
        except allure.ReportError as error:
            raise _fail(error) from error
        typer.echo(f"report: {rendered.resolve()}")


def _fail(error: object) -> typer.Exit:
    typer.secho(f"error: {error}", err=True, fg="red")
    return typer.Exit(1)
