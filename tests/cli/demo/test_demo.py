"""The demo page: complete, self-contained, and safe with any text."""

import base64
import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest
from html_tags import Page

from resonate_audio.audio.io import read_audio
from resonate_audio.cli.demo.command import SOUNDS, DemoSound, render_page
from resonate_audio.cli.generate import write
from resonate_audio.cli.main import run
from resonate_audio.cli.naming import PlannedSound, Wanted
from resonate_audio.cli.options import Target
from resonate_audio.core.types import Audio


@pytest.fixture(scope="module")
def said(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What one run of the command prints."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    stdout = io.StringIO()
    with redirect_stdout(stdout):
        assert (
            run(
                [
                    "demo",
                    "-o",
                    str(folder),
                    "--model",
                    str(tiny_model),
                    "--steps",
                    "1",
                    "--learn",
                    "0",
                ]
            )
            == 0
        )
    return stdout.getvalue().splitlines()


@pytest.fixture(scope="module")
def output(said: list[str]) -> Path:
    """The folder it filled."""
    return Path(urlparse(said[-1].split()[-1]).path).parent


def page_of(text: str, folder: Path) -> str:
    plan = PlannedSound(Wanted(text), 1, folder / "a.wav")
    item = DemoSound(plan, Audio(np.zeros(800, np.float32), 8000))
    write(item.plan, item.audio, Target(spectrogram=True, overwrite=True))
    return render_page([item], text, 1.0)


def test_every_prompt_has_a_sound_and_a_picture(output: Path) -> None:
    assert len(list(output.glob("*.wav"))) == len(SOUNDS)
    assert len(list(output.glob("*.png"))) == len(SOUNDS)
    recipes = [read_audio(path).recipe for path in output.glob("*.wav")]
    assert {recipe.prompt for recipe in recipes if recipe} == {text for text, _ in SOUNDS}


def test_the_page_holds_the_very_bytes_of_the_sounds(output: Path) -> None:
    page = Page((output / "index.html").read_text(encoding="utf-8"))
    inside = {
        base64.b64decode(str(found["src"]).partition(",")[2]) for found in page.all("audio")[::2]
    }
    assert inside == {path.read_bytes() for path in output.glob("*.wav")}


def test_the_page_loads_nothing_from_elsewhere(output: Path) -> None:
    text = (output / "index.html").read_text(encoding="utf-8")
    addresses = set(re.findall(r"""https?://[^\s"')]+""", text))
    assert addresses == {"http://www.w3.org/2000/svg"}
    page = Page(text)
    assert all(str(found["src"]).startswith("data:") for found in page.all("img"))


def test_links_of_the_page_lead_to_files_beside_it(output: Path) -> None:
    page = Page((output / "index.html").read_text(encoding="utf-8"))
    links = [found["href"] for name, found in page.tags if name == "a"]
    assert len(links) == len(SOUNDS)
    assert all((output / str(link)).is_file() for link in links)


def test_the_command_prints_every_path_and_ends_with_the_page(
    said: list[str], output: Path
) -> None:
    assert said[-1].endswith((output / "index.html").as_uri())
    printed = {word for line in said for word in line.split()}
    assert {str(path) for path in [*output.glob("*.wav"), *output.glob("*.png")]} <= printed


def test_text_is_escaped(tmp_path: Path) -> None:
    nasty = """"><script>alert('1')</script>&amp; ${x} $prompt"""
    page = Page(page_of(nasty, tmp_path))
    assert [name for name, _ in page.tags].count("script") == 1
    (picture,) = [found["alt"] for name, found in page.tags if name == "img"]
    assert picture == f"Waveform and spectrogram of: {nasty}"


def test_controls_have_names(tmp_path: Path) -> None:
    page = Page(page_of("rain", tmp_path))
    named = [found for name, found in page.tags if name == "input" or found.get("class") == "play"]
    assert len(named) == 2
    assert all(found["aria-label"] for found in named)
