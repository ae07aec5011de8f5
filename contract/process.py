"""A codec in a fresh process: built again from its row, it must give the same.

Torch takes seconds to import, so one helper process imports it and nothing else, and forks for each codec: the fork has
seen no codec, and its hashes are salted otherwise than ours. `python -m earmark.contract.process` is that helper; it
reads a request a line and writes an answer a line, both JSON.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from earmark.codecs import registry
from earmark.codecs.calls import full_precision
from earmark.codecs.registry import Entry
from earmark.contract.subject import Made, Subject, difference
from earmark.contract.verdict import Broken, NotAsked, asked

FRAMES = 12  # of the clip that is coded there


@dataclass(frozen=True)
class Fresh:
    """What a fresh process said: an error, or its results and the settings that building the codec changed."""

    error: str = ""
    changed: tuple[str, ...] = ()
    made: Made | None = None


@asked("Tokens are made in one job and decoded in another, on other days: the codec must be all in its row.")
def fresh_process(subject: Subject) -> None:
    """Rebuilt from its row in a fresh process, it gives the same tokens, sound and latents."""
    fresh = in_fresh_process(subject)
    here = subject.of(_clip(subject), "speech-like sound, here and in a fresh process")
    if fresh.error or fresh.made is None:
        raise Broken("a codec that can be built from its row", fresh.error)
    if found := difference(here, fresh.made):
        raise Broken("what it gives here", found)


def _clip(subject: Subject) -> np.ndarray:
    return subject.speech(FRAMES * subject.hop)


def in_fresh_process(subject: Subject) -> Fresh:
    """What the codec makes in a fresh process, on the same device; asked once for each codec.

    Raises NotAsked for a class of the main script, which no other process can import.
    """
    if subject.entry.adapter.startswith("__main__:"):
        raise NotAsked("a class of the main script cannot be imported elsewhere; put it into a module")
    if not hasattr(os, "fork"):
        raise NotAsked("this system cannot fork a process")
    return _asked_once(subject.entry.model_dump_json(), subject.device)


@functools.cache
def _asked_once(entry: str, device: str) -> Fresh:
    import torch

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.npz"
        request = {
            "entry": entry,
            "device": device,
            "to": str(path),
            "path": sys.path,
            "threads": torch.get_num_threads(),
        }
        helper = _helper()
        assert helper.stdin is not None
        assert helper.stdout is not None
        helper.stdin.write(json.dumps(request) + "\n")
        helper.stdin.flush()
        answer = json.loads(helper.stdout.readline() or '{"error": "the helper process ended"}')
        made = dict(np.load(path)) if path.exists() else None
    return Fresh(answer.get("error", ""), tuple(answer.get("changed", ())), made)


@functools.cache
def _helper() -> subprocess.Popen[str]:
    """The helper process; it ends when this one does, however that ends: its input is closed then."""
    command = [sys.executable, "-c", "from earmark.contract import process; process.serve()"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": "random"}
    helper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
    atexit.register(_end, helper)
    return helper


def _end(helper: subprocess.Popen[str]) -> None:
    assert helper.stdin is not None
    assert helper.stdout is not None
    helper.stdin.close()
    helper.stdout.close()
    helper.kill()  # it holds nothing, and on a busy machine takes long to end by itself
    helper.wait()


def serve() -> None:
    """The helper: import torch, then fork for every request. What a codec prints goes to the error stream."""
    import torch  # noqa: F401

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in iter(sys.stdin.readline, ""):
        child = os.fork()
        if not child:
            _answer(json.loads(line), answers)
        _, status = os.waitpid(child, 0)
        if status:
            _say(answers, {"error": f"the process that built it died: status {status}"})


def _answer(request: dict[str, Any], answers: TextIO) -> None:
    """In the fork: answer, and end it."""
    try:
        _say(answers, {"changed": _built_and_used(request)})
    except Exception as error:
        _say(answers, {"error": f"{type(error).__name__}: {error}"})
    os._exit(0)


def _say(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _built_and_used(request: dict[str, Any]) -> list[str]:
    """Build the codec, code the clip, save what comes; the settings that building changed.

    Random generators may be drawn from there: networks begin with random weights.
    """
    import torch

    from earmark.contract import state

    torch.set_num_threads(request["threads"])
    sys.path[:] = request["path"]
    full_precision(request["device"])
    entry, before = Entry.model_validate_json(request["entry"]), state.process_state()
    adapter = registry.load(entry, request["device"])
    changed = [name for name in state.changes(before, state.process_state()) if not name.startswith("random")]
    full_precision(request["device"])  # again, as in `calls.load`: what building changed is noted by now
    subject = Subject(entry, request["device"], lambda: adapter)
    made: dict[str, Any] = {**subject.of(_clip(subject))}
    np.savez(request["to"], **made)
    return changed
