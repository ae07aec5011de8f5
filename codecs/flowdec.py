"""FlowDec: a DAC at 48 kHz trained without adversaries, and a flow-matching filter that makes its sound plausible.

Welker et al., "FlowDec: A Flow-Based Full-Band General Audio Codec with High Perceptual Quality", ICLR 2025. The calls
are those of github.com/facebookresearch/FlowDec, commit 26ec106: demo.ipynb (its fourth cell) and flowdec/model.py,
lines 129 (`_preprocess`), 165 (`_postprocess`) and 476 (`FlowModel.enhance`). Of the checkout only the filter's network
and its settings are used (flowdec/backbones/ncsnpp.py, config); the rest would import what trains and scores it.

Tried once on random weights: the codec beside Descript's own package, the filter beside upstream's classes (with the
midpoint rule for torchdyn's solver) on the same noise. Codes are equal, and the sound within 2e-6 of its level.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from earmark import yamls
from earmark.codecs.checkout import Checkout
from earmark.codecs.continuous import seeded
from earmark.codecs.contract import Info
from earmark.codecs.dac import Dac
from earmark.codecs.descript import descript_name, folded
from earmark.codecs.packaged import tensors_alone, without_init

CODEC, FILTER = "ndac/ndac-75/800k/dac/weights.pth", "flowdec/flowdec_75m/step=800000.ckpt"
STEPS = 3  # of the midpoint rule, two evaluations each: the demo's, and the paper's main model
GRAIN = 64  # spectrogram frames that the network takes whole numbers of
SETTINGS = (
    "model/backbone/ncsnpp_final_no_attn.yaml",
    "model/feature_extractor/compressed_complex_stft_final.yaml",
    "flowdec_75m.yaml",
)
OPERATIONS = "flowdec.backbones.ncsnpp_utils.op"


class FlowDec(Dac):
    """Frames are ceil(L / 640), as in DAC; 640 samples a frame come back.

    Stochastic: the filter starts from noise. Here it comes from a generator of our own, seeded with the seed and the
    clip's codes, so that a clip sounds alike in any batch. What exceeds full scale is left, where the demo scales it.

    Latents are the codec's, before the filter. Ten codebooks; eight, six and four were trained too.

    folder    where the two checkpoints lie.
    checkout  the filter's code.
    model     a codec and a filter already built, in place of these.
    """

    def __init__(
        self,
        info: Info,
        device: str,
        *,
        folder: Path | None = None,
        checkout: Checkout | None = None,
        model: tuple[Any, PostFilter] | None = None,
    ) -> None:
        if model is None:
            if folder is None or checkout is None:
                raise ValueError(f"{info.name}: needs the folder of its checkpoints and its checkout, or a model")
            model = load_codec(folder / CODEC), load_filter(checkout, folder / FILTER)
        super().__init__(info, device, model=model[0])
        self.filter = model[1].to(device).eval().requires_grad_(False)
        self.generator = torch.Generator()

    @contextlib.contextmanager
    def noise(self, seed: int, codes: Tensor) -> Iterator[None]:
        self.generator = seeded(seed, codes)
        yield

    def synthesise(self, latents: Tensor) -> Tensor:
        wav = self.filter(self.model.decoder(latents), self.generator)
        return pad(wav, (0, latents.shape[-1] * self.hop - wav.shape[-1]))


class PostFilter(nn.Module):
    """The flow from a codec's sound and noise to plausible sound, over compressed spectra.

    network      what gives the direction [1, 1, F, T], complex, for a state, the codec's spectrum and the time [1].
    window, hop  of the spectrum.
    power, gain  amplitudes are raised to the power, then multiplied.
    sigma        the noise, for each frequency [F, 1] or for all [].
    """

    window: Tensor
    sigma: Tensor

    def __init__(self, network: Any, window: Tensor, hop: int, power: float, gain: float, sigma: Tensor) -> None:
        super().__init__()
        self.network, self.hop, self.power, self.gain = network, hop, power, gain
        self.register_buffer("window", window)
        self.register_buffer("sigma", sigma)

    def forward(self, wav: Tensor, generator: torch.Generator) -> Tensor:
        """The filtered wav [1, 1, L] of a wav [1, 1, L], with the generator's noise."""
        peak = wav.abs().max()
        peak = torch.where(torch.isclose(peak, torch.zeros_like(peak)), 1.0, peak)
        length, shortest = wav.shape[-1], len(self.window) // 2 + 1  # upstream fails below
        wav = pad(wav, (0, max(0, shortest - length)))
        given = self.spectrum(wav / peak)
        frames = given.shape[-1]
        given = pad(given, (0, -frames % GRAIN))
        noise = torch.randn(given.shape, generator=generator, dtype=given.dtype).to(given.device)
        state = given + (self.sigma * noise).to(given.dtype)
        for time in torch.linspace(0, 1, STEPS + 1, device=wav.device)[:-1]:
            middle = state + self.network(state, given, time[None]) / (2 * STEPS)
            state = state + self.network(middle, given, (time + 1 / (2 * STEPS))[None]) / STEPS
        return (self.sound(state[..., :frames], wav.shape[-1]) * peak)[..., :length]

    def spectrum(self, wav: Tensor) -> Tensor:
        """The compressed spectrum [1, 1, F, T] of a wav [1, 1, L]."""
        found = torch.stft(wav[0], len(self.window), self.hop, window=self.window, return_complex=True)[None]
        return torch.polar(found.abs() ** self.power, found.angle()) * self.gain

    def sound(self, spectrum: Tensor, length: int) -> Tensor:
        """The wav [1, 1, L] of a compressed spectrum [1, 1, F, T]."""
        found = spectrum / self.gain
        found = torch.polar(found.abs() ** (1 / self.power), found.angle())
        return torch.istft(found[0], len(self.window), self.hop, window=self.window, length=length)[None]


