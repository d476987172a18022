"""A task learns for a few steps: no recipe, no run, nothing written."""

from __future__ import annotations

from resonate_audio.training.loop.optim import OptimConfig, make_optimizer
from resonate_audio.training.loop.task import Draw, Losses, Task, generator_for


def draw(index: int) -> Draw:
    return Draw(index, index, generator_for(0, index, "cpu"))


def learn(task: Task, num_steps: int, learning_rate: float) -> list[tuple[float, Losses]]:
    """Loss and its parts at each step."""
    config = OptimConfig(learning_rate=learning_rate)
    optimizer = make_optimizer(task.phases["model"].parameters(), config)
    found = []
    for index in range(num_steps):
        optimizer.zero_grad()
        loss, parts = task.loss("model", draw(index))
        loss.backward()
        optimizer.step()
        found.append((loss.item(), parts))
    return found
