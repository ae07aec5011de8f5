"""The store: each clip once, nothing stale, nothing half written, failures named and tried again."""

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from earmark.codecs import registry
from earmark.data import cards
from earmark.store import fingerprint, shards
from earmark.store.shards import Outcome, Shard
from earmark.store.store import SHARD_CLIPS, Store
from earmark.tests import own_codecs
from earmark.tests.helpers import voice, write_dataset

OWN = "earmark.tests.own_codecs"


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    wavs = {f"{i:02}.flac": voice(0.2, 16000, 100 + i) for i in range(SHARD_CLIPS + 3)}
    wavs["99.flac"] = np.concatenate([[0.99], voice(0.2, 16000, 99)]).astype(np.float32)
    monkeypatch.setenv("EARMARK_DATA", str(write_dataset(tmp_path / "d", wavs, dataset="d", domain="speech")))
    return cards.load(cards.select(["d"])[0])


@pytest.fixture
def make(tmp_path):
    return lambda run="run1": Store(tmp_path / "store", "cpu", run)


def halver():
    return registry.find(f"{OWN}:Halver")


def test_every_clip_comes_back_in_order_and_is_encoded_once(dataset, make):
    own_codecs.Halver.encoded = 0
    for store in (make(), make("run2")):
        results = list(store.reconstructions(halver(), dataset))
        assert [result.clip.id for result in results] == [clip.id for clip in dataset.clips]
        assert all(result.wav.shape == (1, result.outcome.samples) for result in results)
    assert own_codecs.Halver.encoded == len(dataset.clips)


def test_tokens_are_counted_as_bits(dataset, make):
    result = next(make().reconstructions(halver(), dataset))
    assert result.outcome.bits == 8 * 1600  # 3200 samples, a token of 8 bits for two


def test_a_smaller_selection_of_whole_shards_is_not_made_again(dataset, make):
    list(make().reconstructions(halver(), dataset))
    own_codecs.Halver.encoded = 0
    first = cards.Dataset(dataset.card, dataset.clips[:SHARD_CLIPS], SHARD_CLIPS, "other")
    list(make("run2").reconstructions(halver(), first))
    assert own_codecs.Halver.encoded == 0


def test_a_codec_retrained_in_place_is_a_new_codec(dataset, make):
    store = make()
    before = next(store.reconstructions(halver(), dataset)).wav
    retrained = make("run2")
    retrained.adapter(halver()).gain.fill_(3.0)
    after = next(retrained.reconstructions(halver(), dataset)).wav
    assert retrained.fingerprint(halver()) != store.fingerprint(halver())
    assert not np.array_equal(before, after)


def test_a_failed_clip_is_named_and_the_rest_goes_on(dataset, make):
    entry = registry.find(f"{OWN}:RaisesOnOne")
    failed = [result for result in make().reconstructions(entry, dataset) if result.outcome.error]
    assert [result.clip.id for result in failed] == ["99.flac"]
    assert failed[0].wav is None
    expected = "codec failed: raises-on-one: reconstruct raised ValueError: I do not like this clip"
    assert failed[0].outcome.error == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("WrongShape", r"returned \[1, 3200\] for a wav of \[1, 1, 3200\], expected \[1, 1, L'\]"),
        ("Short", r"returned 1600 samples for 3200"),
        ("NotANumber", r"returned NaN or infinite samples"),
        ("BadCodes", r"codes run from -?\d+ to \d+, expected 0 to V-1 with V = \(4,\)"),
    ],
)
def test_what_a_bad_codec_returns_is_an_error_not_a_score(dataset, make, name, message):
    results = list(make().reconstructions(registry.find(f"{OWN}:{name}"), dataset))
    assert all(result.wav is None for result in results)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(results[0].outcome.error)