def load_codec(path: Path) -> Any:
    """NDAC as the library's DAC, from a checkpoint of Descript's code. Raises ValueError where it lacks a tensor."""
    from transformers import DacConfig, DacModel

    found = tensors_alone(path)
    said, tensors = found["metadata"]["kwargs"], found["state_dict"]
    config = DacConfig(
        encoder_hidden_size=said["encoder_dim"], downsampling_ratios=list(said["encoder_rates"]),
        decoder_hidden_size=said["decoder_dim"],
        n_codebooks=said["n_codebooks"], codebook_size=said["codebook_size"], codebook_dim=said["codebook_dim"],
        sampling_rate=said["sample_rate"],
    )  # fmt: skip
    if list(said["decoder_rates"]) != list(config.upsampling_ratios):
        raise ValueError(f"{path}: the decoder's strides {said['decoder_rates']} are not the encoder's turned round")
    model, blocks, state = DacModel(config), len(said["encoder_rates"]), {}
    for name in model.state_dict():
        there = name if name.startswith("quantizer.") else descript_name(name, blocks)
        tensor = folded(there, tensors)
        if tensor is None:
            raise ValueError(f"{path} lacks the tensor {there}, which DAC has")
        state[name] = tensor
    model.load_state_dict(state)
    return model


def load_filter(checkout: Checkout, path: Path) -> PostFilter:
    """The filter with its averaged weights, and with the window and the noise that lie beside them."""
    tensors = tensors_alone(path)["_pl_ema_state_dict"]
    made = build_filter(checkout, window=tensors["feature_extractor.complex_stft.window"], sigma=tensors["sigma_y"])
    prefix = "backbone."
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    made.network.load_state_dict(own)
    return made


def build_filter(checkout: Checkout, window: Tensor, sigma: Tensor) -> PostFilter:
    """The filter of the checkout's settings, its network's weights yet to come."""
    with checkout.importable() as folder:
        without_init("flowdec")
        operations = ModuleType(OPERATIONS)  # those of the checkout compile CUDA as they are imported
        operations.__dict__["upfirdn2d"] = upfirdn2d
        sys.modules[OPERATIONS] = operations
        network_class = importlib.import_module("flowdec.backbones.ncsnpp").NCSNpp
    network, stft, model = (yamls.read((folder / "config" / name).read_text("utf-8")) for name in SETTINGS)
    compress = stft | model["model"]["feature_extractor"]
    network.pop("_target_")
    hop = -(-stft["n_fft"] // stft["n_hops"])
    return PostFilter(network_class(**network), window, hop, compress["alpha"], compress["beta"], sigma)


def upfirdn2d(x: Tensor, kernel: Tensor, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:
    """Upsample [N, C, H, W] by zeros, pad both sides of each axis, filter with a kernel [h, w], downsample.

    As StyleGAN2's operation of this name, in plain torch.
    """
    batch, channels, height, width = x.shape
    wide = x.new_zeros(batch, channels, height, up, width, up)
    wide[:, :, :, 0, :, 0] = x
    padded = torch.nn.functional.pad(wide.reshape(batch, channels, height * up, width * up), (*pad, *pad))
    weight = kernel.flip(0, 1).to(x).expand(channels, 1, *kernel.shape)
    return conv2d(padded, weight, groups=channels)[:, :, ::down, ::down]
