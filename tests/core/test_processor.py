"""The processor is read off what the system tells, and its rates are measured once."""

from pathlib import Path

import pytest
import torch

from resonate_audio.core import processor
from resonate_audio.core.processor import (
    Rates,
    count_cores,
    find_processor,
    known_rates,
    matrix_units,
    measure_rates,
    preferred_dtype,
    processor_name,
    rates_path,
)

XEON = "\n\n".join(
    f"""processor\t: {number}
model name\t: Intel(R) Xeon(R)   Processor
physical id\t: 0
core id\t\t: {number // 2}
flags\t\t: fpu avx2 avx512f avx512_bf16 avx512_vnni amx_bf16 amx_tile amx_int8"""
    for number in range(4)
)
OLD_XEON = "model name : Old\nflags : fpu avx2 fma"
ARM = """processor\t: 0
Features\t: fp asimd asimddp bf16 i8mm sve
CPU implementer\t: 0x41
CPU part\t: 0xd49

processor\t: 1
Features\t: fp asimd asimddp bf16 i8mm sve
CPU implementer\t: 0x41
CPU part\t: 0xd49"""
MAC = """machdep.cpu.brand_string: Apple M4
hw.physicalcpu: 10
hw.optional.neon: 1
hw.optional.arm.FEAT_SME: 1
hw.optional.arm.FEAT_BF16: 1
hw.optional.arm.FEAT_I8MM: 0"""

SLOW_HALF = Rates(float32_gflops=135, bfloat16_gflops=81, int8_gops=None, memory_gb_s=10)
FAST_HALF = Rates(float32_gflops=100, bfloat16_gflops=200, int8_gops=300, memory_gb_s=10)


def test_units_stand_under_their_common_names() -> None:
    assert matrix_units(XEON) == ("AMX-bf16", "AMX-int8", "AVX512-bf16", "VNNI", "AVX512", "AVX2")
    assert matrix_units(OLD_XEON) == ("AVX2",)
    assert matrix_units(ARM) == ("SVE", "Arm-bf16", "Arm-int8", "Neon")
    assert matrix_units(MAC) == ("SME", "Arm-bf16", "Neon")
    assert matrix_units("") == ()


def test_the_name_is_the_one_the_system_has() -> None:
    assert processor_name(XEON) == "Intel(R) Xeon(R) Processor"
    assert processor_name(MAC) == "Apple M4"
    assert processor_name(ARM).endswith("0x41 0xd49")
    assert processor_name("")


def test_two_threads_of_one_core_are_one_core() -> None:
    assert count_cores(XEON, {0, 1, 2, 3}) == (2, 4)
    assert count_cores(XEON, {0, 1}) == (1, 2)


def test_processors_without_a_core_id_are_cores() -> None:
    assert count_cores(ARM, {0, 1}) == (2, 2)
    assert count_cores("", {0, 1, 2}) == (3, 3)


def test_a_mac_says_how_many_cores_it_has() -> None:
    assert count_cores(MAC, set(range(10))) == (10, 10)


def test_this_machine_has_no_more_cores_than_threads() -> None:
    found = find_processor()
    assert 1 <= found.num_cores <= found.num_threads


def test_rates_are_kept_and_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new folder" / "processor.json"
    first = known_rates(path)
    processor._known_rates.cache_clear()
    monkeypatch.setattr(processor, "measure_rates", lambda: pytest.fail("measured again"))
    assert known_rates(path) == first


def test_one_core_is_measured_whatever_the_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, used, before = tmp_path / "processor.json", set(), torch.get_num_threads()
    product = torch.mm

    def watched(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        used.add(torch.get_num_threads())
        return product(left, right)

    try:
        torch.set_num_threads(before + 1)
        monkeypatch.setattr(torch, "mm", watched)
        first = known_rates(path)
        assert (used, torch.get_num_threads()) == ({1}, before + 1)
    finally:
        torch.set_num_threads(before)
    assert known_rates(path) == first


@pytest.mark.parametrize("content", ["", "no json", '{"rates": {"a": {"float32_gflops": -1}}}'])
def test_a_broken_file_is_measured_over(tmp_path: Path, content: str) -> None:
    path = tmp_path / "processor.json"
    path.write_text(content)
    assert known_rates(path).float32_gflops > 0
    assert processor._Kept.model_validate_json(path.read_text()).rates


def test_a_folder_that_cannot_be_written_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert known_rates(tmp_path / "file" / "processor.json").memory_gb_s > 0


def test_rates_lie_in_the_cache_folder_of_the_user() -> None:
    inside = Path("resonate-audio") / "processor.json"
    assert rates_path({"XDG_CACHE_HOME": "/caches"}) == Path("/caches") / inside
    assert rates_path({}) == Path.home() / ".cache" / inside


def test_a_format_without_a_product_has_no_rate() -> None:
    def prepare(size: int) -> None:
        raise RuntimeError("not implemented on this device")

    assert processor._rate(prepare) is None


def test_an_emulated_format_does_not_keep_anyone_waiting() -> None:
    calls: list[int] = []

    def prepare(size: int):  # noqa: ANN202
        def call() -> None:
            calls.append(size)
            processor.time.sleep(0.05 * (size / processor.SIZES[0]) ** 3)

        return call

    rate = processor._rate(prepare)
    assert set(calls) == {processor.SIZES[0]}
    assert rate == pytest.approx(2e-9 * processor.SIZES[0] ** 3 / 0.05, rel=0.2)


def test_measured_rates_are_of_the_order_of_a_processor() -> None:
    rates = measure_rates()
    assert 0.1 < rates.float32_gflops < 1e6
    assert 0.1 < rates.memory_gb_s < 1e5


@pytest.mark.parametrize(
    ("rates", "dtype"), [(FAST_HALF, torch.bfloat16), (SLOW_HALF, torch.float32)]
)
def test_half_precision_is_chosen_where_it_is_twice_as_fast(
    rates: Rates, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "known_rates", lambda: rates)
    assert preferred_dtype("cpu") == dtype
    assert preferred_dtype("mps") == torch.float32


def test_an_emulated_format_is_told_with_its_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "known_rates", lambda: SLOW_HALF)
    assert processor.slower_than_float32("bfloat16") == pytest.approx(135 / 81)
    assert processor.slower_than_float32("float32") == 1.0
    monkeypatch.setattr(processor, "known_rates", lambda: FAST_HALF)
    assert processor.slower_than_float32("bfloat16") == 1.0
