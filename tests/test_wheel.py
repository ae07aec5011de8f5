"""Installed from a wheel, in another project: its own command works there, and nobody else's pytest run changes."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from earmark.tests.helpers import GIT, PATIENCE_S, ROOT, user_env, write_dataset
from earmark.tests.helpers import voice as make_voice

MY_CODEC = """
import earmark

class MyCodec:
    info = earmark.Info(name="mine", sample_rate=16000, domains=("speech",))
    def __init__(self, info, device): ...
    def reconstruct(self, wav, lengths, seed):
        return (wav * 64).round() / 64, lengths * 7.0
"""
MY_YAML = """
thresholds:
  mine:
    reconstruction:
      "*":
        stoi: {min: 0.5, unit: "1", from: what we promised}
        bitrate_kbps: {max: 113, unit: kbit/s, from: what we promised}
"""
OTHER_CONFTEST = """
def pytest_addoption(parser):
    parser.addoption("--data", default="theirs")
    parser.addoption("--codec", default="theirs")
"""
OTHER_TEST = """
def test_their_own_options(request):
    assert request.config.getoption("--data") == "theirs"
    assert not request.config.pluginmanager.hasplugin("earmark.plugin")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from what git tracks or would track: no build folders, no output of earlier runs."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    command = [*GIT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    build += ["-w", out, source]
    subprocess.run(build, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def project(wheel, tmp_path_factory):
    """Another project's folder, with the wheel installed before everything else, and a way to run pytest there."""
    site, folder = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("project")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel]
    subprocess.run(command, check=True, capture_output=True)
    data = write_dataset(folder / "clips", {"a.flac": make_voice(2.0, 16000)}, dataset="clips", domain="speech")
    (folder / "my_pkg.py").write_text(MY_CODEC)
    (folder / "my.yaml").write_text(MY_YAML)

    def run(*args):
        env = user_env(PYTHONPATH=site, EARMARK_HOME=folder / "home", EARMARK_DATA=data)
        # the command itself: `python -m pytest` adds the folder to the path
        command = [Path(sys.executable).parent / "pytest", "-p", "no:cacheprovider", *args]
        return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=PATIENCE_S)

    run.folder = folder
    return run


def test_the_wheel_holds_the_data_and_not_the_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in ("thresholds.yaml", "data/sampler/manifest.csv", "reports/allure/package-lock.json"):
        assert f"earmark/{wanted}" in names
    assert any(name.startswith("earmark/codecs/catalogue/") for name in names)
    flacs = sum(name.endswith(".flac") for name in names)
    assert flacs == len([*(ROOT / "data" / "sampler").rglob("*.flac")]) > 0
    assert not [name for name in names if name.startswith(("earmark/tests", "earmark/training", "tests"))]


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["alone", "two workers"])
def test_a_codec_of_another_project_is_measured_and_gated_there(project, workers):
    command = ["--pyargs", "earmark.suites", "--codec", "my_pkg:MyCodec", "--thresholds", "my.yaml", *workers]
    done = project(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "pesq_wb" in done.stdout
    assert (project.folder / "reports" / "out" / "scores.jsonl").is_file()
    assert "site-packages" not in done.stderr


def test_its_gate_fails_there(project):
    (project.folder / "strict.yaml").write_text(MY_YAML.replace("0.5", "1.1"))
    gated = ["--codec", "my_pkg:MyCodec", "--thresholds", "strict.yaml", "-k", "test_stoi"]
    done = project("--pyargs", "earmark.suites", *gated)
    assert done.returncode == 1
    assert "threshold missed: stoi of mine on clips" in done.stdout
    assert "strict.yaml:6, from what we promised" in done.stdout


def test_other_pytest_runs_do_not_notice(project):
    theirs = project.folder / "theirs"
    theirs.mkdir()
    (theirs / "conftest.py").write_text(OTHER_CONFTEST)
    (theirs / "test_theirs.py").write_text(OTHER_TEST)
    done = project("theirs", "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "device cpu, preset" not in done.stdout
    assert not (theirs / "reports").exists()
