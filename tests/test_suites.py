"""The suites as a user runs them: each test here starts pytest in a process of its own and reads what it leaves."""

import fcntl
import itertools
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import yaml

from earmark.metrics import METRICS
from earmark.reports.scores import read_scores
from earmark.tests import own_codecs
from earmark.tests.helpers import PATIENCE_S, ROOT, run_pytest, three_voices, voice, write_dataset
from earmark.tests.test_architecture import LIGHT

OWN, RECONSTRUCTION = "earmark.tests.own_codecs", "suites/test_reconstruction.py"


def scores_of(folder):
    return {(s.codec, s.dataset, s.metric): s for s in read_scores(folder / "out" / "scores.jsonl")}


def passed_and_failed(done):
    """Counts of pytest's last line."""
    words = done.stdout.strip().splitlines()[-1].replace("=", " ").replace(",", " ").split()
    return {word: int(number) for number, word in itertools.pairwise(words) if number.isdigit()}


@pytest.fixture(scope="module")
def reconstruction(tmp_path_factory):
    """One run of the whole suite on four codecs: its folder, which has its data too, and what it said."""
    folder = tmp_path_factory.mktemp("reconstruction")
    codecs = ["--codec", f"identity,g711-mulaw,opus-12,{OWN}:Halver", "--data", "small"]
    writes = [f"--junitxml={folder / 'junit.xml'}", "--write-thresholds", str(folder / "first.yaml")]
    done = run_pytest(folder, RECONSTRUCTION, *codecs, *writes, data=three_voices(folder / "data"))
    assert done.returncode == 0, done.stdout
    return folder, done


def test_identity_scores_the_best_value_of_every_pairwise_metric(reconstruction):
    found = {metric: s for (codec, _, metric), s in scores_of(reconstruction[0]).items() if codec == "identity"}
    pairwise = {metric: score for metric, score in found.items() if is_pairwise(metric)}
    expected = {name for name, row in METRICS.items() if row.kind == "pair" and not row.missing() and not row.native}
    assert set(pairwise) == expected  # its rate is that of the clips, so it has no native twins
    for name, score in pairwise.items():
        best = METRICS[name].best
        if best is None:
            continue
        if np.isinf(best):
            assert score.value is None, name
            assert score.at_bound, name
        else:
            assert score.value == pytest.approx(best, abs=1e-6), name
        assert (score.n, score.failed) == (3, 0)


def is_pairwise(metric):
    return metric in METRICS and METRICS[metric].kind == "pair"


def test_quality_rises_with_bitrate_on_real_speech(earmark_pytest, real, tmp_path):
    """Opus at 6, 12 and 24 kbit/s on six clips of LibriSpeech test-other, two workers."""
    names = [word for bitrate in (6, 12, 24) for word in ("--codec", f"opus-{bitrate}")]
    select = ["--data", "librispeech_test_other", "--limit", "6", "-k", "pesq_wb or test_stoi or bitrate", "-n", "2"]
    done = earmark_pytest(RECONSTRUCTION, *names, *select, data=real)
    assert done.returncode == 0, done.stdout
    scores = scores_of(tmp_path)
    for metric in ("bitrate_kbps", "pesq_wb", "stoi"):
        values = [scores[f"opus-{bitrate}", "librispeech_test_other", metric].value for bitrate in (6, 12, 24)]
        assert values == sorted(values), (metric, values)
        assert all(scores[key].n == 6 for key in scores)


def test_k_selects_one_codec_and_nothing_else(earmark_pytest, small):
    done = earmark_pytest("suites/", "-k", "opus-12", "--collect-only", "-q", data=small)
    listed = [line for line in done.stdout.splitlines() if "::" in line]
    assert len(listed) > 15
    assert all("[opus-12" in line for line in listed)
    assert {line.split("::")[0] for line in listed} >= {
        "suites/test_available.py", "suites/test_contract.py", "suites/test_reconstruction.py", "suites/test_speed.py"
    }  # fmt: skip


