"""The house as the design draws it: who may import whom, what is light to import, and names that -k can tell apart."""

import ast
import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from earmark.codecs.registry import catalogue
from earmark.data.cards import cards
from earmark.tests.helpers import GIT, ROOT

# folder -> what it may import of ours, beside itself. `metrics` and `store` use the one resampler of data.audio.
ALLOWED = {
    "codecs": set(),
    "contract": {"codecs"},
    "data": set(),
    "reports": set(),
    "metrics": {"data.audio"},
    "lm": {"metrics"},
    "probes": {"metrics"},
    "scoring": {"codecs", "data", "lm", "metrics", "probes", "reports", "store"},
    "store": {"codecs", "data"},
    "suites": {"codecs", "contract", "data", "lm", "metrics", "probes", "reports", "scoring", "store"},
}
BASE = {"paths", "names", "hub", "yamls", "__version__"}  # the root modules that every part of the house may import
LIGHT = ("torch", "torchaudio", "transformers", "scipy", "matplotlib", "pyarrow", "pandas")


def imports_of(path: Path) -> list[tuple[int, str]]:
    """Line and dotted name (without `earmark.`) of all that a file imports of ours."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "earmark":
            base = node.module.removeprefix("earmark").removeprefix(".")
            found += [(node.lineno, f"{base}.{alias.name}".strip(".")) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("earmark.")]
            found += [(node.lineno, name.removeprefix("earmark.")) for name in names]
    return found


@pytest.mark.parametrize("folder", ALLOWED)
def test_arrows(folder):
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in (ROOT / folder).rglob("*.py")
        for line, name in imports_of(path)
        if not any(name == allowed or name.startswith(allowed + ".") for allowed in {folder, *BASE, *ALLOWED[folder]})
    ]
    assert not wrong, f"{folder} may import {sorted(ALLOWED[folder]) or 'nothing of ours'}:\n" + "\n".join(wrong)


def test_the_wheel_has_every_package():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    tops = {"codecs", "contract", "data", "metrics", "reports", "store", "scoring", "suites", "probes", "lm"}
    found = {
        ".".join(("earmark", *path.parent.relative_to(ROOT).parts))
        for top in tops
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert listed == found | {"earmark"}


@pytest.mark.parametrize("module", ["earmark.plugin", "earmark.cli", "earmark.scoring", "earmark.pytest_entry"])
def test_importing_costs_nothing_heavy(module):
    code = f"import sys, {module}; print([name for name in {LIGHT!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_codec_name_contains_another():
    """`-k opus-6` must not select opus-64."""
    inside = [(a, b) for a, b in itertools.permutations(catalogue(), 2) if a in b]
    assert not inside


def test_no_dataset_or_test_is_named_like_a_codec():
    names = [*cards()]
    for path in (ROOT / "suites").glob("test_*.py"):
        names += [path.stem, *re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)]
    families = {entry.name for entry in catalogue().values()} | {
        entry.family for entry in catalogue().values() if entry.family != "control"
    }
    alike = [(name, family) for name in names for family in families if family in name]
    assert not alike


def test_our_package_does_not_shadow_the_standard_library():
    done = subprocess.run(
        [sys.executable, "-c", "import codecs; print(codecs.lookup('utf-8').name)"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "utf-8"


def test_nothing_names_this_machine_or_a_registry():
    tracked = subprocess.run([*GIT, "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    pattern = re.compile(r"registry\.npmjs|files\.pythonhosted|pypi\.org/simple|(?<![\w.])/(work|root|farm)/")
    texts = [ROOT / name for name in tracked if not name.endswith((".flac", ".safetensors", ".png", ".webp"))]
    wrong = [str(path) for path in texts if path != Path(__file__) and pattern.search(path.read_text(errors="ignore"))]
    assert not wrong
