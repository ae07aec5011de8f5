"""A real browser for tests: headless Chromium, driven through its own pipe (the DevTools protocol), in real time.

What needs no playing and no clicking may use `--dump-dom`, which is faster; sound needs a clock that runs.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

CHROMIUM = shutil.which("chromium")
OFFLINE = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND",
    "--disable-dev-shm-usage",  # a container's /dev/shm has 64 MB, which a page may fill
)  # fmt: skip
PLAYING = ("--autoplay-policy=no-user-gesture-required", "--mute-audio", "--hide-scrollbars")
WAIT_S = 300  # for an answer; never how long a test takes


class Page:
    """One page: what it answers, what it looks like, and all that went wrong in it."""

    def __init__(self, answers: IO[bytes], orders: IO[bytes]) -> None:
        self._answers, self._orders = answers, orders
        self._rest, self._last, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.order("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.order("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.order(f"{domain}.enable")

    def order(self, method: str, **params: Any) -> dict[str, Any]:
        """Give an order of the protocol and wait for its answer; what happens meanwhile goes into `events`."""
        self._last += 1
        asked = {"id": self._last, "method": method, "params": params}
        asked |= {"sessionId": self._session} if self._session else {}
        self._orders.write(json.dumps(asked).encode() + b"\0")
        self._orders.flush()
        while (message := self._message()).get("id") != self._last:
            self.events.append(message)
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']}")
        return message["result"]

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._answers], [], [], WAIT_S)
            more = os.read(self._answers.fileno(), 1 << 20) if ready else b""
            if not more:
                raise RuntimeError("the browser is gone" if ready else f"no answer in {WAIT_S} s")
            self._rest += more
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, file: Path, fragment: str = "") -> None:
        """Go to a file and wait until it is loaded, or to another place of the one that is open."""
        before = len(self.events)
        self.order("Page.navigate", url=file.resolve().as_uri() + fragment)
        arrived = {"Page.loadEventFired", "Page.navigatedWithinDocument"}
        while not any(event.get("method") in arrived for event in self.events[before:]):
            self.events.append(self._message())

    def wait_for(self, script: str) -> Any:
        """The value of an expression as soon as it is true; asked fifty times a second."""
        return self.ask(
            f"new Promise((done) => {{ const look = () => {{ const found = {script}; "
            "if (found) done(found); else setTimeout(look, 20); }; look(); })"
        )

    def ask(self, script: str) -> Any:
        """The value of an expression of JavaScript, as a user's gesture; a promise is awaited."""
        found = self.order(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in found:
            raise AssertionError(f"{script[:200]}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def complaints(self) -> list[str]:
        """Every error and warning that the page has left on the console, and every exception that nothing caught."""
        found = []
        for event in self.events:
            method, params = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                found.append(json.dumps(params["exceptionDetails"]))
            elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                found.append(json.dumps(params["args"]))
            elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(json.dumps(params["entry"]))
        return found

    def requested(self) -> list[str]:
        """What the page loaded that is not in it: every address but the file's own and inline data."""
        asked = [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith(("file:", "data:", "blob:", "about:"))]

    def resize(self, width: int, height: int) -> None:
        """The window's size, in CSS pixels."""
        self.order(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1.25, mobile=False
        )

    def photograph(self, picture: Path, width: int, height: float, top: float = 0) -> None:
        """A PNG of a part of the window, from `top` down, of few colours so that it is small."""
        from PIL import Image

        part = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
        picture.write_bytes(base64.b64decode(self.order("Page.captureScreenshot", format="png", clip=part)["data"]))
        Image.open(picture).convert("RGB").quantize(128).save(picture, optimize=True)


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A page of a Chromium of its own, where no host has an address; it ends with the block."""
    assert CHROMIUM, "chromium is not on this machine"
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    pipes = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
    options = [*OFFLINE, *PLAYING, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
    started = subprocess.Popen(
        ["bash", "-c", pipes, CHROMIUM, *options],
        pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        with os.fdopen(ours_in, "rb") as answers, os.fdopen(ours_out, "wb") as orders:
            yield Page(answers, orders)
    finally:
        started.terminate()
        started.wait(WAIT_S)
