"""What a GPU gives: generation, reinforcement, pre-training, judges and memory, in eight minutes.

    python benchmarks/gpu.py [--json gpu.json] [--budget-s 460]

The 468 M model with random weights, in bfloat16 as it runs on a GPU; its text encoder is a small
one, since texts are encoded once. Large products are measured first, and every rate stands beside
theirs. Then, the most useful first:

* **generation** of 1, 8 and 32 sounds of ten seconds, 25 guided steps, as the package makes them:
  flow, VAE and vocoder apart, and the most memory held;
* **one guided evaluation** of the flow for as many sounds: as it is, with compiled blocks, and
  replayed as a CUDA graph;
* **one reinforcement step** of 24 takes of one prompt, the paper's way and the fast way
  (`benchmarks/grpo_step.py`), judged by `nano-clap`;
* **one pre-training step** by number of sounds, as it is and with compiled blocks;
* **judges** of 24 sounds of five seconds, together and one by one;
* **nano**, and how far its latents and sounds are from those of the CPU for the same seeds.

What would begin after the budget is left out and named. The JSON is written after every
measurement, so that a run that is cut off leaves what it has. Seconds are the best of the repeats,
after one call that is not counted.
"""

from __future__ import annotations

import argparse
import json
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from grpo_step import ALGORITHMS, SAMPLERS, TEXTS, make_form, run_step, synchronise
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from training_step import Case, compile_blocks, leave_nothing_zero, make_step
from velocity import DIRECT_TAPS, count_gflop

from resonate_audio import Resonate
from resonate_audio.core.errors import InputError
from resonate_audio.core.files import atomic_path
from resonate_audio.core.types import Waveform
from resonate_audio.flow.guidance import guided
from resonate_audio.model.flow_transformer import FlowTransformer
from resonate_audio.model.folder import Networks, build_networks
from resonate_audio.model.minilm import MiniLM, MiniLMConfig
from resonate_audio.model.presets import RESONATE, ModelConfig
from resonate_audio.model.text_encoder import TextEncoder, TextEncoderConfig
from resonate_audio.pipeline.device import choose_device
from resonate_audio.rewards.catalogue import open_judge, parse_spec
from resonate_audio.rewards.desk import JudgeDesk, score_now
from resonate_audio.training.reinforce.lora import LoraSettings

Row = dict[str, Any]
Loaded = tuple[Networks, TextEncoder]
GIB = 2**30
JUDGES = ("nano-lalm", "nano-clap", "nano-eval")


@dataclass(frozen=True)
class Sizes:
    """What is measured at which size."""

    load: Callable[[], Loaded]
    """A fresh model in float32 on the CPU."""
    duration_s: float = 10.0
    clips: tuple[int, ...] = (1, 8, 32)
    steps: int = 25
    takes: int = 24
    train_rows: tuple[int, ...] = (8, 32, 64)
    judged: tuple[int, float] = (24, 5.0)
    product: int = 8192
    """Side of the square matrices."""
    repeats: int = 3


@dataclass
class Report:
    """What was measured, on the screen and in a file that is whole after every measurement."""

    device: torch.device
    path: Path | None
    ends_at: float
    found: dict[str, list[Row]] = field(default_factory=dict)

    def measure(self, section: str, name: str, work: Callable[[], Row]) -> None:
        """Do one measurement, unless the time is up, and tell it."""
        row: Row = {"what": name}
        if time.monotonic() > self.ends_at:
            row["left out"] = "the time was up"
        else:
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            try:
                row |= work()
            except torch.OutOfMemoryError as error:
                row["left out"] = f"out of memory: {str(error).splitlines()[0]}"
            if self.device.type == "cuda":
                row["peak GiB"] = torch.cuda.max_memory_allocated() / GIB
        self.found.setdefault(section, []).append(row)
        cells = ", ".join(f"{key} {format_value(value)}" for key, value in row.items())
        print(f"{section}: {cells}", flush=True)
        self.write()

    def write(self) -> None:
        """The file, whole or as it was."""
        if self.path is None:
            return
        about = {"device": device_name(self.device), "torch": torch.__version__}
        with atomic_path(self.path) as partial:
            partial.write_text(json.dumps(about | self.found, indent=2), encoding="utf-8")


