"""BYOL-A and BYOL-S on random tensors under their published names, against what their released code does.

`frames_by_hand` says in a few lines what the released networks compute, with the places in them; on the released code
itself the adapters were compared by hand (codecs/catalogue/encoders_more.yaml). BYOL-A's spectrum, nnAudio's upstream,
is held against librosa's, whose filters nnAudio takes. What is not tried here: the real weights.
"""

from __future__ import annotations

import pytest

from earmark.codecs import registry
from earmark.codecs.contract import capabilities_of
from earmark.codecs.registry import catalogue
from earmark.contract import check

torch = pytest.importorskip("torch")
transforms = pytest.importorskip("torchaudio.transforms")

from torch.nn import functional as F  # noqa: E402, N812 (as all call it)

from earmark.tests.published_vits import ASKED  # noqa: E402
from earmark.tests.thin_encoders import embed, noise  # noqa: E402 (a fixture)

EPS = torch.finfo(torch.float32).eps
STAGES, LEAST, PREFIX = {"byol-a": 2, "byol-s": 3}, {"byol-a": 513, "byol-s": 1120}, {"byol-a": "model.", "byol-s": ""}
every = pytest.mark.parametrize("name", STAGES)

pytestmark = pytest.mark.usefixtures("one_thread")


def tensors_of(name, channels=8, wide=12):
    """Random tensors with the published names and thin shapes."""
    generator, bands, shapes = torch.Generator().manual_seed(0), 64 // 2 ** STAGES[name], {}
    for stage in range(STAGES[name]):
        first = 4 * stage
        shapes[f"features.{first}.weight"] = (channels, 1 if stage == 0 else channels, 3, 3)
        shapes |= {f"features.{first}.bias": (channels,)}
        shapes |= {
            f"features.{first + 1}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")
        }
    shapes |= {
        "fc.0.weight": (wide, channels * bands),
        "fc.0.bias": (wide,),
        "fc.3.weight": (wide, wide),
        "fc.3.bias": (wide,),
    }
    made = {key: 0.3 * torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    made = {key: each.abs() + 0.5 if key.endswith("running_var") else each for key, each in made.items()}
    return made | {f"features.{4 * i + 1}.num_batches_tracked": torch.tensor(1) for i in range(STAGES[name])}


@pytest.fixture
def load(tmp_path, monkeypatch):
    """A function that builds the adapter of the catalogue's row on a file of such tensors."""
    monkeypatch.setenv("EARMARK_WEIGHTS", str(tmp_path))

    def entry(name, tensors=None):
        row = catalogue()[name]
        (file,) = row.weights.files
        (tmp_path / row.weights.folder).mkdir(exist_ok=True)
        named = {PREFIX[name] + key: each for key, each in (tensors or tensors_of(name)).items()}
        torch.save(named, tmp_path / row.weights.folder / file)
        return row.model_copy(update={"weights": row.weights.model_copy(update={"files": {file: None}})})

    return entry


def log_mel(name, clip):
    """v2/README.md:84-94 with v2/config_v2.yaml; serab_byols/serab.py:201-210 with config.yaml, and utils.py:14-25."""
    if name == "byol-a":
        librosa = pytest.importorskip("librosa")
        mel = librosa.feature.melspectrogram(
            y=clip.numpy(), sr=16000, n_fft=1024, hop_length=160, n_mels=64, fmin=60, fmax=7800, pad_mode="reflect"
        )
        return ((torch.from_numpy(mel) + EPS).log() + 9.660292) / 4.7219563
    mel = transforms.MelSpectrogram(
        sample_rate=16000, n_fft=1024, win_length=400, hop_length=160, n_mels=64, f_min=60, f_max=7800
    )
    x = (mel(clip) + EPS).log()
    return (x - x.mean()) / x.std()


def frames_by_hand(name, clip):
    """v2/byol_a2/models.py:87-94; byol_a/models/audio_ntt.py:35-41."""
    tensors, x = tensors_of(name), log_mel(name, clip)[None, None]
    for i in range(0, 4 * STAGES[name], 4):
        x = F.conv2d(x, tensors[f"features.{i}.weight"], tensors[f"features.{i}.bias"], padding=1)
        own = [tensors[f"features.{i + 1}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        x = F.max_pool2d(F.batch_norm(x, *own).relu(), 2, stride=2)
    x = x.permute(0, 3, 2, 1)[0].flatten(1)  # [T, bands x channels]
    y = F.linear(x, tensors["fc.0.weight"], tensors["fc.0.bias"]).relu()
    y = F.linear(y, tensors["fc.3.weight"], tensors["fc.3.bias"]).relu()
    return torch.hstack([x, y]) if name == "byol-a" else y


@every
@pytest.mark.filterwarnings("ignore:n_fft=1024 is too large")
def test_its_frames_are_upstream_s(name, load):
    adapter = registry.load(load(name), "cpu")
    for length in (LEAST[name], 16077, 100000):
        found, _ = embed(adapter, noise(length))
        torch.testing.assert_close(found[0].T, frames_by_hand(name, noise(length)), rtol=1e-4, atol=1e-4)
    assert found.std() > 0.1


@every
@pytest.mark.parametrize("length", [1, 512, 513, 639, 640, 1119, 1120, 1279, 1280, 33333])
def test_frames_are_as_the_docstring_says(name, length, load):
    found, frames = embed(registry.load(load(name), "cpu"), noise(length))
    assert frames.tolist() == [(max(length, LEAST[name]) // 160 + 1) // 2 ** STAGES[name]]
    assert bool(torch.isfinite(found).all())


@every
def test_it_keeps_the_contract(name, load):
    assert {result.message for result in check(load(name), only=ASKED) if result.verdict != "passed"} == set()


@every
def test_a_file_that_lacks_a_tensor_is_refused(name, load):
    tensors = tensors_of(name)
    del tensors["features.5.running_mean"], tensors["features.1.bias"]
    with pytest.raises(RuntimeError, match=r"features\.1\.bias"):
        registry.load(load(name, tensors), "cpu")


def test_level_matters_to_byol_a_and_not_to_byol_s(load):
    """BYOL-S takes the mean out of each clip's log spectrum; BYOL-A is given the data's."""
    clip = noise(16000)
    for name, same in {"byol-a": False, "byol-s": True}.items():
        adapter = registry.load(load(name), "cpu")
        assert torch.allclose(embed(adapter, clip)[0], embed(adapter, 0.5 * clip)[0], atol=1e-2) is same


@every
def test_a_row_says_what_its_network_is(name):
    row = catalogue()[name]
    assert row.info.latent_kinds == ("unquantized",)
    assert set(row.info.capabilities) == set(capabilities_of(registry._import_adapter(row.adapter))) == {"embed"}
    assert row.info.frame_rate == 100 / 2 ** STAGES[name]
    assert (row.proved, row.info.sample_rate) == ("stub", 16000)
