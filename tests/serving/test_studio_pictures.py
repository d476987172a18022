"""The pictures of the studio in docs/images, taken again:

    RESONATE_PICTURES=docs/images RESONATE_RUNS=runs pytest tests/serving/test_studio_pictures.py

RESONATE_RUNS is a folder with a training named nano-grpo; without it that picture is left as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser_pages import keep_picture, served
from listening_tests import make_test

pytest.importorskip("fastapi", reason="needs the extra: pip install resonate-audio[serve]")

from resonate_audio.pipeline.path import Resonate
from resonate_audio.serving.app import create_app
from resonate_audio.serving.config import ServeConfig
from resonate_audio.serving.listening.answers import Answers
from resonate_audio.serving.listening.server import create_listening_app
from resonate_audio.serving.listening.test import Design, GivenClip, ListeningTest

PROMPT, SEED = "a rooster crows, then rain falls", 1
PROMPTS = (PROMPT, "rain on a roof", "a church bell rings once", "footsteps on gravel")
SYSTEMS = {"8 steps": 8, "4 steps": 4, "1 step": 1}
LIKED = {"8 steps": 3.7, "4 steps": 3.6, "1 step": 2.3}
"""What the simulated raters answer on average."""
NUM_RATERS, WAIT_MS = 6, 60_000
Made = tuple[Path, ListeningTest, Answers]
RUNS = os.environ.get("RESONATE_RUNS")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("RESONATE_PICTURES" not in os.environ, reason="RESONATE_PICTURES=FOLDER"),
]


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Made:
    nano = Resonate.from_pretrained("nano")
    given = [
        GivenClip(system, f"p{n}", prompt, nano.generate(prompt, None, 10.0, steps, seeds=SEED)[0])
        for system, steps in SYSTEMS.items()
        for n, prompt in enumerate(PROMPTS)
    ]
    design = Design(title="Steps (simulated answers)", num_repeats=1)
    return make_test(tmp_path_factory.mktemp("studio") / "listening", design, given)


@pytest.fixture(scope="module")
def address(listening: Made) -> Iterator[str]:
    home = listening[0].parent.parent
    with served(create_app(ServeConfig(home=home, models={"nano": "nano"}, runs=RUNS))) as found:
        yield found


def open_page(browser: Any, address: str, width: int, height: int, scheme: str = "light") -> Any:
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, locale="en-GB"
    )
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.goto(address)
    page.locator("h1").first.wait_for()
    return page


def make(page: Any, takes: int = 1) -> None:
    page.get_by_label("What to hear").fill(PROMPT)
    page.get_by_label("Seed").fill(str(SEED))
    page.get_by_role("button", name="Lock").click()
    page.get_by_label("Sounds").fill(str(takes))
    page.get_by_role("button", name="Generate").click()
    page.locator("article .spectrogram").nth(takes - 1).wait_for()
    page.locator(".work-row").wait_for(state="detached")


def keep(page: Any, name: str) -> None:
    page.wait_for_timeout(500)  # what is drawn is drawn
    keep_picture(page, f"studio-{name}")
    page.context.close()


def test_generate_shows_two_sounds(browser: Any, address: str) -> None:
    page = open_page(browser, address, 1280, 860)
    make(page, takes=2)
    page.get_by_role("button", name="Play").first.click()
    page.wait_for_timeout(2300)
    keep(page, "generate")


def test_a_phone_shows_a_sound(browser: Any, address: str) -> None:
    page = open_page(browser, address, 390, 844)
    make(page)
    page.locator("article").first.evaluate("card => card.scrollIntoView({block: 'end'})")
    keep(page, "phone")


def test_edit_shows_a_stretch_to_be_replaced(browser: Any, address: str) -> None:
    page = open_page(browser, address, 1366, 768)
    make(page)
    page.get_by_role("link", name="Edit: ").first.click()
    page.get_by_role("radio", name="Replace").check()
    keep(page, "edit")


def test_compare_shows_a_vote(browser: Any, address: str) -> None:
    page = open_page(browser, f"{address}#/compare", 1280, 1060)
    page.get_by_label("What to hear").fill(PROMPT)
    page.get_by_label("Seed of both").fill(str(SEED))
    page.get_by_label("Steps").nth(1).fill("1")
    page.get_by_role("button", name="Make both").click()
    page.get_by_role("button", name="A is better").click()
    page.get_by_text("You chose A").wait_for()
    page.evaluate("window.scrollTo(0, 0)")
    keep(page, "compare")


def test_the_grid_is_full(browser: Any, address: str) -> None:
    page = open_page(browser, f"{address}#/grid", 1440, 720, "dark")
    page.get_by_label("Prompts").fill("\n".join(PROMPTS))
    page.get_by_label("Seeds").fill("5 6 7")
    page.get_by_role("button", name="Fill the grid").click()
    page.locator(".cell .play").nth(11).wait_for()
    page.locator(".work-row").wait_for(state="detached")
    keep(page, "grid")


def test_the_library_shows_what_was_made(browser: Any, address: str) -> None:
    page = open_page(browser, f"{address}#/library", 1280, 860)
    page.locator("article").first.wait_for()
    page.get_by_role("button", name="Open").first.click()
    page.locator("article .spectrogram").first.wait_for()
    keep(page, "library")


@pytest.mark.skipif(RUNS is None, reason="RESONATE_RUNS=FOLDER with nano-grpo in it")
def test_a_run_shows_its_curves(browser: Any, address: str) -> None:
    page = open_page(browser, f"{address}#/runs", 1280, 900)
    page.get_by_role("link", name="nano-grpo").click()
    page.locator(".chart").first.wait_for()
    keep(page, "runs")


def test_results_of_a_listening_test_are_shown(
    browser: Any, address: str, listening: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Answers, "_check_heard", lambda *_: None)  # nobody waits for the ends
    answers = listening[2]
    draws = np.random.default_rng(0)
    for _ in range(NUM_RATERS):
        token = answers.join()
        for number, trial in enumerate(answers.rater(token).trials):
            clips = [answers.hear(token, number, side) for side in range(len(trial.clips))]
            score = int(np.clip(round(draws.normal(LIKED[clips[0].system], 0.8)), 1, 5))
            answers.submit(token, number, dict.fromkeys(trial.axes, score), None, ms=2000.0)
    keep(open_page(browser, f"{address}#/tests/trees", 1280, 860), "tests")


def test_a_rater_sees_one_question(browser: Any, listening: Made) -> None:
    with served(create_listening_app(listening[0])) as address:
        page = open_page(browser, address, 1000, 640)
        page.get_by_role("button", name="Begin").click()
        page.get_by_role("button", name="Play").click()
        page.locator("fieldset:not(:disabled)").first.wait_for()
        page.get_by_role("radio", name="4", exact=True).first.check()
        page.locator('.play[aria-pressed="false"]').wait_for()
        keep(page, "listen")
