"""The codecs of `transformers` in thin: the published kinds of network, with the real sample rates, strides and
quantisers, few channels, and random weights whose codebooks are spread over what the encoder gives.
"""

import functools
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from earmark.codecs import calls
from earmark.codecs.contract import Info
from earmark.codecs.dac import Dac
from earmark.codecs.encodec import Encodec
from earmark.codecs.mimi import Mimi
from earmark.codecs.xcodec import Xcodec


@dataclass(frozen=True)
class Thin:
    """A family's class, its thin model, and the Info that fits it. `bits` is that of a token."""

    adapter: type
    config: Any
    info: dict[str, Any]
    bits: int = 6

    @property
    def hop(self) -> int:
        return round(self.info["sample_rate"] / self.info["frame_rate"])


def thin_dac(**config):
    return transformers.DacConfig(encoder_hidden_size=4, decoder_hidden_size=64, codebook_size=64, **config)


def thin_hubert():
    return transformers.HubertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    )  # fmt: skip


ENCODEC = {"num_filters": 4, "hidden_size": 16, "codebook_size": 64}
THIN = {
    "encodec-24k": Thin(
        Encodec,
        transformers.EncodecConfig(target_bandwidths=[0.9, 1.8], **ENCODEC),
        {"sample_rate": 24000, "frame_rate": 75},
    ),
    "encodec-48k": Thin(
        Encodec,
        transformers.EncodecConfig(
            sampling_rate=48000, audio_channels=2, normalize=True, chunk_length_s=1.0, overlap=0.01,
            norm_type="time_group_norm", use_causal_conv=False, target_bandwidths=[1.8, 3.6], **ENCODEC,
        ),
        {"sample_rate": 48000, "channels": 2, "frame_rate": 150},
    ),
    "dac-24k": Thin(
        Dac,
        # The hub's config says hop_length 512 too, for strides whose product is 320.
        thin_dac(downsampling_ratios=[2, 4, 5, 8], n_codebooks=4, sampling_rate=24000, hop_length=512),
        {"sample_rate": 24000, "frame_rate": 75},
    ),
    "dac-44k": Thin(
        Dac,
        thin_dac(downsampling_ratios=[2, 4, 8, 8], n_codebooks=4, sampling_rate=44100),
        {"sample_rate": 44100, "frame_rate": 44100 / 512},
    ),
    "mimi": Thin(
        Mimi,
        transformers.MimiConfig(
            num_filters=4, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
            intermediate_size=32, codebook_size=64, codebook_dim=8, vector_quantization_hidden_dimension=8,
            num_quantizers=4, upsample_groups=32,
        ),
        {"sample_rate": 24000, "frame_rate": 12.5},
    ),
    "xcodec": Thin(
        Xcodec,
        transformers.XcodecConfig(
            acoustic_model_config=thin_dac(downsampling_ratios=[8, 5, 4, 2]),
            semantic_model_config=thin_hubert(), codebook_size=64, target_bandwidths=(0.3, 0.6, 1.2),
        ),
        {"sample_rate": 16000, "frame_rate": 50},
    ),
}  # fmt: skip


@functools.cache
def model_of(name):
    """A random model, its codebooks (zeros as built) spread over what its encoder gives, so that codes vary."""
    torch.manual_seed(0)
    thin = THIN[name]
    model = getattr(transformers, thin.adapter.model_class)(thin.config)
    sample = build(name, model=model).embed(noise(name, thin.info["sample_rate"])[:1])
    mean, deviation = sample.mean(dim=(0, 2)), sample.std(dim=(0, 2))
    for i, (key, book) in enumerate((k, b) for k, b in model.named_buffers() if k.endswith((".embed", ".embed_sum"))):
        if key.endswith(".embed_sum"):
            book.normal_()
        else:
            book.copy_(torch.randn(book.shape) * deviation * 0.7**i + mean * (i == 0))
    return model


def build(name, codebooks=4, model=None):
    """The adapter of a thin codec with the first K of its four codebooks."""
    thin = THIN[name]
    info = Info(name=f"thin-{name}", codebook_sizes=(64,) * codebooks, nested=True, **thin.info)
    return thin.adapter(info, "cpu", model=model or model_of(name))


def noise(name, length, batch=1, seed=0):
    """wav [B, C, L] that changes, of as many channels as the codec has."""
    return changing(length, THIN[name].info.get("channels", 1), batch, seed)


def changing(length, channels=1, batch=1, seed=0):
    """wav [B, C, L] of noise whose level and colour change every 50 ms, as sound's do."""
    generator = torch.Generator().manual_seed(seed)
    wav = torch.randn(batch, channels, length, generator=generator)
    smooth = torch.nn.functional.avg_pool1d(wav, 9, 1, padding=4)
    gain = torch.rand(2, -(-length // 1200), generator=generator).repeat_interleave(1200, dim=1)[:, :length]
    return 0.3 * (gain[0] * wav + 2 * gain[1] * smooth)


def encode(name, wav, lengths=None, **options):
    adapter = build(name, **options)
    lengths = torch.full((len(wav),), wav.shape[-1]) if lengths is None else torch.tensor(lengths)
    return adapter, calls.encode(adapter, adapter.info, wav, lengths, 0)
