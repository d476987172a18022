"""`resonate eval score`: what a table of means says of clips that could not be scored."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from resonate_audio.cli.evaluate.score import check_folders, check_scored, mean_text, print_means
from resonate_audio.core.errors import InputError
from resonate_audio.evaluation.scores.scored import ClipScore, Failure, MetricCard, SystemScores


def system(
    values: list[float | None],
    failure: Failure = "silent",
    worst: float | None = None,
    protocol: dict[str, str] | None = None,
) -> SystemScores:
    """A clip a value; None is one that failed."""
    clips = [
        ClipScore(id=str(n), prompt="rain", failure=failure)
        if value is None
        else ClipScore(id=str(n), prompt="rain", values={"m": value})
        for n, value in enumerate(values)
    ]
    return SystemScores(
        system="s",
        protocol=protocol or {},
        cards=(MetricCard(name="m", fingerprint="f", worst=worst),),
        clips=tuple(clips),
    )


def test_a_failed_clip_counts_with_the_worst_value_and_a_mean_without_it_is_marked() -> None:
    assert mean_text(system([1.0, 0.5]), "m") == "0.7500"
    assert mean_text(system([1.0, None], worst=-1.0), "m") == "0.0000"
    assert mean_text(system([1.0, None]), "m") == "1.0000*"
    assert mean_text(system([None, None]), "m") == "-"


def test_the_table_counts_failures_by_kind(capsys: pytest.CaptureFixture[str]) -> None:
    scores = system([1.0, None, None])
    missing = scores.clips[2].model_copy(update={"failure": "missing"})
    print_means([scores.model_copy(update={"clips": (*scores.clips[:2], missing)})])
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["system", "clips", "failed", "m"]
    assert re.split(" {2,}", row) == ["s", "3", "1 silent, 1 missing", "1.0000*"]


def test_a_system_without_one_scored_clip_is_an_error() -> None:
    with pytest.raises(InputError, match="out/s: none of its 2 clips could be scored"):
        check_scored([Path("out/s")], [system([None, None], worst=-1.0)])


def test_means_under_different_protocols_come_with_a_note(
    capsys: pytest.CaptureFixture[str],
) -> None:
    both = [system([1.0], protocol={"takes": takes}) for takes in ("1", "2")]
    check_scored([Path("a"), Path("b")], both)
    assert "different protocols; their means cannot be compared" in capsys.readouterr().err
    check_scored([Path("a"), Path("a")], both[:1] * 2)
    assert capsys.readouterr().err == ""


def test_a_folder_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="s: given twice"):
        check_folders([tmp_path / "s", tmp_path / "x" / ".." / "s"])
