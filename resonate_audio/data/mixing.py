"""New scenes from captioned recordings: events repeated, together, or one after the other.

A model trained on single recordings alone never hears "rain falls while a dog barks". These
functions lay recordings on a canvas and write the sentence that says what was laid where.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

Samples = Float32[np.ndarray, "_"]

TOGETHER = ("{0} while {1}", "{0} and {1}", "{0} with {1} in the background", "{1} while {0}")
IN_SEQUENCE = ("{0}, then {1}", "{0} followed by {1}", "first {0}, then {1}", "{0} and then {1}")
THREE = ("{0}, then {1}, then {2}", "{0}, followed by {1}, then {2}")
BACKGROUND_GAIN = 0.5
"""The longer of two simultaneous sounds is lowered by 6 dB, so that the event stays audible."""


@dataclass(frozen=True)
class Scene:
    """A mixture and the caption that describes it."""

    samples: Samples
    caption: str


def fade_out(samples: Samples, num_samples: int) -> Samples:
    """Cut to ``num_samples`` at most, with a ramp over the last fiftieth where it cuts."""
    if len(samples) <= num_samples:
        return samples
    cut = samples[:num_samples].copy()
    ramp = max(num_samples // 50, 1)
    cut[-ramp:] *= np.linspace(1.0, 0.0, ramp, dtype=np.float32)
    return cut


def lay(events: Sequence[Samples], starts: Sequence[int], num_samples: int) -> Samples:
    """Add events onto a silent canvas and scale down, never up, to a peak of at most 0.99.

    Args:
        events: recordings at one sample rate.
        starts: the first sample of each on the canvas.
        num_samples: length of the canvas; what reaches past its end is faded out.
    """
    canvas = np.zeros(num_samples, dtype=np.float32)
    for event, start in zip(events, starts, strict=True):
        piece = fade_out(event, num_samples - start)
        canvas[start : start + len(piece)] += piece
    peak = float(np.abs(canvas).max(initial=0.0))
    return canvas * np.float32(0.99 / peak) if peak > 0.99 else canvas


def repeated(
    events: Sequence[Samples], num_samples: int, rng: np.random.Generator, rate_hz: int
) -> Samples:
    """Lay events of one kind after each other with gaps of 0.15 to 1.2 s until the canvas ends."""
    starts: list[int] = []
    laid: list[Samples] = []
    position = int(rng.uniform(0.0, 0.3) * rate_hz)
    for event in events:
        if position + len(event) > num_samples and laid:
            break
        starts.append(position)
        laid.append(event)
        position += len(event) + int(rng.uniform(0.15, 1.2) * rate_hz)
        if position >= num_samples:
            break
    return lay(laid, starts, num_samples)


def together(
    event: Samples,
    background: Samples,
    captions: tuple[str, str],
    num_samples: int,
    rng: np.random.Generator,
) -> Scene:
    """Lay a shorter event over a longer background; ``captions`` are in that order."""
    latest = max(min(len(background), num_samples) - len(event), 0)
    start = int(rng.integers(0, latest // 2 + 1))
    samples = lay([event, background * np.float32(BACKGROUND_GAIN)], [start, 0], num_samples)
    template = TOGETHER[int(rng.integers(len(TOGETHER)))]
    return Scene(samples, template.format(*captions))


def in_sequence(
    events: Sequence[Samples],
    captions: Sequence[str],
    num_samples: int,
    rng: np.random.Generator,
    rate_hz: int,
) -> Scene:
    """Lay two or three events one after the other, each with its share of the canvas."""
    share = num_samples // len(events)
    pieces = [fade_out(event, share) for event in events]
    starts, position = [], 0
    for piece in pieces:
        starts.append(position)
        position += len(piece) + int(rng.uniform(0.05, 0.4) * rate_hz)
    templates = IN_SEQUENCE if len(events) == 2 else THREE
    template = templates[int(rng.integers(len(templates)))]
    return Scene(lay(pieces, starts, num_samples), template.format(*captions))
