"""Batches: by length, with true lengths; halved without memory; taken apart where the codec fails; refused where they
change the result. A stand-in asks for batches on the CPU, where the store itself never does."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from earmark.codecs import registry
from earmark.data import cards
from earmark.data.manifest import SHARD_CLIPS
from earmark.store import batches, jobs
from earmark.store.batches import BATCH_SECONDS, Audio, equal_in_batches
from earmark.store.jobs import latents_job, sound_job, tokens_job
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
    entry, embedder = registry.find(f"{OWN}:Halver"), registry.find(f"{OWN}:Embedder")
    for job in (tokens_job(entry), sound_job(entry), latents_job(embedder, "unquantized")):
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
    assert all(
        made.error == "infrastructure fault: same: out of memory in reconstruct: CUDA out of memory" for made in found
    )


def test_a_clip_that_cannot_be_decoded_for_want_of_memory_is_one_failure(clips, stores, monkeypatch):
    """Tokens are decoded one clip at a time: a long one must not take the whole test with it."""
    decode = own_codecs.Halver.decode

    def hungry(self, encoded, seed):
        if encoded.codes.shape[2] > 0.4 * 8000:  # the longest clip
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return decode(self, encoded, seed)

    monkeypatch.setattr(own_codecs.Halver, "decode", hungry)
    found = list(stores[0].outcomes(sound_job(registry.find(f"{OWN}:Halver")), clips))
    assert sum(made.error is not None for made in found) == 1
    assert "infrastructure fault: halver: out of memory in decode" in next(made.error for made in found if made.error)


def test_clips_are_read_while_the_one_before_is_encoded(clips):
    """The second is begun without being asked for."""
    begun = threading.Event()

    def read(clip):
        if clip is clips[1]:
            begun.set()
        return Audio(np.zeros((1, 100), np.float32), 100)

    ahead = batches._read_ahead(read, clips, {})
    assert next(ahead)[0] is clips[0]
    assert begun.wait(30)
    assert [clip for clip, _ in ahead] == [*clips[1:]]


def test_the_next_shard_is_read_while_one_is_on_the_accelerator(tmp_path, monkeypatch):
    """A shard is one batch there as a rule, so that all of it has been read before any of it is encoded."""
    wavs = {f"{i:02}.flac": voice(0.1, 16000, 100 + i) for i in range(3 * SHARD_CLIPS)}
    monkeypatch.setenv("EARMARK_DATA", str(write_dataset(tmp_path / "d", wavs, dataset="d", domain="speech")))
    clips = cards.load(cards.select(["d"])[0]).clips
    begun, prepare, read, encoded = {clip.shard: threading.Event() for clip in clips}, jobs.prepare, [], []
    late, deadline = [], time.monotonic() + 60

    def noted(clip, *how):
        read.append(clip.sha256)
        begun[clip.shard].set()
        return prepare(clip, *how)

    def reconstruct(self, wav, lengths, seed):
        encoded.append(len(wav))
        others = min(len(encoded), 2)  # while this is done, another shard than those that were encoded is begun
        while not late and sum(event.is_set() for event in begun.values()) <= others:
            time.sleep(0.01)
            late.extend(["no other shard is being read"] * (time.monotonic() > deadline))
        return wav.clone(), None

    monkeypatch.setattr(jobs, "prepare", noted)
    monkeypatch.setattr(own_codecs.Same, "reconstruct", reconstruct)
    monkeypatch.setattr(batches, "_padded", lambda wavs, device, padded=batches._padded: padded(wavs, "cpu"))
    entry, store = registry.find(f"{OWN}:Same"), Store(tmp_path / "s", "cuda:0", "r")
    store.know({entry.name: "0"})
    monkeypatch.setattr(store, "batches", lambda entry, what: True)
    monkeypatch.setattr(Store, "adapter", lambda self, entry: own_codecs.Same(entry.info, "cpu"))
    for clip, found in zip(clips, store.outcomes(sound_job(entry), clips), strict=True):
        np.testing.assert_array_equal(found.arrays["wav"], prepare(clip, 16000, 1).wav)
    assert not late
    assert encoded == [SHARD_CLIPS] * 3
    assert sorted(read) == sorted(clip.sha256 for clip in clips)  # each once


def test_what_was_read_ahead_and_not_taken_is_let_go():
    clips, ahead, read = [SimpleNamespace(sha256=name) for name in "abc"], batches.Ahead(), []

    def note(clip, rate):
        read.append(clip.sha256)
        return clip.sha256, rate

    ahead.begin(note, clips[:2], 8000)
    assert ahead.take(note, clips[0], 8000) == ("a", 8000)
    assert ahead.take(note, clips[1], 16000) == ("b", 16000)  # asked for in another way
    for clip in clips[1:]:
        ahead.begin(note, [clip], 8000)
    assert [key for begun in ahead._begun for key, *_ in begun] == ["b", "c"]


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
        ("LeakyEmbedder", "latents", False),
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


def test_no_verdict_is_kept_where_there_was_no_room_to_try(tmp_path, monkeypatch):
    """Another process may have held the memory: it would be told of the codec that batches change it, for good."""
    entry, room = registry.find(f"{OWN}:Same"), []

    def reconstruct(self, wav, lengths, seed):
        if not room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return wav.clone(), None

    monkeypatch.setattr(own_codecs.Same, "reconstruct", reconstruct)
    monkeypatch.setattr(batches, "_padded", lambda wavs, device, padded=batches._padded: padded(wavs, "cpu"))
    monkeypatch.setattr(Store, "adapter", lambda self, entry: own_codecs.Same(entry.info, "cpu"))
    store = Store(tmp_path, "cuda:0", "r")
    assert not store.batches(entry, "sound")
    assert not store.notes(entry)
    room.append(True)
    assert Store(tmp_path, "cuda:0", "r").batches(entry, "sound")


def test_a_codec_that_does_not_fit_into_memory_is_not_broken(tmp_path, clips, monkeypatch):
    """Another process may hold it: the next run tries again."""

    def hungry(self, info, device):
        raise torch.OutOfMemoryError("CUDA out of memory")

    entry, before = registry.find(f"{OWN}:Same"), own_codecs.Same.__init__
    monkeypatch.setattr(own_codecs.Same, "__init__", hungry)
    store = Store(tmp_path / "s", "cpu", "r")
    store.know({entry.name: "0"})
    found = list(store.outcomes(sound_job(entry), clips))
    assert all(made.error.startswith("infrastructure fault: same: cannot be loaded: OutOfMemory") for made in found)
    monkeypatch.setattr(own_codecs.Same, "__init__", before)
    again = Store(tmp_path / "s", "cpu", "another")
    again.know({entry.name: "0"})
    assert not [made.error for made in again.outcomes(sound_job(entry), clips) if made.error]


def test_a_codec_that_cannot_be_loaded_fails_clip_by_clip_on_an_accelerator_too(tmp_path, clips, monkeypatch):
    """As on the CPU: each clip is counted and says why."""
    monkeypatch.setattr(batches, "_padded", lambda wavs, device, padded=batches._padded: padded(wavs, "cpu"))
    entry = registry.find("earmark.tests.own_codecs:Unloadable")
    store = Store(tmp_path / "c", "cuda:0", "r")
    store.know({entry.name: "0"})
    found = list(store.outcomes(sound_job(entry), clips))
    assert all("unloadable: cannot be loaded: OSError" in made.error for made in found)
