"""For runs in the repository itself; an installed Earmark is woken by `pytest_entry`."""

pytest_plugins = ["earmark.plugin"]
