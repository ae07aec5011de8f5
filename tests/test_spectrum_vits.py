"""CED, ATST and MSM-MAE, each on thin random tensors in its published layout, against what its released code does.

What is not tried here: the real weights.
"""

from __future__ import annotations

import itertools

import pytest

from earmark.codecs import registry
from earmark.codecs.contract import capabilities_of
from earmark.codecs.registry import Weights, catalogue
from earmark.contract import check
from earmark.store.fingerprint import of_row

torch = pytest.importorskip("torch")
pytest.importorskip("torchaudio")

from earmark.tests.published_vits import ASKED, KINDS, UPSTREAM, publisher  # noqa: E402, F401 (a fixture)
from earmark.tests.thin_encoders import embed, noise  # noqa: E402 (a fixture)

ROWS = {name: entry for name, entry in catalogue().items() if entry.adapter.startswith("earmark.codecs.spectrum_vits:")}
every = pytest.mark.parametrize("name", UPSTREAM)

pytestmark = pytest.mark.usefixtures("one_thread")


@every
@pytest.mark.filterwarnings("ignore:n_fft=400 is too large")  # librosa pads no shorter clip
def test_every_layer_is_upstream_s(name, publish):
    upstream, adapter = UPSTREAM[name], registry.load(publish(name), "cpu")
    for length in (upstream.least, 16077, 80000):
        clip = noise(length)
        expected = upstream.layers(upstream.tensors, clip)
        for kind, states in zip(KINDS, [*expected, expected[-1]], strict=True):
            found, frames = embed(adapter, clip, kind=kind)
            assert found.shape == (1, upstream.size, int(frames[0]))
            torch.testing.assert_close(found[0].T, states, rtol=1e-4, atol=1e-4)
    assert found.std() > 0.1


@every
def test_its_layers_differ_and_the_last_is_what_it_gives(name, publish):
    adapter, clip = registry.load(publish(name), "cpu"), noise(16000)
    found = [embed(adapter, clip, kind=kind)[0] for kind in KINDS]
    assert torch.equal(found[-1], found[-2])
    assert not any(torch.equal(one, other) for one, other in itertools.pairwise(found[:-1]))


def frames_of(name, length):
    """The law, by hand."""
    spectra = max(length, UPSTREAM[name].least) // 160 + 1
    if name == "msm-mae":
        return -(-spectra // 16)
    return spectra // (16 if name == "ced-base" else 4)


@every
@pytest.mark.parametrize(
    "length", [1, 200, 201, 512, 513, 639, 640, 2399, 2400, 2559, 2560, 96000, 96480, 161279, 162400]
)
def test_frames_are_as_the_docstring_says(name, length, publish):
    found, frames = embed(registry.load(publish(name), "cpu"), noise(length))
    assert frames.tolist() == [frames_of(name, length)]
    assert found.shape == (1, UPSTREAM[name].size, frames[0])
    assert bool(torch.isfinite(found).all())


@pytest.mark.parametrize(
    ("name", "spectra", "patch"), [("ced-base", 1008, 16), ("atst-clip", 600, 4), ("atst-frame", 1000, 4)]
)
def test_a_window_hears_its_own_spectra_only(name, spectra, patch, publish):
    """A change in the second window leaves the first as it was, and the frames go on without a gap."""
    adapter, clip = registry.load(publish(name), "cpu"), noise(250000)
    clip[8000:16000] = 3 * noise(8000)  # the peak, which the spectrum's depth is measured from, is in both
    other = clip.clone()
    other[spectra * 160 + 2000 :] *= 0.5
    (one, frames), (two, _) = embed(adapter, clip), embed(adapter, other)
    first = spectra // patch
    assert frames[0] > first
    assert torch.equal(one[..., :first], two[..., :first])
    assert not torch.equal(one[..., first:], two[..., first:])


@every
def test_it_keeps_the_contract(name, publish):
    results = check(publish(name), only=ASKED)
    assert {result.message for result in results if result.verdict != "passed"} == set()


@every
def test_a_file_that_lacks_a_tensor_or_has_one_too_many_is_refused(name, publish):
    tensors = UPSTREAM[name].tensors
    fewer = {each: tensors[each] for each in tensors if each != "blocks.1.mlp.fc2.bias"}
    with pytest.raises(RuntimeError, match=r"Missing key.* \"blocks.1.linear2.bias\""):
        registry.load(publish(name, fewer), "cpu")
    with pytest.raises(RuntimeError, match=r"Unexpected key.* \"blocks.1.gamma\""):
        registry.load(publish(name, tensors | {"blocks.1.gamma": torch.ones(1)}), "cpu")


def test_code_in_a_file_is_not_run(publish, monkeypatch):
    class Planted:
        def __reduce__(self):
            return (print, ("run",))

    monkeypatch.setattr(UPSTREAM["atst-clip"], "file", lambda tensors: {"teacher": Planted()})
    with pytest.raises(Exception, match="print was not an allowed global"):
        registry.load(publish("atst-clip"), "cpu")


# The rows, and what they say of weights.


@pytest.mark.parametrize("name", ROWS)
def test_a_row_says_what_its_network_is(name):
    row = ROWS[name]
    assert row.info.latent_kinds == (*(f"layer:{i}" for i in range(13)), "unquantized")
    assert set(row.info.capabilities) == set(capabilities_of(registry._import_adapter(row.adapter))) == {"embed"}
    assert row.info.frame_rate == (25 if name.startswith("atst") else 6.25)
    assert row.options == {"heads": {"ced-small": 6, "ced-tiny": 3}.get(name, 12)}
    assert (row.proved, row.info.sample_rate) == ("stub", 16000)


@pytest.mark.parametrize("name", ["atst-clip", "atst-frame", "msm-mae", "byol-a", "byol-s", "beats-iter3-plus"])
def test_weights_that_are_missing_come_with_one_command(name, tmp_path, monkeypatch):
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path))
    monkeypatch.delenv("EARMARK_WEIGHTS", raising=False)
    row = catalogue()[name]
    status = registry.status(row)
    assert not status.ready
    assert status.command.endswith(row.weights.command)
    assert str(tmp_path / "weights" / row.weights.folder) in row.weights.command


def test_a_file_is_held_against_git_s_own_id_of_it(tmp_path, monkeypatch):
    """`git hash-object` gives ce013625... for the six bytes of 'hello' and a line's end."""
    monkeypatch.setenv("EARMARK_WEIGHTS", str(tmp_path))
    weights = Weights(folder=".", url="https://x.org", files={"a": "ce013625030ba8dba906f756967f9e9ca394464a"})
    (tmp_path / "a").write_text("hello\n")
    assert weights.verified() == tmp_path
    (tmp_path / "a").write_text("hello")
    with pytest.raises(ValueError, match=r"a: expected the file of git id ce013625.*, this one has b6fc4c62"):
        weights.verified()


def test_what_no_checksum_is_known_of_is_in_the_fingerprint(tmp_path, monkeypatch):
    monkeypatch.setenv("EARMARK_WEIGHTS", str(tmp_path))
    (tmp_path / "a").write_bytes(b"one")
    weights = Weights(folder=".", url="https://x.org", files={"a": None, "b": "0" * 64})
    row = catalogue()["msm-mae"].model_copy(update={"weights": weights})
    before = of_row(row)
    assert weights.stamps() == {}  # not all of it is here
    (tmp_path / "b").write_bytes(b"two")
    assert [*weights.stamps()] == ["a"]
    with_one = of_row(row)
    (tmp_path / "a").write_bytes(b"another")
    assert len({before, with_one, of_row(row)}) == 3
