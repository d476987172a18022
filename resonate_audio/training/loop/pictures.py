"""Spectrogram pictures of what a trainer makes."""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from resonate_audio.core.files import atomic_path


def draw_mels(path: Path, rows: dict[str, Float[Tensor, "row band hop"]]) -> None:
    """Draw log-mels, one column per clip and one line per name, all on one colour scale."""
    from matplotlib.figure import Figure

    first = next(iter(rows.values()))
    low, high = first.amin().item(), first.amax().item()
    figure = Figure(figsize=(3 * len(first), 2.2 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), len(first), squeeze=False)
    for line, (name, mels) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(name)
        for axis, mel in zip(line, mels.float().cpu().numpy(), strict=True):
            axis.imshow(mel, origin="lower", aspect="auto", vmin=low, vmax=high, cmap="magma")
            axis.set(xticks=[], yticks=[])
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)
