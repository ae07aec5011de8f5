"""SemantiCodec: AudioMAE's features in clusters, what they leave out in a second codebook, and latent diffusion back.

Liu et al., "SemantiCodec: An Ultra Low Bitrate Semantic Audio Codec for General Sound", IEEE JSTSP 2024. The calls are
those of github.com/haoheliu/SemantiCodec-inference, commit 7c05d42: semanticodec/main.py, lines 27 (the parts), 87
(`load_audio`), 139 (`encode`) and 145 (`decode`).

Tried once on random weights, beside upstream's own class (full width but for one LSTM layer and half the diffusion's
channels, two steps): tokens and, with the same noise, sound are equal.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from earmark.codecs.checkout import Checkout
from earmark.codecs.continuous import seeded
from earmark.codecs.contract import Info
from earmark.codecs.packaged import FromCheckout, cached_files, tensors_alone
from earmark.codecs.pretrained import Measures

SAMPLE_RATE, PATCH, BANDS = 16000, 2560, 8  # 160 ms of sound are a patch in each of eight bands
SEGMENT, MEL_FRAMES = 163840, 1024  # that AudioMAE hears at once
STEPS, GUIDANCE, OVERLAP = 50, 2.0, 0.0625  # upstream's defaults


class SemantiCodec(FromCheckout):
    """Two streams of 50 tokens a second: the cluster of AudioMAE's feature, and a code of the rest.

    Tokens come in eights: those of 160 ms, one for each eighth of the mel bands, so that a frame of 20 ms is none of
    time. Frames are 8 ceil(L / 2560), and 320 samples come back for each. (Upstream counts in floats: on whole patches
    and near them rounding gives it a token or a patch more.)

    The first 10.24 s are heard together, then the next. Upstream subtracts the mean of the clip with the zeros that
    fill its last 10.24 s, and so does this.

    Stochastic: the decoder starts from noise and adds more at each of fifty steps, by torch's global generators. Here
    they start from the seed and the clip's codes, and are as they were afterwards.

    Latents have D = 1536: 'unquantized' AudioMAE's features and the rest's before its codebook, 'quantized' the two
    codes' vectors, in this order, 'codebook:0' with zeros for the rest.

    files  encoder, decoder and clusters in the repository: semanticodec/config.py, line 2.
    """

    @staticmethod
    def load_from(  # type: ignore[override]
        checkout: Checkout, info: Info, repo: str, revision: str | None, *, files: list[str]
    ) -> Any:
        encoder, decoder, clusters = cached_files(info, repo, revision, tuple(files))
        model = build(checkout, clusters)
        model.encoder.load_state_dict(tensors_alone(encoder))
        model.decoder.load_state_dict(tensors_alone(decoder))
        return model

    def __init__(self, info: Info, device: str, **options: Any) -> None:
        super().__init__(info, device, **options)
        encoder, decoder = self.model.encoder, self.model.decoder
        encoder.centroid_npy, encoder.device = encoder.centroid_npy.to(device), torch.device(device)
        decoder.device = torch.device(device)  # upstream's is the GPU where there is one

    def measures(self) -> Measures:
        encoder = self.model.encoder
        return Measures(SAMPLE_RATE, PATCH // BANDS, 1, 2, (len(encoder.centroid_npy), encoder.codebook_size))

    def embed(self, clip: Tensor) -> Tensor:
        encoder, parts = self.model.encoder, []
        for mel in self.heard(clip).split(MEL_FRAMES, dim=1):
            parts.append(torch.cat(features(encoder, mel), dim=-1))
        patches = -(-clip.shape[-1] // PATCH)
        return torch.cat(parts, dim=1)[:, : patches * BANDS].transpose(1, 2)

    def heard(self, clip: Tensor) -> Tensor:
        """Mel frames [1, 1024 n, 128] of a clip [1, 1, L], by upstream's own function; alike on every device."""
        wav = torch.nn.functional.pad(clip[0].cpu(), (0, SEGMENT - clip.shape[-1] % SEGMENT))
        frames = MEL_FRAMES * (wav.shape[-1] // SEGMENT)
        return self.model.fbank(wav, SAMPLE_RATE, target_length=frames)["ta_kaldi_fbank"][None].to(self.device)

    def quantise(self, latents: Tensor) -> Tensor:
        encoder = self.model.encoder
        semantic, rest = latents.transpose(1, 2).chunk(2, dim=-1)
        codes = encoder.quant_mem_efficient(semantic, first_token_removed=True, feature_dim=semantic.shape[-1])
        return torch.stack([codes, encoder.quantizer(rest.contiguous())[1]], dim=1).long()[:, : self.info.num_codebooks]

    def dequantise(self, codes: Tensor) -> Tensor:
        encoder = self.model.encoder
        semantic = encoder.unquant(codes[:, 0])
        rest = torch.zeros_like(semantic)
        if codes.shape[1] > 1:
            rest = encoder.quantizer.get_output_from_indices(codes[:, 1]).reshape(semantic.shape)
        return torch.cat([semantic, rest], dim=-1).transpose(1, 2)

    def synthesise(self, latents: Tensor) -> Tensor:
        semantic, rest = latents.transpose(1, 2).chunk(2, dim=-1)
        tokens, window = torch.cat([rest, semantic], dim=-1), MEL_FRAMES // 16 * BANDS
        parts = []
        for part in self.model.encoder.long_token_split_window(tokens, window_length=window, overlap=OVERLAP):
            whole = torch.nn.functional.pad(part, (0, 0, 0, window - part.shape[1]), value=-1.0)
            made = self.model.decoder.generate_sample(whole, ddim_steps=STEPS, unconditional_guidance_scale=GUIDANCE)
            parts.append(np.asarray(made))
        joined = self.model.overlap_add(parts, overlap_duration=SEGMENT / SAMPLE_RATE * OVERLAP)
        return torch.as_tensor(joined, dtype=torch.float32)[..., : tokens.shape[1] * PATCH // BANDS]

    @contextlib.contextmanager
    def noise(self, seed: int, codes: Tensor) -> Iterator[None]:
        device = torch.device(self.device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            number = seeded(seed, codes).initial_seed()
            torch.default_generator.manual_seed(number)
            if device.type == "cuda":
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(number)
            yield


def features(encoder: Any, mel: Tensor) -> tuple[Tensor, Tensor]:
    """AudioMAE's features [1, T, D] of 1024 mel frames, and what the second codebook is given beside them [1, T, D].

    semanticodec/modules/encoder/encoder.py, line 326 (`_forward`), up to its second quantiser.
    """
    found = encoder.audiomae(mel[:, None], no_mask=True, no_average=False)[:, 1:]
    codes = encoder.quant_mem_efficient(found, first_token_removed=True, feature_dim=found.shape[-1])
    both = torch.cat([found, encoder.unquant(codes)], dim=-1)
    sounding = (mel[0].std(dim=-1) > 1e-7).nonzero()
    last = int(sounding[-1]) + 1 if len(sounding) else 0
    both = encoder.mark_out_padding(both, [last / mel.shape[1]])
    return found, encoder.encoder_output_linear(encoder.encoder(both)[0])


def build(checkout: Checkout, clusters: Path) -> Any:
    """The checkout's encoder, decoder and functions, with weights yet to come but for the clusters [V, D]."""
    model = nn.Module()
    with checkout.importable():
        config, _, size, layers, _ = importlib.import_module("semanticodec.config").get_config(100, 8192)
        encoders = importlib.import_module("semanticodec.modules.encoder.encoder")
        diffusion = importlib.import_module("semanticodec.modules.decoder.latent_diffusion.models.ddpm")
        utilities = importlib.import_module("semanticodec.modules.decoder.latent_diffusion.util")
        model.encoder = encoders.AudioMAEConditionQuantResEncoder(
            feature_dimension=size, lstm_layer=layers, centroid_npy_path=str(clusters)
        )
        model.decoder = utilities.instantiate_from_config(config["model"])
        model.fbank = importlib.import_module("semanticodec.utils").extract_kaldi_fbank_feature
    model.overlap_add = diffusion.overlap_add_waveform
    return model
