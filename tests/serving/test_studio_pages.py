"""What the studio's files may and may not hold."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra: pip install resonate-audio[serve]")

from fastapi import FastAPI
from starlette.testclient import TestClient

from resonate_audio.serving.config import EdgeConfig
from resonate_audio.serving.guard import Guard
from resonate_audio.serving.metrics import Metrics
from resonate_audio.serving.pages import STUDIO, add_pages, page_headers, render_pages

OURS = sorted((STUDIO / "js").glob("*.js"))
PAGES = render_pages()
WAVESURFER_SHA256 = "079f3b142f37737f975b03ea8fd18652a316dc2120a2629aeca0844a0c08f2b1"


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_no_script_or_style_of_its_own(page: str) -> None:
    ways_in = r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=|javascript:"
    assert re.findall(ways_in, PAGES[page]) == []


@pytest.mark.parametrize("page", PAGES)
def test_a_page_needs_nothing_from_elsewhere(page: str) -> None:
    addresses = re.findall(r'(?:src|href)="([^"#]+)', PAGES[page])
    assert [address for address in addresses if address.startswith(("http", "//", "/"))] == []
    missing = [a for a in addresses if a != "page.css" and not (STUDIO / a).is_file()]
    assert missing == []


@pytest.mark.parametrize("script", OURS, ids=lambda path: path.name)
def test_texts_cannot_become_markup_or_code(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    ways_in = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
    assert re.findall(ways_in, text) == []


@pytest.mark.parametrize("script", OURS, ids=lambda path: path.name)
def test_every_import_of_a_script_is_a_file_of_ours(script: Path) -> None:
    imports = re.findall(r'from "([^"]+)"', script.read_text(encoding="utf-8"))
    assert [name for name in imports if not (script.parent / name).resolve().is_file()] == []


def test_the_borrowed_script_is_unchanged_and_has_its_licence() -> None:
    data = (STUDIO / "vendor" / "wavesurfer.esm.js").read_bytes()
    assert hashlib.sha256(data).hexdigest() == WAVESURFER_SHA256
    licence = (STUDIO / "vendor" / "wavesurfer.LICENSE.txt").read_text(encoding="utf-8")
    assert licence.startswith("BSD 3-Clause License")


def test_pages_are_served_with_headers_that_keep_them_to_themselves() -> None:
    app = FastAPI()
    add_pages(app)
    headers = page_headers()
    app.add_middleware(Guard, config=EdgeConfig(hosts=()), metrics=Metrics(), headers=headers)
    with TestClient(app) as client:
        for path in ("/", "/listen.html", "/page.css", "/js/app.js", "/vendor/wavesurfer.esm.js"):
            response = client.get(path)
            assert response.status_code == 200
            assert "unsafe" not in response.headers["content-security-policy"]
            assert response.headers["x-content-type-options"] == "nosniff"
