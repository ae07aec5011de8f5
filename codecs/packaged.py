"""What codecs have in common that come with a package of their own, or as a checkout.

Their files are looked for in the Hugging Face hub's cache; nothing here downloads.
"""

from __future__ import annotations

import abc
from pathlib import Path
from typing import Any

from earmark.codecs.checkout import Checkout
from earmark.codecs.contract import Info
from earmark.codecs.pretrained import ClipByClip, WeightsMissing
from earmark.hub import cache_of


def cached_files(info: Info, repo: str, revision: str | None, names: tuple[str, ...]) -> list[Path]:
    """Where these files of a repository lie on this machine.

    Raises WeightsMissing, with the command that gets them, where one of them is not there.
    """
    from huggingface_hub import try_to_load_from_cache

    cache = cache_of(repo, revision, names)
    if cache is None:
        raise WeightsMissing(info.name, repo, revision, names)
    found = [try_to_load_from_cache(repo, name, cache_dir=cache, revision=revision) for name in names]
    return [Path(str(path)) for path in found]


class FromCheckout(ClipByClip):
    """A codec whose network is in a checkout: subclasses say `load` beside the five verbs.

    repo, revision  the checkpoint, read from the cache only.
    checkout        the code.
    model           a model already built, in place of all these.
    """

    def __init__(
        self,
        info: Info,
        device: str,
        *,
        repo: str = "",
        revision: str | None = None,
        checkout: Checkout | None = None,
        model: Any = None,
        **options: Any,
    ) -> None:
        if model is None:
            if checkout is None:
                raise ValueError(f"{info.name}: needs a checkout, or a model")
            model = self.load(checkout, info, repo, revision, **options)
        super().__init__(info, device, model=model)

    @staticmethod
    @abc.abstractmethod
    def load(checkout: Checkout, info: Info, repo: str, revision: str | None) -> Any:
        """The network with its weights."""
