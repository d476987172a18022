"""The Space is built and called as its page calls it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from resonate_audio import read_audio

FOLDER = Path(__file__).parents[2] / "integrations" / "space"


@pytest.fixture(scope="module")
def app() -> ModuleType:
    pytest.importorskip("gradio", reason="needs: pip install gradio", exc_type=ImportError)
    spec = importlib.util.spec_from_file_location("space_app", FOLDER / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_front_matter_names_the_app_and_its_sdk() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    front: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    assert front["sdk"] == "gradio"
    assert (FOLDER / front["app_file"]).is_file()
    wanted = (FOLDER / "requirements.txt").read_text(encoding="utf-8").split()
    least, package = wanted
    assert package == "resonate-audio"
    bound = [int(part) for part in least.removeprefix("gradio>=").split(".")]
    named = [int(part) for part in str(front["sdk_version"]).split(".")]
    assert bound[0] == named[0]
    assert bound <= named


@pytest.mark.filterwarnings("ignore")
def test_the_page_is_built_with_both_ways(app: ModuleType) -> None:
    page = app.build()
    names = {function.api_name for function in page.fns.values()}
    assert {"generate", "vary"} <= names


@pytest.mark.filterwarnings("ignore")
def test_what_the_page_calls_makes_sounds_and_varies_them(app: ModuleType) -> None:
    shown = app.generate("a dog barks", 1.0, 7, 2)
    visible = [one for one in shown if one.visible]
    assert (len(shown), len(visible)) == (app.MAX_TAKES, 2)
    first = read_audio(Path(visible[0].value["path"]))
    assert first.recipe is not None
    assert (first.recipe.prompt, first.recipe.seed) == ("a dog barks", 7)
    [like] = [one for one in app.vary(visible[0].value["path"], "", 0.5, 1, 1) if one.visible]
    assert read_audio(Path(like.value["path"])).recipe is not None


@pytest.mark.filterwarnings("ignore")
def test_a_mistake_of_the_users_is_one_line(app: ModuleType) -> None:
    import gradio

    with pytest.raises(gradio.Error, match="prompt"):
        app.generate("", 1.0, 7, 1)
    with pytest.raises(gradio.Error, match="give a sound first"):
        app.vary(None, "", 0.5, 1, 1)
