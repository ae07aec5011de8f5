"""What codecs have in common that come with a package of their own, or as a checkout.

Their files are looked for in the Hugging Face hub's cache; nothing here downloads.
"""

from __future__ import annotations

import abc
import importlib.util
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from earmark.codecs.checkout import Checkout
from earmark.codecs.contract import Info
from earmark.codecs.pretrained import ClipByClip, WeightsMissing
from earmark.hub import cache_of

if TYPE_CHECKING:
    from torch import Tensor


def cached_files(info: Info, repo: str, revision: str | None, names: tuple[str, ...]) -> list[Path]:
    """Where these files of a repository lie on this machine; by default its config, beside safetensors.

    Raises WeightsMissing, with the command that gets them, where one of them is not there.
    """
    from huggingface_hub import try_to_load_from_cache

    cache = cache_of(repo, revision, names)
    if cache is None:
        raise WeightsMissing(info.name, repo, revision, names)
    wanted = names or ("config.json",)
    found = [try_to_load_from_cache(repo, name, cache_dir=cache, revision=revision) for name in wanted]
    return [Path(str(path)) for path in found]


def tensors_of(info: Info, repo: str, revision: str | None, prefix: str) -> dict[str, Tensor]:
    """What a repository's safetensors files have under a prefix, in float32, by the rest of its name.

    Raises WeightsMissing where the repository is not here.
    """
    from safetensors import safe_open

    (config,) = cached_files(info, repo, revision, ())
    found: dict[str, Tensor] = {}
    for path in sorted(config.parent.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 (it is no dict)
            found |= {name.removeprefix(prefix): file.get_tensor(name).float() for name in names}
    return found


def tensors_alone(path: Path) -> dict[str, Any]:
    """What a pickled checkpoint holds. Raises ValueError where that is more than tensors and plain values."""
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} holds more than tensors, and unpickling runs what a file says: {error}") from error


def without_init(package: str) -> None:
    """Make a package's modules importable without running its `__init__`, which asks for what inference does not need.

    Raises ImportError, with the command that gets it, where the package is not here.
    """
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise ImportError(f"the package {package} is missing; run: pip install {package}")
    if package not in sys.modules:
        sys.modules[package] = importlib.util.module_from_spec(spec)


def stand_in(name: str) -> None:
    """Let a module that inference does not need be imported without being there: all that it has is empty classes."""
    module = ModuleType(name)
    module.__getattr__ = lambda attribute: type(attribute, (), {})  # type: ignore[method-assign]
    sys.modules.setdefault(name, module)


class FromCheckout(ClipByClip):
    """A codec whose network is in a checkout: subclasses say `load_from` beside the five verbs.

    repo, revision  the checkpoint, read from the cache only.
    checkout        the code.
    model           a model already built, in place of all these.
    """

    @classmethod
    def load(
        cls, info: Info, repo: str, revision: str | None, *, checkout: Checkout | None = None, **options: Any
    ) -> Any:
        if checkout is None:
            raise ValueError(f"{info.name}: needs a checkout, or a model")
        return cls.load_from(checkout, info, repo, revision, **options)

    @staticmethod
    @abc.abstractmethod
    def load_from(checkout: Checkout, info: Info, repo: str, revision: str | None) -> Any:
        """The network with its weights."""
