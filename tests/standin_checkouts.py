"""Stand-ins for checkouts that are not here: modules with upstream's names, calls and shapes, and tiny networks.

Each says which file and lines of which commit it imitates; `write` puts them where a checkout would lie.
"""

from __future__ import annotations

from pathlib import Path

# github.com/jishengpeng/WavTokenizer at 5cf440d: decoder/pretrained.py, lines 82 (config), 187, 193 and 210 (calls);
# decoder/feature_extractors.py, line 130 (`infer`); encoder/quantization/vq.py, line 115.
WAVTOKENIZER = {
    "encoder/model.py": """
import math
from types import SimpleNamespace
import torch
from torch import nn

class Encoder(nn.Module):
    def __init__(self, ratios):
        super().__init__()
        self.hop_length = math.prod(ratios)
        self.conv = nn.Conv1d(1, 512, self.hop_length, self.hop_length)

    def forward(self, x):
        return self.conv(nn.functional.pad(x, (0, -x.shape[-1] % self.hop_length)))

class Layer(nn.Module):
    def __init__(self, bins):
        super().__init__()
        self._codebook = nn.Module()
        self._codebook.register_buffer("embed", torch.zeros(bins, 512))
        self._codebook.register_buffer("inited", torch.zeros(1))
    codebook = property(lambda self: self._codebook.embed)

class Quantizer(nn.Module):
    def __init__(self, n_q, bins):
        super().__init__()
        self.n_q, self.bins, self.vq = n_q, bins, nn.Module()
        self.vq.layers = nn.ModuleList([Layer(bins) for _ in range(n_q)])

    def infer(self, x, frame_rate, bandwidth):
        assert frame_rate == 25 and bandwidth == 6.6
        codes = torch.cdist(x.transpose(1, 2), self.vq.layers[0].codebook[None]).argmin(-1)[None]
        return SimpleNamespace(codes=codes, quantized=self.vq.layers[0].codebook[codes[0]].transpose(1, 2))

class EncodecModel(nn.Module):
    def __init__(self, ratios, n_q, bins):
        super().__init__()
        self.sample_rate, self.encoder, self.quantizer = 24000, Encoder(ratios), Quantizer(n_q, bins)
""",
    "decoder/pretrained.py": """
import torch
import yaml
from torch import nn
from encoder.model import EncodecModel

class Features(nn.Module):
    def __init__(self, num_quantizers, dowmsamples, vq_bins, bandwidths, **rest):
        super().__init__()
        self.frame_rate, self.bandwidths = 25, bandwidths
        self.encodec = EncodecModel(dowmsamples, num_quantizers, vq_bins)

class WavTokenizer(nn.Module):
    def __init__(self, features, backbone, head):
        super().__init__()
        self.feature_extractor, self.backbone, self.head = features, backbone, head

    @classmethod
    def from_hparams0802(cls, config_path):
        with open(config_path) as f:
            parts = yaml.safe_load(f)["model"]["init_args"]
        dim, head = parts["backbone"]["init_args"]["dim"], parts["head"]["init_args"]
        backbone = nn.Conv1d(512, dim, 3, padding=1)
        return cls(Features(**parts["feature_extractor"]["init_args"]), backbone, nn.Linear(dim, head["hop_length"]))

    def encode_infer(self, audio_input, bandwidth_id):
        extractor = self.feature_extractor
        latents = extractor.encodec.encoder(audio_input.unsqueeze(1))
        found = extractor.encodec.quantizer.infer(latents, extractor.frame_rate, extractor.bandwidths[bandwidth_id])
        return found.quantized, found.codes

    def decode(self, features_input, bandwidth_id):
        assert bandwidth_id.tolist() == [0]
        return self.head(self.backbone(features_input).transpose(1, 2)).flatten(1).tanh()

    def codes_to_features(self, codes):
        assert codes.dim() == 3
        return self.feature_extractor.encodec.quantizer.vq.layers[0].codebook[codes[0]].transpose(1, 2)
""",
}

