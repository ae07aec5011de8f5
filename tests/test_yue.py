"""YuE's codec: upstream's checkpoint in the library's X-Codec, on a thin random model (not the real weights)."""

import pytest

from earmark.codecs import calls, registry
from earmark.codecs.contract import Info
from earmark.codecs.registry import catalogue

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from earmark.codecs import yue  # noqa: E402

INFO = Info(name="thin-yue", sample_rate=16000, frame_rate=50, codebook_sizes="12x64", nested=True)


def thin():
    """A random X-Codec with twelve codebooks (bandwidths of 6 bits a token), its codebooks filled."""
    torch.manual_seed(0)
    hubert = transformers.HubertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    dac = {
        "encoder_hidden_size": 4, "decoder_hidden_size": 64, "hidden_size": 16, "codebook_size": 64,
        "downsampling_ratios": [8, 5, 4, 2], "upsampling_ratios": [8, 5, 4, 2],
    }  # fmt: skip
    config = transformers.XcodecConfig(
        acoustic_model_config=transformers.DacConfig(**dac), semantic_model_config=hubert, codebook_size=64,
        target_bandwidths=(0.3, 0.6, 1.2, 3.6),
    )  # fmt: skip
    model = transformers.XcodecModel(config).eval().requires_grad_(False)
    for layer in model.quantizer.quantizers:
        layer.codebook.embed.normal_(std=0.05)
    return model


def upstream_file(model):
    """The model's tensors as upstream's file has them: its names, acoustic weights split in size and direction."""
    tensors = {}
    for name, tensor in model.state_dict().items():
        there = yue.upstream_name(name).replace("parametrizations.weight.original0", "weight_g")
        there = there.replace("parametrizations.weight.original1", "weight_v")
        if name.startswith("acoustic") and name.endswith("weight"):
            size = tensor.flatten(1).norm(dim=1).reshape(-1, 1, 1)
            tensors |= {f"{there}_g": size, f"{there}_v": 3 * tensor}  # the direction's own length does not count
        else:
            tensors[there] = tensor
    return {"codec_model": tensors, "epoch": 3}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a checkpoint of the thin model; `build` makes one with other weights."""
    torch.save(upstream_file(thin()), tmp_path / yue.FILE)

    def other():
        model = thin()
        for parameter in model.parameters():
            parameter.mul_(0.5)
        return model

    monkeypatch.setattr(yue, "build", other)
    return tmp_path


def test_the_checkpoint_becomes_the_model(folder):
    loaded, made = yue.Yue(INFO, "cpu", folder=folder), yue.Yue(INFO, "cpu", model=thin())
    wav, lengths = 0.1 * torch.randn(1, 1, 9000, generator=torch.Generator().manual_seed(1)), torch.tensor([9000])
    found, expected = calls.encode(loaded, INFO, wav, lengths, 0), calls.encode(made, INFO, wav, lengths, 0)
    assert found.frames.tolist() == [29]  # ceil(9000 / 320)
    assert torch.equal(found.codes, expected.codes)
    assert len(found.codes.unique()) > 20
    torch.testing.assert_close(loaded.decode(found, 0), made.decode(found, 0), rtol=0, atol=1e-6)
    assert loaded.decode(found, 0).shape[-1] == 29 * 320
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_a_file_that_lacks_a_tensor_is_refused(folder):
    tensors = upstream_file(thin())
    del tensors["codec_model"]["fc_post2.bias"]
    torch.save(tensors, folder / yue.FILE)
    with pytest.raises(ValueError, match=r"ckpt_00360000\.pth lacks 1 tensors of XcodecModel, such as fc_post2\.bias"):
        yue.Yue(INFO, "cpu", folder=folder)


# Names that upstream's own modules gave (see `yue.Yue`).
NAMES = {
    "acoustic_encoder.conv1.bias": "encoder.block.0.bias",
    "acoustic_encoder.block.3.conv1.weight": "encoder.block.4.block.4.weight",
    "acoustic_encoder.conv2.weight": "encoder.block.6.weight",
    "acoustic_decoder.block.0.conv_t1.weight": "decoder_2.model.1.block.1.weight",
    "acoustic_decoder.block.2.res_unit3.snake1.alpha": "decoder_2.model.3.block.4.block.0.alpha",
    "acoustic_decoder.conv2.bias": "decoder_2.model.6.bias",
    "encoder_semantic.conv.weight": "encoder_semantic.conv.conv.weight",
    "encoder_semantic.conv_blocks.0.res_units.0.conv1.weight": (
        "encoder_semantic.conv_blocks.0.res_units.0.conv1.conv.weight"
    ),
    "encoder_semantic.conv_blocks.0.res_units.0.conv2.weight": (
        "encoder_semantic.conv_blocks.0.res_units.0.conv2.weight"
    ),
    "decoder_semantic.conv2.weight": "decoder_semantic.conv2.conv.weight",
    "quantizer.quantizers.11.codebook.embed": "quantizer.vq.layers.11._codebook.embed",
    "fc1.weight": "fc_post1.weight",
    "semantic_model.encoder.layer_norm.weight": "semantic_model.encoder.layer_norm.weight",
}


def test_names_are_upstreams_and_no_two_the_same():
    assert {name: yue.upstream_name(name) for name in NAMES} == NAMES
    names = [yue.upstream_name(name) for name in thin().state_dict()]
    assert len(set(names)) == len(names)


def test_rows_and_the_network_agree():
    config = transformers.XcodecConfig(target_bandwidths=yue.BANDWIDTHS)
    rows = {name: entry for name, entry in catalogue().items() if entry.family == "yue"}
    assert {name: entry.info.bitrate_kbps for name, entry in rows.items()} == {"yue-8": 4, "yue-12": 6}
    assert config.num_quantizers == 12
    for entry in rows.values():
        assert (entry.info.sample_rate, entry.info.frame_rate) == (config.sample_rate, config.frame_rate)


def test_a_missing_checkpoint_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path))
    monkeypatch.delenv("EARMARK_WEIGHTS", raising=False)
    status = registry.status(catalogue()["yue-8"])
    assert not status.ready
    assert "m-a-p/xcodec_mini_infer/resolve/main/final_ckpt" in str(status)
    assert yue.FILE in str(status)
