"""What a run adds to its folder of Allure results: environment, categories of failures, scores.

Called by the pytest controller only, `clean` before the run and the rest after it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from earmark.reports.scores import Score, named_unit

# The first words of the message of a failed or skipped test: what kind of failure it is.
THRESHOLD_MISSED = "threshold missed:"
REGRESSION = "regression:"
CODEC_FAILED = "codec failed:"
DATA_MISSING = "data missing:"
WEIGHTS_MISSING = "weights missing:"
INFRASTRUCTURE_FAULT = "infrastructure fault:"

INFRASTRUCTURE_SIGNS = (
    "out of memory", "OutOfMemoryError", "MemoryError", "CUDA error", "No space left", "worker .{0,80}crashed",
    "ConnectionError", "TimeoutError", "ConnectTimeout", "ReadTimeout",
)  # fmt: skip

ENVIRONMENT_FILE = "environment.properties"
CATEGORIES_FILE = "categories.json"
SCORES_FILE = "scores-perf.json"
RESULT_FILES = (
    "*-result.json", "*-container.json", "*-attachment*", "*-globals.json", "*-check.json", "*-perf.json",
    ENVIRONMENT_FILE, CATEGORIES_FILE, "executor.json",
)  # fmt: skip


def clean(results: Path) -> int:
    """Remove the result files of an earlier run, and nothing else; returns how many.

    Call it once, in the controller, before the workers start; in an xdist worker it does nothing.
    """
    if "PYTEST_XDIST_WORKER" in os.environ or not results.is_dir():
        return 0
    old = {path for pattern in RESULT_FILES for path in results.glob(pattern) if path.is_file()}
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)


def tidy(results: Path) -> None:
    """Take out of every test's "Tear down" what pytest itself does there: one `codec::<lambda>` of no time a fixture.

    allure-pytest writes down every finalizer. Those of fixtures that yield have other names, and stay.
    """
    for path in results.glob("*-container.json"):
        container = json.loads(path.read_text(encoding="utf-8"))
        done = container.get("afters", [])
        kept = [after for after in done if not after["name"].endswith("::<lambda>")]
        if len(kept) < len(done):
            _write(path, json.dumps(container | {"afters": kept}))


def write_environment(results: Path, environment: Mapping[str, object]) -> Path:
    """Write environment.properties: what the run ran on, as name and value.

    Escaped as Java properties, so any text comes back as it was; None becomes an empty value.
    """
    lines = (
        f"{_escape(str(name), key=True)}={_escape('' if value is None else str(value))}\n"
        for name, value in environment.items()
    )
    return _write(results / ENVIRONMENT_FILE, "".join(lines))


def write_categories(results: Path) -> Path:
    """Write categories.json: the kinds of failure, told apart by the first words of their messages."""
    return _write(results / CATEGORIES_FILE, json.dumps(categories(), indent=2))


def write_performance(
    results: Path, scores: Iterable[Score], titles: Mapping[str, str] | None = None, group: str = "codec"
) -> Path:
    """Write the scores as scores-perf.json, for the Metrics tab: one table a codec, one row a measurement, with trend.

    titles: metric name -> what to call it. group: the field of `Score` that makes a table ("codec", "suite", "metric",
    …). A score without a value (infinite, or no clip scored) has no row; failed clips are named in the row's title.
    """
    rows = [_row(score, titles or {}, group) for score in scores if score.value is not None]
    return _write(results / SCORES_FILE, json.dumps(rows, indent=1, allow_nan=False))


def categories() -> list[dict[str, Any]]:
    """The kinds of failure, the first that matches counts; regular expressions are JavaScript's and Java's alike."""
    signs = "|".join(INFRASTRUCTURE_SIGNS)
    infrastructure = rf"^(?:(?:[\w.]+: )*{INFRASTRUCTURE_FAULT}|[\s\S]*(?:{signs}))[\s\S]*"
    missing = ["failed", "broken", "skipped"]
    return [
        _category("Threshold missed", ["failed", "broken"], _starts(THRESHOLD_MISSED)),
        _category("Worse than the baseline", ["failed", "broken"], _starts(REGRESSION)),
        _category("Codec failed", ["failed", "broken"], _starts(CODEC_FAILED)),
        _category("Data missing", missing, _starts(DATA_MISSING)),
        _category("Weights missing", missing, _starts(WEIGHTS_MISSING)),
        _category("Infrastructure fault", ["failed", "broken"], infrastructure),
        _category("Other fault of the benchmark", ["failed", "broken"], r"[\s\S]*"),
    ]


def performance(results: Path) -> dict[str, Any]:
    """The `performance` entry of Allure's config: title, unit, direction and table of every row of the *-perf.json."""
    groups: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    for path in sorted(results.glob("*-perf.json")):
        for row in json.loads(path.read_text(encoding="utf-8")):
            if "better" in row:
                metrics[row["key"]] = {name: row[name] for name in ("title", "unit", "better", "group")}
                groups[row["group"]] = {"title": row["groupTitle"]}
    return {"groups": groups, "metrics": metrics}


def _row(score: Score, titles: Mapping[str, str], group: str) -> dict[str, Any]:
    """Allure's `id key value start stop`, and what `performance` tells of it."""
    key = "|".join(str(part) for part in score.key)
    stop_ms = round(datetime.fromisoformat(score.time).timestamp() * 1000) if score.time else 0
    return {
        "id": key,
        "key": key,
        "value": score.value,
        "start": stop_ms - round(score.seconds * 1000),
        "stop": stop_ms,
        "title": _title(score, titles, group),
        "unit": named_unit(score.unit),
        "better": "higher" if score.higher_is_better else "lower",
        "group": str(getattr(score, group)),
        "groupTitle": f"{group}: {getattr(score, group)}".replace(".", "\N{ONE DOT LEADER}"),  # Allure takes "." out
    }


def _title(score: Score, titles: Mapping[str, str], group: str) -> str:
    names = {"metric": titles.get(score.metric, score.metric), "dataset": score.dataset, "codec": score.codec}
    parts = [name for field, name in (names | {"suite": score.suite}).items() if field != group]
    parts += [score.protocol, score.backend, score.preset]
    failed = f"{score.failed} of {score.clips} clips failed" if score.failed else ""
    return " · ".join(part for part in [*parts, failed] if part)


def _category(name: str, statuses: list[str], message: str) -> dict[str, Any]:
    return {"name": name, "matchedStatuses": statuses, "messageRegex": message}


def _starts(words: str) -> str:
    """A message that starts with these words, after the name of its exception."""
    return rf"^(?:[\w.]+: )*{words}[\s\S]*"


def _escape(text: str, key: bool = False) -> str:
    """Java properties: backslash before what has a meaning, \\uXXXX beyond ASCII.

    >>> print(_escape("GPU name: 1", key=True), _escape("C:\\\\tmp\\nµ"))
    GPU\\ name\\:\\ 1 C:\\\\tmp\\n\\u00b5
    """
    escaped = "".join(_ESCAPES.get(char, char) for char in text)
    if key:
        escaped = re.sub(r"([ :=#!])", r"\\\1", escaped)
    elif escaped.startswith(" "):
        escaped = "\\" + escaped
    return "".join(char if char.isascii() else _utf16(char) for char in escaped)


def _utf16(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\f": "\\f"}
