"""Every screen of the studio in a real browser, on a real server with the bundled model."""

from __future__ import annotations

import ast
import shlex
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser_pages import check_access, served, watched
from listening_tests import given_clips, make_test, rate_everything, tone

pytest.importorskip("fastapi", reason="needs the extra: pip install resonate-audio[serve]")

from pydantic import SecretStr
from test_runs import write_run

from resonate_audio.audio.io import decode_audio, write_audio
from resonate_audio.evaluation.people.ratings import TTA_PROBE
from resonate_audio.serving.app import create_app
from resonate_audio.serving.config import ServeConfig
from resonate_audio.serving.listening.test import Design, GivenClip

HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
PHONE = {"width": 360, "height": 740}
MOVED = "(before) => document.querySelector('input.over').value > before"
MAKE = """async (wanted) => {
    const sent = {method: "POST", headers: {"Content-Type": "application/json"}};
    let job = await (await fetch("v1/jobs", {...sent, body: JSON.stringify(wanted)})).json();
    while (job.ended === null) job = await (await fetch(`v1/jobs/${job.id}`)).json();
    return job.sounds[0];
}"""
COPIES = """async (sound) => {
    const {describeSound} = await import("/js/card.js");
    const {asCommand, asPython, asCurl} = await import("/js/settings.js");
    sessionStorage.setItem("resonate-key", "open-sesame");
    return [asCommand, asPython, asCurl].map((write) => write(describeSound(sound)));
}"""
SCREENS = ("generate", "compare", "grid", "library", "runs", "tests", "tests/+new", "tests/trees")
pytestmark = pytest.mark.slow


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
    with watched(browser) as found:
        yield found


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
        assert page.evaluate("() => document.activeElement.tagName") == "TEXTAREA"
    page.get_by_label("Model").focus()
    page.get_by_label("Model").select_option("tiny")
    assert page.evaluate("() => document.activeElement.tagName") == "SELECT"
    assert page.get_by_label("Seed").input_value() == "41"
    assert page.get_by_text("seed 41").count() == 2


def test_work_can_be_cancelled(page: Any, address: str) -> None:
    page.goto(address)
    page.get_by_label("What to hear").fill("rain")
    page.get_by_label("Steps").fill("25")
    page.get_by_label("Sounds").fill("8")
    page.get_by_role("button", name="Generate").click()
    page.get_by_text("of 25").wait_for(timeout=60_000)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Nothing was kept").wait_for()
    assert page.get_by_role("button", name="Generate").is_enabled()


def test_work_that_is_cancelled_while_it_is_sent_is_cancelled_there_too(
    page: Any, address: str
) -> None:
    page.goto(address)
    page.get_by_label("What to hear").fill("rain")
    held: list[Any] = []
    page.route("**/v1/jobs", lambda route: held.append(route))
    page.get_by_role("button", name="Generate").click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Nothing was kept").wait_for()
    with page.expect_request(lambda request: request.method == "DELETE") as sent:
        held[0].continue_()
    assert "/v1/jobs/" in sent.value.url


def test_both_sounds_of_a_comparison_share_a_playhead(page: Any, address: str) -> None:
    page.goto(address)
    page.evaluate("""() => localStorage.setItem("resonate-settings", '{"loop": true}')""")
    page.goto(f"{address}#/compare")
    page.get_by_label("What to hear").fill("rain")
    page.get_by_label("Model").nth(1).select_option("nano")  # whose sounds are not over at once
    for field in page.get_by_label("Steps").all():
        field.fill("1")
    with page.expect_request("**/v1/jobs") as asked:
        page.get_by_role("button", name="Make both").click()
    assert "loop" not in asked.value.post_data_json  # of another screen, and not shown here
    first = page.get_by_role("slider", name="Position in: Sound A")
    second = page.get_by_role("slider", name="Position in: Sound B")
    first.wait_for(timeout=60_000)
    play = page.get_by_role("button", name="Play: Sound A")
    first.press("ArrowRight")
    page.wait_for_function(MOVED, arg=0)
    at = float(first.input_value())
    play.click()
    play.click()
    assert float(first.input_value()) >= at
    second.press("ArrowLeft")
    page.wait_for_function("() => document.querySelectorAll('input.over')[0].value < 1")


def test_who_tries_again_goes_on_with_the_same_work(page: Any, address: str) -> None:
    sent: list[str] = []
    page.on("request", lambda r: sent.append(r.url) if r.method == "POST" else None)
    page.goto(f"{address}#/grid")
    page.get_by_label("Prompts").fill("rain\nwind")
    page.get_by_label("Seeds").fill("3")
    page.get_by_label("tiny").check()
    page.get_by_label("nano").uncheck()
    page.get_by_label("Steps").fill("1")
    page.route("**/v1/library/*/audio", lambda route: route.abort())
    page.get_by_role("button", name="Fill the grid").click()
    page.get_by_role("button", name="Try again").wait_for(timeout=60_000)
    page.unroute("**/v1/library/*/audio")
    page.get_by_role("button", name="Try again").click()
    page.locator(".cell .play").nth(1).wait_for(timeout=60_000)
    assert len(sent) == 2
    page.route("**/v1/jobs", lambda route: None)
    page.get_by_role("button", name="Fill the grid").click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("not made").nth(1).wait_for()