def format_value(value: object) -> str:
    """A number in four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def device_name(device: torch.device) -> str:
    """What it is called."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path, help="where the numbers go")
    parser.add_argument("--budget-s", type=float, default=460.0)
    options = parser.parse_args()
    try:
        device = choose_device(options.device)
    except InputError as error:
        parser.error(str(error))
    report = Report(device, options.json, time.monotonic() + options.budget_s)
    measure_all(report, Sizes(lambda: random_model(RESONATE)))


def measure_all(report: Report, sizes: Sizes) -> None:
    """Everything, the most useful first."""
    rates = measure_products(report, sizes)
    measure_generation(report, sizes, rates)
    measure_evaluations(report, sizes, rates)
    measure_reinforcement(report, sizes)
    measure_training(report, sizes, rates)
    measure_judges(report, sizes)
    measure_nano(report, sizes)


# A model without files.


def random_model(config: ModelConfig) -> Loaded:
    """A model in which nothing is zero, with a text encoder of one block and the right width."""
    torch.manual_seed(0)
    text = TextEncoderConfig(
        kind="minilm", repo_id="none", num_tokens=config.text_encoder.num_tokens,
        dim=config.transformer.text_dim,
    )  # fmt: skip
    networks = build_networks(config.model_copy(update={"text_encoder": text}))
    leave_nothing_zero(networks.transformer)
    words = ["[PAD]", "[UNK]", *sorted({word for line in TEXTS for word in line.split()})]
    tokenizer = Tokenizer(
        models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    network = MiniLM(
        MiniLMConfig(
            vocab_size=len(words), hidden_size=text.dim, intermediate_size=text.dim,
            num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=text.num_tokens,
        )
    )  # fmt: skip
    return networks, TextEncoder(text, network, tokenizer)


def ready(sizes: Sizes, device: torch.device) -> Resonate:
    """The model as the package runs it there."""
    networks, encoder = sizes.load()
    return Resonate(networks, encoder, device=device)


# The measurements.


def seconds_of(work: Callable[[], object], repeats: int) -> float:
    """Best time on the clock, everything on the device done; one call before is not counted."""
    best = float("inf")
    for number in range(repeats + 1):
        synchronise()
        began = time.perf_counter()
        work()
        synchronise()
        if number:
            best = min(best, time.perf_counter() - began)
    return best


def measure_products(report: Report, sizes: Sizes) -> dict[str, float]:
    """Rates of large products, TFLOP/s, by number format; float32 as the trainer sets it."""
    rates: dict[str, float] = {}
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):

        def multiply(name: str = name, dtype: torch.dtype = dtype) -> Row:
            factors = torch.randn(2, sizes.product, sizes.product, device=report.device).to(dtype)
            took = seconds_of(lambda: factors[0] @ factors[1], sizes.repeats)
            rates[name] = 2e-12 * sizes.product**3 / took
            return {"TFLOP/s": rates[name]}

        report.measure("large products", name, multiply)
    torch.backends.cuda.matmul.fp32_precision = before
    return rates


def share(tflop: float, seconds: float, rate: float | None) -> Row:
    """Work done a second, and its share of what large products reach."""
    achieved = tflop / seconds
    return {"TFLOP/s": achieved} | ({"share of products": achieved / rate} if rate else {})


def flow_tflop(config: ModelConfig, duration_s: float) -> float:
    """Work of one guided evaluation for one sound."""
    frames = config.num_frames(duration_s)
    return 2e-3 * count_gflop(config.transformer, frames, DIRECT_TAPS)


def format_name(dtype: torch.dtype) -> str:
    """As `measure_products` names it."""
    return str(dtype).removeprefix("torch.")


