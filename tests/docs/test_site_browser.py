"""The pages of the site in a real browser, for those who use a keyboard or a screen reader."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from browser_pages import Watch, check_access, find_chromium, keep_picture
from page_blocks import ROOT

PAGES = ("", "make/", "edit/", "reference/python/", "reference/http/")
pytestmark = pytest.mark.slow


class Quiet(SimpleHTTPRequestHandler):
    """Says nothing of what is asked."""

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The site as scripts/site builds it, in a folder of its own, served on loopback."""
    pytest.importorskip("zensical", reason="needs: pip install resonate-audio[docs]")
    find_chromium()
    # the settings name the package by its place relative to work/site
    place = tmp_path_factory.mktemp("site")
    (place / "resonate_audio").symlink_to(ROOT / "resonate_audio")
    built = place / "work" / "site"
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    for command in (
        [sys.executable, str(ROOT / "docs" / "gather.py"), "--output", str(built)],
        ["zensical", "build", "--strict", "--clean", "--config-file", str(built / "mkdocs.yml")],
    ):
        subprocess.run(command, env=environment, check=True, timeout=900)
    handler = partial(Quiet, directory=str(built / "html"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join(timeout=20)
    server.server_close()


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_of_the_site_is_for_everyone(
    browser: Any, site: str, path: str, scheme: str
) -> None:
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    watch = Watch(page)
    page.goto(site + path, wait_until="load")
    page.locator("h1").first.wait_for()
    keep_picture(page, f"site-{path.replace('/', '-')}{scheme}")
    assert check_access(page) == []
    assert watch.told == []
    context.close()


def test_a_click_on_a_picture_plays_it_and_another_stops_it(browser: Any, site: str) -> None:
    page = browser.new_page()
    watch = Watch(page)
    page.goto(site + "edit/", wait_until="load")
    link = page.locator('a[href$=".mp3"]').first
    link.click()
    page.wait_for_selector("a.playing")
    page.wait_for_function("player.currentTime > 0.2")
    link.click()
    page.wait_for_function("player.paused && !document.querySelector('a.playing')")
    assert page.url.endswith("/edit/")
    assert watch.told == []
    page.close()
