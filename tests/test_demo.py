"""The demo, as its user: the gate's own script passes a good release, and stops a broken one with the reason."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from earmark.tests.helpers import PATIENCE_S, ROOT, user_env

ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
DEMO = ROOT / "docs" / "demo"
QUICK = "--limit 6 -n 0 -p no:cacheprovider -k 'test_snr and not aligned'"


@pytest.fixture
def gate(tmp_path):
    """A step of the action in a copy of the demo: `gate(step, **inputs)`; inputs not given have their defaults.

    path: where pytest and earmark are found.
    """
    shutil.copytree(DEMO, tmp_path / "demo")
    workflow = yaml.safe_load((DEMO / ".github" / "workflows" / "codec.yml").read_text())
    given = workflow["jobs"]["earmark"]["steps"][-1]["with"]

    def run(name="Benchmark", path=Path(sys.executable).parent, **inputs):
        step = next(step for step in ACTION["runs"]["steps"] if step.get("name") == name)
        values = {name: row.get("default", "") for name, row in ACTION["inputs"].items()} | given | inputs
        env = user_env(EARMARK_HOME=tmp_path / "home")
        env["PATH"] = os.pathsep.join([str(path), env["PATH"]])  # the pytest that has Earmark
        env |= {name: values[value.split("inputs.")[1].split()[0]] for name, value in step["env"].items()}
        shell = ["bash", "-e", "-c", step["run"]]
        return subprocess.run(shell, cwd=tmp_path / "demo", env=env, capture_output=True, text=True, timeout=PATIENCE_S)

    return run


def test_a_good_release_passes_and_a_broken_one_is_stopped(gate, tmp_path):
    first = gate(args=QUICK, data="sampler_speech", reports="v1")
    assert first.returncode == 0, first.stdout
    codec = tmp_path / "demo" / "mulaw" / "__init__.py"
    codec.write_text(codec.read_text().replace("BITS = 8", "BITS = 7"))
    broken = gate(args=QUICK, data="sampler_speech", reports="v2", baseline="v1")
    assert broken.returncode == 1
    assert "threshold missed: snr of mulaw on sampler_speech" in broken.stdout
    assert "expected at least 36 (thresholds.yaml:" in broken.stdout
    assert "regression: snr of mulaw on sampler_speech (higher is better)" in broken.stdout  # a bit is 6 dB
    assert (tmp_path / "demo" / "v2" / "junit.xml").is_file()


@pytest.fixture
def told(gate, tmp_path):
    """`told(args)`: what pytest is given by that input, after the action's own options; the outcome where it fails."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pytest").write_text("#!/bin/sh\nprintf '<%s>\\n' \"$@\"\n")
    (tmp_path / "bin" / "pytest").chmod(0o755)

    def run(args):
        done = gate(path=tmp_path / "bin", args=args, thresholds="", reports="v1")
        given = done.stdout.splitlines()
        return given[given.index("<v1/junit.xml>") + 1 :] if done.returncode == 0 else done

    return run


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("", []),
        ("--limit 8  -n 0", ["--limit", "8", "-n", "0"]),
        ("--limit 8\n-k 'pesq or stoi'\n", ["--limit", "8", "-k", "pesq or stoi"]),
        ('-k "pesq or stoi" --data my\\ data', ["-k", "pesq or stoi", "--data", "my data"]),
        ("$(touch x) `touch x` ; touch x * $HOME", ["$(touch", "x)", "`touch", "x`", ";", "touch", "x", "*", "$HOME"]),
    ],
)
def test_more_options_are_words_as_in_a_shell_but_nothing_of_them_is_run(told, tmp_path, args, words):
    assert told(args) == [f"<{word}>" for word in words]
    assert not (tmp_path / "demo" / "x").exists()


def test_a_quote_that_is_not_closed_stops_the_action(told):
    done = told("-k 'pesq or stoi")
    assert done.returncode != 0
    assert "quote" in done.stderr


def test_what_a_user_gives_is_never_part_of_a_script():
    """GitHub puts `${{ inputs.x }}` into a script as it is: a folder named `$(rm -r x)` would be run."""
    scripts = [step["run"] for step in ACTION["runs"]["steps"] if "run" in step]
    assert not [script for script in scripts if "inputs." in script]


def test_the_report_is_of_the_folder_that_was_given(gate, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "earmark").write_text("#!/bin/sh\nprintf '<%s>\\n' \"$@\"\n")
    (tmp_path / "bin" / "earmark").chmod(0o755)
    done = gate("Report", path=tmp_path / "bin", reports="my $(touch x) reports")
    assert done.stdout.splitlines() == ["<report>", "<--reports>", "<my $(touch x) reports>"]
    assert not (tmp_path / "demo" / "x").exists()


def test_the_snippets_give_what_the_action_and_the_command_take():
    """Every input of the demo's workflow is one of the action's; every option of the GitLab job is one of pytest's."""
    step = yaml.safe_load((DEMO / ".github" / "workflows" / "codec.yml").read_text())["jobs"]["earmark"]["steps"][-1]
    assert set(step["with"]) <= set(ACTION["inputs"])
    script = " ".join(yaml.safe_load((DEMO / ".gitlab-ci.yml").read_text())["earmark"]["script"])
    for option in ("--codec mulaw:MuLaw", "--thresholds thresholds.yaml", "--junitxml", "--reports"):
        assert option in script
