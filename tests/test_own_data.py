"""Data of the user's own: a manifest, a card or a folder, named by its path; and manifests in each format."""

import csv
import itertools
import json
import textwrap
from typing import get_args

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from earmark.cli import app
from earmark.data import audio, cards, checks, own, tables
from earmark.data.errors import DataError
from earmark.data.layouts import tables as published
from earmark.data.manifest import ManifestError, read_manifest, write_manifest
from earmark.data.schema import Card, Source, Task, TaskKind
from earmark.reports.scores import read_scores
from earmark.run import Plan
from earmark.store.jobs import prepare
from earmark.tests.helpers import ROOT, read_rows, voice, write_dataset
from earmark.tests.helpers import write_manifest as write_csv


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("EARMARK_DATA", raising=False)
    return tmp_path / "home"


@pytest.fixture
def folder(tmp_path):
    """Six files of three speakers, in a folder with a space in its name, and nothing else."""
    where = tmp_path / "my recordings"
    (where / "deep").mkdir(parents=True)
    for n in range(6):
        soundfile.write(where / "deep" / f"{n}.wav", voice(0.2, 16000, 100 + 10 * n), 16000)
    (where / "notes.txt").write_text("not audio")
    (where / ".hidden").mkdir()
    soundfile.write(where / ".hidden" / "x.wav", voice(0.2, 16000), 16000)
    return where


CARD = "name: x\ntitle: x\nversion: 1\ndomain: speech\nsource: {manifest: m.csv}\nuses: []\nlicence: x\n"


def rows_of(folder) -> list[dict[str, str]]:
    return [{"path": f"deep/{n}.wav", "speaker": f"s{n // 2}", "label": "ab"[n % 2]} for n in range(6)]


def test_a_folder_of_audio_with_nothing_else(folder):
    (card,) = cards.select([f"{folder}/"])
    assert (card.name, card.uses) == ("my_recordings", ("reconstruction",))
    clips = cards.load(card).clips
    assert [clip.id for clip in clips] == [f"deep/{n}.wav" for n in range(6)]
    np.testing.assert_array_equal(audio.read_clip(clips[0])[0], audio.read(folder / "deep" / "0.wav")[0])


def test_a_folder_is_looked_at_again_when_a_file_changes(folder):
    (card,) = cards.select([str(folder)])
    before = cards.load(card)
    assert cards.load(cards.select([str(folder)])[0]).fingerprint == before.fingerprint
    soundfile.write(folder / "deep" / "0.wav", voice(0.3, 16000), 16000)
    assert cards.load(cards.select([str(folder)])[0]).fingerprint != before.fingerprint


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_manifest_needs_no_more_than_paths(folder, suffix):
    path = folder / f"mine{suffix}"
    if suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["path", "speaker", "label"])
            writer.writeheader()
            writer.writerows(rows_of(folder))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows_of(folder)))
    (card,) = cards.select([str(path)])
    assert card.name == "mine"
    clips = cards.load(card).clips
    assert [clip.group for clip in clips] == ["s0", "s0", "s1", "s1", "s2", "s2"]
    assert all(clip.seconds == pytest.approx(0.2) for clip in clips)
    assert {clip.fields["label"] for clip in clips} == {"a", "b"}


def test_a_whole_manifest_is_taken_as_it_is_with_all_its_datasets(tmp_path):
    write_dataset(tmp_path / "x", {"a.flac": voice(0.1, 16000)}, dataset="first", domain="music")
    rows = read_rows(tmp_path / "x")
    write_csv(tmp_path / "x", [*rows, rows[0] | {"dataset": "second"}])
    found = cards.select([str(tmp_path / "x")])
    assert [(card.name, card.domain) for card in found] == [("first", "music"), ("second", "music")]
    assert found[0].source.manifest == str(tmp_path / "x" / "manifest.csv")


