"""What the encoders of `transformers` have in common: weights and feature extractor from the cache, one clip at a time.

An encoder has latents only, of the kinds 'layer:0' (what enters the first transformer layer) to 'layer:N' and
'unquantized', which is the model's `last_hidden_state`, as 'layer:N' is. Models that normalise before each layer
(`do_stable_layer_norm`) normalise once more at the end; `transformers` then lists the last layer without that, here it
is given with it.

Shapes as in `earmark.codecs.contract`; a clip is [L], its latents [D, T].
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from earmark.codecs.contract import Info
from earmark.codecs.pretrained import WeightsMissing
from earmark.hub import cache_of, pretrained

# What a repository may hold beside its config. Many encoders were published before safetensors were; `pretrained` reads
# the older file as tensors alone, no code in it is run.
WEIGHTS: tuple[tuple[str, ...], ...] = ((), ("config.json", "pytorch_model.bin"))
EXTRACTOR = ("preprocessor_config.json",)


class Encoder(abc.ABC):
    """An encoder of `transformers` with its published feature extractor. Subclasses say `frame_rate` and `layers`.

    repo, revision    the checkpoint, read from the cache only.
    model, extractor  both already built, in its place.

    A batch goes through the network clip by clip, each on its true samples, in float32: normalisation over the clip,
    positional convolutions and attention would all hear what it is padded with, and models whose first normalisation
    runs over time (HuBERT base, wav2vec2 base) take no mask at all.

    Raises WeightsMissing where the checkpoint is not here, ValueError where row and model disagree.
    """

    model_class: str

    def __init__(
        self,
        info: Info,
        device: str,
        *,
        repo: str = "",
        revision: str | None = None,
        model: Any = None,
        extractor: Any = None,
    ) -> None:
        self.info, self.device = info, device
        self.extractor = extractor or self.load_extractor(repo, revision)
        model = model or self.load(repo, revision)
        self.model = model.to(device).eval().requires_grad_(False)
        self._agree()

    def load(self, repo: str, revision: str | None) -> Any:
        """The model from the cache."""
        return load_weights(self.model_class, self.info, repo, revision)

    def load_extractor(self, repo: str, revision: str | None) -> Any:
        """The feature extractor that the checkpoint was published with: rate, normalisation, mel bands are its own."""
        from transformers import AutoFeatureExtractor

        cache = cache_of(repo, revision, EXTRACTOR)
        if cache is None:
            raise WeightsMissing(self.info.name, repo, revision)
        return AutoFeatureExtractor.from_pretrained(repo, revision=revision, cache_dir=cache, local_files_only=True)

    @abc.abstractmethod
    def frame_rate(self) -> float:
        """Frames/s that the model's config makes."""

    @abc.abstractmethod
    def layers(self, piece: Tensor) -> list[Tensor]:
        """The states [T, D] of one piece [L] of a clip, one a layer; the last is the model's `last_hidden_state`."""

    def pieces(self, clip: Tensor) -> list[Tensor]:
        """The pieces [L'] in which a clip [L] goes through the model; whole, unless the model has a fixed window."""
        return [clip]

    def depth(self) -> int:
        """N, the number of transformer layers."""
        return int(self.model.config.num_hidden_layers)

    def kinds(self) -> tuple[str, ...]:
        """All the kinds of latents that the model has."""
        return (*(f"layer:{i}" for i in range(self.depth() + 1)), "unquantized")

    def latents(self, wav: Tensor, lengths: Tensor, kind: str, seed: int) -> tuple[Tensor, Tensor]:
        """Latents [B, D, T] of wav [B, 1, L], zero beyond each clip's frames [B]. The seed does nothing."""
        del seed
        if kind not in self.info.latent_kinds:
            raise ValueError(f"{self.info.name} has no latents {kind!r}, only {', '.join(self.info.latent_kinds)}")
        clips = [self.of_clip(clip[0, :length], kind) for clip, length in zip(wav, lengths.tolist(), strict=True)]
        padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)  # [B, T, D]
        return padded.transpose(1, 2).to(wav.device), lengths.new_tensor([len(clip) for clip in clips])

    def of_clip(self, clip: Tensor, kind: str) -> Tensor:
        """Latents [T, D] of one clip [L]. Raises ValueError where a sample is not finite."""
        if not bool(torch.isfinite(clip).all()):
            raise ValueError(f"{self.info.name} was given NaN or infinite samples")
        layer = -1 if kind == "unquantized" else int(kind.removeprefix("layer:"))
        return torch.cat([self.layers(piece)[layer] for piece in self.pieces(clip)])

    def features(self, piece: Tensor, **options: Any) -> Any:
        """What the published feature extractor makes of a piece [L], on the model's device."""
        array = piece.detach().to("cpu", torch.float32).numpy()
        made = self.extractor(array, sampling_rate=self.extractor.sampling_rate, return_tensors="pt", **options)
        return made.to(self.device)

    def _agree(self) -> None:
        """Raise ValueError where the catalogue's row and the model tell different stories."""
        said, true = (self.info.sample_rate, self.info.frame_rate), (self.extractor.sampling_rate, self.frame_rate())
        if said != true:
            raise ValueError(f"{self.info.name}: sample rate and frame rate are {said}, the model's are {true}")
        unknown = set(self.info.latent_kinds) - set(self.kinds())
        if unknown or not self.info.latent_kinds:
            raise ValueError(f"{self.info.name}: latent kinds {sorted(unknown)} are not the model's {self.kinds()}")


