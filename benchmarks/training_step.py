"""How long does one training step of the flow transformer take on this CPU, and on what?

    python benchmarks/training_step.py [--threads 2] [--repeats 5] [--models nano candidate]
        [--resonate-rows 8] [--profile] [--picture docs/images/training-step.png]

Random weights and data in the shapes of the recipes. float32 as the trainer always computed it
is 1; beside it, in turn in the same process so that a busy moment hits both, bf16 as
`run.precision: bf16` computes it. A step is the loss, its backward pass, clipping, the optimiser
and the average. Processor time over all threads stands beside the clock: on a machine that is
shared it says more. The rate of large products is measured between the steps in the same way, and
the share of it that a step reaches follows from the multiplications that it needs.

The profile takes each operator's best of some steps and scales a step's sum to its measured
processor time: shares, not times. On a busy machine long operators meet no quiet moment while
short ones do, so the shares of long ones (float32 convolutions) come out too large.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from resonate_audio.core.processor import find_processor
from resonate_audio.core.types import TextFeatures
from resonate_audio.flow.objective import cfm_loss
from resonate_audio.model.flow_transformer import FlowTransformer, FlowTransformerConfig
from resonate_audio.model.presets import NANO_FLOW, RESONATE
from resonate_audio.training.loop.ema import start_average, update_average
from resonate_audio.training.loop.optim import OptimConfig, make_optimizer
from resonate_audio.training.plan import train_flops

FORMATS = {"float32": torch.float32, "bf16": torch.bfloat16}
CANDIDATE = NANO_FLOW.transformer.model_copy(
    update={"hidden": 384, "num_heads": 6, "num_joint_blocks": 3, "num_single_blocks": 8}
)
GEMM_SIZE = 1024
KINDS = {
    "matrix products": ("mm", "addmm", "addmm_", "bmm", "baddbmm"),
    "convolutions": ("mkldnn_convolution", "convolution_backward", "convolution"),
    "attention": ("_scaled_dot", "_softmax"),
    "norms": ("native_layer_norm", "linalg_vector_norm", "rsqrt", "native_batch_norm"),
    "copies, layouts": ("copy_", "cat", "clone", "contiguous", "fill_", "constant_pad"),
    "optimiser, average": ("_fused_adamw_", "_foreach_"),
    "element by element": ("mul", "add", "silu", "div", "pow", "sub", "neg", "elu", "sum", "exp"),
}
"""What an operator counts as: the first kind with a name that it starts with."""


@dataclass
class Case:
    """One model with its batch."""

    name: str
    config: FlowTransformerConfig
    rows: int
    frames: int
    seconds: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """On the clock and on the processor, by number format."""

    @property
    def gflop(self) -> float:
        """Of a step's products."""
        return self.rows * train_flops(self.config, self.frames) / 1e9


def make_step(
    case: Case, device: torch.device | None = None, compiled: bool = False
) -> Callable[[str], float]:
    """A training step in a number format; gives the loss.

    ``compiled``: the blocks are, each kind of them once for all.
    """
    torch.manual_seed(0)
    device = device or torch.device("cpu")
    config, shape = case.config, (case.rows, case.frames, case.config.latent_channels)
    model = FlowTransformer(config).to(device)
    leave_nothing_zero(model)
    if compiled:
        compile_blocks(model)
    optimizer = make_optimizer(model.parameters(), OptimConfig(learning_rate=1e-6))
    average = start_average(model)
    tokens = torch.randn(case.rows, config.num_text_tokens, config.text_dim, device=device)
    features = TextFeatures(tokens, torch.randn(case.rows, config.pooled_dim, device=device))
    data, noise = torch.randn(shape, device=device), torch.randn(shape, device=device)
    times = torch.rand(case.rows, device=device)

    def step(name: str) -> float:
        optimizer.zero_grad(set_to_none=True)
        half = torch.autocast(device.type, torch.bfloat16) if name == "bf16" else nullcontext()
        with half:
            conditions = model.condition(features)
            loss = cfm_loss(lambda z, t: model(z, t, conditions), data, noise, times).mean
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        update_average(average, model, 0.999)
        return float(loss.detach())

    return step


def leave_nothing_zero(model: FlowTransformer) -> None:
    """Draw the weights that begin at zero: such a gate would leave half of the gradients zero."""
    for value in model.parameters():
        if not value.any():
            torch.nn.init.normal_(value, std=0.02)


