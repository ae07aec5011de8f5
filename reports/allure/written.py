"""Allure results that the controller writes: of a test whose worker crashed, of what only a whole run can judge."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from allure_commons.model2 import Label


def write_result(
    results: Path, nodeid: str, params: Mapping[str, Any], status: str, message: str, trace: str = ""
) -> None:
    """Write a result, in the place in the tree and with the history that the test has where it runs.

    params: what the test was parametrised with; where that is not known ({}) it has no place but its suite.
    status: passed, failed, broken or skipped.
    """
    from allure_commons.logger import AllureFileLogger
    from allure_commons.model2 import Parameter, StatusDetails, TestResult
    from allure_commons.utils import md5, represent, uuid4
    from allure_pytest.utils import ParsedPytestNodeId, get_history_id

    parsed, now_ms = ParsedPytestNodeId(nodeid), round(time.time() * 1000)
    full_name = "#".join([".".join([parsed.package, *parsed.class_names]), parsed.test_function])
    result = TestResult(uuid=uuid4(), name=nodeid.partition("::")[2], fullName=full_name, start=now_ms, stop=now_ms)
    result.status, result.statusDetails = status, StatusDetails(message=message, trace=trace or None)
    result.parameters = [Parameter(name=name, value=represent(value)) for name, value in params.items()]
    result.historyId = get_history_id(full_name, result.parameters, original_values=params)
    result.testCaseId = md5(full_name)
    result.titlePath = [*parsed.path_segments, *parsed.class_names]
    result.labels = _labels(parsed, params)
    AllureFileLogger(results).report_result(result)


def _labels(parsed: Any, params: Mapping[str, Any]) -> list[Label]:
    """The dimension, the codec and the dataset, as for a test that ended; and what every result has."""
    from allure_commons.model2 import Label
    from allure_commons.utils import host_tag, platform_label

    found = {
        "parentSuite": parsed.module.removeprefix("test_"),
        "suite": params.get("codec") or params.get("listed_codec"),
        "subSuite": params.get("dataset"),
        "host": host_tag(),
        "framework": "pytest",
        "language": platform_label(),
        "package": parsed.package,
    }
    return [Label(name=name, value=value) for name, value in found.items() if value]
