"""`precision: auto` is settled once and stays what a run began with."""

from pathlib import Path
from typing import Any

import pytest
import torch

from resonate_audio.core import processor
from resonate_audio.core.config import parse_config
from resonate_audio.core.documents.yaml_text import read_yaml
from resonate_audio.core.processor import Rates
from resonate_audio.training.loop import start, trainer
from resonate_audio.training.loop.distributed import ALONE
from resonate_audio.training.loop.resume import prepare_folder
from resonate_audio.training.loop.run_config import RunConfig, TrainerConfig
from resonate_audio.training.loop.start import settle_precision
from resonate_audio.training.loop.trainer import emulation_note

CPU = torch.device("cpu")
RATES = {
    "fast": Rates(float32_gflops=100, bfloat16_gflops=600, int8_gops=None, memory_gb_s=10),
    "emulated": Rates(float32_gflops=135, bfloat16_gflops=81, int8_gops=None, memory_gb_s=10),
}


def config(folder: Path, **run: Any) -> TrainerConfig:
    values = {"output": str(folder), "device": "cpu", "precision": "auto"} | run
    return parse_config(TrainerConfig, {"run": values}, "test")


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A processor that is fast in half precision."""
    monkeypatch.setattr(processor, "known_rates", lambda: RATES["fast"])
    return monkeypatch


@pytest.mark.parametrize(("rates", "expected"), [("fast", "bf16"), ("emulated", "float32")])
def test_auto_is_what_the_processor_is_fast_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rates: str, expected: str
) -> None:
    monkeypatch.setattr(processor, "known_rates", lambda: RATES[rates])
    assert settle_precision(config(tmp_path), ALONE).run.precision == expected


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_what_is_asked_for_is_taken(
    tmp_path: Path, half: pytest.MonkeyPatch, precision: str
) -> None:
    half.setattr(start, "preferred_dtype", lambda _: pytest.fail("measured"))
    assert settle_precision(config(tmp_path, precision=precision), ALONE).run.precision == precision


@pytest.mark.parametrize("begun", ["float32", "bf16"])
def test_auto_stays_what_a_run_began_with(
    tmp_path: Path, half: pytest.MonkeyPatch, begun: str
) -> None:
    prepare_folder(config(tmp_path, precision=begun))
    half.setattr(start, "preferred_dtype", lambda _: pytest.fail("measured again"))
    assert settle_precision(config(tmp_path), ALONE).run.precision == begun


def test_the_recipe_of_the_run_says_what_was_taken(
    tmp_path: Path, half: pytest.MonkeyPatch
) -> None:
    prepare_folder(settle_precision(config(tmp_path), ALONE))
    assert read_yaml(tmp_path / "recipe.yaml")["run"]["precision"] == "bf16"


def test_a_format_that_is_emulated_is_told_with_the_factor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunConfig(output=tmp_path, precision="bf16")
    for module in (processor, trainer):
        monkeypatch.setattr(module, "slower_than_float32", lambda _: 135 / 81)
    note = emulation_note(run, CPU)
    assert note is not None
    assert "1.7 times as long as in float32" in note
    assert emulation_note(run.model_copy(update={"precision": "float32"}), CPU) is None
    assert emulation_note(run, torch.device("cuda")) is None


def test_a_fast_format_needs_no_word(tmp_path: Path, half: pytest.MonkeyPatch) -> None:
    assert emulation_note(RunConfig(output=tmp_path, precision="bf16"), CPU) is None