# github.com/open-mmlab/Amphion at d3de90f: models/codec/amphion_codec/codec.py, lines 100 (encoder) and 168 (decoder;
# `forward` 386, `vq2emb` 417); quantize/residual_vq.py, line 68; vocos.py, line 824.
MASKGCT = {
    "models/codec/amphion_codec/codec.py": """
import math
from types import SimpleNamespace
import torch
from torch import nn

class CodecEncoder(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        hop = math.prod(cfg.up_ratios)
        self.block = nn.Conv1d(1, cfg.out_channels, hop, hop)

    def forward(self, x):
        return self.block(x)

class Residual(nn.Module):
    def __init__(self, dim, num_quantizers, codebook_size):
        super().__init__()
        self.num_quantizers, self.codebook_size = num_quantizers, codebook_size
        self.quantizers = nn.ModuleList([nn.Embedding(codebook_size, dim) for _ in range(num_quantizers)])

    def forward(self, z, n_quantizers=None):
        total, indices = torch.zeros_like(z), []
        for layer in self.quantizers[:n_quantizers]:
            found = torch.cdist((z - total).transpose(1, 2), layer.weight[None]).argmin(-1)
            total = total + layer(found).transpose(1, 2)
            indices.append(found)
        return total, torch.stack(indices), None, None, None

class Head(nn.Linear):
    def __init__(self, dim, hop):
        super().__init__(dim, hop)
        self.istft = SimpleNamespace(hop_length=hop)

class Vocos(nn.Module):
    def __init__(self, dim, hop):
        super().__init__()
        self.backbone, self.head = nn.Conv1d(dim, dim, 3, padding=1), Head(dim, hop)

    def forward(self, x):
        return self.head(self.backbone(x).transpose(1, 2)).flatten(1)[:, None]

class CodecDecoder(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.quantizer = Residual(cfg.in_channels, cfg.num_quantizers, cfg.codebook_size)
        self.model = Vocos(cfg.in_channels, cfg.hop_size)

    def forward(self, x):
        return self.model(x)

    def vq2emb(self, vq, n_quantizers=None):
        used = self.quantizer.quantizers[:n_quantizers]
        return sum(layer(codes).transpose(1, 2) for layer, codes in zip(used, vq))
""",
}

# github.com/lucadellalib/focalcodec at 912b7f2: focalcodec/codec.py, lines 148 (rates), 311, 353, 751, 818, 867, 979,
# 1496; bsq.py, lines 96 and 128; wavlm.py, line 135 (no padding); focalnet.py, line 675 (padding up to T mod s).
FOCALCODEC = {
    "focalcodec/__init__.py": "from .codec import FocalCodec\n",
    "focalcodec/codec.py": """
import math
import torch
from torch import nn

class WavLM(nn.Module):
    def __init__(self, dim, **rest):
        super().__init__()
        self.kernel_sizes, self.strides = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
        self.downsample_factor, self.conv = 320, nn.Conv1d(1, dim, 400, 320)

class Compressor(nn.Module):
    def __init__(self, input_dim, output_dim, downscale_factors, **rest):
        super().__init__()
        self.downsample_factor = math.prod(downscale_factors)
        self.conv = nn.Conv1d(input_dim, output_dim, self.downsample_factor, self.downsample_factor)

    def forward(self, x):
        return self.conv(nn.functional.pad(x, (0, x.shape[-1] % self.downsample_factor))).transpose(1, 2)

class Quantizer(nn.Module):
    def __init__(self, codebook_size):
        super().__init__()
        self.codebook_size, self.dim = codebook_size, int(math.log2(codebook_size))
        self.register_buffer("mask", 2 ** torch.arange(self.dim - 1, -1, -1), persistent=False)

class FocalCodec(nn.Module):
    def __init__(self, encoder_config, compressor_config, quantizer_config, **rest):
        super().__init__()
        self.encoder, self.compressor = WavLM(**encoder_config), Compressor(**compressor_config)
        self.quantizer = Quantizer(**quantizer_config)
        self.decoder = nn.Linear(self.quantizer.dim, self.compressor.downsample_factor * 320)
    sample_rate = property(lambda self: 16000)

    def sig_to_lats(self, sig):
        return nn.functional.normalize(self.compressor(self.encoder.conv(sig[:, None])), dim=-1)

    def lats_to_toks(self, lats):
        return ((lats > 0) * self.quantizer.mask).sum(-1)

    def sig_to_toks(self, sig):
        return self.lats_to_toks(self.sig_to_lats(sig))

    def toks_to_codes(self, toks):
        bits = (toks[..., None] // self.quantizer.mask) % 2
        return (bits * 2 - 1) / math.sqrt(self.quantizer.dim)

    def codes_to_sig(self, codes):
        return self.decoder(codes).flatten(1)

    def toks_to_sig(self, toks):
        return self.codes_to_sig(self.toks_to_codes(toks))

    @classmethod
    def _remap_state_dict(cls, src_state_dict, tgt_keys):
        assert sorted(src_state_dict) == sorted(tgt_keys)
        return src_state_dict
""",
}


def write(modules: dict[str, str], folder: Path) -> None:
    """The modules of a stand-in, under a folder."""
    for name, text in modules.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
