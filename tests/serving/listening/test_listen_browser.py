"""Raters in a real browser."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_pages import Watch, check_access, chromium, served
from listening_tests import make_test, tone

pytest.importorskip("fastapi", reason="needs the extra: pip install resonate-audio[serve]")

from resonate_audio.serving.listening.answers import Answers
from resonate_audio.serving.listening.results import analyse
from resonate_audio.serving.listening.server import create_listening_app
from resonate_audio.serving.listening.test import Design, GivenClip

HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
SHORT_S = 0.6
pytestmark = pytest.mark.slow


def clips(num_prompts: int) -> list[GivenClip]:
    return [
        GivenClip(system, f"{HOSTILE}{n}", f"{HOSTILE} {n}", tone(200 + 90 * n + row, SHORT_S))
        for row, system in enumerate(("alpha", "beta"))
        for n in range(num_prompts)
    ]


def open_preset(place: Path, design: Design, num_prompts: int = 2) -> tuple[str, Answers]:
    folder, _, answers = make_test(place, design, clips(num_prompts))
    return str(folder), answers


@pytest.fixture
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def begin(browser: Any, address: str, **options: Any) -> tuple[Any, Watch]:
    page = browser.new_context(**options).new_page()
    watch = Watch(page)
    page.goto(address)
    page.get_by_role("button", name="Begin").click()
    return page, watch


def listen_and_rate(page: Any, number: int, score: int) -> None:
    page.get_by_role("heading", name=f"Page {number} of").wait_for()
    assert page.get_by_role("radio").first.is_disabled()
    page.get_by_role("button", name="Play").click()
    page.locator("fieldset:not(:disabled)").first.wait_for()
    for group in page.locator("fieldset").all():
        group.get_by_role("radio", name=str(score), exact=True).check()
    page.get_by_role("button", name="Next").click()


def test_two_raters_walk_through_a_whole_test(tmp_path: Path, browser: Any) -> None:
    folder, answers = open_preset(tmp_path, Design(title=HOSTILE, num_repeats=1))
    with served(create_listening_app(Path(folder))) as address:
        for score in (4, 5):
            page, watch = begin(browser, address)
            for number in range(1, 11):
                listen_and_rate(page, number, score)
            page.get_by_role("heading", name="Thank you").wait_for()
            assert page.title() == "Listening test"
            assert watch.told == []
    results = analyse(answers.test, answers.all(), answers.progress())
    assert (results.num_raters, results.num_finished) == (2, 2)
    assert [score.value for axis in results.axes for score in axis.scores] == [4.5] * 4


def test_pairs_are_compared_with_the_keyboard_alone(tmp_path: Path, browser: Any) -> None:
    folder, answers = open_preset(tmp_path, Design(preset="ab", num_repeats=0), num_prompts=1)
    with served(create_listening_app(Path(folder))) as address:
        page, watch = begin(browser, address)
        page.locator(".prompt", has_text=HOSTILE).wait_for()
        for sound in ("Sound A", "Sound B"):
            page.get_by_role("button", name=f"Play: {sound}").focus()
            page.keyboard.press("Enter")
            page.get_by_role("status").get_by_text(f"{sound}: heard to the end").wait_for()
        page.get_by_role("radio", name="Sound A").focus()
        page.keyboard.press("Space")
        page.get_by_role("button", name="Next").focus()
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Thank you").wait_for()
        assert watch.told == []
    assert sorted(answer.score for answer in answers.all()) == [0.0, 1.0]


def test_who_leaves_goes_on_later_where_they_were(tmp_path: Path, browser: Any) -> None:
    folder, answers = open_preset(tmp_path, Design(num_repeats=0))
    with served(create_listening_app(Path(folder))) as address:
        page, _ = begin(browser, address)
        listen_and_rate(page, 1, 3)
        page.get_by_role("heading", name="Page 2 of").wait_for()
        page.get_by_role("button", name="Play").click()
        page.locator("fieldset:not(:disabled)").wait_for()
        page.get_by_role("radio", name="2", exact=True).check()
        page.reload()
        page.get_by_role("heading", name="Page 2 of").wait_for()
        assert page.get_by_role("radio", name="2", exact=True).is_checked()
        # Another rater of the same browser, a day and more later.
        other = answers.join()
        answers.hear(other, 0, 0)
        time.sleep(SHORT_S)
        answers.submit(other, 0, dict.fromkeys(answers.rater(other).trials[0].axes, 3), None, 2e3)
        page.goto("about:blank")
        page.goto(f"{address}listen.html#trees.{other}")
        page.get_by_role("heading", name="Page 2 of").wait_for()
        assert not page.get_by_role("radio", name="2", exact=True).is_checked()
        page.get_by_role("button", name="Play").click()
        page.locator("fieldset:not(:disabled)").wait_for()
        page.evaluate("() => { const now = performance.now(); performance.now = () => now + 9e7; }")
        page.get_by_role("radio", name="4", exact=True).check()
        page.get_by_role("button", name="Next").click()
        page.get_by_role("heading", name="Page 3 of").wait_for()


def test_a_test_that_was_made_anew_takes_its_rater_in_anew(tmp_path: Path, browser: Any) -> None:
    folder, _ = open_preset(tmp_path, Design(num_repeats=0))
    with served(create_listening_app(Path(folder))) as address:
        page = browser.new_context().new_page()
        page.goto(address)
        page.get_by_role("button", name="Begin").wait_for()
        page.evaluate("() => localStorage.setItem('resonate-listening-trees', 'trees.of-before')")
        page.reload()
        page.get_by_role("button", name="Begin").click()
        page.get_by_role("heading", name="Page 1 of").wait_for()


def test_a_phone_has_room_for_the_page_and_nobody_is_kept_out(tmp_path: Path, browser: Any) -> None:
    folder, _ = open_preset(tmp_path, Design(preset="tta-bench", num_repeats=0))
    with served(create_listening_app(Path(folder))) as address:
        for scheme in ("light", "dark"):
            size = {"width": 360, "height": 740}
            page, _ = begin(browser, address, viewport=size, color_scheme=scheme)
            page.get_by_role("button", name="Play").click()
            page.locator("fieldset:not(:disabled)").first.wait_for()
            assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
            assert check_access(page) == []


def test_a_wrong_link_says_what_to_do(tmp_path: Path, browser: Any) -> None:
    folder, _ = open_preset(tmp_path, Design(num_repeats=0))
    with served(create_listening_app(Path(folder))) as address:
        page = browser.new_page()
        page.goto(f"{address}listen.html#trees.wrong")
        page.get_by_text("open the link you were sent").wait_for()
        page.goto(f"{address}listen.html")
        page.get_by_text("No test in this address").wait_for()
