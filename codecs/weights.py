"""Weights that are plain files somewhere on the web: where they are looked for, and the command that gets them."""

from __future__ import annotations

import hashlib
import shlex
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from earmark.paths import home, weights_folders


class Weights(BaseModel):
    """Weights that are plain files. Their checksums make them part of what a stored result depends on.

    folder   where they lie, within one of `paths.weights_folders`.
    url      the folder that upstream publishes them in.
    archive  the zip in that folder that holds them, where they are not published one by one.
    files    sha256 of each by name, or the id (40 digits) that git gives it; null where nobody could tell either: size
             and date then stand for it.
    fetch    the command that gets them, {folder} being where to, for what does not lie in one folder under its name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str
    url: str
    archive: str | None = None
    files: dict[str, str | None] = Field(min_length=1)
    fetch: str | None = None

    @property
    def command(self) -> str:
        """The command that downloads them to where they are looked for."""
        # curl itself reads the braces
        source = f"{self.url}/{self.archive or '{' + ','.join(self.files) + '}'}"
        target = home() / "weights" / self.folder
        if self.fetch:
            return self.fetch.format(folder=shlex.quote(str(target)))
        fetch = shlex.join(["curl", "-fL", "--remote-name-all", "--create-dirs", "--output-dir", str(target), source])
        unpack = shlex.join(["unzip", str(target / (self.archive or "")), "-d", str(target)])
        return f"{fetch} && {unpack}" if self.archive else fetch

    def find(self) -> Path | None:
        """The first folder that holds all of them, whatever is in them; None where there is none.

        An archive may have a folder of its own around them.
        """
        places = [folder / self.folder for folder in weights_folders()]
        if self.archive:
            places += [inner for place in places if place.is_dir() for inner in sorted(place.iterdir())]
        return next((place for place in places if all((place / name).is_file() for name in self.files)), None)

    def stamps(self) -> dict[str, tuple[int, int]]:
        """Size and date of the files that have no checksum, for what a stored result depends on."""
        folder, unknown = self.find(), [name for name, checksum in self.files.items() if checksum is None]
        stats = {name: (folder / name).stat() for name in unknown} if folder else {}
        return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}

    def verified(self) -> Path:
        """The folder that holds them, each with its checksum.

        Raises FileNotFoundError where they are not here, ValueError where a file is another one; both say what to run.
        """
        folder = self.find()
        if folder is None:
            raise FileNotFoundError(f"weights {self.folder} are not on this machine; run: {self.command}")
        for name, expected in self.files.items():
            if expected is None:
                continue
            found, kind = _checksum(folder / name, expected)
            if found != expected:
                raise ValueError(
                    f"{folder / name}: expected the file of {kind} {expected[:16]}..., this one has {found[:16]}...; "
                    f"remove it and run: {self.command}"
                )
        return folder


def _checksum(path: Path, expected: str) -> tuple[str, str]:
    """A file's checksum of the kind that is expected, and what that is called."""
    content = path.read_bytes()
    if len(expected) == 40:
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(), "git id"
    return hashlib.sha256(content).hexdigest(), "sha256"
