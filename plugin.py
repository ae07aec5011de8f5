"""The pytest plugin: hooks, and the one place where codecs, datasets and suites are joined.

The controller resolves codecs x datasets once (`planning`) and hands the list to its workers, which therefore collect
the same tests and never look at disk or CUDA to do so. Workers measure, by the fixtures that suites ask for
(`fixtures`); the controller alone writes the score files.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from earmark import options, paths, progress, summary, thresholds
from earmark.baseline import BaselineGate
from earmark.codecs.calls import CodecError
from earmark.codecs.registry import Entry
from earmark.data import cards
from earmark.data.manifest import ManifestError
from earmark.devices import DevicePool, cores_of, visible_gpus
from earmark.planning import LISTENING, MEASURED, RUN, hold_reports, judge_of, out_of, refuse_unwritable, run_of
from earmark.reports import own
from earmark.reports import scores as score_files
from earmark.reports.listening import write_manifest
from earmark.reports.scores import Score
from earmark.run import Plan, Run
from earmark.store import keep
from earmark.store.shards import StoreError
from earmark.watchdog import Watchdog, kill

pytest_plugins = ["earmark.fixtures"]

_POOL = pytest.StashKey[DevicePool]()
_MONITOR = pytest.StashKey[progress.Monitor]()
MOST_RESTARTS = "1000"  # of workers: a crash costs its test and not the run; a bound, should they crash before any test
SPEED_ALONE = "pytest --pyargs earmark.suites.test_speed -n 0"
_CONTROLLER: list[pytest.Config] = []  # pytest_runtest_logreport is not told the config


# -- configuration: the controller plans, the workers are told --------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    options.add_to(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "suite(use, needs=None): which datasets a suite uses and what codecs must do")
    config.addinivalue_line("markers", "metric(name): left out where what that metric needs is not here")
    config.addinivalue_line("markers", "backends(kind): `backend` is each model of that kind that is here")
    config.addinivalue_line("markers", "task(kind): for datasets with labels of that kind")
    config.addinivalue_line("markers", "sample_rate(at_least): for codecs of so many Hz")
    config.addinivalue_line("markers", "preset(name): left out of runs with another preset")
    worker = getattr(config, "workerinput", {})
    if worker.get("earmark_gpu") is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = worker["earmark_gpu"]  # before torch is imported
    if _runs_suites(config):
        refuse_unwritable(config)
        hold_reports(config)
        # it is written all the same, and every JUnit reader that we know takes it
        config.addinivalue_line("filterwarnings", "ignore:record_property is incompatible:pytest.PytestWarning")
        config.option.benchmark_storage = (paths.home() / "benchmarks").as_uri()  # else an empty folder is left here
        if getattr(config.option, "maxworkerrestart", "") is None:  # xdist's own default: four for each worker
            config.option.maxworkerrestart = MOST_RESTARTS
        if not config.option.allure_report_dir:
            config.option.allure_report_dir = str(out_of(config) / "allure-results")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Plan the run before any worker starts, so that a misspelt name is one error and not one a worker."""
    config = session.config
    if not _runs_suites(config):
        return
    run = run_of(config)
    if not hasattr(config, "workerinput"):
        judge = judge_of(config)
        if config.option.baseline:
            gate = BaselineGate(config.option.baseline, run, judge, Path(config.option.allure_report_dir))
            config.pluginmanager.register(gate, "earmark-baseline")
        from earmark.reports.allure import clean

        _CONTROLLER.append(config)
        if not (config.option.collectonly or config.option.continue_run):
            clean(Path(config.option.allure_report_dir))
        run.out.mkdir(parents=True, exist_ok=True)
        _share_cores(len(getattr(config.option, "tx", None) or ()))
    if not config.option.collectonly:
        _start_progress(config, run)


def _share_cores(workers: int) -> None:
    """numpy's threads are counted when a worker imports it, so now; what the user said of them stands."""
    if workers:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores_of(workers))))


def _start_progress(config: pytest.Config, run: Run) -> None:
    """Signs of life from the processes that run tests, and in the controller what watches them; with `-n 0`, both."""
    folder, worker = paths.home() / "runs" / run.plan.run, getattr(config, "workerinput", {}).get("workerid")
    distributes = config.pluginmanager.hasplugin("dsession")
    if worker is None:
        progress.make_folder(folder)
        display = progress.display_for(config.pluginmanager.get_plugin("terminalreporter"), config)
        watchdog = Watchdog(
            config.option.hang_timeout, kill if distributes else None, display.say if display else print
        )
        monitor = progress.Monitor(folder, progress.Tally(run.weight), display, watchdog)
        config.pluginmanager.register(monitor, "earmark-monitor")
        config.stash[_MONITOR] = monitor
        monitor.start()
    if not distributes:
        run.notify = progress.Heart(folder, worker or "main", config.option.hang_timeout)
        config.pluginmanager.register(run.notify, "earmark-heart")


