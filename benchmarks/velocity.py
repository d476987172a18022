"""How long does one guided velocity evaluation of the full-size network take on this CPU?

    python benchmarks/velocity.py [--threads 2] [--repeats 5] [--frames 431] [--eager]
        [--formats float32 bfloat16]

Random weights; a 10 s clip is 431 latent frames. The yardstick is the straightforward form: two
separate unguided float32 evaluations, prompt and empty, one row each. Beside it, in the same run
and with the same threads, taken in turn so that a busy moment hits all of them: both branches as
one batch of two rows, and the fast form in float32 and bfloat16. Times are the best of the repeats,
and the yardstick stays float32 throughout. Errors are relative L2 against it. Processor time over
all threads is printed beside the time on the clock: it says what the machine would do if it had
nothing else to do.

Under the table: the floating-point work that each form does, and the time that it would take at
the rate of large matrix products measured in this run. That floor says what the machine allows;
where its bfloat16 products are not at least twice as fast as its float32 ones, bfloat16 cannot
pay.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from resonate_audio.model.blocks import END_KERNEL, gated_mlp_width
from resonate_audio.model.fast_flow import FastFlowTransformer, can_compile
from resonate_audio.model.flow_transformer import (
    Conditions,
    FlowEnds,
    FlowTransformer,
    FlowTransformerConfig,
)
from resonate_audio.model.presets import RESONATE
from resonate_audio.model.winograd import NUM_POINTS, TILE_FRAMES

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TARGETS = {"fast, float32": 0.70, "fast, bfloat16": 0.12}
COLUMNS = (
    *("form", "clock s", "ratio", "processor s", "ratio", "target"),
    *("error", "GFLOP", "floor s", "first call s"),
)
GEMM_SIZE = 1024
DIRECT_TAPS = 3.0
WINOGRAD_TAPS = NUM_POINTS / TILE_FRAMES
"""Products per output frame in place of the 3 of a 3-tap filter."""


@dataclass(frozen=True)
class Form:
    """One way to evaluate, with what it costs."""

    name: str
    run: Callable[[], Tensor]
    gflop: float
    dtype: torch.dtype


def count_gflop(config: FlowTransformerConfig, num_frames: int, taps: float) -> float:
    """Multiplications and additions of one row, counting ``taps`` per 3-tap convolution."""
    hidden, tokens = config.hidden, config.num_text_tokens
    width = gated_mlp_width(hidden, config.mlp_ratio)
    mlp, square = 3 * hidden * width, hidden * hidden
    latents = num_frames * (3 * square + taps * (square + mlp))
    text = tokens * (3 * square + square + mlp)
    joint = 2 * (num_frames + tokens) ** 2 * hidden
    single = 2 * num_frames**2 * hidden
    ends = num_frames * END_KERNEL * (2 * config.latent_channels * hidden + mlp)
    products = (
        config.num_joint_blocks * (latents + text + joint)
        + config.num_single_blocks * (latents + single)
        + ends
    )
    return 2 * products / 1e9


def gemm_rate(dtype: torch.dtype, repeats: int = 5) -> float:
    """Best rate of a large matrix product, GFLOP per second of processor time."""
    left, right = (torch.randn(GEMM_SIZE, GEMM_SIZE).to(dtype) for _ in range(2))
    best = min(stopwatch(lambda: left @ right).processor for _ in range(repeats))
    return 2 * GEMM_SIZE**3 / best / 1e9


@dataclass(frozen=True)
class Cost:
    """Seconds of one call."""

    clock: float = float("inf")
    processor: float = float("inf")
    """Over all threads."""

    def best(self, other: Cost) -> Cost:
        """The smaller of each."""
        return Cost(min(self.clock, other.clock), min(self.processor, other.processor))


def stopwatch(function: Callable[[], object]) -> Cost:
    """Time one call."""
    clock, processor = time.perf_counter(), time.process_time()
    function()
    return Cost(time.perf_counter() - clock, time.process_time() - processor)


def random_model(config: FlowTransformerConfig) -> FlowTransformer:
    """Build a model in which nothing is zero; a fresh one would give zero velocity."""
    torch.manual_seed(0)
    model = FlowTransformer(config).requires_grad_(False).eval()
    for parameter in model.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def random_conditions(config: FlowTransformerConfig, dtype: torch.dtype) -> Conditions:
    """Draw two rows, as if projected: prompt and empty."""
    generator = torch.Generator().manual_seed(1)
    return Conditions(
        torch.randn(2, config.num_text_tokens, config.hidden, generator=generator).to(dtype),
        torch.randn(2, config.hidden, generator=generator).to(dtype),
    )


def make_forms(
    model: FlowTransformer, num_frames: int, compile: bool, formats: Iterable[str]
) -> list[Form]:
    """The yardstick first."""
    config = model.config
    z = torch.randn(1, num_frames, config.latent_channels).expand(2, -1, -1).contiguous()
    t = torch.full((2,), 0.5)

    def together(network: FlowEnds) -> Callable[[], Tensor]:
        conditions = random_conditions(config, network.dtype)
        return lambda: network(z, t, conditions)

    both = random_conditions(config, torch.float32)
    rows = [Conditions(both.tokens[i : i + 1], both.pooled[i : i + 1]) for i in range(2)]

    def apart() -> Tensor:
        return torch.cat([model(z[:1], t[:1], row) for row in rows])

    direct = 2 * count_gflop(config, num_frames, DIRECT_TAPS)
    winograd = 2 * count_gflop(config, num_frames, WINOGRAD_TAPS)
    forms = [
        Form("plain, float32, two separate", apart, direct, torch.float32),
        Form("plain, float32, both at once", together(model), direct, torch.float32),
    ]
    for name in formats:
        dtype = DTYPES[name]
        fast = FastFlowTransformer.from_model(model, dtype, compile=compile)
        gflop = winograd if fast.entry is None else direct
        forms.append(Form(f"fast, {name}", together(fast), gflop, dtype))
    return forms


def measure(forms: Iterable[Form], repeats: int) -> dict[str, Cost]:
    """Best time of each form, taken in turn."""
    best: dict[str, Cost] = {}
    for _ in range(repeats):
        for form in forms:
            best[form.name] = best.get(form.name, Cost()).best(stopwatch(form.run))
    return best


def cpu_name() -> str:
    """Name the processor, as far as the system tells."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    except OSError:
        names = []
    return f"{names[0]}, {len(names)} cores" if names else platform.processor()


