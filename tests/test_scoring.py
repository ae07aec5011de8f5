"""From what codecs made to scores: what each kind of metric is given, and how clips become one number."""

import math
from pathlib import Path

import numpy as np
import pytest

from earmark.codecs import registry
from earmark.codecs.contract import Info
from earmark.data import cards
from earmark.metrics import METRICS, MetricError, rate
from earmark.scoring import clips, measure, metric_names, whole
from earmark.store import fingerprint
from earmark.store.shards import Outcome
from earmark.store.store import Store
from earmark.tests.helpers import voice, write_dataset

OWN = "earmark.tests.own_codecs"
# what looks at sound, be it that of one clip alone, and is installed here
HEARD = [
    name
    for name, metric in METRICS.items()
    if metric.kind in ("pair", "estimate") and metric.of == "estimate" and metric.missing() is None
]
ASKED = {"suite": "reconstruction", "preset": "paper", "device": "cpu"}


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Four clips of two speakers."""
    wavs = {f"{pitch}.flac": voice(1.5, 16000, pitch) for pitch in (90, 120, 160, 220)}
    monkeypatch.setenv("EARMARK_DATA", str(write_dataset(tmp_path / "d", wavs, dataset="d", domain="speech")))
    return cards.load(cards.select(["d"])[0])


@pytest.fixture
def store(tmp_path, one_thread):
    return Store(tmp_path / "store", "cpu", "run")


def score(name, codec, dataset, store, **kwargs):
    return measure(METRICS[name], registry.find(codec), dataset, store, **ASKED, **kwargs).score


# -- the reference is never compared with itself ----------------------------------------------------------------------


def test_no_metric_is_ever_given_the_reference_to_compare_with_itself(dataset, store, monkeypatch):
    """Every metric of the suites, on a codec that changes the sound: two signals, of two memories, in this order."""
    given = []

    def spy(name, reference, estimate, rate):
        given.append(name)
        assert not np.shares_memory(reference, estimate)
        assert not np.array_equal(reference, estimate)
        assert (
            np.square(reference).sum() > 3 * np.square(estimate).sum()
        )  # the codec halves: the louder is the reference
        return [1.0]

    monkeypatch.setattr(clips, "compute", spy)
    for name in HEARD:
        assert score(name, f"{OWN}:Half", dataset, store).n == 4
    assert set(given) == {METRICS[name].base for name in HEARD}
    assert {"visqol_audio", "dnsmos_ovrl", "speaker_similarity_resemblyzer"} & set(given)


def test_a_signal_compared_with_itself_is_an_error(dataset, store, monkeypatch):
    monkeypatch.setattr(clips, "pair", lambda clip, sound, rate: (sound.arrays["wav"][0],) * 2 + (16000,))
    with pytest.raises(AssertionError, match="compared with itself"):
        score("mse", f"{OWN}:Half", dataset, store)


def test_a_delay_of_part_of_a_sample_is_taken_out_too(dataset, store):
    """A sample late at 24 kHz is two thirds of one at 16; without it, what going to 24 kHz and back costs is left."""
    assert score("si_sdr", f"{OWN}:Late", dataset, store).value < 17
    assert score("si_sdr_aligned", f"{OWN}:Late", dataset, store).value > 32  # of whole samples alone it is 20


# -- rates of a corpus ------------------------------------------------------------------------------------------------


class Parrot:
    """A recogniser that hears what it is told to, in turn."""

    def __init__(self, texts):
        self.texts = iter(texts)

    def transcribe(self, wav):
        return next(self.texts)


@pytest.fixture
def spoken(dataset, monkeypatch):
    """The dataset with words: one clip of two, one of six; and a recogniser that hears (original, then estimate)."""
    from dataclasses import replace

    words = ["green tea", "we walked home through the rain"]
    texts = zip(dataset.clips, words, strict=False)
    some = tuple(replace(clip, fields=clip.fields | {"transcript": text}) for clip, text in texts)
    parrot = Parrot([*words, "green green", "we walked home through the rain"])
    monkeypatch.setattr(type(METRICS["wer_pocketsphinx"].model), "load", lambda _: parrot)
    return replace(dataset, clips=some)


def test_word_errors_are_of_the_corpus(spoken, store):
    """One edit of eight words is 1/8, not the mean of 1/2 and 0."""
    found = score("wer_pocketsphinx_increase", f"{OWN}:Half", spoken, store)
    assert found.value == pytest.approx(1 / 8)
    assert score("wer_pocketsphinx_original", f"{OWN}:Half", spoken, store).value == 0
    assert score("wer_pocketsphinx", f"{OWN}:Half", spoken, store).value == pytest.approx(1 / 8)


def test_the_recording_is_heard_once_for_all_codecs(spoken, store, monkeypatch):
    score("wer_pocketsphinx_increase", f"{OWN}:Half", spoken, store)
    monkeypatch.setattr(type(METRICS["wer_pocketsphinx"].model), "load", lambda _: Parrot(["x", "x"]))
    assert score("wer_pocketsphinx_increase", f"{OWN}:Halver", spoken, store).value == 1.0  # 8 edits of 8


def test_a_transcript_put_right_is_scored_anew_and_heard_once(spoken, store, monkeypatch):
    """The sound is the same, so its recognition is kept; the errors that were counted against the old words are not."""
    from dataclasses import replace

    assert score("wer_pocketsphinx_original", f"{OWN}:Half", spoken, store).value == 0
    monkeypatch.setattr(type(METRICS["wer_pocketsphinx"].model), "load", lambda _: Parrot([]))
    first, *others = spoken.clips
    put_right = replace(first, fields=first.fields | {"transcript": "green teas"})
    dataset = replace(spoken, clips=(put_right, *others))
    assert score("wer_pocketsphinx_original", f"{OWN}:Half", dataset, store).value == pytest.approx(1 / 8)


@pytest.mark.parametrize("name", ["wer_pocketsphinx", "wer_whisper_base", "speaker_similarity_unispeech_wavlm_large"])
def test_what_is_measured_with_a_model_follows_the_source_of_its_class(name, monkeypatch):
    """A later version of Earmark may build, feed or read it otherwise: what an earlier one found is then not met."""
    metric, entry = METRICS[name], registry.find("identity")
    monkeypatch.setattr(fingerprint, "of_files", lambda *paths: " ".join(Path(path).name for path in paths))
    jobs = [clips.value_job(metric, entry)]
    if metric.kind == "transcript":
        jobs.append(clips._transcript_job(metric.model, entry, 0, ()))
    assert all(f"{metric.model.function.partition(':')[0]}.py" in job.version for job in jobs)


def test_a_metric_without_any_answer_says_so(dataset, store, monkeypatch):
    def refuses(name, reference, estimate, rate):
        raise MetricError("no speech")

    monkeypatch.setattr(clips, "compute", refuses)
    found = measure(METRICS["mse"], registry.find(f"{OWN}:Half"), dataset, store, **ASKED)
    assert (found.score.value, found.score.n, found.score.failed, found.score.no_answer) == (None, 0, 0, 4)
    assert set(found.no_answer.values()) == {"no speech"}


def test_a_recogniser_hears_the_reconstruction_and_not_the_recording(spoken, store, monkeypatch):
    heard = []

    class Listens:
        def transcribe(self, wav):
            heard.append(float(np.abs(wav).max()))
            return "x"

    monkeypatch.setattr(type(METRICS["wer_pocketsphinx"].model), "load", lambda _: Listens())
    score("wer_pocketsphinx_increase", f"{OWN}:Half", spoken, store)
    assert heard[2:] == pytest.approx([0.5 * peak for peak in heard[:2]])  # the codec halves


# -- what is measured on ----------------------------------------------------------------------------------------------


def test_a_score_of_audio_that_a_metric_was_not_validated_for_says_so(dataset, store):
    from dataclasses import replace

    music = replace(dataset, card=dataset.card.model_copy(update={"domain": "music"}))
    assert not score("stoi", "uniform-8bit", dataset, store).out_of_domain
    assert score("stoi", "uniform-8bit", music, store).out_of_domain
    assert not score("mse", "uniform-8bit", music, store).out_of_domain


def test_exact_clips_are_in_no_mean_but_counted(dataset, store, monkeypatch):
    """Half of the clips come back exactly: the mean and n are of the others. Where all do, n is of all."""
    values = iter([math.inf, 3.0, math.inf, 5.0])
    with monkeypatch.context() as patch:
        patch.setattr(clips, "compute", lambda *args: [next(values)])
        half = score("si_sdr", f"{OWN}:Half", dataset, store)
    assert (half.value, half.n, half.exact, half.at_bound) == (4.0, 2, 2, False)
    every = score("si_sdr", "identity", dataset, store)
    assert (every.value, every.n, every.exact, every.at_bound) == (None, 4, 4, True)
    none = score("si_sdr", "uniform-8bit", dataset, store)
    assert (none.n, none.exact) == (4, 0)


def test_the_rate_is_part_of_a_score(dataset, store):
    assert score("mse", "uniform-8bit", dataset, store).protocol == "at 16000 Hz"
    assert score("mse_native", "uniform-8bit", dataset, store).protocol == "at the codec's rate"


# -- all clips at once ------------------------------------------------------------------------------------------------


def test_entropy_of_known_codes(dataset, store):
    """Constant codes cost nothing; uniform ones as much as they declare, as far as so few tokens can tell."""
    assert score("entropy_bitrate_kbps", "constant", dataset, store).value == 0
    random = score("entropy_bitrate_kbps", "random-codes", dataset, store)
    assert score("nominal_bitrate_kbps", "random-codes", dataset, store).value == 4.0  # 50 * 8 * 10 bits
    assert 3.0 < random.value <= 4.0
    assert random.n == 4


def test_a_token_that_is_not_there_costs_nothing():
    """A second codebook that every other frame does without, and one of stride 2, cost half; nominal is the bound."""
    full = np.arange(4000) % 256
    half = np.where(np.arange(4000) % 2 == 0, np.arange(4000) // 2 % 256, -1)
    info = Info(name="x", sample_rate=16000, frame_rate=50, codebook_sizes=(256, 256))
    whole, sparse = (rate.entropy_bitrate_kbps([np.stack([full, second])], info) for second in (full, half))
    assert whole == pytest.approx(0.8)  # 50 * 2 * 8 bits
    assert sparse == pytest.approx(0.6)
    strided = Info(name="x", sample_rate=16000, frame_rate=50, codebook_sizes=(256, 256), strides=(1, 2))
    assert rate.entropy_bitrate_kbps([np.stack([full, half])], strided) == pytest.approx(0.6) == strided.bitrate_kbps
    partial = np.stack([full, half])[:, :3999]  # of no whole number of groups
    assert rate.entropy_bitrate_kbps([partial], strided) <= strided.bitrate_kbps


def test_distance_of_distributions(dataset, store):
    """Nothing lost is no distance; more lost is more."""
    encoder = registry.find("logmel")
    none, little, much = (
        score("fad", codec, dataset, store, encoder=encoder) for codec in ("identity", "uniform-8bit", "constant")
    )
    assert none.metric == "fad_logmel"
    assert none.value == pytest.approx(0, abs=1e-6)
    assert none.value < little.value < much.value
    assert any("windows" in note for note in much.notes)
    assert much.backend.startswith("logmel-")
    assert "fad_logmel" in metric_names()


def test_a_clip_that_an_encoder_fails_on_is_named(dataset, store, monkeypatch):
    def fails(store, encoder, sound, seed):
        return Outcome(sound.clip, error="encoder failed")

    monkeypatch.setattr(whole, "_embed", fails)
    found = measure(METRICS["fad"], registry.find("identity"), dataset, store, **ASKED, encoder=registry.find("logmel"))
    assert math.isnan(found.score.value or math.nan)
    assert len(found.errors) == 4


@pytest.mark.parametrize(
    ("seconds", "frames", "windows"), [(0.01, 1, 1), (0.99, 99, 1), (1.0, 100, 1), (2.5, 250, 2), (3, 2, 2)]
)
def test_windows_of_a_second(seconds, frames, windows):
    latents = np.arange(frames, dtype=np.float32)[None].repeat(3, 0)
    found = whole._windows(latents, seconds)
    assert found.shape == (windows, 3)
    assert np.isfinite(found).all()
    if windows == 1:
        assert found[0, 0] == pytest.approx(latents[0].mean())


def test_a_recording_without_an_answer_is_not_the_codecs_failure(tmp_path, monkeypatch, store):
    """A click has no pitch, whoever codes it; speech that comes back without one is the codec's fault."""
    click = np.zeros(24000, np.float32)
    click[12000] = 0.9
    wavs = {"click.flac": click, "speech.flac": voice(1.5, 16000, 120)}
    monkeypatch.setenv("EARMARK_DATA", str(write_dataset(tmp_path / "e", wavs, dataset="e", domain="speech")))
    both = cards.load(cards.select(["e"])[0])
    found = measure(METRICS["f0_rmse"], registry.find("uniform-8bit"), both, store, **ASKED)
    assert (found.score.n, found.score.failed, found.score.no_answer) == (1, 0, 1)
    assert "no frame is voiced" in found.no_answer["click.flac"]
    monkeypatch.setattr(clips, "compute", None)  # that there is no answer is known: the next run does not ask again
    later = Store(store.root, "cpu", "next run")
    next_run = measure(METRICS["f0_rmse"], registry.find("uniform-8bit"), both, later, **ASKED)
    assert next_run.no_answer == found.no_answer
    monkeypatch.undo()
    monkeypatch.setenv("EARMARK_DATA", str(tmp_path / "e"))
    silent = measure(METRICS["f0_rmse"], registry.find(f"{OWN}:Silent"), both, store, **ASKED)
    assert (silent.score.n, silent.score.failed, silent.score.no_answer) == (0, 1, 1)
    assert set(silent.errors) == {"speech.flac"}