def test_a_card_of_the_user_s_own(folder):
    with (folder / "mine.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "speaker", "label"])
        writer.writeheader()
        writer.writerows(rows_of(folder))
    (folder / "my_card.yaml").write_text(
        "name: my_words\ntitle: My words\nversion: 1\ndomain: speech\nsource: {manifest: mine.csv}\n"
        "uses: [reconstruction, probe]\nlicence: mine\nclips: 6\nheld_out: {folds: 3, by: speaker}\n"
        "tasks: [{name: word, kind: classification, target: label, classes: 2}]\n"
    )
    (card,) = cards.select([str(folder / "my_card.yaml")])
    assert list(checks.problems(cards.load(card))) == []
    again = Card.model_validate_json(card.model_dump_json())  # as it goes to the workers of a run
    assert cards.load(again).fingerprint == cards.load(card).fingerprint


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, r"none.csv: no such file or folder"),
        ("no_path.csv", "file\na.wav\n", r"no_path.csv: the column 'path' is missing; .*it has file"),
        ("capital.csv", "Path,label\na.wav,dog\n", r"capital.csv: the column 'path' is missing; .*rename 'Path'"),
        ("excel.csv", "path;label\na.wav;dog\n", r"excel.csv: the column 'path' is missing; .*commas, not ';'"),
        ("no_file.csv", "path,label\n,dog\n", r"no_file.csv:2: the column 'path' is empty"),
        ("no_rows.csv", "path,label\n", r"no_rows.csv: it has no rows"),
        ("empty.csv", "", r"empty.csv: the column 'path' is missing; .*it has none"),
        ("twice.csv", "path,label\na.wav,x\na.wav,y\n", r"twice.csv:3: a.wav is there twice"),
        ("columns.csv", "path,label,label\na.wav,x,y\n", r"columns.csv: the column 'label' is there twice"),
        ("comma.csv", "path,transcript\na.wav,yes, sir\n", r"comma.csv:2: more cells than columns \(' sir'\)"),
        ("long.csv", f"path,text\na.wav,{'x' * 200000}\n", r"long.csv:\d: field larger than"),
        ("soon.csv", "path,end_s\na.wav,soon\n", r"soon.csv:2: end_s is 'soon', expected a number"),
        ("nan.csv", "path,start_s\na.wav,nan\n", r"nan.csv:2: start_s is 'nan', expected a number"),
        ("gone.csv", "path\ngone.wav\n", r"gone.wav: no such file; check the column 'path'"),
        ("broken.jsonl", '{"path": \n', r"broken.jsonl:1: not JSON"),
        ("list.jsonl", "[1]\n", r"list.jsonl:1: expected one JSON object a line"),
        ("bad.parquet", "text", r"bad.parquet: not a Parquet file"),
        ("card.yaml", "name: x\ncolour: red\n", r"card.yaml: not a dataset card: .*colour"),
        (
            "near.yaml",
            CARD + "tasks: [{name: x, kind: asr, target: t, lables: [a]}]",
            r"tasks.0.lables: .*'labels' meant",
        ),
        ("rows.yaml", CARD + "segments: {segment_s: 10}", r"rows of a manifest have start_s and end_s"),
        ("void.yaml", "", r"void.yaml: not a dataset card: the card: "),
        ("torn.yaml", "name: [", r"torn.yaml: not a dataset card: "),
        ("empty/", None, r"empty: no audio below it"),
        ("a/b.txt", "x", r"b.txt: expected a folder of audio, a card"),
    ],
)
def test_what_cannot_be_used_is_one_clear_error(tmp_path, name, content, message):
    path = tmp_path / name
    if name.endswith("/"):
        path.mkdir()
    elif content is not None:
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    with pytest.raises((DataError, ManifestError), match=f"(?s){message}"):
        cards.select([f"{path}/" if name.endswith("/") else str(path)])


