"""What a run keeps to listen to: which clips, the sound of each as it is, and how many go into a page."""

import base64
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import soundfile

from earmark.reports.attachments import Sound, sounds
from earmark.reports.listening import Heard, gather, keep_sound, read_manifest, write_manifest
from earmark.reports.scores import read_clips
from earmark.tests.helpers import voice


def heard(folder, codec="a", place="worst", run="1", own=b"x", recording=b"the recording", dataset="d"):
    kept = [keep_sound(folder, Sound(f"{codec} {place}", flac)) for flac in (recording, own)]
    return Heard(codec, dataset, place, "clip.flac", "mel_loss", 1.0, *kept, run)


def keep(folder, *clips):
    write_manifest(folder, [asdict(clip) for clip in clips])


def test_a_recording_that_two_codecs_share_is_kept_once(tmp_path):
    keep(tmp_path, heard(tmp_path, "a", own=b"1"), heard(tmp_path, "b", own=b"2"))
    assert len(list((tmp_path / "listening").glob("*.flac"))) == 3
    found = gather([tmp_path], [("1", "a", "d"), ("1", "b", "d")])
    assert [clip.codec for clip in found.clips] == ["a", "b"]
    assert sorted(map(base64.b64decode, found.sounds.values())) == [b"1", b"2", b"the recording"]


def test_a_later_run_replaces_what_it_made_again_and_nothing_else(tmp_path):
    keep(tmp_path, heard(tmp_path, "a", own=b"old"), heard(tmp_path, "a", "best", own=b"gone"), heard(tmp_path, "b"))
    keep(tmp_path, heard(tmp_path, "a", own=b"new", run="2"))
    assert [(clip.codec, clip.run) for clip in read_manifest(tmp_path)] == [("b", "1"), ("a", "2")]
    kept = {path.read_bytes() for path in (tmp_path / "listening").glob("*.flac")}
    assert kept == {b"x", b"new", b"the recording"}


def test_sounds_of_another_run_are_not_of_these_scores(tmp_path):
    keep(tmp_path, heard(tmp_path, "a", run="1"))
    assert gather([tmp_path], [("2", "a", "d"), ("1", "b", "d"), ("1", "a", "other")]).clips == []


def test_of_what_does_not_fit_the_worst_clips_stay_and_the_page_says_so(tmp_path):
    """Each clip has 3 kB of its own, 4 kB as Base64; the recording that all share is of 12 bytes, 16 as Base64."""
    clips = [
        heard(tmp_path, codec, place, own=f"{codec}{place}".ljust(3000).encode(), recording=b"r" * 12)
        for codec in "ab" for place in ("best", "median", "worst")
    ]  # fmt: skip
    keep(tmp_path, *clips)
    asked = [("1", "a", "d"), ("1", "b", "d")]
    found = gather([tmp_path], asked, most_mb=0.0121)  # 12.1 kB: the shared recording and three clips
    assert [(clip.codec, clip.place) for clip in found.clips] == [("a", "worst"), ("b", "worst"), ("a", "median")]
    assert sum(map(len, found.sounds.values())) == 12_016
    assert found.left_out.startswith("3 of 6 clips are left out, as the page holds at most 0.0121 MB of sound")
    assert "earmark report --sounds 1 has them all" in found.left_out
    assert gather([tmp_path], asked, most_mb=1).left_out == ""


def test_a_clip_may_have_any_name(tmp_path):
    odd = [replace(heard(tmp_path, codec), clip="a\u2028b\u0085/</script>\n.wav") for codec in "ab"]
    keep(tmp_path, *odd)
    assert [clip.clip for clip in read_manifest(tmp_path)] == [odd[0].clip] * 2


def test_a_damaged_manifest_names_its_line(tmp_path):
    keep(tmp_path, heard(tmp_path))
    with (tmp_path / "listening/manifest.jsonl").open("a") as file:
        file.write('{"codec": "a"}\n')
    with pytest.raises(ValueError, match=r"manifest\.jsonl:2: not a clip to listen to"):
        read_manifest(tmp_path)


def test_a_sound_that_is_gone_is_an_error_that_says_what_to_do(tmp_path):
    keep(tmp_path, kept := heard(tmp_path, own=b"x"))
    (tmp_path / "listening" / kept.estimate[1]).unlink()
    with pytest.raises(ValueError, match=r"\.flac: manifest\.jsonl beside it names this sound; run again, or"):
        gather([tmp_path], [("1", "a", "d")])
    assert gather([tmp_path], [("1", "a", "d")], most_mb=0).clips == ()


def test_a_codec_that_is_too_quiet_sounds_too_quiet():
    wav = voice(0.2, 16000)
    recording, quiet = (_samples(sound.flac) for sound in sounds([("r", wav, 16000), ("c", 0.5 * wav, 16000)]))
    np.testing.assert_allclose(quiet, recording / 2, atol=1 / 32768)


def _samples(flac):
    import io

    return soundfile.read(io.BytesIO(flac))[0]


def test_a_run_keeps_its_worst_median_and_best_clip_as_they_are(earmark_pytest, small, tmp_path):
    """The recording sample by sample, and the same bytes that Allure plays; in the order that the scores have."""
    out = tmp_path / "out"
    asked = ("suites/test_reconstruction.py", "--codec", "g711-mulaw", "-k", "comes_back or mel_loss", "-n", "1")
    done = earmark_pytest(*asked, data=small)
    assert done.returncode == 0, done.stdout
    values = {row["clip"]: row["value"] for row in read_clips(out / "clips.parquet") if row["metric"] == "mel_loss"}
    found = {clip.place: clip for clip in read_manifest(out)}
    ranked = [found[place].clip for place in ("worst", "median", "best")]
    assert ranked == sorted(values, key=values.get, reverse=True)
    attached = "".join(path.read_text() for path in (out / "allure-results").glob("*-attachment.html"))
    for clip in found.values():
        assert clip.value == pytest.approx(values[clip.clip])
        recording, estimate = ((out / "listening" / name).read_bytes() for _, name in (clip.recording, clip.estimate))
        np.testing.assert_array_equal(_samples(recording), soundfile.read(small / clip.clip)[0])
        assert not np.array_equal(_samples(estimate), _samples(recording))
        assert all(base64.b64encode(flac).decode() in attached for flac in (recording, estimate))
    steps = [json.loads(path.read_text()) for path in (out / "allure-results").glob("*-container.json")]
    assert steps
    assert not [step for each in steps for step in each.get("afters", []) if "<lambda>" in step["name"]]
