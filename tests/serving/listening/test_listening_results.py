"""Answers become numbers, tables and pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from listening_tests import given_clips, make_test, rate_everything, tone

from resonate_audio.audio.io import read_audio
from resonate_audio.core.errors import InputError
from resonate_audio.evaluation.people.rated_clips import read_rated_clips
from resonate_audio.evaluation.people.ratings import read_ratings, write_ratings
from resonate_audio.serving.listening.answers import Answers
from resonate_audio.serving.listening.results import (
    analyse,
    export_pairs,
    rated_clip_lines,
    render_latex,
    to_ratings,
)
from resonate_audio.serving.listening.test import Design, GivenClip


def heard_by_two(answers: Answers) -> None:
    rate_everything(answers, answers.join(), {"alpha": 5, "beta": 2, "S000": 1})
    rate_everything(answers, answers.join(), {"alpha": 4, "beta": 2, "S000": 5})


def test_a_mean_counts_each_rater_and_clip_once_though_some_were_heard_twice(
    tmp_path: Path,
) -> None:
    _, test, answers = make_test(tmp_path, Design(num_repeats=2))
    heard_by_two(answers)
    results = analyse(test, answers.all(), answers.progress())
    assert [axis.axis for axis in results.axes] == ["OVL", "REL"]
    for axis in results.axes:
        assert [(s.system, s.value, s.num_ratings) for s in axis.scores] == [
            ("alpha", 4.5, 6),
            ("beta", 2.0, 6),
        ]
    assert (results.num_raters, results.num_finished) == (2, 2)
    assert set(results.repeat_difference.values()) == {0.0}


def test_probes_are_no_part_of_a_mean_and_find_out_who_does_not_listen(tmp_path: Path) -> None:
    given = [*given_clips(), GivenClip("S000", "hiss", "hiss", tone(50), (1.0, 2.0))]
    _, test, answers = make_test(tmp_path, given=given)
    heard_by_two(answers)
    ovl = analyse(test, answers.all(), answers.progress()).axes[0]
    assert {score.system for score in ovl.scores} == {"alpha", "beta"}
    doubts = [doubt for check in ovl.raters for doubt in check.doubts]
    assert doubts == ["gave 5 to the probe S000/hiss"]


def test_pairs_give_the_share_of_wins(tmp_path: Path) -> None:
    _, test, answers = make_test(tmp_path, Design(preset="ab"))
    heard_by_two(answers)
    [axis] = analyse(test, answers.all(), answers.progress()).axes
    assert [(score.system, score.value) for score in axis.scores] == [("alpha", 1), ("beta", 0)]


def test_three_systems_in_pairs_give_one_rating_a_clip(tmp_path: Path) -> None:
    given = given_clips(("alpha", "beta", "gamma"))
    _, test, answers = make_test(tmp_path, Design(preset="ab"), given)
    rate_everything(answers, answers.join(), {"alpha": 3, "beta": 2, "gamma": 1})
    ratings = to_ratings(test, answers.all())
    assert sorted({(r.system, r.score) for r in ratings}) == [
        ("alpha", 1.0),
        ("beta", 0.5),
        ("gamma", 0.0),
    ]
    assert len(ratings) == 9


def test_ratings_are_written_as_the_evaluation_reads_them(tmp_path: Path) -> None:
    _, test, answers = make_test(tmp_path)
    heard_by_two(answers)
    ratings = to_ratings(test, answers.all())
    write_ratings(tmp_path / "ratings.csv", ratings)
    assert read_ratings(tmp_path / "ratings.csv") == ratings


def test_clips_are_written_as_correlate_reads_them(tmp_path: Path) -> None:
    _, test, answers = make_test(tmp_path)
    heard_by_two(answers)
    lines = rated_clip_lines(to_ratings(test, answers.all()))
    path = tmp_path / "clips.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    clip = read_rated_clips(path)[0]
    assert (clip.key, clip.means, sorted(clip.ratings["OVL"])) == (
        "alpha/p0",
        {"OVL": 4.5, "REL": 4.5},
        [4, 5],
    )


def test_a_table_for_a_paper_escapes_names(tmp_path: Path) -> None:
    given = given_clips(("a_b & co", "50%"))
    _, test, answers = make_test(tmp_path, given=given)
    rate_everything(answers, answers.join(), {"a_b & co": 5, "50%": 2})
    table = render_latex(analyse(test, answers.all(), answers.progress()))
    assert r"a\_b \& co & $5.00 \pm 0.00$ & $5.00 \pm 0.00$ \\" in table
    assert r"50\% & $2.00 \pm 0.00$" in table


def test_exported_pairs_name_sounds_that_are_there(tmp_path: Path) -> None:
    folder, test, answers = make_test(tmp_path, Design(preset="ab"))
    heard_by_two(answers)
    out = tmp_path / "out"
    export_pairs(folder, test, answers.all(), out, "preference")
    pairs = [json.loads(line) for line in (out / "pairs.jsonl").read_text().splitlines()]
    assert [pair["prompt"] for pair in pairs] == [f"a sound of {n}" for n in range(3)]
    assert all(pair["margin"] == 1 and pair["num_raters"] == 2 for pair in pairs)
    chosen = read_audio(out / pairs[0]["chosen"])
    assert abs(chosen.samples - tone(200).samples).max() < 1e-4


def test_pairs_that_are_too_close_are_not_exported(tmp_path: Path) -> None:
    folder, test, answers = make_test(tmp_path)
    rate_everything(answers, answers.join(), {"alpha": 3, "beta": 3})
    with pytest.raises(InputError, match="no two clips of a prompt"):
        export_pairs(folder, test, answers.all(), tmp_path / "out", "OVL")


def test_an_axis_that_is_not_there_is_named(tmp_path: Path) -> None:
    folder, test, answers = make_test(tmp_path)
    with pytest.raises(InputError, match="no axis MOS; this test has OVL, REL"):
        export_pairs(folder, test, answers.all(), tmp_path / "out", "MOS")


def test_a_test_without_answers_says_so(tmp_path: Path) -> None:
    _, test, answers = make_test(tmp_path)
    with pytest.raises(InputError, match="nobody has answered yet"):
        analyse(test, answers.all(), answers.progress())
