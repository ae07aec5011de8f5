"""Every card in every layout that it knows: a miniature of it is indexed to the rows that its publishers mean."""

import io
import json
import tarfile

import numpy as np
import pytest
import soundfile

from earmark.data import audio, cards, checks, splits
from earmark.data.errors import DataError
from earmark.data.index import index
from earmark.data.layouts import READERS, LayoutError
from earmark.data.layouts import read as read_layout
from earmark.data.layouts.rows import Files
from earmark.data.manifest import read_manifest
from earmark.data.schema import Card, Layout
from earmark.tests import trees

WRITTEN = list(cards.written().values())
CASES = [pytest.param(c, n, id=f"{c.name}-{x.reader}") for c in WRITTEN for n, x in enumerate(c.layouts)]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize(("card", "number"), CASES)
def test_a_miniature_is_indexed_as_its_publishers_mean_it(tmp_path, home, card, number):
    layout = card.layouts[number]
    expected = trees.build(tmp_path / "tree", card, layout)
    only = card.model_copy(update={"layouts": (layout,)})
    made = index(only, tmp_path / "tree", cards.manifest_of(card))
    clips = cards.load(only).clips
    assert not made.unreadable
    assert (made.rows, len(clips)) == (len(expected), len(expected))
    for end, columns in expected.items():
        (clip,) = [clip for clip in clips if clip.id.endswith(end)]
        assert {name: clip.fields.get(name, "") for name in columns} == columns
        assert audio.read_clip(clip)[0].shape == (1, 400)  # each is .05 s at 8 kHz
        assert clip.seconds == pytest.approx(0.05)
    held_out_as_its_card_says(only)
    assert not [line for task in card.tasks for line in checks._labels(cards.load(only), task) if "none of the" in line]


def held_out_as_its_card_says(card: Card) -> None:
    """Where the layout has what a task asks for: two sides at least, and no group on both."""
    dataset = cards.load(card)
    for task in card.tasks:
        if any(clip.fields.get(task.target) for clip in dataset.clips):
            found = list(checks._held_out(dataset, task))
            assert not [line for line in found if "several sides" in line], found
            rule = task.held_out or card.held_out
            known = rule is None or rule.column or rule.by in ("group", "path") or dataset.clips[0].fields.get(rule.by)
            if known and len({clip.group for clip in dataset.clips}) >= 5:
                assert len(set(splits.sides(dataset, task).values())) >= 2


def test_every_reader_is_in_a_card():
    assert {layout.reader for card in WRITTEN for layout in card.layouts} == set(READERS)


@pytest.mark.parametrize("card", [pytest.param(c, id=c.name) for c in WRITTEN if c.layouts])
def test_an_empty_folder_is_an_error_that_says_what_was_looked_for(tmp_path, home, card):
    with pytest.raises(
        DataError, match=f"not laid as {card.name} is published. Looked for:\n  {card.layouts[0].reader}: "
    ):
        index(card, tmp_path, cards.manifest_of(card))
    assert not cards.manifest_of(card).exists()


def test_the_second_layout_is_tried_where_the_first_is_not_there(tmp_path, home):
    card = cards.cards()["esc50"]
    trees.build(tmp_path / "tree", card, card.layouts[1])
    index(card, tmp_path / "tree", cards.manifest_of(card))
    assert cards.select(["esc50"]) == [card]
    assert card in cards.present()


def test_a_label_that_the_card_does_not_know_is_an_error(tmp_path):
    trees.write(tmp_path / "AudioWAV" / "1001_DFA_XXX_XX.wav")
    layout = cards.cards()["crema_d"].layouts[1]
    with pytest.raises(LayoutError, match="emotion is 'XXX', expected one of ANG, DIS"):
        [*read_layout(layout, tmp_path)]


def test_an_unknown_reader_gives_the_nearest(tmp_path):
    with pytest.raises(LayoutError, match="unknown reader 'folder'; did you mean folders"):
        read_layout(Layout(reader="folder"), tmp_path)


def test_archives_are_read_where_they_lie(tmp_path, home):
    """Nothing is unpacked: beside the archive there is then a manifest, and a clip is what the archive holds."""
    wav = trees.wav_bytes()
    with tarfile.open(tmp_path / "gtzan_fold_0_0000000.tar", "w") as tar:
        trees._add(tar, "blues.00000.wav", wav)
        trees._add(tar, "blues.00000.json", b'{"genre": "blues"}')
    layout = Layout(reader="webdataset", tars={"0": "gtzan_fold_0*.tar"}, side="fold", columns={"genre": "genre"})
    card = cards.cards()["gtzan"].model_copy(update={"layouts": (layout,)})
    index(card, tmp_path, cards.manifest_of(card))
    (clip,) = cards.load(card).clips
    np.testing.assert_array_equal(audio.read_clip(clip)[0], soundfile.read(io.BytesIO(wav), dtype="float32")[0][None])
    assert sorted(path.name for path in home.rglob("*") if path.is_file()) == ["manifest.parquet"]
    (tmp_path / "gtzan_fold_0_0000000.tar").write_bytes(b"\0" * 20000)
    with pytest.raises(audio.AudioError, match=r"blues.00000.wav: its sha256 is not the manifest's"):
        audio.read_clip(clip)


