"""What a run is of: codecs x datasets, as pytest's options name them; and the thresholds that judge it."""

from __future__ import annotations

import errno
import functools
import os
import re
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from earmark import thresholds as thresholds_file
from earmark.codecs import registry
from earmark.codecs.registry import Entry
from earmark.data import cards
from earmark.devices import cores_of, visible_gpus
from earmark.metrics import registry as metric_registry
from earmark.names import nearest
from earmark.reports import scores as score_files
from earmark.run import PRESETS, USAGE_ERRORS, Plan, Run
from earmark.store import keep
from earmark.thresholds import Thresholds

RUN = pytest.StashKey[Run]()  # of a config
JUDGE = pytest.StashKey[Thresholds]()
MEASURED = pytest.StashKey[list[dict[str, Any]]]()  # of a test: what it measured, on its way to the controller
LISTENING = pytest.StashKey[list[dict[str, Any]]]()  # of a test: the clips that it keeps to listen to, likewise


def out_of(config: pytest.Config) -> Path:
    return (config.invocation_params.dir / config.option.reports).resolve()


def refuse_unwritable(config: pytest.Config) -> None:
    """Where a run is to leave what it finds must be writable before it measures, not after an hour of it."""
    if config.option.collectonly or hasattr(config, "workerinput"):
        return
    wanted = {"--reports": out_of(config)}
    if config.option.write_thresholds:
        wanted["--write-thresholds"] = config.option.write_thresholds.resolve().parent
    for option, folder in wanted.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if option == "--write-thresholds" and config.option.write_thresholds.is_dir():
                raise IsADirectoryError(errno.EISDIR, "it is a folder, a file is wanted")
            if not os.access(folder, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            raise pytest.UsageError(f"{option}: cannot write to {folder} ({error.strerror}); name another") from error


def hold_reports(config: pytest.Config) -> None:
    """Keep the reports folder to this run: two at once would clear each other's Allure results, and each other's clips.

    The system lets go of it however the run ends. A file system that has no such locks leaves it to the user.
    """
    if config.option.collectonly or hasattr(config, "workerinput"):
        return
    try:
        import fcntl  # Windows has none

        held = os.open(out_of(config), os.O_RDONLY)
        config.add_cleanup(functools.partial(os.close, held))
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise pytest.UsageError(
            f"--reports: another run is writing to {out_of(config)}; wait for it, or name another folder: "
            "`earmark report A/scores.jsonl B/scores.jsonl` puts two on one leaderboard"
        ) from error
    except (ImportError, OSError):
        return


def run_of(config: pytest.Config) -> Run:
    if RUN not in config.stash:
        try:
            config.stash[RUN] = _make_run(config)
        except USAGE_ERRORS as error:
            raise pytest.UsageError(str(error)) from error
    return config.stash[RUN]


def _make_run(config: pytest.Config) -> Run:
    worker = getattr(config, "workerinput", None)
    plan = Plan.model_validate_json(worker["earmark_plan"]) if worker else _resolve(config)
    return Run(plan, out_of(config), _device(config), engine=_engine(config), is_worker=worker is not None)


def _engine(config: pytest.Config) -> Callable | None:
    """Who makes what is missing: this process and the workers beside it (None), or the tasks of a Ray cluster."""
    if config.option.engine == "local":
        from earmark.store.pool import MOST, Pool

        return Pool(min(MOST, cores_of(getattr(config, "workerinput", {}).get("workercount", 1))))
    try:
        from earmark.store.ray_engine import connect
    except ImportError as error:
        raise pytest.UsageError(f"--engine ray: {error}; run: pip install 'earmark[ray]'") from error
    try:
        return connect(config.option.ray_address)
    except ConnectionError as error:
        raise pytest.UsageError(f"--engine ray: {error}") from error


def _resolve(config: pytest.Config) -> Plan:
    """Find every codec and dataset that the options name."""
    option = config.option
    for name in ("codec", "data", "require"):  # an empty variable in CI: a gate that judged other codecs would pass
        if getattr(option, name) and not listed(getattr(option, name)):
            raise cards.DataError(f"--{name}: no name is given; leave the option out where you mean none")
    codecs = [registry.find(spec) for spec in listed(option.codec)] or [*registry.catalogue().values()]
    twice = [name for name, count in Counter(entry.name for entry in codecs).items() if count > 1]
    if twice:
        raise registry.CatalogueError(
            f"--codec: {twice[0]!r} is there twice; give each class a name of its own in its Info"
        )
    names = {name for entry in codecs for name in (entry.name, entry.family) if name}
    for required in listed(option.require):
        if required not in names:
            raise registry.CodecNotFoundError(f"--require {required}{nearest(required, names)}")
    try:
        keep.limit()  # a bad size is said now, and not after the run
    except ValueError as error:
        raise cards.DataError(str(error)) from error
    if option.limit is not None and option.limit < 1:
        raise cards.DataError(f"--limit {option.limit}: expected at least 1")
    return Plan(
        codecs=codecs,
        statuses={entry.name: registry.status(entry) for entry in codecs},
        cards=cards.select(listed(option.data)),
        limit=option.limit or PRESETS[option.preset].clips,
        heavy_limit=option.limit or PRESETS[option.preset].heavy_clips,
        trained_limit=option.limit or PRESETS[option.preset].trained_clips,
        preset=option.preset,
        run=_last_run(out_of(config)) if option.continue_run else uuid.uuid4().hex,
        encoders=_encoders(listed(option.encoder)),
        optional=metric_registry.optional(),
    )


def listed(values: list[str]) -> list[str]:
    """What an option names that may be repeated, and may hold several names between commas."""
    return [name.strip() for names in values for name in names.split(",") if name.strip()]


def _last_run(out: Path) -> str:
    """The name of the run that wrote last into a folder; a new one where none did."""
    path = out / "scores.jsonl"
    found = score_files.read_scores(path) if path.is_file() else []
    return found[-1].run if found else uuid.uuid4().hex


def _encoders(specs: list[str]) -> list[Entry]:
    """The encoders that distributions are compared by: those that are named, else all that are ready here."""
    if not specs:
        found = [entry for entry in registry.catalogue().values() if entry.info.capabilities == ("embed",)]
        return [entry for entry in found if entry.family != "control" and registry.status(entry).ready]
    named = [registry.find(spec) for spec in specs]
    for entry in named:
        status = registry.status(entry)
        if "embed" not in entry.info.capabilities or not status.ready:
            why = status if not status.ready else "it gives no latents"
            raise registry.CatalogueError(f"--encoder {entry.name}: {why}")
    return named


def _device(config: pytest.Config) -> str:
    """The torch device of this process, found without importing torch."""
    asked, gpus = config.option.device, visible_gpus()
    if asked is None:
        return "cuda:0" if gpus else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", asked):
        raise pytest.UsageError(f"--device {asked}: expected cpu, cuda or cuda:N")
    if asked != "cpu" and int(asked.partition(":")[2] or 0) >= len(gpus):
        raise pytest.UsageError(f"--device {asked}: this machine shows {len(gpus)} CUDA devices; use --device cpu")
    return asked


def judge_of(config: pytest.Config) -> Thresholds:
    """The thresholds of the run, read once, every name in them checked."""
    if JUDGE not in config.stash:
        from earmark.scoring import metric_names, metric_units, metric_variants
        from earmark.scoring.speed import SYNTHETIC

        plan = run_of(config).plan
        suites = [path.stem.removeprefix("test_") for path in (Path(__file__).parent / "suites").glob("test_*.py")]
        names = thresholds_file.Names(
            codecs=[*registry.catalogue(), *(entry.name for entry in plan.codecs)],
            suites=suites,
            datasets=[*cards.cards(), *(card.name for card in plan.cards), SYNTHETIC],
            metrics=metric_names(entry.name for entry in plan.encoders),
            variants=metric_variants(),
            units=metric_units(),
        )
        try:
            config.stash[JUDGE] = thresholds_file.load(config.option.thresholds, names)
        except USAGE_ERRORS as error:
            raise pytest.UsageError(str(error)) from error
    return config.stash[JUDGE]
