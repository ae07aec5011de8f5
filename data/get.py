"""Datasets got: downloads that can be resumed and are checked, and archives unpacked without trusting them.

zenodo    the files of a record, each with the checksum that the record gives
urls      files, each with its published checksum where the card has one
hub       a snapshot of a dataset repository, by huggingface_hub (which resumes and checks by itself)
"""

from __future__ import annotations

import fnmatch
import json
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from earmark.data.cards import folder_of, how_to_get
from earmark.data.errors import DataError
from earmark.data.schema import Card, Download, Source

ZENODO = "https://zenodo.org/api/records/{record}"
CHUNK = 1 << 16  # bytes; as much may be lost of a broken connection
TIMEOUT_S = 60
ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar")

# what archives that are damaged, or locked by a password, raise; bz2 and gzip an OSError without a number
BROKEN = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, RuntimeError, OSError)

# told of the file, the bytes that are here and the bytes in all (None where the server does not say)
Notify = Callable[[str, int, int | None], None]


def get(card: Card, notify: Notify | None = None) -> Path:
    """Download what a card names and unpack it; gives the folder that `index` is then run on.

    What is whole already is not got again. Raises DataError where nobody may have it, or something goes wrong.
    """
    root = folder_of(card) / "files"
    if card.source.kind not in ("zenodo", "urls", "hub"):
        raise DataError(how_to_get(card))
    root.mkdir(parents=True, exist_ok=True)
    if card.source.kind == "hub":
        _snapshot(card.source, root)
    else:
        for download in _downloads(card.source):
            fetch(download, root, notify)
    read_as_they_are = any(layout.reader == "webdataset" for layout in card.layouts)
    suffixes = tuple(suffix for suffix in ARCHIVES if suffix != ".tar" or not read_as_they_are)
    done: set[Path] = set()
    while archives := {path for path in root.rglob("*") if path.name.endswith(suffixes) and path.is_file()} - done:
        for archive in sorted(archives):  # some hold archives themselves
            unpack(archive, archive.parent)
        done |= archives
    return root


def _downloads(source: Source) -> list[Download]:
    return list(source.urls) if source.urls else zenodo_files(source)


def zenodo_files(source: Source) -> list[Download]:
    """The files of a record, or of them those that the card names (patterns), with the record's checksums."""
    import requests

    address = ZENODO.format(record=source.zenodo)
    try:
        answer = requests.get(address, timeout=TIMEOUT_S)
        answer.raise_for_status()
        files = answer.json()["files"]
        found = [Download(url=file["links"]["self"], checksum=file["checksum"]) for file in files]
        names = [file["key"] for file in files]
    except (requests.RequestException, KeyError, ValueError) as error:
        raise DataError(f"{address}: the record cannot be read ({error})") from error
    wanted = source.files or ("*",)
    chosen = [
        (name, one) for name, one in zip(names, found, strict=True) if any(fnmatch.fnmatch(name, w) for w in wanted)
    ]
    if not chosen:
        raise DataError(f"{address}: no file is named like {', '.join(wanted)}; it has {', '.join(names)}")
    return [one.model_copy(update={"name": name}) for name, one in chosen]


def _snapshot(source: Source, root: Path) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    assert source.hub is not None
    try:
        snapshot_download(
            source.hub,
            repo_type="dataset",
            revision=source.revision,
            local_dir=root,
            allow_patterns=list(source.files) or None,
        )
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as error:
        raise DataError(f"the hub's {source.hub} cannot be got: {error}") from error


def fetch(download: Download, folder: Path, notify: Notify | None = None) -> Path:
    """One file, going on where an earlier try stopped; kept only where its checksum is the published one."""
    import pooch
    import requests

    pooch.get_logger().setLevel("ERROR")  # there is a progress bar
    name = download.file_name
    report = notify or (lambda *_: None)

    def resume(url: str, output: str, _: Any) -> None:
        _resume(url, folder / f"{name}.part", lambda here, total: report(name, here, total))
        (folder / f"{name}.part").replace(output)

    try:
        path = pooch.retrieve(download.url, download.checksum, fname=name, path=folder, downloader=resume)
    except requests.RequestException as error:
        raise DataError(f"{download.url}: {error}; run the command again to go on") from error
    except ValueError as error:  # the checksum
        raise DataError(f"{download.url}: {error}".replace("\n", " ")) from error
    return Path(path)


def _resume(url: str, part: Path, notify: Callable[[int, int | None], None]) -> None:
    """The rest of a file after what `part` holds of it; from the start where the server cannot do that."""
    import requests

    here = part.stat().st_size if part.is_file() else 0
    headers = {"Accept-Encoding": "identity"}  # ranges, lengths and what is kept are then of the file itself
    if here:
        headers["Range"] = f"bytes={here}-"
    with requests.get(url, stream=True, timeout=TIMEOUT_S, headers=headers) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            return  # it is all here
        answer.raise_for_status()
        if answer.status_code != requests.codes.partial_content:
            here = 0
        length = answer.headers.get("Content-Length")
        total = here + int(length) if length else None
        with part.open("ab" if here else "wb") as file:
            for chunk in answer.iter_content(CHUNK):
                file.write(chunk)
                here += len(chunk)
                notify(here, total)
    if total is not None and here < total:
        raise requests.ConnectionError(f"the connection broke at {here} of {total} bytes")


# -- archives ---------------------------------------------------------------------------------------------------------


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive into a folder, once; its members may be nothing but files and folders that stay below it.

    Raises DataError, and unpacks nothing, where a member is a link or a device, or its name is absolute or has `..`.
    """
    done = folder / f".{archive.name}.unpacked"
    seen = json.dumps([archive.stat().st_size, archive.stat().st_mtime_ns])
    if done.is_file() and done.read_text() == seen:
        return
    try:
        _unpack_zip(archive, folder) if archive.suffix == ".zip" else _unpack_tar(archive, folder)
    except BROKEN as error:
        if getattr(error, "errno", None) is not None:
            raise  # the disk's fault: full, or not ours
        why = " ".join(str(error).split())
        raise DataError(f"{archive}: cannot be unpacked ({why}); delete it and get it again") from error
    done.write_text(seen)


def _unpack_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as file:
        members = file.getmembers()
        for member in members:
            _refuse(archive, member.name, plain=member.isfile() or member.isdir())
        while file.fileobj and file.fileobj.read(CHUNK):
            pass  # to its very end, where the checksum of all is that `tarfile` would not look at
        file.extractall(folder, members, filter="data")


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            _refuse(archive, member.filename, plain=kind in (0, stat.S_IFREG, stat.S_IFDIR))
        file.extractall(folder)


def _refuse(archive: Path, name: str, plain: bool) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if not plain:
        raise DataError(f"{archive}: {name} is a link or a device; such an archive is not unpacked")
    if path.is_absolute() or ".." in path.parts or path.as_posix()[1:2] == ":":
        raise DataError(f"{archive}: {name} would lie outside the folder; such an archive is not unpacked")
