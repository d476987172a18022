"""Working with sounds in the studio: each action in a real browser, on a real server."""

from __future__ import annotations

import io
import json
import re
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser_pages import check_access, keep_picture, served, watched

pytest.importorskip("fastapi", reason="needs the extra: pip install resonate-audio[serve]")

from pydantic import SecretStr

from resonate_audio.audio.io import FORMATS, decode_audio, encode_audio
from resonate_audio.core.types import Audio
from resonate_audio.serving.app import create_app
from resonate_audio.serving.config import ServeConfig

DESK, PHONE = {"width": 1366, "height": 768}, {"width": 360, "height": 740}
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
PLAYHEAD = "() => +document.querySelector('article .sound').style.getPropertyValue('--at')"
COUNT_LOOPS = """() => {
    window.numLoops = 0;
    const {start} = AudioBufferSourceNode.prototype;
    AudioBufferSourceNode.prototype.start = function (...given) {
        window.numLoops += 1;
        start.apply(this, given);
    };
}"""
RATE_HZ, WAIT_MS = 16_000, 120_000
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[str]:
    home = tmp_path_factory.mktemp("studio")
    config = ServeConfig(home=home, models={"tiny": str(tiny_model)}, max_duration_s=20.0)
    with served(create_app(config)) as found:
        yield found


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two knocks, then silence."""
    samples = np.zeros(2 * RATE_HZ, np.float32)
    drawn = np.random.default_rng(0).normal(0, 0.2, 4000) * np.exp(-np.arange(4000) / 800)
    for start in (2000, 11_000):
        samples[start : start + 4000] = np.clip(drawn, -1, 1)
    path = tmp_path_factory.mktemp("files") / f"door {HOSTILE.replace('/', '')}.wav"
    path.write_bytes(encode_audio(Audio(samples, RATE_HZ), FORMATS[".wav"]))
    return path


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    with watched(browser, viewport=DESK) as found:
        yield found


def bring_in(page: Any, address: str, path: Path) -> None:
    page.goto(f"{address}#/edit")
    page.get_by_label("Choose a file").first.set_input_files(str(path))
    page.get_by_role("region", name="The sound").locator("canvas").first.wait_for(timeout=WAIT_MS)


def box_of(element: Any) -> dict[str, float]:
    """Where it is, when the page is where it was opened."""
    element.page.evaluate("scrollTo(0, 0)")
    found: dict[str, float] = element.bounding_box()
    return found


def choose(page: Any, tool: str) -> None:
    page.get_by_role("radio", name=tool).check(force=True)
    if tool != "Finish":
        page.get_by_label("Steps").fill("2")


def newest(address: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{address}v1/library?limit=1", timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)["data"][0]
    return found


def audio_of(address: str, id: str) -> Audio:
    with urllib.request.urlopen(f"{address}v1/library/{id}/audio", timeout=30) as answer:
        return decode_audio(answer.read(), id)


def generate(page: Any, text: str, count: int = 1) -> None:
    page.get_by_label("What to hear").fill(text)
    page.get_by_label("Steps").fill("1")
    page.get_by_role("button", name="Generate").click()
    page.locator("article canvas").nth(count - 1).wait_for(timeout=WAIT_MS)


def test_without_a_sound_there_is_a_place_to_drop_one_and_nothing_else(
    page: Any, tmp_path: Path, tiny_model: Path
) -> None:
    config = ServeConfig(home=tmp_path, models={"tiny": str(tiny_model)})
    with served(create_app(config)) as found:
        page.goto(f"{found}#/edit")
        page.get_by_text("Choose a file", exact=True).wait_for(timeout=WAIT_MS)
        keep_picture(page, "Edit-empty")
        told = page.get_by_role("main").inner_text().split("\n")
        assert [line for line in told if line][-1] == "Choose a file"


def test_a_file_is_varied_four_times_and_again_from_the_same_noise(
    page: Any, address: str, door: Path
) -> None:
    bring_in(page, address, door)
    choose(page, "Variations")
    page.get_by_role("button", name="Make variations").click()
    page.locator("article canvas").nth(7).wait_for(timeout=WAIT_MS)  # a wave and a spectrogram
    page.get_by_role("button", name="Same noise as before").click()
    page.get_by_role("slider", name="Strength").fill("0.2")
    page.get_by_role("button", name="Make variations").click()
    page.get_by_role("heading", name="strength 0.20").wait_for(timeout=WAIT_MS)
    seeds = [
        [
            text.rpartition("seed ")[2]
            for text in group.locator("article .facts-line").all_inner_texts()
        ]
        for group in page.locator(".group").all()
    ]
    assert len(seeds[0]) == 4
    assert seeds[0] == seeds[1]


def test_a_stretch_that_is_pulled_over_is_made_anew_and_nothing_else(
    page: Any, address: str, door: Path
) -> None:
    bring_in(page, address, door)
    page.get_by_label("Sounds").fill("3")
    choose(page, "Replace")
    page.get_by_label("Sounds").fill("2")
    choose(page, "Loop")
    choose(page, "Replace")
    assert page.get_by_label("Sounds").input_value() == "2"  # what is shown is what is made
    page.get_by_label("Sounds").fill("1")
    box = box_of(page.locator(".select-layer"))
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 20, steps=4)
    page.mouse.up()
    start_s = float(page.get_by_label("From, s").input_value())
    stop_s = float(page.get_by_label("To, s").input_value())
    assert start_s == pytest.approx(1.0, abs=0.02)
    assert stop_s == pytest.approx(1.5, abs=0.02)
    page.get_by_label("What to hear").fill("bell")
    page.get_by_role("button", name="Replace the stretch").click()
    page.locator("article canvas").first.wait_for(timeout=WAIT_MS)
    sound = newest(address)
    assert (sound["made"], sound["prompt"]) == ("replace", "bell")
    before, after = (
        audio_of(address, sound["source"]).samples,
        audio_of(address, sound["id"]).samples,
    )
    changed = np.flatnonzero(before != after) / RATE_HZ
    assert start_s - 0.01 <= changed[0] < start_s + 0.1
    assert stop_s - 0.1 < changed[-1] <= stop_s + 0.01


def test_a_sound_is_reworded_from_what_it_is_to_what_it_shall_be(
    page: Any, address: str, door: Path
) -> None:
    bring_in(page, address, door)
    choose(page, "Reword")
    page.get_by_label("What it is").fill("door")
    button = page.get_by_role("button", name="Reword", exact=True)
    button.click()  # without a new text nothing is asked for
    page.get_by_label("What to hear").fill("bell")
    page.get_by_role("slider", name="Strength").fill("0.9")
    button.click()
    page.get_by_role("heading", name="strength 0.90").wait_for(timeout=WAIT_MS)
    sound = newest(address)
    assert (sound["made"], sound["prompt"], sound["duration_s"]) == ("reword", "bell", 2.0)
    edit = audio_of(address, sound["id"]).recipe
    assert edit is not None
    assert edit.edit is not None
    assert (edit.edit.source_prompt, edit.edit.strength) == ("door", 0.9)


def test_a_sequence_is_written_part_by_part_and_stays_when_one_works_with_a_sound(
    page: Any, address: str, door: Path
) -> None:
    bring_in(page, address, door)
    page.get_by_role("link", name="Write a sequence").click()
    for number, (text, seconds) in enumerate((("rain", "1"), ("dog", "0.5")), start=1):
        page.get_by_label(f"Part {number}", exact=True).fill(text)
        page.get_by_label("Seconds").nth(number - 1).fill(seconds)
    page.get_by_role("button", name="Add a part").click()
    page.get_by_label("Part 3", exact=True).fill("wind")
    page.get_by_role("button", name="Remove part 2").click()
    page.get_by_label("Seconds").nth(1).fill("1.5")
    page.get_by_label("Steps").fill("2")
    page.get_by_role("button", name="Make the sequence").click()
    page.locator("article canvas").first.wait_for(timeout=WAIT_MS)
    sound = newest(address)
    assert (sound["made"], sound["duration_s"]) == ("sequence", 2.5)
    assert sound["prompt"] == "0-1 s: rain; 1-2.5 s: wind"
    keep_picture(page, "Sequence-made")
    page.get_by_role("link", name="Work with a sound").click()
    page.get_by_role("region", name="The sound").wait_for()
    page.get_by_role("link", name="Write a sequence").click()
    assert page.get_by_label("Part 2", exact=True).input_value() == "wind"
    assert page.locator("article").count() == 1


def test_an_end_that_is_pulled_out_lets_the_sound_go_on(
    page: Any, address: str, door: Path
) -> None:
    bring_in(page, address, door)
    choose(page, "Extend")
    knob = page.get_by_role("slider", name="Seconds after")
    before_s = float(knob.get_attribute("aria-valuenow"))
    box = box_of(knob)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] - 40, box["y"] + 20, steps=4)
    page.mouse.up()
    assert 0 < float(knob.get_attribute("aria-valuenow")) < before_s
    page.get_by_role("slider", name="Seconds before").press("PageUp")
    page.get_by_label("After, s").fill("1")
    page.get_by_label("After, s").press("Tab")
    page.get_by_role("button", name="Extend", exact=True).click()
    page.locator("article canvas").first.wait_for(timeout=WAIT_MS)
    assert newest(address)["duration_s"] == pytest.approx(3.5)


def test_a_loop_is_closed_and_its_switch_plays_over_the_seam(
    page: Any, address: str, door: Path
) -> None:
    bring_in(page, address, door)
    choose(page, "Loop")
    page.get_by_role("button", name="Close to a loop").click()
    card = page.locator("article")
    card.locator("canvas").first.wait_for(timeout=WAIT_MS)
    assert newest(address)["made"] == "loop"
    switch = card.get_by_role("button", name="Loop")
    switch.click()
    until_s, places = time.monotonic() + 30, [0.0]
    while places[-1] >= places[-2 if len(places) > 1 else 0]:  # until it passes the seam
        assert time.monotonic() < until_s, places
        places.append(page.evaluate(PLAYHEAD))
    assert max(places) >= 0.25  # of two seconds: it begins 1.5 s before the seam
    switch.click()
    assert switch.get_attribute("aria-pressed") == "false"
    page.evaluate(COUNT_LOOPS)
    switch.click(click_count=2, delay=0)  # on and off, before it is decoded
    page.wait_for_timeout(1000)
    assert page.evaluate("() => window.numLoops") == 0
    assert switch.get_attribute("aria-pressed") == "false"


def test_a_sound_is_trimmed_and_brought_to_a_loudness(page: Any, address: str, door: Path) -> None:
    bring_in(page, address, door)
    assert page.get_by_text("s of silence at the end").count() == 1
    choose(page, "Finish")
    page.get_by_role("button", name="Finish").click()
    card = page.locator("article")
    card.get_by_text(re.compile(r".16\.\d LUFS")).wait_for(timeout=WAIT_MS)
    assert card.get_by_text("s of silence at the end").count() == 0
    assert newest(address)["duration_s"] < 1.2


def test_what_was_made_stays_when_the_screen_is_left(page: Any, address: str, door: Path) -> None:
    page.goto(address)
    generate(page, "rain")
    page.get_by_role("link", name="Library").click()
    page.get_by_label("Search").wait_for()
    page.get_by_role("link", name="Generate").click()
    assert page.get_by_role("heading", name="rain").count() == 1
    page.get_by_role("link", name="Edit: rain").click()
    choose(page, "Variations")
    page.get_by_label("Sounds").fill("1")
    page.get_by_role("button", name="Make variations").click()
    page.get_by_role("heading", name="Variations: rain").wait_for(timeout=WAIT_MS)
    page.get_by_role("link", name="Runs").click()
    page.get_by_text("runs").first.wait_for()
    page.get_by_role("link", name="Edit", exact=True).click()
    assert page.get_by_role("heading", name="Variations: rain").count() == 1


def test_the_library_plays_names_tags_finds_and_packs(page: Any, address: str) -> None:
    page.goto(address)
    for count, text in enumerate(("a rare owl", "a rarer owl"), start=1):
        generate(page, text, 2 * count)
    page.goto(f"{address}#/library")
    page.get_by_role("button", name="Play: a rare owl").click()
    page.get_by_role("button", name="Play: a rare owl").and_(
        page.locator('[aria-pressed="true"]')
    ).wait_for(timeout=WAIT_MS)
    page.get_by_role("button", name="Favourite: a rare owl").click()
    page.get_by_role("button", name="Name and tags: a rare owl").click()
    page.get_by_label("Name", exact=True).fill(HOSTILE)
    page.get_by_role("textbox", name="Tags").fill("night bird, #wood")
    page.get_by_role("button", name="Keep").click()
    page.get_by_role("button", name="Find #night-bird").click()
    page.get_by_role("heading", name="a rarer owl").wait_for(state="detached")
    page.get_by_role("heading", name=HOSTILE).wait_for()
    assert page.locator("article").count() == 1
    page.get_by_label("Search").fill("")
    page.get_by_role("heading", name="a rarer owl").wait_for()
    page.get_by_role("button", name="★ Favourites").click()
    page.get_by_role("heading", name="a rarer owl").wait_for(state="detached")
    page.get_by_role("heading", name=HOSTILE).wait_for()
    page.get_by_role("button", name="★ Favourites").click()
    for name in (HOSTILE, "a rarer owl"):
        page.get_by_label(f"Choose: {name}").check()
    page.get_by_label("Format").select_option("ogg")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download zip").click()
    names = zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes())).namelist()
    assert "a-rarer-owl.ogg" in names
    assert len(names) == 3


def test_an_arrow_key_seeks_by_a_second(page: Any, address: str, door: Path) -> None:
    bring_in(page, address, door)
    page.get_by_label("Position in: ").press("ArrowRight")
    page.locator(".clock", has_text="1.0 s").wait_for()
    page.get_by_label("Position in: ").press("ArrowLeft")
    page.locator(".clock", has_text="2.0 s").wait_for()  # at the start the length is shown


def test_a_click_on_the_waveform_goes_to_that_moment(page: Any, address: str, door: Path) -> None:
    bring_in(page, address, door)
    box = box_of(page.locator(".sound"))
    page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 20)
    page.locator(".clock", has_text="1.0 s").wait_for()


def test_grid_and_comparison_can_be_downloaded(page: Any, address: str) -> None:
    page.goto(f"{address}#/grid")
    page.get_by_label("Prompts").fill("rain")
    page.get_by_label("Seeds").fill("3 4")
    page.get_by_label("Steps").fill("1")
    page.get_by_role("button", name="Fill the grid").click()
    page.get_by_role("button", name="Download all").wait_for(timeout=WAIT_MS)
    with page.expect_download() as one:
        page.get_by_role("link", name="Download: rain, seed 4").click()
    assert one.value.suggested_filename == "rain-4.wav"
    with page.expect_download() as both:
        page.get_by_role("button", name="Download all").click()
    assert len(zipfile.ZipFile(both.value.path()).namelist()) == 3
    page.goto(f"{address}#/compare")
    page.get_by_label("What to hear").fill("rain")
    for steps in page.get_by_label("Steps").all():
        steps.fill("1")
    page.get_by_role("button", name="Make both").click()
    page.get_by_role("button", name="A is better").wait_for(timeout=WAIT_MS)
    assert page.get_by_role("link", name="Download").count() == 0  # names would tell
    page.get_by_role("button", name="A is better").click()
    assert page.get_by_role("link", name="Download").count() == 2


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_work_and_its_end_stay_in_view(browser: Any, address: str, size: dict[str, int]) -> None:
    page = browser.new_context(viewport=size).new_page()
    page.goto(address)
    page.get_by_label("What to hear").fill("rain")
    page.get_by_label("Steps").fill("200")
    page.get_by_label("Sounds").fill("8")
    button = page.get_by_role("button", name="Generate")
    assert inside(button, size)
    button.click()
    page.get_by_text("of 200").wait_for(timeout=WAIT_MS)
    cancel = page.get_by_role("button", name="Cancel")
    for place in (0, 10_000):
        page.evaluate(f"scrollTo(0, {place})")
        assert inside(cancel, size)
    page.get_by_role("link", name="Library").click()
    page.get_by_label("Search").wait_for()
    assert inside(cancel, size)
    cancel.click()
    assert inside(page.get_by_text("Nothing was kept"), size)
    page.context.close()


def inside(element: Any, size: dict[str, int]) -> bool:
    box = element.bounding_box()
    return bool(box["y"] >= 0 and box["y"] + box["height"] <= size["height"])


def test_a_screen_that_is_taken_up_again_says_what_is_wrong_and_keeps_the_last_choice(
    browser: Any, address: str
) -> None:
    page = browser.new_page()  # whose console tells of what is not found
    page.goto(f"{address}#/edit")
    page.get_by_text("Drop a sound here").wait_for()
    page.goto(f"{address}#/runs")
    page.get_by_text("runs").first.wait_for()
    page.route("**/v1/library?*", lambda route: route.abort())
    page.goto(f"{address}#/edit")
    page.get_by_role("alert").get_by_text("The server does not answer").wait_for()
    page.unroute("**/v1/library?*")
    page.goto(f"{address}#/edit/%zz")
    page.get_by_role("alert").get_by_text("there is no such sound").wait_for()
    held: list[Any] = []
    page.route("**/v1/library/slow", lambda route: held.append(route))
    page.goto(f"{address}#/edit/slow")
    page.get_by_text("Loading the sound").wait_for(state="attached")
    page.goto(f"{address}#/edit")
    page.get_by_text("Drop a sound here").wait_for()
    with page.expect_response("**/v1/library/slow"):
        held[0].continue_()
    page.wait_for_timeout(300)
    assert page.get_by_text("Drop a sound here").is_visible()
    page.close()


def test_a_lost_server_says_so_and_is_tried_again(page: Any, address: str) -> None:
    page.goto(address)
    page.get_by_label("What to hear").fill("rain")
    page.get_by_label("Steps").fill("1")
    page.route("**/v1/jobs", lambda route: route.abort())
    page.get_by_role("button", name="Generate").click()
    page.get_by_role("alert").get_by_text("The server does not answer").wait_for()
    page.unroute("**/v1/jobs")
    page.get_by_role("button", name="Try again").click()
    page.locator("article").first.wait_for(timeout=WAIT_MS)


def test_a_wrong_key_is_told_to_be_wrong(browser: Any, tmp_path: Path, tiny_model: Path) -> None:
    models = {"tiny": str(tiny_model)}
    config = ServeConfig(home=tmp_path, models=models, api_key=SecretStr("open-sesame"))
    with served(create_app(config)) as address:
        page = browser.new_context().new_page()
        page.goto(address)
        page.get_by_label("Key").fill("open-barley")
        page.get_by_role("button", name="Go on").click()
        page.get_by_role("alert").get_by_text("not the server's").wait_for()
        page.get_by_label("Key").fill("open-sesame")
        page.get_by_role("button", name="Go on").click()
        page.get_by_label("What to hear").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_no_tool_keeps_anybody_out(
    browser: Any, address: str, door: Path, scheme: str, size: dict[str, int]
) -> None:
    context = browser.new_context(viewport=size, color_scheme=scheme, has_touch=size == PHONE)
    page = context.new_page()
    bring_in(page, address, door)
    choose(page, "Variations")
    page.get_by_label("Sounds").fill("2")
    page.get_by_role("button", name="Make variations").click()
    page.locator("article canvas").nth(3).wait_for(timeout=WAIT_MS)
    for tool in ("Variations", "Reword", "Replace", "Extend", "Loop", "Finish"):
        choose(page, tool)
        keep_picture(page, f"{tool}-{size['width']}-{scheme}")
        assert (tool, check_access(page)) == (tool, [])
        assert page.evaluate("() => document.documentElement.scrollWidth") <= size["width"]
    page.get_by_role("link", name="Write a sequence").click()
    keep_picture(page, f"Sequence-{size['width']}-{scheme}")
    assert check_access(page) == []
    assert page.evaluate("() => document.documentElement.scrollWidth") <= size["width"]
    page.goto(f"{address}#/library")
    page.locator("article").first.wait_for()
    page.get_by_label("Choose: ").first.check()
    page.get_by_role("button", name="Name and tags").first.click()
    keep_picture(page, f"Library-{size['width']}-{scheme}")
    assert check_access(page) == []
    assert page.evaluate("() => document.documentElement.scrollWidth") <= size["width"]
    context.close()
