"""WavTokenizer, BigCodec, MaskGCT's codec and FocalCodec in thin: the published kinds of network, few channels.

Each with upstream's own calls, and with codebooks that are spread over what its encoder gives (random ones would be
found in one entry nearly always).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import yaml

from earmark.codecs import bigcodec, focalcodec, maskgct, wavtokenizer
from earmark.codecs.checkout import Checkout
from earmark.codecs.contract import Info


@dataclass(frozen=True)
class Case:
    """A codec in thin.

    row         the codec of the catalogue whose checkout it needs.
    hop         samples a frame.
    dimensions  D of its latents.
    upstream    upstream's own calls: codes [B, K, T] and sound [B, 1, L'] of a model and a clip [1, 1, L].
    build       a random model of a checkout.
    spread      spreads a model's codebooks over what its encoder gives for a clip.
    save        puts a model's weights in a folder as they are published.
    options     what its adapter is given beside a checkpoint and a checkout.
    """

    adapter: Callable[..., Any]
    row: str
    rate: int
    hop: int
    sizes: tuple[int, ...]
    dimensions: int
    upstream: Callable[[Any, Any], tuple[Any, Any]]
    build: Callable[[Checkout], Any]
    spread: Callable[[Any, Any], None]
    save: Callable[[Any, Path], None]
    options: dict[str, str] = field(default_factory=dict)
    more: int = 0  # 1: a zero always follows a clip, so that one of whole hops gets a frame more

    def frames(self, length):
        return math.ceil((length + self.more) / self.hop)

    def info(self, codebooks=None):
        sizes = self.sizes[:codebooks]
        return Info(
            name="thin", sample_rate=self.rate, frame_rate=self.rate / self.hop, codebook_sizes=sizes, nested=True
        )


def wavtokenizer_calls(model, clip):
    """README.md, "Part1" to "Part3"."""
    bandwidth = torch.tensor([0])
    features, codes = model.encode_infer(clip[:, 0], bandwidth_id=bandwidth)
    assert torch.equal(features, model.codes_to_features(codes))
    return codes.transpose(0, 1), model.decode(features, bandwidth_id=bandwidth)[:, None]


def bigcodec_calls(model, clip):
    """inference.py, lines 43 to 47."""
    wav = torch.nn.functional.pad(clip[:, 0], (0, (200 - (clip.shape[-1] % 200))))
    vq_emb = model["encoder"](wav.unsqueeze(1))
    vq_post_emb, vq_code, _ = model["decoder"](vq_emb, vq=True)
    return vq_code.transpose(0, 1), model["decoder"](vq_post_emb, vq=False)


def maskgct_calls(model, clip):
    """maskgct_utils.py, lines 125 to 127 and 223 to 226, for a clip of whole hops."""
    speech = torch.nn.functional.pad(clip[:, 0], (0, -clip.shape[-1] % 480))
    _, vq, _, _, _ = model["decoder"].quantizer(model["encoder"](speech.unsqueeze(1)))
    acoustic_code = vq.permute(1, 2, 0)
    vq_emb = model["decoder"].vq2emb(acoustic_code.permute(2, 0, 1), n_quantizers=4)
    return acoustic_code.transpose(1, 2), model["decoder"](vq_emb)


def focalcodec_calls(model, clip, hop):
    """README.md, "Quickstart", for a clip of whole frames and what WavLM hears beyond."""
    toks = model.sig_to_toks(torch.nn.functional.pad(clip[:, 0], (0, -clip.shape[-1] % hop + 80)))
    return toks[:, None], model.toks_to_sig(toks)[:, None]


def wavtokenizer_config(hop, ratios):
    parts = {
        "feature_extractor": {
            "encodec_model": "encodec_24khz", "bandwidths": [6.6] * 4, "train_codebooks": True, "num_quantizers": 1,
            "dowmsamples": ratios, "vq_bins": 64, "vq_kmeans": 2,
        },
        "backbone": {
            "input_channels": 512, "dim": 64, "intermediate_dim": 64, "num_layers": 1, "adanorm_num_embeddings": 4
        },
        "head": {"dim": 64, "n_fft": 4 * hop, "hop_length": hop, "padding": "same"},
    }  # fmt: skip
    classes = {
        "feature_extractor": "decoder.feature_extractors.EncodecFeatures", "backbone": "decoder.models.VocosBackbone",
        "head": "decoder.heads.ISTFTHead",
    }  # fmt: skip
    return {"model": {"init_args": {k: {"class_path": classes[k], "init_args": v} for k, v in parts.items()}}}


def wavtokenizer_spread(model, clip):
    latents = model.feature_extractor.encodec.encoder(clip)[0].T
    book = model.feature_extractor.encodec.quantizer.vq.layers[0]._codebook
    book.embed.copy_(latents[torch.linspace(0, len(latents) - 1, 64).long()])
    book.inited.fill_(1)


def bigcodec_build(checkout):
    with checkout.importable():
        from vq import CodecDecoder, CodecEncoder

        encoder = CodecEncoder(ngf=2, out_channels=32)
        decoder = CodecDecoder(in_channels=32, vq_dim=32, upsample_initial_channel=64, codebook_size=64)
    return torch.nn.ModuleDict({"encoder": encoder, "decoder": decoder})


def bigcodec_spread(model, clip):
    layer, latents = model["decoder"].quantizer.layers[0], model["encoder"](clip)
    layer.in_proj.bias -= layer.in_proj(latents.transpose(1, 2)).mean(dim=(0, 1))


MASKGCT = {
    "encoder": {"d_model": 4, "up_ratios": [3, 4, 5, 8], "out_channels": 32, "use_tanh": False},
    "decoder": {
        "in_channels": 32, "upsample_initial_channel": 64, "up_ratios": [8, 5, 4, 3], "num_quantizers": 4,
        "codebook_size": 64, "codebook_dim": 8, "quantizer_type": "fvq", "quantizer_dropout": 0.5, "commitment": 0.25,
        "codebook_loss_weight": 1.0, "use_l2_normlize": True, "codebook_type": "euclidean", "kmeans_init": False,
        "kmeans_iters": 10, "decay": 0.8, "eps": 0.5, "threshold_ema_dead_code": 2, "weight_init": False,
        "use_vocos": True, "vocos_dim": 16, "vocos_intermediate_dim": 32, "vocos_num_layers": 2, "n_fft": 1920,
        "hop_size": 480, "padding": "same",
    },
}  # fmt: skip


def maskgct_spread(model, clip):
    residual = model["encoder"](clip)
    for layer in model["decoder"].quantizer.quantizers:
        if hasattr(layer, "in_project"):  # upstream's own
            layer.in_project.bias -= layer.in_project(residual).mean(dim=(0, 2))
            residual = residual - layer(residual)[0]
        else:
            layer.weight.copy_(residual[0].T[torch.randint(residual.shape[-1], (64,))] * torch.rand(64, 1))


def focalcodec_config(factors):
    wide = {"dim": 32, "num_layers": 2, "ffn_dim": 32, "num_heads": 2, "conv_pos": 16, "conv_pos_groups": 2}
    return {
        "encoder_config": wide | {"hidden_dims": [8] * 7, "max_cached_steps": 512},
        "compressor_config": {
            "input_dim": 32, "output_dim": 6, "hidden_dims": [16] * 3, "downscale_factors": factors, "focal_window": 3
        },
        "quantizer_config": {"codebook_size": 64},
        "decompressor_config": {
            "input_dim": 6, "output_dim": 32, "hidden_dims": [16] * 3, "upscale_factors": factors[::-1],
            "focal_window": 3,
        },
        "decoder_name": "Vocos",
        "decoder_config": {"input_dim": 32, "num_layers": 2, "dim": 16, "ffn_dim": 32, "n_fft": 1024},
    }  # fmt: skip


def focalcodec_spread(model, clip):
    """There is no codebook; signs vary where what they are of has no mean."""
    if hasattr(model, "sig_to_feats"):  # upstream's own
        latents = model.compressor(model.sig_to_feats(clip[:, 0]))[0]
        model.compressor.out_proj.bias -= latents.mean(dim=(0, 1))


def wavtokenizer_save(model, folder):
    discriminator = {"multiperioddisc.x": torch.zeros(1)}
    torch.save({"state_dict": model.state_dict() | discriminator, "epoch": 3}, folder / "thin.ckpt")


def bigcodec_save(model, folder):
    parts = {"CodecEnc": model["encoder"].state_dict(), "generator": model["decoder"].state_dict()}
    torch.save(parts, folder / "bigcodec.pt")


def maskgct_save(model, folder):
    (folder / "acoustic_codec").mkdir()
    for part, file in zip(("encoder", "decoder"), maskgct.MaskGct.FILES, strict=True):
        safetensors.torch.save_file(model[part].state_dict(), folder / file)


def focalcodec_save(model, folder, config):
    (folder / "config.json").write_text(json.dumps(config))
    safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors")


def wavtokenizer_case(row: str, hop: int, ratios: list[int], folder: Path) -> Case:
    config = folder / f"{hop}.yaml"  # an absolute path stays as it is within a checkout
    config.write_text(yaml.safe_dump(wavtokenizer_config(hop, ratios)))
    return Case(
        wavtokenizer.WavTokenizer, row, 24000, hop, (64,), 512, wavtokenizer_calls,
        partial(wavtokenizer.build, config=str(config)), wavtokenizer_spread, wavtokenizer_save,
        {"config": str(config), "file": "thin.ckpt"},
    )  # fmt: skip


def focalcodec_case(row: str, hop: int, factors: list[int]) -> Case:
    config = focalcodec_config(factors)
    return Case(
        focalcodec.FocalCodec, row, 16000, hop, (64,), 6, partial(focalcodec_calls, hop=hop),
        partial(focalcodec.build, config=config), focalcodec_spread, partial(focalcodec_save, config=config),
    )  # fmt: skip


def case(name: str, folder: Path) -> Case:
    """A codec in thin, by name; what must be in files is in the folder."""
    makers: dict[str, Callable[[], Case]] = {
        "wavtokenizer-40": lambda: wavtokenizer_case("wavtokenizer-unify-40", 600, [6, 5, 5, 4], folder),
        "wavtokenizer-75": lambda: wavtokenizer_case("wavtokenizer-speech-75", 320, [8, 5, 4, 2], folder),
        "bigcodec": lambda: Case(
            bigcodec.BigCodec, "bigcodec", 16000, 200, (64,), 32, bigcodec_calls, bigcodec_build, bigcodec_spread,
            bigcodec_save, more=1,
        ),
        "maskgct": lambda: Case(
            maskgct.MaskGct, "maskgct-12", 24000, 480, (64,) * 4, 32, maskgct_calls,
            partial(maskgct.build, config=MASKGCT), maskgct_spread, maskgct_save,
        ),
        "focalcodec-50": lambda: focalcodec_case("focalcodec-50", 320, [1, 1, 1]),
        "focalcodec-12.5": lambda: focalcodec_case("focalcodec-12.5", 1280, [2, 2, 1]),
    }  # fmt: skip
    return makers[name]()


def noise(length: int, batch: int = 1, seed: int = 0) -> torch.Tensor:
    return 0.3 * torch.randn(batch, 1, length, generator=torch.Generator().manual_seed(seed))
