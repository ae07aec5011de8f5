"""YAML as every part of the house reads it: data alone, never objects; by libyaml where PyYAML was built with it."""

from __future__ import annotations

from typing import Any

import yaml

# The same values by the same SafeConstructor, in a seventh of the time: each process of a run begins with 70 files.
SAFE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read(text: str) -> Any:
    """The content of a YAML text. Raises yaml.YAMLError, with the line, where it is none."""
    return yaml.load(text, SAFE)


def tree(text: str) -> yaml.Node | None:
    """The nodes of a YAML text, each with its line."""
    return yaml.compose(text, SAFE)