@pytest.mark.parametrize("inside", ["a member", "a header", "the first header"])
def test_an_archive_that_breaks_off_is_an_error_wherever_it_does(tmp_path, inside):
    """Not fewer clips: `tarfile` takes half a header for the archive's end."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name in "ab":
            trees._add(tar, f"{name}.wav", trees.wav_bytes())
            trees._add(tar, f"{name}.json", b"{}")
        (second,) = (member.offset for member in tar.getmembers() if member.name == "b.wav")
    content = path.read_bytes()
    path.write_bytes(content[: {"a member": second + 700, "a header": second + 100, "the first header": 100}[inside]])
    with pytest.raises(LayoutError, match=r"a.tar: not an archive of samples \(unexpected end of data"):
        [*read_layout(Layout(reader="webdataset"), tmp_path)]


def test_long_recordings_become_rows_of_segments_with_their_own_events(tmp_path, home):
    """A recital of 70 s in rows of 30 s: two whole ones; a note from 29 to 31 s is in both, by the clock of each."""
    card = cards.cards()["maestro"]
    notes = [{"note": 60, "start": 1.0, "end": 2.0}, {"note": 64, "start": 29.0, "end": 31.0}]
    with tarfile.open(tmp_path / "maestro_test_0.tar", "w") as tar:
        trees._add(tar, "recital.wav", trees.wav_bytes(70.0))
        trees._add(tar, "recital.json", json.dumps(notes).encode())
    layout = card.layouts[0].model_copy(update={"tars": {"test": "maestro_test*.tar"}})
    index(card.model_copy(update={"layouts": (layout,)}), tmp_path, cards.manifest_of(card))
    first, second = cards.load(card).clips
    assert [clip.seconds for clip in (first, second)] == [30.0, 30.0]
    assert first.group == second.group
    assert first.sha256 != second.sha256
    assert json.loads(first.fields["events"])[1] == {"label": "64", "onset_s": 29.0, "offset_s": 30.0}
    assert json.loads(second.fields["events"]) == [{"label": "64", "onset_s": 0.0, "offset_s": 1.0}]
    whole = soundfile.read(io.BytesIO(audio._bytes(first.path, first.part)), dtype="float32")[0]
    np.testing.assert_array_equal(audio.read_clip(second)[0][0], whole[240000:480000])


def test_only_the_first_seconds_count_where_the_card_says_so(tmp_path, home):
    """MTG-Jamendo: 150 s in segments of 10 s; a track of 25 s gives two, one of 4 s stays whole."""
    card = cards.cards()["mtg_jamendo"]
    trees.build(tmp_path, card, card.layouts[0])
    for path, seconds in zip(sorted(tmp_path.rglob("*.mp3")), (200.0, 25.0, 4.0), strict=True):
        path.write_bytes(trees.wav_bytes(seconds))
    index(card, tmp_path, cards.manifest_of(card))
    clips = cards.load(card).clips
    assert [sum(clip.fields["track"] == t for clip in clips) for t in ("track_0", "track_1", "track_2")] == [15, 2, 1]


def test_a_file_that_is_no_audio_is_listed_and_stays_for_the_run_to_count(tmp_path, home):
    card = cards.cards()["cat_dog"]
    trees.build(tmp_path, card, card.layouts[0])
    trees.write(tmp_path / "cats_dogs" / "cat_99.wav", "not audio")
    made = index(card, tmp_path, cards.manifest_of(card))
    assert [*made.unreadable] == ["cats_dogs/cat_99.wav"]
    dataset = cards.load(card)
    assert len(dataset.clips) == 7
    found = list(checks.problems(dataset))
    assert "7 clips; the card says 277" in found
    assert any(line.startswith("1 clips cannot be read (not readable as audio") for line in found)


def test_a_hand_made_repository_reads_as_the_library_reads_it(tmp_path):
    """Audio features, samples with a rate, and class labels, as the hub's files have them."""
    import datasets

    samples = [np.linspace(-0.5, 0.5, 80, dtype=np.float32).tolist()]
    features = datasets.Features({"audio": {"array": datasets.List(datasets.Value("float32")),
                                            "sampling_rate": datasets.Value("int64")},
                                  "label": datasets.ClassLabel(names=["cat", "dog"])})  # fmt: skip
    rows = {"audio": [{"array": samples[0], "sampling_rate": 8000}], "label": [1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet")
    (row,) = read_layout(Layout(reader="arrow", files="*.parquet", columns={"label": "label"}), tmp_path)
    assert row.columns == {"label": "dog"}
    wav, rate = soundfile.read(io.BytesIO(row.content), dtype="float32")
    assert rate == 8000
    assert row.path == "train.parquet/000000.wav"
    np.testing.assert_array_equal(wav, np.float32(samples[0]))


def test_a_manifest_is_read_anew_after_indexing(tmp_path, home):
    card = cards.cards()["cat_dog"]
    trees.build(tmp_path, card, card.layouts[0])
    index(card, tmp_path, cards.manifest_of(card))
    before = read_manifest(cards.manifest_of(card))["cat_dog"]
    trees.write(tmp_path / "cats_dogs" / "cat_7.wav")
    index(card, tmp_path, cards.manifest_of(card))
    assert len(read_manifest(cards.manifest_of(card))["cat_dog"]) == len(before) + 1


def test_audio_out_of_tables_has_the_same_name_wherever_the_dataset_lies(tmp_path, monkeypatch):
    """Names and fingerprint hold no path of this machine."""
    card, found = cards.cards()["collected_scenes"], []
    trees.build(tmp_path / "tree", card, card.layouts[0])
    for home in ("one", "another/place"):
        monkeypatch.setenv("EARMARK_HOME", str(tmp_path / home))
        index(card, tmp_path / "tree", cards.manifest_of(card))
        found.append(cards.load(card))
    assert found[0].fingerprint == found[1].fingerprint
    assert [clip.id for clip in found[0].clips] == [f"audio/some/folder/a__b.parquet/00000{n}.wav" for n in range(3)]
    assert found[0].clips[0].path != found[1].clips[0].path


def test_a_dataset_that_breaks_off_leaves_no_manifest(tmp_path, monkeypatch):
    """A table that names a file that is not there, after one that is."""
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path / "home"))
    card = cards.cards()["fsdkaggle2018"]
    trees.build(tmp_path / "tree", card, card.layouts[1])
    sorted((tmp_path / "tree").rglob("*test*/*"))[0].unlink()
    with pytest.raises(DataError, match="is not there; get the dataset again, whole"):
        index(card, tmp_path / "tree", cards.manifest_of(card))
    assert not cards.manifest_of(card).exists()


