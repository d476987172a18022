"""K2: what this package writes it reads back, whatever stands in the texts."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resonate_audio.core.documents.csv_text import csv_rows
from resonate_audio.core.documents.json_text import json_line, parse_object, read_json_lines
from resonate_audio.core.documents.text import read_lines
from resonate_audio.core.documents.yaml_text import format_yaml, parse_yaml

LINE_ENDS = "\v\f\x1c\x1d\x1e\x85\u2028\u2029"
"""What ``str.splitlines`` takes for the end of a line, but for CR and LF."""
NASTY = [
    "a dog barks", f"one{LINE_ENDS}two", "a\r\nb\rc\nd", "010", "1e5", "no", "~", "2001-01-01",
    "- a: {b", "# dog", "'\"\\", "=1+1", "雨 émigré 🐕", "<<", "\ufeffdog", "\t", "a,b;c", "1:30",
    "!!int 5", "&a *a", "null", "{", "[x]", "%YAML", "\x7f\x80\x9f", "\ufffe",
]  # fmt: skip
TEXTS = st.one_of(
    st.sampled_from(NASTY),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    st.text(st.sampled_from(LINE_ENDS + "\n\r ab\"',:")),
)


@given(st.dictionaries(TEXTS, TEXTS, max_size=4))
def test_an_object_is_one_line_for_every_reader(fields: dict[str, str]) -> None:
    line = json_line(fields)
    assert line.splitlines() == [line.removesuffix("\n")]
    assert parse_object(line, "here") == fields


@settings(max_examples=60)
@given(st.recursive(
    TEXTS | st.integers(1 - 2**63, 2**63 - 1) | st.booleans() | st.none()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
))  # fmt: skip
def test_yaml_is_read_back_as_it_was(value: Any) -> None:
    assert parse_yaml(format_yaml({"value": value}), "here") == {"value": value}


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4))
def test_tables_are_read_back_as_they_were(rows: list[tuple[str, str]]) -> None:
    from resonate_audio.evaluation.people.ratings import _write_csv

    path = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(".")
    file = path / "faults-k02.csv"
    try:
        _write_csv(file, ("a", "b"), [list(row) for row in rows])
        found = csv_rows((line for _, line in read_lines(file)), file)
        assert [tuple(cells.values()) for _, cells in found] == rows
    finally:
        file.unlink(missing_ok=True)


# --- every file that is written and read: a new pair gets a row -----------------------------------


def manifest(folder: Path, texts: list[str]) -> list[str]:
    from resonate_audio.data.manifest import Clip, read_manifest, write_manifest

    clips = [
        Clip(audio_id=f"{n}{text}", audio_path=f"{n}.wav", caption=text or "-", captions=(text,))
        for n, text in enumerate(texts)
    ]
    write_manifest(folder / "m.jsonl", clips)
    return [clip.captions[0] for clip in read_manifest(folder / "m.jsonl").clips]


def prompt_set(folder: Path, texts: list[str]) -> list[str]:
    from resonate_audio.evaluation.clips.prompt_sets import (
        PromptItem,
        PromptSet,
        read_prompt_set,
        write_prompt_set,
    )

    items = tuple(
        PromptItem(id=str(n), prompt="dog", meta={"note": text}) for n, text in enumerate(texts)
    )
    write_prompt_set(folder / "p.jsonl", PromptSet("p", items))
    return [item.meta["note"] for item in read_prompt_set(folder / "p.jsonl").items]


def clips_of_a_system(folder: Path, texts: list[str]) -> list[str]:
    from resonate_audio.evaluation.clips.folder import (
        ClipLine,
        System,
        open_manifest,
        read_manifest,
    )
    from resonate_audio.evaluation.clips.prompt_sets import PromptItem, PromptSet

    asked = PromptSet("p", (PromptItem(id="1", prompt="dog"),))
    begun = open_manifest(folder, System(name="a", source="b", facts={"text": texts[0]}), asked)
    begun.append([
        ClipLine(id=str(n), prompt=text, file="a.wav", sha256="0") for n, text in enumerate(texts)
    ])  # fmt: skip
    found = read_manifest(folder)
    assert found.system.facts["text"] == texts[0]
    return [line.prompt for line in found.clips.values()]


def scores(folder: Path, texts: list[str]) -> list[str]:
    from resonate_audio.evaluation.scores.scored import (
        ClipScore,
        SystemScores,
        read_scores,
        write_scores,
    )

    clips = tuple(ClipScore(id=str(n), prompt=text) for n, text in enumerate(texts))
    write_scores(folder, SystemScores(system="a", clips=clips))
    return [clip.prompt for clip in read_scores(folder).clips]


def metrics(folder: Path, texts: list[str]) -> list[str]:
    from resonate_audio.training.loop.progress import append_metrics, read_metrics

    for number, text in enumerate(texts):
        append_metrics(folder / "takes.jsonl", {"step": number, "prompt": text})
    return [line["prompt"] for line in read_metrics(folder / "takes.jsonl")]


def listening_test(folder: Path, texts: list[str]) -> list[str]:
    import numpy as np

    from resonate_audio.core.types import Audio
    from resonate_audio.serving.listening.test import (
        Design,
        GivenClip,
        create_test,
        open_test,
    )

    tone = Audio(np.full(1_600, 0.1, np.float32), 16_000)
    clips = [GivenClip("a", str(number), text, tone) for number, text in enumerate(texts)]
    create_test(folder / "test", Design(preset="ovl"), clips)
    return [clip.prompt for clip in open_test(folder / "test").clips]


def ratings(folder: Path, texts: list[str]) -> list[str]:
    from resonate_audio.evaluation.people.ratings import Rating, read_ratings, write_ratings

    given = [
        Rating(rater=str(n), clip="a", system="b", prompt=text, axis="OVL", score=3)
        for n, text in enumerate(texts)
    ]
    write_ratings(folder / "r.csv", given)
    return [rating.prompt for rating in read_ratings(folder / "r.csv")]


def exported_lines(folder: Path, texts: list[str]) -> list[str]:
    from resonate_audio.serving.listening.results import format_lines

    (folder / "c.jsonl").write_text(format_lines([{"text": text} for text in texts]), "utf-8")
    return [fields["text"] for _, fields in read_json_lines(folder / "c.jsonl")]


def sounds(folder: Path, texts: list[str]) -> list[str]:
    import numpy as np
    from test_k01_c_libraries import recipe_of

    from resonate_audio.audio.io import FORMATS, read_audio, write_audio
    from resonate_audio.core.types import Audio

    found = []
    for text in texts:
        import dataclasses

        recipe = dataclasses.replace(recipe_of(1, 3), prompt=text, batch_prompts=(text,))
        prompts = set()
        for suffix in FORMATS:
            path = folder / f"a{suffix}"
            write_audio(path, Audio(np.full(1_600, 0.1, np.float32), 16_000, recipe), True)
            read = read_audio(path).recipe
            assert read is not None, (suffix, text)
            prompts.add(read.prompt)
        found += prompts
    return found


PAIRS = [
    manifest, prompt_set, clips_of_a_system, scores, metrics, listening_test, ratings,
    exported_lines, sounds,
]  # fmt: skip


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.__name__)
def test_what_is_written_is_read_back(
    pair: Callable[[Path, list[str]], list[str]], tmp_path: Path
) -> None:
    texts = [text for text in NASTY if text.strip() == text]
    assert pair(tmp_path, texts) == texts


def test_half_a_character_is_refused_where_it_comes_in_not_after_the_work(tmp_path: Path) -> None:
    from resonate_audio.core.errors import ManifestError
    from resonate_audio.data.prompts import read_prompts

    (tmp_path / "p.jsonl").write_text('{"prompt": "a \\ud800 dog"}\n')
    with pytest.raises(ManifestError, match=r"p\.jsonl, line 1: .*half a character"):
        read_prompts(tmp_path / "p.jsonl")


def test_no_writer_of_lines_stands_beside_the_one() -> None:
    home = Path(__file__).parents[2] / "resonate_audio"
    pattern = re.compile(r"(dumps|dump_json)\((?!.*indent)[^\n]*\)\}?(\\n| \+ \"\\n\")")
    found = [
        f"{path.name}: {line.strip()}"
        for path in home.rglob("*.py")
        if "documents" not in path.parts
        for line in io.StringIO(path.read_text(encoding="utf-8"))
        if pattern.search(line) and "data:" not in line and "known" not in path.name
    ]
    assert found == []
