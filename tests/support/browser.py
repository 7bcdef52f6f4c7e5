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
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from websockets.sync.client import ClientConnection, connect

_KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "End": 35, "Home": 36, "Delete": 46}
_KEYS |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}

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


_SERIOUS = ("serious", "critical")

_AXE = """axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => violations.flatMap(
  ({ impact, help, nodes }) => nodes.map(({ target, failureSummary: why }) => ({ impact, help, target, why }))))"""


class Page:
    """One open page.

    complaints: what its console said. failed: what the network answered with an error status; Chromium says so in the
    console whatever the page does. hosts: whom it asked.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self.complaints: list[str] = []
        self.failed: list[str] = []
        self.hosts: set[str] = set()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send one command and return its result. Raises: AssertionError if the browser refuses it."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=120))
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message}"
                return message["result"]
            self._note(message.get("method"), message.get("params", {}))

    def _note(self, event: str | None, params: dict[str, Any]) -> None:
        if event == "Runtime.consoleAPICalled":
            said = " ".join(str(one.get("value", one.get("description"))) for one in params["args"])
            self.complaints.append(f"{params['type']}: {said}")
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))
        elif event == "Log.entryAdded":
            entry = params["entry"]
            told = self.failed if entry["source"] == "network" else self.complaints
            told.append(f"{entry['level']}: {entry['text']} {entry.get('url')}")
        elif event == "Network.requestWillBeSent":
            address = urlsplit(params["request"]["url"])
            if address.scheme.startswith(("http", "ws")):
                self.hosts.add(address.netloc)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited. Raises: AssertionError if it throws."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait_for(self, script: str, seconds: float = 90) -> Any:
        """Wait until an expression is true and return it."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"after {seconds} s still not true: {script}"
            time.sleep(0.1)
        return value

    def choose_file(self, selector: str, *paths: Path) -> None:
        """Choose files in a file field, as a person does in the dialog; a folder where the field takes one."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def drop_file(self, path: Path, x: int, y: int) -> None:
        """Drag a file or a folder from outside and drop it at a place of the window."""
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def press(self, key: str, *, shift: bool = False) -> None:
        """One key, by its name in KeyboardEvent.key: Tab, Escape, ArrowRight, a."""
        code = _KEYS.get(key, ord(key[0].upper()))
        told = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        typed = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        self.call("Input.dispatchKeyEvent", type="keyDown", **told, **({"text": typed} if typed else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **told)

    def type(self, text: str) -> None:
        """Text into the field that has the focus."""
        self.call("Input.insertText", text=text)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press the mouse at one place of the window, and let go at another."""
        for kind, (x, y) in (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def look(self, width: int, height: int, *, dark: bool = False, still: bool = False) -> None:
        """See the page in a window of this size (CSS pixels), light or dark, with motion or without."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        wishes = {"prefers-color-scheme": "dark" if dark else "light"}
        wishes["prefers-reduced-motion"] = "reduce" if still else "no-preference"
        features = [{"name": name, "value": value} for name, value in wishes.items()]
        self.call("Emulation.setEmulatedMedia", features=features)

    def barriers(self) -> list[dict[str, Any]]:
        """What axe-core finds serious or critical for people who cannot see or point: impact, help, target."""
        if not self.run("typeof axe !== 'undefined'"):
            program = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
            self.call("Runtime.evaluate", expression=program)
        return [one for one in self.run(_AXE) if one["impact"] in _SERIOUS]

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
            for domain in ("Runtime", "Log", "Network"):
                page.call(f"{domain}.enable")
            page.call("Page.navigate", url=url)
            page.wait_for("document.readyState === 'complete'")
            yield page
    finally:
        browser.terminate()
        browser.wait(timeout=30)


def _port(file: Path, seconds: float = 120) -> int:
    """The port that Chromium chose, which it writes down when it listens."""
    end = time.monotonic() + seconds
    while not file.exists() or not file.read_text():
        assert time.monotonic() < end, f"Chromium did not start within {seconds} s"
        time.sleep(0.05)
    return int(file.read_text().split("\n", 1)[0])