def test_collecting_every_suite_imports_nothing_heavy():
    code = (
        "import pytest, sys\n"
        "code = pytest.main(['suites/', '--collect-only', '-q', '-p', 'no:cacheprovider'])\n"
        f"print(int(code), [name for name in {LIGHT!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.stdout.splitlines()[-1] == "0 []"


def test_two_workers_give_the_scores_of_one(reconstruction, tmp_path):
    folder, _ = reconstruction
    select = [RECONSTRUCTION, "--codec", "opus-12", "--data", "small", "-k", "not dnsmos", "-n", "2"]
    assert run_pytest(tmp_path, *select, data=folder / "data").returncode == 0
    two = {key: (score.value, score.ci_low, score.n) for key, score in scores_of(tmp_path).items()}
    one = {key: (score.value, score.ci_low, score.n) for key, score in scores_of(folder).items() if key in two}
    assert one == two
    assert len(one) > 40


def test_a_run_leaves_scores_clips_junit_and_allure_results(reconstruction):
    import pyarrow.parquet

    folder, done = reconstruction
    clips = pyarrow.parquet.read_table(folder / "out" / "clips.parquet").to_pylist()
    stoi = {row["clip"]: row["value"] for row in clips if (row["codec"], row["metric"]) == ("g711-mulaw", "stoi")}
    assert set(stoi) == {"100.flac", "140.flac", "190.flac"}
    score = scores_of(folder)["g711-mulaw", "small", "stoi"]
    assert score.value == pytest.approx(np.mean(list(stoi.values())))
    cases = {case.get("name"): case for case in ElementTree.parse(folder / "junit.xml").iter("testcase")}
    properties = {p.get("name"): p.get("value") for p in cases["test_stoi[g711-mulaw-small]"].iter("property")}
    assert float(properties["stoi_value"]) == score.value
    results = [json.loads(path.read_text()) for path in (folder / "out" / "allure-results").glob("*-result.json")]
    passed = passed_and_failed(done)["passed"]
    assert len([result for result in results if result["status"] == "passed"]) == passed > 80
    assert any(parameter["name"] == "stoi" for result in results for parameter in result["parameters"])
    kinds = {attachment["type"] for result in results for attachment in result.get("attachments", [])}
    assert {"text/html", "application/vnd.allure.image.diff"} <= kinds
    assert "stoi" in done.stdout
    assert "not gated" in done.stdout


def test_thresholds_fail_a_codec_and_the_message_needs_no_explanation(earmark_pytest, small, tmp_path):
    (tmp_path / "my.yaml").write_text(
        "thresholds:\n  g711-mulaw:\n    reconstruction:\n      small:\n"
        "        stoi: {min: 1.5, unit: '1', from: wishful thinking}\n"
    )
    select = [RECONSTRUCTION, "--codec", "g711-mulaw", "-k", "test_stoi"]
    done = earmark_pytest(*select, "--thresholds", str(tmp_path / "my.yaml"), data=small)
    assert done.returncode == 1
    assert "threshold missed: stoi of g711-mulaw on small is" in done.stdout
    assert "expected at least 1.5" in done.stdout
    assert "my.yaml:5, from wishful thinking" in done.stdout


def test_a_first_run_writes_thresholds_that_the_second_passes(reconstruction, tmp_path):
    folder, _ = reconstruction
    content = yaml.safe_load((folder / "first.yaml").read_text())
    assert content["thresholds"]["halver"]["reconstruction"]["small"]["pesq_wb"]["min"] > 1
    select = [RECONSTRUCTION, "--codec", f"{OWN}:Halver", "--data", "small", "--reports", str(tmp_path)]
    again = run_pytest(folder, *select, "--thresholds", str(folder / "first.yaml"), data=folder / "data")
    assert again.returncode == 0, again.stdout
    assert "not gated" not in again.stdout


def test_bad_clips_are_counted_named_and_in_no_mean(earmark_pytest, tmp_path):
    wavs = {f"{pitch}.flac": voice(2.0, 16000, pitch) for pitch in (100, 140, 190)}
    folder = write_dataset(tmp_path / "data", wavs, dataset="small", domain="speech")
    (folder / "140.flac").write_bytes((folder / "140.flac").read_bytes()[:-50])
    select = [RECONSTRUCTION, "--codec", "g711-mulaw", "-k", "test_stoi or comes_back"]
    done = earmark_pytest(*select, data=folder)
    assert done.returncode == 1
    score = scores_of(tmp_path)["g711-mulaw", "small", "stoi"]
    assert (score.n, score.failed, score.no_answer) == (2, 0, 1)  # whoever codes it, so not the codec's failure
    assert "140.flac: its sha256 is not the manifest's" in done.stdout


def test_strange_audio_is_scored_like_any_other(earmark_pytest, tmp_path):
    """Eight channels, 192 kHz, 8 kHz and stereo in one dataset."""
    folder = tmp_path / "data"
    wavs = {"eight.wav": np.stack([voice(2.0, 192000)] * 8, axis=1)}
    write_dataset(folder, wavs, sample_rate=192000, dataset="small", domain="speech")
    select = [RECONSTRUCTION, "--codec", "opus-24", "-k", "test_stoi or comes_back"]
    done = earmark_pytest(*select, data=folder)
    assert done.returncode == 0, done.stdout
    assert scores_of(tmp_path)["opus-24", "small", "stoi"].value > 0.8


MISTAKES = [
    (["--codec", "opus-13"], "unknown codec 'opus-13'; did you mean opus-12"),
    (["--data", "smal"], "unknown dataset 'smal'; did you mean small"),
    (["--codec", "nowhere:Mine"], "cannot import nowhere"),
    (["--thresholds", "none.yaml"], "none.yaml: cannot be read"),
    (["--limit", "0"], "--limit 0: expected at least 1"),
    (["--device", "cuda:9"], "--device cuda:9: this machine shows"),
    (["--device", "gpu"], "--device gpu: expected cpu, cuda or cuda:N"),
    (["--require", "mimy"], "--require mimy; did you mean mimi"),
    (["--codec", ""], "--codec: no name is given; leave the option out"),
    (["--data", " , "], "--data: no name is given; leave the option out"),
]
WITH_WORKERS = (0, 3, 5)  # one of each place that finds some: the plan, its thresholds, this process's device


@pytest.mark.parametrize(
    ("arguments", "message"), MISTAKES + [([*MISTAKES[i][0], "-n", "2"], MISTAKES[i][1]) for i in WITH_WORKERS]
)
def test_a_mistake_in_the_command_is_one_clear_error(earmark_pytest, small, arguments, message):
    done = earmark_pytest("suites/", *arguments, data=small)
    assert done.returncode == 4
    assert (done.stdout + done.stderr).count(message) == 1
    assert "Traceback" not in done.stdout + done.stderr


def test_absent_weights_are_a_skip_and_with_require_a_failure(earmark_pytest, small):
    select = ["suites/test_available.py", "--codec", "mimi-8", "-rs"]
    done = earmark_pytest(*select, data=small)
    assert done.returncode == 0
    assert "weights missing: mimi-8; run: hf download kyutai/mimi" in done.stdout
    done = earmark_pytest(*select, "--require", "mimi", data=small)
    assert done.returncode == 1


BAD = [
    ("Restless", "test_determinism"), ("Leaky", "test_padding"), ("Leaky", "test_batch_equals_single"),
    ("Short", "test_length"), ("WrongShape", "test_length"), ("BadCodes", "test_codes"), ("NotANumber", "test_silence"),
]  # fmt: skip


def test_the_contract_catches_bad_codecs(earmark_pytest, small):
    codecs = ",".join(sorted({f"{OWN}:{name}" for name, _ in BAD}))
    asked = " or ".join(sorted({test for _, test in BAD}))
    done = earmark_pytest("suites/test_contract.py", "--codec", codecs, "-k", asked, "-rf", data=small)
    failed = set(re.findall(r"^FAILED \S+::(test_\w+\[[\w-]+\])", done.stdout, re.MULTILINE))
    expected = {f"{test}[{getattr(own_codecs, name).info.name}]" for name, test in BAD}
    assert not expected - failed, done.stdout


def test_a_codec_that_cannot_be_loaded_fails_with_one_line_a_test(earmark_pytest, small):
    done = earmark_pytest("suites/", "--codec", f"{OWN}:Unloadable", "-k", "test_stoi or test_silence", data=small)
    assert done.returncode == 1
    line = "codec failed: unloadable: cannot be loaded: OSError: weights.safetensors: no such file"
    assert line in done.stdout
    assert "Traceback" not in done.stdout


def test_two_codecs_of_one_name_are_refused(earmark_pytest, small):
    done = earmark_pytest("suites/", "--codec", f"{OWN}:Halver", "--codec", f"{OWN}:Halver", data=small)
    assert done.returncode == 4
    assert "'halver' is there twice" in done.stderr


def test_collecting_keeps_the_last_run_s_results(reconstruction):
    folder, _ = reconstruction
    before = {*(folder / "out" / "allure-results").iterdir()}
    done = run_pytest(folder, RECONSTRUCTION, "--codec", "identity", "--collect-only", data=folder / "data")
    assert done.returncode == 0, done.stdout
    assert {*(folder / "out" / "allure-results").iterdir()} == before != set()


def test_the_contract_passes_a_good_codec(earmark_pytest, small):
    done = earmark_pytest("suites/test_contract.py", "--codec", f"{OWN}:Halver", data=small)
    assert done.returncode == 0, done.stdout


def test_another_earmark_than_the_folders_is_refused_in_words(tmp_path):
    """Installed from a wheel, the suites of a checkout beside it would be of two versions."""
    (tmp_path / "conftest.py").write_text((ROOT / "conftest.py").read_text())
    (tmp_path / "suites").mkdir()
    command = [sys.executable, "-m", "pytest", "suites", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 4
    assert f"ERROR: the Earmark of this environment is {ROOT}, not this folder" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


AVAILABLE = ("suites/test_available.py", "--codec", "identity", "-k", "identity")


def test_a_reports_folder_is_one_runs_at_a_time(earmark_pytest, small, tmp_path):
    """Two would clear each other's Allure results, and the last to end would keep its own clips alone."""
    (tmp_path / "out").mkdir()
    held = os.open(tmp_path / "out", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)  # as another run does
    refused = earmark_pytest(*AVAILABLE, data=small)
    assert refused.returncode == 4, refused.stdout
    assert f"ERROR: --reports: another run is writing to {tmp_path / 'out'}" in refused.stderr
    assert earmark_pytest(*AVAILABLE, "--collect-only", data=small).returncode == 0
    os.close(held)


TRIES = """
import fcntl, os

def pytest_runtest_call(item):
    fcntl.flock(os.open(item.config.option.reports, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
"""


def test_a_run_holds_its_reports_folder_as_long_as_it_lasts(earmark_pytest, small, tmp_path, monkeypatch):
    (tmp_path / "tries.py").write_text(TRIES)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT.parent)]))
    done = earmark_pytest(*AVAILABLE, "-n", "1", "-p", "tries", data=small)
    assert "1 failed" in done.stdout, done.stdout + done.stderr
    assert "BlockingIOError" in done.stdout
    assert "1 passed" in earmark_pytest(*AVAILABLE, data=small).stdout
