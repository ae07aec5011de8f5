"""Modules in the form of HEAR and classes in that of X-ARES, loaded as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from earmark.codecs import calls, registry

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from earmark.tests.thin_encoders import embed, noise  # noqa: E402 (a fixture)

HEAR_MODULE = '''
import torch

class Model(torch.nn.Module):
    sample_rate, scene_embedding_size, timestamp_embedding_size = {rate}, 3, 4

    def __init__(self, gain):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((1, 4), gain))

def load_model(model_file_path="", gain=2.0):
    return Model(gain)

def get_timestamp_embeddings(audio, model):
    """Energies of hops of 50 ms, centred."""
    hops = torch.nn.functional.pad(audio, (0, -audio.shape[1] % 400)).unflatten(1, (-1, 400))
    times = (torch.arange(hops.shape[1]) * {hop_ms} + 25.0).expand(len(audio), -1)
    return hops.square().mean(2, keepdim=True) * model.weight, times

def get_scene_embeddings(audio, model):
    return get_timestamp_embeddings(audio, model)[0].mean(1)[:, :3]
'''

XARES_MODULE = '''
import torch

class MeanEncoder(torch.nn.Module):
    def __init__(self, channels=2):
        super().__init__()
        self.sampling_rate, self.output_dim, self.hop_size_in_ms = 8000, {said}, 40
        self.register_buffer("gain", torch.arange(1.0, channels + 1))

    def forward(self, audio):
        """Means of hops of 40 ms, the last not whole."""
        hops = torch.nn.functional.pad(audio, (0, -audio.shape[-1] % 320)).unflatten(-1, (-1, 320))
        return hops.mean(-1, keepdim=True) * self.gain

class Bare(torch.nn.Module):
    pass
'''

OWN_FILE = """
from earmark.codecs.hear import Hear, HearScene, Xares
Energy = Hear.of("{hear}", name="energy", sample_rate=8000, frame_rate=20, options={{"gain": 3.0}}, domains=("speech",))
Scene = HearScene.of("{hear}", name="scene", sample_rate=8000)
Rateless = Hear.of("{hear}", name="rateless", sample_rate=8000)
Mean = Xares.of("{xares}:MeanEncoder", name="mean", sample_rate=8000, frame_rate=25)
Slow = Xares.of("{xares}:MeanEncoder", name="slow", sample_rate=8000, frame_rate=20)
Wide = Xares.of("{xares}:MeanEncoder", name="wide", sample_rate=16000, frame_rate=25)
Bare = Xares.of("{xares}:Bare", name="bare", sample_rate=16000, frame_rate=25)
Classless = Xares.of("{xares}", name="classless", sample_rate=16000, frame_rate=25)
"""

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def own(tmp_path, monkeypatch, request):
    """A function that writes a user's files and finds what they name; every test has modules of its own."""
    monkeypatch.syspath_prepend(str(tmp_path))
    tag = re.sub(r"\W+", "_", request.node.name)

    def entry(name, *, rate=8000, hop_ms=50.0, said=2):
        hear, xares, file = f"hear_{tag}", f"xares_{tag}", f"own_{tag}"
        Path(tmp_path, f"{hear}.py").write_text(HEAR_MODULE.format(rate=rate, hop_ms=hop_ms))
        Path(tmp_path, f"{xares}.py").write_text(XARES_MODULE.format(said=said))
        Path(tmp_path, f"{file}.py").write_text(OWN_FILE.format(hear=hear, xares=xares))
        return registry.find(f"{file}:{name}")

    return entry


def test_a_hear_module_loads_as_it_is(own):
    entry = own("Energy")
    assert (entry.name, entry.info.capabilities, entry.info.domains) == ("energy", ("embed",), ("speech",))
    assert entry.info.latent_kinds == ("unquantized",)
    adapter = registry.load(entry, "cpu")
    clip = torch.cat([torch.full((400,), 0.5), torch.full((400,), 1.0), torch.zeros(100)])
    found, frames = embed(adapter, clip)
    # energies 1/4, 1 and 0, times the gain of 3
    assert frames.tolist() == [3]
    assert found[0].tolist() == [[0.75, 3.0, 0.0]] * 4
    assert not adapter.model.weight.requires_grad


