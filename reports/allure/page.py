"""One self-contained HTML page of a folder of results, made by Allure 3's Awesome plugin.

The page opens from disk and asks nothing of any network: Allure's analytics tag is taken out, and a content security
policy forbids what an attachment might still try.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from earmark.reports.allure.node import HERE, ReportError, prewarm, run_allure
from earmark.reports.allure.results import CATEGORIES_FILE, categories, performance
from earmark.reports.scores import lines_of

POLICY = "default-src data: blob: 'unsafe-inline' 'unsafe-eval'"
ANALYTICS = re.compile(
    r"<script\b[^>]*\bsrc=\"https?://[^\"]*googletagmanager[^>]*>\s*</script>\s*<script>[^<]*\bgtag\b[^<]*</script>"
)
EXTERNAL = re.compile(
    r"<(?:script|link|img|iframe|audio|video|source)\b[^>]{0,400}?\b(?:src|href)=\"?(?:https?:)?//[^>\s]+"
)


def render(results: Path, report: Path, history: Path | None = None, title: str = "Earmark") -> Path:
    """Render a folder of allure-pytest results into one HTML file; returns `report`.

    history: a history.jsonl that grows by one line a run and feeds the trends; None leaves trends out. A run that is
    rendered again is not added again. Raises ReportError where there are no results, no Node, no npm packages and no
    way to get them, or where Allure fails; `report` is then left as it was.
    """
    results, report = results.absolute(), report.absolute()
    _require_results(results)
    prewarm()
    report.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".allure-", dir=report.parent) as folder:
        work = Path(folder)
        if history is None:
            _generate(results, work, title)
        else:
            _generate_with_history(results, work, title, history.absolute())
        page = work / "page.html"
        page.write_text(without_requests(_the_page(work).read_text(encoding="utf-8")), encoding="utf-8")
        page.replace(report)
    return report


def without_requests(html: str) -> str:
    """The page without Allure's analytics tag, and with a policy that lets it load nothing but itself.

    Raises ReportError where it would still load something: another version of Allure has another tag.
    """
    html = ANALYTICS.sub("", html)
    found = EXTERNAL.search(html)
    if found:
        raise ReportError(f"the page would load something from the network: {found.group()[:200]}")
    policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    return html.replace('<meta charset="utf-8">', f'<meta charset="utf-8">\n    {policy}', 1)


def _require_results(results: Path) -> None:
    if not results.is_dir():
        raise ReportError(f"no results folder at {results}: run pytest with --alluredir {results} first")
    if next(results.glob("*-result.json"), None) is None:
        raise ReportError(f"no test results in {results}: run pytest with --alluredir {results} first")


def _generate(results: Path, work: Path, title: str, history: Path | None = None) -> None:
    config = work / "allurerc.json"
    config.write_text(json.dumps(_config(results, title, history)), encoding="utf-8")
    # "." from within the folder: Allure takes paths for glob patterns
    run_allure("generate", "--config", str(config), "--output", str(work / "out"), ".", cwd=results)


def _config(results: Path, title: str, history: Path | None) -> dict[str, Any]:
    """The template beside this file, filled in: Allure 3 reads categories and score titles from its config only."""
    config = json.loads((HERE / "allurerc.json").read_text(encoding="utf-8"))
    own = results / CATEGORIES_FILE
    config["name"] = title
    config["categories"] = json.loads(own.read_text(encoding="utf-8")) if own.exists() else categories()
    config["performance"] = performance(results)
    config["appendHistory"] = history is not None
    if history is not None:
        config["historyPath"] = str(history)
    return config


def _generate_with_history(results: Path, work: Path, title: str, history: Path) -> None:
    """Allure works on a copy of the past; what it adds to that is then added to `history`, in one write."""
    from filelock import FileLock

    history.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(history.with_suffix(".lock")):
        past = lines_of(history) if history.exists() else []
        try:
            again = bool(past) and _is_this_run(past[-1], results)
        except (ValueError, KeyError) as error:
            raise ReportError(f"{history}:{len(past)}: not a line of a history ({error}); remove that line") from error
        copy = work / "history.jsonl"
        copy.write_text("".join(past[:-1] if again else past), encoding="utf-8")
        _generate(results, work, title, copy)
        if not again:
            line = lines_of(copy)[-1].removesuffix("\n")
            with history.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def _is_this_run(line: str, results: Path) -> bool:
    """Whether a line of the history was written for these results: their times are the same."""
    now = {_times(json.loads(path.read_text(encoding="utf-8"))) for path in results.glob("*-result.json")}
    then = {_times(result) for result in json.loads(line)["testResults"].values()}
    return bool(then) and then <= now


def _times(result: dict[str, Any]) -> tuple[Any, Any]:
    return result.get("start"), result.get("stop")


def _the_page(work: Path) -> Path:
    pages = sorted((work / "out").rglob("index.html"))
    if len(pages) != 1:
        raise ReportError(f"Allure made {len(pages)} pages where one was expected")
    return pages[0]
