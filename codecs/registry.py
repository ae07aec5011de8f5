"""The registry: the catalogue's rows and a user's own classes, found by name, checked for readiness, loaded on demand.

The catalogue is `catalogue/*.yaml`, one row a family, one variant a codec. Reading it imports neither torch nor any
codec; `load` does.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from earmark import hub, yamls
from earmark.codecs.checkout import Checkout
from earmark.codecs.contract import METHODS, Info, capabilities_of
from earmark.codecs.weights import Weights
from earmark.names import nearest

CATALOGUE = Path(__file__).parent / "catalogue"


class CodecNotFoundError(LookupError):
    """No codec of that name; the message gives the nearest."""


class CatalogueError(ValueError):
    """A catalogue row, or a user's class, that does not say what a codec must say."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Checkpoint(_Strict):
    """Weights on the Hugging Face hub, pinned to a commit."""

    repo: str
    revision: str | None = None
    files: tuple[str, ...] = ()  # what must be here of it; by default config and safetensors


class Variant(_Strict):
    """What one codec of a family has of its own; merged over the row's keys."""

    info: dict[str, Any] = {}
    options: dict[str, Any] = {}
    checkpoint: dict[str, Any] = {}


class Row(_Strict):
    """One family in the catalogue. `proved` says how far its adapter was tested here: on real weights, on the real
    module with random weights, or against a stub."""

    family: str
    title: str
    adapter: str = Field(pattern=r"^[\w.]+:\w+$")
    info: dict[str, Any]
    options: dict[str, Any] = {}
    checkpoint: Checkpoint | None = None
    base: Checkpoint | None = None  # another model on the hub that it is built on
    weights: Weights | None = None
    checkout: Checkout | None = None
    packages: tuple[str, ...] = ()
    install: str | None = None  # what pip is given where that is more than the packages' names
    paper: str | None = None
    proved: Literal["weights", "random", "stub"]
    known_failures: dict[str, str] = {}  # check of the contract -> why the published codec fails it, with a link
    variants: dict[str, Variant]


class Entry(_Strict):
    """One codec, ready to be loaded: its `Info` and where its adapter is. It travels to the workers as JSON."""

    info: Info
    adapter: str
    family: str = ""
    title: str = ""
    options: dict[str, Any] = {}
    checkpoint: Checkpoint | None = None
    base: Checkpoint | None = None
    weights: Weights | None = None
    checkout: Checkout | None = None
    packages: tuple[str, ...] = ()
    install: str | None = None
    paper: str | None = None
    proved: Literal["weights", "random", "stub"] | None = None
    known_failures: dict[str, str] = {}

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """What it needs of the hub, its own weights first."""
        return tuple(checkpoint for checkpoint in (self.checkpoint, self.base) if checkpoint)

    @property
    def own(self) -> bool:
        """Whether this is a user's class rather than a row of the catalogue."""
        return not self.family


class Status(_Strict):
    """Whether a codec can run here; if not, why, and the one command that makes it ready."""

    ready: bool
    reason: str = "ready"
    command: str | None = None

    def __str__(self) -> str:
        return self.reason if self.command is None else f"{self.reason}; run: {self.command}"


@functools.cache
def catalogue() -> dict[str, Entry]:
    """Every codec of the catalogue by name, in the order of its files."""
    entries: dict[str, Entry] = {}
    for path in sorted(CATALOGUE.glob("*.yaml")):
        for row in yamls.read(path.read_text(encoding="utf-8")):
            for entry in _entries(row, path):
                if entry.name in entries:
                    raise CatalogueError(f"{path}: the codec {entry.name!r} is there twice")
                entries[entry.name] = entry
    return entries


def _entries(raw: dict[str, Any], path: Path) -> list[Entry]:
    """The codecs of one row; a misspelt key is an error that names file, family and key."""
    try:
        row = Row.model_validate(raw)
        return [_entry(row, name, variant) for name, variant in row.variants.items()]
    except ValidationError as error:
        raise CatalogueError(f"{path}: family {raw.get('family', '?')!r}: {error}") from error


def _entry(row: Row, name: str, variant: Variant) -> Entry:
    checkpoint = None
    if row.checkpoint:
        checkpoint = Checkpoint.model_validate(row.checkpoint.model_dump() | variant.checkpoint)
    info = {"revision": checkpoint.revision if checkpoint else None} | row.info | variant.info | {"name": name}
    return Entry(
        info=Info.model_validate(info),
        adapter=row.adapter,
        family=row.family,
        title=row.title,
        options=row.options | variant.options,
        checkpoint=checkpoint,
        base=row.base,
        weights=row.weights,
        checkout=row.checkout,
        packages=row.packages,
        install=row.install,
        paper=row.paper,
        proved=row.proved,
        known_failures=row.known_failures,
    )


