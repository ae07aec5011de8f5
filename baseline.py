"""`--baseline DIR`: when the suites have run, compare their scores with those of an earlier run, each as a test.

A correction for how many scores are compared needs all of them, so this is the controller's, after the last test. Each
comparison is reported as a test of its own: it counts, it fails the run, and it is in JUnit and in Allure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from earmark.reports.scores import Score

if TYPE_CHECKING:
    from earmark.reports.compare import Comparison
    from earmark.run import Run
    from earmark.thresholds import Thresholds

TEST = "suites/test_baseline.py::test_no_worse_than_the_baseline"


class BaselineGate:
    """Registered where `--baseline` is given. Raises pytest.UsageError where that folder has no scores."""

    def __init__(self, folder: Path, run: Run, margins: Thresholds, allure_results: Path) -> None:
        from earmark.reports.compare import Baseline

        try:
            self.baseline = Baseline(folder)
        except ValueError as error:
            raise pytest.UsageError(f"--baseline {error}") from error
        if folder.resolve() == run.out.resolve():
            raise pytest.UsageError(f"--baseline {folder}: this run writes there; give it another folder by --reports")
        self.run, self.margins, self.allure_results = run, margins, allure_results
        self.comparisons: list[Comparison] = []
        self.missing = 0  # scores that the baseline has and this run has not

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        done = yield
        if not session.config.option.collectonly:
            scores = [Score.from_dict(entry["score"]) for entry in self.run.results]
            scores = [score for score in scores if not score.metric.endswith("_original")]  # that is of the recording
            clips = [row for entry in self.run.results for row in entry["clips"]]
            self.comparisons = self.baseline.compare(scores, clips, self.margins.margin)
            self.missing = len(self.baseline.missing(scores))
            for found in self.comparisons:
                self._report(session.config, found)
            if all(found.skipped for found in self.comparisons):
                self._nothing_compared(session.config)
        return done

    def _nothing_compared(self, config: pytest.Config) -> None:
        """A gate that judged nothing must not be taken for one that was passed."""
        reasons = Counter(found.skipped for found in self.comparisons).most_common(1)
        why = reasons[0][0] if reasons else "it has no score of these codecs, suites and datasets"
        text = f"infrastructure fault: nothing was compared with the baseline {self.baseline.folder}: {why}"
        self._tell(config, f"{TEST}[nothing]", "failed", text)

    def _report(self, config: pytest.Config, found: Comparison) -> None:
        """One comparison, as if a test had made it."""
        from earmark.reports.allure.written import write_result
        from earmark.reports.compare import describe

        outcome = {"worse": "failed", "not compared": "skipped"}.get(found.verdict, "passed")
        text = f"regression: {describe(found)}" if found.regressed else describe(found)
        new = found.new
        nodeid = f"{TEST}[{new.codec}-{new.dataset}-{new.metric}]"
        self._tell(config, nodeid, outcome, text)
        params = {"codec": new.codec, "dataset": new.dataset, "metric": new.metric}
        write_result(self.allure_results, nodeid, params, outcome, text)

    @staticmethod
    def _tell(config: pytest.Config, nodeid: str, outcome: Any, text: str) -> None:
        """What pytest is told: the three reports that a test has."""
        location = (TEST.partition("::")[0], None, nodeid.partition("::")[2])
        longrepr: Any = {"failed": text, "skipped": (location[0], 0, f"Skipped: {text}"), "passed": None}[outcome]
        for when, result, message in (
            ("setup", "passed", None),
            ("call", outcome, longrepr),
            ("teardown", "passed", None),
        ):
            report = pytest.TestReport(nodeid, location, {}, result, message, when)  # type: ignore[arg-type]
            config.hook.pytest_runtest_logreport(report=report)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        from earmark.reports.compare import as_markdown

        if self.comparisons:
            (self.run.out / "baseline.md").write_text(as_markdown(self.comparisons), encoding="utf-8")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.section("baseline")
        counts = Counter(self._word(found) for found in self.comparisons)
        said = ", ".join(f"{count} {word}" for word, count in counts.most_common()) or "no score of this run is in it"
        said += f"; {self.missing} of its scores were not measured by this run" if self.missing else ""
        terminalreporter.write_line(f"{self.baseline.folder}: {said}")
        if self.comparisons:
            terminalreporter.write_line(f"every comparison: {self.run.out / 'baseline.md'}")

    @staticmethod
    def _word(found: Comparison) -> str:
        return f"not compared ({found.skipped})" if found.verdict == "not compared" else found.verdict
