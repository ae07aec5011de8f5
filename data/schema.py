"""What a dataset card can say: strict models, so that a misspelt key is an error and not a silence."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Domain = Literal["speech", "music", "sound", "general"]
Use = Literal["reconstruction", "id_sensitivity", "lm", "probe"]
TaskKind = Literal["classification", "multi_label", "regression", "events", "asr", "retrieval", "verification"]

NAME = r"[A-Za-z0-9_.+-]+"  # what can stand in a test id and in --data


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(Strict):
    """Where the clips are: the embedded sampler, or the folder EARMARK_DATA, and their names in its manifest."""

    folder: Literal["sampler", "EARMARK_DATA"]
    dataset: str | tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return (self.dataset,) if isinstance(self.dataset, str) else self.dataset


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
    """A question that the labels can answer; `target` is the manifest's column, `classes` how many labels it has."""

    name: str
    kind: TaskKind
    target: str
    classes: int | None = Field(default=None, ge=2)
    held_out: HeldOut | None = None  # where it differs from the card's


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
    uses: tuple[Use, ...]
    tasks: tuple[Task, ...] = ()
    held_out: HeldOut | None = None
    columns: dict[str, Derived] = {}
    clips: int | None = Field(default=None, ge=1)  # how many there must be
    licence: str
    citation: str | None = None

    def task(self, name: str) -> Task:
        """The task of that name; KeyError, naming those there are."""
        found = {task.name: task for task in self.tasks}
        if name not in found:
            raise KeyError(f"{self.name} has no task {name!r}; it has {', '.join(found) or 'none'}")
        return found[name]
