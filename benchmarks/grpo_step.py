"""One reinforcement step, the paper's way and the fast way, at equal group size.

    python benchmarks/grpo_step.py [--model nano] [--judge nano-clap] [--prompts 2] [--takes 24]

Both forms run in turn in one process, after a step of each that is not counted:

* **paper**: Flow-SDE on all of 10 steps, 9 trained, guidance 4.5 in rollout and training, full
  fine-tuning, exact KL to a frozen copy;
* **fast**: exact OU noise on 2 of 10 steps, no guidance, adapters (``--full``: all weights),
  velocity KL.

The table gives seconds per phase (median over ``--repeats`` steps), the ratio of the totals, and
with ``--serial`` the judge asked for one clip at a time, as the official reward is.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from resonate_audio.core.types import Prompts, Waveform
from resonate_audio.model.folder import Networks
from resonate_audio.model.hub import find_model
from resonate_audio.model.text_encoder import TextEncoder
from resonate_audio.pipeline.device import choose_device
from resonate_audio.pipeline.path import Resonate
from resonate_audio.rewards.base import Reward
from resonate_audio.rewards.catalogue import open_reward
from resonate_audio.rewards.desk import JudgeDesk, score_now
from resonate_audio.training.algorithms.grpo import GRPOConfig, grpo_step
from resonate_audio.training.recipes.reinforce import load_model
from resonate_audio.training.reinforce.advantage import AdvantageConfig
from resonate_audio.training.reinforce.experience import Experience, TakeMaker
from resonate_audio.training.reinforce.lora import LoraSettings
from resonate_audio.training.reinforce.policy import Policy
from resonate_audio.training.reinforce.rollout import SamplerConfig
from resonate_audio.training.reinforce.trainer import Update

TEXTS = (
    "a dog barks", "rain falling", "a church bell rings", "a rooster crows",
    "a door slams", "a piano plays a short melody", "a car horn honks", "wind howling",
)  # fmt: skip
SAMPLERS = {
    "paper": SamplerConfig(kind="flow_sde", eta=0.7, num_steps=10, window=None, guidance_scale=4.5),
    "fast": SamplerConfig(kind="ou", eta=1.0, num_steps=10, window=2, guidance_scale=1.0),
}
ALGORITHMS = {
    "paper": GRPOConfig(kl=0.004),
    "fast": GRPOConfig(kl=0.0, velocity_kl=0.01),
}
PHASES = ("rollout", "decode", "reward", "update")


@dataclass(frozen=True)
class Form:
    """One way to make a step."""

    name: str
    maker: TakeMaker
    optimizer: torch.optim.Optimizer
    config: GRPOConfig


def main() -> None:
    """Measure and print."""
    options = read_options()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    judge = open_reward(options.judge, device=device)
    adapters = None if options.full else LoraSettings(rank=16)
    with JudgeDesk(compute_beside=device.type != "cpu") as desk:
        forms = [
            make_form(name, load_model(find_model(options.model, None, False)), options,
                      SAMPLERS[name], lora, ALGORITHMS[name], desk, device)
            for name, lora in (("paper", None), ("fast", adapters))
        ]  # fmt: skip
        times: dict[str, list[dict[str, float]]] = {form.name: [] for form in forms}
        for repeat in range(options.repeats + 1):
            for form in forms:
                seconds, experience = run_step(form, options, judge, repeat)
                if repeat:
                    times[form.name].append(seconds)
    print_table(times, options, device)
    if options.serial:
        print_serial(judge, experience)


def make_form(
    name: str,
    loaded: tuple[Networks, TextEncoder],
    options: argparse.Namespace,
    sampler: SamplerConfig,
    lora: LoraSettings | None,
    config: GRPOConfig,
    desk: JudgeDesk,
    device: torch.device,
) -> Form:
    """Set a model up, which nothing else uses."""
    networks, encoder = loaded
    precision = torch.bfloat16 if options.precision == "bf16" else None
    model = networks.transformer.to(device)
    policy = Policy(model, sampler.guidance_scale, lora, precision)
    resonate = Resonate(networks, encoder, device=device, transformer=model)
    num_frames = networks.config.num_frames(networks.config.default_duration_s)
    sampler = sampler.model_copy(update={"rows_per_batch": options.rows})
    maker = TakeMaker(policy, resonate, sampler, num_frames, 0, desk)
    trained = [p for p in model.parameters() if p.requires_grad]
    return Form(name, maker, torch.optim.AdamW(trained, lr=1e-6, fused=True), config)


def run_step(
    form: Form, options: argparse.Namespace, judge: Reward, step: int
) -> tuple[dict[str, float], Experience]:
    """One whole step; seconds of each phase."""
    prompts = Prompts(TEXTS[: options.prompts], options.takes)
    bind = form.maker.policy.bind
    experience = form.maker.collect(prompts, judge, AdvantageConfig(), step, bind)
    synchronise()
    began = time.perf_counter()
    form.optimizer.zero_grad(set_to_none=True)
    generator = torch.Generator(form.maker.policy.device).manual_seed(0)
    update = Update(torch.arange(prompts.num_rows), True, generator)
    grpo_step(form.maker.policy, experience, update, form.config, options.rows)
    form.optimizer.step()
    synchronise()
    return experience.seconds | {"update": time.perf_counter() - began}, experience


def synchronise() -> None:
    """Wait for a GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def print_table(
    times: dict[str, list[dict[str, float]]],
    options: argparse.Namespace,
    device: torch.device,
) -> None:
    """Median seconds by phase, and the ratio of the totals."""
    takes = options.prompts * options.takes
    print(f"{options.model}, {takes} takes, {device}, {torch.get_num_threads()} threads, "
          f"torch {torch.__version__}, {options.precision}, judge {options.judge}\n")  # fmt: skip
    print("| form | " + " | ".join(PHASES) + " | whole step, s | takes/s |")
    print("| --- |" + " ---: |" * (len(PHASES) + 2))
    totals = {}
    for name, steps in times.items():
        medians = {phase: statistics.median(step[phase] for step in steps) for phase in PHASES}
        totals[name] = statistics.median(sum(step.values()) for step in steps)
        cells = " | ".join(f"{medians[phase]:.2f}" for phase in PHASES)
        print(f"| {name} | {cells} | {totals[name]:.2f} | {takes / totals[name]:.2f} |")
    print(f"\nfast is {totals['paper'] / totals['fast']:.2f}x as fast as paper (target 2.5x)")
    if torch.cuda.is_available():
        print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB for both")


