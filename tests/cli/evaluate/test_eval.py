"""`resonate eval` from prompts to a comparison, with the bundled model and judges."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from resonate_audio.cli.main import run

QUICK = ("--steps", "2", "--duration", "1")


def test_one_line_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = tmp_path / "p.txt"
    prompts.write_text("a dog barks\n")
    folder = str(tmp_path / "s")
    store = ["--store", str(tmp_path / "scores.db")]
    assert run(["eval", "generate", str(prompts), "-o", folder, *QUICK]) == 0
    capsys.readouterr()
    for arguments, complaint in (
        (["generate", str(tmp_path / "no.txt"), "-o", folder], "no.txt: cannot read it"),
        (["generate", str(prompts), "-o", folder, "--steps", "3"], "nfe is '2' there and '3' now"),
        (["generate", str(prompts), "-o", folder, "--fact", "x"], "--fact x: expected name=value"),
        (["score", folder, "--metric", "clapp", *store], "clapp"),
        (["score", str(tmp_path), "--metric", "nano-clap", *store], "system.json: not there"),
        (["compare", folder, folder], "run resonate eval score first"),
        (["report", folder, "-o", str(tmp_path / "r.html")], "run resonate eval score first"),
    ):
        assert run(["eval", *arguments]) == 2, arguments
        said = capsys.readouterr().err.strip().splitlines()
        assert said[-1].startswith("resonate: "), said
        assert complaint in said[-1]


def test_two_systems_are_made_scored_and_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "p.txt"
    prompts.write_text("a dog barks\nrain falling\na bell rings\n")
    store = ["--store", str(tmp_path / "scores.db")]
    folders = [str(tmp_path / name) for name in ("few", "more")]
    for folder, steps in zip(folders, ("1", "4"), strict=True):
        made = ["eval", "generate", str(prompts), "-o", folder, "--steps", steps]
        assert run([*made, "--duration", "1", "--takes", "2"]) == 0
    assert run(["eval", "score", *folders, "-M", "nano-clap", "-M", "nano-eval", *store]) == 0
    capsys.readouterr()
    output = tmp_path / "c.json"
    assert run(["eval", "compare", *folders, "--json", str(output)]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[:3] == ["metric", "few", "more"]
    changes = json.loads(output.read_text())["changes"]
    assert [change["metric"] for change in changes][:2] == ["nano-clap", "nano-eval"]
    assert all(change["difference"]["num_prompts"] == 3 for change in changes)
