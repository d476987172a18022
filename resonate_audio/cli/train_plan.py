"""``resonate train plan``: what a training costs on machines that are not here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from resonate_audio.cli.console import print_table, print_text

if TYPE_CHECKING:
    from resonate_audio.model.presets import ModelConfig
    from resonate_audio.training.plan import Cost, Machine, PretrainJob, ReinforceJob, Stage

COST_COLUMNS = (
    *("GPUs", "TFLOP a step", "GB a GPU", "sent GB", "work s", "network s", "waiting s"),
    *("h", "efficiency"),
    "time goes to",
)


MOST_GPUS = 1_000_000


@dataclass(frozen=True)
class Table:
    """Rows to print under a title."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def plan(
    gpus: Annotated[str, typer.Option(help="Numbers of GPUs to compare.")] = "1,8,64,1024",
    hours: Annotated[
        float | None, typer.Option(min=0.01, max=1e9, help="Say how many steps fit into this time.")
    ] = None,
    preset: Annotated[str, typer.Option(help="Model family.")] = "resonate",
    batch: Annotated[
        int, typer.Option(min=1, max=1_000_000_000, help="Pre-training clips an update.")
    ] = 256,
    steps: Annotated[
        int, typer.Option(min=1, max=1_000_000_000, help="Pre-training updates.")
    ] = 500_000,
    prompts: Annotated[
        int, typer.Option(min=1, max=1_000_000_000, help="GRPO prompts a step.")
    ] = 64,
    takes: Annotated[int, typer.Option(min=2, max=10_000, help="GRPO takes of each prompt.")] = 24,
    grpo_steps: Annotated[int, typer.Option(min=1, max=1_000_000_000, help="GRPO steps.")] = 1000,
    peak_tflops: Annotated[
        float, typer.Option(min=0.001, max=1e9, help="Of one GPU, bfloat16.")
    ] = 989.0,
    utilisation: Annotated[
        float, typer.Option(min=0.001, max=1, help="Part of the peak that is reached.")
    ] = 0.35,
    memory_gb: Annotated[float, typer.Option(min=0.001, max=1e9, help="Of one GPU.")] = 80.0,
    network_gb_s: Annotated[
        float, typer.Option(min=0.001, max=1e9, help="Between nodes, for one GPU.")
    ] = 40.0,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown tables.")] = False,
) -> None:
    """Hours, memory and bytes of pre-training and GRPO on any number of GPUs.

    [bold]Example[/bold]

      resonate train plan --gpus 8,64 --hours 24 --peak-tflops 312 --memory-gb 40
    """
    from resonate_audio.training.plan import PretrainJob, ReinforceJob

    machine = _machine(peak_tflops, utilisation, memory_gb, network_gb_s)
    pretraining = PretrainJob(batch=batch, num_steps=steps)
    reinforcement = ReinforceJob(prompts_per_step=prompts, takes=takes, num_steps=grpo_steps)
    model, counts = _model(preset), _counts(gpus)
    for table in make_tables(model, pretraining, reinforcement, machine, counts, hours):
        _print(table, markdown)


def make_tables(
    model: ModelConfig,
    pretraining: PretrainJob,
    reinforcement: ReinforceJob,
    machine: Machine,
    gpus: Sequence[int],
    hours: float | None = None,
) -> Iterator[Table]:
    """Pre-training, GRPO, its stages, the disk, and the whole way."""
    from resonate_audio.training import plan as calculator

    costs = [calculator.plan_pretraining(model, pretraining, machine, n) for n in gpus]
    length = f"{pretraining.num_steps:,} updates of {pretraining.batch:,} clips"
    yield cost_table(
        f"Pre-training {model.name}: {length}",
        costs,
        calculator.plan_pretraining(model, pretraining, machine, 1),
        hours,
    )
    learnt = [calculator.plan_reinforcement(model, reinforcement, machine, n) for n in gpus]
    yield cost_table(
        f"GRPO: {reinforcement.num_steps:,} steps of {reinforcement.prompts_per_step} prompts, "
        f"{reinforcement.takes} takes each",
        learnt,
        calculator.plan_reinforcement(model, reinforcement, machine, 1),
        hours,
    )
    work = calculator.reinforcement_flops(model, reinforcement)
    shares = [
        (name, f"{value / 1e12:.2f}", f"{value / sum(work.values()):.0%}")
        for name, value in work.items()
    ]
    yield Table("Work for one take", ("stage", "TFLOP", "share"), shares)
    sizes = [(n, f"{v:,.0f}") for n, v in calculator.storage_gb(model, pretraining).items()]
    yield Table("On disk", ("what", "GB"), sizes)
    reads = [
        (f"{cost.gpus:,}", f"{calculator.reading_mb_s(model, pretraining, cost.step_s):,.0f}")
        for cost in costs
    ]
    yield Table("Read while pre-training from latents", ("GPUs", "MB/s, all together"), reads)
    yield stage_table(calculator.list_stages(model, pretraining, reinforcement), machine)