def load_weights(class_name: str, info: Info, repo: str, revision: str | None) -> Any:
    """A model of `transformers` from the cache, in float32: safetensors, or the older file where there are none.

    Raises WeightsMissing where neither is there, ValueError where the file lacks a tensor.
    """
    files = next((files for files in WEIGHTS if cache_of(repo, revision, files)), None)
    if files is None:
        raise WeightsMissing(info.name, repo, revision)
    try:
        return pretrained(class_name, repo, revision, files)
    except ValueError as error:
        raise ValueError(f"codec {info.name}: {error}") from error


def outputs_of(blocks: torch.nn.ModuleList, run: Callable[[], Any]) -> tuple[list[Tensor], Any]:
    """What enters the first of a network's blocks and what each of them gives in a run of it; and what the run gives.

    Of a block that gives several things, the first. A block that runs n times gives n tensors, joined along time.
    """
    heard: list[list[Tensor]] = [[] for _ in range(len(blocks) + 1)]
    hooks = [blocks[0].register_forward_pre_hook(lambda _, given: heard[0].append(given[0]))]
    for block, states in zip(blocks, heard[1:], strict=True):
        hooks.append(block.register_forward_hook(lambda *seen, to=states: to.append(_first(seen[2]))))
    try:
        made = run()
    finally:
        for hook in hooks:
            hook.remove()
    return [torch.cat(states, dim=1) for states in heard], made


def _first(made: Any) -> Tensor:
    return made[0] if isinstance(made, tuple) else made


def read_tensors(path: Path) -> Any:
    """What a file of `torch.save` holds, on the CPU, without running code from it.

    Trainers save their arguments and counters beside the tensors; a namespace and numpy's scalars are let through.
    Raises pickle.UnpicklingError where there is anything else.
    """
    import argparse

    import numpy as np

    scalar = np.float64(0).__reduce__()[0]  # what rebuilds one; numpy 2 moved it
    scalars: list[Any] = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    with torch.serialization.safe_globals([argparse.Namespace, *scalars, np.dtype, np.dtypes.Float64DType]):
        return torch.load(path, map_location="cpu", weights_only=True)


def snapshot_of(info: Info, repo: str, revision: str | None) -> Path:
    """The folder in the cache that holds a checkpoint's config and safetensors. Raises WeightsMissing."""
    from huggingface_hub import try_to_load_from_cache

    cache = cache_of(repo, revision)
    config = try_to_load_from_cache(repo, "config.json", cache_dir=cache, revision=revision) if cache else None
    if not isinstance(config, str):
        raise WeightsMissing(info.name, repo, revision)
    return Path(config).parent


def fill(module: torch.nn.Module, prefix: str, info: Info, snapshot: Path, computed: str = "") -> torch.nn.Module:
    """A module with its tensors out of a checkpoint's shards, in float32; what else is in them is not read.

    prefix    what, in the shards, comes before the module's own names.
    computed  how the names begin of what the module computes for itself.
    Raises ValueError where a tensor lacks or one is there that the module has not.
    """
    tensors: dict[str, Tensor] = {}
    for shard in sorted(snapshot.glob("*.safetensors")):
        tensors |= _tensors_under(prefix, shard)
    own = {name: tensor for name, tensor in module.state_dict().items() if computed and name.startswith(computed)}
    missing, unknown = module.state_dict().keys() - own.keys() - tensors.keys(), tensors.keys() - module.state_dict()
    if missing or unknown:
        raise ValueError(
            f"codec {info.name}: {snapshot.parents[1].name} lacks {len(missing)} tensors of {type(module).__name__} "
            f"and has {len(unknown)} too many, such as {min(missing | unknown)}"
        )
    module.load_state_dict(own | tensors)
    return module


def _tensors_under(prefix: str, shard: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file whose names have the prefix, under what follows it; the others are not read."""
    from safetensors import safe_open

    with safe_open(shard, framework="pt") as file:
        names = [name for name in file.keys() if prefix in name]  # noqa: SIM118 (it is no dict)
        return {name.partition(prefix)[2]: file.get_tensor(name).float() for name in names}
