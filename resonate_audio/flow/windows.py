"""Sounds longer than a model's window, and sounds without an end: overlapping windows in one solve.

One state of any length is solved; its velocity is put together from the velocities of windows that
overlap, so neighbours agree at every noise level and no joint is left to be hidden afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from resonate_audio.core.errors import InputError
from resonate_audio.flow.path import Velocity

VelocityAt = Callable[[Tensor, Tensor, Int[Tensor, " frame"]], Tensor]
"""v(z, t, frames): velocity of a window, told which frames of the whole it holds."""


WANDER = 100 * (math.sqrt(5) - 1) / 2
"""Turns of the windows' places between noise levels 1 and 0: steps of a hundredth are a golden
section apart, and no usual number of steps comes back to the same places soon."""


@dataclass(frozen=True)
class Windows:
    """Where windows lie on a line or a circle of frames."""

    num_frames: int
    """Frames in all."""
    window_frames: int
    """Frames of one window, what the model takes at most."""
    overlap_frames: int
    """Frames that neighbours share at least."""
    is_circular: bool = False
    """The last frame is followed by the first."""

    def __post_init__(self) -> None:
        """Refuse what covers nothing.

        Raises:
            InputError: no frame, or windows that do not overlap or do not advance.
        """
        if self.num_frames < 1 or not 0 < self.overlap_frames < self.window_frames:
            raise InputError(
                f"windows of {self.window_frames} frames that share {self.overlap_frames} over "
                f"{self.num_frames}: expected frames, and an overlap shorter than the window"
            )

    @property
    def size(self) -> int:
        """Frames of one window here: no more than there are."""
        return min(self.window_frames, self.num_frames)

    def starts(self, turn: float = 0.0) -> list[int]:
        """First frame of each window.

        Args:
            turn: how far all windows are moved on, in units of their distance; only the fraction
                counts. On a line, those that would reach over an end stop there.
        """
        if self.is_circular:
            # At least two, so that what is an end of one window is inside another.
            count = max(2, math.ceil(self.num_frames / (self.window_frames - self.overlap_frames)))
            distance = self.num_frames / count
            return [math.floor((i + turn % 1) * distance) % self.num_frames for i in range(count)]
        last = self.num_frames - self.size
        distance = self.window_frames - self.overlap_frames
        first = math.floor(turn % 1 * distance) - distance
        raw = range(first, last + distance, distance)
        return sorted({min(max(start, 0), last) for start in raw})

    def frames(self, start: int) -> Int[Tensor, " frame"]:
        """Frames of the window at ``start``, in order."""
        return (start + torch.arange(self.size)) % self.num_frames

    def weights(self) -> Float[Tensor, " frame"]:
        """How much a window counts at each of its frames: rising, flat, falling; never 0."""
        ramp = self.size / 2 if self.is_circular else self.overlap_frames
        places = torch.arange(self.size) + 0.5
        return torch.minimum(places, self.size - places).div(ramp).clamp(max=1)


def one_prompt(velocity: Velocity) -> VelocityAt:
    """A velocity that is the same wherever the window lies."""
    return lambda z, t, frames: velocity(z, t)


def windowed(velocity: VelocityAt, windows: Windows) -> Velocity:
    """Velocity of a state of any length, blended from windows.

    v(z, t)_f = Σ_w a_w(f)·v_w(z_w, t)_f / Σ_w a_w(f)   [MultiDiffusion, arXiv:2302.08113, eq. 5]

    a is `Windows.weights`. Windows are taken one after the other, so memory does not grow with the
    length and time grows in proportion.

    Differs from the paper: windows lie elsewhere at every noise level (`WANDER`), so that no frame
    is near an end of a window all the way. A circle is solved in the same way: every cut of it
    lies inside another window, and moves.

    Args:
        velocity: of one window; rows are those of the state.
        windows: their places.

    Returns:
        Velocity of (z, t); all rows of a call have one noise level. A line that fits into one
        window is that window.
    """
    if not windows.is_circular and windows.num_frames <= windows.window_frames:
        every = torch.arange(windows.num_frames)
        return lambda z, t: velocity(z, t, every)
    weights = windows.weights()

    def blended(
        z: Float[Tensor, "row frame channel"], t: Float[Tensor, " row"]
    ) -> Float[Tensor, "row frame channel"]:
        weight = weights.to(z)[:, None]
        total, sums = torch.zeros_like(z), torch.zeros_like(z[:1, :, :1])
        for start in windows.starts(float(t[0]) * WANDER):
            frames = windows.frames(start)
            place = frames.to(z.device)
            total.index_add_(1, place, weight * velocity(z[:, place], t, frames))
            sums.index_add_(1, place, weight[None])
        return total / sums

    return blended