def test_a_comma_that_ends_a_line_is_no_cell(folder):
    (folder / "mine.csv").write_text("path,label,,\ndeep/0.wav,x,,,\n")
    (clip,) = cards.load(cards.select([str(folder / "mine.csv")])[0]).clips
    assert clip.fields["label"] == "x"


def test_two_of_one_name_are_an_error_and_not_one_of_them(folder):
    """The second would be measured alone, under the name of both."""
    for at in (folder, folder / "deep"):
        (at / "mine.csv").write_text(f"path\n{'deep/' if at == folder else ''}0.wav\n")
    both = [str(folder / "mine.csv"), str(folder / "deep" / "mine.csv")]
    with pytest.raises(DataError, match=r"deep/mine.csv: there is another 'mine' in --data; rename one of them"):
        cards.select(both)
    assert len(cards.select([both[0], both[0], "sampler", "sampler_notes"])) == 5, "the same again is the same"


def test_columns_that_look_misspelt_are_said_and_the_user_s_own_are_not(folder):
    rows = ["path,speker,Label ,take,microphone,domain", "deep/0.wav,s1,x,1,near,muzic"]
    (folder / "mine.csv").write_text("\n".join(rows) + "\n")
    (card,) = cards.select([str(folder / "mine.csv")])
    assert [*own.remarks(card)] == [
        "mine: nothing reads its column 'Label '; is 'label' meant?",
        "mine: nothing reads its column 'speker'; is 'speaker' meant?",
        "mine: its domain 'muzic' is none of speech, music, sound, general",
    ]
    (folder / "mine.csv").write_text("path,speaker,speker,labels\ndeep/0.wav,s1,s2,x\n")
    (card,) = cards.select([str(folder / "mine.csv")])
    task = Task(name="word", kind="classification", target="labels")
    assert [*own.remarks(card.model_copy(update={"tasks": (task,)}))] == [], "what is read is there, or is asked for"
    assert [remark for card in cards.select(["sampler"]) for remark in own.remarks(card)] == []


def test_check_says_remarks_and_takes_what_is_several_datasets(folder):
    (folder / "mine.csv").write_text("path,dataset,speker\ndeep/0.wav,one,x\ndeep/1.wav,two,x\n")
    done = CliRunner(env={"COLUMNS": "400"}).invoke(app, ["data", "check", str(folder / "mine.csv")])
    assert done.exit_code == 0, done.output
    for name in ("one", "two"):
        assert f"{name}: nothing reads its column 'speker'; is 'speaker' meant?" in done.output
        assert f"{name}: 1 clips, nothing is wrong" in done.output


def test_a_table_of_datasets_is_written_into_a_file_that_is_there(tmp_path):
    done = CliRunner().invoke(app, ["data", "docs", "--write", str(tmp_path / "none.md")])
    assert done.exit_code == 1
    assert "none.md" in done.output
    assert "Traceback" not in done.output


def test_a_file_that_is_no_audio_stays_for_the_run_to_count(folder):
    (folder / "deep" / "5.wav").write_text("not audio")
    clips = cards.load(cards.select([str(folder)])[0]).clips
    assert len(clips) == 6
    with pytest.raises(audio.AudioError, match=r"5.wav: not readable"):
        audio.read_clip(clips[-1])


@pytest.mark.parametrize("name", ["empty.flac", "empty.wav", "empty.mp3", "empty.m4a"])
def test_an_empty_file_costs_itself_and_not_the_run(folder, name):
    (folder / "deep" / name).write_bytes(b"")
    clips = {clip.path.name: clip for clip in cards.load(cards.select([f"{folder}/"])[0]).clips}
    assert len(clips) == 7
    with pytest.raises(audio.AudioError, match=f"{name}: "):
        audio.read_clip(clips[name])


