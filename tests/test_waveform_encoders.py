"""What only the encoders of the waveform do, on thin random models."""

from __future__ import annotations

import functools

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from earmark.tests.thin_encoders import THIN, build, cache_of_all, embed, loader, noise, put, repository  # noqa: E402, F401 (fixtures)  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", [name for name in THIN if "stable" in name])
def test_the_last_layer_is_normalised_where_the_library_lists_it_before(name, load):
    """`hidden_states[-1]` of such a model is not its `last_hidden_state`; the norm makes one of the other."""
    model, adapter, clip = repository(name), load(name), noise(8000)
    values = THIN[name].extractor()(clip.numpy(), sampling_rate=16000, return_tensors="pt").input_values
    with torch.inference_mode():
        made = model(values, output_hidden_states=True)
        normalised = model.encoder.layer_norm(made.hidden_states[-1])
    found, _ = embed(adapter, clip, kind="layer:2")
    torch.testing.assert_close(found[0].T, normalised[0], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found[0].T, made.hidden_states[-1][0], atol=1e-2)


def test_a_level_and_an_offset_are_taken_out_where_the_checkpoint_says_so(load):
    clip = noise(8000)
    for name, same in {"hubert": True, "wavlm": False}.items():
        adapter = load(name)
        plain, other = embed(adapter, clip)[0], embed(adapter, 0.25 * clip + 0.3)[0]
        assert torch.allclose(plain, other, atol=1e-3) is same


@pytest.mark.parametrize("name", ["hubert", "wavlm-stable", "data2vec"])
def test_a_repository_of_the_time_before_safetensors_is_read(name, tmp_path, monkeypatch, load):
    """As HuBERT's and WavLM's are: pytorch_model.bin, with weight normalisation under its old names."""
    expected = embed(load(name), noise(9000))[0]
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path))
    snapshot = put(name, tmp_path / "hub")
    (snapshot / "model.safetensors").unlink()
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    tensors = {}
    for key, tensor in repository(name).state_dict().items():
        tensors[functools.reduce(lambda done, new: done.replace(new, old[new]), old, key)] = tensor.clone()
    torch.save(tensors, snapshot / "pytorch_model.bin")
    assert torch.equal(embed(build(name, revision=None), noise(9000))[0], expected)
