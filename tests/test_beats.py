"""BEATs against a stand-in for the checkout's module, and the checkout itself.

`MODULE` has the names and the shapes of beats/BEATs.py (127-172) and beats/backbone.py (140-175) of
github.com/microsoft/unilm at 768a3c87: layers that give (x, z, position bias) of [T, B, D], and a random number drawn
for each. On the real module the adapter was compared by hand (codecs/catalogue/encoders_more.yaml). What is not tried
here: the real module, the real weights.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from earmark.codecs import registry
from earmark.codecs.checkout import Checkout
from earmark.codecs.registry import catalogue
from earmark.contract import check

torch = pytest.importorskip("torch")
pytest.importorskip("torchaudio")

from earmark.tests.published_vits import ASKED, KINDS  # noqa: E402
from earmark.tests.thin_encoders import embed, noise  # noqa: E402 (a fixture)

MODULE = """
import numpy as np
import torch
import torchaudio.compliance.kaldi as kaldi

class BEATsConfig:
    def __init__(self, cfg):
        self.__dict__.update(cfg)

class Layer(torch.nn.Linear):
    def forward(self, x, pos_bias=None):
        return x + super().forward(x.mean(0, keepdim=True)).tanh(), None, pos_bias

class Encoder(torch.nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.layers = torch.nn.ModuleList(Layer(cfg.width, cfg.width) for _ in range(cfg.encoder_layers))

    def forward(self, x):
        x, bias = x.transpose(0, 1), None
        for layer in self.layers:
            np.random.random()
            x, z, bias = layer(x, pos_bias=bias)
        return x.transpose(0, 1), []

class BEATs(torch.nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg, size = cfg, cfg.input_patch_size
        self.patch_embedding = torch.nn.Conv2d(1, cfg.width, kernel_size=size, stride=size, bias=False)
        self.encoder = Encoder(cfg)

    def extract_features(self, source, padding_mask=None):
        options = {"num_mel_bins": 128, "sample_frequency": 16000, "frame_length": 25, "frame_shift": 10}
        fbanks = [kaldi.fbank(wav[None] * 2**15, **options) for wav in source]
        fbank = (torch.stack(fbanks) - 15.41663) / (2 * 6.55582)
        x = self.patch_embedding(fbank[:, None])
        x = x.reshape(*x.shape[:2], -1).transpose(1, 2)
        return self.encoder(x)[0], padding_mask
"""
CONFIG = {"width": 6, "encoder_layers": 2, "input_patch_size": 16}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The stand-in, importable as BEATs."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "BEATs.py").write_text(MODULE)
    for name in ("backbone.py", "modules.py"):
        (tmp_path / "code" / name).touch()
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    monkeypatch.delitem(sys.modules, "BEATs", raising=False)
    import BEATs

    yield BEATs
    sys.modules.pop("BEATs", None)


@pytest.fixture
def entry(module, tmp_path, monkeypatch):
    """The catalogue's row on a file of random tensors, and the network that they are of."""
    monkeypatch.setenv("EARMARK_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path / "home"))
    torch.manual_seed(0)
    network, row = module.BEATs(module.BEATsConfig(CONFIG)).eval(), catalogue()["beats-iter3-plus"]
    (file,) = row.weights.files
    (tmp_path / "beats").mkdir()
    torch.save({"cfg": CONFIG, "model": network.state_dict()}, tmp_path / "beats" / file)
    info, weights = row.info.model_copy(update={"latent_kinds": KINDS}), {"files": {file: None}}
    return row.model_copy(update={"info": info, "weights": row.weights.model_copy(update=weights)}), network


def test_its_frames_are_the_means_of_the_patches_of_a_time(entry):
    row, network = entry
    adapter, clip = registry.load(row, "cpu"), noise(16077)
    with torch.inference_mode():
        patches, _ = network.extract_features(clip[None], padding_mask=torch.zeros(1, len(clip)).bool())
    expected = patches[0].reshape(-1, 8, 6).mean(1)  # from low to high, then the next time
    for kind in ("layer:2", "unquantized"):
        torch.testing.assert_close(embed(adapter, clip, kind=kind)[0][0].T, expected)
    with torch.inference_mode():
        one = network.encoder.layers[0](embedded(network, clip).transpose(0, 1))[0].transpose(0, 1)
    for kind, states in (("layer:0", embedded(network, clip)), ("layer:1", one)):
        torch.testing.assert_close(embed(adapter, clip, kind=kind)[0][0].T, states[0].reshape(-1, 8, 6).mean(1))


def embedded(network, clip):
    """What enters the first layer, [1, T, D]: `extract_features` of a network without layers."""
    layers, network.encoder.layers = network.encoder.layers, torch.nn.ModuleList()
    with torch.inference_mode():
        found, _ = network.extract_features(clip[None])
    network.encoder.layers = layers
    return found


@pytest.mark.parametrize("length", [1, 2799, 2800, 5359, 5360, 16000])
def test_frames_are_as_the_docstring_says(entry, length):
    found, frames = embed(registry.load(entry[0], "cpu"), noise(length))
    assert frames.tolist() == [((max(length, 2800) - 400) // 160 + 1) // 16]
    assert found.shape == (1, 6, frames[0])


def test_it_keeps_the_contract(entry):
    assert {result.message for result in check(entry[0], only=ASKED) if result.verdict != "passed"} == set()


def test_the_numbers_that_the_network_draws_are_given_back(entry):
    adapter = registry.load(entry[0], "cpu")
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    embed(adapter, noise(4000))
    assert (np.random.get_state()[1] == before).all()
    assert np.random.get_state()[2] == 624


# The checkout.


@pytest.fixture
def upstream(tmp_path, monkeypatch):
    """A repository with a module in a folder of its own, two commits old; this home has no checkout of it."""
    folder = tmp_path / "toy"
    (folder / "part").mkdir(parents=True)

    def git(*words):
        identity = ["-c", "user.name=x", "-c", "user.email=x@x.org", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", "-C", folder, *identity, *words], check=True, capture_output=True, text=True
        ).stdout

    git("init", "-q")
    for number in ("1", "2"):
        (folder / "part" / "toymodule.py").write_text(f"number = {number}\n")
        git("add", "-A")
        git("commit", "-qm", number)
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("EARMARK_WEIGHTS", raising=False)
    commit = git("rev-parse", "HEAD~1").strip()
    return Checkout(url=folder.as_uri(), commit=commit, path="part", files=("toymodule.py",))


def test_the_command_brings_the_commit_and_its_folder_alone_is_on_the_path(upstream):
    assert upstream.find() is None
    subprocess.run(upstream.command, shell=True, check=True, capture_output=True)
    with upstream.importable() as folder:
        import toymodule
    assert folder.name == "part"
    assert toymodule.number == 1  # the commit's, not the newest
    assert "toymodule" not in sys.modules


def test_a_codec_without_its_checkout_says_one_command_for_code_and_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path))
    monkeypatch.delenv("EARMARK_WEIGHTS", raising=False)
    row = catalogue()["beats-iter3-plus"]
    status = registry.status(row)
    assert status.reason == "package missing"
    assert status.command == f"{row.checkout.command} && {row.weights.command}"
