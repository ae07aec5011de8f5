"""SemantiCodec, FlowDec, Stable-Codec, and the tokenisers of Baichuan-Audio and GLM-4-Voice in thin: stand-ins for
what is in a checkout or a package, few channels elsewhere, and codebooks spread over what the encoder gives.
"""

import functools

import numpy as np
import torch
import transformers
from torch import nn

from earmark.codecs import calls, flowdec, semanticodec, stable_codec
from earmark.codecs.contract import Info
from earmark.codecs.registry import catalogue
from earmark.codecs.whisper_vq import Baichuan, BaichuanEncoder, GlmEncoder, GlmVoice

WHISPER = {"num_mel_bins": 128, "d_model": 16, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}
# The keys of the released configs (Baichuan: baichuan-omni/model/config.json at 51f55ff), with smaller sizes.
GLM = WHISPER | {
    "pooling_kernel_size": 4, "pooling_type": "avg", "pooling_position": 2, "quantize_position": 2,
    "quantize_vocab_size": 64, "quantize_causal_block_size": 200, "encoder_causal_convolution": True,
    "encoder_causal_attention": False, "max_source_positions": 1500,
}  # fmt: skip
BAICHUAN = {
    "audio_config": WHISPER | {
        "encoder_layers": 2, "avg_pooler": 4, "max_audio_seconds": 30, "sampling_rate": 16000, "hop_length": 160,
        "vq_config": {"codebook_sizes": [64, 32, 16]},
    }
}  # fmt: skip
SCALARS = {1: (6, [1.0]), 2: (5, [1.0, 0.25]), 4: (3, [1.0, 0.5, 0.25, 0.125])}
INFOS = {
    "glm": Info(name="thin-glm", sample_rate=16000, frame_rate=12.5, codebook_sizes="1x64"),
    "baichuan": Info(
        name="thin-baichuan", sample_rate=16000, frame_rate=12.5, codebook_sizes=(64, 32, 16), nested=True
    ),
    "stable": Info(name="thin-stable", sample_rate=16000, frame_rate=25, codebook_sizes="4x729", nested=True),
    "flowdec": Info(
        name="thin-flowdec", sample_rate=48000, frame_rate=75, codebook_sizes="3x64", nested=True, stochastic=True
    ),
    "semantic": Info(name="thin-semantic", sample_rate=16000, frame_rate=50, codebook_sizes=(48, 32), stochastic=True),
}


def noise(length, batch=1, seed=0):
    """wav [B, 1, L] of noise that swells and fades twice a second."""
    wav = 0.2 * torch.randn(batch, 1, length, generator=torch.Generator().manual_seed(seed))
    return wav * (0.2 + torch.sin(torch.arange(length) / 2500).abs())


class Patches(nn.Module):
    """Stable-Codec's network as its adapter calls it: stable_audio_tools/models/autoencoders.py of 0.0.17."""

    sample_rate, downsampling_ratio, in_channels, latent_dim = 16000, 640, 1, 6

    def __init__(self):
        super().__init__()
        self.there, self.back = nn.Conv1d(1, 6, 640, 640), nn.ConvTranspose1d(6, 1, 640, 640)

    def encode(self, audio, skip_bottleneck):
        assert skip_bottleneck
        return 4 * self.there(audio)

    def decode(self, latents):
        return self.back(latents)


class Toward(nn.Module):
    """A direction whose flow is known: from the state towards the origin, x' = -x."""

    def forward(self, state, given, time):
        assert time.shape == (1,)
        return -state


def thin_dac():
    config = transformers.DacConfig(
        encoder_hidden_size=4, downsampling_ratios=[2, 4, 8, 10], decoder_hidden_size=32, n_codebooks=4,
        codebook_size=64, codebook_dim=4, sampling_rate=48000,
    )  # fmt: skip
    return transformers.DacModel(config)


def flow(network, sigma):
    return flowdec.PostFilter(network, torch.hann_window(1534), 384, 0.3, 0.33, torch.tensor(sigma))


@functools.cache
def checkout_of(name):
    """The stand-in of a checkout, found on Python's path (see `checkouts`)."""
    row = next(entry for entry in catalogue().values() if entry.family == name)
    return row.checkout


def clusters(home):
    """The file of SemantiCodec's clusters, 48 of 12 values."""
    path = home / "clusters.npy"
    np.save(path, np.random.default_rng(0).standard_normal((48, 12)).astype(np.float32))
    return path


def build(name, home, **info):
    torch.manual_seed(0)
    said = INFOS[name].model_copy(update=info)
    if name == "stable":
        return stable_codec.StableCodec(said, "cpu", model=Patches(), levels=3, scales=SCALARS[4][1])
    if name == "flowdec":
        return flowdec.FlowDec(said, "cpu", model=(thin_dac(), flow(Toward(), 0.5)))
    if name == "semantic":
        made = semanticodec.SemantiCodec(
            said, "cpu", model=semanticodec.build(checkout_of("semanticodec"), clusters(home))
        )
        latents, encoder = made.embed(noise(30000, seed=9))[0].T, made.model.encoder
        for book, part in ((encoder.centroid_npy, latents[:, :12]), (encoder.quantizer.codebook, latents[:, 12:])):
            book.copy_(torch.randn(book.shape) * part.std(dim=0) + part.mean(dim=0))
        return made
    made = GlmVoice(said, "cpu", model=GlmEncoder(GLM)) if name == "glm" else None
    made = made or Baichuan(said, "cpu", model=BaichuanEncoder(BAICHUAN["audio_config"]))
    spread(made)
    return made


def spread(adapter):
    """Codebooks, and positions, drawn over what the encoder gives, or all frames would find one code."""
    positions = adapter.model.state_dict().get("audio_model.positional_embedding")
    if positions is not None:
        positions.normal_(std=0.3)
    latents = adapter.embed(noise(50000, seed=9))[0].T
    books = [adapter.model.codebook.weight] if isinstance(adapter, GlmVoice) else adapter.model.codebooks
    for k, book in enumerate(books):
        book.copy_(torch.randn(book.shape) * latents.std(dim=0) * 0.7**k + latents.mean(dim=0) * (k == 0))


def encode(adapter, wav, lengths=None):
    lengths = [wav.shape[-1]] * len(wav) if lengths is None else lengths
    return calls.encode(adapter, adapter.info, wav, torch.tensor(lengths), 0)