def test_a_folder_that_is_named_as_a_dataset_is_pointed_at(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    with pytest.raises(DataError, match=f"unknown dataset '{folder.name}'.* is written {folder.name}/"):
        cards.select([folder.name])


def test_a_run_takes_comma_lists_and_lists_what_is_corrupt(earmark_pytest, folder, small, tmp_path):
    """One file of six is no audio: named on the terminal, counted in the score, and in no mean."""
    (folder / "deep" / "5.wav").write_text("not audio")
    listed = ["--data", f"{folder}/,small", "--data", "sampler_notes"]
    done = earmark_pytest(
        "suites/test_reconstruction.py", *listed, "--codec", "g711-mulaw", "-k", "test_mse", data=small
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "corrupt clip, in no score: my_recordings: " in done.stdout
    found = {score.dataset: score for score in read_scores(tmp_path / "out" / "scores.jsonl") if score.metric == "mse"}
    assert {name: (score.n, score.no_answer) for name, score in found.items()} == {
        "my_recordings": (5, 1),
        "small": (3, 0),
    }


def test_the_three_formats_give_the_same_clips(tmp_path):
    row = {"path": "a.wav", "dataset": "d", "sha256": "AB", "seconds": "1.5", "label": "x", "start_s": "0.5"}
    write_csv(tmp_path, [row])
    (tmp_path / "manifest.jsonl").write_text(json.dumps(row | {"seconds": 1.5, "start_s": 0.5}))
    write_manifest(tmp_path / "manifest.parquet", [row])
    found = [read_manifest(tmp_path / f"manifest.{kind}")["d"][0] for kind in ("csv", "jsonl", "parquet")]
    assert len({(c.id, c.sha256, c.shard, c.seconds, c.group, tuple(sorted(c.fields.items()))) for c in found}) == 1


def test_a_parquet_manifest_may_lie_elsewhere_than_its_audio(tmp_path):
    write_manifest(tmp_path / "manifest.parquet", [{"path": "a.wav", "dataset": "d", "sha256": "0"}], tmp_path / "far")
    assert read_manifest(tmp_path / "manifest.parquet")["d"][0].path == tmp_path / "far" / "a.wav"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"start_s": "2", "end_s": "1"}, r"manifest.csv:2: the part 2.0 to 1.0 s is none"),
        ({"start_s": "soon"}, r"manifest.csv:2: start_s is 'soon', expected a number"),
        ({"offset": "12"}, r"manifest.csv:2: `offset` and `size` stand together"),
    ],
)
def test_a_part_that_cannot_be_is_an_error(tmp_path, columns, message):
    write_csv(tmp_path, [{"path": "a.wav", "dataset": "d", "sha256": "0"} | columns])
    with pytest.raises(ManifestError, match=message):
        read_manifest(tmp_path / "manifest.csv")


def test_the_fingerprint_follows_the_part_of_a_file(tmp_path):
    def fingerprint(end: str) -> str:
        row = {"path": "a.wav", "dataset": "d", "sha256": "0", "start_s": "0", "end_s": end}
        write_manifest(tmp_path / f"{end}.parquet", [row])
        return cards.load(Card(
            name="d", title="", version=1, domain="speech", uses=(), licence="",
            source=Source(manifest=str(tmp_path / f"{end}.parquet")),
        )).fingerprint  # fmt: skip

    assert fingerprint("1") != fingerprint("2")


# -- earmark data check -----------------------------------------------------------------------------------------------


def checked(tmp_path, rows: list[dict[str, str]], **facts) -> list[str]:
    """What is wrong with a dataset of these rows; `wav` in a row is its sound."""
    for n, row in enumerate(rows):
        wav = row.pop("wav", None)
        soundfile.write(tmp_path / f"{n}.wav", voice(0.2, 16000, 100 + n) if wav is None else wav, 16000)
        row["path"] = f"{n}.wav"
    with (tmp_path / "d.jsonl").open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    (card,) = cards.select([str(tmp_path / "d.jsonl")])
    return list(checks.problems(cards.load(card.model_copy(update=facts))))


def classification(**held_out) -> dict:
    return {"tasks": (Task(name="word", kind="classification", target="label", classes=2, **held_out),)}


