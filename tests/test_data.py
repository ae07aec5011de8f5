"""Audio reading, manifests and cards: what is read is what was written, and bad input says what it is."""

import numpy as np
import pytest
import soundfile

from earmark.data import audio, cards
from earmark.data.audio import AudioError
from earmark.data.manifest import ManifestError, read_manifest
from earmark.data.schema import HeldOut, Task
from earmark.run import PRESETS
from earmark.tests.helpers import ROOT, read_rows, voice, write_dataset, write_manifest


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """What a developer has got by `earmark data get` is not part of these tests."""
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path / "home"))


PCM = {"PCM_16": 2**-15, "PCM_24": 2**-23, "FLOAT": 0.0}


@pytest.mark.parametrize("rate", [8000, 44100, 192000])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_any_rate_and_channels_read_to_the_same_samples(tmp_path, rate, channels):
    wav = np.stack([voice(0.1, rate, 100 + 10 * c) for c in range(channels)], axis=1)
    soundfile.write(tmp_path / "a.wav", wav, rate, subtype="FLOAT")
    read, read_rate = audio.read(tmp_path / "a.wav")
    assert read_rate == rate
    np.testing.assert_array_equal(read, wav.T)


@pytest.mark.parametrize("subtype", PCM)
def test_bit_depths_read_within_half_a_step(tmp_path, subtype):
    wav = voice(0.2, 16000)
    soundfile.write(tmp_path / "a.wav", wav, 16000, subtype=subtype)
    np.testing.assert_allclose(audio.read(tmp_path / "a.wav")[0][0], wav, atol=PCM[subtype])


def test_a_container_that_libsndfile_does_not_know_is_read_too(tmp_path):
    import av

    wav = voice(1.0, 48000)
    with av.open(str(tmp_path / "a.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono", bit_rate=128000)
        for at in range(0, len(wav), 1024):
            frame = av.AudioFrame.from_ndarray(wav[None, at : at + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48000, at
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    read, rate = audio.read(tmp_path / "a.m4a")
    assert rate == 48000
    assert abs(read.shape[1] - len(wav)) <= 2048  # AAC's own priming and last frame
    assert np.isfinite(read).all()


def test_a_truncated_file_is_an_error_not_a_short_clip(tmp_path):
    soundfile.write(tmp_path / "whole.flac", voice(2.0, 16000), 16000)
    content = (tmp_path / "whole.flac").read_bytes()
    (tmp_path / "half.flac").write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError, match=r"half.flac: (truncated|not readable)"):
        audio.read(tmp_path / "half.flac")


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("text.wav", lambda path: path.write_text("not audio"), "not readable as audio"),
        ("text.m4a", lambda path: path.write_text("not audio"), "not readable as audio"),
        ("empty.wav", lambda path: soundfile.write(path, np.zeros(0), 16000), "holds no samples"),
        ("nan.wav", lambda path: soundfile.write(path, np.full(9, np.nan), 16000, subtype="FLOAT"), "holds NaN"),
        ("none.wav", lambda path: None, "cannot be read"),
    ],
)
def test_bad_audio_is_one_clear_error(tmp_path, name, make, message):
    make(tmp_path / name)
    with pytest.raises(AudioError, match=rf"{name}: .*{message}"):
        audio.read(tmp_path / name)


def test_a_changed_file_is_not_the_manifest_s(tmp_path):
    soundfile.write(tmp_path / "a.flac", voice(0.2, 16000), 16000)
    with pytest.raises(AudioError, match=r"a.flac: its sha256 is not the manifest's"):
        audio.read(tmp_path / "a.flac", "0" * 64)


def test_resampling_keeps_a_tone_and_its_level():
    tone = np.sin(2 * np.pi * 440 * np.arange(44100) / 44100)[None].astype(np.float32)
    wanted = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    got = audio.resample(tone, 44100, 16000)[0]
    assert len(got) == 16000
    np.testing.assert_allclose(got[500:-500], wanted[500:-500], atol=1e-4)


def test_resampling_to_the_same_rate_is_the_same_array():
    wav = voice(0.1, 16000)[None]
    assert audio.resample(wav, 16000, 16000) is wav


def test_channels_are_mixed_to_their_mean_and_repeated():
    wav = np.array([[1.0, 0.0], [0.0, 0.5]], np.float32)
    np.testing.assert_array_equal(audio.to_channels(wav, 1), [[0.5, 0.25]])
    np.testing.assert_array_equal(audio.to_channels(wav[:1], 2), [[1.0, 0.0], [1.0, 0.0]])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"path": "a.wav", "dataset": "d"}], r"the column 'sha256' is missing; columns needed: path, dataset, sha256"),
        ([{"path": "a.wav", "dataset": "", "sha256": "0"}], r"manifest.csv:2: the column 'dataset' is empty"),
        ([{"path": "a.wav", "dataset": "d", "sha256": "0"}] * 2, r"manifest.csv:3: a.wav is in d twice"),
        ([{"path": "a", "dataset": "d", "sha256": "0", "seconds": "long"}], r"manifest.csv:2: seconds is 'long'"),
    ],
)
def test_a_bad_manifest_names_line_and_column(tmp_path, rows, message):
    write_manifest(tmp_path, rows)
    with pytest.raises(ManifestError, match=message):
        read_manifest(tmp_path / "manifest.csv")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    wavs = {f"{i}.flac": voice(0.1, 16000, 100 + i) for i in range(12)}
    write_dataset(tmp_path / "mine", wavs, dataset="mine", domain="speech_noisy")
    rows = read_rows(tmp_path / "mine")
    write_manifest(tmp_path / "mine", [row | {"label": "ab"[i % 2]} for i, row in enumerate(rows)])
    monkeypatch.setenv("EARMARK_DATA", str(tmp_path / "mine"))
    return tmp_path / "mine"