def measure_generation(report: Report, sizes: Sizes, rates: dict[str, float]) -> None:
    """Whole sounds as the package makes them, stage by stage."""
    model = ready(sizes, report.device)
    sampling = model.config.sampling(sizes.duration_s, sizes.steps, 4.5)
    for clips in sizes.clips:

        def generate(clips: int = clips) -> Row:
            features = model.encode_text([TEXTS[0]] * clips)
            negative = model.encode_negative([""] * clips)
            seeds = range(clips)
            flow_s = seconds_of(
                lambda: model.sample_latents(features, negative, seeds, sampling), 1
            )
            latents = model.sample_latents(features, negative, seeds, sampling)
            mel = model.decode(latents)
            decode_s = seconds_of(lambda: model.decode(latents), 1)
            vocode_s = seconds_of(lambda: model.vocode(mel), 1)
            tflop = sizes.steps * clips * flow_tflop(model.config, sizes.duration_s)
            whole = flow_s + decode_s + vocode_s
            return {
                "flow s": flow_s, "VAE s": decode_s, "vocoder s": vocode_s, "together s": whole,
                "sounds/s": clips / whole,
            } | share(tflop, flow_s, rates.get(format_name(model.dtype)))  # fmt: skip

        report.measure("generation", f"{clips} x {sizes.duration_s:g} s", generate)


@torch.no_grad()
def measure_evaluations(report: Report, sizes: Sizes, rates: dict[str, float]) -> None:
    """One guided evaluation in every form, of the same network."""
    model = ready(sizes, report.device)
    network = model.transformer
    rate = rates.get(format_name(model.dtype))
    frames = model.config.num_frames(sizes.duration_s)
    calls: dict[int, Callable[[], Tensor]] = {}
    for clips in sizes.clips:
        prompt = network.condition(model.encode_text([TEXTS[0]] * clips))
        empty = network.condition(model.encode_negative([""] * clips))
        velocity = guided(network, prompt, empty, 4.5)
        z = torch.randn(clips, frames, model.config.vae.latent_channels, device=report.device)
        t = torch.full((clips,), 0.5, device=report.device)
        calls[clips] = lambda velocity=velocity, z=z, t=t: velocity(z, t)

    def timed(call: Callable[[], object], clips: int) -> Row:
        took = seconds_of(call, sizes.repeats)
        work = clips * flow_tflop(model.config, sizes.duration_s)
        return {"seconds": took} | share(work, took, rate)

    for form in ("as it is", "compiled blocks"):
        if form == "compiled blocks":
            if not isinstance(network, FlowTransformer):
                continue  # on a CPU the package's form is another network, compiled as it pays
            compile_blocks(network)
        for clips, call in calls.items():
            name = f"{clips}, {form}"
            report.measure("evaluation", name, lambda call=call, clips=clips: timed(call, clips))
            if report.device.type == "cuda":

                def replayed(call: Callable[[], Tensor] = call, clips: int = clips) -> Row:
                    return timed(graphed(call), clips)

                report.measure("evaluation", f"{name}, as a graph", replayed)


def graphed(call: Callable[[], Tensor]) -> Callable[[], None]:
    """The same kernels on the same tensors, without the host's part."""
    beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def measure_reinforcement(report: Report, sizes: Sizes) -> None:
    """One step of the paper's way and of the fast way, by phase."""
    options = Namespace(prompts=1, takes=sizes.takes, rows=sizes.takes, precision="bf16")
    judge = open_judge(parse_spec("nano-clap"), report.device)
    ways = {
        "paper, all weights": ("paper", None),
        "fast, adapters": ("fast", LoraSettings(rank=16)),
        "fast, all weights": ("fast", None),
    }
    with JudgeDesk(compute_beside=report.device.type != "cpu") as desk:
        for name, (way, lora) in ways.items():

            def step(way: str = way, lora: LoraSettings | None = lora) -> Row:
                form = make_form(way, sizes.load(), options, SAMPLERS[way], lora,
                                 ALGORITHMS[way], desk, report.device)  # fmt: skip
                run_step(form, options, judge, 0)
                seconds, _ = run_step(form, options, judge, 1)
                whole = sum(seconds.values())
                phases = {f"{phase} s": took for phase, took in seconds.items()}
                return phases | {"together s": whole, "takes/s": sizes.takes / whole}

            report.measure("reinforcement", f"{name}, {sizes.takes} takes", step)