def _runs_suites(config: pytest.Config) -> bool:
    """Whether this run has Earmark's suites in it, rather than only the project's own tests."""
    worker = getattr(config, "workerinput", None)
    if worker is not None:
        return "earmark_plan" in worker
    suites = Path(__file__).parent / "suites"
    named = [argument.partition("::")[0] for argument in config.args]
    return any(name.startswith("earmark.suites") or _share(Path(name), suites) for name in named)


def _share(path: Path, folder: Path) -> bool:
    """Whether a path lies in a folder, or the folder in it."""
    path, folder = path.resolve(), folder.resolve()
    return path.is_relative_to(folder) or folder.is_relative_to(path)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """`-n auto` means one worker a GPU, one for a GPU that was named; without GPUs, what xdist makes of it."""
    asked = config.option.device or "cuda"
    if not _runs_suites(config) or asked == "cpu":
        return None
    return 1 if asked != "cuda" else len(visible_gpus()) or None


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give a starting worker the plan and a device of its own."""
    config = node.config
    if not _runs_suites(config):
        return
    node.workerinput["earmark_plan"] = run_of(config).plan.model_dump_json()
    if _POOL not in config.stash:
        automatic = config.option.device in (None, "cuda")
        config.stash[_POOL] = DevicePool(visible_gpus() if automatic else [])
    node.workerinput["earmark_gpu"] = config.stash[_POOL].take(node.gateway.id)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    if _POOL in node.config.stash:
        node.config.stash[_POOL].give_back(node.gateway.id)


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(crashitem: str, report: Any) -> None:
    """A test whose worker died is one failure that says why, on the terminal and in Allure."""
    config, worker = report.node.config, report.node.gateway.id
    if _MONITOR not in config.stash:
        return
    from earmark.reports.allure.written import write_result

    monitor = config.stash[_MONITOR]
    last, trace = monitor.last(worker), monitor.trace(worker)
    reason = monitor.watchdog.reasons.get(worker) or f"it was at {last.get('doing') or 'nothing that it named'}"
    message = f"infrastructure fault: worker {worker} crashed while running {crashitem}: {reason}"
    report.longrepr = "\n".join(part for part in (message, trace) if part)
    params = last["params"] if last.get("test") == crashitem else {}
    write_result(Path(config.option.allure_report_dir), crashitem, params, "broken", message, trace)


# -- collection: codecs x datasets ------------------------------------------------------------------------------------


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise by names (strings), so that test ids and Allure's history stay the same from run to run."""
    names = {"codec", "dataset", "listed_codec", "listed_need", "backend", "encoder"} & set(metafunc.fixturenames)
    if not names or not metafunc.module.__name__.rpartition(".")[0].endswith("suites"):
        return
    plan = run_of(metafunc.config).plan
    suite = metafunc.definition.get_closest_marker("suite")
    use, need = (suite.args[0], suite.kwargs.get("needs")) if suite else (None, None)
    if "listed_codec" in names:
        metafunc.parametrize("listed_codec", [entry.name for entry in plan.codecs], indirect=True)
    if "listed_need" in names:
        metafunc.parametrize("listed_need", [*plan.optional], indirect=True)
    if "codec" in names:
        entries = _asked_of(metafunc.definition, plan, plan.ready(need))
        metafunc.parametrize("codec", [entry.name for entry in entries], indirect=True, scope="session")
    if "dataset" in names:
        found = plan.using(use, _argument(metafunc.definition, "task"))
        metafunc.parametrize("dataset", [card.name for card in found], indirect=True, scope="session")
    if "backend" in names:
        metafunc.parametrize("backend", plan.backends(_argument(metafunc.definition, "backends") or ""))
    if "encoder" in names:
        metafunc.parametrize("encoder", [entry.name for entry in plan.encoders], indirect=True, scope="session")


def _asked_of(test: pytest.Item, plan: Plan, entries: list[Entry]) -> list[Entry]:
    """The codecs that a test's marks leave: none where its metric cannot be had here."""
    if plan.optional.get(_argument(test, "metric") or "") is not None:
        return []
    at_least = _argument(test, "sample_rate")
    return [entry for entry in entries if at_least is None or (entry.info.sample_rate or 0) >= at_least]


def _argument(test: pytest.Item, mark: str) -> Any:
    found = test.get_closest_marker(mark)
    return found.args[0] if found else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A question that no codec or no dataset of this run is for is left out, rather than skipped by pytest."""
    if RUN not in config.stash:
        return
    _without_speed(config, items)
    preset = config.stash[RUN].plan.preset
    empty = [
        item
        for item in items
        if "NOTSET" in getattr(getattr(item, "callspec", None), "id", "")
        or _argument(item, "preset") not in (None, preset)
    ]
    if empty:
        config.hook.pytest_deselected(items=empty)
        items[:] = [item for item in items if item not in empty]


def _without_speed(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Beside other workers nothing can be timed (pytest-benchmark switches itself off): those tests are left out."""
    if _alone(config):
        return
    timed = [item for item in items if item.path.stem == "test_speed"]
    if timed:
        config.hook.pytest_deselected(items=timed)
        items[:] = [item for item in items if item not in timed]