def test_a_file_that_cannot_be_read_is_tried_again_by_the_next_run(dataset, make):
    clip = dataset.clips[2]
    content = clip.path.read_bytes()
    clip.path.write_bytes(content[:-100])
    errors = [result.outcome.error for result in make().reconstructions(halver(), dataset) if result.outcome.error]
    assert len(errors) == 1
    assert "02.flac: its sha256 is not the manifest's" in errors[0]
    clip.path.write_bytes(content)
    assert not any(result.outcome.error for result in make("run2").reconstructions(halver(), dataset))


def paths(store):
    return sorted(store.root.rglob("*.safetensors"))


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_a_damaged_shard_is_found_and_made_again(dataset, make, damage):
    store = make()
    good = [result.wav for result in store.reconstructions(halver(), dataset)]
    content = bytearray(paths(store)[0].read_bytes())
    if damage == "truncate":
        del content[len(content) // 2 :]
    else:
        content[-7] ^= 1
    paths(store)[0].write_bytes(content)
    again = [result.wav for result in make("run2").reconstructions(halver(), dataset)]
    for wav, repeated in zip(good, again, strict=True):
        np.testing.assert_array_equal(wav, repeated)


def test_a_shard_survives_the_file(tmp_path):
    wav = np.arange(6, dtype=np.float32).reshape(2, 3)
    shard = Shard((Outcome("a", 16000, 3, 2, 5.0), Outcome("b", error="why")), {"a": wav}, "run")
    shards.write(tmp_path / "s.safetensors", shard)
    read = shards.read(tmp_path / "s.safetensors")
    assert read.outcomes == shard.outcomes
    np.testing.assert_array_equal(read.wavs["a"], wav)
    assert not read.complete
    assert len(load_file(tmp_path / "s.safetensors")) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["s.safetensors"]


def test_over_range_samples_are_counted_and_kept(dataset, make, monkeypatch):
    monkeypatch.setattr(own_codecs.Same, "reconstruct", lambda self, wav, lengths, seed: (wav + 2, None))
    result = next(make().reconstructions(registry.find(f"{OWN}:Same"), dataset))
    assert result.outcome.over_range == result.outcome.samples
    assert result.wav.max() > 1.5


class Opaque:
    def __init__(self, part):
        self.part = part


def own_fingerprint(**parts):
    adapter = own_codecs.Same(None, "cpu")
    vars(adapter).update(parts)
    return fingerprint.of_adapter(registry.find(f"{OWN}:Same"), adapter)


def test_a_fingerprint_follows_tensors_modules_arrays_and_settings():
    torch.manual_seed(0)
    layer = torch.nn.Linear(2, 2)
    variants = [
        {},
        {"a": torch.zeros(2)},
        {"a": torch.ones(2)},
        {"a": np.ones(2)},
        {"a": 1},
        {"a": [1, "x"]},
        {"a": layer},
    ]
    prints = [own_fingerprint(**parts) for parts in variants]
    assert len(set(prints)) == len(prints)
    assert own_fingerprint(a=layer) == own_fingerprint(a=layer)
    with torch.no_grad():
        layer.bias[0] += 1e-3
    assert own_fingerprint(a=layer) != prints[-1]


def test_what_cannot_be_looked_into_has_no_fingerprint():
    assert own_fingerprint(a=Opaque(1)) is None
    assert own_fingerprint(a=[Opaque(1)]) is None


def test_a_codec_without_a_fingerprint_keeps_results_for_one_run_only(dataset, make, monkeypatch):
    monkeypatch.setattr(own_codecs.Halver, "session", Opaque(1), raising=False)
    monkeypatch.setattr(own_codecs.Halver, "__init__", lambda self, info, device: vars(self).update(
        gain=torch.full((1,), 127.0), session=Opaque(1)))  # fmt: skip
    own_codecs.Halver.encoded = 0
    for run in ("run1", "run1", "run2"):
        list(make(run).reconstructions(halver(), dataset))
    assert own_codecs.Halver.encoded == 2 * len(dataset.clips)


def test_rows_are_told_apart_by_their_options():
    assert fingerprint.of_row(registry.find("opus-6")) != fingerprint.of_row(registry.find("opus-12"))