def test_a_folder_with_a_manifest_is_a_dataset_without_a_card(folder):
    (card,) = cards.select(["real"])
    assert (card.name, card.domain, card.uses) == ("mine", "speech", ("reconstruction",))
    assert len(cards.load(card).clips) == 12
    assert cards.select([]) == [card]


def test_a_limit_is_stratified_and_seeded(folder):
    (card,) = cards.select(["mine"])
    few = cards.load(card, limit=4)
    assert sorted(clip.fields["label"] for clip in few.clips) == ["a", "a", "b", "b"]
    assert [clip.id for clip in few.clips] == [clip.id for clip in cards.load(card, limit=4).clips]
    assert [clip.id for clip in few.clips] != [clip.id for clip in cards.load(card, limit=4, seed=1).clips]


def test_a_limit_is_stratified_by_what_the_card_asks_for(folder):
    """Most cards have their labels in a column of their task's name: eleven of a genre and one of another are both."""
    write_manifest(folder, [row | {"label": "", "genre": "ab"[i == 7]} for i, row in enumerate(read_rows(folder))])
    (card,) = cards.select(["mine"])
    asked = card.model_copy(update={"tasks": (Task(name="genre", kind="classification", target="genre"),)})
    for seed in range(5):
        assert sorted(clip.fields["genre"] for clip in cards.load(asked, limit=2, seed=seed).clips) == ["a", "b"]


def test_the_fingerprint_follows_clips_and_labels(folder):
    (card,) = cards.select(["mine"])
    whole = cards.load(card)
    assert whole.fingerprint == cards.load(card, limit=99).fingerprint
    assert whole.fingerprint != cards.load(card, limit=11).fingerprint
    write_manifest(folder, [row | {"label": "z"} for row in read_rows(folder)])
    read_manifest.cache_clear()
    assert whole.fingerprint != cards.load(card).fingerprint


def test_a_spreadsheet_s_manifest_is_read(tmp_path):
    write_manifest(tmp_path, [{"path": "a.wav", "dataset": "ESC-10", "sha256": "AB"}])
    text = (tmp_path / "manifest.csv").read_text()
    (tmp_path / "manifest.csv").write_text(text, encoding="utf-8-sig")
    assert read_manifest(tmp_path / "manifest.csv")["ESC-10"][0].sha256 == "ab"


def test_a_dataset_that_is_not_in_the_folder_is_one_error(folder):
    with pytest.raises(cards.DataError, match=r"data missing: .*manifest.csv has no dataset 'librispeech_test_other'"):
        cards.select(["librispeech_test_other"])


def test_an_unknown_dataset_gives_the_nearest(folder):
    with pytest.raises(cards.DataError, match=r"unknown dataset 'mime'; did you mean mine"):
        cards.select(["mime"])


def test_real_data_without_a_folder_says_what_to_set(monkeypatch):
    monkeypatch.delenv("EARMARK_DATA", raising=False)
    with pytest.raises(cards.DataError, match="set EARMARK_DATA"):
        cards.select(["real"])


def test_the_default_without_real_data_is_the_sampler(monkeypatch):
    monkeypatch.delenv("EARMARK_DATA", raising=False)
    assert {card.source.folder for card in cards.select([])} == {"sampler"}


def test_every_dataset_loads_and_every_real_clip_is_there(real):
    for card in cards.select(["sampler", "real"]):
        for clip in cards.load(card).clips:
            assert clip.path.is_file()


def test_the_thresholds_of_the_sampler_are_of_the_sampler_as_it_is():
    """What a card says of itself beside its questions leaves the fingerprint alone, by which thresholds judge."""
    text = (ROOT / "thresholds.yaml").read_text()
    for name in ("sampler_speech", "sampler_music", "sampler_sounds"):
        card = cards.cards()[name]
        assert f"data: {cards.load(card, PRESETS['quick'].clips).fingerprint}" in text, name
        told = card.model_copy(update={"homepage": "https://example.org", "clips": 7, "notes": "x"})
        assert cards.load(told).fingerprint == cards.load(card).fingerprint
        for changed in ({"version": 9}, {"held_out": HeldOut(folds=2)}, {"tasks": card.tasks[:1]}):
            assert cards.load(card.model_copy(update=changed)).fingerprint != cards.load(card).fingerprint


def test_the_thresholds_of_real_recordings_are_of_those(real):
    assert (
        f"data: {cards.load(cards.cards()['librispeech_test_other']).fingerprint}"
        in (ROOT / "thresholds.yaml").read_text()
    )
