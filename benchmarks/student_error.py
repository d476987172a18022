"""How far is a student from the guided flow that it was distilled from?

    python benchmarks/student_error.py --teacher FLOW [--guidance 3] [--low 0.3] nano [STUDENT ...]

FLOW by `recipes/nano/finish --flow`. Both begin at the same noise, for prompts of ``fresh.jsonl``,
5 s. Errors are in units of the data's deviation; the guided way is solved in 16 steps of order 2:

* **a velocity**: at states of the guided way, the guided velocity, times a quarter, which is the
  length of one of four steps; beside it what the flow without guidance is off there;
* **a step**: where one of the student's four steps leads from a state of the guided way; beside it
  one Euler step of the guided flow, two evaluations;
* **the end**: of four steps from noise, and how large it is; 1 is as large as the flow's;
* **texture**: the deviation of differences between neighbouring frames, over the flow's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from resonate_audio import Resonate
from resonate_audio.core.documents.json_text import read_json_lines
from resonate_audio.flow.guidance import guided
from resonate_audio.flow.ode import make_step
from resonate_audio.flow.path import Velocity
from resonate_audio.flow.times import uniform_grid
from resonate_audio.nano.bundle import PROMPTS_FOLDER

NUM_STEPS, FINE = 4, 16
DURATION_S, SEED = 5.0, 5

Step = Callable[[Tensor, float, float], Tensor]
"""The mean velocity from one noise level to another."""


def size(values: Tensor) -> float:
    """Root of the mean square."""
    return float(values.double().square().mean().sqrt())


def guided_way(velocity: Velocity, noise: Tensor) -> list[Tensor]:
    """States at `FINE` + 1 levels from noise to data."""
    states, step = [noise], make_step("ab2")
    for t, t_next in pairwise(uniform_grid(FINE)):
        states.append(step(velocity, states[-1], t, t_next))
    return states


def levels(z: Tensor, t: float) -> Tensor:
    """One noise level for every row."""
    return torch.full((len(z),), t)


@torch.no_grad()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("students", nargs="+", help="names or folders of models")
    parser.add_argument("--teacher", required=True, help="folder of the flow")
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--low", type=float, default=0.3, help="noise level of the last guidance")
    parser.add_argument("--prompts", type=int, default=24)
    options = parser.parse_args()
    torch.set_num_threads(1)
    flow = Resonate.from_pretrained(options.teacher, device="cpu")
    lines = list(read_json_lines(PROMPTS_FOLDER / "fresh.jsonl"))[: options.prompts]
    features = flow.encode_text([fields["prompt"] for _, fields in lines])
    rows, network = len(lines), flow.transformer
    shape = (rows, flow.config.num_frames(DURATION_S), network.config.latent_channels)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(SEED))
    heard = network.condition(features)
    unheard = network.condition(network.empty_features(rows))
    follow = guided(network, heard, unheard, options.guidance, interval=(options.low, 1.0))
    way = guided_way(follow, noise)
    unit = size(way[-1])

    def told(name: str, at_a_point: Velocity, step: Step | None, ends: Sequence[str]) -> None:
        points = [
            size(at_a_point(z, t) - follow(z, t)) / (4 * unit)
            for z, t in ((way[4 * n], levels(noise, 1 - n / 4)) for n in range(NUM_STEPS))
        ]
        cells = [" ".join(f"{value:.3f}" for value in points) if any(points) else ""]
        if step is not None:
            found = [
                size(way[4 * n] - step(way[4 * n], 1 - n / 4, 0.75 - n / 4) / 4 - way[4 * n + 4])
                for n in range(NUM_STEPS)
            ]
            cells.append(" ".join(f"{value / unit:.3f}" for value in found))
        print(f"| {name} | {' | '.join([*cells, *[''] * (2 - len(cells)), *ends])} |", flush=True)

    print("| | a velocity at 1, 0.75, 0.5, 0.25 | a step from there | the end | size | texture |")
    print("|---|---|---|---|---|---|")
    told("the flow, guided", follow, lambda z, t, r: follow(z, levels(z, t)), ["", "1", "1"])
    told("the flow without guidance", guided(network, heard, None, 1.0), None, ["", "", ""])
    for name in options.students:
        student = Resonate.from_pretrained(name, device="cpu").transformer
        conditions = student.condition(features)

        def mean(
            z: Tensor,
            t: float,
            r: float,
            student: torch.nn.Module = student,
            own: object = conditions,
        ) -> Tensor:
            result: Tensor = student(z, levels(z, t), own, levels(z, r))
            return result

        z = noise
        for n in range(NUM_STEPS):
            z = z - mean(z, 1 - n / 4, 0.75 - n / 4) / 4
        texture = size(student.unnormalize(z).diff(dim=1)) / size(
            network.unnormalize(way[-1]).diff(dim=1)
        )
        ends = [f"{size(z - way[-1]) / unit:.2f}", f"{size(z) / unit:.2f}", f"{texture:.2f}"]
        told(name, lambda z, t, mean=mean: mean(z, float(t[0]), float(t[0])), mean, ends)


if __name__ == "__main__":
    main()
