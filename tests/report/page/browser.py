"""A headless Chromium that opens one page, over its DevTools protocol: for tests that look at it."""

from __future__ import annotations

import asyncio
import base64
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECONDS = 90.0  # for one answer of the browser, on a machine that is shared


class Tab:
    """A tab. said: console messages and exceptions; asked: addresses that the page requested."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._number = socket, 0
        self.said: list[str] = []
        self.asked: list[str] = []
        self._loaded = False

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command; events that come before it are kept."""
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json(timeout=SECONDS)
            if message.get("id") == self._number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self._take(message)

    def _take(self, event: dict[str, Any]) -> None:
        told = event.get("params", {})
        if event["method"] == "Network.requestWillBeSent":
            self.asked.append(told["request"]["url"])
        elif event["method"] in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.said.append(str(told))
        elif event["method"] == "Page.loadEventFired":
            self._loaded = True

    async def open(self, path: Path) -> None:
        """Load a file and wait for it."""
        self._loaded = False
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.send(f"{domain}.enable")
        await self.send("Page.navigate", url=path.as_uri())
        while not self._loaded:
            self._take(await self._socket.receive_json(timeout=SECONDS))

    async def value(self, expression: str) -> Any:
        """What an expression of JavaScript gives; it may be awaited."""
        found = await self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def looks(self, width: int, height: int, scheme: str) -> None:
        """A screen of this size, with a light or a dark system."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        await self.send("Emulation.setDeviceMetricsOverride", **size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.send("Emulation.setEmulatedMedia", features=features)

    async def press(self, key: str, code: int = 0) -> None:
        """A key, down and up."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            await self.send("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)

    async def picture(self, into: Path, whole: bool = False) -> None:
        """A screenshot."""
        shot = await self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        into.write_bytes(base64.b64decode(shot["data"]))


@asynccontextmanager
async def tab(profile: Path) -> AsyncIterator[Tab]:
    """A tab of a Chromium of our own, which ends with it. profile: a directory for its files."""
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    flags += ["--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
    process = await asyncio.create_subprocess_exec(
        str(CHROMIUM), *flags, stderr=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        port = await _port(profile / "DevToolsActivePort")
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                pages = [page for page in await answer.json() if page["type"] == "page"]
            socket = session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=2**28)
            async with socket as connected:
                yield Tab(connected)
    finally:
        process.terminate()
        await process.wait()


async def _port(file: Path) -> int:
    for _ in range(int(SECONDS / 0.1)):
        if file.exists() and file.read_text().strip():
            return int(file.read_text().split()[0])
        await asyncio.sleep(0.1)
    raise TimeoutError(f"Chromium wrote no {file} in {SECONDS} s")
