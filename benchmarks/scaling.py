"""How much faster do several processes train than one, and does the calculator foresee it?

    python benchmarks/scaling.py [--processes 1 2 4] [--rows 8] [--frames 79] [--updates 8]

Every line is a real run under torchrun: pre-training of the nano transformer on random latents,
one thread a process, gradients summed by gloo. The batch is the same for all, so N processes
have 1/N of the rows each. Clock times are the best of the updates after the first two, since others
may be using the machine; processor seconds are means, of all processes together, and say what more
processes cost whatever else runs: shared work is the processor time of one over that of all. The
foreseen time is the work at the rate of one process, on as many cores as there are, plus what the
sum of the gradients adds at the rate measured beside it. With more processes than cores nothing
more can be gained: their efficiency is at most cores over processes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from resonate_audio.core.types import TextFeatures
from resonate_audio.data.latents import LatentBucket, LatentSet, pack_captions
from resonate_audio.model.presets import NANO_FLOW
from resonate_audio.training.loop.distributed import Ranks, joined_ranks
from resonate_audio.training.loop.run_config import RunConfig, TrainerConfig
from resonate_audio.training.loop.trainer import Trainer
from resonate_audio.training.plan import count_parameters, train_flops
from resonate_audio.training.pretrain.task import FlowConfig, PretrainTask, build_transformer

WARM_UP = 2


def random_latents(rows: int, frames: int) -> LatentSet:
    """Latents and captions of noise."""
    generator = torch.Generator().manual_seed(0)
    config = NANO_FLOW.transformer
    mean = torch.randn(rows, frames, config.latent_channels, generator=generator).half()
    tokens = torch.randn(2, config.num_text_tokens, config.text_dim, generator=generator)
    bucket = LatentBucket(
        mean,
        torch.ones_like(mean),
        torch.full((rows,), frames),
        torch.ones(rows, 1, dtype=torch.long),
        torch.ones(rows, dtype=torch.long),
    )
    return LatentSet((bucket,), pack_captions(TextFeatures(tokens, tokens[:, 0].contiguous())))


def measure(rows: int, frames: int, updates: int, output: Path) -> None:
    """Train for some updates in this process and its neighbours; the first writes the times."""
    torch.set_num_threads(1)
    with joined_ranks("cpu") as ranks:
        found = time_updates(ranks, rows, frames, updates, output)
        if ranks.first:
            output.write_text(json.dumps(found), encoding="utf-8")


def time_updates(
    ranks: Ranks, rows: int, frames: int, updates: int, output: Path
) -> dict[str, float]:
    """Seconds of an update, of its sum of gradients, and of the processors of all."""
    torch.manual_seed(0)
    data = random_latents(rows, frames)
    flow = FlowConfig(frames_per_batch=rows * frames)
    task = PretrainTask(build_transformer(NANO_FLOW.transformer, data), data, flow, seed=0)
    trainer = Trainer(task, TrainerConfig(run=RunConfig(output=output)), torch.device("cpu"))
    for _ in range(WARM_UP):
        trainer.update()
    began = time.process_time()
    times = [timed(trainer.update) for _ in range(updates)]
    busy = ranks.sum(torch.tensor([(time.process_time() - began) / updates]))
    sums = [sum_seconds(ranks) for _ in range(4)][1:]
    return {"update_s": min(times), "sum_s": min(sums), "busy_s": busy.item()}


def timed(work: object) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    assert callable(work)
    work()
    return time.perf_counter() - began


def sum_seconds(ranks: Ranks) -> float:
    """Seconds to sum as many numbers as there are gradients."""
    numbers = torch.ones(count_parameters(NANO_FLOW.transformer))
    ranks.wait()
    return timed(lambda: ranks.sum(numbers))


def run(world: int, arguments: argparse.Namespace) -> dict[str, float]:
    """One line of the table, measured in processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "times.json"
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
        command = [sys.executable, *(launcher if world > 1 else []), __file__]
        for name in ("rows", "frames", "updates"):
            command += [f"--{name}", str(getattr(arguments, name))]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "JAXTYPING_DISABLE": "1"}
        subprocess.run([*command, "--measure", str(output)], check=True, env=environment)
        found: dict[str, float] = json.loads(output.read_text(encoding="utf-8"))
    return found


def foresee(work_s: float, sum_s: float, world: int, cores: int) -> float:
    """Time of an update: the work on the cores there are, and what of the sum is not hidden.

    Gradients are summed during the backward pass, two thirds of the work, where a core is idle;
    where none is, the sum is work too.
    """
    busy_s = work_s / min(world, cores)
    hidden_s = busy_s * 2 / 3 if world < cores else 0.0
    return busy_s + max(0.0, sum_s - hidden_s)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--frames", type=int, default=79)
    parser.add_argument("--updates", type=int, default=8)
    parser.add_argument("--measure", type=Path)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.rows, arguments.frames, arguments.updates, arguments.measure)
        return
    cores, gflop = os.cpu_count() or 1, train_flops(NANO_FLOW.transformer, arguments.frames) / 1e9
    print(f"{cores} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    print(f"batch of {arguments.rows} rows, {gflop * arguments.rows:.1f} GFLOP an update\n")
    print(
        "| processes | update s | foreseen s | sum s | efficiency | at most "
        "| processor s | shared |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    first: dict[str, float] = {}
    for world in arguments.processes:
        found = run(world, arguments)
        first = first or found
        update_s, speed_up = found["update_s"], first["update_s"] / found["update_s"]
        foreseen = foresee(first["update_s"], found["sum_s"], world, cores)
        print(
            f"| {world} | {update_s:.3f} | {foreseen:.3f} | {found['sum_s']:.3f} "
            f"| {speed_up / world:.0%} | {min(1.0, cores / world):.0%} "
            f"| {found['busy_s']:.3f} | {first['busy_s'] / found['busy_s']:.0%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
