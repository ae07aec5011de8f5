"""What a dataset card can say: strict models, so that a misspelt key is an error and not a silence.

A card declares a dataset: where it comes from, how its files lie, what its labels can answer, what must be held out,
how many clips there must be. It holds facts of the publishers; what is not known for sure is left out.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Domain = Literal["speech", "music", "sound", "general"]
Use = Literal["reconstruction", "id_sensitivity", "lm", "probe"]
TaskKind = Literal["classification", "multi_label", "regression", "events", "asr", "retrieval", "verification"]
Benchmark = Literal["AudioCodecBench", "CodecBench", "X-ARES"]

NAME = r"[A-Za-z0-9_.+-]+"  # what can stand in a test id and in --data


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Download(Strict):
    """A file to get, and its published checksum (`md5:...` or `sha256:...`) where there is one."""

    url: str = Field(pattern=r"^https?://")
    checksum: str | None = Field(default=None, pattern=r"^(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})$")
    name: str | None = Field(default=None, pattern=r"^[^/\\]+$")  # to be kept by, where its address does not end in one

    @property
    def file_name(self) -> str:
        return self.name or self.url.partition("?")[0].rstrip("/").rpartition("/")[2]


class Source(Strict):
    """Where the clips come from: one of these.

    folder      the embedded sampler, or the folder EARMARK_DATA; `dataset` is their name (or names) in its manifest
    manifest    a CSV, JSONL or Parquet file of the user's own; the datasets of that name, or all of it
    zenodo      the number of a record; its files and their checksums are as the record says
    hub         a dataset repository of the Hugging Face hub, at a `revision`, where given only the files of `files`
    urls        files to download
    ask         a page: who wants the data must agree to something, pay, or crawl; then `earmark data index`
    unavailable nobody can have it, and why
    """

    folder: Literal["sampler", "EARMARK_DATA"] | None = None
    manifest: str | None = None
    dataset: str | tuple[str, ...] = ()
    zenodo: int | None = None
    hub: str | None = Field(default=None, pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str | None = None
    files: tuple[str, ...] = ()
    urls: tuple[Download, ...] = ()
    ask: str | None = Field(default=None, pattern=r"^https?://")
    unavailable: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in SOURCES if getattr(self, name) not in (None, ())]
        if len(given) != 1:
            raise ValueError(f"expected one of {', '.join(SOURCES)}; got {', '.join(given) or 'none'}")
        if self.folder and not self.names:
            raise ValueError("a folder's manifest holds many datasets: expected `dataset: NAME`")
        return self

    @property
    def kind(self) -> str:
        return next(name for name in SOURCES if getattr(self, name) not in (None, ()))

    @property
    def names(self) -> tuple[str, ...]:
        return (self.dataset,) if isinstance(self.dataset, str) else self.dataset


SOURCES = ("folder", "manifest", "zenodo", "hub", "urls", "ask", "unavailable")


class Layout(Strict):
    """How the files of a dataset lie, for one reader of `earmark.data.layouts`; what else it says is that reader's."""

    model_config = ConfigDict(frozen=True, extra="allow")

    reader: str

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Segments(Strict):
    """Of a long recording: only its first so many seconds, in rows of so many seconds each."""

    first_s: float | None = Field(default=None, gt=0)
    segment_s: float | None = Field(default=None, gt=0)


class HeldOut(Strict):
    """What is held out from training: what a column says (train, valid, test, or the number of a fold), or so many
    folds of ours, of which no two share a value of the column `by`."""

    column: str | None = None
    folds: int | None = Field(default=None, ge=2)
    by: str = "group"

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.column is None) == (self.folds is None):
            raise ValueError("expected either `column: split` (as published) or `folds: 5` with `by: speaker` (ours)")
        return self


class Task(Strict):
    """A question that the labels can answer; `target` is the manifest's column, `classes` how many labels it has, and
    `labels` which, where there are not too many to write down."""

    name: str
    kind: TaskKind
    target: str
    classes: int | None = Field(default=None, ge=2)
    labels: tuple[str, ...] = ()
    held_out: HeldOut | None = None  # where it differs from the card's

    @model_validator(mode="after")
    def _as_many(self) -> Self:
        if self.labels and len(set(self.labels)) != self.classes:
            raise ValueError(f"{len(set(self.labels))} labels; expected `classes: {self.classes}` of them")
        return self


class Derived(Strict):
    """A column that the published files carry in another one: what the group of `match` finds there."""

    of: str
    match: str


class Card(Strict):
    """A dataset, declared."""

    name: str = Field(pattern=f"^{NAME}$")
    title: str
    version: int
    domain: Domain
    source: Source
    layouts: tuple[Layout, ...] = ()
    uses: tuple[Use, ...]
    tasks: tuple[Task, ...] = ()
    held_out: HeldOut | None = None
    segments: Segments | None = None
    columns: dict[str, Derived] = {}
    sample_rate: int | None = Field(default=None, ge=1)  # Hz, as published
    clips: int | None = Field(default=None, ge=1)  # how many there must be
    splits: dict[str, int] = {}  # and of each split or fold
    size_gb: float | None = Field(default=None, gt=0)  # of the download
    benchmarks: dict[Benchmark, str] = {}  # which of the papers use it, and what each takes of it
    licence: str
    homepage: str | None = Field(default=None, pattern=r"^https?://")
    citation: str | None = None
    notes: str | None = None

    @field_validator("layouts", mode="before")
    @classmethod
    def _short(cls, layouts: Any) -> Any:
        """`layouts: [librispeech]` is short for `layouts: [{reader: librispeech}]`."""
        return [{"reader": one} if isinstance(one, str) else one for one in layouts]

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if self.source.kind in ("zenodo", "hub", "urls", "ask") and not self.layouts:
            raise ValueError("expected `layouts:`, the readers that know how its files lie")
        if self.source.kind in ("manifest", "folder") and (self.layouts or self.segments):
            raise ValueError(
                "`layouts` and `segments` are for what is indexed; rows of a manifest have start_s and end_s"
            )
        return self

    def task(self, name: str) -> Task:
        """The task of that name; KeyError, naming those there are."""
        found = {task.name: task for task in self.tasks}
        if name not in found:
            raise KeyError(f"{self.name} has no task {name!r}; it has {', '.join(found) or 'none'}")
        return found[name]