def _alone(config: pytest.Config) -> bool:
    return not hasattr(config, "workerinput") and not config.pluginmanager.hasplugin("dsession")


# -- one test after the other -----------------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Allure's tree: the dimension, then the codec, then the dataset, rather than Python's packages and modules."""
    names = getattr(getattr(item, "callspec", None), "params", {})
    codec = names.get("codec") or names.get("listed_codec")
    if RUN not in item.config.stash or codec is None:
        return
    import allure

    allure.dynamic.parent_suite(item.path.stem.removeprefix("test_"))
    allure.dynamic.suite(codec)
    if "dataset" in names:
        allure.dynamic.sub_suite(names["dataset"])


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call() -> Generator[None, Any, Any]:
    """A known fault fails its test with its message alone: a traceback through our code explains nothing more."""
    return (yield from _without_traceback())


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup() -> Generator[None, Any, Any]:
    return (yield from _without_traceback())


def _without_traceback() -> Generator[None, Any, Any]:
    try:
        return (yield)
    except (CodecError, StoreError, cards.DataError, ManifestError) as error:
        message = str(error)
    pytest.fail(message, pytrace=False)  # outside the handler: the fault is not shown again as the failure's cause


# -- results: workers attach them to their reports, the controller writes them ----------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Generator[None, Any, Any]:
    report = yield
    if call.when == "call" and MEASURED in item.stash:
        report.earmark = item.stash[MEASURED]  # plain JSON: it crosses from worker to controller
    if call.when == "call" and LISTENING in item.stash:
        report.earmark_heard = item.stash[LISTENING]
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write each score as it comes, so that a killed run keeps what it had."""
    if not _CONTROLLER:
        return
    run = _CONTROLLER[-1].stash[RUN]
    run.heard += getattr(report, "earmark_heard", [])
    if measured := getattr(report, "earmark", None):
        run.results += measured
        score_files.append_scores(run.out / "scores.jsonl", [Score.from_dict(entry["score"]) for entry in measured])


def pytest_unconfigure(config: pytest.Config) -> None:
    if config in _CONTROLLER:
        _CONTROLLER.remove(config)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """The controller writes what needs the whole run: per-clip values, thresholds, Allure's environment."""
    config = session.config
    if RUN not in config.stash or hasattr(config, "workerinput"):
        return
    run = config.stash[RUN]
    score_files.write_clips(run.out / "clips.parquet", [row for entry in run.results for row in entry["clips"]])
    write_manifest(run.out, run.heard)
    own.keep(run.out, {entry.name: entry.info.model_dump(mode="json") for entry in run.plan.codecs if entry.own})
    _write_allure(run, Path(config.option.allure_report_dir))
    keep.enforce(paths.home() / "store", keep.limit())
    if config.option.write_thresholds and run.results:
        from earmark.scoring import in_order

        scores = in_order([Score.from_dict(entry["score"]) for entry in run.results])
        origin = f"measured {scores[0].time[:10]}, earmark {scores[0].versions['earmark']}"
        config.option.write_thresholds.write_text(thresholds.as_yaml(scores, origin), encoding="utf-8")


def _write_allure(run: Run, results: Path) -> None:
    from earmark.reports import allure

    allure.tidy(results)
    if not run.results:
        return
    written = score_files.read_scores(run.out / "scores.jsonl")
    measured = [score for score in written if score.run == run.plan.run]  # of the run that this one continues, too
    allure.write_environment(results, {**measured[0].versions, "device": measured[0].device, "preset": run.plan.preset})
    allure.write_categories(results)
    allure.write_performance(results, measured)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Name the device, the codecs and the data at the top of every run."""
    from earmark.data import own

    if RUN not in config.stash:
        return []
    run = config.stash[RUN]
    ready = run.plan.ready(None)
    limit = f", at most {run.plan.limit} clips each" if run.plan.limit else ""
    return [
        f"earmark: device {run.device}, preset {run.plan.preset}, store {paths.home() / 'store'}",
        f"codecs: {len(ready)} ready of {len(run.plan.codecs)} (`earmark codecs` lists them)",
        f"data: {', '.join(card.name for card in run.plan.cards)}{limit}",
        *(remark for card in run.plan.cards for remark in own.remarks(card)),
        *([] if _alone(config) else [f"speed: not measured beside other workers; {SPEED_ALONE}"]),
    ]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The scores of this run as a table, what nothing gated, and the clips that failed, by name."""
    run = config.stash.get(RUN, None)
    if run is None or not run.results:
        return
    terminalreporter.section("scores")
    for line in summary.lines(run):
        terminalreporter.write_line(line)
    if config.option.write_thresholds:
        terminalreporter.write_line(f"thresholds: {config.option.write_thresholds}, written anew from these scores")
