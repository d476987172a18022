"""How much faster do several processes train than one, and does the calculator foresee it?

    python benchmarks/scaling.py [--processes 1 2 4] [--rows 8] [--frames 79] [--updates 8]

Every line is a real run under torchrun: pre-training of the nano transformer on random latents,
one thread a process, gradients summed by gloo. The batch is the same for all, so N processes
have 1/N of the rows each. Times are medians of the updates after the first two. The foreseen time
is the work by `training.plan.train_flops` at the rate of one process, on as many cores as there
are, plus what the sum of the gradients adds at the rate measured beside it. With more processes
than cores nothing more can be gained: their efficiency is at most cores over processes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from resonate_audio.core.types import TextFeatures
from resonate_audio.data.latents import LatentBucket, LatentSet, pack_captions
from resonate_audio.model.presets import NANO
from resonate_audio.training.distributed import Ranks, current_ranks, joined_ranks
from resonate_audio.training.plan import count_parameters, train_flops
from resonate_audio.training.pretrain import FlowConfig, PretrainTask, build_transformer
from resonate_audio.training.run import RunConfig, Trainer, TrainerConfig

WARM_UP = 2


def random_latents(rows: int, frames: int) -> LatentSet:
    """Latents and captions of noise."""
    generator = torch.Generator().manual_seed(0)
    config = NANO.transformer
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
    with joined_ranks("cpu"):
        ranks = current_ranks()
        torch.manual_seed(0)
        data = random_latents(rows, frames)
        flow = FlowConfig(frames_per_batch=rows * frames)
        task = PretrainTask(build_transformer(NANO.transformer, data), data, flow, seed=0)
        trainer = Trainer(task, TrainerConfig(run=RunConfig(output=output)), torch.device("cpu"))
        times = [timed(trainer.update) for _ in range(WARM_UP + updates)][WARM_UP:]
        sums = [sum_seconds(ranks) for _ in range(4)][1:]
        if ranks.first:
            found = {"update_s": statistics.median(times), "sum_s": statistics.median(sums)}
            output.write_text(json.dumps(found), encoding="utf-8")


def timed(work: object) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    assert callable(work)
    work()
    return time.perf_counter() - began


def sum_seconds(ranks: Ranks) -> float:
    """Seconds to sum as many numbers as there are gradients."""
    numbers = torch.ones(count_parameters(NANO.transformer))
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
    cores, gflop = os.cpu_count() or 1, train_flops(NANO.transformer, arguments.frames) / 1e9
    print(f"{cores} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")
    print(f"batch of {arguments.rows} rows, {gflop * arguments.rows:.1f} GFLOP an update\n")
    print("processes  update s  GFLOP/s  sum s  foreseen s  speed-up  efficiency  at most")
    one = 0.0
    for world in arguments.processes:
        found = run(world, arguments)
        one = one or found["update_s"]
        update_s, speed_up = found["update_s"], one / found["update_s"]
        foreseen = foresee(one, found["sum_s"], world, cores)
        print(
            f"{world:9d}  {update_s:8.3f}  {gflop * arguments.rows / update_s:7.1f}  "
            f"{found['sum_s']:5.3f}  {foreseen:10.3f}  {speed_up:8.2f}  "
            f"{speed_up / world:10.0%}  {min(1.0, cores / world):7.0%}"
        )


if __name__ == "__main__":
    main()
