"""A real browser for tests: headless Chromium, driven over its own debugging protocol on loopback.

Chromium's DevTools protocol is a WebSocket with JSON messages; a test needs so little of it that a driver of its own
is smaller than a dependency and the browser download that comes with one.
"""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome")

_ARGUMENTS = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--no-sandbox",  # tests run as root in containers; the page is our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--window-size=1200,900",
)


class Page:
    """One open page."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._numbers = socket, itertools.count(1)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command and return its result. Raises: AssertionError if the browser refuses it."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=30))
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message}"
                return message["result"]

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited. Raises: AssertionError if it throws."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait_for(self, script: str, seconds: float = 30) -> Any:
        """Wait until an expression is true and return it."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"after {seconds} s still not true: {script}"
            time.sleep(0.1)
        return value

    def choose_file(self, selector: str, path: Path) -> None:
        """Choose a file in a file field, as a person does in the dialog."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def drop_file(self, path: Path, x: int, y: int) -> None:
        """Drag a file from outside and drop it at a place of the window."""
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def screenshot(self) -> bytes:
        """PNG of what is seen."""
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])


@contextmanager
def open_page(url: str, profile: Path) -> Iterator[Page]:
    """A page in a browser of its own, closed at the end.

    Args: profile: an empty folder that the browser may write to.

    Raises: AssertionError if there is no Chromium here.
    """
    program = next(filter(None, map(shutil.which, NAMES)), None)
    assert program, f"No browser found ({', '.join(NAMES)}). Install Chromium: apt-get install chromium."
    browser = subprocess.Popen(
        [program, *_ARGUMENTS, f"--user-data-dir={profile}", "about:blank"], stderr=subprocess.DEVNULL
    )
    try:
        port = _port(profile / "DevToolsActivePort")
        request = urllib.request.Request(f"http://127.0.0.1:{port}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request, timeout=30) as response:
            address = json.load(response)["webSocketDebuggerUrl"]
        with connect(address, max_size=None) as socket:
            page = Page(socket)
            page.call("Page.navigate", url=url)
            page.wait_for("document.readyState === 'complete'")
            yield page
    finally:
        browser.terminate()
        browser.wait(timeout=30)


def _port(file: Path, seconds: float = 30) -> int:
    """The port that Chromium chose, which it writes down when it listens."""
    end = time.monotonic() + seconds
    while not file.exists() or not file.read_text():
        assert time.monotonic() < end, f"Chromium did not start within {seconds} s"
        time.sleep(0.05)
    return int(file.read_text().split("\n", 1)[0])
