"""Which file each sound goes to."""

from pathlib import Path

import pytest

from resonate_audio.cli.naming import plan_sounds, slug


def names(prompts: list[str], takes: int = 1, output: str | None = None) -> list[str]:
    return [str(item.path) for item in plan_sounds(prompts, takes, 7, output)]


def test_one_sound_goes_to_the_file_named() -> None:
    assert names(["a dog"], output="out.flac") == ["out.flac"]


def test_several_takes_are_numbered() -> None:
    assert names(["a dog"], 3, "x/out.mp3") == ["x/out-1.mp3", "x/out-2.mp3", "x/out-3.mp3"]


def test_without_output_a_sound_is_named_after_prompt_and_seed() -> None:
    assert names(["A dog barks!"], 2) == ["a-dog-barks_7.wav", "a-dog-barks_8.wav"]


@pytest.mark.parametrize("folder", ["sounds/", "sounds"])
def test_a_name_without_suffix_is_a_folder(folder: str) -> None:
    assert names(["rain"], output=folder) == ["sounds/rain_7.wav"]


def test_an_existing_folder_with_a_dot_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "v1.0").mkdir()
    assert names(["rain"], output=str(tmp_path / "v1.0")) == [str(tmp_path / "v1.0/rain_7.wav")]


def test_equal_prompts_get_different_files() -> None:
    assert names(["rain", "Rain."]) == ["rain_7.wav", "rain_7-2.wav"]


def test_takes_count_seeds_up_and_prompts_share_them() -> None:
    planned = plan_sounds(["rain", "wind"], 2, 40, None)
    assert [(item.prompt, item.seed) for item in planned] == [
        ("rain", 40),
        ("rain", 41),
        ("wind", 40),
        ("wind", 41),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a dog barks twice, then rain starts", "a-dog-barks-twice-then-rain-starts"),
        ("Glöckchen läuten", "glockchen-lauten"),
        ("../../etc/passwd", "etc-passwd"),
        ("雨", "sound"),
        ("-rf *", "rf"),
        ("word " * 40, "word-word-word-word-word-word-word-word-word"),
        ("x" * 300, "x" * 48),
    ],
)
def test_a_slug_is_a_safe_file_name(text: str, expected: str) -> None:
    assert slug(text) == expected
