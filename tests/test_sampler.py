"""The embedded data is whole, audible, labelled as its cards say, and split so that no group is on both sides."""

import csv
import hashlib
import itertools
import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from earmark.tests.helpers import ROOT

SAMPLER = ROOT / "data" / "sampler"
ROWS = list(csv.DictReader((SAMPLER / "manifest.csv").read_text(encoding="utf-8").splitlines()))
CARDS = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "data" / "cards").glob("sampler_*.yaml"))]
TASKS = [pytest.param(card, task, id=f"{card['name']}-{task['name']}") for card in CARDS for task in card["tasks"]]
DATASETS = ("sampler_music", "sampler_notes", "sampler_sounds", "sampler_speech")
FAMILIES = (
    *("opus", "mp3", "aac", "amr", "encodec", "dac", "mimi", "lyra", "snac", "tiny", "vorbis", "g711", "g722", "evs"),
    *("bigcodec", "codec2", "wavtokenizer", "soundstream", "speex", "xcodec", "glm", "vibe", "flow", "moshi", "stable"),
)


def rows_of(dataset: str) -> list[dict[str, str]]:
    return [row for row in ROWS if row["dataset"] == dataset]


@pytest.fixture(scope="module")
def wavs() -> dict[str, tuple[np.ndarray, int]]:
    """Every clip: float32 [L] and its sample rate."""
    return {row["path"]: soundfile.read(SAMPLER / row["path"], dtype="float32") for row in ROWS}


def test_every_dataset_has_a_card_and_clips():
    assert tuple(card["name"] for card in CARDS) == DATASETS
    assert {row["dataset"] for row in ROWS} == set(DATASETS)
    assert all(card["source"] == {"folder": "sampler", "dataset": card["name"]} for card in CARDS)


def test_manifest_and_folder_hold_the_same_files():
    there = {path.relative_to(SAMPLER).as_posix() for path in SAMPLER.rglob("*.flac")}
    assert {row["path"] for row in ROWS} == there
    assert len(ROWS) == len(there)


def test_each_file_is_the_manifests():
    changed = [r["path"] for r in ROWS if hashlib.sha256((SAMPLER / r["path"]).read_bytes()).hexdigest() != r["sha256"]]
    assert not changed
    assert len({row["sha256"] for row in ROWS}) == len(ROWS), "two clips are the same"


def test_headers_agree_with_the_manifest():
    for row in ROWS:
        info = soundfile.info(SAMPLER / row["path"])
        told = (int(row["sample_rate"]), int(row["channels"]), round(float(row["seconds"]) * info.samplerate))
        assert (info.samplerate, info.channels, info.frames) == told, row["path"]
        assert (info.samplerate, info.channels, info.subtype) == (24000, 1, "PCM_16"), row["path"]


def test_it_is_small():
    assert sum(path.stat().st_size for path in SAMPLER.rglob("*") if path.is_file()) <= 25e6


def test_no_clip_is_silent_or_clipped(wavs):
    for path, (wav, _) in wavs.items():
        assert np.isfinite(wav).all(), path
        assert 0.2 <= np.abs(wav).max() <= 0.98, path
        assert np.sqrt(np.mean(wav**2)) > 0.01, path


@pytest.mark.parametrize("column", ["fold", "split"])
@pytest.mark.parametrize("dataset", DATASETS)
def test_no_group_is_on_two_sides(dataset, column):
    sides = defaultdict(set)
    for row in rows_of(dataset):
        assert row["group"], row["path"]
        assert row[column], row["path"]
        sides[row["group"]].add(row[column])
    assert all(len(side) == 1 for side in sides.values())
    assert len({row[column] for row in rows_of(dataset)}) >= 3


def test_no_sentence_is_in_two_sentence_folds():
    folds = defaultdict(set)
    for row in rows_of("sampler_speech"):
        folds[row["sentence"]].add(row["sentence_fold"])
    assert all(len(fold) == 1 for fold in folds.values())


@pytest.mark.parametrize(("card", "task"), TASKS)
def test_every_task_has_its_targets(card, task):
    values = [row[task["target"]] for row in rows_of(card["name"]) if row[task["target"]]]
    if task["kind"] == "multi_label":
        values = [label for value in values for label in value.split(";")]
    if task["kind"] == "events":
        values = [event["label"] for value in values for event in json.loads(value)]
    if task["kind"] == "regression":
        assert all(np.isfinite(float(value)) for value in values)
    assert len(set(values)) >= 2
    if task["kind"] in ("classification", "verification", "multi_label", "events"):
        assert min(Counter(values).values()) >= 4, "a label is too rare to be learned and tested"
    if task["kind"] == "retrieval":
        assert len(set(values)) == len(values), "two clips cannot be told apart by their text"


