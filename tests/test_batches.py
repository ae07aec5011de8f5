"""Batches: by length, with true lengths; halved without memory; taken apart where the codec fails; refused where they
change the result. A stand-in asks for batches on the CPU, where the store itself never does."""

import numpy as np
import pytest
import torch

from earmark.codecs import registry
from earmark.data import cards
from earmark.store import batches
from earmark.store.batches import BATCH_SECONDS, Audio, equal_in_batches
from earmark.store.jobs import sound_job, tokens_job
from earmark.store.store import Store
from earmark.tests import own_codecs
from earmark.tests.helpers import voice, write_dataset

OWN = "earmark.tests.own_codecs"


@pytest.fixture
def clips(tmp_path, monkeypatch):
    wavs = {f"{i}.flac": voice(0.1 + 0.07 * i, 16000, 100 + i) for i in range(6)}
    wavs["loud.flac"] = np.concatenate([[0.99], voice(0.2, 16000, 99)]).astype(np.float32)
    monkeypatch.setenv("EARMARK_DATA", str(write_dataset(tmp_path / "d", wavs, dataset="d", domain="speech")))
    return cards.load(cards.select(["d"])[0]).clips


@pytest.fixture
def stores(tmp_path, monkeypatch):
    """A store that encodes one by one, and one that batches."""
    alone, batched = Store(tmp_path / "a", "cpu", "r"), Store(tmp_path / "b", "cpu", "r")
    monkeypatch.setattr(batched, "batches", lambda entry, what: True)
    return alone, batched


def test_batches_change_nothing(clips, stores):
    entry = registry.find(f"{OWN}:Halver")
    for job in (tokens_job(entry), sound_job(entry)):
        for one, other in zip(*(store.outcomes(job, clips) for store in stores), strict=True):
            assert one.facts == other.facts
            for name, array in one.arrays.items():
                np.testing.assert_array_equal(array, other.arrays[name])


def test_a_failure_in_a_batch_is_one_clip_s(clips, stores):
    found = stores[1].outcomes(sound_job(registry.find(f"{OWN}:RaisesOnOne")), clips)
    assert [clip.id for clip, made in zip(clips, found, strict=True) if made.error] == ["loud.flac"]


def test_a_batch_without_memory_is_halved_until_it_fits(clips, stores, monkeypatch):
    sizes = []

    def reconstruct(self, wav, lengths, seed):
        sizes.append(len(wav))
        if len(wav) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return wav.clone(), None

    monkeypatch.setattr(own_codecs.Same, "reconstruct", reconstruct)
    found = list(stores[1].outcomes(sound_job(registry.find(f"{OWN}:Same")), clips))
    assert not any(made.error for made in found)
    assert sizes == [7, 3, 1, 2, 4, 2, 2]


def test_a_single_clip_without_memory_is_that_clip_s_failure(clips, stores, monkeypatch):
    def reconstruct(self, wav, lengths, seed):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(own_codecs.Same, "reconstruct", reconstruct)
    found = list(stores[1].outcomes(sound_job(registry.find(f"{OWN}:Same")), clips))
    assert all(made.error == "infrastructure fault: out of memory on cpu: CUDA out of memory" for made in found)


def test_a_plan_puts_like_lengths_together_within_the_budget(clips):
    seconds = [30.0, 1.0, 29.0, 60.0, 2.0, 45.0, 31.0, 3.0]
    read = [
        (clip, Audio(np.zeros((1, int(s * 100)), np.float32), 100)) for clip, s in zip(clips, seconds, strict=False)
    ]
    plan = list(batches._plan(iter(read), batched=True))
    lengths = [[audio.wav.shape[1] / 100 for _, audio in batch] for batch in plan]
    assert lengths == [[60.0, 45.0], [31.0, 30.0, 29.0, 2.0, 1.0]]
    assert all(len(batch) * batch[0] <= BATCH_SECONDS for batch in lengths)
    assert [len(batch) for batch in batches._plan(iter(read), batched=False)] == [1] * len(read)


@pytest.mark.parametrize(
    ("name", "what", "equal"),
    [
        ("Halver", "tokens", True),
        ("Same", "sound", True),
        ("Embedder", "latents", True),
        ("Leaky", "sound", False),
        ("OneAtATime", "sound", False),
    ],
)
def test_a_codec_shows_whether_batches_change_it(name, what, equal):
    entry = registry.find(f"{OWN}:{name}")
    assert equal_in_batches(registry.load(entry, "cpu"), entry, "cpu", what) == equal


def test_the_verdict_is_kept_and_noted(tmp_path, monkeypatch):
    entry, tried = registry.find(f"{OWN}:Leaky"), []
    monkeypatch.setattr(batches, "equal_in_batches", lambda *args: tried.append(1) or False)
    monkeypatch.setattr(Store, "adapter", lambda self, entry: own_codecs.Leaky(entry.info, "cpu"))
    for _ in range(2):
        store = Store(tmp_path, "cuda:0", "r")
        assert not store.batches(entry, "sound")
        assert "one by one" in store.notes(entry)[0]
    assert len(tried) == 1
    assert Store(tmp_path, "cpu", "r").notes(entry) == []
