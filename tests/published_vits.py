"""CED, ATST and MSM-MAE: thin random tensors in the layouts that are published, and what the released code does.

`Upstream` below says in a few lines what the released code computes, with the places in it; on that code itself the
adapters were compared by hand (codecs/catalogue/encoders_more.yaml). The spectra are torchaudio's transforms, as in
upstream, for MSM-MAE librosa's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from earmark.codecs.registry import catalogue

torch = pytest.importorskip("torch")
transforms = pytest.importorskip("torchaudio.transforms")

from torch.nn import functional as F  # noqa: E402, N812 (as all call it)

from earmark.tests.thin_encoders import REVISION  # noqa: E402

WIDTH, DEPTH, HEADS = 16, 2, 2
KINDS = ("layer:0", "layer:1", "layer:2", "unquantized")
ASKED = (  # of the contract, of thin encoders
    "shapes", "frame_rate", "silence", "dc", "full_scale", "faint", "determinism", "batch_equals_single", "padding",
    "not_finite", "eval_mode", "gradients", "global_state", "input_is_left_alone",
)  # fmt: skip
EPS = torch.finfo(torch.float32).eps


def block(tensors, i, x):
    """A block of `timm`: x [T, D]; attention without the biases that the tensors lack. modeling_ced.py:142-172 and
    277-280, audiossl/modules/transformer.py:107-145, patch_msm_mae.diff (AttentionKBiasZero)."""
    own = {name.removeprefix(f"blocks.{i}."): each for name, each in tensors.items() if name.startswith(f"blocks.{i}.")}
    bias = own.get("attn.qkv.bias")
    if "attn.q_bias" in own:
        bias = torch.cat([own["attn.q_bias"], torch.zeros(WIDTH), own["attn.v_bias"]])
    y = F.layer_norm(x, (WIDTH,), own["norm1.weight"], own["norm1.bias"], 1e-6)
    q, k, v = F.linear(y, own["attn.qkv.weight"], bias).unflatten(1, (3, HEADS, -1)).permute(1, 2, 0, 3)
    seen = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v
    x = x + F.linear(seen.transpose(0, 1).flatten(1), own["attn.proj.weight"], own["attn.proj.bias"])
    y = F.layer_norm(x, (WIDTH,), own["norm2.weight"], own["norm2.bias"], 1e-6)
    y = F.gelu(F.linear(y, own["mlp.fc1.weight"], own["mlp.fc1.bias"]))
    return x + F.linear(y, own["mlp.fc2.weight"], own["mlp.fc2.bias"])


def through(tensors, x, norm="norm"):
    """Tokens [T, D] that enter the first block, and those that each gives, the last normalised."""
    states = [x]
    for i in range(DEPTH):
        states.append(block(tensors, i, states[-1]))
    return [*states[:-1], F.layer_norm(states[-1], (WIDTH,), tensors[f"{norm}.weight"], tensors[f"{norm}.bias"], 1e-6)]


def random_tensors(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def blocks(*attention, norm="norm"):
    """Shapes of the blocks' tensors, with these of the attention's biases."""
    own = {
        "norm1.weight": (WIDTH,), "norm1.bias": (WIDTH,), "attn.qkv.weight": (3 * WIDTH, WIDTH),
        "attn.proj.weight": (WIDTH, WIDTH), "attn.proj.bias": (WIDTH,),
        "norm2.weight": (WIDTH,), "norm2.bias": (WIDTH,),
        "mlp.fc1.weight": (4 * WIDTH, WIDTH), "mlp.fc1.bias": (4 * WIDTH,),
        "mlp.fc2.weight": (WIDTH, 4 * WIDTH), "mlp.fc2.bias": (WIDTH,),
    } | dict(attention)  # fmt: skip
    every = {f"blocks.{i}.{name}": shape for i in range(DEPTH) for name, shape in own.items()}
    return every | {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}


@dataclass
class Upstream:
    """What a family publishes (its tensors, and the file's layout around them) and what its code makes of a clip."""

    name: str
    shapes: dict[str, tuple[int, ...]]
    file: Any
    layers: Any
    least: int
    size: int = WIDTH
    tensors: dict[str, Any] = field(init=False)

    def __post_init__(self):
        self.tensors = random_tensors(self.shapes)
        if "init_bn.running_var" in self.tensors:
            self.tensors["init_bn.running_var"] = self.tensors["init_bn.running_var"].abs() + 1
            self.tensors["init_bn.num_batches_tracked"] = torch.tensor(1)


def ced_layers(tensors, clip):
    """feature_extraction_ced.py:113-123, 163-165 (a spectrum no deeper than 120 dB); modeling_ced.py:399-425: norm of
    each band, patches of 16 by 16, positions in time and in frequency, tokens (f t)."""
    mel = transforms.MelSpectrogram(16000, n_fft=512, win_length=512, hop_length=160, n_mels=64, f_min=0, f_max=None)
    x = transforms.AmplitudeToDB(top_db=120)(mel(clip[None]))[0]
    own = [tensors[f"init_bn.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
    x = F.batch_norm(x[None], *own)[:, None]
    x = F.conv2d(x, tensors["patch_embed.proj.weight"], tensors["patch_embed.proj.bias"], stride=16)
    x = x + tensors["time_pos_embed"][..., : x.shape[-1]] + tensors["freq_pos_embed"]
    states = through(tensors, x.flatten(2)[0].T)
    return [state.unflatten(0, (4, -1)).mean(0) for state in states]


def atst_spectrum(clip):
    """methods/atst/downstream/transform.py:11-22, methods/atstframe/embedding.py:12-15."""
    mel = transforms.MelSpectrogram(16000, f_min=60, f_max=7800, hop_length=160, win_length=1024, n_fft=1024, n_mels=64)
    x = transforms.AmplitudeToDB(stype="power", top_db=80)(mel(clip[None]))
    return (x + 79.6482) / (50.6842 + 79.6482) * 2.0 - 1.0


def atst_patches(tensors, clip):
    """PatchEmbed_v2, models/atst/audio_transformer.py:56-75: 'b c (h p1) (w p2) -> b (w h) (p1 p2 c)', 64 by 4."""
    x = atst_spectrum(clip)[0]
    x = x[:, : x.shape[1] // 4 * 4].unflatten(1, (-1, 4)).permute(1, 0, 2).flatten(1)
    return F.linear(x, tensors["patch_embed.patch_embed.weight"], tensors["patch_embed.patch_embed.bias"])


def clip_layers(tensors, clip):
    """models/atst/audio_transformer.py:153-188: a class token before, positions cut; 235-255."""
    x = torch.cat([tensors["cls_token"][0], atst_patches(tensors, clip)])
    return [state[1:] for state in through(tensors, x + tensors["pos_embed"][0, : len(x)])]


def frame_layers(tensors, clip):
    """methods/atstframe/audio_transformer.py:161-181 (positions from the second), 259-281."""
    x = atst_patches(tensors, clip)
    return through(tensors, x + tensors["pos_embed"][0, 1 : len(x) + 1], norm="norm_frame")


def msm_layers(tensors, clip):
    """msm_mae/runtime.py:116-128, 137-191 on one window: the batch's norm, zeros up to 512 spectra, tokens (f t) with a
    class token before, laid side by side; forward_encoder of patch_msm_mae.diff."""
    librosa = pytest.importorskip("librosa")
    mel = librosa.feature.melspectrogram(
        y=clip.numpy(), sr=16000, n_fft=400, hop_length=160, n_mels=80, fmin=50, fmax=8000, pad_mode="reflect"
    )
    x = (torch.from_numpy(mel) + EPS).log()
    x = (x - x.mean()) / x.std()
    count = math.ceil(x.shape[1] / 16)
    x = F.pad(x, (0, 512 - x.shape[1]))[None, None]
    x = F.conv2d(x, tensors["patch_embed.proj.weight"], tensors["patch_embed.proj.bias"], stride=16)
    x = x.flatten(2)[0].T + tensors["pos_embed"][0, 1:]
    x = torch.cat([tensors["cls_token"][0] + tensors["pos_embed"][0, :1], x])
    states = [state[1:].unflatten(0, (5, 32)) for state in through(tensors, x)]
    return [state.transpose(0, 1).flatten(1)[:count] for state in states]


def teacher(tensors):
    """base.ckpt: trainers' arguments, numpy's numbers and a head beside the encoder."""
    import argparse

    own = {f"module.backbone.{name}": each for name, each in tensors.items()} | {"module.head.x": torch.zeros(1)}
    return {"teacher": own, "student": {}, "args": argparse.Namespace(arch="ast_base"), "loss": np.float64(0.5)}


def lightning(tensors):
    own = {f"model.teacher.encoder.{name}": each for name, each in tensors.items()}
    return {"state_dict": own | {"model.student.x": torch.zeros(1)}, "hyper_parameters": {"arch": "base"}}


CED = {f"init_bn.{part}": (64,) for part in ("weight", "bias", "running_mean", "running_var")} | {
    "time_pos_embed": (1, WIDTH, 1, 63), "freq_pos_embed": (1, WIDTH, 4, 1),
    "patch_embed.proj.weight": (WIDTH, 1, 16, 16), "patch_embed.proj.bias": (WIDTH,),
}  # fmt: skip
ATST = {
    "mask_embed": (1, 1, WIDTH), "pos_embed": (1, 251, WIDTH),
    "patch_embed.patch_embed.weight": (WIDTH, 256), "patch_embed.patch_embed.bias": (WIDTH,),
}  # fmt: skip
MSM = {
    "cls_token": (1, 1, WIDTH), "pos_embed": (1, 161, WIDTH), "mask_token": (1, 1, 8),
    "decoder_embed.weight": (8, WIDTH),
    "patch_embed.proj.weight": (WIDTH, 1, 16, 16), "patch_embed.proj.bias": (WIDTH,),
}  # fmt: skip
UPSTREAM = {
    each.name: each
    for each in (
        Upstream("ced-base", CED | blocks(("attn.qkv.bias", (3 * WIDTH,))), None, ced_layers, 2400),
        Upstream("atst-clip", ATST | blocks() | {"cls_token": (1, 1, WIDTH)}, teacher, clip_layers, 513),
        Upstream("atst-frame", ATST | blocks(norm="norm_frame"), lightning, frame_layers, 513),
        Upstream(
            "msm-mae", MSM | blocks(("attn.q_bias", (WIDTH,)), ("attn.v_bias", (WIDTH,))),
            lambda tensors: {"model": tensors}, msm_layers, 201, size=5 * WIDTH,
        ),
    )
}  # fmt: skip


@pytest.fixture(name="publish")
def publisher(tmp_path, monkeypatch):
    """A function that puts a family's file where it is looked for, and gives the entry that finds it there."""
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path))
    monkeypatch.setenv("EARMARK_WEIGHTS", str(tmp_path / "weights"))

    def put(name, tensors=None):
        from safetensors.torch import save_file

        row, upstream = catalogue()[name], UPSTREAM[name]
        tensors = upstream.tensors if tensors is None else tensors
        kept = {"info": row.info.model_copy(update={"latent_kinds": KINDS}), "options": {"heads": HEADS}}
        if row.checkpoint:
            folder = tmp_path / "hub" / f"models--{row.checkpoint.repo.replace('/', '--')}" / "snapshots" / REVISION
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.json").write_text("{}")
            save_file({f"encoder.{each}": tensors[each] for each in tensors}, folder / "model.safetensors")
            return row.model_copy(
                update=kept | {"checkpoint": row.checkpoint.model_copy(update={"revision": REVISION})}
            )
        (file,) = row.weights.files
        path = tmp_path / "weights" / row.weights.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(upstream.file(tensors), path)
        return row.model_copy(update=kept | {"weights": row.weights.model_copy(update={"files": {file: None}})})

    return put