@pytest.mark.parametrize(("card", "task"), [p for p in TASKS if p.values[1]["kind"] == "classification"])
def test_whatever_is_held_out_is_known_from_training(card, task):
    """With one fold held out, each class of it is among the others. Speaker identity holds out sentences instead."""
    fold = "sentence_fold" if task["target"] == "speaker" else "fold"
    classes = defaultdict(set)
    for row in rows_of(card["name"]):
        if row[task["target"]]:
            classes[row[fold]].add(row[task["target"]])
    for held_out, seen in classes.items():
        assert seen <= set().union(*(others for name, others in classes.items() if name != held_out))


def test_each_shared_sentence_is_said_by_every_speaker():
    said = defaultdict(set)
    for row in rows_of("sampler_speech"):
        if row["phrase"]:
            said[row["transcript"]].add(row["speaker"])
    assert len(said) >= 6
    assert all(len(speakers) == 10 for speakers in said.values())


def test_transcripts_are_lower_case_words():
    for row in rows_of("sampler_speech"):
        assert row["transcript"].replace(" ", "").isalpha() or row["language"] != "en", row["path"]
        assert row["transcript"] == row["transcript"].lower()


def pitch_hz(wav: np.ndarray, sample_rate: int, low: float = 60, high: float = 500) -> float:
    """Median over 80 ms frames of the first peak of the autocorrelation that is nearly its highest."""
    length, found = int(0.08 * sample_rate), []
    first, last = int(sample_rate / high), int(sample_rate / low)
    for start in range(0, len(wav) - length, length // 2):
        frame = wav[start : start + length] - wav[start : start + length].mean()
        if np.sqrt(np.mean(frame**2)) < 0.02:
            continue
        alike = np.fft.irfft(np.abs(np.fft.rfft(frame, 2 * length)) ** 2)[: last + 2]
        alike = alike / alike[0] / (1 - np.arange(last + 2) / length)
        inner = alike[first : last + 1]
        peaks = (
            (inner >= alike[first - 1 : last]) & (inner >= alike[first + 1 : last + 2]) & (inner > 0.9 * inner.max())
        )
        if inner.max() > 0.6 and peaks.any():
            found.append(sample_rate / (first + np.flatnonzero(peaks)[0]))
    return float(np.median(found))


def test_speakers_differ_in_pitch_by_at_least_four_percent(wavs):
    heard = {}
    for row in rows_of("sampler_speech"):
        if row["sentence"].startswith("unique"):
            heard[row["speaker"], row["sex"]] = pitch_hz(*wavs[row["path"]])
    assert len(heard) == 10
    ordered = sorted(heard.values())
    assert min(b / a for a, b in itertools.pairwise(ordered)) > 1.04
    assert max(hz for (_, sex), hz in heard.items() if sex == "M") < min(h for (_, s), h in heard.items() if s == "F")


def test_notes_sound_at_their_pitch(wavs):
    """Within 50 cents, a quarter tone; A4 (69) is 440 Hz."""
    for row in rows_of("sampler_notes"):
        wav, sample_rate = wavs[row["path"]]
        hz = pitch_hz(wav[int(0.1 * sample_rate) : int(0.6 * sample_rate)] / np.abs(wav).max(), sample_rate, 150, 700)
        assert abs(1200 * np.log2(hz / 440) - 100 * (int(row["pitch"]) - 69)) < 50, row["path"]


def test_arousal_and_valence_are_the_stated_formula():
    for row in rows_of("sampler_music"):
        tempo = min(max((float(row["tempo_bpm"]) - 60) / 120, 0), 1)
        assert float(row["arousal"]) == pytest.approx(0.5 * tempo + 0.5 * float(row["dynamics"]), abs=1e-3)
        assert float(row["valence"]) == pytest.approx(0.7 * (row["chord"] == "major") + 0.3 * tempo, abs=1e-3)


def level_db(wav: np.ndarray) -> float:
    return 10 * np.log10(np.mean(wav**2) + 1e-12)


def test_events_are_where_they_are_said_to_be(wavs):
    """One after the other, inside the clip; 50 ms before an onset it is quiet, and 20 dB louder after it."""
    scenes = [row for row in rows_of("sampler_sounds") if row["events"]]
    for row in scenes:
        (wav, sample_rate), events, end = wavs[row["path"]], json.loads(row["events"]), 0.0
        for event in events:
            assert end < event["onset_s"] < event["offset_s"] <= float(row["seconds"]), row["path"]
            end, onset, step = event["offset_s"], round(event["onset_s"] * sample_rate), sample_rate // 20
            rise = level_db(wav[onset : onset + step]) - level_db(wav[onset - step : onset])
            assert rise > 20, f"{row['path']}: {event['label']}"
        assert row["tags"] == ";".join(sorted(event["label"] for event in events))
    assert len(scenes) == 40


def test_no_name_contains_a_codec_family():
    names = {*DATASETS, *(Path(row["path"]).stem for row in ROWS), *(t["name"] for c in CARDS for t in c["tasks"])}
    assert not [(name, family) for name in names for family in FAMILIES if family in name]
