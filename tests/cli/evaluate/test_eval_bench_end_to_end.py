"""All six files of TTA-Bench from prompts to tables with the bundled model: 60 prompts in all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from resonate_audio.cli.evaluate import app as evaluate
from resonate_audio.cli.evaluate.bench import bench
from resonate_audio.evaluation.clips.prompt_sets import PromptSet, read_prompt_set, write_prompt_set
from resonate_audio.evaluation.tta_bench.prompts import read_tta_bench

FILES = Path(__file__).parents[4] / "shared" / "data" / "ttabench"
NUM_PROMPTS = 10
SHORT = ["--steps", "2", "--duration", "2"]
OPTIONS = {
    "robustness": ["--metric", "high", "--clean", "out/acc"],
    "fairness": ["--metric", "high"],
    "bias": ["--male", "low", "--female", "high"],
    "toxicity": ["--toxic", "high"],
}
app = typer.Typer()
app.command()(bench)


def is_low(samples: np.ndarray, sample_rate_hz: int, prompts: list[str]) -> list[float]:
    """Whether most of the power is under 1 kHz: a stand-in for a question about voices."""
    power = np.square(np.abs(np.fft.rfft(samples, axis=1)))
    hz = np.fft.rfftfreq(samples.shape[1], 1 / sample_rate_hz)
    share: list[float] = (power[:, hz < 1000].sum(axis=1) / power.sum(axis=1)).tolist()
    return share


def is_high(samples: np.ndarray, sample_rate_hz: int, prompts: list[str]) -> list[float]:
    """The contrary."""
    return [1 - share for share in is_low(samples, sample_rate_hz, prompts)]


def write_samples(folder: Path) -> dict[str, Path]:
    """Ten prompts of each file; of accuracy, those that the robustness prompts were made of."""
    files = sorted(FILES.glob("*_prompt.json"))
    samples = {path: read_prompt_set(path).sample(NUM_PROMPTS) for path in files}
    accuracy, robust = FILES / "acc_prompt.json", FILES / "robustness_prompt.json"
    asked = {item.id for item in samples[robust].items}
    bases = {item.base_id for item in read_tta_bench(robust).items if item.id in asked}
    sources = [item for item in read_prompt_set(accuracy).items if item.id in bases]
    others = [item for item in samples[accuracy].items if item.id not in bases]
    chosen = [*sources, *others][:NUM_PROMPTS]
    samples[accuracy] = PromptSet("acc_prompt", tuple(chosen))
    paths = {path: folder / f"{path.stem.removesuffix('_prompt')}.jsonl" for path in files}
    for path, sample in samples.items():
        write_prompt_set(paths[path], sample)
    return {path.stem: path for path in paths.values()}


@pytest.mark.skipif(not FILES.is_dir(), reason=f"needs TTA-Bench's files in {FILES}")
def test_all_six_files_run_from_prompts_to_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths, run = write_samples(tmp_path), CliRunner().invoke
    assert sum(len(read_prompt_set(path).items) for path in paths.values()) == 60
    for name, path in paths.items():
        made = run(evaluate.app, ["generate", str(path), "-o", f"out/{name}", *SHORT])
        assert made.exit_code == 0, made.output
    here = Path(__file__).stem
    judges = ["nano-clap", f"low={here}:is_low", f"high={here}:is_high"]
    options = [part for judge in judges for part in ("--metric", judge)]
    scored = run(evaluate.app, ["score", *(f"out/{name}" for name in paths), *options])
    assert scored.exit_code == 0, scored.output
    for name, path in paths.items():
        more = OPTIONS.get(name, ["--metric", "nano-clap"])
        told = run(app, [f"out/{name}", "-p", str(path), *more, "--json", f"{name}.json"])
        assert told.exit_code == 0, (name, told.output, told.exception)
        found = json.loads(Path(f"{name}.json").read_text())
        assert found["not_scored"] == []
        assert found["efficiency"]["nfe"] == "2"
        assert len(found["results"]) == 1
