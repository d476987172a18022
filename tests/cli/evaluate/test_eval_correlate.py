"""`resonate eval correlate`: PAM's ratings beside metrics from folders and tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from resonate_audio.cli.evaluate.correlate import correlate
from resonate_audio.core.errors import InputError, ManifestError
from resonate_audio.evaluation.scores.scored import write_scores
from tests.evaluation.made_scores import system

app = typer.Typer()
app.command()(correlate)
PAM = Path(__file__).parents[4] / "shared" / "data" / "pam" / "aes_pam.jsonl"
NAMES = [f"generated_audio_index_{n}" for n in range(6)]


def rated(folder: Path) -> Path:
    """Two systems and recordings; a clip's OVL is its number, its REL the reverse."""
    lines = [
        f"{model},{name},{n + shift},{9 - n - shift}"
        for shift, model in enumerate(("audiogen_m", "audiolm_l", "real"))
        for n, name in enumerate(NAMES)
    ]
    path = folder / "scores.csv"
    path.write_text("\n".join(["Model,File Name,OVL,REL", *lines]) + "\n")
    return path


def scored(folder: Path, metric: str, sign: float) -> Path:
    lines = [
        f"{model}/{name}.wav,{sign * (n + shift)}"
        for shift, model in enumerate(("audiogen_m", "audiolm_l", "real"))
        for n, name in enumerate(NAMES)
    ]
    path = folder / f"{metric}.csv"
    path.write_text("\n".join([f"file,{metric}", *lines]) + "\n")
    return path


def test_metrics_of_several_tables_stand_beside_every_axis(tmp_path: Path) -> None:
    tables = [str(scored(tmp_path, "aqa", 1.0)), str(scored(tmp_path, "noise", -1.0))]
    output = tmp_path / "found.json"
    result = CliRunner().invoke(app, [str(rated(tmp_path)), *tables, "--json", str(output)])
    assert result.exit_code == 0, result.output
    found = {
        (one["axis"], one["metric"]): one["pooled"]["lcc"]["value"]
        for one in json.loads(output.read_text())["correlations"]
    }
    assert found == {
        ("OVL", "aqa"): pytest.approx(1.0),
        ("OVL", "noise"): pytest.approx(-1.0),
        ("REL", "aqa"): pytest.approx(-1.0),
        ("REL", "noise"): pytest.approx(1.0),
    }


def test_scored_folders_are_joined_by_their_files_and_others_are_counted(tmp_path: Path) -> None:
    for shift, model in enumerate(("audiogen_m", "audiolm_l")):
        made = system(model, {name: float(n + shift) for n, name in enumerate([*NAMES, "more"])})
        clips = tuple(c.model_copy(update={"file": f"clips/{c.id}.wav"}) for c in made.clips)
        write_scores(tmp_path / model, made.model_copy(update={"clips": clips}))
    folders = [str(tmp_path / "audiogen_m"), str(tmp_path / "audiolm_l")]
    options = ["--without-real", "--axis", "OVL"]
    result = CliRunner().invoke(app, [str(rated(tmp_path)), *folders, *options])
    assert result.exit_code == 0, result.output
    assert "OVL   clap    12     1.000" in result.stdout
    assert "note: 2 scored clips are not among the rated ones" in result.stderr


def test_a_rated_clip_without_a_score_is_named(tmp_path: Path) -> None:
    path = scored(tmp_path, "aqa", 1.0)
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))
    with pytest.raises(ManifestError, match=r"real/generated_audio_index_5: rated.*\(1 such"):
        correlate(rated(tmp_path), [path])


def test_one_metric_from_two_tables_is_refused(tmp_path: Path) -> None:
    path = scored(tmp_path, "aqa", 1.0)
    with pytest.raises(ManifestError, match="aqa of audiogen_m/generated_audio_index_0 was given"):
        correlate(rated(tmp_path), [path, path])


def test_recordings_alone_leave_nothing_without_them(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("Model,File Name,OVL,REL\nreal,one,1,2\n")
    with pytest.raises(InputError, match="no rated clip is left"):
        correlate(path, [scored(tmp_path, "aqa", 1.0)], without_real=True)


def test_an_axis_without_a_ceiling_is_noted_and_the_rest_is_written(tmp_path: Path) -> None:
    path, output = tmp_path / "ratings.jsonl", tmp_path / "found.json"
    lines = [
        {"data_path": f"audiogen_m/{name}.wav", "OVL": [n, n + 1], "REL": [n, n + 1] if n else [n]}
        for n, name in enumerate(NAMES)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    table = tmp_path / "aqa.csv"
    table.write_text("file,aqa\n" + "".join(f"audiogen_m/{n}.wav,{n[-1]}\n" for n in NAMES))
    result = CliRunner().invoke(app, [str(path), str(table), "--task", "", "--json", str(output)])
    assert result.exit_code == 0, result.output
    assert "note: REL: a noise ceiling needs two clips or more" in result.stderr
    assert "OVL: 2.0 ratings a clip" in result.stdout
    assert json.loads(output.read_text())["noise_ceilings"].keys() == {"OVL"}


@pytest.mark.skipif(not PAM.is_file(), reason=f"needs PAM's ratings in {PAM}")
def test_ratings_of_single_people_give_a_ceiling(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in PAM.read_text().splitlines()]
    table = tmp_path / "metric.jsonl"
    table.write_text(
        "".join(
            json.dumps({"file": line["data_path"], "sum": sum(line["Production_Quality"])}) + "\n"
            for line in lines
            if "/audio/" in line["data_path"]
        )
    )
    result = CliRunner().invoke(app, [str(PAM), str(table), "--axis", "Production_Quality"])
    assert result.exit_code == 0, result.output
    assert "500    1.000" in result.stdout
    assert "10.0 ratings a clip; no metric can be expected above LCC 0." in result.stdout