def test_what_other_codecs_made_of_a_dataset_is_never_taken_for_it(tmp_path, monkeypatch):
    """Repositories of Codec-SUPERB have the recordings beside nineteen reconstructions of them."""
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path / "home"))
    for name in ("audioset", "libri2mix", "gunshot_triangulation"):
        card, tree = cards.cards()[name], tmp_path / name
        trees.build(tree, card, card.layouts[0])
        (original,) = tree.rglob("original-*.parquet")
        original.with_name("encodec_24k_6bps-00000-of-00001.parquet").write_bytes(original.read_bytes())
        index(card, tree, cards.manifest_of(card))
        assert len(cards.load(card).clips) == 3
        assert card.source.files == ("**/original-*.parquet",)


def test_the_one_column_of_audio_is_found_by_its_type(tmp_path):
    import datasets

    rows = [{"recording": {"bytes": trees.wav_bytes(), "path": "x.wav"}, "text": "a"}]
    table = datasets.Dataset.from_list(rows).cast_column("recording", datasets.Audio(decode=False))
    table.to_parquet(tmp_path / "a.parquet")
    (row,) = read_layout(Layout(reader="arrow", files="*.parquet"), tmp_path)
    assert row.content == rows[0]["recording"]["bytes"]
    table.remove_columns("recording").to_parquet(tmp_path / "a.parquet")
    with pytest.raises(LayoutError, match="no column 'audio'; it has text"):
        [*read_layout(Layout(reader="arrow", files="*.parquet"), tmp_path)]


def test_several_labels_in_one_line_are_several_events(tmp_path):
    rows = [{"onset": 1.0, "offset": 2.0, "label": "Speech,Dog"}, {"onset": 0.5, "offset": 3.0, "label": "Cat"}]
    with tarfile.open(tmp_path / "wds-audio-eval-0.tar", "w") as tar:
        trees._add(tar, "a.wav", trees.wav_bytes())
        trees._add(tar, "a.json", json.dumps(rows).encode())
    layout = cards.cards()["desed"].layouts[0].model_copy(update={"tars": {"test": "*eval*.tar"}})
    (row,) = read_layout(layout, tmp_path)
    found = [(event["label"], event["onset_s"]) for event in json.loads(row.columns["events"])]
    assert found == [("Cat", 0.5), ("Speech", 1.0), ("Dog", 1.0)]


def test_files_are_found_by_name_and_folder(tmp_path):
    for path in ("x/a/1.wav", "x/b/1.wav", "x/b/deep/1.wav", "1.wav", "x/train_splits/[odd] *.wav"):
        trees.write(tmp_path / path, "x")
    files = Files(tmp_path)
    assert [files.at(p) for p in ("**/a/1.wav", "**/b/1.wav", "**/deep/1.wav")] == [
        "x/a/1.wav", "x/b/1.wav", "x/b/deep/1.wav"
    ]  # fmt: skip
    assert (files.at("1.wav"), files.at("b/1.wav"), files.at("x/*/1.wav")) == ("1.wav", None, "x/a/1.wav")
    assert files.at("**/*train*/[odd] *.wav") == "x/train_splits/[odd] *.wav"
    assert files.at("**/c/1.wav") is None
