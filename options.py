"""The options that Earmark adds to pytest."""

from __future__ import annotations

from pathlib import Path

import pytest

from earmark import thresholds
from earmark.run import PRESETS


def add_to(parser: pytest.Parser) -> None:
    group = parser.getgroup("earmark", "Earmark: audio codec benchmark")
    group.addoption(
        "--codec",
        action="append",
        default=[],
        metavar="NAMES",
        help="exact codec names, or package.module:Class, comma separated",
    )
    group.addoption(
        "--data",
        action="append",
        default=[],
        metavar="NAMES",
        help="datasets, comma separated: names, 'sampler', 'real', 'all', or paths of your own: folder/, .csv, .jsonl, "
        ".parquet, .yaml; default: all that are here, else the sampler",
    )
    group.addoption(
        "--encoder",
        action="append",
        default=[],
        metavar="NAME",
        help="by whose embeddings distributions are compared: exact names or package.module:Class, comma separated",
    )
    group.addoption("--limit", type=int, metavar="N", help="at most N clips of each dataset, stratified by label")
    group.addoption(
        "--preset",
        choices=sorted(PRESETS),
        default="quick",
        help="quick (default): 16 clips of each dataset, 4 for slow metrics, 200 to train on; paper: all",
    )
    group.addoption(
        "--ordering",
        choices=("parallel", "delay", "flattened"),
        default="parallel",
        help="how the codebooks of a frame follow each other for a language model (default: all at once)",
    )
    group.addoption("--device", metavar="DEVICE", help="cpu, cuda, cuda:1; default: CUDA where there is any, else cpu")
    group.addoption("--engine", choices=("local", "ray"), default="local", help="who makes what is missing")
    group.addoption("--ray-address", metavar="ADDRESS", help="a Ray cluster to join; default: one on this machine")
    group.addoption(
        "--hang-timeout",
        type=float,
        default=1800,
        metavar="SECONDS",
        help="end a worker that gives no sign of life for so long (default 1800; 0: never). Without workers (-n 0) "
        "only its tracebacks are written",
    )
    group.addoption("--require", action="append", default=[], metavar="NAMES", help="fail where one is not ready")
    group.addoption("--thresholds", type=Path, default=thresholds.DEFAULT, metavar="FILE", help="what must be met")
    group.addoption(
        "--baseline", type=Path, metavar="DIR", help="the --reports of an earlier run: fail what got worse since"
    )
    group.addoption("--write-thresholds", type=Path, metavar="FILE", help="record what is measured, with a margin")
    group.addoption(
        "--continue-run",
        action="store_true",
        help="add to the last run in --reports, as one: its scores and results stay",
    )
    group.addoption("--reports", type=Path, default=Path("reports/out"), metavar="DIR", help="where scores are written")
