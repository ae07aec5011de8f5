"""The pytest11 entry point: wakes Earmark's plugin only for a run of Earmark's suites, else does nothing at all.

An installed plugin is loaded by every pytest run on the machine. This one adds no option and no fixture to anybody
else's: it looks at the arguments, and only `pytest --pyargs earmark.suites` (or one of its modules) brings in
`earmark.plugin`.
"""

from __future__ import annotations

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    if any(arg == "earmark.suites" or arg.startswith(("earmark.suites.", "earmark.suites::")) for arg in args):
        early_config.pluginmanager.import_plugin("earmark.plugin")