def test_check_counts_clips_and_splits(tmp_path):
    rows = [{"split": "train"}, {"split": "train"}, {"split": "test"}]
    found = checked(tmp_path, rows, clips=4, splits={"train": 2, "test": 2})
    assert found == ["3 clips; the card says 4", "1 clips in test; the card says 2"]


def test_check_counts_labels(tmp_path):
    found = checked(tmp_path, [{"label": "a", "fold": "1"}, {"label": "a", "fold": "2"}], **classification())
    assert found == ["task word: 1 labels; the card says 2"]


def test_check_finds_labels_that_the_card_does_not_know(tmp_path):
    found = checked(tmp_path, [{"label": x, "fold": x} for x in "abc"], **classification(labels=("a", "b")))
    assert found == ["task word: c are none of the card's labels"]
    with pytest.raises(ValueError, match="3 labels; expected `classes: 2` of them"):
        classification(labels=("a", "b", "c"))


def test_check_finds_a_speaker_on_both_sides(tmp_path):
    rows = [{"label": x, "speaker": s, "split": side} for x, s, side in
            (("a", "s1", "train"), ("b", "s1", "test"), ("a", "s2", "train"), ("b", "s3", "test"))]  # fmt: skip
    assert checked(tmp_path, rows, **classification()) == ["task word: 1 groups are on several sides: s1"]


def test_check_finds_what_is_held_out_by_a_column_that_is_not_there(tmp_path):
    task = classification(held_out={"folds": 2, "by": "speaker"})
    found = checked(tmp_path, [{"label": "a"}, {"label": "b"}], **task)
    assert found == [
        "task word: 0.wav has no speaker, by which its card holds out; index the dataset from a layout that has it"
    ]


def test_check_hears_silence_corruption_and_repetition(tmp_path):
    same = voice(0.2, 16000, 77)
    rows = [{"wav": np.zeros(3200)}, {"wav": same}, {"wav": same}, {}]
    found = checked(tmp_path, rows)
    assert found == [
        "2 clips are byte for byte the same as another: 1.wav, 2.wav",
        "1 clips are silent (peak below -80 dBFS): 0.wav",
    ]


def test_check_finds_labels_that_are_no_numbers(tmp_path):
    task = {"tasks": (Task(name="mood", kind="regression", target="label"),)}
    rows = [{"label": "0.5", "fold": "1"}, {"label": "high", "fold": "2"}]
    assert checked(tmp_path, rows, **task) == ["task mood: high are no numbers"]


def test_every_present_card_is_as_it_says(monkeypatch):
    """The same checks on the sampler as on all else (and on real recordings, where they are)."""
    for card in cards.select(["sampler"]):
        assert list(checks.problems(cards.load(card))) == [], card.name


def test_real_recordings_are_as_their_cards_say(real_data):
    for name in ("fsdd", "esc10", "librispeech_small", "librispeech_test_other", "librispeech_train_clean_100"):
        assert list(checks.problems(cards.load(cards.cards()[name]), sound=False)) == [], name


@pytest.fixture
def real_data(home, monkeypatch):
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real recordings are not here")
    monkeypatch.setenv("EARMARK_DATA", str(folder))


def test_a_plan_carries_every_card_to_the_workers():
    """Layouts keep what their readers need, although it is not spelt out in the model."""
    found = list(cards.written().values())
    plan = Plan(codecs=[], statuses={}, cards=found, limit=None, heavy_limit=None, preset="quick", run="x")
    assert Plan.model_validate_json(plan.model_dump_json()).cards == found


