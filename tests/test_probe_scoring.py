"""Probes joined to the store: what they are given, what stands beside a score, what is kept, what fails."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from earmark.codecs import calls, registry
from earmark.data import cards
from earmark.data.schema import HeldOut, Task
from earmark.metrics import METRICS
from earmark.probes import protocol
from earmark.scoring import measure, metric_variants, probes
from earmark.scoring.chance import chance
from earmark.scoring.found import Found
from earmark.scoring.probes import features, frames_of, labelled, means_of, read_out
from earmark.scoring.readings import compared, confusions, readings
from earmark.store.jobs import latents_job
from earmark.store.store import Store
from earmark.tests.helpers import read_rows, write_dataset, write_manifest

OWN = "earmark.tests.own_codecs"
RATE = 16000


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", "cpu", "run")


@pytest.fixture
def tones(tmp_path, monkeypatch):
    """Forty clips of four tones by ten players, each of its own length, with labels for every kind of task."""
    rng = np.random.default_rng(0)
    wavs, rows = {}, []
    for clip in range(40):
        tone, player = clip % 4, clip // 4
        time = np.arange(int(RATE * (0.3 + 0.02 * player))) / RATE
        wav = 0.3 * np.sin(2 * np.pi * (300 * 2**tone) * time) + 0.01 * rng.standard_normal(len(time))
        wavs[f"{clip:02}.wav"] = wav.astype(np.float32)
        rows.append({"label": f"tone{tone}", "speaker": f"player{player}", "seconds": str(len(time) / RATE)})
    folder = write_dataset(tmp_path / "data", wavs, dataset="tones", domain="music")
    added = [row | {"fold": str(clip // 4 % 5 + 1), "height": row["label"][-1]} for clip, row in enumerate(rows)]
    write_manifest(folder, [one | other for one, other in zip(read_rows(folder), added, strict=True)])
    monkeypatch.setenv("EARMARK_DATA", str(folder))
    plain = cards.cards()["tones"]
    tasks = (
        Task(name="tone", kind="classification", target="label"),
        Task(name="height", kind="regression", target="height"),
        Task(name="players", kind="verification", target="speaker"),
        Task(name="tags", kind="multi_label", target="label"),
    )
    return cards.load(plain.model_copy(update={"tasks": tasks}))


def by_metric(entry, dataset, kind, name, store):
    return {reading.metric: reading for reading in readings(registry.find(entry), dataset, kind, name, store)}


def test_means_are_of_the_own_frames_of_each_clip(tones, store):
    """Clips of ten lengths go through one shard, so through one padded call where a codec takes batches."""
    entry = registry.find("logmel")
    asked = (entry, "unquantized", tones.clips, store)
    for mean, frames in zip(means_of(*asked), frames_of(*asked), strict=True):
        latents = frames.arrays["latents"].astype(np.float64)
        assert latents.shape[1] == frames.facts["frames"]
        np.testing.assert_allclose(mean.arrays["mean"], latents.mean(1), rtol=1e-6)


def test_means_keep_no_frames_and_are_made_of_those_that_are_kept(tones, store, monkeypatch):
    entry = registry.find("tiny-2")
    kept = [store.folder(latents_job(entry, kind)) for kind in ("unquantized", "quantized")]
    list(means_of(entry, "unquantized", tones.clips, store))
    assert not kept[0].exists()
    frames = list(frames_of(entry, "quantized", tones.clips, store))
    assert kept[1].exists()
    monkeypatch.setattr(calls, "latents", None)  # would be an error
    made = list(means_of(entry, "quantized", tones.clips, store))
    assert [mean.facts["frames"] for mean in made] == [clip.arrays["latents"].shape[1] for clip in frames]
    assert len(list(means_of(entry, "unquantized", tones.clips, store))) == 40


def test_scores_say_what_stands_beside_them(tones, store):
    found = by_metric("logmel", tones, "classification", "earmark", store)
    assert set(found) == {"accuracy", "macro_f1"}
    reading = found["accuracy"]
    assert (reading.variant, reading.found.n) == ("tone_earmark_unquantized", 40)
    assert reading.found.value == 1.0
    assert any(note.startswith("without listening: 0.250") for note in reading.found.notes)
    assert not any("not better" in note for note in reading.found.notes)
    noise = by_metric("random-latents", tones, "classification", "earmark", store)["accuracy"].found
    assert noise.value < 0.5
    assert any(note.startswith("log-mel: 1.000") for note in noise.notes)
    assert {"not better than without listening", "not better than log-mel"} <= set(noise.notes)


def test_every_kind_of_task(tones, store):
    assert by_metric("logmel", tones, "regression", "earmark", store)["r2"].found.value > 0.6
    assert by_metric("random-latents", tones, "regression", "earmark", store)["r2"].found.value < 0.2
    tags = by_metric("logmel", tones, "multi_label", "xares", store)
    assert {"mean_ap", "roc_auc"} == set(tags)
    coin = by_metric("random-latents", tones, "verification", "earmark", store)["eer"].found
    assert 0.35 < coin.value < 0.65
    assert "not better than without listening" in coin.notes


def test_a_score_is_recorded_under_a_name_that_thresholds_may_use(tones, store):
    reading = by_metric("logmel", tones, "classification", "xares-knn", store)["accuracy"]
    metric, asked = row_of("accuracy"), {"suite": "probe_classification", "preset": "paper", "device": "cpu"}
    entry = registry.find("logmel")
    asked |= {"found": reading.found, "variant": reading.variant, "protocol": reading.protocol}
    made = measure(metric, entry, tones, store, **asked)
    assert made.score.metric == "accuracy_tone_xares-knn_unquantized"
    assert "X-ARES" in made.score.protocol
    assert any(re.fullmatch(pattern, made.score.metric) for pattern in metric_variants())
    assert len(made.values) == 40


def row_of(name):
    return METRICS[name]


def test_every_protocol_is_in_the_names_of_scores():
    for name in protocol.names():
        assert re.fullmatch(row_of("accuracy").variants, f"some_task_{name}_codebook0"), name


def test_the_published_way_of_choosing_is_flagged(tones, store):
    found = by_metric("logmel", tones, "classification", "xares-as-published", store)["accuracy"].found
    assert any("optimistic" in note for note in found.notes)


def test_where_clips_validate_nothing_was_published_that_chooses_on_the_test_clips(tones, store):
    sided = [replace(clip, fields=clip.fields | {"split": ["train", "valid", "test"][at % 3]})
             for at, clip in enumerate(tones.clips)]  # fmt: skip
    card = tones.card.model_copy(update={"held_out": HeldOut(column="split")})
    split = cards._dataset(card, sided, None)
    assert by_metric("logmel", split, "classification", "xares-knn", store)
    assert not by_metric("logmel", split, "classification", "xares-as-published", store)


def test_what_was_taken_for_what_is_of_the_last_latents(tones, store, monkeypatch):
    """Nothing is read or predicted a second time for it."""
    entry = registry.find("tiny-2")
    found = [*readings(entry, tones, "classification", "xares-knn", store)]
    monkeypatch.setattr(probes, "features", None)
    (confusion,) = confusions(found)
    last = found[-1].read
    assert (found[-1].variant, confusion.task) == ("tone_xares-knn_codebook0", "tone")
    assert confusion.names == ("tone0", "tone1", "tone2", "tone3")
    right = [last.said[0, last.of.targets().values == name].argmax(1) == name for name in range(4)]
    np.testing.assert_allclose(np.diag(confusion.shares), [of.mean() for of in right])


def test_what_was_trained_is_read_again_unless_a_label_changed(tones, store, monkeypatch):
    entry, items = registry.find("logmel"), labelled(tones, tones.card.tasks[0])
    first = read_out(entry, "unquantized", items, "earmark", store)
    monkeypatch.setattr(probes, "_train", lambda *of: pytest.fail("trained again"))
    again = read_out(entry, "unquantized", items, "earmark", store)
    np.testing.assert_array_equal(first.said, again.said)
    other = cards.at_most(tones, 30)
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        read_out(entry, "unquantized", labelled(other, other.card.tasks[0]), "earmark", store)


def test_a_clip_that_fails_is_named_and_neither_learned_from_nor_scored(tones, store, monkeypatch):
    from earmark.store.shards import Outcome

    items, lost = labelled(tones, tones.card.tasks[0]), tones.clips[3]
    real = probes.means_of

    def failing(entry, kind, clips, store):
        for clip, outcome in zip(clips, real(entry, kind, clips, store), strict=True):
            yield Outcome(clip.sha256, error="codec failed: it fell over") if clip.id == lost.id else outcome

    monkeypatch.setattr(probes, "means_of", failing)
    found = features(registry.find("logmel"), "unquantized", items, store, of_frames=False)
    assert lost.id not in {clip.id for clip in found.of.clips}
    reading = by_metric("logmel", tones, "classification", "xares-knn", store)["accuracy"].found
    assert reading.errors == {lost.id: "codec failed: it fell over"}
    assert reading.n == 39
    assert lost.id not in reading.values


def test_no_better_than_chance_is_beyond_its_interval():
    beside = {"without listening": Found(0.25, 0.2, 0.3, "", 10)}
    assert compared("accuracy", Found(0.31, 0, 1, "", 10), beside) == ["without listening: 0.250 [0.200, 0.300]"]
    assert compared("accuracy", Found(0.3, 0, 1, "", 10), beside)[1] == "not better than without listening"
    coin = {"without listening": Found(0.5, 0.4, 0.6, "", 10)}
    assert compared("eer", Found(0.39, 0, 1, "", 10), coin)[1:] == []
    assert compared("eer", Found(0.45, 0, 1, "", 10), coin)[1] == "not better than without listening"


def test_chance_that_is_no_measurement_lies_beyond_the_own_interval():
    beside = {"without listening": Found(0.5, math.nan, math.nan, "by definition", 10)}
    assert compared("eer", Found(0.45, 0.4, 0.49, "", 10), beside) == ["without listening: 0.500"]
    assert compared("eer", Found(0.45, 0.4, 0.51, "", 10), beside)[1:] == ["not better than without listening"]
    zero = {"without listening": Found(0.0, math.nan, math.nan, "by definition", 10)}
    assert compared("r2", Found(0.1, -0.1, 0.3, "", 10), zero)[1:] == ["not better than without listening"]
    assert compared("r2", Found(0.1, 0.01, 0.3, "", 10), zero)[1:] == []


def test_chance_by_hand(tones):
    items = labelled(tones, tones.card.tasks[0])
    found = chance(items)
    assert found["accuracy"].value == 0.25
    assert found["macro_f1"].value == pytest.approx(0.4 / 4)  # of one class 2 .25 / (1 + .25), of three 0
    sides = ["test" if at % 4 == 0 or at in (1, 5) else "train" for at in range(39)]
    some = replace(items.of([True] * 39 + [False]), sides=tuple(sides))
    assert chance(some)["accuracy"].value == pytest.approx(10 / 12)  # of the tested clips, not of those learned from
    drawn = chance(labelled(tones, tones.card.tasks[3]))
    assert drawn["roc_auc"].value == pytest.approx(0.5, abs=0.02)
    assert 0.25 < drawn["mean_ap"].value < 0.4
    assert drawn["mean_ap"].low < drawn["mean_ap"].value < drawn["mean_ap"].high


@pytest.mark.parametrize("name", ["sampler_speech", "sampler_music", "sampler_notes", "sampler_sounds"])
def test_no_group_of_the_sampler_is_on_two_sides(name):
    """A speaker, tune, take or site; where who speaks is asked, a sentence."""
    dataset = cards.load(cards.cards()[name])
    for task in dataset.card.tasks:
        if task.kind not in ("classification", "multi_label", "regression", "events"):
            continue
        items = labelled(dataset, task)
        groups = [clip.fields["sentence"] if task.name == "speaker" else clip.group for clip in items.clips]
        tested = []
        for fold in items.folds():
            sides = [{groups[clip] for clip in part} for part in (fold.train, fold.valid, fold.test)]
            assert not sides[0] & sides[2], (name, task.name)
            assert not sides[1] & sides[2], (name, task.name)
            assert not sides[0] & sides[1], (name, task.name)
            tested += fold.test.tolist()
        assert sorted(tested) == list(range(len(items.clips)))


@pytest.mark.parametrize(("name", "tasks"), [("esc10", ["sound"]), ("fsdd", ["digit", "speaker"])])
def test_no_group_of_the_recordings_is_on_two_sides(real, name, tasks):
    dataset = cards.load(cards.cards()[name])
    for task in dataset.card.tasks:
        if task.name not in tasks:
            continue
        items = labelled(dataset, task)
        for fold in items.folds():
            by = [clip.id if task.name == "speaker" else clip.group for clip in items.clips]
            assert not {by[clip] for clip in fold.test} & {by[clip] for clip in [*fold.train, *fold.valid]}
            assert len({items.labels[clip] for clip in fold.train}) == len(set(items.labels))


def test_the_suites_run(earmark_pytest, tmp_path):
    """As a user runs them."""
    from earmark.reports.scores import read_scores

    done = earmark_pytest(
        "suites/test_probe_verification.py", "suites/test_probe_regression.py", "--codec", "logmel",
        "--data", "sampler_music,sampler_speech", "--limit", "24",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    names = {score.metric for score in read_scores(tmp_path / "out" / "scores.jsonl")}
    assert names == {
        "eer_speaker_verification_earmark_unquantized",
        *(f"r2_{task}_earmark_unquantized" for task in ("tempo", "arousal", "valence")),
    }
