"""The pictures of the README: the pages of a real run, in a real browser.

`make pictures` keeps them in docs/, of a run that takes a minute or two; else the same is done of a small run.
"""

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from earmark.reports import allure
from earmark.tests.browser import CHROMIUM, browser

DOCS = os.environ.get("EARMARK_PICTURES")
SUITE, TEST = "suites/test_reconstruction.py", "test_every_clip_comes_back"
OPEN = """[...document.querySelectorAll("button")].filter((button) => /worst clip/.test(button.textContent))"""
SIDE_BY_SIDE = "[...document.querySelectorAll('button')].find((button) => button.textContent === 'Side by side')"
SETTLED = "new Promise((done) => setTimeout(done, 1000))"  # nobody may look into the frame of an attachment
PICTURES = """[...document.querySelectorAll("[data-testid=test-result-attachment] img")]
  .filter((image) => image.complete && image.naturalWidth).length"""


@pytest.fixture
def run(tmp_path, earmark_pytest, small) -> Path:
    """The folder of a run and its reports."""
    if DOCS:
        codecs = "--codec", "opus-12,tiny-2,tiny-8,opus-6,opus-24"
        asked = f"test_bitrate or test_pesq or test_stoi or test_estoi or test_si_sdr or test_mel_distance or {TEST}"
        done = earmark_pytest(SUITE, *codecs, "-k", asked, "--data", "sampler_speech", timeout=1800)
        if done.returncode == 0:
            done = earmark_pytest("suites/test_speed.py", *codecs, "-k", "size", "--continue-run", "-n0")
    else:
        done = earmark_pytest(SUITE, "--codec", "opus-12", "-k", f"test_stoi or test_bitrate or {TEST}", data=small)
    assert done.returncode == 0, done.stdout + done.stderr
    earmark = [sys.executable, "-c", "from earmark.cli import app; app()"]
    subprocess.run([*earmark, "report", "--reports", tmp_path / "out"], check=True, capture_output=True)
    return tmp_path / "out"


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on this machine")
def test_the_pages_of_a_run_are_photographed(tmp_path, request):
    try:
        allure.prewarm()
    except allure.ReportError as error:
        pytest.skip(f"no Allure here: {str(error).splitlines()[0]}")
    out, pictures = request.getfixturevalue("run"), Path(DOCS or tmp_path)
    with browser(tmp_path / "profile") as page:
        page.resize(1330, 2000)
        page.open(out / "leaderboard.html")
        assert page.ask("document.querySelectorAll('#clips button').length") >= 6  # worst, median, best; two each
        height = page.ask(
            "(document.querySelector('#pictures figure') ?? document.body).getBoundingClientRect().bottom"
        )
        page.photograph(pictures / "leaderboard.png", width=1330, height=height + 10)
        page.resize(960, 2000)
        page.open(out / "report.html", f"#{identity(out / 'report.html', TEST)}")
        photograph_worst_clip(page, pictures / "report.png")
        assert page.complaints() == []
        assert page.requested() == []
    for name in ("leaderboard.png", "report.png"):
        assert (pictures / name).stat().st_size < 200_000
        assert len(Image.open(pictures / name).convert("RGB").getcolors(1 << 24)) > 16  # not blank


def identity(report, test):
    """What Allure calls the result of a test: the part of the page's address that opens it."""
    entries = re.findall(r'\bd\("data/test-results/[^"]+","([^"]*)"\)', report.read_text())
    results = [json.loads(base64.b64decode(entry)) for entry in entries]
    return next(result["id"] for result in results if result["name"].startswith(f"{test}[opus-12-"))


def photograph_worst_clip(page, picture):
    """The spectrograms of the worst clip side by side, and both players."""
    page.wait_for(f"{OPEN}.length === 2")
    page.ask(SETTLED)
    page.ask(f"{OPEN}.forEach((button) => button.click())")
    page.wait_for(f"{PICTURES} === 2 || ({SIDE_BY_SIDE}?.click(), false)")
    page.wait_for("document.querySelector('iframe[src^=blob]')")
    page.ask(SETTLED)
    top = page.ask(f"{OPEN}[0].getBoundingClientRect().top") - 44
    page.photograph(picture, width=960, height=660, top=top)