# -- the documents ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["docs/datasets.md", "README.md"])
def test_the_tables_of_datasets_are_made_from_the_cards(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert tables.with_table(text, name) == text, f"run: earmark data docs --write {name}"
    assert all(f"`{card}`" in text for card in cards.written())


def test_a_document_without_marks_is_an_error():
    with pytest.raises(DataError, match=r"x.md: expected `<!-- datasets: made by"):
        tables.with_table("# Text", "x.md")


def test_the_recipe_for_a_dataset_works(tmp_path):
    """CONTRIBUTING.md's own card, on files as it describes them: indexed, checked, and taken by a run."""
    recipe = (ROOT / "CONTRIBUTING.md").read_text().partition("## A dataset")[2].partition("\n## ")[0]
    card = textwrap.dedent(recipe.partition("```yaml\n")[2].partition("```")[0])
    path = tmp_path / "my_words.yaml"
    path.write_text(card)
    for word, speaker, take in itertools.product(("yes", "no"), ("s1", "s2"), (1, 2)):
        file = tmp_path / "words" / word / f"{speaker}_{take}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, voice(0.2, 16000, 100 + 40 * take + 10 * len(word) + int(speaker[1])), 16000)
    done = CliRunner().invoke(app, ["data", "index", str(path), "--root", str(tmp_path / "words")])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(app, ["data", "check", str(path)])
    assert "8 clips, as its card says" in done.output
    assert [found.name for found in cards.select([str(path)])] == ["my_words"]


def test_a_part_of_a_file_needs_no_more_than_its_times(folder):
    (folder / "parts.csv").write_text("path,start_s,end_s\ndeep/0.wav,0.05,0.15\ndeep/0.wav,0.15,\n")
    first, second = cards.load(cards.select([str(folder / "parts.csv")])[0]).clips
    assert (first.seconds, second.seconds) == (pytest.approx(0.1), pytest.approx(0.05))
    assert audio.read_clip(first)[0].shape == (1, 1600)
    assert audio.read_clip(second)[0].shape == (1, 800)


def test_the_sampler_has_each_kind_of_task():
    kinds = {task.kind for card in cards.select(["sampler"]) for task in card.tasks}
    assert kinds == set(get_args(TaskKind))


def test_a_codec_is_given_the_part_and_not_the_file(folder):
    """Two parts of a file are stored apart: they are addressed apart, and are as long as they should be."""
    (folder / "parts.csv").write_text("path,start_s,end_s\ndeep/0.wav,0,0.1\ndeep/0.wav,0.1,0.2\n")
    first, second = cards.load(cards.select([str(folder / "parts.csv")])[0]).clips
    whole = audio.read(folder / "deep" / "0.wav")[0]
    for clip, at in ((first, 0), (second, 1600)):
        np.testing.assert_array_equal(prepare(clip, 16000, 1).wav, whole[:, at : at + 1600])
    assert first.sha256 != second.sha256


def test_a_text_with_a_line_separator_in_it_is_one_text(tmp_path):
    """JSON leaves U+2028 and U+0085 in a text as they are; captions from the web have them."""
    row = {"path": "a.wav", "dataset": "d", "sha256": "0" * 64, "caption": "rain\u2028on\u0085a roof"}
    lines = [row, row | {"path": "b.wav", "sha256": "1" * 64}]
    (tmp_path / "m.jsonl").write_bytes("\r\n".join(json.dumps(line, ensure_ascii=False) for line in lines).encode())
    found = read_manifest(tmp_path / "m.jsonl")["d"]
    assert [clip.fields["caption"] for clip in found] == [row["caption"]] * 2
    for line in lines:
        (tmp_path / line["path"]).touch()
    read = published.read(tmp_path, "m.jsonl", path="{path}", columns={"caption": "caption"})
    assert [line.columns["caption"] for line in read] == [row["caption"]] * 2


def test_a_json_line_without_a_key_that_others_have_is_named(tmp_path):
    row = {"path": "a.wav", "dataset": "d", "sha256": "0" * 64}
    lines = [row, {"path": "b.wav", "dataset": "d"}]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ManifestError, match=r"m.jsonl:2: the column 'sha256' is empty"):
        read_manifest(tmp_path / "m.jsonl")