def test_what_is_copied_makes_the_same_sound(page: Any, address: str) -> None:
    wanted = {"input": "it's rain", "model": "tiny", "audio_length": 1.0, "num_inference_steps": 2,
              "solver": "heun", "time_shift": 2.0, "guidance_low": 0.25, "fade_s": 0.2,
              "length_s": 0.4, "seed": 3}  # fmt: skip
    page.goto(address)
    sound = page.evaluate(MAKE, wanted)
    command, script, curl = page.evaluate(COPIES, sound)
    assert shlex.split(command)[3:] == [
        "--model", "tiny", "--duration", "1", "--steps", "2", "--guidance", "4.5",
        "--solver", "heun", "--guidance-low", "0.25", "--time-shift", "2", "--seed", "3",
        "--length", "0.4", "--fade", "0.2",
    ]  # fmt: skip
    for part in ('solver="heun"', "duration_s=1,", "Finish(length_s=0.4, fade_s=0.2)"):
        assert part in script
    ast.parse(script)
    words = shlex.split(curl)
    assert words[2:4] == ["-H", "Authorization: Bearer $RESONATE_API_KEY"]
    request = urllib.request.Request(
        words[1], words[words.index("-d") + 1].encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        again = decode_audio(answer.read(), "again")
    with urllib.request.urlopen(f"{address}v1/library/{sound['id']}/audio", timeout=60) as answer:
        kept = decode_audio(answer.read(), "kept")
    assert np.array_equal(again.samples, kept.samples)


def test_a_sound_of_another_model_is_edited_with_the_settings_of_that_one(
    page: Any, address: str
) -> None:
    page.goto(address)
    short = {"input": "rain", "audio_length": 1.0, "num_inference_steps": 1}
    plain, inside = [page.evaluate(MAKE, short | {"model": name}) for name in ("tiny", "nano")]
    page.goto(f"{address}#/edit/{plain['id']}")
    page.get_by_label("Guidance").fill("7")
    page.goto(f"{address}#/edit/{inside['id']}")
    page.get_by_label("Guidance").wait_for(state="detached")
    page.get_by_label("Sounds").fill("1")
    page.get_by_role("button", name="Make variations").click()
    page.get_by_role("heading", name="Variations: rain").wait_for(timeout=60_000)


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


def test_a_grid_that_is_cancelled_says_what_it_keeps(page: Any, address: str) -> None:
    page.goto(f"{address}#/grid")
    page.get_by_label("Prompts").fill("rain\nwind")
    page.get_by_label("Seeds").fill("3")
    page.get_by_label("Steps").fill("25")
    page.get_by_role("button", name="Fill the grid").click()
    page.get_by_text("row 2 of 2").wait_for(timeout=60_000)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Cancelled. The sound that was done is kept.").wait_for()
    assert page.locator(".cell .play").count() == 1


def test_settings_without_a_field_are_taken_back_too(page: Any, address: str) -> None:
    page.goto(address)
    wanted = {"input": "an owl", "model": "tiny", "audio_length": 1, "num_inference_steps": 2}
    page.evaluate(MAKE, wanted | {"solver": "midpoint", "fade_s": 0.125})
    page.goto(f"{address}#/library")
    page.get_by_role("button", name="Use these settings").first.click()
    page.get_by_text("Also: solver midpoint · fade s 0.125").wait_for()
    page.get_by_role("button", name="Generate").click()
    page.locator("article").get_by_text("solver midpoint · fade s 0.125").wait_for(timeout=60_000)
    page.get_by_role("button", name="Leave these out").click()
    assert page.get_by_text("Also: solver").count() == 0


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


def test_a_test_whose_probes_alone_are_answered_keeps_its_links(
    browser: Any, tmp_path: Path
) -> None:
    probe = GivenClip(TTA_PROBE, "noise", "", tone(100), probe=(1.0, 2.0))
    design = Design(preset="ovl", num_repeats=0)
    _, _, answers = make_test(tmp_path / "listening", design, [*given_clips(), probe])
    while True:
        token = answers.join()
        trial = answers.rater(token).trials[0]
        if answers.hear(token, 0, 0).probe:
            break
    answers.submit(token, 0, dict.fromkeys(trial.axes, 1), None, ms=2000.0)
    with served(create_app(ServeConfig(home=tmp_path))) as address:
        page = browser.new_context().new_page()
        page.goto(f"{address}#/tests/trees")
        page.get_by_text("Nobody has answered").wait_for()
        page.get_by_role("button", name="Make links").wait_for()


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
