"""What was made is kept, found and deleted."""

from __future__ import annotations

from pathlib import Path

import pytest
from listening_tests import tone

from resonate_audio.audio.io import read_recipe
from resonate_audio.core.errors import InputError, OutputError
from resonate_audio.core.types import Audio, Recipe
from resonate_audio.serving.studio_library import Library


def made(prompt: str, seed: int = 1, model: str = "nano") -> Audio:
    recipe = Recipe(prompt, "", seed, 0.05, 2, 1.0, model, "00", "cpu", "float32", "0")
    plain = tone(300)
    return Audio(plain.samples, plain.sample_rate_hz, recipe)


def test_a_sound_comes_back_with_its_settings_after_a_restart(tmp_path: Path) -> None:
    sound = Library(tmp_path).add(made("a dog", seed=7))
    again = Library(tmp_path)
    assert again.search("", 10, 0) == (1, [sound])
    assert read_recipe(again.file(sound.id)) == made("a dog", seed=7).recipe


def test_sounds_are_found_by_words_model_and_seed_and_the_newest_comes_first(
    tmp_path: Path,
) -> None:
    library = Library(tmp_path)
    for seed, prompt in enumerate(("a dog", "a cat", "100% rain")):
        library.add(made(prompt, seed=seed + 40, model=f"model-{seed}"))
    found = [sound.prompt for sound in library.search("A", 10, 0)[1]]
    assert found == ["100% rain", "a cat", "a dog"]
    assert [sound.prompt for sound in library.search(" a dog ", 10, 0)[1]] == ["a dog"]
    assert [sound.prompt for sound in library.search("model-2", 10, 0)[1]] == ["100% rain"]
    assert [sound.prompt for sound in library.search("41", 10, 0)[1]] == ["a cat"]


@pytest.mark.parametrize(("words", "total"), [("%", 1), ("_", 0), ("!", 0), ("' OR 1=1 --", 0)])
def test_signs_of_a_query_are_only_signs(tmp_path: Path, words: str, total: int) -> None:
    library = Library(tmp_path)
    for prompt in ("a dog", "100% rain"):
        library.add(made(prompt))
    assert library.search(words, 10, 0)[0] == total


def test_pages_of_a_search_do_not_overlap(tmp_path: Path) -> None:
    library = Library(tmp_path)
    for seed in range(5):
        library.add(made("rain", seed=seed))
    pages = [library.search("rain", 2, offset) for offset in (0, 2, 4)]
    assert [total for total, _ in pages] == [5, 5, 5]
    assert [sound.seed for _, page in pages for sound in page] == [4, 3, 2, 1, 0]


def test_a_deleted_sound_is_gone(tmp_path: Path) -> None:
    library = Library(tmp_path)
    sound = library.add(made("rain"))
    library.remove(sound.id)
    assert library.search("", 10, 0) == (0, [])
    with pytest.raises(InputError, match="no such sound"):
        library.file(sound.id)


@pytest.mark.parametrize("id", ["", "..", "../library", "x" * 300])
def test_only_sounds_of_the_library_are_files_of_it(tmp_path: Path, id: str) -> None:
    with pytest.raises(InputError, match="no such sound"):
        Library(tmp_path).file(id)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file"):
        Library(tmp_path / "file")
