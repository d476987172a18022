"""Every screen of the studio in a real browser, on a real server with the bundled model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_pages import Watch, check_access, chromium, served
from listening_tests import make_test, rate_everything, tone

pytest.importorskip("fastapi", reason="needs the extra: pip install resonate-audio[serve]")

from pydantic import SecretStr
from test_runs import write_run

from resonate_audio.audio.io import write_audio
from resonate_audio.serving.app import create_app
from resonate_audio.serving.config import ServeConfig

HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
PHONE = {"width": 360, "height": 740}
SCREENS = ("generate", "compare", "grid", "library", "runs", "tests", "tests/+new", "tests/trees")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[str]:
    home = tmp_path_factory.mktemp("studio")
    write_run(home / "runs" / HOSTILE.replace("/", ""))
    _, _, answers = make_test(home / "listening")
    for score in (4, 5):
        rate_everything(answers, answers.join(), {"alpha": score, "beta": 2})
    models = {"nano": "nano", "tiny": str(tiny_model)}
    with served(create_app(ServeConfig(home=home, models=models, runs=home / "runs"))) as found:
        yield found


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context()
    found = context.new_page()
    watch = Watch(found)
    yield found
    assert watch.told == []
    assert "owned" not in found.title()
    context.close()


def test_a_hostile_sentence_becomes_a_sound_and_stays_a_text(page: Any, address: str) -> None:
    page.goto(address)
    page.get_by_label("What to hear").fill(HOSTILE)
    page.get_by_label("Steps").fill("2")
    page.get_by_label("Sounds").fill("2")
    page.get_by_role("button", name="Generate").click()
    page.locator("article canvas").nth(1).wait_for(timeout=60_000)
    assert page.get_by_role("heading", name=HOSTILE).count() == 2
    page.get_by_role("button", name="Play").first.click()
    page.locator('.play[aria-pressed="true"]').wait_for()
    for label in ("Copy as CLI", "Copy as Python", "Copy as curl", "Download"):
        assert page.get_by_text(label).first.is_visible()


def test_a_locked_seed_stays_and_the_next_sound_is_the_same(page: Any, address: str) -> None:
    page.goto(address)
    page.get_by_label("What to hear").fill("rain")
    page.get_by_label("Steps").fill("1")
    page.get_by_label("Seed").fill("41")
    page.get_by_role("button", name="Lock").click()
    for count in (1, 2):
        page.get_by_label("What to hear").press("Control+Enter")
        page.locator("article").nth(count - 1).wait_for(timeout=60_000)
    assert page.get_by_label("Seed").input_value() == "41"
    assert page.get_by_text("seed 41").count() == 2


def test_work_can_be_cancelled(page: Any, address: str) -> None:
    page.goto(address)
    page.get_by_label("What to hear").fill("rain")
    page.get_by_label("Steps").fill("25")
    page.get_by_label("Sounds").fill("16")
    page.get_by_role("button", name="Generate").click()
    page.get_by_text("of 25").wait_for(timeout=60_000)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Nothing was kept").wait_for()
    assert page.get_by_role("button", name="Generate").is_enabled()


def test_a_blind_vote_reveals_both_sounds(page: Any, address: str) -> None:
    page.goto(f"{address}#/compare")
    page.get_by_label("What to hear").fill("rain")
    for field in page.get_by_label("Steps").all():
        field.fill("2")
    page.get_by_role("button", name="Make both").click()
    page.get_by_role("button", name="B is better").wait_for(timeout=60_000)
    assert page.locator(".facts-line", has_text="guidance").count() == 0
    page.get_by_role("button", name="Switch while it plays").click()
    page.get_by_role("button", name="B is better").click()
    for model in ("nano", "tiny"):
        assert page.locator(".facts-line", has_text=f"{model} · ").count() == 1
    assert page.get_by_text("You chose B").is_visible()


def test_a_grid_has_a_sound_in_every_cell(page: Any, address: str) -> None:
    page.goto(f"{address}#/grid")
    page.get_by_label("Prompts").fill(f"rain\n{HOSTILE}")
    page.get_by_label("Seeds").fill("3 4")
    page.get_by_label("tiny").check()
    page.get_by_label("Steps").fill("1")
    page.get_by_role("button", name="Fill the grid").click()
    page.locator(".cell .play").nth(7).wait_for(timeout=60_000)


def test_the_library_finds_a_sound_and_takes_its_settings_back(page: Any, address: str) -> None:
    page.goto(address)
    page.get_by_label("What to hear").fill("a very rare owl")
    page.get_by_label("Steps").fill("1")
    page.get_by_role("button", name="Generate").click()
    page.locator("article").first.wait_for(timeout=60_000)
    page.goto(f"{address}#/library")
    page.get_by_label("Search").fill("rare owl")
    page.locator("article").nth(1).wait_for(state="detached")
    page.get_by_role("button", name="Open: a very rare owl").click()
    page.locator("article canvas").first.wait_for()
    page.get_by_role("button", name="Use these settings").click()
    assert page.get_by_label("What to hear").input_value() == "a very rare owl"
    page.goto(f"{address}#/library")
    page.get_by_label("Search").fill("nothing of the kind")
    page.get_by_text("Nothing found").wait_for()


def test_a_run_shows_curves_warnings_and_takes(page: Any, address: str) -> None:
    page.goto(f"{address}#/runs")
    page.get_by_role("link", name=HOSTILE.replace("/", "")).click()
    page.locator(".chart").first.wait_for()
    assert page.get_by_role("img", name="Training reward: from").count() == 1
    assert page.get_by_role("alert").get_by_text("held-out judge other went down").is_visible()
    page.get_by_role("button", name="Listen: best").click()
    page.get_by_role("img", name="Spectrogram: a dog").wait_for()
    assert page.get_by_text("not there any more").count() == 1


def test_a_wave_that_is_scrolled_away_goes_under_the_bar(page: Any, address: str) -> None:
    page.set_viewport_size({"width": 900, "height": 150})
    page.goto(f"{address}#/runs")
    page.get_by_role("link", name=HOSTILE.replace("/", "")).click()
    page.get_by_role("button", name="Listen: best").click()
    page.get_by_role("img", name="Spectrogram: a dog").wait_for()
    on_top = """() => {
        const sound = document.querySelector(".sound");
        window.scrollBy(0, sound.getBoundingClientRect().top - 5);
        const {left, top, width} = sound.getBoundingClientRect();
        const found = document.elementFromPoint(left + width / 3, 25);
        return [Math.round(top), found.closest(".bar") !== null];
    }"""
    assert page.evaluate(on_top) == [5, True]


def test_a_listening_test_is_made_from_files_with_hostile_names(
    page: Any, address: str, tmp_path: Path
) -> None:
    files = []
    for n in range(2):
        path = tmp_path / f"{HOSTILE}{n}.wav"
        write_audio(path, tone(300 + n))
        files.append(str(path))
    page.goto(f"{address}#/tests/+new")
    page.get_by_label("Name").fill("dogs")
    page.get_by_label("Title").fill(HOSTILE)
    page.get_by_label("Questions").select_option("ovl")
    for n, name in enumerate(("ours", HOSTILE), start=1):
        page.get_by_label(f"System {n}", exact=True).fill(name)
        page.get_by_label(f"Sounds of system {n}").set_input_files(files)
    page.get_by_role("button", name="Make the test").click()
    page.get_by_role("heading", name=HOSTILE).wait_for()
    page.get_by_text("No result yet").wait_for()
    page.get_by_role("button", name="Make links").click()
    page.get_by_text("listen.html#dogs.").wait_for()


def test_results_are_tables_and_files(page: Any, address: str) -> None:
    page.goto(f"{address}#/tests/trees")
    page.get_by_role("table", name="OVL by system").get_by_text("4.50").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="ratings.csv").click()
    assert Path(download.value.path()).read_text().startswith("rater,clip,system,prompt,axis")


def test_a_mistake_is_told_where_it_was_made(browser: Any, address: str) -> None:
    page = browser.new_page()
    page.goto(f"{address}#/runs/nothing")
    page.get_by_role("alert").get_by_text("there is no such run").wait_for()
    page.goto(f"{address}#/tests/nothing")
    page.get_by_text("There is no listening test called nothing").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [{"width": 1280, "height": 860}, PHONE], ids=["desk", "phone"])
def test_no_screen_keeps_anybody_out(
    browser: Any, address: str, scheme: str, size: dict[str, int]
) -> None:
    page = browser.new_context(viewport=size, color_scheme=scheme).new_page()
    for screen in SCREENS:
        page.goto(f"{address}#/{screen}")
        page.locator("#screen h1").wait_for()
        page.locator("#screen .loading").wait_for(state="detached")
        assert (screen, check_access(page)) == (screen, [])
        assert page.evaluate("() => document.documentElement.scrollWidth") <= size["width"]


def test_a_server_with_a_key_asks_for_it_once(browser: Any, tmp_path: Path) -> None:
    config = ServeConfig(home=tmp_path, api_key=SecretStr("open-sesame"))
    with served(create_app(config)) as address:
        page = browser.new_context().new_page()
        page.goto(address)
        page.get_by_label("Key").fill("open-sesame")
        page.get_by_role("button", name="Go on").click()
        page.get_by_label("What to hear").fill("rain")
        page.get_by_label("Steps").fill("1")
        page.get_by_role("button", name="Generate").click()
        page.locator("article .spectrogram").wait_for(timeout=60_000)
        page.get_by_role("link", name="Library").click()
        page.get_by_role("button", name="Open: rain").wait_for()
