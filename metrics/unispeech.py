"""The speaker model of CodecBench: WavLM-large, fine-tuned with an ECAPA-TDNN head, of Microsoft's UniSpeech.

Upstream runs WavLM through s3prl and reads the checkpoint as a pickle. Here WavLM is the one of `transformers`, the
head is written anew, and the checkpoint is read as tensors alone, renamed, and taken only if every tensor finds its
place. Upstream keeps it on Google Drive; what `backends.yaml` names is a copy of it on the hub, by others.
Source: Chen et al., "WavLM", IEEE JSTSP 2022; github.com/microsoft/UniSpeech, downstreams/speaker_verification.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (torch's own name for it)

from earmark.metrics.speaker import cached_file

if TYPE_CHECKING:
    from earmark.metrics.registry import Checkpoint

FILE = "wavlm_large_finetune.pth"
LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "num_buckets": 320,
    "max_bucket_distance": 800,
}
# What tensors are called in the checkpoint, and here; every line is applied, in this order.
NAMES = (
    (r"^feature_extract\.model\.", "wavlm."),
    (r"(conv_layers\.\d+)\.0\.", r"\1.conv."),
    (r"(conv_layers\.\d+)\.2\.1\.", r"\1.layer_norm."),
    (r"^wavlm\.post_extract_proj\.", "wavlm.feature_projection.projection."),
    (r"^wavlm\.layer_norm\.", "wavlm.feature_projection.layer_norm."),
    (r"^wavlm\.mask_emb$", "wavlm.masked_spec_embed"),
    (r"pos_conv\.0\.weight_g$", "pos_conv.0.parametrizations.weight.original0"),
    (r"pos_conv\.0\.weight_v$", "pos_conv.0.parametrizations.weight.original1"),
    (r"pos_conv\.0\.", "pos_conv_embed.conv."),
    (r"\.self_attn_layer_norm\.", ".layer_norm."),
    (r"\.self_attn\.grep_linear\.", ".attention.gru_rel_pos_linear."),
    (r"\.self_attn\.grep_a$", ".attention.gru_rel_pos_const"),
    (r"\.self_attn\.relative_attention_bias\.", ".attention.rel_attn_embed."),
    (r"\.self_attn\.", ".attention."),
    (r"\.fc1\.", ".feed_forward.intermediate_dense."),
    (r"\.fc2\.", ".feed_forward.output_dense."),
    (r"\.Conv1dReluBn1\.", ".before."),
    (r"\.Conv1dReluBn2\.", ".after."),
    (r"\.Res2Conv1dReluBn\.", ".res2."),
    (r"\.SE_Connect\.", ".gate."),
)


class UniSpeech:
    """Speaker embeddings, 256 values, of the whole clip; the wave is normalised, so any level; nothing is trimmed."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        weights = torch.load(cached_file(checkpoint, FILE), map_location="cpu", weights_only=True)["model"]
        self._model = SpeakerNet(LARGE)
        self._model.load_state_dict(renamed(weights))
        self._model.eval().requires_grad_(False)

    def embed(self, wav: np.ndarray) -> np.ndarray:
        """float32 [256] of wav float32 [L] at 16 kHz."""
        with torch.inference_mode():
            return self._model(torch.from_numpy(wav)[None])[0].numpy()


def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the checkpoint under the names that they have here, without the head that served its training."""
    found = {}
    for name, tensor in weights.items():
        for pattern, ours in NAMES:
            name = re.sub(pattern, ours, name)
        if not name.startswith("loss_calculator."):
            found[name] = tensor
    return found


class SpeakerNet(nn.Module):
    """Wave [B, L] -> embedding [B, 256]: a learnt mean of all layers of WavLM, then ECAPA-TDNN of 512 channels."""

    def __init__(self, wavlm: dict[str, Any], channels: int = 512, pooled: int = 1536, size: int = 256) -> None:
        super().__init__()
        from transformers import WavLMConfig, WavLMModel

        config = WavLMConfig(**wavlm)
        self.wavlm = WavLMModel(config)
        self.feature_weight = nn.Parameter(torch.zeros(config.num_hidden_layers + 1))
        self.layer1 = Conv(config.hidden_size, channels, 5)
        self.layer2, self.layer3, self.layer4 = (Block(channels, dilation) for dilation in (2, 3, 4))
        self.conv = nn.Conv1d(3 * channels, pooled, 1)
        self.pooling = Pooling(pooled)
        self.bn = nn.BatchNorm1d(2 * pooled)
        self.linear = nn.Linear(2 * pooled, size)

    def forward(self, wav: Tensor) -> Tensor:
        one = self.layer1(self.features(wav))
        two = self.layer2(one)
        three = self.layer3(two)
        joined = F.relu(self.conv(torch.cat([two, three, self.layer4(three)], dim=1)))
        return self.linear(self.bn(self.pooling(joined)))

    def features(self, wav: Tensor) -> Tensor:
        """[B, D, T]: the layers' weighted mean, normalised over time in each of its D rows."""
        out = self.wavlm(F.layer_norm(wav, wav.shape[-1:]), output_hidden_states=True)
        # upstream takes the last after its layer norm; transformers 5 lists it before
        states = torch.stack([*out.hidden_states[:-1], out.last_hidden_state])
        mean = (self.feature_weight.softmax(-1)[:, None, None, None] * states).sum(0)
        return F.instance_norm(mean.transpose(1, 2) + 1e-6)


class Conv(nn.Module):
    """Convolution that keeps the length, then ReLU, then batch normalisation: [B, D, T] -> [B, D', T]."""

    def __init__(self, before: int, after: int, width: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(before, after, width, padding=dilation * (width // 2), dilation=dilation)
        self.bn = nn.BatchNorm1d(after)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(F.relu(self.conv(x)))


class Block(nn.Module):
    """SE-Res2Net block: [B, D, T] -> [B, D, T]."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.before, self.after = Conv(channels, channels), Conv(channels, channels)
        self.res2, self.gate = Res2(channels, dilation), Gate(channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gate(self.after(self.res2(self.before(x))))


class Res2(nn.Module):
    """Eight groups of channels: each of the first seven adds what came out of the one before; the last stays."""

    def __init__(self, channels: int, dilation: int, groups: int = 8) -> None:
        super().__init__()
        width = channels // groups
        self.convs = nn.ModuleList(
            nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation) for _ in range(groups - 1)
        )
        self.bns = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(groups - 1))

    def forward(self, x: Tensor) -> Tensor:
        *groups, last = x.chunk(len(self.convs) + 1, dim=1)
        out: list[Tensor] = []
        for group, conv, bn in zip(groups, self.convs, self.bns, strict=True):
            out.append(bn(F.relu(conv(group + out[-1] if out else group))))
        return torch.cat([*out, last], dim=1)


class Gate(nn.Module):
    """Squeeze and excitation: each channel times a factor that the means over time of all of them decide."""

    def __init__(self, channels: int, inner: int = 128) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(channels, inner), nn.Linear(inner, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.linear2(F.relu(self.linear1(x.mean(2)))).sigmoid()[..., None]


class Pooling(nn.Module):
    """Attentive statistics: mean and deviation over time, [B, D, T] -> [B, 2 D], each frame weighted by a small net."""

    def __init__(self, channels: int, inner: int = 128) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Conv1d(channels, inner, 1), nn.Conv1d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.linear2(torch.tanh(self.linear1(x))).softmax(2)
        mean = (weights * x).sum(2)
        variance = (weights * x.square()).sum(2) - mean.square()
        return torch.cat([mean, variance.clamp(min=1e-9).sqrt()], dim=1)