def find(spec: str) -> Entry:
    """One codec, by its catalogue name or as `package.module:Class`.

    Raises CodecNotFoundError, with the nearest names, where there is none.
    """
    if ":" in spec:
        return _own_entry(spec)
    try:
        return catalogue()[spec]
    except KeyError:
        raise CodecNotFoundError(
            f"unknown codec {spec!r}{nearest(spec, catalogue())} `earmark codecs` lists them all; a class of your own "
            "is written package.module:Class"
        ) from None


def _own_entry(spec: str) -> Entry:
    """The entry of a user's class, whose `info` says what it is and whose methods say what it can do."""
    cls = _import_adapter(spec)
    info = getattr(cls, "info", None)
    if not isinstance(info, Info):
        raise CatalogueError(
            f"codec {spec}: expected a class attribute `info = earmark.Info(...)`, found {type(info).__name__}"
        )
    if info.name in catalogue():
        raise CatalogueError(f"codec {spec}: the name {info.name!r} is the catalogue's; give your codec its own")
    found = capabilities_of(cls)
    if not found:
        raise CatalogueError(f"codec {spec}: has none of {', '.join(METHODS)}; see CONTRIBUTING.md")
    if ("embed" in found) != bool(info.latent_kinds):  # else nobody would ever ask for its latents, without a word
        has, lacks = ("latents", "latent_kinds") if "embed" in found else ("latent_kinds", "latents")
        raise CatalogueError(
            f"codec {spec}: has {has} but no {lacks}; a codec whose latents are probed has a method `latents` and says "
            "in its Info which it gives, such as latent_kinds=('unquantized', 'quantized')"
        )
    return Entry(info=info.model_copy(update={"capabilities": found}), adapter=spec)


def _import_adapter(spec: str) -> type:
    """The class that `package.module:Class` names. The current folder is importable, as with `python -m`."""
    module_name, _, class_name = spec.partition(":")
    if module_name.endswith(".py") or "/" in module_name:
        dotted = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise CodecNotFoundError(f"codec {spec}: expected a module and not a file; write {dotted}:{class_name}")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        absent = error.name is not None and f"{module_name}.".startswith(f"{error.name}.")
        hint = "; run this in the folder that holds it, install it, or put its folder on PYTHONPATH" if absent else ""
        raise CodecNotFoundError(f"codec {spec}: cannot import {module_name} ({error}){hint}") from error
    except (ValueError, TypeError, AttributeError) as error:  # most often an `Info` that does not agree with itself
        raise CatalogueError(f"codec {spec}: importing {module_name} raised {type(error).__name__}: {error}") from error
    if not hasattr(module, class_name):
        classes = [name for name, found in vars(module).items() if isinstance(found, type)]
        raise CodecNotFoundError(
            f"codec {spec}: {module_name} has no {class_name}{nearest(class_name, classes) if classes else ''}"
        )
    return getattr(module, class_name)


def reconstructs_itself(entry: Entry) -> bool:
    """Whether a codec's class has a `reconstruct` of its own."""
    return hasattr(_import_adapter(entry.adapter), "reconstruct")


def status(entry: Entry) -> Status:
    """Whether a codec's packages, its checkout and its weights are here. Imports none of them."""
    missing = [*_missing_code(entry), *_missing_weights(entry)]
    if not missing:
        return Status(ready=True)
    return Status(ready=False, reason=missing[0][0], command=" && ".join(command for _, command in missing))


def _missing_code(entry: Entry) -> Iterator[tuple[str, str]]:
    """What code is missing, in words, and the command that gets it."""
    if missing := [name for name in entry.packages if importlib.util.find_spec(name) is None]:
        yield "package missing", f"pip install {entry.install or ' '.join(missing)}"
    if entry.checkout and entry.checkout.find() is None:
        yield "package missing", entry.checkout.command


def _missing_weights(entry: Entry) -> Iterator[tuple[str, str]]:
    """What weights are missing, in words, and the command that gets them."""
    for checkpoint in entry.checkpoints:
        where = checkpoint.repo, checkpoint.revision, checkpoint.files
        if not hub.is_cached(*where):
            yield "weights missing", hub.fetch_command(*where)
    if entry.weights and entry.weights.find() is None:
        yield "weights missing", entry.weights.command


def load(entry: Entry, device: str) -> Any:
    """Build the adapter of a codec on a device ('cpu', 'cuda:0'). The first heavy import is here.

    An adapter with a checkpoint is given `repo` and `revision`, one with files of weights their `folder`, one with a
    base or a checkout its `base` or `checkout`.
    """
    options = dict(entry.options)
    if entry.checkpoint:
        options |= entry.checkpoint.model_dump(exclude={"files"})
    options |= {name: value for name in ("base", "checkout") if (value := getattr(entry, name))}
    if entry.weights:
        options["folder"] = entry.weights.verified()
    return _import_adapter(entry.adapter)(entry.info, device, **options)
