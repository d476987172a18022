"""Prompts come from any kind of file, with ids that stay the same, or one line says why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from resonate_audio.core.errors import InputError, ManifestError
from resonate_audio.evaluation.clips.prompt_sets import read_prompt_set, write_prompt_set


def test_a_text_file_has_the_numbers_of_its_lines_as_ids(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("a dog barks\nrain falling \n")
    prompts = read_prompt_set(path)
    assert [(item.id, item.prompt) for item in prompts.items] == [
        ("0001", "a dog barks"),
        ("0002", "rain falling"),
    ]
    assert prompts.name == "lines"


def test_json_and_jsonl_keep_every_other_field(tmp_path: Path) -> None:
    line = {"id": "prompt_0007", "prompt_text": "rain", "event_list": ["rain"]}
    (tmp_path / "a.json").write_text(json.dumps([line]))
    (tmp_path / "b.jsonl").write_text(json.dumps({"caption": "rain", "label": "r"}) + "\n")
    (item,) = read_prompt_set(tmp_path / "a.json").items
    assert (item.id, item.prompt, item.meta) == ("prompt_0007", "rain", {"event_list": ["rain"]})
    (item,) = read_prompt_set(tmp_path / "b.jsonl").items
    assert (item.id, item.prompt, item.meta) == ("0001", "rain", {"label": "r"})


def test_what_is_written_is_the_same_set(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"id": "x", "prompt": "rain", "n": 1}]))
    prompts = read_prompt_set(tmp_path / "a.json")
    write_prompt_set(tmp_path / "b.jsonl", prompts)
    again = read_prompt_set(tmp_path / "b.jsonl")
    assert again.items == prompts.items
    assert again.sha256 == prompts.sha256


def test_a_sample_is_evenly_spaced_and_another_set(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"sound {n}\n" for n in range(10)))
    prompts = read_prompt_set(path)
    sample = prompts.sample(5)
    assert [item.id for item in sample.items] == ["0001", "0003", "0005", "0007", "0009"]
    assert sample.sha256 != prompts.sha256
    with pytest.raises(InputError, match="lines has 10"):
        prompts.sample(11)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("p.txt", "", "no prompt in it"),
        ("p.json", '{"prompt": "rain"}', "expected a list of objects, got dict"),
        ("p.json", '[{"prompt": "rain"}, 3]', "item 2: expected an object, got int"),
        ("p.jsonl", '{"prompt": "rain"}\n{"prompt"\n', "line 2: not JSON"),
        ("p.jsonl", '{"say": "rain"}\n', "expected one of the fields"),
        ("p.jsonl", '{"id": "../x", "prompt": "rain"}\n', "cannot name a file"),
        (
            "p.jsonl",
            '{"id": "a", "prompt": "rain"}\n{"id": "a", "prompt": "wind"}\n',
            "line 2: id a was used before",
        ),
    ],
)
def test_a_broken_set_is_named_with_its_line(
    tmp_path: Path, name: str, text: str, complaint: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ManifestError, match=complaint):
        read_prompt_set(tmp_path / name)


def test_another_encoding_is_told(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes("Geräusch\n".encode("latin-1"))
    with pytest.raises(ManifestError, match=r"p\.txt:1: byte 4 of the line \(0xe4\) is not UTF-8"):
        read_prompt_set(tmp_path / "p.txt")


def test_an_empty_line_moves_no_id(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("rain\n\n# a note\nwind\n")
    assert [item.id for item in read_prompt_set(tmp_path / "p.txt").items] == ["0001", "0002"]
