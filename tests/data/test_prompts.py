"""Prompt files."""

from pathlib import Path

import pytest

from resonate_audio.core.errors import ManifestError
from resonate_audio.data.prompts import read_prompts


def test_a_text_file_gives_one_prompt_a_line(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("a dog barks\n\n  rain falls \n")
    assert read_prompts(file) == ("a dog barks", "rain falls")


def test_json_lines_give_their_text_field(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"id": 1, "prompt_text": "a dog"}\n{"caption": "rain", "audio_id": "x"}\n')
    assert read_prompts(file) == ("a dog", "rain")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompt": "a"}\n{broken\n', "line 2: not JSON"),
        ('{"prompt": "a"}\n[1]\n', "line 2: expected an object"),
        ('{"name": "a"}\n', "line 1: expected one of the fields"),
        ('{"prompt": "  "}\n', "line 1: prompt is empty"),
        ("\n\n", "no prompt in it"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(content)
    with pytest.raises(ManifestError, match=message):
        read_prompts(file)


def test_a_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for name in ("missing.txt: cannot read it", "binary.txt:1: byte 1 of the line"):
        with pytest.raises(ManifestError, match=name):
            read_prompts(tmp_path / name.split(":")[0])


def test_columns_parted_by_semicolons_are_told(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("prompt;duration\ndog;0.3\n")
    with pytest.raises(ManifestError, match="columns are parted by ;, expected commas"):
        read_prompts(table)
