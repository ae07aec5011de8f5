"""For runs in the repository itself; an installed Earmark is woken by `pytest_entry`."""

from pathlib import Path

import pytest

import earmark

pytest_plugins = ["earmark.plugin"]


@pytest.hookimpl(tryfirst=True)
def pytest_configure() -> None:
    """The suites of this folder beside the code of another would be of two versions."""
    here, installed = Path(__file__).resolve().parent, Path(earmark.__file__).resolve().parent
    if installed != here:
        raise pytest.UsageError(
            f"the Earmark of this environment is {installed}, not this folder; "
            "run `pytest --pyargs earmark.suites` elsewhere, or `pip install --editable .` here"
        )
