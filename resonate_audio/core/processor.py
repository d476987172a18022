"""What the processor at hand can do: matrix units, cores, and measured rates of its products.

Which number format is fast is measured, not looked up by name: a unit that the instruction set
lists may be switched off by a virtual machine, or be missing from the build of PyTorch.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, ValidationError

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import OutputError
from resonate_audio.core.files import atomic_path

CPUINFO = Path("/proc/cpuinfo")
WORTHWHILE = 2.0
"""A format is chosen over float32 where its products are at least so many times as fast."""
BUDGET_S = 0.3
"""Longest time that one format is measured for."""
SIZES = (128, 512, 1024)
"""Edges of the products: a small one first, since an emulated format may take 100 times as long."""
COPIED_BYTES = 64 * 2**20
SYSCTL_TIMEOUT_S = 2.0

Format = Literal["float32", "bfloat16", "int8"]

UNITS = {
    "AMX-bf16": ("amx_bf16",),
    "AMX-int8": ("amx_int8",),
    "AVX512-bf16": ("avx512_bf16",),
    "VNNI": ("avx512_vnni", "avx_vnni"),
    "AVX512": ("avx512f",),
    "AVX2": ("avx2",),
    "SME": ("sme", "hw.optional.arm.FEAT_SME"),
    "SVE": ("sve",),
    "Arm-bf16": ("bf16", "hw.optional.arm.FEAT_BF16"),
    "Arm-int8": ("i8mm", "hw.optional.arm.FEAT_I8MM"),
    "Neon": ("asimd", "neon", "hw.optional.neon", "hw.optional.AdvSIMD"),
}
"""Units by the names that Linux, on x86 and Arm, and macOS have for them."""


class Rates(FrozenConfig):
    """Measured speed of products and copies of one core."""

    float32_gflops: float = Field(gt=0)
    bfloat16_gflops: float = Field(gt=0)
    int8_gops: float | None = Field(None, gt=0)
    """None where PyTorch has no int8 product here."""
    memory_gb_s: float = Field(gt=0)
    """Bytes read and written by a copy that is larger than the caches of most processors."""

    def over_float32(self, name: Format) -> float:
        """How many times as fast as float32 the products of a format are; 0 without any."""
        rates = {
            "float32": self.float32_gflops,
            "bfloat16": self.bfloat16_gflops,
            "int8": self.int8_gops or 0.0,
        }
        return rates[name] / self.float32_gflops


@dataclass(frozen=True)
class Processor:
    """The CPU of this machine, as far as this process may use it."""

    name: str
    units: tuple[str, ...]
    num_cores: int
    """Physical cores."""
    num_threads: int
    """Hardware threads: twice the cores with hyper-threading."""


def find_processor() -> Processor:
    """Look at the processor, without measuring it."""
    text = _read(CPUINFO) or _sysctl()
    cores, threads = count_cores(text, _usable())
    return Processor(processor_name(text), matrix_units(text), cores, threads)


def processor_name(text: str) -> str:
    """Read the name off /proc/cpuinfo or sysctl; the machine's architecture if there is none."""
    found = re.search(r"^(?:model name|machdep\.cpu\.brand_string)\s*:\s*(.+)$", text, re.M)
    if found:
        return " ".join(found[1].split())
    parts = (
        re.search(rf"^CPU {field}\s*:\s*(\S+)", text, re.M) for field in ("implementer", "part")
    )
    code = " ".join(part[1] for part in parts if part)
    return f"{platform.machine()} {code}".strip() or "unknown"


def matrix_units(text: str) -> tuple[str, ...]:
    """Units for products that /proc/cpuinfo (flags, Features) or sysctl (name: 1) tells of."""
    listed = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.M)
    names = set(listed[1].split()) if listed else set()
    names |= set(re.findall(r"^(hw\.optional\S+?)\s*:\s*1\s*$", text, re.M))
    return tuple(unit for unit, flags in UNITS.items() if names & set(flags))


def count_cores(text: str, usable: set[int]) -> tuple[int, int]:
    """Physical cores and hardware threads among the ``usable`` processors."""
    on_mac = re.search(r"^hw\.physicalcpu\s*:\s*(\d+)", text, re.M)
    if on_mac:
        return int(on_mac[1]), len(usable)
    cores = set()
    for block in text.split("\n\n"):
        fields = dict(re.findall(r"^(processor|physical id|core id)\s*:\s*(\d+)", block, re.M))
        if int(fields.get("processor", -1)) in usable:
            number = fields["processor"]
            cores.add((fields.get("physical id", ""), fields.get("core id", f"alone {number}")))
    return len(cores) or len(usable), len(usable)


