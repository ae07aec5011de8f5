"""Dasheng, where its package is installed (pip install dasheng), with random weights."""

from __future__ import annotations

import pytest

from earmark.codecs.contract import Info
from earmark.codecs.pretrained import WeightsMissing
from earmark.codecs.registry import catalogue

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from earmark.tests.thin_encoders import REVISION, embed, noise  # noqa: E402 (a fixture)

DASHENG = {"embed_dim": 16, "depth": 2, "num_heads": 2}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def dasheng(tmp_path, monkeypatch):
    """The authors' network with random weights, what loads the adapter from a cache that holds it, and its folder."""
    network = pytest.importorskip("dasheng.pretrained.pretrained").Dasheng
    from safetensors.torch import save_file

    from earmark.codecs.dasheng import Dasheng

    torch.manual_seed(0)
    model = network(**DASHENG).eval()
    snapshot = tmp_path / "hub" / "models--org--dasheng" / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    named = {f"encoder.{key}": part for key, part in model.state_dict().items() if not key.startswith("front_end")}
    save_file(named | {"outputlayer.weight": torch.zeros(2)}, snapshot / "model.safetensors")
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path))
    kinds = ("layer:0", "layer:1", "layer:2", "unquantized")
    info = Info(name="thin-dasheng", sample_rate=16000, frame_rate=25, latent_kinds=kinds)
    return model, lambda: Dasheng(info, "cpu", repo="org/dasheng", revision=REVISION, size=DASHENG), snapshot


def test_dasheng_is_its_package_s(dasheng):
    model, load, _ = dasheng
    adapter, clip = load(), noise(25 * 16000 + 77)  # three pieces
    with torch.inference_mode():
        expected = model(clip[None])
    for kind in ("unquantized", "layer:2"):
        found, frames = embed(adapter, clip, kind=kind)
        assert torch.equal(found[0].T, expected[0])
        assert frames.tolist() == [625]
    with torch.inference_mode():
        patches = model.patch_embed(model.forward_to_spec(clip[None]))[..., :252]
        entered = (patches + model.time_pos_embed + model.freq_pos_embed)[0, :, 0].T
        through = model.blocks[0](entered[None])[0]
    torch.testing.assert_close(embed(adapter, clip, kind="layer:0")[0][0, :, :252].T, entered)
    torch.testing.assert_close(embed(adapter, clip, kind="layer:1")[0][0, :, :252].T, through)


@pytest.mark.parametrize(
    "length", [1, 256, 479, 480, 639, 640, 1119, 1120, 16000, 10 * 16000 + 1280, 10 * 16000 + 1281]
)
def test_dasheng_frames(dasheng, length):
    found, frames = embed(dasheng[1](), noise(length))
    assert frames.tolist() == [(max(length, 480) // 160 + 1) // 4]
    assert found.shape == (1, 16, frames[0])
    assert bool(torch.isfinite(found).all())


def test_dasheng_hears_each_clip_alone(dasheng):
    adapter, clips = dasheng[1](), [noise(length, seed) for seed, length in enumerate((9000, 24000, 100))]
    together, frames = embed(adapter, *clips, beyond=1.0)
    for found, count, clip in zip(together, frames.tolist(), clips, strict=True):
        assert torch.equal(found[:, :count], embed(adapter, clip)[0][0])


def test_dasheng_s_weights_must_be_whole(dasheng):
    from safetensors.torch import load_file, save_file

    _, load, snapshot = dasheng
    tensors = load_file(snapshot / "model.safetensors")
    del tensors["encoder.norm.weight"]
    save_file(tensors, snapshot / "model.safetensors")
    with pytest.raises(ValueError, match=r"lacks 1 tensors of Dasheng and has 0 too many, such as norm.weight"):
        load()
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(WeightsMissing, match=f"hf download org/dasheng --revision {REVISION}"):
        load()


@pytest.mark.parametrize(("name", "depth"), [("dasheng-base", 12), ("dasheng-06b", 32)])
def test_dasheng_s_rows_have_its_layers(name, depth):
    """Sizes as in the package's own `dasheng_base` and `dasheng_06B`."""
    entry = catalogue()[name]
    assert entry.options["size"]["depth"] == depth
    assert entry.info.latent_kinds == (*(f"layer:{i}" for i in range(depth + 1)), "unquantized")
    assert entry.info.frame_rate == 16000 / (160 * 4)
