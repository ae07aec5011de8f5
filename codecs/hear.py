"""Encoders written for two other benchmarks, loaded as they are.

    Hear   a module in the form of HEAR: `load_model(path)`, `get_scene_embeddings(audio, model)`,
           `get_timestamp_embeddings(audio, model)`; Turian et al., "HEAR: holistic evaluation of audio
           representations", 2022. It gives the timestamp embeddings, HearScene the scene embedding.
    Xares  a class in the form of X-ARES: `sampling_rate`, `output_dim`, `hop_size_in_ms`, called on audio [B, L] it
           gives [B, T, D]; Zhang et al., "X-ARES: a comprehensive framework for assessing audio encoder performance",
           2025.

A file of yours says which, and what the encoder is (it is not loaded to know that), and is used as any codec's class:

    # my_encoders.py
    from earmark.codecs.hear import Hear, Xares
    Passt = Hear.of("hear21passt.base", name="passt", sample_rate=32000, frame_rate=20, domains=("general",))
    Mine = Xares.of("my_package.model:MyEncoder", name="mine", sample_rate=16000, frame_rate=25)

    pytest suites --codec my_encoders:Passt

Each clip is heard alone, over its true samples: both forms take batches without lengths, so padding would be heard. How
many frames a clip has, and how short it may be, is the encoder's own law; what it raises is counted against the clip.
"""

from __future__ import annotations

import abc
import hashlib
import importlib
import inspect
import sys
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from earmark.codecs.contract import Info

KINDS = ("unquantized",)
TOLERANCE = 0.02  # of a frame rate: timestamps are rounded to milliseconds, hops to samples


class _Loaded(abc.ABC):
    """An encoder of somebody's module. Subclasses say `build` and `of_clip`.

    target   what is loaded: "package.module", or "package.module:Class".
    options  what it is built with.
    """

    info: Info
    target: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {}

    @classmethod
    def of(
        cls, target: str, *, name: str, sample_rate: int, frame_rate: float | None = None,
        options: dict[str, Any] | None = None, **info: Any,
    ) -> type:  # fmt: skip
        """The class that loads `target`, as `package.module:Class` may name it.

        sample_rate, frame_rate  Hz and frames/s; it fails where the encoder says otherwise.
        options                  keyword arguments of `load_model`, or of the X-ARES class.
        info                     what else there is to say: `domains`, `trained_on`, `licence`.
        """
        said = Info(name=name, sample_rate=sample_rate, frame_rate=frame_rate, latent_kinds=KINDS, **info)
        # The class is the caller's: its fingerprint covers the caller's file.
        module = sys._getframe(1).f_globals.get("__name__", cls.__module__)
        body = {"info": said, "target": target, "options": options or {}, "__module__": module, "__doc__": cls.__doc__}
        return type(name, (cls,), body)

    def __init__(self, info: Info, device: str) -> None:
        self.info, self.device = info, device
        module_name, _, self.attribute = self.target.partition(":")
        module = importlib.import_module(module_name)
        self.source = _source(module)  # part of this encoder's fingerprint
        self.model = self.build(module)
        if isinstance(self.model, torch.nn.Module):
            self.model.to(device).eval().requires_grad_(False)
        self.agree()

    @abc.abstractmethod
    def build(self, module: Any) -> Any:
        """The model out of its module."""

    @abc.abstractmethod
    def agree(self) -> None:
        """Raise ValueError where the model is not what `info` says."""

    @abc.abstractmethod
    def of_clip(self, clip: Tensor) -> Tensor:
        """Latents [T, D] of one clip [1, L]."""

    def latents(self, wav: Tensor, lengths: Tensor, kind: str, seed: int) -> tuple[Tensor, Tensor]:
        """Latents [B, D, T] of wav [B, 1, L], zero beyond each clip's frames [B]. The seed does nothing."""
        del seed
        if kind not in KINDS:
            raise ValueError(f"{self.info.name} has no latents {kind!r}, only {', '.join(KINDS)}")
        rows = zip(wav, lengths.tolist(), strict=True)
        clips = [self.of_clip(clip[:, :length].to(self.device)).float() for clip, length in rows]
        padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)  # [B, T, D]
        return padded.transpose(1, 2).to(wav.device), lengths.new_tensor([len(clip) for clip in clips])

    def expect(self, what: str, said: float | None, true: float) -> None:
        """Raise ValueError unless a number in `info` is the model's, within the rounding of its hops."""
        if said is None or abs(said - true) > TOLERANCE * true:
            raise ValueError(f"{self.info.name}: the {what} is said to be {said}, {self.target} has {true:g}")

    def shaped(self, made: Any, dimensions: int, size: int | None) -> Tensor:
        """What the encoder returned for one clip, or ValueError unless it is a tensor [1, ..., size]."""
        if not isinstance(made, Tensor) or made.ndim != dimensions or len(made) != 1:
            got = list(made.shape) if isinstance(made, Tensor) else type(made).__name__
            raise ValueError(f"{self.target} returned {got}, expected a tensor [1{', T' * (dimensions - 2)}, D]")
        if size is not None and made.shape[-1] != size:
            raise ValueError(f"{self.target} returned embeddings of {made.shape[-1]}, it says {size}")
        return made


