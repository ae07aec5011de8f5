"""The examples in docstrings are true."""

import doctest
import importlib

import pytest

from earmark.tests.helpers import ROOT

FOLDERS = ("", "codecs", "contract", "data", "data/layouts", "lm", "metrics", "probes", "reports", "scoring", "store")
MODULES = [
    ".".join(("earmark", *path.relative_to(ROOT).with_suffix("").parts))
    for folder in FOLDERS
    for path in sorted((ROOT / folder).glob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    found = doctest.testmod(module, extraglobs={"torch": importlib.import_module("torch")})
    assert found.attempted
    assert not found.failed
