"""Stand-ins for checkouts that are not here: modules with upstream's names, calls and shapes, and tiny networks.

Each says which files and lines of which commit it imitates; `write` puts one where a checkout would lie.
"""

from __future__ import annotations

from pathlib import Path

# github.com/facebookresearch/FlowDec at 26ec106: flowdec/backbones/ncsnpp.py, lines 49 and 254; its operations are
# imported as in ncsnpp_utils/up_or_down_sampling.py, line 35; the settings' keys are those of config/.
FLOWDEC = {
    "flowdec/__init__.py": "raise ImportError('the package asks for what trains it')\n",
    "flowdec/backbones/ncsnpp_utils/op/__init__.py": "raise ImportError('this compiles CUDA')\n",
    "flowdec/backbones/ncsnpp.py": """
import torch
from torch import nn
from .ncsnpp_utils.op import upfirdn2d

class NCSNpp(nn.Module):
    def __init__(self, nf, output_layer_kwargs):
        super().__init__()
        self.output_layer = nn.Conv2d(4, 2, output_layer_kwargs["kernel_size"], bias=False)

    def forward(self, x, y, t):
        parts = torch.cat([x.real, x.imag, y.real, y.imag], dim=1)
        parts = upfirdn2d(parts, torch.ones(1, 1), up=1, down=1, pad=(0, 0))
        made = self.output_layer(parts) * t[:, None, None, None]
        return torch.complex(made[:, :1], made[:, 1:])
""",
    "config/model/backbone/ncsnpp_final_no_attn.yaml": """
_target_: flowdec.backbones.ncsnpp.NCSNpp
nf: 4
output_layer_kwargs: {kernel_size: 1}
""",
    "config/model/feature_extractor/compressed_complex_stft_final.yaml": """
{n_fft: 1534, n_hops: 4, alpha: 0.3, beta: 0.5}
""",
    "config/flowdec_75m.yaml": "model: {feature_extractor: {alpha: 0.3, beta: 0.33}}",
}

# github.com/haoheliu/SemantiCodec-inference at 7c05d42: semanticodec/config.py, line 2; modules/encoder/encoder.py,
# lines 17, 124 (clusters), 281 (windows) and 326 (all); modules/decoder/latent_diffusion/util.py
# (`instantiate_from_config`) and models/ddpm.py, lines 468 (`generate_sample`) and 572 (`overlap_add_waveform`);
# utils.py, line 35.
DIFFUSION = "semanticodec/modules/decoder/latent_diffusion"
SEMANTICODEC = {
    "semanticodec/__init__.py": "",
    "semanticodec/main.py": "",
    "semanticodec/config.py": """
def get_config(token_rate=100, vocab_size=None, checkpoint_path=None):
    return {"model": {}}, "semanticodec_tokenrate_100", 12, 1, "codebook_idx"
""",
    "semanticodec/utils.py": """
import torch
def extract_kaldi_fbank_feature(waveform, sampling_rate, target_length=1024):
    frames = torch.nn.functional.pad(waveform, (0, 240)).unfold(-1, 400, 160)[0]
    mel = frames @ torch.sin(torch.arange(400 * 128.0).reshape(400, 128) ** 1.5)
    assert len(mel) >= target_length
    return {"ta_kaldi_fbank": mel[:target_length] / 20}
""",
    "semanticodec/modules/encoder/encoder.py": """
import numpy as np
import torch
from torch import nn

class AudioMAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.proj = nn.Conv2d(1, 12, 16, 16)

    def forward(self, x, no_mask, no_average):
        assert x.shape[1:] == (1, 1024, 128) and no_mask and not no_average
        tokens = self.proj(x).flatten(2).transpose(1, 2)
        return torch.cat([torch.zeros_like(tokens[:, :1]), tokens], dim=1)  # the first is no patch

class Quantizer(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.codebook = nn.Parameter(torch.randn(size, 12))

    def forward(self, x):
        codes = torch.cdist(x, self.codebook[None]).argmin(-1)
        return self.codebook[codes], codes, 0.0

    def get_output_from_indices(self, codes):
        return self.codebook[codes]

class AudioMAEConditionQuantResEncoder(nn.Module):
    def __init__(self, centroid_npy_path, feature_dimension, lstm_layer):
        super().__init__()
        self.device, self.codebook_size = None, 32
        self.centroid_npy = torch.from_numpy(np.load(centroid_npy_path))
        self.audiomae, self.quantizer = AudioMAE(), Quantizer(32)
        self.encoder = nn.LSTM(24, 24, lstm_layer, batch_first=True, bidirectional=True)
        self.encoder_output_linear = nn.Linear(48, 12, bias=False)

    def quant_mem_efficient(self, representation, first_token_removed, feature_dim):
        assert first_token_removed and feature_dim == 12
        return torch.cdist(representation, self.centroid_npy[None]).argmin(-1)

    def unquant(self, tokens):
        return nn.functional.embedding(tokens, self.centroid_npy)

    def mark_out_padding(self, feature, cutoff):
        for i, share in enumerate(cutoff):
            feature[i, int(np.ceil(feature.shape[-2] * share)):] = -1.0
        return feature

    def long_token_split_window(self, tokens, window_length, overlap):
        start, windows = 0, []
        while start + window_length < tokens.shape[1]:
            windows.append(tokens[:, start:start + window_length])
            start += window_length - int(window_length * overlap)
        return [*windows, tokens[:, start:]]
""",
    f"{DIFFUSION}/util.py": """
def instantiate_from_config(config):
    from semanticodec.modules.decoder.latent_diffusion.models.ddpm import LatentDiffusion
    return LatentDiffusion()
""",
    f"{DIFFUSION}/models/ddpm.py": """
import numpy as np
import torch
from torch import nn

class LatentDiffusion(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(24, 320)

    def generate_sample(self, quanized_feature, ddim_steps, unconditional_guidance_scale):
        assert quanized_feature.shape[1] == 512
        made = self.out(quanized_feature)  # 512 tokens -> 163840 samples
        return (made + 0.1 * torch.randn(made.shape)).reshape(1, 1, -1).numpy()

def overlap_add_waveform(windowed_waveforms, overlap_duration=0.64):
    overlap, output = int(16000 * overlap_duration), windowed_waveforms[0]
    fade = np.linspace(0, 1, overlap)
    for wave in windowed_waveforms[1:]:
        joined = output[..., -overlap:] * fade[::-1] + wave[..., :overlap] * fade
        output = np.concatenate([output[..., :-overlap], joined, wave[..., overlap:]], axis=-1)
    return output
""",
}


def write(files: dict[str, str], folder: Path) -> None:
    """Put the files of a checkout below a folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