def measure_training(report: Report, sizes: Sizes, rates: dict[str, float]) -> None:
    """One pre-training step by number of sounds."""
    config = sizes.load()[0].config
    frames = config.num_frames(sizes.duration_s)
    for compiled in (False, True):
        if compiled and report.device.type == "cpu":
            continue  # nothing is compiled for training there
        for rows in sizes.train_rows:

            def train(rows: int = rows, compiled: bool = compiled) -> Row:
                case = Case(config.name, config.transformer, rows, frames)
                step = make_step(case, report.device, compiled)
                took = seconds_of(lambda: step("bf16"), sizes.repeats)
                work = share(case.gflop / 1000, took, rates.get("bfloat16"))
                return {"seconds": took, "sounds/s": rows / took} | work

            form = ", compiled blocks" if compiled else ""
            report.measure("pre-training", f"{rows} x {sizes.duration_s:g} s{form}", train)


def measure_judges(report: Report, sizes: Sizes) -> None:
    """A judge asked about many sounds, and about one after the other."""
    rows, seconds = sizes.judged
    generator = torch.Generator().manual_seed(0)
    samples = 0.1 * torch.randn(rows, round(seconds * 44_100), generator=generator)
    texts = [TEXTS[row % len(TEXTS)] for row in range(rows)]
    for name in JUDGES:

        def ask(name: str = name) -> Row:
            judge = open_judge(parse_spec(name), report.device)

            def answer(which: Sequence[int]) -> None:
                wave = Waveform(samples[list(which)], 44_100)
                score_now(judge, wave, [texts[row] for row in which])

            together = seconds_of(lambda: answer(range(rows)), sizes.repeats)
            each = seconds_of(lambda: one_by_one(answer, rows), 1)
            return {"together s": together, "one by one s": each, "ratio": each / together}

        report.measure("judges", f"{name}, {rows} x {seconds:g} s", ask)


def one_by_one(ask: Callable[[Sequence[int]], None], rows: int) -> None:
    """Ask about each row by itself."""
    for row in range(rows):
        ask([row])


def measure_nano(report: Report, sizes: Sizes) -> None:
    """The bundled model: how fast, and how far from the CPU's sounds of the same seeds."""
    nano = Resonate.from_pretrained("nano", device=report.device)
    for clips in sizes.clips:

        def generate(clips: int = clips) -> Row:
            texts = [TEXTS[row % len(TEXTS)] for row in range(clips)]
            took = seconds_of(
                lambda: nano.generate(
                    texts, seeds=0, duration_s=sizes.duration_s, batch_size=clips
                ),
                sizes.repeats,
            )
            return {"seconds": took, "sounds/s": clips / took}

        report.measure("nano", f"{clips} x {sizes.duration_s:g} s", generate)

    def differ() -> Row:
        cpu = Resonate.from_pretrained("nano", device="cpu")
        same = Resonate.from_pretrained("nano", device=report.device, dtype="float32")
        found = [
            one.generate(list(TEXTS), seeds=0, duration_s=sizes.duration_s)
            for one in (cpu, same, nano)
        ]
        waves = [np.stack([audio.samples for audio in sounds]) for sounds in found]
        size = np.linalg.norm(waves[0])
        return {
            f"relative L2, {name}": float(np.linalg.norm(wave - waves[0]) / size)
            for name, wave in zip(("float32", format_name(nano.dtype)), waves[1:], strict=True)
        }

    report.measure("nano", "from the CPU's sounds, same seeds", differ)


if __name__ == "__main__":
    main()
