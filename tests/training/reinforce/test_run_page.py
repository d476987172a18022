"""The page of a run: complete, self-contained, safe with any text, honest about the reward."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from html_tags import Page

from resonate_audio.audio.io import write_audio
from resonate_audio.core.types import Audio
from resonate_audio.training.reinforce.run_page import write_run_page

NASTY = """"><script>alert('1')</script>&amp; ${x} $body"""
METRICS = (
    ("reward/mean", "Training reward"),
    ("held_out/nano-eval", "Held-out judge: nano-eval"),
    ("evaluation/nano-tagger", "Training judge, new prompts: nano-tagger"),
    ("reward/clap", "Part of the reward: clap"),
    ("kl", "Distance from the first model"),
    ("ratio/max_abs_dev", "Ratio, largest distance from 1"),
    ("clip/high", "Clipped share"),
    ("advantage/frac_zero_std", "Prompts without a difference"),
    ("detect/diversity_db", "Diversity (dB)"),
    ("seconds/rollout", "Seconds per step"),
    ("goodness", "goodness"),
)


def write_run(folder: Path, prompt: str = "rain", judge: str = "nano-tagger") -> None:
    """Three steps with everything, and a best and a worst take of two of them."""
    (folder / "recipe.yaml").write_text(
        f"run:\n  num_steps: 200\nmodel: nano\nreward: {json.dumps(judge)}\n"
        "algorithm:\n  kind: grpo\nevaluation:\n  held_out: nano-eval\n"
    )
    with (folder / "metrics.jsonl").open("w") as file:
        for step in (1, 2, 3):
            values = {name: 0.1 * step for name, _ in METRICS}
            file.write(json.dumps({"step": step, "reward/std": 0.1, **values}) + "\n")
    (folder / "takes").mkdir()
    with (folder / "takes.jsonl").open("w") as file:
        for step in (1, 3):
            for kind in ("best", "worst"):
                file.write(json.dumps(write_take(folder, step, kind, prompt)) + "\n")


def write_take(folder: Path, step: int, kind: str, prompt: str) -> dict[str, Any]:
    name = f"takes/{step:06d} #{kind}?.flac"  # characters that an address must not hold as such
    write_audio(folder / name, Audio(np.zeros(800, np.float32), 8000))
    reward = 0.75 if kind == "best" else -0.25
    line = {"step": step, "prompt": prompt, "take": 4, "kind": kind, "file": name}
    return line | {"reward": reward, "parts": {"clap": 0.125}}