def stage_table(stages: Sequence[Stage], machine: Machine) -> Table:
    """Bytes and work of the whole way, stage by stage."""
    rate = machine.peak_tflops * machine.utilisation
    rows = [
        (
            stage.name,
            f"{stage.reads_gb:,.0f}",
            f"{stage.writes_gb:,.0f}",
            f"{stage.pflop:,.0f}",
            f"{stage.pflop * 1e3 / rate / 3600:,.1f}",
        )
        for stage in stages
    ]
    columns = ("stage", "reads GB", "writes GB", "PFLOP", "h of one GPU")
    return Table("The whole way", columns, rows)


def cost_table(title: str, costs: Sequence[Cost], one: Cost, hours: float | None) -> Table:
    """One line for each number of GPUs; ``one`` is what efficiency is relative to."""
    from resonate_audio.training.plan import steps_within

    columns = list(COST_COLUMNS)
    rows = [_cost_row(cost, one) for cost in costs]
    if hours is not None:
        columns.append(f"steps in {hours:g} h")
        rows = [[*r, f"{steps_within(c, hours):,}"] for r, c in zip(rows, costs, strict=True)]
    return Table(title, columns, rows)


def _cost_row(cost: Cost, one: Cost) -> list[str]:
    return [
        f"{cost.gpus:,}",
        f"{cost.tflop:,.0f}",
        f"{cost.memory_gb:.1f}",
        f"{cost.sent_gb:.2f}",
        f"{cost.compute_s:.3f}",
        f"{cost.network_s:.3f}",
        f"{cost.waiting_s:.3f}",
        f"{cost.hours:,.1f}",
        f"{cost.speed_up(one) / cost.gpus:.0%}",
        cost.limit,
    ]


def _print(table: Table, markdown: bool) -> None:
    if not markdown:
        print_table(table.columns, table.rows, table.title)
        print_text()
        return
    print_text(f"**{table.title}**\n")
    for line in markdown_lines(table):
        print_text(line)
    print_text()


def markdown_lines(table: Table) -> list[str]:
    """A table as Markdown."""
    rule = ["---"] * len(table.columns)
    return ["| " + " | ".join(cells) + " |" for cells in (table.columns, rule, *table.rows)]


def _counts(text: str) -> list[int]:
    from resonate_audio.core.errors import InputError

    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1 or max(counts) > MOST_GPUS:
        raise InputError(f"--gpus {text}: expected numbers of GPUs such as 1,8,64, to a million")
    return counts


def _model(preset: str) -> ModelConfig:
    from resonate_audio.core.errors import InputError
    from resonate_audio.model.presets import PRESETS

    if preset not in PRESETS:
        raise InputError(f"--preset {preset}: expected one of {', '.join(PRESETS)}")
    return PRESETS[preset]


def _machine(tflops: float, utilisation: float, memory_gb: float, network_gb_s: float) -> Machine:
    from pydantic import ValidationError

    from resonate_audio.core.errors import InputError
    from resonate_audio.training.plan import Machine

    try:
        return Machine(
            peak_tflops=tflops,
            utilisation=utilisation,
            memory_gb=memory_gb,
            network_gb_s=network_gb_s,
        )
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).replace("_", "-")
        raise InputError(f"--{name} {first['input']}: {first['msg']}") from error
