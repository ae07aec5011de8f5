"""ID sensitivity from the store to what was found: addresses, rounds, controls with a known answer."""

import math

import numpy as np
import pytest
import torch

from earmark.codecs import registry
from earmark.data import cards
from earmark.data.audio import read
from earmark.metrics import METRICS
from earmark.scoring import codebooks, quality, semantics, stability
from earmark.scoring.found import mean_of, statistic_of
from earmark.store.jobs import sound_job, tokens_job
from earmark.store.store import Store
from earmark.store.transforms import Level, Lost, Noise, Round, Shift
from earmark.tests import own_codecs
from earmark.tests.helpers import voice, write_dataset

OWN = "earmark.tests.own_codecs"


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Four clips of whole frames of 20 ms, so that Frames and the controls lose nothing at the end."""
    wavs = {
        f"{pitch}.flac": 0.9 * voice(seconds, 16000, pitch)
        for pitch, seconds in ((90, 2), (120, 2.4), (150, 3), (180, 0.4))
    }
    monkeypatch.setenv("EARMARK_DATA", str(write_dataset(tmp_path / "d", wavs, dataset="d", domain="speech")))
    return cards.load(cards.select(["d"])[0])


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", "cpu", "run1")


def frames():
    return registry.find(f"{OWN}:Frames")


# -- the store --------------------------------------------------------------------------------------------------------


def test_what_is_done_to_a_clip_is_part_of_the_address(store):
    transforms = [(), (Shift(2),), (Shift(3),), (Level(2),), (Round(),), (Round(), Shift(2)), (Shift(2), Round())]
    folders = [store.folder(tokens_job(frames(), steps=steps)) for steps in transforms]
    assert len({*folders}) == len(folders)
    assert folders[0] == store.folder(tokens_job(frames()))


def test_each_clip_is_encoded_once_for_each_transform(store, dataset):
    own_codecs.Frames.encoded = 0
    for _ in range(2):
        for steps in ((), (Shift(10),), (Round(),), (Round(), Round()), (Lost(0.1, "frames", "repeat"),)):
            stability.token_outcomes(frames(), dataset, store, steps)
            list(store.outcomes(sound_job(frames(), steps=steps), dataset.clips))
    assert own_codecs.Frames.encoded == 4 * len(dataset.clips)  # what is lost is lost of tokens that are there


def test_a_round_is_given_what_the_round_before_gave_back(store, dataset):
    adapter, clip = store.adapter(frames()), dataset.clips[0]
    wav = torch.from_numpy(read(clip.path)[0])[None]
    for rounds in range(4):
        codes = adapter.encode(wav, torch.tensor([wav.shape[2]]), 0)
        made = stability.token_outcomes(frames(), dataset, store, (Round(),) * rounds)[0]
        assert np.array_equal(made.arrays["codes"], codes.codes[0])
        wav = adapter.decode(codes, 0)


def test_steps_are_done_in_their_order(store, dataset):
    """Shifted and then reconstructed, a clip is late by a frame; the other way round it is the same here."""
    late = [stability.change(frames(), dataset, store, steps) for steps in ((Shift(10), Round()), (Round(), Shift(10)))]
    one, other = ([pair[1] for pair in change.pairs.values()] for change in late)
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    twice = stability.change(frames(), dataset, store, (Level(-6), Level(6)), before=(Level(-6),))
    assert stability.same_ids(twice).value < 0.5


def test_a_clip_that_fails_is_named_in_every_later_round(store, dataset, tmp_path, monkeypatch):
    wavs = {"1.flac": voice(0.3, 16000), "99.flac": np.concatenate([[0.99], voice(0.3, 16000)]).astype(np.float32)}
    monkeypatch.setenv("EARMARK_DATA", str(write_dataset(tmp_path / "e", wavs, dataset="e", domain="speech")))
    failing, entry = cards.load(cards.select(["e"])[0]), registry.find(f"{OWN}:RaisesOnOne")
    found = quality.quality(METRICS["mel_loss"], entry, failing, store, (Round(), Round()))
    assert list(found.values) == ["1.flac"]
    assert "I do not like this clip" in found.errors["99.flac"]


# -- what is found ----------------------------------------------------------------------------------------------------


def test_constant_codes_are_stable_and_no_more_so_than_by_chance(store, dataset):
    change = stability.change(registry.find("constant"), dataset, store, (Noise("white", 0),))
    assert stability.same_ids(change).value == 1
    kappa = stability.kappa(change)
    assert (kappa.n, len(kappa.no_answer)) == (0, len(dataset.clips))
    kept = stability.information_kept(change, [0])
    assert "holds no information" in kept.notes[0]


def test_a_codebook_of_one_code_has_nothing_to_keep_and_is_left_out(dataset):
    """Of three codebooks the first is kept as it is, the second is constant, the third independent: (1 + 0) / 2."""
    rng, pairs = np.random.default_rng(0), {}
    for clip in dataset.clips:
        before = np.stack([rng.integers(8, size=2000), np.full(2000, 3), rng.integers(8, size=2000)])
        pairs[clip.id] = (before, np.stack([before[0], rng.integers(8, size=2000), rng.integers(8, size=2000)]))
    change = stability.Change(dataset, pairs, {}, {})
    kept = stability.information_kept(change, range(3))
    assert kept.value == pytest.approx(0.5, abs=0.01)
    assert list(kept.notes) == ["codebooks left out, as each is one code alone: 1"]
    assert stability.information_kept(change, [0]).value == pytest.approx(1)
    alone = stability.information_kept(change, [1])
    assert (alone.n, "holds no information" in alone.notes[0]) == (0, True)
    assert stability.information_kept(stability.Change(dataset, {}, {"a": "no"}, {}), range(3)).n == 0


def test_random_codes_are_at_chance(store, dataset):
    change = stability.change(registry.find("random-codes"), dataset, store, (Round(),))
    assert stability.same_ids(change).value < 0.01
    assert stability.kappa(change).value == pytest.approx(0, abs=0.01)
    assert stability.edit_distance(change).value > 0.9
    kept = stability.information_kept(change, [0])
    assert kept.n == 0
    assert "not enough tokens" in kept.notes[0]


def test_a_shift_by_a_whole_frame_is_undone_by_realigning(store, dataset):
    change = stability.change(frames(), dataset, store, (Shift(10),))
    assert stability.best_lag(change, frames(), 10) == 1
    assert stability.same_ids(change, lag=1).value == 1
    assert stability.same_ids(change).value < 0.5
    untouched = stability.change(frames(), dataset, store, (Shift(0),))
    assert stability.best_lag(untouched, frames(), 0.5) == 0
    assert (stability.same_ids(untouched).value, stability.kappa(untouched).value) == (1, 1)


def test_what_looks_no_farther_than_a_frame_needs_no_context(store, dataset):
    found = stability.in_context(frames(), dataset, store, 0.5, (0, 0.1, 0.9, 5))
    assert [len(change.pairs) for change in found.values()] == [3, 3, 2, 0]  # of 2, 2.4, 3 and 0.4 s
    assert "180.flac" in found[0].no_answer
    for context, change in found.items():
        assert len(change.no_answer) + len(change.pairs) == len(dataset.clips)
        assert {before.shape for before, _ in change.pairs.values()} == ({(2, 50)} if context < 5 else set())
        assert context == 5 or stability.same_ids(change).value == 1
    assert stability.curve({s: stability.same_ids(change) for s, change in found.items()}).x == (0, 0.1, 0.9)


def test_what_lies_around_matters_to_who_hears_it(store, dataset):
    """Random codes are drawn from all that is given: none stays the same."""
    found = stability.in_context(registry.find("random-codes"), dataset, store, 0.5, (0, 0.5))
    assert all(stability.same_ids(change).value < 0.05 for change in found.values())


def test_a_clip_without_tokens_is_no_failure(dataset):
    clips, nothing = [clip.id for clip in dataset.clips], np.zeros((2, 0), int)
    change = stability.Change(dataset, {clips[0]: (nothing, nothing), clips[1]: (np.ones((2, 3)),) * 2}, {}, {})
    found = stability.same_ids(change)
    assert (found.value, found.n, [*found.no_answer], found.errors) == (1, 1, [clips[0]], {})


def test_the_slope_is_that_of_each_clip(dataset):
    clips = [clip.id for clip in dataset.clips][:2]
    found = {x: mean_of(dict(zip(clips, (1 - 0.1 * x, 0.5 + 0.3 * x), strict=True)), dataset) for x in (1, 2, 3)}
    assert list(stability.slope(found, dataset).values.values()) == pytest.approx([-0.1, 0.3])
    broken = found | {3: mean_of({clips[0]: 0.7}, dataset, {clips[1]: "failed"})}
    slope = stability.slope(broken, dataset)
    assert (list(slope.values), slope.errors) == ([clips[0]], {clips[1]: "failed"})
    midway = found | {2: mean_of({clips[0]: 0.8}, dataset, {}, {clips[1]: "no voice"})}
    slope = stability.slope(midway, dataset)
    assert (list(slope.values), slope.errors, slope.no_answer) == ([clips[0]], {}, {clips[1]: "no voice"})


def test_a_fading_codec_loses_in_every_round_and_identity_nothing(store, dataset):
    metric = METRICS["mel_loss"]
    fading, same = (
        {n: quality.quality(metric, entry, dataset, store, (Round(),) * (n - 1)) for n in (1, 2, 3)}
        for entry in (frames(), registry.find("identity"))
    )
    assert [one.value for one in same.values()] == [0, 0, 0]
    values = [one.value for one in fading.values()]
    assert values == sorted(values)
    assert stability.slope(fading, dataset).value > 0


def test_the_more_is_lost_the_worse(store, dataset):
    metric, halver = METRICS["mel_loss"], registry.find(f"{OWN}:Halver")
    lost = {p: (Lost(p, "tokens", "repeat"),) for p in (0, 0.05, 0.2)}
    found = [quality.quality(metric, halver, dataset, store, steps).value for steps in lost.values()]
    assert found[0] < found[1] < found[2]
    assert found[0] == quality.quality(metric, halver, dataset, store, ()).value


def test_identity_follows_noise_and_a_denoiser_does_not(store, dataset):
    some, noise = cards.at_most(dataset, 2), Noise("babble", 0)
    wavs = [torch.from_numpy(read(clip.path)[0]) for clip in some.clips]
    own_codecs.Remembers.clean = {wav.shape[1]: wav for wav in wavs}
    assert quality.noise_followed(registry.find("identity"), some, store, noise).value == 1
    assert quality.noise_followed(registry.find(f"{OWN}:Remembers"), some, store, noise).value == 0


def test_a_silent_recording_is_no_failure_of_a_codec_in_noise(store, tmp_path, monkeypatch):
    wavs = {"a.flac": 0.5 * voice(1.0, 16000), "b.flac": np.zeros(16000, np.float32)}
    monkeypatch.setenv("EARMARK_DATA", str(write_dataset(tmp_path / "s", wavs, dataset="s", domain="speech")))
    some = cards.load(cards.select(["s"])[0])
    found = quality.noise_followed(registry.find("identity"), some, store, Noise("white", 0))
    assert (list(found.values), found.errors, list(found.no_answer)) == (["a.flac"], {}, ["b.flac"])


# -- the same words ---------------------------------------------------------------------------------------------------


def test_texts_that_several_speakers_read():
    speech = cards.load(cards.cards()["sampler_speech"], 16)
    repeated = semantics.repeated_texts(speech)
    cells = [(semantics.text_of(clip), clip.fields["speaker"]) for clip in repeated.clips]
    texts, speakers = ({*side} for side in zip(*cells, strict=True))
    assert (len(texts), len(speakers), len(cells), len({*cells})) == (4, 4, 16, 16)
    whole = semantics.repeated_texts(cards.load(cards.cards()["sampler_speech"]))
    assert len(whole.clips) > 60
    assert not semantics.repeated_texts(cards.load(cards.cards()["sampler_music"], 16)).clips


def test_words_are_found_where_tokens_are_of_the_words_alone():
    speech = semantics.repeated_texts(cards.load(cards.cards()["sampler_speech"], 16))
    texts = np.array([semantics.text_of(clip) for clip in speech.clips])
    speakers = np.array([clip.fields["speaker"] for clip in speech.clips])
    apart = (texts[:, None] != texts).astype(float)
    compared = semantics.Repeated(speech, speech.clips, texts, speakers, apart, {})
    assert semantics.abx(compared).value == 0
    assert semantics.distance(compared, same_text=True, same_speaker=False).value == 0
    assert semantics.distance(compared, same_text=False, same_speaker=True).value == 1
    assert semantics.distance(compared, same_text=True, same_speaker=True).n == 0  # each reads it once
    by_voice = semantics.Repeated(speech, speech.clips, texts, speakers, (speakers[:, None] != speakers) * 1.0, {})
    assert semantics.abx(by_voice).value == 0.5  # A and B are by one speaker: a voice does not help


# -- codebooks --------------------------------------------------------------------------------------------------------


def test_codebooks_of_the_controls(store, dataset):
    constant, drawn = (
        codebooks.tokens_of(registry.find(name), dataset, store) for name in ("constant", "random-codes")
    )
    books = range(8)
    assert constant.found(codebooks.use.dead_codes, books, sum, smooth=False).value == 8 * 1023
    assert constant.found(codebooks.use.relative_entropy, books).value == 0
    assert drawn.found(codebooks.use.mean_run_length, books).value == pytest.approx(1, abs=0.01)
    assert codebooks.bigram_entropy(constant, books).value == 0
    assert codebooks.bigram_entropy(drawn, books).n == 0  # 400 tokens of 1024 codes are not enough
    shared = stability.information_shared(drawn.codes, {}, dataset, [(0, 1)])
    assert "not enough tokens" in shared.notes[0]


def test_a_second_codebook_that_repeats_the_first_adds_nothing(store, dataset):
    made = codebooks.tokens_of(frames(), dataset, store)
    assert stability.information_shared(made.codes, {}, dataset, [(0, 1)]).value == pytest.approx(1)


def test_a_statistic_without_an_answer_is_no_failure_of_the_codec(dataset):
    from earmark.metrics import MetricError

    def refuse(items):
        raise MetricError("too few")

    found = statistic_of(refuse, dict.fromkeys((clip.id for clip in dataset.clips), 1), dataset)
    assert (found.n, found.errors, set(found.no_answer.values())) == (0, {}, {"too few"})
    assert math.isnan(found.value)


def test_the_codebooks_that_are_shown():
    assert stability.shown(3) == [0, 1, 2]
    assert stability.shown(46) == [0, 6, 13, 19, 26, 32, 39, 45]
