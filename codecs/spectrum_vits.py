"""Encoders that are a vision transformer (`codecs/vit.py`) over a log-mel spectrum, from their published tensors.

Ced        Dinkel et al., "CED: consistent ensemble distillation for audio tagging", ICASSP 2024. Spectrum, windows and
           network as in github.com/jimbozhang/hf_transformers_custom_model_ced at 1a9cd46b,
           ced_model/feature_extraction_ced.py:113-123, ced_model/modeling_ced.py:399-447.
AtstClip   Li and Li, "ATST: audio representation learning with teacher-student transformer", Interspeech 2022, as in
           github.com/Audio-WestlakeU/audiossl at ec3a14db, audiossl/models/atst/audio_transformer.py:153-255,
           audiossl/methods/atst/downstream/transform.py:9-32.
AtstFrame  Li et al., "Self-supervised audio teacher-student transformer for both clip-level and frame-level tasks",
           TASLP 2024, as in the same, audiossl/methods/atstframe/embedding.py:85-127, audio_transformer.py:161-281.
MsmMae     Niizumi et al., "Masked spectrogram modeling using masked autoencoders for learning general-purpose audio
           representation", HEAR 2022, as in github.com/nttcslab/msm-mae at f0c442ff, msm_mae/runtime.py:71-195,
           msm_mae/patch_msm_mae.diff.

All hear 16 kHz; frame t stands for the samples from t times the hop of a frame.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from earmark.codecs.contract import Info
from earmark.codecs.encoders import snapshot_of
from earmark.codecs.mel import MelEncoder, decibels, logarithm, normal
from earmark.codecs.vit import Vit


class _SpectrumVit(MelEncoder):
    """The transformer hears windows of the clip's spectrum, each by itself, none overlapping.

    heads  of the attention.
    """

    PATCH: int  # spectra in a frame
    WINDOW: int  # spectra that the transformer hears at once

    def __init__(self, info: Info, device: str, *, heads: int, **options: Any) -> None:
        self.heads = heads
        super().__init__(info, device, **options)

    def windows(self, spectrum: Tensor) -> list[Tensor]:
        """The windows [F, T'] of a spectrum; what is left over at its end and fills no frame is not heard."""
        return [part for part in spectrum.split(self.WINDOW, dim=-1) if part.shape[-1] >= self.PATCH]

    def frames(self, state: Tensor) -> Tensor:
        """The frames [t, D'] of the states [f, t, D] of one window: the mean from low to high."""
        return state.mean(0)

    def depth(self) -> int:
        return len(self.model.blocks)

    def frame_rate(self) -> float:
        return self.RATE / (self.HOP * self.model.patch.stride[1])

    def layers(self, piece: Tensor) -> list[Tensor]:
        states = [self.model(window) for window in self.windows(self.heard(piece))]
        return [torch.cat([self.frames(state) for state in layer]) for layer in zip(*states, strict=True)]


class Ced(_SpectrumVit):
    """Frames are floor((floor(L / 160) + 1) / 16), at least one, 6.25 a second: the mean of four patches, low to high.

    Windows are of 1008 spectra, 63 frames; the published code's are of 1012, of whose last four it makes nothing, so
    that its second window begins 40 ms late. It fills the last of several windows with zeros; here none is filled.
    """

    PATCH, WINDOW, LEAST = 16, 1008, 2400

    def load(self, repo: str, revision: str | None) -> Vit:
        from safetensors.torch import load_file

        return self.network(load_file(snapshot_of(self.info, repo, revision) / "model.safetensors"))

    def mel(self) -> nn.Module:
        from torchaudio.transforms import MelSpectrogram

        return MelSpectrogram(self.RATE, n_fft=512, win_length=512, hop_length=self.HOP, n_mels=64)

    def network(self, found: Any) -> Vit:
        own = _under(found, "encoder.")
        norm = nn.BatchNorm1d(len(own["init_bn.weight"]))
        norm.load_state_dict(_take(own, "init_bn."))
        positions = own.pop("time_pos_embed")[0] + own.pop("freq_pos_embed")[0]
        return Vit(_projection(own, "proj"), positions, own, self.heads, before=norm)

    def scaled(self, mel: Tensor) -> Tensor:
        return decibels(mel, 120.0)


class _Atst(_SpectrumVit):
    """A frame is a patch over all bands and four spectra; the spectrum is no deeper than 80 dB below its peak."""

    PATCH, LEAST = 4, 513
    LOWEST, HIGHEST = -79.6482, 50.6842  # dB

    def mel(self) -> nn.Module:
        from torchaudio.transforms import MelSpectrogram

        return MelSpectrogram(
            self.RATE, f_min=60, f_max=7800, hop_length=self.HOP, win_length=1024, n_fft=1024, n_mels=64
        )

    def scaled(self, mel: Tensor) -> Tensor:
        return (decibels(mel, 80.0) - self.LOWEST) / (self.HIGHEST - self.LOWEST) * 2.0 - 1.0

    def vit(self, own: dict[str, Tensor], tokens: bool) -> Vit:
        """The transformer of a teacher's tensors; the first position is that of a class token, where it has one."""
        del own["mask_embed"]  # stood for what was masked in training
        weight, bias = own.pop("patch_embed.patch_embed.weight"), own.pop("patch_embed.patch_embed.bias")
        projection = weight.unflatten(1, (1, -1, self.PATCH)), bias
        place = own.pop("pos_embed")[0]
        first = own.pop("cls_token")[0] + place[:1] if tokens else None
        return Vit(projection, place[1:].T[:, None], own, self.heads, tokens=first)


class AtstClip(_Atst):
    """Frames are floor((floor(L / 160) + 1) / 4), 25 a second: the tokens of the patches.

    It was trained for, and is published with, one embedding a clip: class token and mean of these frames. Windows are
    of 600 spectra (6 s); the published code's are of 601, of whose last it makes nothing.
    """

    WINDOW, FILE = 600, "base.ckpt"

    def network(self, found: Any) -> Vit:
        own = _under(found["teacher"], "module.backbone.")
        return self.vit(own, tokens=True)


class AtstFrame(_Atst):
    """Frames are floor((floor(L / 160) + 1) / 4), 25 a second.

    Windows are of 1000 spectra (10 s); the published code's are of 1001, of whose last it makes nothing. It gives the
    layers side by side, each normalised; here the last alone is.
    """

    WINDOW, FILE = 1000, "atstframe_base.ckpt"

    def network(self, found: Any) -> Vit:
        own = _under(found["state_dict"], "model.teacher.encoder.")
        norm = {f"norm.{part}": own.pop(f"norm_frame.{part}") for part in ("weight", "bias")}
        return self.vit(own | norm, tokens=False)


class MsmMae(_SpectrumVit):
    """Frames are ceil((floor(L / 160) + 1) / 16), 6.25 a second: five patches, from low to high, side by side.

    The spectrum is brought to zero mean and unit variance over the clip. The transformer hears windows of 512 spectra
    (5.12 s), the last filled with zeros, as it was trained; the frames of the zeros are cut off.
    """

    PATCH, WINDOW, LEAST = 16, 512, 201
    FILE = "80x512p16x16_paper/checkpoint-100.pth"

    def mel(self) -> nn.Module:
        from torchaudio.transforms import MelSpectrogram

        return MelSpectrogram(
            self.RATE, n_fft=400, win_length=400, hop_length=self.HOP, f_min=50, f_max=8000, n_mels=80,
            norm="slaney", mel_scale="slaney",
        )  # fmt: skip

    def network(self, found: Any) -> Vit:
        own = {
            name: each for name, each in found.get("model", found).items() if not name.startswith(("decoder", "mask"))
        }
        first, place = own.pop("cls_token", None), own.pop("pos_embed")[0]
        projection, tokens = _projection(own, "proj"), None
        if first is not None:
            tokens, place = first[0] + place[:1], place[1:]
        rows = 80 // projection[0].shape[2]
        return Vit(projection, place.T.unflatten(1, (rows, -1)), own, self.heads, tokens=tokens)

    def scaled(self, mel: Tensor) -> Tensor:
        return normal(logarithm(mel))

    def windows(self, spectrum: Tensor) -> list[Tensor]:
        return [*pad(spectrum, (0, -spectrum.shape[-1] % self.WINDOW)).split(self.WINDOW, dim=-1)]

    def frames(self, state: Tensor) -> Tensor:
        return state.transpose(0, 1).flatten(1)

    def layers(self, piece: Tensor) -> list[Tensor]:
        heard = max(len(piece), self.LEAST) // self.HOP + 1
        return [state[: -(-heard // self.PATCH)] for state in super().layers(piece)]


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, in float32, under what follows."""
    found = {name.removeprefix(prefix): each.float() for name, each in tensors.items() if name.startswith(prefix)}
    if not found:
        raise ValueError(f"expected tensors named {prefix}..., found {', '.join(sorted(tensors)[:3])}, ...")
    return found


def _take(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Take the tensors whose names begin so out of a dictionary."""
    return {name.removeprefix(prefix): tensors.pop(name) for name in [*tensors] if name.startswith(prefix)}


def _projection(tensors: dict[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """Take weight and bias of the patches' projection out of a dictionary."""
    return tensors.pop(f"patch_embed.{name}.weight"), tensors.pop(f"patch_embed.{name}.bias")
