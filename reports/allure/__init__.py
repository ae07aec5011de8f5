"""The Allure report: helpers that write into a results folder, and `render`, which makes one HTML page of it.

Results come from allure-pytest (`pytest --alluredir DIR`); the page is made by Allure 3, which runs on Node. Node comes
with `pip install earmark[report]`; Allure itself is fetched once by npm, as `package-lock.json` beside this file says.
"""

from earmark.reports.allure.node import ReportError, prewarm
from earmark.reports.allure.page import render
from earmark.reports.allure.results import (
    CODEC_FAILED,
    DATA_MISSING,
    INFRASTRUCTURE_FAULT,
    THRESHOLD_MISSED,
    WEIGHTS_MISSING,
    clean,
    tidy,
    write_categories,
    write_environment,
    write_performance,
)

__all__ = [
    "CODEC_FAILED",
    "DATA_MISSING",
    "INFRASTRUCTURE_FAULT",
    "THRESHOLD_MISSED",
    "WEIGHTS_MISSING",
    "ReportError",
    "clean",
    "prewarm",
    "render",
    "tidy",
    "write_categories",
    "write_environment",
    "write_performance",
]
