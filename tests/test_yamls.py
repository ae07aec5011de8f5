"""One way to read YAML: the same content with and without libyaml, never an object, errors with their lines."""

import runpy

import pytest
import yaml

from earmark import thresholds, yamls
from earmark.tests.helpers import ROOT

FOLDERS = ("codecs", "data", "metrics", "probes", "lm", "reports")
LOADERS = [yaml.SafeLoader, pytest.param(getattr(yaml, "CSafeLoader", None), marks=pytest.mark.skipif(
    not yaml.__with_libyaml__, reason="PyYAML was built without libyaml"))]  # fmt: skip


@pytest.fixture(params=LOADERS)
def loader(request, monkeypatch):
    monkeypatch.setattr(yamls, "SAFE", request.param)


def test_every_file_of_ours_has_one_content():
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.yaml")] + [thresholds.DEFAULT]
    assert len(files) > 60
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert yamls.read(text) == yaml.safe_load(text), path


def test_without_libyaml_the_loader_is_that_of_python(monkeypatch):
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    module = runpy.run_path(str(ROOT / "yamls.py"))
    assert module["SAFE"] is yaml.SafeLoader
    assert module["read"]("a: [1, x]") == {"a": [1, "x"]}


def test_objects_are_refused(loader):
    with pytest.raises(yaml.YAMLError, match="could not determine a constructor"):
        yamls.read("a: !!python/object/apply:os.getcwd []")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("thresholds:\n  mycodec: [1\n", "line 3"),
        ("thresholds:\n  a:\n    b:\n      c:\n        mse: {mni: 1}\n", "f.yaml:5: "),
    ],
)
def test_errors_in_thresholds_have_their_line(loader, tmp_path, text, message):
    (tmp_path / "f.yaml").write_text(text)
    with pytest.raises(thresholds.ThresholdsError, match=message):
        thresholds.load(tmp_path / "f.yaml")
