from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from resonate_audio.audio.mel import MEL_44K, MelFrontEnd
from resonate_audio.cli.parity import main
from resonate_audio.parity.check import check_file, find_check
from resonate_audio.parity.comparison import compare

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT.parent / "shared" / "reference" / "golden"


def golden_mel() -> dict[str, Tensor]:
    wave = torch.randn(1, 6000, generator=torch.Generator().manual_seed(0)) * 0.1
    return {"in.wave_44k": wave, "out.mel_44k": MelFrontEnd(MEL_44K)(wave)}


def write(path: Path, tensors: dict[str, Tensor], config: object = None) -> Path:
    save_file(tensors, path, metadata={"config": json.dumps(config or {})})
    return path


def test_equal_tensors_pass_and_a_relative_error_over_the_tolerance_fails() -> None:
    expected = torch.tensor([0.0, -100.0])
    assert compare("x", expected, expected).passed
    assert compare("x", expected + 0.0009, expected).passed
    far = compare("x", expected + 0.0011, expected)
    assert not far.passed
    assert far.max_rel == pytest.approx(1.1e-5, rel=1e-2)


@pytest.mark.parametrize(
    ("got", "expected", "passed"),
    [
        (torch.tensor([1, 2]), torch.tensor([1, 2]), True),
        (torch.tensor([1, 2_000_000]), torch.tensor([1, 2_000_001]), False),
        (torch.tensor([True]), torch.tensor([False]), False),
        (torch.zeros(2), torch.zeros(2), True),
        (torch.full((2,), 1e-9), torch.zeros(2), False),
        (torch.zeros(2), torch.zeros(3), False),
        (torch.tensor([torch.nan]), torch.tensor([1.0]), False),
        (torch.zeros(0), torch.zeros(0), True),
        (torch.tensor([1.0]), torch.tensor([1.004], dtype=torch.bfloat16), True),
        (torch.tensor([1.0]), torch.tensor([1.02], dtype=torch.bfloat16), False),
    ],
)
def test_each_kind_of_tensor_has_its_own_tolerance(
    got: Tensor, expected: Tensor, passed: bool
) -> None:
    assert compare("x", got, expected).passed is passed


@pytest.mark.parametrize(
    ("stem", "check"),
    [
        ("mel", "check_mel"),
        ("vae_tiny_128_b", "check_vae"),
        ("bigvgan_v1_other", "check_bigvgan"),
        ("antialiased_snakebeta_2", "check_antialiased_snakebeta"),
        ("flux_wide", "check_flux"),
        ("fm_train_step_b", "check_fm_train_step"),
        ("flow_loss", "check_flow_loss"),
        ("rope_timestep_attn", "check_rope_timestep_attn"),
        ("sde_steps_c", "check_sde_steps"),
        ("grpo_terms", "check_grpo_terms"),
        ("grpo_rollout_tiny", "check_grpo_rollout"),
        ("dpo_2", "check_dpo"),
        ("aqascore", "check_aqascore"),
    ],
)
def test_the_stem_names_the_check(stem: str, check: str) -> None:
    found = find_check(stem)
    assert getattr(found, "__name__", None) == check


def test_vectors_that_are_reproduced_pass(tmp_path: Path) -> None:
    assert check_file(write(tmp_path / "mel_a.safetensors", golden_mel())).verdict == "PASS"


def test_one_wrong_value_fails(tmp_path: Path) -> None:
    tensors = golden_mel()
    tensors["out.mel_44k"][0, 3, 2] += 0.01
    result = check_file(write(tmp_path / "mel.safetensors", tensors))
    assert result.verdict == "FAIL"
    assert result.max_abs == pytest.approx(0.01, rel=1e-3)


def test_an_output_that_no_check_covers_fails(tmp_path: Path) -> None:
    tensors = golden_mel() | {"out.surprise": torch.ones(1)}
    result = check_file(write(tmp_path / "mel.safetensors", tensors))
    assert result.verdict == "FAIL"
    assert "surprise" in result.note + "".join(item.label for item in result.differences)


def test_a_file_without_outputs_fails(tmp_path: Path) -> None:
    tensors = {"in.wave_44k": golden_mel()["in.wave_44k"]}
    assert check_file(write(tmp_path / "mel.safetensors", tensors)).verdict == "FAIL"


def test_a_name_without_a_check_fails(tmp_path: Path) -> None:
    result = check_file(write(tmp_path / "novel.safetensors", golden_mel()))
    assert (result.verdict, result.note) == ("FAIL", "no check of this name")


def test_a_broken_file_is_a_line_not_a_traceback(tmp_path: Path) -> None:
    path = write(tmp_path / "mel.safetensors", golden_mel())
    path.write_bytes(path.read_bytes()[:-100])
    assert "not a readable safetensors file" in check_file(path).note
    save_file(golden_mel(), path)
    assert "no readable `config`" in check_file(path).note


def test_the_exit_code_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "mel.safetensors", golden_mel())
    assert main([str(tmp_path)]) == 0
    write(tmp_path / "novel.safetensors", golden_mel())
    assert main([str(tmp_path)]) == 1
    verdicts = [line.split()[3] for line in capsys.readouterr().out.splitlines()]
    assert verdicts == ["PASS", "PASS", "FAIL"]
    assert main([str(tmp_path / "none")]) == 2


def test_verbose_prints_every_tensor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "mel.safetensors", golden_mel())
    main([str(tmp_path), "--verbose"])
    assert "mel_44k" in capsys.readouterr().out


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"needs the golden vectors at {GOLDEN}")
def test_the_script_passes_every_published_vector() -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [ROOT / "scripts" / "parity", GOLDEN],
        capture_output=True, text=True, check=False, env={**os.environ, "PATH": path},
    )  # fmt: skip
    verdicts = [line.split()[3] for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stdout + done.stderr
    assert verdicts.count("PASS") >= 15
    assert set(verdicts) == {"PASS"}
