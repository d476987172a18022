"""The page before and after: every sound on it, the numbers as given, words that fit them."""

import base64
import re
from pathlib import Path

import numpy as np
import pytest
from html_tags import Page

from resonate_audio.audio.io import read_audio
from resonate_audio.cli.demo.before_after import (
    JudgedSound,
    MeanScore,
    RewardCurve,
    SoundPair,
    judge_change,
    tell_story,
    write_before_after,
)
from resonate_audio.core.errors import InputError
from resonate_audio.core.types import Audio

NASTY = """"><script>alert('1')</script>&amp; ${x} $prompt"""
CURVE = RewardCurve(
    "tagger", "listener", ((1, 0.25), (40, 0.5)), ((1, 0.1), (40, 0.1)), ((1, 0.3),)
)
SCORES = (
    MeanScore("tagger", 0.25, 0.5, 0.125, 0.375, trained_on=True),
    MeanScore("listener", 0.5, 0.4375, -0.125, 0.03125),
)


def sound(level: float, training: float = 0.5, held_out: float = 0.5) -> JudgedSound:
    return JudgedSound(Audio(np.full(800, level, np.float32), 8000), training, held_out)


def pair(prompt: str, seed: int = 1) -> SoundPair:
    return SoundPair(prompt, seed, sound(0.25, 0.3125, 0.5), sound(0.5, 0.4375, 0.4375))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pairs") / "out"
    write_before_after(place, [pair("rain"), pair("rain", 2)], CURVE, SCORES, "Forty steps")
    return place


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page((folder / "index.html").read_text(encoding="utf-8"))


def test_every_sound_is_a_file_of_its_own(folder: Path) -> None:
    files = sorted(folder.glob("*.flac"))
    levels = [round(float(read_audio(path).samples[0]), 3) for path in files]
    assert [path.name for path in files] == [
        "01-rain-1-after.flac",
        "01-rain-1-before.flac",
        "02-rain-2-after.flac",
        "02-rain-2-before.flac",
    ]
    assert levels == [0.5, 0.25, 0.5, 0.25]


def test_the_page_holds_the_very_bytes_before_then_after(folder: Path, page: Page) -> None:
    embedded = [
        base64.b64decode(str(found["src"]).partition(",")[2])
        for found in page.all("audio")
        if str(found["src"]).startswith("data:audio/flac;base64,")
    ]
    names = [f"0{number}-rain-{number}-{when}" for number in (1, 2) for when in ("before", "after")]
    assert embedded == [(folder / f"{name}.flac").read_bytes() for name in names]


def test_every_sound_has_its_picture(folder: Path, page: Page) -> None:
    assert len(list(folder.glob("*.png"))) == 4
    assert [found["alt"] for found in page.all("img")] == [
        f"Waveform and spectrogram of: rain, {when}" for when in ("before", "after")
    ] * 2


def test_the_page_loads_nothing_from_elsewhere(folder: Path, page: Page) -> None:
    text = (folder / "index.html").read_text(encoding="utf-8")
    assert set(re.findall(r"""https?://[^\s"')]+""", text)) == {"http://www.w3.org/2000/svg"}
    assert all(str(found["src"]).startswith("data:") for found in page.all("img"))


def test_links_lead_to_files_beside_the_page(folder: Path, page: Page) -> None:
    assert len(page.all("a")) == 4
    assert all((folder / str(found["href"])).is_file() for found in page.all("a"))


def test_both_judges_scores_stand_under_each_sound(page: Page) -> None:
    text = " ".join(" ".join(page.words).split())
    assert "Training judge 0.3125 Held-out judge 0.5" in text
    assert "Training judge 0.4375 Held-out judge 0.4375" in text
    assert "training judge +0.125 held-out judge \N{MINUS SIGN}0.0625" in text


def test_the_table_holds_means_change_and_interval(page: Page) -> None:
    text = " ".join(page.words)
    assert "tagger 0.25 0.5 +0.25 +0.125 to +0.375" in text
    assert "listener 0.5 0.4375 ~0.0625 ~0.125 to +0.03125".replace("~", "\N{MINUS SIGN}") in text


def test_the_curves_are_drawn(page: Page) -> None:
    plots = [found["data-name"] for found in page.all("div") if "data-name" in found]
    assert plots == ["Training reward: tagger", "Held-out judge: listener"]


def test_controls_have_names_of_their_own(page: Page) -> None:
    labels = [found["aria-label"] for found in page.all("button")]
    assert labels[:2] == ["Play: rain, before", "Play: rain, after"]
    assert all(found["aria-label"] for found in page.all("input"))


def test_hostile_texts_are_escaped(tmp_path: Path) -> None:
    curve = RewardCurve(NASTY, NASTY, ((1, 0.5),))
    score = MeanScore(NASTY, 0.0, 1.0, 0.5, 1.5)
    path = write_before_after(tmp_path, [pair(NASTY)], curve, [score], NASTY)
    page = Page(path.read_text(encoding="utf-8"))
    assert len(page.all("script")) == 1
    assert page.words.count(NASTY) == 3  # headline, prompt, judge in the table
    assert all((tmp_path / str(found["href"])).is_file() for found in page.all("a"))


def test_a_page_without_a_pair_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pair of sounds"):
        write_before_after(tmp_path, [], CURVE, SCORES, "t")


def test_the_story_counts_steps_sounds_and_prompts() -> None:
    story = tell_story([pair("rain"), pair("rain", 2), pair("wind")], CURVE)
    assert "practised for 40 steps" in story
    assert "3 sounds for 2 prompts" in story
    assert "The judge listener took no part in training" in story


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.1, 0.3, "higher after"), (-0.3, -0.1, "lower after"), (-0.1, 0.3, "no change that")],
)
def test_only_an_interval_without_zero_is_called_a_change(
    low: float, high: float, verdict: str
) -> None:
    assert verdict in judge_change(MeanScore("x", 0.0, (low + high) / 2, low, high))


def test_the_verdict_says_which_judge_was_trained_on() -> None:
    assert judge_change(SCORES[0]).startswith("tagger (the judge trained on)")
    assert judge_change(SCORES[1]).startswith("listener (not trained on)")
