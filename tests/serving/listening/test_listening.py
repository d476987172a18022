"""What a listening test is made of, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from listening_tests import given_clips, make_test, tone

from resonate_audio.audio.io import read_audio, read_recipe, write_audio
from resonate_audio.core.errors import ConfigError, InputError, ManifestError, OutputError
from resonate_audio.core.types import Audio, Recipe
from resonate_audio.serving.listening.test import (
    PRESETS,
    Design,
    GivenClip,
    clip_path,
    create_test,
    open_test,
    parse_design,
    read_clip_list,
    read_probe,
    read_prompts,
    read_systems,
)


def recorded(prompt: str) -> Audio:
    recipe = Recipe(prompt, "", 1, 0.05, 2, 1.0, "secret-model", "00", "cpu", "float32", "0")
    plain = tone(300)
    return Audio(plain.samples, plain.sample_rate_hz, recipe)


def test_a_test_comes_back_as_it_was_written(tmp_path: Path) -> None:
    folder, test, _ = make_test(tmp_path)
    assert open_test(folder) == test


def test_the_files_of_a_test_do_not_tell_who_made_them(tmp_path: Path) -> None:
    given = [GivenClip("alpha", "p0", "a dog", recorded("a dog"))]
    folder, test, _ = make_test(tmp_path, given=given)
    path = clip_path(folder, test.clips[0])
    assert read_recipe(path) is None
    assert b"secret-model" not in path.read_bytes()
    assert "alpha" not in path.name


def test_a_clip_sounds_as_the_original(tmp_path: Path) -> None:
    folder, test, _ = make_test(tmp_path)
    kept = read_audio(clip_path(folder, test.clips[0]))
    assert abs(kept.samples - tone(200).samples).max() < 1e-4


def test_systems_are_read_from_their_folders_with_the_texts_of_their_tags(tmp_path: Path) -> None:
    for system in ("alpha", "beta"):
        write_audio(tmp_path / system / "p0.wav", recorded("a dog"))
    given = read_systems({name: tmp_path / name for name in ("alpha", "beta")})
    assert [(clip.system, clip.name, clip.prompt) for clip in given] == [
        ("alpha", "p0", "a dog"),
        ("beta", "p0", "a dog"),
    ]


def test_texts_of_a_list_stand_before_those_of_the_tags(tmp_path: Path) -> None:
    write_audio(tmp_path / "alpha" / "p0.wav", recorded("a dog"))
    (tmp_path / "texts.csv").write_text("name,prompt\np0,a cat\n")
    given = read_systems({"alpha": tmp_path / "alpha"}, read_prompts(tmp_path / "texts.csv"))
    assert given[0].prompt == "a cat"


def test_a_list_of_clips_is_read_with_files_beside_it(tmp_path: Path) -> None:
    write_audio(tmp_path / "clips" / "x.wav", tone(300))
    (tmp_path / "list.csv").write_text("file,system,prompt,name\nclips/x.wav,alpha,a dog,p0\n")
    clip = read_clip_list(tmp_path / "list.csv")[0]
    assert (clip.system, clip.name, clip.prompt) == ("alpha", "p0", "a dog")


def test_an_empty_column_of_a_list_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("file,system,prompt\nx.wav,,a dog\n")
    with pytest.raises(ManifestError, match=r"list\.csv, line 2: system is empty"):
        read_clip_list(tmp_path / "list.csv")


def test_a_probe_has_a_range_of_scores(tmp_path: Path) -> None:
    write_audio(tmp_path / "noise.wav", tone(300))
    assert read_probe(f"{tmp_path}/noise.wav=1,2").probe == (1.0, 2.0)


@pytest.mark.parametrize("text", ["noise.wav", "noise.wav=1", "noise.wav=low,high", "=1,2"])
def test_a_probe_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected FILE=LOW,HIGH"):
        read_probe(text)


@pytest.mark.parametrize(
    ("given", "design", "words"),
    [
        ([], Design(), "no clip"),
        (given_clips()[:-1], Design(), "system beta has no clip p2"),
        (given_clips(("alpha",)), Design(preset="ab"), "expected two or more"),
        ([*given_clips(), given_clips()[0]], Design(), "same name"),
        ([GivenClip("alpha", "p", " ", tone(9))], Design(), "has no text"),
        (
            [GivenClip(s, "p", f"text of {s}", tone(9)) for s in ("a", "b")],
            Design(),
            "different texts",
        ),
    ],
)
def test_clips_that_make_no_test_are_refused(
    tmp_path: Path, given: list[GivenClip], design: Design, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        create_test(tmp_path / "t", design, given)
    assert list(tmp_path.iterdir()) == []


def test_a_test_without_texts_may_ask_for_quality_only(tmp_path: Path) -> None:
    create_test(tmp_path / "t", Design(preset="ovl"), [GivenClip("alpha", "p", "", tone(300))])
    assert open_test(tmp_path / "t").axes == PRESETS["ovl"]


def test_a_folder_is_never_replaced(tmp_path: Path) -> None:
    make_test(tmp_path)
    with pytest.raises(OutputError, match="exists already"):
        make_test(tmp_path)


def test_a_lost_clip_is_named(tmp_path: Path) -> None:
    folder, test, _ = make_test(tmp_path)
    clip_path(folder, test.clips[0]).unlink()
    with pytest.raises(ManifestError, match="missing; copy the folder as a whole"):
        open_test(folder)


def test_a_field_that_is_not_one_of_a_design_is_named() -> None:
    with pytest.raises(ConfigError, match="num_repeat: unknown field; did you mean num_repeats"):
        parse_design({"num_repeat": 3}, "request")


@pytest.mark.parametrize("name", ["Trees", "a b", "-a", "ä", "a" * 65])
def test_a_name_that_is_none_for_an_address_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="small letters"):
        create_test(tmp_path / name, Design(), given_clips())
