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
from resonate_audio.parity import comparison
from resonate_audio.parity.check import check_file, find_check, read_golden
from resonate_audio.parity.comparison import compare
from resonate_audio.parity.signals import FRONT_ENDS

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT.parent / "shared" / "reference" / "golden"


def golden_mel() -> dict[str, Tensor]:
    wave = torch.randn(1, 6000, generator=torch.Generator().manual_seed(0)) * 0.1
    return {"in.wave_44k": wave, "out.mel_44k": MelFrontEnd(MEL_44K)(wave)}


def write(path: Path, tensors: dict[str, Tensor], config: object = None) -> Path:
    save_file(tensors, path, metadata={"config": json.dumps(config or {})})
    return path


STATED = {
    "a single evaluation near zero": (comparison.SINGLE, [0.0, 9.0], 0, 2e-5),
    "a single evaluation": (comparison.SINGLE, [0.0, 9.0], 1, 2e-5 + 1e-4 * 9),
    "a trajectory or wave": (comparison.TRAJECTORY, [0.0, -100.0], 0, 1e-4 * 100),
    "a log-mel": (comparison.LOG_MEL, [0.0, -11.5], 1, 1e-4),
    "a scalar loss": (comparison.LOSS, [0.01], 0, 1e-6),
    "a gradient": (comparison.GRADIENT, [0.0, 5.0], 0, 1e-3 * 5),
}
"""Kind, expected values, which of them is moved, and how far it may be off."""


@pytest.mark.parametrize("kind", STATED)
@pytest.mark.parametrize("direction", [-1, 1])
def test_just_below_the_stated_tolerance_passes_and_just_above_it_fails(
    kind: str, direction: int
) -> None:
    tolerance, values, place, stated = STATED[kind]
    expected = torch.tensor(values, dtype=torch.float64)
    moved = torch.zeros_like(expected)
    moved[place] = direction * stated
    assert compare("x", expected, expected, tolerance).passed
    assert compare("x", expected + 0.99 * moved, expected, tolerance).passed
    assert not compare("x", expected + 1.01 * moved, expected, tolerance).passed


def test_a_large_loss_may_be_off_by_the_step_to_the_next_float32() -> None:
    expected = torch.tensor(64.0)
    step = torch.nextafter(expected, torch.tensor(torch.inf)) - expected
    assert compare("x", expected + step, expected, comparison.LOSS).passed
    assert not compare("x", expected + 2 * step, expected, comparison.LOSS).passed


def test_the_relative_error_is_of_the_largest_value() -> None:
    expected = torch.tensor([0.0, -100.0])
    assert compare("x", expected + 0.0011, expected).max_rel == pytest.approx(1.1e-5, rel=1e-2)


@pytest.mark.parametrize(
    ("got", "expected", "passed"),
    [
        (torch.tensor([1, 2]), torch.tensor([1, 2]), True),
        (torch.tensor([1, 2_000_000]), torch.tensor([1, 2_000_001]), False),
        (torch.tensor([True]), torch.tensor([False]), False),
        (torch.zeros(2), torch.zeros(2), True),
        (torch.zeros(2), torch.zeros(3), False),
        (torch.tensor([torch.nan]), torch.tensor([1.0]), False),
        (torch.tensor([1.0]), torch.tensor([torch.inf]), False),
        (torch.zeros(0), torch.zeros(0), True),
        (torch.tensor([1.0]), torch.tensor([1.004], dtype=torch.bfloat16), True),
        (torch.tensor([1.0]), torch.tensor([1.02], dtype=torch.bfloat16), False),
    ],
)
def test_what_a_type_asks_holds_for_every_kind_of_quantity(
    got: Tensor, expected: Tensor, passed: bool
) -> None:
    for tolerance in (comparison.SINGLE, comparison.LOSS, comparison.GRADIENT):
        assert compare("x", got, expected, tolerance).passed is passed


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


@pytest.mark.parametrize(("number", "rate"), [(0, "44k"), (17, "16k"), (79, "16k"), (127, "44k")])
def test_any_row_of_a_filterbank_is_checked(number: int, rate: str, tmp_path: Path) -> None:
    basis = MelFrontEnd(FRONT_ENDS[rate]).basis
    label, path = f"out.mel_basis_row{number}_{rate}", tmp_path / "mel.safetensors"
    assert check_file(write(path, {label: basis[number].clone()})).verdict == "PASS"
    neighbour = basis[number - 1].clone()
    assert check_file(write(path, {label: neighbour})).verdict == "FAIL"


def test_a_row_that_the_filterbank_has_not_fails(tmp_path: Path) -> None:
    result = check_file(
        write(tmp_path / "mel.safetensors", {"out.mel_basis_row80_16k": torch.zeros(513)})
    )
    assert result.verdict == "FAIL"
    assert "mel_basis_row80_16k" in result.note


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


KINDS = {
    "bigvgan_v2_tiny": {"wave": comparison.WAVE, "resblock0": comparison.SINGLE},
    "dpo": {"beta1.0.grad_model_pred": comparison.GRADIENT, "beta100.loss": comparison.LOSS,
            "beta1.0.raw_model_loss": comparison.SINGLE},
    "flow_loss": {"masked_mean_loss": comparison.LOSS, "masked_loss": comparison.SINGLE},
    "flux_tiny": {"forward": comparison.SINGLE, "euler_step1": comparison.SINGLE,
                  "euler_final": comparison.TRAJECTORY,
                  "euler_to_prior_nocfg": comparison.TRAJECTORY},
    "fm_train_step": {"masked.loss": comparison.SINGLE, "unmasked.mean_loss": comparison.LOSS,
                      "masked.grad_norm": comparison.GRADIENT,
                      "masked.grad.text_cond_proj.0.bias": comparison.GRADIENT},
    "grpo_rollout_tiny": {"latents": comparison.TRAJECTORY, "log_probs": comparison.SINGLE,
                          "update.kl_loss": comparison.LOSS, "update.mean_loss": comparison.LOSS,
                          "update.grad_norm": comparison.GRADIENT,
                          "update.ratio": comparison.SINGLE},
    "grpo_terms": {"small.beta0.04.kl_loss": comparison.LOSS, "large.beta0.0.loss": comparison.LOSS,
                   "small.beta0.0.grad_log_prob": comparison.GRADIENT,
                   "adv.type_dpo": comparison.SINGLE},
    "mel": {"mel_16k": comparison.LOG_MEL, "mel_44k": comparison.LOG_MEL,
            "mel_basis_16k": comparison.SINGLE},
}  # fmt: skip


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"needs the golden vectors at {GOLDEN}")
@pytest.mark.parametrize("stem", KINDS)
def test_each_quantity_is_held_to_the_tolerance_of_its_kind(stem: str) -> None:
    tensors, config = read_golden(GOLDEN / f"{stem}.safetensors")
    check = find_check(stem)
    assert check is not None
    kinds = {item.label: item.tolerance for item in check(tensors, config, GOLDEN)}
    assert {label: kinds[label] for label in KINDS[stem]} == KINDS[stem]


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