class Hear(_Loaded):
    """The timestamp embeddings of a HEAR module, [D, T]; the timestamps beside them must be 1 / frame_rate apart."""

    def build(self, module: Any) -> Any:
        self.scene, self.timestamps = module.get_scene_embeddings, module.get_timestamp_embeddings
        return module.load_model(**self.options)

    def agree(self) -> None:
        self.expect("sample rate", self.info.sample_rate, float(self.model.sample_rate))

    def of_clip(self, clip: Tensor) -> Tensor:
        made, times_ms = self.timestamps(clip, self.model)
        if times_ms.shape[-1] > 1:
            hop_ms = float(times_ms[0].double().diff().median())
            self.expect("frame rate", self.info.frame_rate, 1000 / hop_ms)
        return self.shaped(made, 3, self._size("timestamp_embedding_size"))[0]

    def _size(self, name: str) -> int | None:
        size = getattr(self.model, name, None)
        return None if size is None else int(size)


class HearScene(Hear):
    """The scene embedding of a HEAR module: one [D, 1] a clip, however long; it has no frame rate."""

    def of_clip(self, clip: Tensor) -> Tensor:
        return self.shaped(self.scene(clip, self.model), 2, self._size("scene_embedding_size"))


class Xares(_Loaded):
    """An X-ARES encoder class; its frames [B, T, D] are 'unquantized'."""

    def build(self, module: Any) -> Any:
        if not self.attribute:
            raise ValueError(f"{self.info.name}: {self.target} names no class; expected package.module:Class")
        return getattr(module, self.attribute)(**self.options)

    def agree(self) -> None:
        missing = [name for name in ("sampling_rate", "output_dim", "hop_size_in_ms") if not hasattr(self.model, name)]
        if missing:
            raise ValueError(
                f"{self.info.name}: {self.target} has no {' and no '.join(missing)}, which X-ARES asks for"
            )
        self.expect("sample rate", self.info.sample_rate, float(self.model.sampling_rate))
        self.expect("frame rate", self.info.frame_rate, 1000 / float(self.model.hop_size_in_ms))

    def of_clip(self, clip: Tensor) -> Tensor:
        return self.shaped(self.model(clip), 3, int(self.model.output_dim))[0]


def _source(module: Any) -> str:
    """A hash of the Python files of a module's package, or of the module alone where it is in none."""
    file = inspect.getsourcefile(module)
    files = sorted(Path(file).parent.glob("*.py")) if file and module.__package__ else [Path(file)] if file else []
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()
