"""`resonate eval mos`: scores, agreement and doubts, and one line for a broken table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from resonate_audio.cli.evaluate.listening import mos
from resonate_audio.core.errors import InputError, ManifestError

app = typer.Typer()
app.command()(mos)
HEADER = "rater,clip,system,prompt,axis,score,ms,order"


def written(folder: Path, num_prompts: int = 8) -> Path:
    """Three raters of whom the last gives 3 to everything; system b is better by 1."""
    lines = [
        f"{rater},{system}{n},{system},p{n},OVL,{3 if rater == 'r3' else 1 + n % 4 + better},2500,1"
        for rater in ("r1", "r2", "r3")
        for better, system in enumerate("ab")
        for n in range(num_prompts)
    ]
    path = folder / "ratings.csv"
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path


def test_scores_agreement_differences_and_doubts_are_told(tmp_path: Path) -> None:
    output = tmp_path / "found.json"
    result = CliRunner().invoke(app, [str(written(tmp_path)), "--json", str(output)])
    assert result.exit_code == 0, result.output
    assert "OVL: Krippendorff's alpha" in result.stdout
    assert "OVL: b - a = +0.67" in result.stdout
    assert "OVL: rater r3 gave 3 to everything" in result.stderr
    (found,) = json.loads(output.read_text())
    assert [(score["system"], score["num_ratings"]) for score in found["scores"]] == [
        ("b", 24), ("a", 24),
    ]  # fmt: skip


def test_a_rater_is_left_out_by_name_only(tmp_path: Path) -> None:
    path = written(tmp_path)
    result = CliRunner().invoke(app, [str(path), "--without", "r3"])
    assert "OVL: b - a = +1.00" in result.stdout
    with pytest.raises(InputError, match="--without r9: nobody"):
        mos(path, scale="1,5", without=["r9"])
    with pytest.raises(InputError, match="no rating is left without r1, r2, r3"):
        mos(path, scale="1,5", without=["r1", "r2", "r3"])


def test_what_cannot_be_agreement_is_said_and_the_rest_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text(f"{HEADER}\nr1,a1,a,p1,OVL,3,,\nr2,a1,a,p1,OVL,3,,\nr1,a2,a,p2,OVL,3,,\n")
    result = CliRunner().invoke(app, [str(path)])
    assert result.exit_code == 0, result.output
    assert "3.00" in result.stdout
    assert "OVL, alpha_ordinal: agreement needs clips" in result.stderr
    assert "OVL, icc: ICC needs two raters and two clips" in result.stderr


def test_systems_without_a_common_prompt_are_told(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text(f"{HEADER}\nr1,a1,a,p1,OVL,3,,\nr1,b1,b,p2,OVL,4,,\n")
    result = CliRunner().invoke(app, [str(path)])
    assert result.exit_code == 0, result.output
    assert "OVL: a and b have no prompt in common" in result.stderr


def test_tta_bench_s_form_is_known_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "common.csv"
    path.write_text(
        "wav_name,person_id,复杂度,喜爱度,质量,一致性,实用性\n"
        "S001_P0001.wav,1,1,2,3,4,5\nS001_P0001.wav,2,2,3,4,5,10\n"
    )
    result = CliRunner().invoke(app, [str(path), "--axis", "usefulness", "--scale", "1,10"])
    assert result.exit_code == 0, result.output
    assert "S001    7.50" in result.stdout


@pytest.mark.parametrize(
    ("scale", "complaint"),
    [("1,3", r"line \d+: score 4 is outside of 1 to 3"), ("five", "expected two numbers")],
)
def test_another_scale_is_refused(tmp_path: Path, scale: str, complaint: str) -> None:
    with pytest.raises((InputError, ManifestError), match=complaint):
        mos(written(tmp_path), scale=scale)


def test_an_unknown_axis_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no rating of REL; it has OVL"):
        mos(written(tmp_path), axis=["REL"], scale="1,5")


@pytest.mark.parametrize("scale", ["5,1", "1,1", "nan,5", "1,inf", "-inf,5"])
def test_a_scale_that_holds_no_score_is_one_line(tmp_path: Path, scale: str) -> None:
    with pytest.raises(InputError, match=f"--scale {scale}: expected the lowest score, then the"):
        mos(written(tmp_path), scale=scale)