def print_serial(judge: Reward, experience: Experience) -> None:
    """The judge in one batch, and asked for one clip at a time."""
    texts = experience.rollout.prompts.row_texts()
    audio = experience.audio
    together = stopwatch(lambda: score_now(judge, audio, texts))
    one_by_one = stopwatch(lambda: [ask_one(judge, audio, texts, row) for row in range(len(texts))])
    print(f"judge: {together:.2f} s in one call, {one_by_one:.2f} s one by one "
          f"({one_by_one / together:.2f}x)")  # fmt: skip


def ask_one(judge: Reward, audio: Waveform, texts: Sequence[str], row: int) -> None:
    """Score a single row."""
    score_now(judge, Waveform(audio.samples[row : row + 1], audio.sample_rate_hz), [texts[row]])


def stopwatch(work: object) -> float:
    """Seconds of the second run of some work."""
    assert callable(work)
    work()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def read_options() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano", help="name, folder or hub id")
    parser.add_argument("--judge", default="nano-clap")
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--takes", type=int, default=24, help="group size")
    parser.add_argument("--rows", type=int, default=24, help="takes computed together")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default=None)
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--full", action="store_true", help="train all weights in the fast form")
    parser.add_argument("--serial", action="store_true", help="also ask the judge clip by clip")
    return parser.parse_args()


if __name__ == "__main__":
    main()
