"""`resonate doctor`: what is installed, what it runs on, and whether it computes rightly."""

from __future__ import annotations

import http.client
import os
import platform
import shutil
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal

import typer

from resonate_audio.cli.console import print_table, say
from resonate_audio.core.errors import ResonateError
from resonate_audio.core.files import existing_parent
from resonate_audio.core.proxies import through_proxy

PACKAGES = (
    "resonate-audio", "torch", "transformers", "tokenizers", "safetensors", "huggingface-hub",
    "numpy", "soundfile", "soxr", "matplotlib", "pydantic", "typer",
)  # fmt: skip
HUB_TIMEOUT_S = 3.0
LOW_DISK_BYTES = 5 * 2**30
"""What the large model, its text encoder and vocoder take."""

Verdict = Literal["ok", "note", "FAIL"]


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    what: str
    verdict: Verdict
    detail: str


def doctor(
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not look for the hub on the network.")
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(help="Run the self-test on cpu, cuda or mps.", show_default="the fastest"),
    ] = None,
) -> None:
    """Check the installation; exit 1 if something is broken.

    [bold]Example[/bold]

      resonate doctor --offline
    """
    say("looking around; the self-test takes a few seconds")
    findings = [check_versions(), check_libsndfile(), check_device(), check_processor()]
    findings.append(check_disk())
    findings.append(Finding("hub", "note", "not asked") if offline else check_hub())
    findings.append(check_known_answer(device))
    print_table(
        ("check", "verdict", "detail"),
        [(item.what, item.verdict, item.detail) for item in findings],
    )
    if any(item.verdict == "FAIL" for item in findings):
        raise typer.Exit(1)


def check_versions() -> Finding:
    """Versions of what sounds depend on."""
    found, missing = [f"python {platform.python_version()}"], []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    if missing:
        return Finding("versions", "FAIL", f"missing: {', '.join(missing)}; pip install them")
    return Finding("versions", "ok", ", ".join(found))


def check_libsndfile() -> Finding:
    """Every format that is offered can be written and read here."""
    import numpy as np

    from resonate_audio.audio.io import FORMATS, decode_audio, encode_audio
    from resonate_audio.core.types import Audio

    tone = np.sin(np.arange(4800, dtype=np.float32) * np.float32(0.1)) / 2
    broken = []
    for suffix, kind in FORMATS.items():
        try:
            decode_audio(encode_audio(Audio(tone, 48_000), kind), suffix)
        except (ResonateError, RuntimeError) as error:
            broken.append(f"{suffix} ({error})")
    if broken:
        return Finding("audio files", "FAIL", f"libsndfile here lacks {', '.join(broken)}")
    return Finding("audio files", "ok", " ".join(FORMATS))


def check_device() -> Finding:
    """What models run on."""
    import torch

    threads = f"{torch.get_num_threads()} threads on {os.cpu_count()} cores"
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return Finding(
            "device", "ok", f"cuda: {properties.name}, {_size(properties.total_memory)}; {threads}"
        )
    if torch.backends.mps.is_available():
        return Finding("device", "ok", f"mps: Apple {platform.machine()}; {threads}")
    return Finding("device", "ok", f"cpu: {platform.machine()}, {threads}")


def check_processor() -> Finding:
    """Units for products, how fast each number format is here, and which is chosen by that."""
    from resonate_audio.core.processor import find_processor, known_rates, preferred_dtype

    found, rates = find_processor(), known_rates()
    int8 = "no int8" if rates.int8_gops is None else f"int8 {rates.int8_gops:.0f} Gop/s"
    chosen = str(preferred_dtype("cpu")).removeprefix("torch.")
    detail = (
        f"{found.name}: {' '.join(found.units) or 'no units known'}; {found.num_cores} cores, "
        f"{found.num_threads} hardware threads; products of one core: "
        f"float32 {rates.float32_gflops:.0f}, bfloat16 {rates.bfloat16_gflops:.0f} GFLOP/s, "
        f"{int8}; copies {rates.memory_gb_s:.0f} GB/s; training and large models in {chosen}"
    )
    return Finding("processor", "ok", detail)


def check_disk() -> Finding:
    """Room for sounds here, and for downloaded models."""
    from resonate_audio.model.hub_client import hub_constants

    try:
        place = hub_constants().HF_HUB_CACHE
    except ResonateError as error:
        return Finding("disk", "note", str(error))
    here, cache = Path.cwd(), existing_parent(Path(place))
    free_here, free_cache = shutil.disk_usage(here).free, shutil.disk_usage(cache).free
    detail = f"{_size(free_here)} free here, {_size(free_cache)} for models in {place}"
    if free_cache < LOW_DISK_BYTES:
        return Finding("disk", "note", f"{detail}; the large model needs {_size(LOW_DISK_BYTES)}")
    return Finding("disk", "ok", detail)


def check_hub() -> Finding:
    """Whether models could be downloaded; being offline is no fault, `nano` is embedded."""
    from resonate_audio.model.hub_client import hub_constants

    try:
        address = hub_constants().ENDPOINT
    except ResonateError as error:
        return Finding("hub", "note", str(error))
    started_s = time.monotonic()
    try:
        request = urllib.request.Request(address, method="HEAD")  # the address is the hub's own
        with urllib.request.urlopen(request, timeout=HUB_TIMEOUT_S):
            pass
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        reason = f"{getattr(error, 'reason', error)}{through_proxy(address)}"
        return Finding("hub", "note", f"{address} not reachable ({reason}); nano works without")
    return Finding("hub", "ok", f"{address} in {time.monotonic() - started_s:.1f} s")


def check_known_answer(device: str | None) -> Finding:
    """Does `nano` still make the sound that it made when it was finished?"""
    from resonate_audio.model.hub import find_model
    from resonate_audio.nano.known_answer import ask, read_known_answer, relative_error
    from resonate_audio.pipeline.path import Resonate

    try:
        answer = read_known_answer(find_model("nano", local_files_only=True))
        started_s = time.monotonic()
        # In float32 everywhere: the answer is to tell rounding from broken arithmetic.
        pipeline = Resonate.from_pretrained("nano", device, "float32", local_files_only=True)
        loaded_s = time.monotonic()
        error = relative_error(answer, ask(pipeline, answer))
    except ResonateError as problem:
        return Finding("self-test", "FAIL", str(problem))
    detail = (
        f"nano on {pipeline.device}: relative error {error:.1e} of at most {answer.tolerance:g}; "
        f"loaded in {loaded_s - started_s:.1f} s, answered in {time.monotonic() - loaded_s:.1f} s"
    )
    return Finding("self-test", "ok" if error <= answer.tolerance else "FAIL", detail)


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB"
