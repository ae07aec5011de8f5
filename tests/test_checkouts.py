"""Git checkouts: where one is looked for, what is imported of it, and what of it a stored result depends on."""

import sys

import pytest

from earmark.codecs.checkout import Checkout
from earmark.codecs.registry import Entry, Info, Status, status

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def checkout(name="Codec", file="encoder/model.py"):
    return Checkout(url=f"https://example.org/somebody/{name}", commit=COMMIT, files=(file,))


def put(folder, text="NAME = 'first'", file="encoder/model.py"):
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(text)
    return folder


@pytest.fixture
def places(tmp_path, monkeypatch):
    """The three places, the first of them first: EARMARK_WEIGHTS, EARMARK_HOME and Python's path."""
    monkeypatch.setenv("EARMARK_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    return tmp_path / "weights" / "Codec", tmp_path / "home" / "weights" / "Codec", tmp_path / "path"


def test_it_is_found_among_the_weights_and_then_on_pythons_path(places):
    assert checkout().find() is None
    for place in reversed(places):
        put(place)
        assert checkout().find() == place


def test_a_folder_without_its_files_is_not_it(places):
    put(places[0], file="encoder/other.py")
    assert checkout().find() is None
    put(places[1])
    assert checkout().find() == places[1]


def test_one_that_is_missing_is_cloned_by_one_command(places):
    command = f"git clone https://example.org/somebody/Codec {places[1]} && git -C {places[1]} checkout {COMMIT}"
    with pytest.raises(FileNotFoundError, match=r"somebody/Codec is not on this machine; run: git clone"):
        checkout().here()
    entry = Entry(info=Info(name="x", sample_rate=1), adapter="a:B", checkout=checkout())
    assert status(entry) == Status(ready=False, reason="package missing", command=command)
    put(places[1])
    assert status(entry).ready


def test_its_folder_is_git_s_own():
    assert checkout("codec.git").folder == "codec"


def test_two_that_have_the_same_names_do_not_meet(places, tmp_path):
    put(places[0], "from . import part\nNAME = part.NAME")
    put(places[0], "", file="encoder/__init__.py")
    put(places[0], "NAME = 'first'", file="encoder/part.py")
    put(tmp_path / "weights" / "Other", "NAME = 'second'")
    path, modules = list(sys.path), dict(sys.modules)
    names = []
    for one in (checkout(), checkout("Other"), checkout()):
        with one.importable():
            from encoder.model import NAME

            names.append(NAME)
        assert sys.path == path
        assert not [name for name in sys.modules if name.partition(".")[0] == "encoder"]
    assert names == ["first", "second", "first"]
    assert {name: sys.modules[name] for name in modules} == modules


def test_a_module_of_that_name_that_was_there_is_there_again(places, monkeypatch):
    put(places[0])
    own = type(sys)("encoder")
    monkeypatch.setitem(sys.modules, "encoder", own)
    with pytest.raises(ImportError, match="LATER"), checkout().importable():
        from encoder.model import LATER  # noqa: F401
    assert sys.modules["encoder"] is own


def test_what_a_result_depends_on_is_the_code_that_is_here(places):
    assert checkout().source() is None
    put(places[0])
    first = checkout().source()
    put(places[0], "", file="elsewhere/train.py")
    assert checkout().source() == first
    put(places[0], "", file="encoder/deep/layer.py")
    second = checkout().source()
    put(places[0], "NAME = 'edited'")
    assert len({first, second, checkout().source(), None}) == 4


def test_a_stored_result_depends_on_it(places):
    from earmark.codecs.registry import find
    from earmark.store.fingerprint import of_row

    entry = find("identity").model_copy(update={"checkout": checkout()})
    prints = {of_row(find("identity")), of_row(entry)}
    for text in ("NAME = 1", "NAME = 2"):
        put(places[0], text)
        prints.add(of_row(entry))
    assert len(prints) == 4


def test_a_commit_is_whole():
    with pytest.raises(ValueError, match="commit"):
        Checkout(url="https://example.org/a/b", commit="main", files=("a.py",))
