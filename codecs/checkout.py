"""Codecs whose code is in no package index: a git repository, cloned beside the weights or on Python's path.

Nothing here clones, and importing this imports neither torch nor any codec.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import shlex
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from pydantic import BaseModel, ConfigDict, Field

from earmark.paths import home, weights_folders


class Checkout(BaseModel):
    """A git repository at the commit that its adapter was written for.

    url    what `git clone` is given.
    path   the folder within it that is put on the import path, where the repository has much else; only that is cloned.
    files  a module of each package in it that is used ("vq/codec_encoder.py"): a folder that has them all is taken for
           the checkout, and the Python files in and below theirs are part of what a stored result depends on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    path: str = "."
    files: tuple[str, ...] = Field(min_length=1)

    @property
    def folder(self) -> str:
        """Its name within `paths.weights_folders`, as git itself would name it."""
        return self.url.rpartition("/")[2].removesuffix(".git")

    @property
    def command(self) -> str:
        """The command that puts it where it is looked for."""
        target = str(home() / "weights" / self.folder)
        part = [] if self.path == "." else ["--filter=blob:none", "--sparse", "--no-checkout"]
        steps = [["git", "clone", *part, self.url, target], ["git", "-C", target, "checkout", self.commit]]
        if part:
            steps.insert(1, ["git", "-C", target, "sparse-checkout", "set", self.path])
        return " && ".join(shlex.join(step) for step in steps)

    def find(self) -> Path | None:
        """The first folder that holds its files: among the weights, then on Python's path; None where there is none."""
        places = [folder / self.folder / self.path for folder in weights_folders()] + [
            Path(entry) for entry in sys.path
        ]
        return next((place for place in places if all((place / file).is_file() for file in self.files)), None)

    def here(self) -> Path:
        """Where it lies. Raises FileNotFoundError, with the command that gets it, where it is not there."""
        folder = self.find()
        if folder is None:
            raise FileNotFoundError(f"{self.url} is not on this machine; run: {self.command}")
        return folder

    def source(self) -> str | None:
        """A hash of its code as it is here, edited or at another commit; None where it is not here."""
        folder = self.find()
        if folder is None:
            return None
        parents = {(folder / file).parent for file in self.files}
        paths = sorted({path for parent in parents for path in parent.rglob("*.py")})
        content = b"".join(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() for path in paths)
        return hashlib.sha256(content).hexdigest()

    @contextlib.contextmanager
    def importable(self) -> Iterator[Path]:
        """While the block lasts, `import` finds its packages before any others; gives the folder that they lie in.

        They have names (`encoder`, `models`, `vq`) that others have too, so that none stays in `sys.modules`
        afterwards: what was imported lives on in the objects that were made of it.

        Raises FileNotFoundError as `here` does.
        """
        folder, ours = self.here(), {file.partition("/")[0].removesuffix(".py") for file in self.files}
        before = _taken(ours)
        sys.path.insert(0, str(folder))
        importlib.invalidate_caches()
        try:
            with warnings.catch_warnings():
                # torch warns of its older weight_norm and of torch.jit.script, which these repositories use
                warnings.simplefilter("ignore", FutureWarning)
                warnings.simplefilter("ignore", DeprecationWarning)
                yield folder
        finally:
            sys.path.remove(str(folder))
            _taken(ours)
            sys.modules.update(before)


def _taken(packages: set[str]) -> dict[str, ModuleType]:
    """What was loaded of these packages, taken out of `sys.modules`."""
    return {name: sys.modules.pop(name) for name in [*sys.modules] if name.partition(".")[0] in packages}
