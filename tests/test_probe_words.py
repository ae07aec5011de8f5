"""Speech and retrieval probes joined to the store: who is on which side, what is counted, what is kept, what fails."""

from dataclasses import replace

import numpy as np
import pytest

from earmark.codecs import registry
from earmark.data import cards
from earmark.data.schema import Task
from earmark.metrics.content import character_errors
from earmark.probes import recognition
from earmark.probes.protocol import Recipe
from earmark.probes.recognition import Heard
from earmark.scoring import probe_asr, probe_retrieval
from earmark.scoring.probe_asr import TOKENS, Frames, modes, words
from earmark.scoring.probes import labelled
from earmark.store.jobs import latents_job, tokens_job
from earmark.store.store import Store
from earmark.tests.helpers import read_rows, write_dataset, write_manifest

RATE = 16000
FEW = Recipe(
    learner="bilstm_ctc",
    rates=(0.01,),
    steps=3,
    epochs=3,
    batch=4,
    standardise=True,
    options={"width": 8, "embedding": 4, "layers": 1, "minimum_hz": 50},
)
TASK = Task(name="transcript", kind="asr", target="transcript")
SCENES = Task(name="caption", kind="retrieval", target="caption")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", "cpu", "run")


@pytest.fixture
def reading(tmp_path, monkeypatch):
    """Twelve clips of noise by six speakers in three folds, of different lengths, with words and captions."""
    rng, folder = np.random.default_rng(0), tmp_path / "data"
    wavs = {f"{at:02}.wav": (0.1 * rng.standard_normal(6000 + 400 * at)).astype(np.float32) for at in range(12)}
    write_dataset(folder, wavs, dataset="reading", domain="speech")
    told = [
        {
            "speaker": f"s{at // 2}",
            "fold": str(at // 4 + 1),
            "transcript": f"{'ab' * (1 + at % 3)} {['cat', 'dog', 'fog'][at % 3]}",
            "caption": f"a {at} | there is {at}",
        }
        for at in range(12)
    ]
    told[7]["transcript"] = "..."
    write_manifest(folder, [row | more for row, more in zip(read_rows(folder), told, strict=True)])
    monkeypatch.setenv("EARMARK_DATA", str(folder))
    monkeypatch.setattr(probe_asr, "_recipe", lambda protocol, mode, preset: FEW)
    return cards.load(cards.cards()["reading"].model_copy(update={"tasks": (TASK, SCENES)}))


def heard_in(codec, mode, dataset, store):
    return words(registry.find(codec), mode, dataset, TASK, "earmark", "quick", store)


def test_every_clip_with_words_is_heard_once(reading, store):
    found = heard_in("logmel", "unquantized", reading, store)
    assert sorted(found.heard) == [clip.id for clip in reading.clips if clip.id != "07.wav"]
    assert found.no_answer == {"07.wav": "its transcript has no letter"}
    score = found.found("wer", "ctc")
    assert (score.n, score.errors, dict(score.no_answer)) == (11, {}, found.no_answer)
    assert any("without listening" in note for note in score.notes)


def test_the_rate_is_all_errors_over_all_that_was_said(reading, store):
    """A longer text counts for more; with words that nobody said a rate is above 1, and its inverse 0."""
    found = heard_in("logmel", "unquantized", reading, store)
    spoken = dict(zip([clip.id for clip in found.labelled.clips], found.labelled.labels, strict=True))
    some = replace(found, heard={clip: [spoken[clip] if len(spoken[clip]) > 6 else "ab"] for clip in found.heard})
    counted = [character_errors(spoken[clip], text, str) for clip, (text,) in some.heard.items()]
    rate = sum(errors for errors, _ in counted) / sum(count for _, count in counted)
    assert some.found("cer", "ctc").value == pytest.approx(rate)
    assert rate < np.mean([errors / count for errors, count in counted]) - 0.02
    assert some.found("iwer", "ctc").value == pytest.approx(1 - some.found("wer", "ctc").value)
    wrong = replace(found, heard={clip: ["one two three four five"] for clip in found.heard})  # of two words
    assert (wrong.found("wer", "ctc").value, wrong.found("iwer", "ctc").value) == (2.5, 0)


def test_no_speaker_is_on_two_sides(reading):
    items = labelled(reading, TASK)
    for fold in items.folds():
        sides = [{items.clips[at].group for at in part} for part in (fold.train, fold.valid, fold.test)]
        assert sum(map(len, sides)) == len(set.union(*sides)) == 6


def test_a_training_is_done_once(reading, store, monkeypatch):
    first = heard_in("logmel", "unquantized", reading, store)
    monkeypatch.setattr(recognition, "recognise", None)  # would be an error
    assert heard_in("logmel", "unquantized", reading, store) == first
    longer = FEW.model_copy(update={"steps": 2})
    monkeypatch.setattr(probe_asr, "_recipe", lambda protocol, mode, preset: longer)
    with pytest.raises(TypeError, match="not callable"):
        heard_in("logmel", "unquantized", reading, store)


def test_a_clip_that_the_codec_fails_on_is_an_error_and_not_heard(reading, store, monkeypatch):
    outcomes = store.outcomes

    def failing(job, clips):
        from earmark.store.shards import Outcome

        for clip, outcome in zip(clips, outcomes(job, clips), strict=True):
            yield Outcome(clip.sha256, error="codec failed: it fell over") if clip.id == "02.wav" else outcome

    monkeypatch.setattr(store, "outcomes", failing)
    found = heard_in("logmel", "unquantized", reading, store)
    assert found.errors == {"02.wav": "codec failed: it fell over"}
    assert "02.wav" not in found.heard
    assert found.found("cer", "ctc").errors == found.errors


def test_tokens_are_heard_too(reading, store):
    found = heard_in("random-codes", TOKENS, reading, store)
    assert len(found.heard) == 11


def test_too_long_texts_and_known_texts_are_said(reading, store, monkeypatch):
    def hears(recipe, speech, fold, *rest):
        return Heard({int(clip): "" for clip in fold.test}, {int(fold.train[0]): "its 9 symbols need 9 frames"})

    monkeypatch.setattr(recognition, "recognise", hears)
    found = heard_in("logmel", "unquantized", reading, store)
    assert any(note.startswith("not learned from: 1 clips: ") and "9 frames" in note for note in found.notes)
    assert "the words of 11 test clips are also said in training clips" in found.notes
    assert found.found("wer", "ctc").value == 1


def test_several_seeds_are_a_mean_and_some_folds_are_tested(reading, store, monkeypatch):
    several = FEW.model_copy(update={"seeds": 2, "options": FEW.options | {"folds": 1}})
    monkeypatch.setattr(probe_asr, "_recipe", lambda protocol, mode, preset: several)
    found = heard_in("logmel", "unquantized", reading, store)
    assert {clip: len(texts) for clip, texts in found.heard.items()} == {f"0{at}.wav": 2 for at in range(4)}


def test_frames_come_at_the_rate_that_was_asked_for(reading, store):
    entry = registry.find("logmel")  # 100 Hz
    slow = entry.model_copy(update={"info": entry.info.model_copy(update={"frame_rate": 20.0})})
    job = latents_job(entry, "unquantized")
    fast, stretched = (Frames(of, job, reading.clips, FEW, store) for of in (entry, slow))
    assert (len(fast), fast[0].dtype, fast[0].shape[1]) == (12, np.float32, 64)
    assert len(stretched[0]) == np.ceil(len(fast[0]) * 2.5)
    paired = FEW.model_copy(update={"options": FEW.options | {"maximum_hz": 50}})
    half = Frames(entry, job, reading.clips, paired, store)[0]
    assert half.shape == (np.ceil(len(fast[0]) / 2), 128)
    assert half[0].tolist() == fast[0][:2].ravel().tolist()
    codes = Frames(registry.find("random-codes"), tokens_job(registry.find("random-codes")), reading.clips, FEW, store)
    assert (codes[0].dtype, codes.sizes) == (np.int64, registry.find("random-codes").info.codebook_sizes)


def test_two_languages_are_an_error(reading, store):
    folder = reading.clips[0].path.parent
    changed = [row | {"language": "en" if at else "zh"} for at, row in enumerate(read_rows(folder))]
    (folder / "other").mkdir()
    for row in changed:
        row["path"] = f"../{row['path']}"
    from earmark.data.manifest import read_manifest

    write_manifest(folder / "other", changed)
    clips = read_manifest(folder / "other" / "manifest.csv")["reading"]
    mixed = labelled(cards._dataset(reading.card, clips, None), TASK)
    with pytest.raises(ValueError, match="transcripts in en, zh"):
        probe_asr.language_of(mixed)


def test_another_vocabulary_is_another_protocol(reading, store, monkeypatch, tmp_path):
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    subwords = FEW.model_copy(update={"steps": 1, "options": FEW.options | {"vocabulary": "speech2text", "folds": 1}})
    monkeypatch.setattr(probe_asr, "_recipe", lambda protocol, mode, preset: subwords)
    found = heard_in("logmel", "unquantized", reading, store)
    assert found.protocol == "earmark-characters"
    assert found.title == "Earmark's probe, characters, version 1"
    assert any("hf download" in note for note in found.found("cer", "ctc").notes)


def test_what_is_said_without_listening_is_from_training_clips_alone(reading, store, monkeypatch):
    asked = []
    monkeypatch.setattr(recognition, "always", lambda texts, errors: asked.append(texts) or f"{len(asked)}")
    found = heard_in("logmel", "unquantized", reading, store)
    folds = found.labelled.folds()
    assert asked == [[found.labelled.labels[at] for at in fold.train] for fold in folds for _ in ("wer", "cer")]
    for at, fold in enumerate(folds):
        said = [
            {found.always[metric][found.labelled.clips[clip].id] for clip in fold.test} for metric in ("wer", "cer")
        ]
        assert said == [{f"{2 * at + 1}"}, {f"{2 * at + 2}"}]


def test_random_latents_stand_beside_a_score(reading, store):
    entry, of = registry.find("logmel"), (reading, TASK, "earmark", "quick", store)
    others = probe_asr.beside(entry, "quick", *of)
    notes = words(entry, "unquantized", *of).found("cer", "ctc", others).notes
    assert any(note.startswith("random latents: ") for note in notes)
    assert probe_asr.beside(registry.find("random-latents"), "quick", *of) == {}
    assert set(probe_asr.beside(registry.find("tiny-2"), "paper", *of)) == {"random latents", "log-mel"}


def test_a_probe_that_writes_nothing_says_so(reading, store, monkeypatch):
    """Blanks alone are an error rate of 1, and no better than without listening; it says in how many clips."""
    found = heard_in("logmel", "unquantized", reading, store)
    silent = replace(found, heard={clip: [""] for clip in found.heard}).found("cer", "ctc")
    assert silent.value == 1
    assert {"nothing was heard in 11 of 11 clips", "not better than without listening"} <= set(silent.notes)
    half = replace(found, heard={clip: ["", "a"] for clip in found.heard})  # one of two seeds writes
    assert not any("nothing was heard" in note for note in half.found("cer", "ctc").notes)


def test_chinese_has_no_word_errors(reading, store):
    found = heard_in("logmel", "unquantized", reading, store)
    assert found.metrics == ("wer", "cer", "iwer")
    assert replace(found, language="cmn").metrics == ("cer",)


def test_the_mode_is_what_the_decoder_gets():
    assert modes(registry.find("tiny-2"), "quick") == ["quantized"]
    assert modes(registry.find("tiny-2"), "paper") == ["unquantized", "quantized", "codebook:0"]
    assert modes(registry.find("logmel"), "quick") == ["unquantized"]


# -- retrieval --------------------------------------------------------------------------------------------------------


def test_recalls_say_among_how_many_and_what_chance_finds(reading, store):
    found = {r.variant + r.metric: r for r in probe_retrieval.recalls(
        registry.find("random-latents"), reading, "earmark", "quick", store)}  # fmt: skip
    to_text = found["audio_to_text_caption_earmark_unquantizedrecall_at_1"].found
    assert to_text.n == 12
    assert "among 4 clips and 8 captions" in to_text.notes
    assert "at random: 0.250" in to_text.notes  # two of eight captions are the clip's
    back = found["text_to_audio_caption_earmark_unquantizedrecall_at_1"].found
    assert "at random: 0.250" in back.notes  # one of four clips
    both = found["both_caption_earmark_unquantizedrecall_at_1"].found
    assert both.value == pytest.approx((to_text.value + back.value) / 2)
    assert not any("recall_at_5" in name for name in found)  # of four clips, five are all


def test_recalls_are_kept(reading, store, monkeypatch):
    from earmark.probes import towers

    asked = (registry.find("random-latents"), reading, "earmark", "quick", store)
    first = [(r.metric, r.variant, r.found.value) for r in probe_retrieval.recalls(*asked)]
    monkeypatch.setattr(towers, "retrieve", None)
    assert [(r.metric, r.variant, r.found.value) for r in probe_retrieval.recalls(*asked)] == first


def test_each_fold_is_asked_with_each_seed(reading, store, monkeypatch):
    from earmark.probes import towers

    real, asked = towers.retrieve, []

    def retrieve(recipe, captioned, fold, seed, *rest):
        asked.append((tuple(fold.test.tolist()), seed))
        return real(recipe.model_copy(update={"epochs": 1, "rates": (0.001,)}), captioned, fold, seed, *rest)

    monkeypatch.setattr(towers, "retrieve", retrieve)
    found = [*probe_retrieval.recalls(registry.find("random-latents"), reading, "earmark", "paper", store)]
    folds = [tuple(range(at, at + 4)) for at in (0, 4, 8)]
    assert set(asked) == {(fold, seed) for fold in folds for seed in (0, 1, 2)}
    assert all(0 <= value <= 1 for reading in found for value in reading.found.values.values())


def test_aggregates_take_inverted_wer_and_the_recall_of_both_ways():
    from types import SimpleNamespace

    from earmark.reports.aggregate import results

    named = {
        "iwer_ctc_transcript_xares_quantized": 0.7,
        "recall_at_1_both_caption_xares_quantized": 0.4,
        "recall_at_1_audio_to_text_caption_xares_quantized": 0.3,
        "wer_ctc_transcript_xares_quantized": 0.3,
    }
    scores = [
        SimpleNamespace(codec="a", dataset="d", metric=name, value=value, n=9, time="") for name, value in named.items()
    ]
    found = results(scores, "xares", ["quantized"])["a"]
    assert {task: result.value for (_, task), result in found.items()} == {"transcript": 0.7, "caption": 0.4}