def compile_blocks(model: FlowTransformer) -> None:
    """Compile the blocks in place: blocks of one kind share the code that is made for the first."""
    for block in (*model.joint_blocks, *model.single_blocks):
        block.compile()


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock and on the processor."""
    clock, busy = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - clock, time.process_time() - busy


class ProductRate:
    """The best rate of large products seen so far, GFLOP a second of processor time."""

    def __init__(self) -> None:
        self.best = dict.fromkeys(FORMATS, 0.0)
        self.factors = {
            name: torch.randn(2, GEMM_SIZE, GEMM_SIZE).to(dtype) for name, dtype in FORMATS.items()
        }

    def look(self, num_products: int = 10) -> None:
        """Time some products."""
        threads = torch.get_num_threads()
        for name, (left, right) in self.factors.items():
            for _ in range(num_products):
                _, busy = timed(lambda left=left, right=right: left @ right)
                rate = 2e-9 * GEMM_SIZE**3 * threads / max(busy, 1e-9)
                self.best[name] = max(self.best[name], rate)


def measure(case: Case, step: Callable[[str], float], repeats: int, rate: ProductRate) -> None:
    """Take the formats in turn, products between them."""
    case.seconds = {name: [] for name in FORMATS}
    for name in FORMATS:
        step(name)
    for _ in range(repeats):
        for name in FORMATS:
            case.seconds[name].append(timed(lambda name=name: step(name)))
            rate.look()


def kind_of(name: str) -> str | None:
    """What a profiled operator counts as; None for what only calls others."""
    plain = name.removeprefix("aten::")
    if plain == name:
        return None
    starts = ((kind, start) for kind, names in KINDS.items() for start in names)
    return next((kind for kind, start in starts if plain.startswith(start)), "the rest")


def profiled(
    step: Callable[[str], float], name: str, repeats: int, total_s: float
) -> dict[str, float]:
    """Seconds of a step by kind, scaled so that they add up to ``total_s``."""
    best: list[float] = []
    names: list[str] = []
    for _ in range(repeats):
        with profile(activities=[ProfilerActivity.CPU]) as found:
            step(name)
        events = sorted(found.events(), key=lambda e: (e.thread, e.time_range.start))
        taken = [event.self_cpu_time_total / 1e6 for event in events]
        if names == [event.name for event in events]:
            best = [min(pair) for pair in zip(best, taken, strict=True)]
        elif not names:
            names, best = [event.name for event in events], taken
    kinds: dict[str, float] = defaultdict(float)
    for event_name, seconds in zip(names, best, strict=True):
        kinds[kind_of(event_name) or "Python and autograd"] += seconds
    scale = total_s / sum(kinds.values())
    return {kind: scale * s for kind, s in sorted(kinds.items(), key=lambda item: -item[1])}


def print_times(cases: list[Case], rate: ProductRate) -> None:
    """One line per model and format."""
    print("\n| model | batch | format | clock s | ratio | processor s | ratio | GFLOP | share |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for case in cases:
        best = {n: [min(s) for s in zip(*times, strict=True)] for n, times in case.seconds.items()}
        for name, (clock, busy) in best.items():
            base = best["float32"]
            share = case.gflop * torch.get_num_threads() / busy / rate.best[name]
            print(
                f"| {case.name} | {case.rows} of {case.frames} | {name} | {clock:.2f} "
                f"| {clock / base[0]:.2f} | {busy:.2f} | {busy / base[1]:.2f} "
                f"| {case.gflop:.0f} | {share:.0%} |"
            )
    text = ", ".join(f"{name} {value:.0f}" for name, value in rate.best.items())
    print(f"\nlarge products, GFLOP/s with {torch.get_num_threads()} threads: {text}")


def print_profile(found: dict[str, dict[str, dict[str, float]]]) -> None:
    """Processor milliseconds by kind, formats side by side."""
    for model, formats in found.items():
        print(f"\n| {model}, ms | {' | '.join(formats)} |\n| --- |{' ---: |' * len(formats)}")
        for kind in dict.fromkeys(kind for kinds in formats.values() for kind in kinds):
            values = " | ".join(f"{1e3 * kinds.get(kind, 0):.0f}" for kinds in formats.values())
            print(f"| {kind} | {values} |")


def draw(found: dict[str, dict[str, dict[str, float]]], path: Path) -> None:
    """Stacked bars: where the time of a step goes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.2 + 0.9 * len(found)), layout="constrained")
    for axes, (model, formats) in zip(
        figure.subplots(len(found), squeeze=False)[:, 0], found.items(), strict=True
    ):
        kinds = dict.fromkeys(kind for parts in formats.values() for kind in parts)
        left = dict.fromkeys(formats, 0.0)
        for number, kind in enumerate(kinds):
            widths = [parts.get(kind, 0.0) for parts in formats.values()]
            axes.barh(
                list(formats), widths, left=list(left.values()), label=kind, color=f"C{number}"
            )
            left = {name: left[name] + w for name, w in zip(formats, widths, strict=True)}
        axes.set_title(f"{model}: processor seconds of a step", fontsize=9, loc="left")
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=7, ncols=2, frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=["nano", "candidate", "resonate"])
    parser.add_argument("--resonate-rows", type=int, default=8, help="10 s clips in a batch")
    parser.add_argument("--profile", action="store_true", help="also say what the time goes to")
    parser.add_argument("--picture", type=Path, help="draw the profile into this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cases = {
        "nano": Case("nano", NANO_FLOW.transformer, 16, 216),
        "candidate": Case("candidate", CANDIDATE, 16, 158),
        "resonate": Case("resonate", RESONATE.transformer, options.resonate_rows, 431),
    }
    chosen = [cases[name] for name in options.models]
    found = find_processor()
    print(
        f"{found.name} ({' '.join(found.units)}), {platform.machine()}, torch {torch.__version__}"
    )
    rate, profiles = ProductRate(), {}
    for case in chosen:
        step = make_step(case)
        measure(case, step, options.repeats, rate)
        if options.profile or options.picture:
            busy = {name: min(pair[1] for pair in case.seconds[name]) for name in FORMATS}
            profiles[case.name] = {
                name: profiled(step, name, options.repeats, busy[name]) for name in FORMATS
            }
    print_times(chosen, rate)
    print_profile(profiles)
    if options.picture:
        draw(profiles, options.picture)


if __name__ == "__main__":
    main()
