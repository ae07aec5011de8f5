"""Code of codecs that is no package: a checkout of its git repository."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from earmark.paths import home


class Checkout(BaseModel):
    """Code that is no package: a git repository at a commit, in a folder of its name below home's `checkouts`.

    path    the folder within it that is put at the end of the import path; all else may stay away.
    module  what is imported from there; where it can be imported anyway, no checkout is needed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    path: str
    module: str

    @property
    def folder(self) -> Path:
        return home() / "checkouts" / self.url.rstrip("/").rpartition("/")[2]

    @property
    def command(self) -> str:
        """The command that brings it here."""
        folder = shlex.quote(str(self.folder))
        return (
            f"git clone --filter=blob:none --sparse --no-checkout {self.url} {folder}"
            f" && git -C {folder} sparse-checkout set {self.path} && git -C {folder} checkout --detach {self.commit}"
        )

    def is_here(self) -> bool:
        """Whether its module can be imported, without importing it."""
        return (self.folder / self.path / f"{self.module}.py").is_file() or (
            importlib.util.find_spec(self.module) is not None
        )

    def put_on_path(self) -> None:
        """Make its module importable. Raises ValueError where what is here is at another commit."""
        head, path = self.folder / ".git" / "HEAD", str(self.folder / self.path)
        if head.is_file() and (found := head.read_text(encoding="utf-8").strip()) != self.commit:
            raise ValueError(f"{self.folder} is at {found}, expected {self.commit}; remove it and run: {self.command}")
        if Path(path).is_dir() and path not in sys.path:
            sys.path.append(path)
