"""The registry: the catalogue's rows and a user's own classes, found by name, checked for readiness, loaded on demand.

The catalogue is `catalogue/*.yaml`, one row a family, one variant a codec. Reading it imports neither torch nor any
codec; `load` does.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from earmark.codecs.checkout import Checkout
from earmark.codecs.contract import Info, capabilities_of
from earmark.names import nearest
from earmark.paths import home, weights_folders

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


class Weights(_Strict):
    """Weights that are plain files. Their checksums make them part of what a stored result depends on.

    folder  where they lie, within one of `paths.weights_folders`.
    url     the folder that upstream publishes them in.
    files   of each by name its sha256; or the id (40 digits) that git gives it, or null, where no more is known of it.
    fetch   the command that gets them, {folder} being where to, for what does not lie in one folder under its name.
    """

    folder: str
    url: str
    files: dict[str, str | None] = Field(min_length=1)
    fetch: str | None = None

    @property
    def command(self) -> str:
        """The command that downloads them to where they are looked for."""
        source = f"{self.url}/{{{','.join(self.files)}}}"  # curl itself reads the braces
        target = home() / "weights" / self.folder
        if self.fetch:
            return self.fetch.format(folder=shlex.quote(str(target)))
        return shlex.join(["curl", "-fL", "--remote-name-all", "--create-dirs", "--output-dir", str(target), source])

    def find(self) -> Path | None:
        """The first folder that holds all of them, whatever is in them; None where there is none."""
        folders = (folder / self.folder for folder in weights_folders())
        return next((folder for folder in folders if all((folder / name).is_file() for name in self.files)), None)

    def verified(self) -> Path:
        """The folder that holds them, each with its checksum.

        Raises FileNotFoundError where they are not here, ValueError where a file is another one; both say what to run.
        """
        folder = self.find()
        if folder is None:
            raise FileNotFoundError(f"weights {self.folder} are not on this machine; run: {self.command}")
        for name, expected in self.files.items():
            found, kind = _checksum(folder / name, expected)
            if expected and found != expected:
                raise ValueError(
                    f"{folder / name}: expected the file of {kind} {expected[:16]}..., this one has {found[:16]}...; "
                    f"remove it and run: {self.command}"
                )
        return folder

    def unpinned(self) -> dict[str, str]:
        """The sha256 of those files that are here and whose row gives no checksum; read once in a process."""
        folder = self.find()
        names = [name for name, expected in self.files.items() if folder and not expected]
        return {name: _sha256(str(folder / name)) for name in names} if folder else {}


def _checksum(path: Path, expected: str | None) -> tuple[str, str]:
    """A file's checksum of the kind that is expected, and what that is called."""
    if expected and len(expected) == 40:
        content = path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(), "git id"
    return (_sha256(str(path)) if expected else ""), "sha256"


@functools.cache
def _sha256(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    weights: Weights | None = None
    checkout: Checkout | None = None
    packages: tuple[str, ...] = ()
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
    weights: Weights | None = None
    checkout: Checkout | None = None
    packages: tuple[str, ...] = ()
    paper: str | None = None
    proved: Literal["weights", "random", "stub"] | None = None
    known_failures: dict[str, str] = {}

    @property
    def name(self) -> str:
        return self.info.name

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
        for row in yaml.safe_load(path.read_text(encoding="utf-8")):
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
        weights=row.weights,
        checkout=row.checkout,
        packages=row.packages,
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
        raise CatalogueError(f"codec {spec}: has none of encode, decode, reconstruct, latents; see CONTRIBUTING.md")
    return Entry(info=info.model_copy(update={"capabilities": found}), adapter=spec)


def _import_adapter(spec: str) -> type:
    """The class that `package.module:Class` names. The current folder is importable, as with `python -m`."""
    module_name, _, class_name = spec.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        return getattr(importlib.import_module(module_name), class_name)
    except ImportError as error:
        raise CodecNotFoundError(f"codec {spec}: cannot import {module_name} ({error})") from error
    except (ValueError, TypeError) as error:  # most often an `Info` that does not agree with itself
        raise CatalogueError(f"codec {spec}: importing {module_name} raised {type(error).__name__}: {error}") from error
    except AttributeError:
        raise CodecNotFoundError(f"codec {spec}: {module_name} has no {class_name}") from None


def reconstructs_itself(entry: Entry) -> bool:
    """Whether a codec's class has a `reconstruct` of its own."""
    return hasattr(_import_adapter(entry.adapter), "reconstruct")


def status(entry: Entry) -> Status:
    """Whether a codec's packages, code and weights are here. Imports none of them."""
    missing = [*_missing_code(entry), *_missing_weights(entry)]
    if not missing:
        return Status(ready=True)
    return Status(ready=False, reason=missing[0][0], command=" && ".join(command for _, command in missing))


def _missing_code(entry: Entry) -> Iterator[tuple[str, str]]:
    """What code is missing, in words, and the command that gets it."""
    if missing := [name for name in entry.packages if importlib.util.find_spec(name) is None]:
        yield "package missing", f"pip install {' '.join(missing)}"
    if entry.checkout and not entry.checkout.is_here():
        yield "package missing", entry.checkout.command


def _missing_weights(entry: Entry) -> Iterator[tuple[str, str]]:
    """What weights are missing, in words, and the command that gets them."""
    if entry.checkpoint:
        from earmark.hub import fetch_command, is_cached

        if not is_cached(entry.checkpoint.repo, entry.checkpoint.revision, entry.checkpoint.files):
            yield "weights missing", fetch_command(entry.checkpoint.repo, entry.checkpoint.revision)
    if entry.weights and entry.weights.find() is None:
        yield "weights missing", entry.weights.command


def load(entry: Entry, device: str) -> Any:
    """Build the adapter of a codec on a device ('cpu', 'cuda:0'). The first heavy import is here.

    An adapter with a checkpoint is given `repo` and `revision`, one with files of weights their `folder`.
    """
    options = dict(entry.options)
    if entry.checkout:
        entry.checkout.put_on_path()
    if entry.checkpoint:
        options |= entry.checkpoint.model_dump(exclude={"files"})
    if entry.weights:
        options["folder"] = entry.weights.verified()
    return _import_adapter(entry.adapter)(entry.info, device, **options)