def _usable() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _sysctl() -> str:
    """What macOS says of its processor; empty elsewhere."""
    names = ("machdep.cpu.brand_string", "hw.physicalcpu", "hw.optional")
    try:
        done = subprocess.run(
            ["sysctl", *names],
            capture_output=True,
            text=True,
            timeout=SYSCTL_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


# --- rates ----------------------------------------------------------------------------------------


def measure_rates() -> Rates:
    """Time products of each format and a copy, on one core: about a second.

    Threads that share a product wait for the last of them. Where another program has one of their
    cores, that wait is all that would be measured.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        float32 = _rate(_float_product(torch.float32))
        bfloat16 = _rate(_float_product(torch.bfloat16))
        assert float32 is not None
        assert bfloat16 is not None
        return Rates(
            float32_gflops=float32,
            bfloat16_gflops=bfloat16,
            int8_gops=_rate(_int8_product),
            memory_gb_s=_copy_rate(),
        )
    finally:
        torch.set_num_threads(threads)


def _float_product(dtype: torch.dtype) -> Callable[[int], Callable[[], object]]:
    def prepare(size: int) -> Callable[[], object]:
        left, right = torch.ones(2, size, size, dtype=dtype)
        return lambda: torch.mm(left, right)

    return prepare


def _int8_product(size: int) -> Callable[[], object]:
    left, right = torch.ones(2, size, size, dtype=torch.int8)
    return lambda: torch._int_mm(left, right)


def _rate(prepare: Callable[[int], Callable[[], object]]) -> float | None:
    """Best rate of square products, 10⁹ operations a second; None where there are none."""
    size, took, started = SIZES[0], 0.0, time.perf_counter()
    for larger in SIZES:
        if 3 * took * (larger / size) ** 3 > BUDGET_S:
            break
        try:
            call = prepare(size := larger)
            call()
        except (AttributeError, RuntimeError):
            return None
        took = min(_seconds(call) for _ in range(2))
    while time.perf_counter() - started < BUDGET_S:
        took = min(took, _seconds(call))
    return 2e-9 * size**3 / took


def _copy_rate() -> float:
    source = torch.ones(COPIED_BYTES // 4)
    target = torch.empty_like(source)
    target.copy_(source)
    took = min(_seconds(lambda: target.copy_(source)) for _ in range(3))
    return 2e-9 * COPIED_BYTES / took


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return max(time.perf_counter() - started, 1e-9)


def rates_path(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Where measured rates are kept: ``resonate-audio`` in the user's cache folder, if any."""
    try:
        base = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    except RuntimeError:  # a user without a home, as in a container
        return None
    return Path(base) / "resonate-audio" / "processor.json"


class _Kept(FrozenConfig):
    """The file of rates: one entry for each processor and PyTorch."""

    rates: dict[str, Rates] = Field(default_factory=dict)


def known_rates(path: Path | None = None) -> Rates:
    """Rates of a core of this processor, measured once and then kept.

    A file that cannot be read or written is no fault: they are then measured in every process.
    """
    key = f"a core of {find_processor().name}; torch {torch.__version__}"
    return _known_rates(key, path or rates_path())


@lru_cache(maxsize=8)
def _known_rates(key: str, path: Path | None) -> Rates:
    if path is None:
        return measure_rates()
    try:
        kept = _Kept.model_validate_json(_read(path) or "{}").rates
    except ValidationError:
        kept = {}
    if key in kept:
        return kept[key]
    rates = measure_rates()
    try:
        with atomic_path(path) as temporary:
            text = _Kept(rates=kept | {key: rates}).model_dump_json(indent=1)
            temporary.write_text(text, encoding="utf-8")
    except OutputError:
        pass
    return rates


def preferred_dtype(device: torch.device | str) -> torch.dtype:
    """The number format of products that a device is fast in and trusted with.

    bfloat16 on a CPU where its products are at least twice as fast as in float32, and on a CUDA
    card that has it; float32 elsewhere.
    """
    kind = torch.device(device).type
    if kind == "cpu":
        fast = known_rates().over_float32("bfloat16") >= WORTHWHILE
    else:
        fast = kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if fast else torch.float32


def slower_than_float32(name: Format) -> float:
    """How many times as long as in float32 a product takes here; 1 where it takes no longer."""
    return max(1.0, 1 / max(known_rates().over_float32(name), 1e-3))