def print_table(forms: list[Form], repeats: int, threads: int) -> None:
    """Measure and print."""
    expected = forms[0].run()
    errors, first_calls = {}, {}
    for form in forms:
        start = time.perf_counter()
        difference = (form.run() - expected).norm() / expected.norm()
        errors[form.name], first_calls[form.name] = difference.item(), time.perf_counter() - start
    costs = measure(forms, repeats)
    rates = {dtype: gemm_rate(dtype) for dtype in {form.dtype for form in forms}}
    yardstick = costs[forms[0].name]
    print("| " + " | ".join(COLUMNS) + " |")
    print("|---" + "|---:" * (len(COLUMNS) - 1) + "|")
    for form in forms:
        cost = costs[form.name]
        target = f"{TARGETS[form.name]:.2f}" if form.name in TARGETS else ""
        floor = form.gflop / rates[form.dtype] / threads
        print(
            f"| {form.name} | {cost.clock:.2f} | {cost.clock / yardstick.clock:.2f} "
            f"| {cost.processor:.2f} | {cost.processor / yardstick.processor:.2f} | {target} "
            f"| {errors[form.name]:.1e} | {form.gflop:.0f} | {floor:.2f} "
            f"| {first_calls[form.name]:.1f} |"
        )
    for dtype, rate in rates.items():
        name = str(dtype).removeprefix("torch.")
        print(f"Matrix products in {name}: {rate:.0f} GFLOP/s on one core.")


def main() -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--frames", type=int, default=431)
    parser.add_argument("--eager", action="store_true", help="do not compile the fast form")
    parser.add_argument("--formats", nargs="+", choices=DTYPES, default=list(DTYPES))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    compile = not options.eager and can_compile()
    print(f"{cpu_name()}; {options.threads} threads; torch {torch.__version__}", end="")
    print(f"; {options.frames} latent frames; fast form {'compiled' if compile else 'eager'}")
    with torch.inference_mode():
        forms = make_forms(
            random_model(RESONATE.transformer), options.frames, compile, options.formats
        )
        print_table(forms, options.repeats, options.threads)


if __name__ == "__main__":
    main()
