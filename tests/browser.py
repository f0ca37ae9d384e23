"""Drives headless Chromium through chromedriver with the plain WebDriver protocol, to look at a rendered page."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1280,800",
)
_START_S = 20.0  # a cold start of the driver on a busy machine


def missing() -> str:
    """Why no browser can be driven here; empty when one can."""
    absent = [name for name in ("chromedriver", "chromium") if shutil.which(name) is None]
    return f"needs {' and '.join(absent)} on the PATH" if absent else ""


class Browser:
    """One window. Every method raises RuntimeError with the driver's message when the driver refuses."""

    def __init__(self, port: int, profile: Path) -> None:
        self._address = f"http://127.0.0.1:{port}"
        chrome = {"args": [*_FLAGS, f"--user-data-dir={profile}"], "binary": shutil.which("chromium")}
        wanted = {"goog:chromeOptions": chrome, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
        session = self._send("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._address += f"/session/{session['sessionId']}"

    def _send(self, method: str, path: str, body: dict | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._address + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"]) from error

    def open(self, path: Path) -> None:
        """Load a page and wait until it has drawn its chart."""
        self._send("POST", "/url", {"url": path.resolve().as_uri()})
        for _ in range(100):
            if self.run("return document.getElementById('chart')?.dataset.ready === 'yes'"):
                return
            time.sleep(0.05)
        raise RuntimeError(f"the page drew no chart; its console says {self.log('browser')}")

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript in the page and return its JSON value."""
        return self._send("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def command(self, name: str, **parameters: Any) -> Any:
        """Send a command of the DevTools protocol."""
        return self._send("POST", "/goog/cdp/execute", {"cmd": name, "params": parameters})

    def log(self, kind: str) -> list[dict]:
        """What the console ("browser") or the network and page events ("performance") said since the last call."""
        return self._send("POST", "/se/log", {"type": kind})

    def requests(self) -> list[str]:
        """The addresses that were asked for since the last call of `log("performance")` or `requests()`."""
        events = (json.loads(entry["message"])["message"] for entry in self.log("performance"))
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def screenshot(self, path: Path) -> None:
        """Save what is visible as PNG."""
        path.write_bytes(base64.b64decode(self._send("GET", "/screenshot")))

    def close(self) -> None:
        """End the browser."""
        self._send("DELETE", "")


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Start the driver and one browser with a fresh profile, and end both."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (profile.parent / "chromedriver.log").open("wb")
    with (
        log,
        subprocess.Popen([shutil.which("chromedriver") or "chromedriver", f"--port={port}"], stdout=log) as driver,
    ):
        try:
            _wait(port)
            window = Browser(port, profile)
            try:
                yield window
            finally:
                window.close()
        finally:
            driver.terminate()


def _wait(port: int) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"chromedriver did not listen within {_START_S:.0f} s")
