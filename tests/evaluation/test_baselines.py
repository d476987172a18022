"""Every row of the paper's Table 1 says how its clips are brought in, and its size and NFE."""

from __future__ import annotations

import pytest

from resonate_audio.core.errors import ConfigError
from resonate_audio.evaluation.baselines import TABLE_1, find_baseline
from resonate_audio.evaluation.generate import CommandMaker


def test_the_table_has_ten_systems_under_their_own_titles() -> None:
    assert len({row.title for row in TABLE_1.values()}) == len(TABLE_1) == 10
    assert TABLE_1["resonate-grpo"].facts == {
        "title": "Resonate-GRPO",
        "params": "470M",
        "nfe": "25",
    }


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
