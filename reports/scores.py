"""The score record, and the two files that hold the truth: `scores.jsonl` and `clips.parquet`.

Allure, JUnit, CSV and every table are views of these files. The pytest controller alone writes them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO

from earmark.paths import publishing

MAX_FAILED = 0.01  # more failed clips than this share: the mean of the rest is no score of the codec


@dataclass(frozen=True)
class Score:
    """One number, with all that is needed to read it, repeat it and compare it.

    value, ci_low, ci_high are None where they are not finite. `at_bound` says that the mean is infinite at the metric's
    best value (nothing was lost); without it, None means that there is no mean.
    out_of_domain says that the metric was not validated for such audio.
    n is the number of clips scored; `failed` counts the clips that the codec failed on, `no_answer` those for which the
    metric has none whoever codes them (no speech in the recording, a corrupt file). Both are named and in no mean.
    `exact` counts the clips that came back exactly, where that is infinite: they are in no mean either, unless all did.
    """

    codec: str
    suite: str
    dataset: str
    metric: str
    value: float | None
    unit: str
    higher_is_better: bool
    ci_low: float | None
    ci_high: float | None
    ci_method: str
    n: int
    failed: int
    at_bound: bool = False
    out_of_domain: bool = False
    no_answer: int = 0
    exact: int = 0
    backend: str = ""
    protocol: str = ""
    preset: str = ""
    limit: int | None = None
    seed: int = 0
    device: str = ""
    seconds: float = 0.0
    codec_revision: str = ""
    dataset_fingerprint: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    time: str = ""
    run: str = ""

    @property
    def key(self) -> tuple:
        """What makes two scores the same measurement, made at different times."""
        return (
            self.codec, self.suite, self.dataset, self.metric, self.backend, self.protocol, self.preset,
            self.seed, self.dataset_fingerprint,
        )  # fmt: skip

    @property
    def clips(self) -> int:
        """The clips that the codec was asked for: scored, come back exactly, or failed."""
        return self.n + (0 if self.at_bound else self.exact) + self.failed

    @property
    def fails(self) -> bool:
        """Whether more clips failed than leave a score."""
        return self.failed > MAX_FAILED * self.clips

    def to_json(self) -> str:
        """One line of scores.jsonl: strict JSON, with no NaN and no Infinity."""
        return json.dumps(asdict(self), allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Score:
        unknown = set(record) - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"not a score of this version of Earmark: unknown keys {sorted(unknown)}")
        return cls(**{**record, "notes": tuple(record.get("notes", ()))})


def finite(value: float) -> float | None:
    """The number, or None where JSON has no word for it."""
    return float(value) if math.isfinite(value) else None


def named_unit(unit: str) -> str:
    """The unit as it stands beside a number: of what has none ("1") nothing, as "0.9 1" reads like two numbers."""
    return "" if unit == "1" else unit


def with_unit(number: str, unit: str) -> str:
    """A number, and its unit where it has one.

    >>> with_unit("2.4", "dB"), with_unit("0.9", "1")
    ('2.4 dB', '0.9')
    """
    return f"{number} {named_unit(unit)}".rstrip()


def append_scores(path: Path, scores: Iterable[Score]) -> None:
    """Append to scores.jsonl; nothing that an earlier run measured is lost."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        _drop_half_line(file)
        file.write("".join(score.to_json() + "\n" for score in scores).encode())


def _drop_half_line(file: BinaryIO) -> None:
    """Remove what a killed run left of its last line, or the next score would be glued to it."""
    file.seek(0)
    content = file.read()
    if content and not content.endswith(b"\n"):
        file.truncate(content.rfind(b"\n") + 1)


def read_scores(path: Path) -> list[Score]:
    """The newest score of each measurement in a scores.jsonl, in the order of the file; raises as `read_all`."""
    return newest(read_all(path))


def newest(scores: Iterable[Score]) -> list[Score]:
    """Of each measurement the last, in their order."""
    found: dict[tuple, Score] = {}
    for score in scores:
        found.pop(score.key, None)  # to the end: what was measured last is last
        found[score.key] = score
    return list(found.values())


def read_all(path: Path) -> list[Score]:
    """Every score of a scores.jsonl, those of earlier runs too.

    Raises ValueError with file and line where a line is not a score. A last line without its newline was cut off by a
    killed run and is passed over.
    """
    found = []
    for number, line in enumerate(lines_of(path), start=1):
        try:
            found.append(Score.from_dict(json.loads(line)))
        except (ValueError, TypeError) as error:
            if not line.endswith("\n"):
                break
            raise ValueError(f"{path}:{number}: not a score ({error})") from error
    return found


def lines_of(path: Path) -> list[str]:
    """The lines of JSON in a file. (`str.splitlines` would end one within a text, at U+2028.)"""
    with path.open(encoding="utf-8", newline="\n") as file:
        return file.readlines()


def read_clips(path: Path) -> list[dict[str, Any]]:
    """The rows of a clips.parquet; none where there is no such file."""
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path).to_pylist() if path.exists() else []


def write_clips(path: Path, rows: list[dict[str, Any]]) -> None:
    """Merge per-clip values into clips.parquet; a clip measured again replaces its old value.

    rows: dicts with codec, suite, dataset, metric, backend, protocol, preset, seed, dataset_fingerprint, clip, group,
    value (None where infinite or failed), at_bound, error (None where scored).
    """
    if not rows:
        return
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema(
        [(name, pyarrow.string()) for name in _CLIP_KEY if name != "seed"]
        + [("seed", pyarrow.int64()), ("group", pyarrow.string()), ("value", pyarrow.float64())]
        + [("at_bound", pyarrow.bool_()), ("error", pyarrow.string())]
    )
    old = pyarrow.parquet.read_table(path, schema=schema).to_pylist() if path.exists() else []
    merged = {tuple(row[name] for name in _CLIP_KEY): row for row in [*old, *rows]}
    with publishing(path) as partial:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(merged.values()), schema=schema), partial)


_CLIP_KEY = (
    "codec", "suite", "dataset", "metric", "backend", "protocol", "preset", "seed", "dataset_fingerprint", "clip",
)  # fmt: skip
