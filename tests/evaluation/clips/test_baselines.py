"""Every row of the paper's Table 1 says how its clips are brought in, and its size and NFE."""

from __future__ import annotations

from pathlib import Path

import pytest

from resonate_audio.core.errors import ConfigError
from resonate_audio.evaluation.clips.baselines import TABLE_1, find_baseline
from resonate_audio.evaluation.clips.generate import CommandMaker

PRINTED = {
    "audioldm-l-full": ("AudioLDM-L-Full", "739M", 200),
    "audioldm2-large": ("AudioLDM-2-Large", "718M", 200),
    "tango-full": ("Tango-Full", "866M", 200),
    "tango2-full": ("Tango-2-Full", "866M", 200),
    "meanaudio-l-full": ("MeanAudio-L-Full", "480M", 25),
    "ezaudio-xl": ("EzAudio-XL", "857M", 200),
    "genau-l-full": ("GenAU-L-Full", "1253M", 200),
    "tangoflux": ("TangoFlux", "516M", 50),
    "resonate-pt": ("Resonate-PT", "470M", 25),
    "resonate-grpo": ("Resonate-GRPO", "470M", 25),
}
"""Model, Params and NFE, row by row as the paper prints them."""
PAPER = Path(__file__).parents[4] / "shared" / "paper.md"


def test_every_row_says_what_the_paper_prints() -> None:
    assert {key: (row.title, row.params, row.nfe) for key, row in TABLE_1.items()} == PRINTED
    assert list(TABLE_1) == list(PRINTED)
    assert TABLE_1["tangoflux"].facts == {"title": "TangoFlux", "params": "516M", "nfe": "50"}


@pytest.mark.skipif(not PAPER.is_file(), reason=f"needs the paper's text at {PAPER}")
def test_what_is_spelled_out_here_stands_in_the_paper() -> None:
    lines = PAPER.read_text(encoding="utf-8").splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("| Model | Params | NFE |"))
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in lines[head + 3 : head + 13]]
    printed = [(name.split(" ")[0], params, int(nfe)) for name, params, nfe in rows]
    assert printed == list(PRINTED.values())


def test_a_row_whose_program_takes_the_steps_is_told_as_many_as_the_paper_counts() -> None:
    told = {key: row.place + row.note for key, row in TABLE_1.items()}
    said = ("steps=200", "steps=200", "--ddim_steps 200", "--steps 50")
    for key, steps in zip(
        ("tango-full", "tango2-full", "genau-l-full", "tangoflux"), said, strict=True
    ):
        assert steps in told[key], key


def test_each_row_says_where_its_clips_come_from() -> None:
    for row in TABLE_1.values():
        assert row.place or row.note, row.title
        if row.way == "command":
            assert {"{prompt}", "{file}"} <= set(row.place.split())


def test_a_command_of_the_table_is_refused_where_its_program_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="command tangoflux: there is no such program"):
        CommandMaker(TABLE_1["tangoflux"].place)


def test_an_unknown_preset_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"preset tango: expected one of .*tango-full, tango2"):
        find_baseline("tango")
