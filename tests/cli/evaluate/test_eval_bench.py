"""`resonate eval bench`: a table for each of TTA-Bench's files, and what it leaves out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from resonate_audio.cli.evaluate.bench import bench
from resonate_audio.core.errors import InputError
from resonate_audio.evaluation.scores.scored import (
    ClipScore,
    MetricCard,
    SystemScores,
    write_scores,
)
from resonate_audio.evaluation.tta_bench.prompts import read_tta_bench

app = typer.Typer()
app.command()(bench)
FILES = Path(__file__).parents[4] / "shared" / "data" / "ttabench"


def prompt_file(folder: Path, lines: Sequence[Mapping[str, Any]]) -> Path:
    path = folder / "prompts.json"
    path.write_text(json.dumps(lines))
    return path


def scored(folder: Path, prompts: Mapping[str, str], *columns: str) -> Path:
    """A system of which the n-th clip has the value (n + 1) / 10 in each column."""
    clips = tuple(
        ClipScore(
            id=id,
            prompt=prompt,
            values=dict.fromkeys(columns, (1 + number % 9) / 10),
            wall_s=1.0,
            seconds=10.0,
        )
        for number, (id, prompt) in enumerate(prompts.items())
    )
    cards = tuple(MetricCard(name=name, fingerprint="one") for name in columns)
    scores = SystemScores(system=folder.name, cards=cards, clips=clips, facts={"nfe": "25"})
    write_scores(folder, scores)
    return folder


ACCURACY = [
    {
        "id": f"prompt_{n:04d}",
        "prompt_text": f"sound {n}",
        "Dimensions of evaluation": "Accuracy",
        "event_count": count,
        "event_list": ["event"] * count,
        "event_relation": relation,
    }
    for n, count, relation in ((1, 1, "None"), (2, 2, "sequence"), (3, 2, "parallelism"))
]
TEXTS = {f"prompt_{n:04d}": f"sound {n}" for n in (1, 2, 3)}


def test_accuracy_is_told_by_events_with_what_is_missing(tmp_path: Path) -> None:
    folder = scored(tmp_path / "s", {id: TEXTS[id] for id in ("prompt_0001", "prompt_0003")}, "aqa")
    output = tmp_path / "found.json"
    options = ["--prompts", str(prompt_file(tmp_path, ACCURACY)), "--json", str(output)]
    result = CliRunner().invoke(app, [str(folder), *options])
    assert result.exit_code == 0, result.output
    assert "aqa     all            0.1500" in result.stdout
    assert "aqa     2 parallelism  0.2000" in result.stdout
    assert "0.100 s of work for a second of sound, 2 clips, NFE 25" in result.stdout
    assert "prompts that were not scored (1): prompt_0002" in result.stderr
    assert "slips of the file, kept as they are (1)" in result.stderr
    found = json.loads(output.read_text())
    assert (found["dimension"], found["not_scored"]) == ("accuracy", ["prompt_0002"])
    assert found["results"]["aqa"]["overall"]["value"] == pytest.approx(0.15)


def test_clips_that_failed_are_told_and_a_group_without_a_value_has_a_row(tmp_path: Path) -> None:
    folder = scored(tmp_path / "s", TEXTS, "aqa")
    lines = (folder / "scores.jsonl").read_text().splitlines()
    broken = json.loads(lines[0]) | {"failure": "silent", "values": {}}
    (folder / "scores.jsonl").write_text("\n".join([*lines[1:], json.dumps(broken)]) + "\n")
    options = ["--prompts", str(prompt_file(tmp_path, ACCURACY))]
    result = CliRunner().invoke(app, [str(folder), *options])
    assert result.exit_code == 0, result.output
    assert "aqa     1              -       no clip has a value" in result.stdout
    assert "aqa: left out, have no value (1): prompt_0001, seed 0 (silent)" in result.stderr


@pytest.mark.parametrize(
    ("kind", "options", "complaint"),
    [
        ("Accuracy", {"clean": Path("x")}, "--clean is for robustness, its prompts accuracy"),
        ("Robustness", {}, "robustness needs --clean"),
        ("Bias", {"male": "man"}, "bias needs --female"),
        (
            "Bias",
            {"male": "a", "female": "b", "metric": ["aqa"]},
            "--metric says nothing of bias",
        ),
    ],
)
def test_options_that_a_dimension_needs_or_cannot_use_are_named(
    tmp_path: Path, kind: str, options: dict[str, Any], complaint: str
) -> None:
    line = {"id": "a", "prompt_text": "sound", "Dimensions of evaluation": kind, "notes": "1"}
    folder = scored(tmp_path / "s", {"a": "sound"}, "aqa")
    with pytest.raises(InputError, match=complaint):
        bench(folder, prompt_file(tmp_path, [line]), **options)


def test_a_folder_without_scores_of_single_clips_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no metric scored its clips"):
        bench(scored(tmp_path / "s", TEXTS), prompt_file(tmp_path, ACCURACY))


@pytest.mark.skipif(not FILES.is_dir(), reason=f"needs TTA-Bench's files in {FILES}")
@pytest.mark.parametrize(
    ("name", "columns", "options", "told"),
    [
        ("acc", ("aqa",), [], "5 complex"),
        ("generalization", ("aqa", "pq"), [], "pq      4 "),
        ("robustness", ("aqa",), ["--clean", "acc"], "misspelling"),
        ("fairness", ("aqa",), [], "FS language"),
        ("bias", ("man", "woman"), ["--male", "man", "--female", "woman"], "neither"),
        ("toxicity", ("bad",), ["--toxic", "bad"], "illegal activity"),
    ],
)
def test_each_published_file_has_its_table(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    columns: tuple[str, ...],
    options: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in {"acc", name}:
        prompts = {item.id: item.prompt for item in read_tta_bench(file_of(file)).items}
        scored(tmp_path / file, prompts, *columns)
    result = CliRunner().invoke(app, [name, "--prompts", str(file_of(name)), *options])
    assert result.exit_code == 0, result.output
    assert told in result.stdout
    assert "not scored" not in result.stderr


def file_of(name: str) -> Path:
    return FILES / f"{name}_prompt.json"


def test_a_metric_of_which_ratios_say_nothing_is_told_and_others_are_shown(tmp_path: Path) -> None:
    path = prompt_file(
        tmp_path,
        [
            {
                "id": id,
                "prompt_text": id,
                "Dimensions of evaluation": "Fairness",
                "notes": group,
            }
            for id, group in (("a", "male"), ("b", "female"))
        ],
    )
    folder = scored(tmp_path / "s", {"a": "a", "b": "b"}, "aqa", "odds")
    scores = (folder / "scores.jsonl").read_text().replace('"odds":', '"odds":-')
    (folder / "scores.jsonl").write_text(scores)
    result = CliRunner().invoke(app, [str(folder), "--prompts", str(path)])
    assert result.exit_code == 0, result.output
    assert "aqa     FS gender  50.0000" in result.stdout
    assert "odds" not in result.stdout
    assert "note: s: fairness needs positive means of odds, got -0.2 for female" in result.stderr
    with pytest.raises(InputError, match="positive means of odds"):
        bench(folder, path, metric=["odds"])
