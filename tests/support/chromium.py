"""A headless Chromium of the tests' own, driven over its debugging port: one page, at any width, light or dark."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

EXECUTABLE = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-port=0",
)


@dataclass
class Page:
    """Observations of one loaded page."""

    width: int
    problems: list[str] = field(default_factory=list)
    """Errors and warnings of the console, and exceptions."""
    requests: list[str] = field(default_factory=list)
    """Addresses that were asked for, the page's own left out."""
    values: list[Any] = field(default_factory=list)
    """Results of the scripts, in their order."""
    screenshot: bytes = b""
    pdf: bytes = b""


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """Start a browser with a fresh profile folder and end it again."""
    assert EXECUTABLE is not None
    process = subprocess.Popen(
        [EXECUTABLE, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield Browser(port=_wait_for_port(process, profile / "DevToolsActivePort"))
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for_port(process: subprocess.Popen[bytes], file: Path) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if file.exists() and (lines := file.read_text().splitlines()):
            return int(lines[0])
        time.sleep(0.05)
    raise RuntimeError("Chromium did not open its debugging port")


@dataclass(frozen=True)
class Browser:
    """A running Chromium."""

    port: int

    def load(
        self, url: str, *, width: int = 1280, dark: bool = False, scripts: tuple[str, ...] = (), pdf: bool = False
    ) -> Page:
        """Open an address, wait until it is loaded, run scripts in it, and take its picture from top to bottom."""
        return asyncio.run(self._load(url, width, dark, scripts, pdf))

    async def _load(self, url: str, width: int, dark: bool, scripts: tuple[str, ...], pdf: bool) -> Page:
        async with aiohttp.ClientSession() as session:
            async with session.put(f"http://127.0.0.1:{self.port}/json/new?about:blank") as answer:
                target = await answer.json(content_type=None)
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                tab = _Tab(socket=socket, page=Page(width=width), url=url)
                return await tab.visit(dark=dark, scripts=scripts, pdf=pdf)


@dataclass
class _Tab:
    socket: aiohttp.ClientWebSocketResponse
    page: Page
    url: str
    number: int = 0
    loaded: bool = False

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        await self.socket.send_str(json.dumps({"id": self.number, "method": method, "params": parameters}))
        number = self.number
        while True:
            message = await self._next()
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                result: dict[str, Any] = message["result"]
                return result

    async def _next(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads((await self.socket.receive(timeout=60)).data)
        method, parameters = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self.loaded = True
        elif method == "Runtime.exceptionThrown":
            self.page.problems.append(str(parameters["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.page.problems.append(str(parameters["args"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.page.problems.append(parameters["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            asked = parameters["request"]["url"]
            if asked != self.url and not asked.startswith("data:"):
                self.page.requests.append(asked)
        return message

    async def visit(self, *, dark: bool, scripts: tuple[str, ...], pdf: bool) -> Page:
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        self.loaded = False
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        metrics = {"width": self.page.width, "deviceScaleFactor": 1, "mobile": False}
        await self.call("Emulation.setDeviceMetricsOverride", height=900, **metrics)
        await self.call("Page.navigate", url=self.url)
        while not self.loaded:
            await self._next()
        for script in scripts:
            done = await self.call("Runtime.evaluate", expression=script, returnByValue=True)
            self.page.values.append(done["result"].get("value"))
        size = (await self.call("Page.getLayoutMetrics"))["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": self.page.width, "height": size["height"], "scale": 1}
        shot = await self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        self.page.screenshot = base64.b64decode(shot["data"])
        if pdf:
            printed = await self.call("Page.printToPDF", preferCSSPageSize=True)
            self.page.pdf = base64.b64decode(printed["data"])
        return self.page
