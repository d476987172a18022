"""Which file each sound goes to."""

import re
from pathlib import Path

import pytest

from resonate_audio.cli.naming import Wanted, plan_sounds, slug
from resonate_audio.core.errors import InputError


def names(prompts: list[str], takes: int = 1, output: str | None = None) -> list[str]:
    wanted = [Wanted(prompt, takes=takes) for prompt in prompts]
    return [str(item.path) for item in plan_sounds(wanted, 7, output)]


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
    planned = plan_sounds([Wanted("rain", takes=2), Wanted("wind", takes=2)], 40, None)
    assert [(item.prompt, item.seed) for item in planned] == [
        ("rain", 40),
        ("rain", 41),
        ("wind", 40),
        ("wind", 41),
    ]


def test_a_prompt_that_comes_again_counts_its_seeds_on() -> None:
    wanted = [Wanted("rain", takes=2), Wanted("wind"), Wanted("rain"), Wanted("rain", seed=7)]
    assert [item.seed for item in plan_sounds(wanted, 40, None)] == [40, 41, 40, 42, 7]


def test_what_stands_in_braces_is_filled_in() -> None:
    wanted = [Wanted("A dog!", takes=2, name="yard/dog"), Wanted("rain")]
    planned = plan_sounds(wanted, 7, "out/{n}-{name}_{prompt}_{take}.{seed}.ogg")
    assert [str(item.path) for item in planned] == [
        "out/1-yard/dog_a-dog_1.7.ogg",
        "out/2-yard/dog_a-dog_2.8.ogg",
        "out/3-rain_rain_1.7.ogg",
    ]


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        ("{model}.wav", "{model} stands for nothing; there are {name} {prompt} {seed} {take} {n}"),
        ("{}.wav", "{} stands for nothing"),
        ("{seed.wav", "a brace stands alone"),
        ("seed}.wav", "a brace stands alone"),
        ("{name}.wav", "rain.wav: two sounds would go there (“rain” and “Rain.”)"),
    ],
)
def test_a_template_that_cannot_name_every_sound_is_refused(output: str, complaint: str) -> None:
    with pytest.raises(InputError, match=re.escape(complaint)):
        names(["rain", "Rain."], output=output)


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
