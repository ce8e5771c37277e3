"""A headless Chromium, driven over its own pipe: no driver, no browser library, no network."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

EXECUTABLE = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)


class Chromium:
    """One browser with one page.

    Speaks the DevTools protocol over ``--remote-debugging-pipe``: the browser reads JSON from file descriptor 3 and
    writes it to 4, each message with a zero byte behind it.

    Attributes:
        events: everything that the browser has told, in order: (method, parameters).
    """

    def __init__(self, profile: Path) -> None:
        assert EXECUTABLE is not None
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._rest = b""
        self._number = 0
        # A shell puts the ends of the pipes where the browser looks for them: a Python preexec_fn is not safe with
        # the threads that TensorFlow leaves in a test process.
        command = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        self._process = subprocess.Popen(
            [
                "bash", "-c", command, EXECUTABLE, "--headless=new", "--remote-debugging-pipe", "--no-sandbox",
                "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
                "--disable-extensions", "--force-color-profile=srgb", f"--user-data-dir={profile}", "about:blank",
            ],
            pass_fds=(to_browser, from_browser), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session: str | None = None
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Chromium:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._session = None
            self._send("Browser.close")
        except (OSError, EOFError, TimeoutError):
            self._process.kill()
        finally:
            os.close(self._out)
            os.close(self._in)
            self._process.wait(20)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol, and its result."""
        return self._send(method, **parameters)

    def show(self, page: Path, *, width: int, dark: bool = False, phone: bool = False, media: str = "screen") -> None:
        """Loads a file in a window of that many CSS pixels, light or dark."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=844 if phone else 900,
            deviceScaleFactor=2 if phone else 1, mobile=phone,
        )  # fmt: skip
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        before = len(self.events)
        self.call("Page.navigate", url=page.as_uri())
        end = time.monotonic() + 30
        while not any(method == "Page.loadEventFired" for method, _ in self.events[before:]):
            self._read(end)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise AssertionError(result["exceptionDetails"])
        return result["result"].get("value")

    def screenshot(self, file: Path) -> bytes:
        """The whole page as PNG, written and returned."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(data))
        return file.read_bytes()

    def complaints(self) -> list[str]:
        """What stands on the console: errors, warnings, exceptions, requests that failed."""
        found = []
        for method, what in self.events:
            if method == "Runtime.consoleAPICalled":
                found.append(f"console: {what['args']}")
            elif method == "Runtime.exceptionThrown":
                found.append(f"exception: {what['exceptionDetails']}")
            elif method == "Log.entryAdded":
                found.append(f"log: {what['entry']['text']}")
            elif method == "Network.loadingFailed":
                found.append(f"not loaded: {what}")
        return found

    def addresses(self) -> set[str]:
        """Everything that was asked for, data inside the page left out."""
        asked = {what["request"]["url"] for method, what in self.events if method == "Network.requestWillBeSent"}
        return {address for address in asked if not address.startswith(("data:", "about:"))}

    def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if getattr(self, "_session", None) is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + 60
        while True:
            answer = self._read(end)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return dict(answer["result"])

    def _read(self, end: float) -> dict[str, Any]:
        """The next message; events are kept."""
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError("Chromium does not answer")
            new = os.read(self._in, 1 << 20)
            if not new:
                raise EOFError("Chromium has gone")
            self._rest += new
        line, self._rest = self._rest.split(b"\0", 1)
        message = dict(json.loads(line))
        if "method" in message:
            self.events.append((message["method"], message.get("params", {})))
        return message
