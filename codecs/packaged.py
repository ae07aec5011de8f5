"""Files of codecs that have a package of their own, from the Hugging Face hub's cache. Nothing here downloads."""

from __future__ import annotations

from pathlib import Path

from earmark.codecs.contract import Info
from earmark.codecs.pretrained import WeightsMissing
from earmark.hub import cache_of


def cached_files(info: Info, repo: str, revision: str | None, names: tuple[str, ...]) -> list[Path]:
    """Where these files of a repository lie on this machine.

    Raises WeightsMissing, with the command that gets them, where one of them is not there.
    """
    from huggingface_hub import try_to_load_from_cache

    cache = cache_of(repo, revision, names)
    if cache is None:
        raise WeightsMissing(info.name, repo, revision)
    found = [try_to_load_from_cache(repo, name, cache_dir=cache, revision=revision) for name in names]
    return [Path(str(path)) for path in found]