def test_the_scene_of_a_hear_module_is_one_embedding_a_clip(own):
    entry = own("Scene")
    assert entry.info.frame_rate is None
    clip = torch.cat([torch.full((400,), 0.5), torch.full((400,), 1.0), torch.zeros(100)])
    found, frames = embed(registry.load(entry, "cpu"), clip)
    # the mean of 1/4, 1 and 0, times the gain of 2
    assert frames.tolist() == [1]
    assert found[0].flatten().tolist() == pytest.approx([5 / 6] * 3)


def test_an_xares_encoder_loads_as_it_is(own):
    adapter = registry.load(own("Mean"), "cpu")
    clip = torch.cat([torch.full((320,), 0.5), torch.full((320,), 0.25), torch.full((160,), 1.0)])
    found, frames = embed(adapter, clip)
    # means, the last half of zeros, times the gains of 1 and 2
    assert frames.tolist() == [3]
    assert found[0].tolist() == [[0.5, 0.25, 0.5], [1.0, 0.5, 1.0]]


@pytest.mark.parametrize("name", ["Energy", "Scene", "Mean"])
def test_such_an_encoder_hears_one_clip_at_a_time(own, name):
    entry = own(name)
    adapter, clips = registry.load(entry, "cpu"), [noise(length) for length in (1000, 4000, 1)]
    together, frames = embed(adapter, *clips, beyond=1.0)
    for found, count, clip in zip(together, frames.tolist(), clips, strict=True):
        assert torch.equal(found[:, :count], embed(adapter, clip)[0][0])
    with pytest.raises(calls.CodecError, match="has no latents 'quantized', only"):
        embed(adapter, noise(500), kind="quantized")


@pytest.mark.parametrize("name", ["Energy", "Mean"])
def test_its_source_and_its_weights_are_in_its_fingerprint(own, name, tmp_path):
    from earmark.store.fingerprint import of_adapter

    def fingerprint():
        return of_adapter(entry, adapter)

    entry = own(name)
    adapter = registry.load(entry, "cpu")
    before = fingerprint()
    assert before is not None
    assert registry.load(entry, "cpu").source == adapter.source
    next(iter(adapter.model.state_dict().values())).mul_(2)
    assert fingerprint() not in (None, before)
    next(iter(adapter.model.state_dict().values())).div_(2)
    assert fingerprint() == before
    for path in tmp_path.glob("*ares_*.py" if name == "Mean" else "hear_*.py"):
        path.write_text(path.read_text() + "\n# changed")
    assert registry.load(entry, "cpu").source != adapter.source


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Slow", "slow: the frame rate is said to be 20.0, .*:MeanEncoder has 25"),
        ("Wide", "wide: the sample rate is said to be 16000, .* has 8000"),
        ("Bare", "bare: .*:Bare has no sampling_rate and no output_dim and no hop_size_in_ms"),
        ("Classless", "classless: .* names no class; expected package.module:Class"),
    ],
)
def test_an_xares_encoder_that_is_not_as_said_is_refused(own, name, message):
    with pytest.raises(ValueError, match=message):
        registry.load(own(name), "cpu")


def test_an_xares_encoder_of_another_size_than_it_says_fails(own):
    adapter = registry.load(own("Mean", said=5), "cpu")
    with pytest.raises(calls.CodecError, match="returned embeddings of 2, it says 5"):
        embed(adapter, noise(4000))


def test_a_hear_module_at_another_rate_is_refused(own):
    with pytest.raises(ValueError, match=r"energy: the sample rate is said to be 8000, .* has 16000"):
        registry.load(own("Energy", rate=16000), "cpu")


def test_a_hear_module_with_other_timestamps_fails(own):
    adapter = registry.load(own("Energy", hop_ms=100.0), "cpu")
    with pytest.raises(calls.CodecError, match=r"energy: the frame rate is said to be 20.0, .* has 10"):
        embed(adapter, noise(4000))
    adapter = registry.load(own("Rateless"), "cpu")
    with pytest.raises(calls.CodecError, match=r"rateless: the frame rate is said to be None, .* has 10"):
        embed(adapter, noise(4000))
