"""Adapters in the studio, in a real browser on a real server."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_pages import Watch, chromium, keep_picture, served
from tiny_model import write_tiny_adapter

pytest.importorskip("fastapi", reason="needs the extra: pip install resonate-audio[serve]")

from resonate_audio.serving.app import create_app
from resonate_audio.serving.config import ServeConfig

WAIT_MS = 120_000
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[str]:
    place = tmp_path_factory.mktemp("studio")
    files = {n: str(write_tiny_adapter(place / f"{n}.safetensors")) for n in ("rain", "wind")}
    config = ServeConfig(home=place / "home", models={"tiny": str(tiny_model)}, adapters=files)
    with served(create_app(config)) as found:
        yield found


@pytest.fixture
def page(address: str) -> Iterator[Any]:
    with chromium() as browser:
        page = browser.new_context(viewport={"width": 1366, "height": 768}).new_page()
        watch = Watch(page)
        page.goto(address)
        yield page
        assert watch.told == []


def models_made(address: str) -> list[str]:
    with urllib.request.urlopen(f"{address}v1/library", timeout=30) as answer:
        return [sound["model"] for sound in json.load(answer)["data"]]


def test_an_adapter_is_added_weighed_taken_up_again_and_set_beside_the_plain_model(
    page: Any, address: str
) -> None:
    page.get_by_label("What to hear").fill("rain")
    page.get_by_label("Steps").fill("1")
    page.get_by_label("rain", exact=True).check()
    page.get_by_label("Weight of rain").fill("0.5")
    keep_picture(page, "Adapters")
    page.get_by_role("button", name="Generate").click()
    page.get_by_text("tiny+rain:0.5").wait_for(timeout=WAIT_MS)
    page.get_by_label("rain", exact=True).uncheck()
    page.get_by_role("button", name="Use these settings").click()
    assert page.get_by_label("rain", exact=True).is_checked()
    assert page.get_by_label("Weight of rain").input_value() == "0.5"
    page.goto(f"{address}#/edit")
    page.get_by_role("link", name="rain").first.click()
    page.get_by_label("wind", exact=True).check()
    page.get_by_label("Steps").fill("1")
    page.get_by_label("Sounds").fill("1")
    page.get_by_role("button", name="Make variations").click()
    page.locator("article").get_by_text("tiny+rain:0.5+wind:1").wait_for(timeout=WAIT_MS)
    page.goto(f"{address}#/grid")
    page.get_by_label("Prompts").fill("rain")
    page.get_by_label("Seeds").fill("3")
    page.get_by_label("Steps").fill("1")
    page.get_by_label("tiny+wind").check()
    page.get_by_role("button", name="Fill the grid").click()
    page.get_by_role("button", name="Download all").wait_for(timeout=WAIT_MS)
    assert models_made(address)[:3] == ["tiny+wind:1", "tiny", "tiny+rain:0.5+wind:1"]
