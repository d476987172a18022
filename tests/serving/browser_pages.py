"""A real browser on a real server: Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

AXE = "node_modules/axe-core/axe.min.js"
ROOT = Path(__file__).parents[2]
SERIOUS = ("serious", "critical")


def find_chromium() -> str:
    """The browser's program, or skip."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("needs a browser: apt-get install chromium")
    return found


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser that may play sounds without a click."""
    api = pytest.importorskip("playwright.sync_api", reason="needs: pip install playwright")
    program = find_chromium()
    arguments = ["--autoplay-policy=no-user-gesture-required", "--no-sandbox"]
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def served(app: Any) -> Iterator[str]:
    """An app on a free port of loopback; gives its address."""
    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="error", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listener.close()


class Watch:
    """What a page complains of."""

    def __init__(self, page: Any) -> None:
        self.told: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.told.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.told.append(f"dialog: {dialog.message}"))

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.told.append(f"{message.type}: {message.text}")


@contextmanager
def watched(browser: Any, **context: Any) -> Iterator[Any]:
    """A page of its own that complains of nothing and runs nothing that texts brought in."""
    opened = browser.new_context(**context)
    page = opened.new_page()
    watch = Watch(page)
    yield page
    lost = "net::ERR_FAILED"  # what a test took from the page itself
    assert [told for told in watch.told if lost not in told] == []
    assert "owned" not in page.title()
    opened.close()


def check_access(page: Any) -> list[str]:
    """Serious faults for those who use a keyboard or a screen reader, by axe-core; or skip."""
    path = Path(os.environ.get("AXE_CORE", ROOT / AXE))
    if not path.is_file():
        pytest.skip("needs axe-core: npm install --no-save axe-core, or AXE_CORE=/path/axe.min.js")
    page.evaluate(path.read_text(encoding="utf-8"))
    found = page.evaluate("() => axe.run(document)")
    return [
        f"{fault['id']} ({fault['impact']}): {node['html'][:120]}"
        for fault in found["violations"]
        if fault["impact"] in SERIOUS
        for node in fault["nodes"]
    ]


def keep_picture(page: Any, name: str) -> None:
    """Where RESONATE_PICTURES names a folder, what people see."""
    folder = os.environ.get("RESONATE_PICTURES")
    if folder:
        page.screenshot(path=f"{folder}/{name}.png")
