"""The `earmark` command: what is here, and what a run left behind."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from earmark.cli_data import data_app
from earmark.reports.listening import MOST_MB

if TYPE_CHECKING:
    from earmark.contract import Result
    from earmark.reports.leaderboard import Facts
    from earmark.reports.scores import Score

HELP = """How good is an audio codec, really? What is here, and what a run left behind; `pytest` runs the suites.

Example: pytest --pyargs earmark.suites --codec tiny-2 --data sampler_speech && earmark report
"""
app = typer.Typer(help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

STORE_HELP = """Look after the store of what codecs made.

Example: earmark store ls
"""
store_app = typer.Typer(help=STORE_HELP, no_args_is_help=True)
app.add_typer(store_app, name="store")
app.add_typer(data_app, name="data")

Everything = Annotated[bool, typer.Option("--all", help="every measurement in the folder, the newest of each")]
Reports = Annotated[Path, typer.Option(help="where the run wrote its scores")]
Sounds = Annotated[float, typer.Option(min=0, metavar="MB", help="most megabytes of sound in the leaderboard; 0: none")]


@app.command()
def codecs() -> None:
    """List every codec: kbit/s, rate, type, and whether it can run here.

    Example: earmark codecs
    """
    from earmark.codecs import registry
    from earmark.reports.tables import listing, show

    table = listing("codec", "kbit/s", "Hz", "frames/s", "K", "type", "proved", "status")
    needed: dict[str, str] = {}
    for entry in registry.catalogue().values():
        info, status = entry.info, registry.status(entry)
        numbers = (info.bitrate_kbps, info.sample_rate, info.frame_rate, info.num_codebooks or None)
        cells = ["" if number is None else f"{round(number, 2):g}" for number in numbers]
        table.add_row(info.name, *cells, info.feature_type or "", entry.proved or "", status.reason)
        if status.command:
            needed[status.command] = f"{needed.get(status.command, '')} {info.name}".strip()
    show(table)
    _say_commands(needed)


@app.command()
def metrics(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="what each score means, as the page of the docs")
    ] = False,
) -> None:
    """List every metric: unit, direction, rate, the audio that it was validated for, and whether it can run here.

    Example: earmark metrics
    """
    if markdown:
        from earmark.metrics.page import as_markdown

        typer.echo(as_markdown(), nl=False)
        return
    from earmark.metrics import METRICS
    from earmark.metrics.registry import ANY_AUDIO
    from earmark.reports.tables import listing, show

    table = listing("metric", "unit", "best", "at", "validated for", "status", "source")
    needed: dict[str, str] = {}
    for metric in METRICS.values():
        best = "" if metric.best is None else f"{metric.best:.4g}"
        rate = "codec's rate" if metric.rate is None else f"{metric.rate} Hz"
        domains = "any audio" if metric.domains == ANY_AUDIO else ", ".join(metric.domains)
        command = metric.missing()
        arrow = "↑" if metric.higher_is_better else "↓"
        status = "missing" if command else "ready"
        table.add_row(f"{metric.name} {arrow}", metric.unit, best, rate, domains, status, metric.source)
        if command:
            needed[command] = f"{needed.get(command, '')} {metric.name}".strip()
    show(table)
    _say_commands(needed)


@app.command()
def check(
    codec: Annotated[str, typer.Argument(help="a name of the catalogue, or package.module:Class")],
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:1")] = "cpu",
    only: Annotated[list[str] | None, typer.Option(help="a check, by name; repeat it")] = None,
) -> None:
    """Run the contract on one codec or encoder: lengths, padding, batches, tokens, edge cases, state, memory.

    Example: earmark check my_pkg:MyCodec
    """
    from earmark.codecs import registry
    from earmark.codecs.calls import CodecError
    from earmark.contract import examine
    from earmark.contract.verdict import subject_of

    try:
        subject = subject_of(codec, device)
        status = registry.status(subject.entry)
        if not status.ready:
            raise _fail(f"{codec}: {status}")
        subject.adapter()
        results = [_said(result) for result in examine(subject, tuple(only or ()))]
    except (LookupError, registry.CatalogueError, CodecError) as error:
        raise _fail(error) from error
    counts = Counter(result.verdict for result in results)
    typer.echo(f"{codec}: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    if counts["failed"]:
        raise typer.Exit(1)


def _said(result: Result) -> Result:
    """Print one answer of the contract as it comes: a line, and below it why, where it did not pass."""
    colour = {"passed": "green", "failed": "red"}.get(result.verdict, "yellow")
    measured = ", ".join(f"{name} {value:g}" for name, value in result.measured.items())
    failed = result.verdict == "failed"
    asks = f"{result.check.name}: {result.check.asks if failed else measured or result.check.asks}"
    typer.echo(f"{typer.style(result.verdict, fg=colour)}  {asks}")
    lines = [line for line in result.message.splitlines() if not (failed and line.endswith(asks))]  # said above
    for line in lines:
        typer.echo(f"  {line}")
    return result


def _say_commands(needed: dict[str, str]) -> None:
    """The commands that get what is missing, each with what it is for."""
    for command, names in needed.items():
        typer.echo(f"for {names}:\n    {command}")


@app.command()
def report(
    files: Annotated[
        list[Path] | None, typer.Argument(help="scores.jsonl of several runs: only a leaderboard over all of them")
    ] = None,
    reports: Reports = Path("reports/out"),
    html: Annotated[bool, typer.Option(help="render the Allure report too, which takes the longest")] = True,
    everything: Everything = False,
    sounds: Sounds = MOST_MB,
) -> None:
    """Print the last run's score table, write it as Markdown and CSV, its leaderboard, and the Allure report.

    Example: earmark report --reports reports/out
    Example: earmark report runs/*/scores.jsonl
    """
    from earmark.reports import allure, tables
    from earmark.reports.scores import newest
    from earmark.scoring import in_order

    read = [_scores(file) for file in files or [reports / "scores.jsonl"]]
    every = [score for scores in read for score in scores]
    heard_in = [file.parent for file in files or ()] or [reports]
    if files:
        of_each = [score for scores in read for score in newest(scores)]  # the page takes the newest of them by time
        _write_leaderboard(of_each, every, heard_in, sounds, reports)
        return
    found = newest(every)
    scores = in_order(score for score in found if everything or score.run == found[-1].run)
    shown, more = tables.headlines(scores)
    typer.echo(tables.terminal(shown) + (f"and {more} more scores in the tables:\n" if more else ""))
    for name, text in (("scores.md", tables.markdown(scores)), ("scores.csv", tables.as_csv(scores))):
        (reports / name).write_text(text, encoding="utf-8")
        typer.echo(f"table:  {reports / name}")
    _write_leaderboard(scores, every, heard_in, sounds, reports)
    if html:
        try:
            rendered = allure.render(reports / "allure-results", reports / "report.html", reports / "history.jsonl")
        except allure.ReportError as error:
            raise _fail(error) from error
        typer.echo(f"report: {rendered.resolve()}")


def _scores(path: Path) -> list[Score]:
    from earmark.reports.scores import read_all

    if not path.is_file():
        raise _fail(
            f"{path}: no scores there; run `pytest --pyargs earmark.suites` first, or name its folder with --reports"
        )
    try:
        return read_all(path)
    except ValueError as error:
        raise _fail(error) from error


def _write_leaderboard(
    scores: list[Score], past: list[Score], heard_in: list[Path], sounds_mb: float, folder: Path
) -> None:
    """leaderboard.html, .md and .csv, with what the catalogue and the cards know of codecs and datasets, what earlier
    runs measured (`past`), and what the runs left to listen to.
    """
    from earmark.codecs.registry import catalogue
    from earmark.data.cards import cards
    from earmark.reports import leaderboard
    from earmark.reports.history import trends
    from earmark.reports.listening import gather
    from earmark.reports.pictures import pictures
    from earmark.scoring import in_order

    scores = in_order(scores)
    domains = {name: card.domain for name, card in cards().items()}
    families = {name: entry.family for name, entry in catalogue().items() if entry.family}
    try:
        facts = _facts(heard_in)
        heard = gather(heard_in, ((score.run, score.codec, score.dataset) for score in scores), sounds_mb)
    except ValueError as error:
        raise _fail(error) from error
    board = leaderboard.board(scores, facts, domains)
    drawn = pictures(scores, families, domains)
    folder.mkdir(parents=True, exist_ok=True)
    views = {
        "html": leaderboard.to_html(board, drawn, heard, trends(past, domains)),
        "md": leaderboard.to_markdown(board),
        "csv": leaderboard.to_csv(board),
    }
    for kind, text in views.items():
        path = folder / f"leaderboard.{kind}"
        path.write_text(text, encoding="utf-8")
        typer.echo(f"leaderboard: {path}")


def _facts(folders: list[Path]) -> dict[str, Facts]:
    """What is known of the codecs of the catalogue, and of those that the runs of these folders had of their own.

    Raises ValueError that names the file where what they kept cannot be read.
    """
    from earmark.codecs.contract import Info
    from earmark.codecs.registry import catalogue
    from earmark.reports import own
    from earmark.reports.leaderboard import Facts

    infos = {name: entry.info for name, entry in catalogue().items()}
    infos |= {name: Info.model_validate(said) for name, said in own.kept(folders).items()}
    names = (
        "feature_type", "sample_rate", "frame_rate", "num_codebooks", "token_rate", "bitrate_kbps", "trained_on",
    )  # fmt: skip
    return {
        name: Facts(
            **{fact: getattr(info, fact) or getattr(Facts, fact) for fact in names},
            codebook_size=max(info.codebook_sizes, default=None),
        )
        for name, info in infos.items()
    }


@store_app.command("ls")
def store_ls() -> None:
    """List what the store has of each codec: one row a fingerprint, so that what is stale can be seen.

    Example: earmark store ls
    """
    from earmark.reports.tables import listing, show
    from earmark.store import keep

    table = listing("codec", "fingerprint", "size", "shards", "last used")
    for group in keep.groups(_store()):
        used = datetime.fromtimestamp(group.used).strftime("%Y-%m-%d %H:%M")
        table.add_row(group.codec, group.fingerprint, keep.human_size(group.size), str(group.shards), used)
    show(table)
    store_size()


@store_app.command("size")
def store_size() -> None:
    """Say how large the store is, and how large it may grow.

    Example: EARMARK_STORE_MAX=50GB earmark store size
    """
    from earmark.store import keep

    found, limit = keep.stored(_store()), _store_limit()
    most = f"at most {keep.human_size(limit)}" if limit is not None else "no limit"
    size = keep.human_size(sum(file.size for file in found))
    typer.echo(f"{_store()}: {size} in {len(found)} shards, {most} ({keep.LIMIT})")


@store_app.command("prune")
def store_prune(
    max_size: Annotated[str, typer.Option(help="how much may stay, like 20GB; default: EARMARK_STORE_MAX")] = "",
    codec: Annotated[str, typer.Option(help="only shards of this codec")] = "",
    older_than: Annotated[str, typer.Option(help="only shards not used for so long, like 30d or 12h")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would go")] = False,
) -> None:
    """Remove shards, the least recently used first, and what dead runs left behind. Whatever goes can be made again.

    Example: earmark store prune --max-size 20GB --older-than 30d
    """
    from earmark.store import keep
    from earmark.store.shards import StoreError
    from earmark.thresholds import nearest

    known = {group.codec for group in keep.groups(_store())}
    if codec and codec not in known:
        raise _fail(f"the store has nothing of {codec}{nearest(codec, known) if known else ': it is empty'}")
    try:
        most = keep.parse_size(max_size) if max_size else None if codec or older_than else keep.limit()
        age_s = keep.parse_age_s(older_than) if older_than else None
        pruned = keep.prune(_store(), max_size=most, codec=codec or None, older_than_s=age_s, dry_run=dry_run)
    except (ValueError, StoreError) as error:
        raise _fail(error) from error
    typer.echo(
        f"{'would free' if dry_run else 'freed'} {keep.human_size(pruned.freed)}: {pruned.shards} shards, "
        f"{pruned.leftovers} leftovers" + (f"; {pruned.held} shards are in use and stay" if pruned.held else "")
    )
    if not any((most is not None, codec, older_than)):
        typer.echo("say which shards may go: --max-size 20GB, --older-than 30d or --codec NAME")


def _store() -> Path:
    from earmark import paths

    return paths.home() / "store"


def _store_limit() -> int | None:
    from earmark.store import keep

    try:
        return keep.limit()
    except ValueError as error:
        raise _fail(error) from error


def _fail(error: object) -> typer.Exit:
    typer.secho(f"error: {error}", err=True, fg="red")
    return typer.Exit(1)
