"""What of the Hugging Face hub is on this machine, and models from it. Nothing here downloads.

Asking imports neither torch nor transformers; only `pretrained` does.

A repository is looked for in $EARMARK_HOME/hub (default ~/.cache/earmark/hub) first, then in the hub library's own
cache.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from earmark.paths import home


def fetch_command(repo: str, revision: str | None, files: tuple[str, ...] = ()) -> str:
    """The command that downloads a repository, or these files of it, at a revision (None: its newest).

    >>> fetch_command("kyutai/mimi", "89091b3")
    'hf download kyutai/mimi --revision 89091b3'
    >>> fetch_command("hubertsiuzdak/snac_24khz", None, ("config.json", "pytorch_model.bin"))
    'hf download hubertsiuzdak/snac_24khz config.json pytorch_model.bin'
    """
    return " ".join(["hf download", repo, *files]) + (f" --revision {revision}" if revision else "")


def is_cached(repo: str, revision: str | None, files: tuple[str, ...] = ()) -> bool:
    """Whether what is needed of a repository is here at a revision (None: as last downloaded); see `cache_of`."""
    return cache_of(repo, revision, files) is not None


def cache_of(repo: str, revision: str | None, files: tuple[str, ...] = ()) -> Path | None:
    """The first cache folder that holds all these files of a repository, or None; by default config and safetensors."""
    from huggingface_hub import try_to_load_from_cache

    wanted = files or ("config.json",)
    for cache in _caches():
        found = [try_to_load_from_cache(repo, name, cache_dir=cache, revision=revision) for name in wanted]
        paths = [Path(path) for path in found if isinstance(path, str)]
        if len(paths) == len(wanted) and (files or _has_safetensors(paths[0].parent)):
            return cache
    return None


def cached_revision(repo: str, files: tuple[str, ...] = ()) -> str | None:
    """The commit of the weights that are here, for a row that pins none; None where there are none."""
    from huggingface_hub import try_to_load_from_cache

    cache = cache_of(repo, None, files)
    name = files[0] if files else "config.json"
    found = try_to_load_from_cache(repo, name, cache_dir=cache) if cache else None
    return Path(found).parent.name if isinstance(found, str) else None


def pretrained(class_name: str, repo: str, revision: str | None, files: tuple[str, ...] = ()) -> Any:
    """A model of `transformers` from the cache, in float32 on the CPU, for inference; no code from the hub is run.

    files  what the repository must have here; by default config and safetensors. A .bin among them is the weights, and
           is read as tensors alone.
    Raises FileNotFoundError, with the command that gets it, where it is not there, and ValueError where the file lacks
    a tensor (transformers would fill it at random and go on).
    """
    cache = cache_of(repo, revision, files)
    if cache is None:
        raise FileNotFoundError(f"{repo} is not on this machine; run: {fetch_command(repo, revision)}")
    import torch
    import transformers

    model, report = getattr(transformers, class_name).from_pretrained(
        repo,
        revision=revision,
        cache_dir=cache,
        local_files_only=True,
        use_safetensors=not any(name.endswith(".bin") for name in files),
        weights_only=True,
        dtype=torch.float32,
        output_loading_info=True,
    )
    # masked_spec_embed serves in training only
    wrong = [key for key in report["missing_keys"] if not key.endswith("masked_spec_embed")]
    wrong += list(report["mismatched_keys"])
    if wrong:
        raise ValueError(f"{repo} lacks {len(wrong)} tensors of {class_name}, such as {wrong[0]}")
    return model.eval().requires_grad_(False)


def _caches() -> tuple[Path, Path]:
    from huggingface_hub import constants

    return home() / "hub", Path(os.environ.get("HF_HUB_CACHE") or constants.HF_HUB_CACHE).expanduser()


def _has_safetensors(snapshot: Path) -> bool:
    """Whether all shards of a snapshot are there: those that its index names, or any one where it has no index."""
    index = snapshot / "model.safetensors.index.json"
    if index.is_file():
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return all((snapshot / shard).is_file() for shard in shards)
    return any(path.is_file() for path in snapshot.glob("*.safetensors"))