def page_of(folder: Path) -> Page:
    return Page(write_run_page(folder).read_text(encoding="utf-8"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_run(tmp_path)
    return tmp_path


def test_every_number_has_its_curve(folder: Path) -> None:
    plots = {found["data-name"] for found in page_of(folder).all("div") if "data-name" in found}
    assert plots == {title for _, title in METRICS}


def test_the_head_says_what_is_trained_by_what_and_how_far(folder: Path) -> None:
    words = " ".join(page_of(folder).words)
    assert "Step 3 of 200." in words
    for fact in ("nano", "grpo", "nano-tagger", "nano-eval"):
        assert fact in words


def test_the_page_lies_in_the_folder_and_can_be_written_again(folder: Path) -> None:
    first = write_run_page(folder)
    assert first == folder / "index.html"
    before = first.read_bytes()
    assert write_run_page(folder).read_bytes() == before
    assert not list(folder.glob(".*"))


def test_the_page_loads_nothing_from_elsewhere(folder: Path) -> None:
    text = write_run_page(folder).read_text(encoding="utf-8")
    assert set(re.findall(r"""https?://[^\s"')]+""", text)) == {"http://www.w3.org/2000/svg"}


def test_takes_are_played_from_files_beside_the_page(folder: Path) -> None:
    from urllib.parse import unquote

    sources = [str(found["src"]) for found in page_of(folder).all("audio")]
    files = {unquote(source) for source in sources if "#" not in source and "?" not in source}
    assert files == {str(p.relative_to(folder)) for p in folder.glob("takes/*.flac")}


def test_the_newest_take_comes_first_with_its_scores(folder: Path) -> None:
    text = " ".join(page_of(folder).words)
    takes = text[text.index("Best and worst takes") :]
    assert takes.index("Step 3") < takes.index("Step 1")
    assert "reward 0.75" in takes
    assert "clap 0.125" in takes


def test_a_take_whose_file_is_gone_has_no_player(folder: Path) -> None:
    for path in folder.glob("takes/*.flac"):
        path.unlink()
    page = page_of(folder)
    assert page.all("audio") == []
    assert page.words.count("the sound is not there") == 4


def test_older_takes_are_folded_away(folder: Path) -> None:
    lines = [write_take(folder, step, "best", "rain") for step in range(10, 15)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "takes.jsonl").write_text(text)
    assert "Earlier takes (2 steps)" in page_of(folder).words


def test_controls_have_names(folder: Path) -> None:
    page = page_of(folder)
    buttons, ranges = page.all("button"), page.all("input")
    assert len(buttons) == len(ranges) == 4
    assert all(found["aria-label"] for found in buttons + ranges)
    assert all(found["aria-label"] for found in page.all("svg") if found.get("role") == "img")


def test_jumps_lead_to_sections_that_exist(folder: Path) -> None:
    page = page_of(folder)
    places = {found["id"] for _, found in page.tags if "id" in found}
    targets = {str(found["href"])[1:] for found in page.all("a")}
    assert targets
    assert targets <= places


def test_the_recipe_is_on_the_page(folder: Path) -> None:
    assert (folder / "recipe.yaml").read_text() in page_of(folder).words


def test_hostile_texts_are_escaped(tmp_path: Path) -> None:
    write_run(tmp_path, prompt=NASTY, judge=NASTY)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 4, f"held_out/{NASTY}": 1.0, NASTY: float("nan")}) + "\n")
        file.write(json.dumps({"step": 5, NASTY: 1.0, f"seconds/{NASTY}": 1.0}) + "\n")
    page = page_of(tmp_path)
    assert len(page.all("script")) == 1
    assert any(found.get("aria-label", "").endswith(NASTY) for found in page.all("button"))


def test_text_that_is_not_unicode_does_not_stop_the_page(folder: Path) -> None:
    with (folder / "takes.jsonl").open("a") as file:
        line = {"step": 9, "prompt": "x\ud800y", "take": 0, "reward": 1.0, "kind": "best"}
        file.write(json.dumps(line) + "\n")
    assert "1 line of the run's files could not be read." in page_of(folder).words


def test_a_run_without_numbers_says_so(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    assert any("has not logged a step" in words for words in page.words)
    assert page.all("figure") == []


def test_a_single_step_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "reward/mean": 0.5, "kl": 0.0}\n')
    page = page_of(tmp_path)
    assert len(page.all("figure")) == 2
    assert "Step 1." in page.words


def test_what_could_not_be_read_is_said(folder: Path) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "kl": NaN}\n{"step"')
    words = page_of(folder).words
    assert "kl was NaN or infinite on 1 line and is left out there." in words
    assert "1 line of the run's files could not be read." in words


@pytest.mark.parametrize(("slope", "warned"), [(-0.01, True), (0.01, False)])
def test_the_page_warns_of_a_reward_that_runs_away(
    tmp_path: Path, slope: float, warned: bool
) -> None:
    with (tmp_path / "metrics.jsonl").open("w") as file:
        for step in range(1, 31):
            line = {"step": step, "reward/mean": math.sqrt(step), "held_out/x": slope * step}
            file.write(json.dumps(line) + "\n")
    page = page_of(tmp_path)
    assert any(found.get("class") == "warning" for found in page.all("p")) == warned
