"""Scores over the runs of a reports folder: what was measured in the same way, on the same clips, more than once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from earmark.reports.leaderboard import Column, column_of
from earmark.reports.ranks import better
from earmark.reports.scores import Score
from earmark.reports.tables import cell


@dataclass(frozen=True)
class Trend:
    """The scores of a codec in one column, one a run, the oldest first; two at least."""

    codec: str
    column: Column
    scores: Sequence[Score]

    @property
    def change(self) -> str:
        """The newest against the one before: "better" or "worse" beyond both intervals, else "".

        Intervals are wider than the difference of the same clips is uncertain: `--baseline` finds smaller changes.
        """
        before, now = self.scores[-2:]
        return "better" if better(now, before) else "worse" if better(before, now) else ""

    def as_data(self) -> dict[str, Any]:
        points = [
            {"time": score.time, "value": score.value, "text": cell(score), "revision": score.codec_revision}
            for score in self.scores
        ]
        return {"codec": self.codec, "change": self.change, "points": points}


def trends(scores: Iterable[Score], domains: Mapping[str, str]) -> list[Trend]:
    """What several runs measured; of one that a run repeated, its last counts."""
    of: dict[tuple[str, Column], dict[str, Score]] = {}
    for score in sorted(scores, key=lambda score: score.time):
        of.setdefault((score.codec, column_of(score, domains)), {})[score.run] = score
    return [Trend(codec, column, [*runs.values()]) for (codec, column), runs in of.items() if len(runs) > 1]
