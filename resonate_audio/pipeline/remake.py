"""Sounds made of sounds, and sounds with a shape in time.

All of it is the straight path with another start or another velocity: a source goes back from
`Waveform` to `Latents` by the front end and encoder of the same model and is solved in part or in
whole; what was made takes its place among the source's own samples.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from resonate_audio.audio.io import peak_safe, resample
from resonate_audio.audio.join import cross_fade, go_on, paste
from resonate_audio.core.edit import Edit
from resonate_audio.core.noise import noise_stream
from resonate_audio.core.sampling import Sampling
from resonate_audio.core.types import Audio, Latents, Waveform
from resonate_audio.flow.direct_edit import edit_directly
from resonate_audio.flow.inpaint import solve_masked
from resonate_audio.flow.ode import OnStep, integrate, make_step, solve
from resonate_audio.flow.path import Velocity, noised
from resonate_audio.flow.schedule import part_shares, scheduled
from resonate_audio.flow.times import grid_from, grid_of
from resonate_audio.flow.windows import VelocityAt, Windows, one_prompt, windowed
from resonate_audio.model.linear_vae import LinearVAE
from resonate_audio.model.presets import ModelConfig
from resonate_audio.pipeline.request import Batch
from resonate_audio.pipeline.stations import Stations

OVERLAP = 0.5
"""Share of a window that the next one has too."""
PASSAGE_S = 0.060
"""Passage between what was there and what was made; it lies inside the stretch that is replaced."""
GO_ON_S = 0.060
"""How far a source is carried on by prediction where it is extended, so that its last latents do
not hear an end."""
CONTEXT_S, SEAM_CONTEXT_S = 0.25, 0.5
"""What the model hears beside the stretches that it makes anew, and beside the seam of a loop: ends
that fade away lie there, and with less the seam would fade as they do."""
PART_FADE_S = 0.25
"""Passage from one prompt of a sequence to the next."""
QUIET_S = 0.020
"""A loop is cut where the power within ± this much is least."""
ROUNDS, REPEAT_ABOVE = 4, 0.5
"""Where a gap is filled: times that a step is made, and the noise level above which it is. Level
and colour are settled there; repeating later steps too follows prompts less and fits no better."""

Samples = Float32[np.ndarray, " _"]
"""Samples of one channel, full scale at 1; two in one signature may differ in length."""


@dataclass(frozen=True)
class Work:
    """What is asked of a model: the edit, a row for each take, the settings, who is told."""

    edit: Edit
    batch: Batch
    sampling: Sampling
    on_step: OnStep | None = None


def remake(model: Stations, work: Work, source: Audio | None) -> list[Audio]:
    """Do what an edit says, one take a row; every method and every replay comes down to this.

    Args:
        model: whose front end and networks are used.
        work: checked.
        source: at its own rate; None where the edit needs none.

    Returns:
        Sounds with their recipes. What keeps samples of its source has the source's rate,
        everything else the model's.

    Raises:
        Cancelled: ``on_step`` returned False.
    """
    rate_hz = model.config.mel.sample_rate_hz
    with torch.no_grad():
        if source is None:
            rows = from_texts(model, work)
        elif work.edit.kind in ("vary", "reword"):
            rows = from_latents(model, work, source)
        else:
            rows, rate_hz = in_place(model, work, source), source.sample_rate_hz
    return [
        Audio(samples, rate_hz, model.recipe(work.batch, row, work.sampling, gain, work.edit))
        for row, (samples, gain) in enumerate(rows)
    ]


Rows = list[tuple[Samples, float]]
"""Samples that are in range, and the gain that brought them there."""


# From texts alone: a loop, or a sequence of prompts.


def from_texts(model: Stations, work: Work) -> Rows:
    """Solve a circle, or a line that follows one prompt after the other."""
    config, sampling = model.config, work.sampling
    num_samples = round(sampling.duration_s * config.mel.sample_rate_hz)
    is_loop = work.edit.kind == "loop"
    num_frames = config.num_frames(sampling.duration_s)
    if is_loop:
        # The nearest number of frames: the circle is brought to its exact length afterwards.
        num_frames = max(2, round(num_samples / config.frame_samples))
    noise = noise_stream(work.batch.seeds, num_frames, config.vae.latent_channels)()
    velocity = windowed(
        prompted(model, work, num_frames), window_places(config, num_frames, is_loop)
    )
    z = solve(velocity, noise.to(model.device), sampling, work.on_step)
    rows = decode_circle(model, z, num_samples) if is_loop else decode(model, z, num_samples)
    return [peak_safe(row) for row in rows]


def prompted(model: Stations, work: Work, num_frames: int) -> VelocityAt:
    """Velocity of a window under the batch's prompts, or under what is heard when."""
    parts, num_rows = work.edit.parts, len(work.batch.seeds)
    if not parts:
        return one_prompt(model.velocity(work.batch, work.sampling))
    rate_hz = model.config.frame_rate_hz
    bounds = [part.stop_s * rate_hz for part in parts[:-1]]
    batches = [dataclasses.replace(work.batch, prompts=(p.prompt,) * num_rows) for p in parts]
    return scheduled(
        [model.velocity(batch, work.sampling) for batch in batches],
        part_shares(bounds, num_frames, PART_FADE_S * rate_hz),
    )


def window_places(config: ModelConfig, num_frames: int, is_circular: bool = False) -> Windows:
    """Windows of the longest sound that the model was trained for."""
    most = config.num_frames(config.max_duration_s)
    return Windows(num_frames, most, max(1, round(OVERLAP * most)), is_circular)


def decode_circle(
    model: Stations, z: Float[Tensor, "row frame channel"], num_samples: int
) -> list[Samples]:
    """Decode a circle of latents as one turn of a sound without an end.

    The circle is decoded with as much of itself before and after it as a sample depends on, and
    one turn is cut out, so the last sample goes on into the first as any other into the next; a
    vocoder whose phases run on does not come back to the same ones, so the beginning of the next
    turn passes into that of this one. The turn begins where it is quietest. One that is not a whole
    number of frames is resampled as the periodic signal it is, which moves its pitch by the same
    share: half a frame at most.
    """
    around = halo_frames(model)
    places = torch.arange(-around, z.shape[1] + around) % z.shape[1]
    frame = model.config.frame_samples
    start, turn = around * frame, z.shape[1] * frame
    rows = decode(model, z[:, places], len(places) * frame)
    passage = round(PASSAGE_S * model.config.mel.sample_rate_hz)
    turns = [closed(row[start : start + turn + passage], turn) for row in rows]
    exact = [periodic(row, num_samples) for row in turns]
    reach = round(QUIET_S * model.config.mel.sample_rate_hz)
    return [np.roll(row, -quietest(row, reach)) for row in exact]


def halo_frames(model: Stations) -> int:
    """Latent frames to either side that a sample depends on.

    Attention in a decoder sees every frame, and so adds the same to two that stand in equal places
    of two turns.
    """
    vae = 0 if isinstance(model.vae, LinearVAE) else model.vae.decoder.halo_frames
    return vae + -(-model.vocoder.halo_hops // model.vae.hops_per_frame) + 1


def closed(samples: Samples, turn: int) -> Samples:
    """One turn of what goes on a little longer: what follows it passes into its beginning."""
    passage = len(samples) - turn
    made = samples[:turn].copy()
    made[:passage] = cross_fade(samples[turn:], samples[:passage])
    return made


def periodic(samples: Samples, num_samples: int) -> Samples:
    """One period of a periodic signal in another number of samples, by its Fourier series."""
    if len(samples) == num_samples:
        return samples
    spectrum = np.fft.rfft(samples.astype(np.float64))
    made = np.fft.irfft(spectrum[: num_samples // 2 + 1], num_samples)
    return (made * (num_samples / len(samples))).astype(np.float32)


def quietest(samples: Samples, reach: int) -> int:
    """Sample of a circle around which there is least power, within a Hann window of ± reach."""
    power = samples.astype(np.float64) ** 2
    window = np.zeros(len(samples))
    hann = np.hanning(min(2 * reach + 1, len(samples)))
    window[: len(hann)] = hann
    around = np.fft.irfft(np.fft.rfft(power) * np.fft.rfft(window), len(samples))
    return int(np.roll(around, -(len(hann) // 2)).argmin())


# The whole of a source, changed.


def from_latents(model: Stations, work: Work, source: Audio) -> Rows:
    """Bring a source to a noise level and solve from there, or move it from prompt to prompt."""
    edit, sampling, rate_hz = work.edit, work.sampling, model.config.mel.sample_rate_hz
    assert edit.strength is not None
    data = encode(model, resample(source.samples, source.sample_rate_hz, rate_hz))
    data = data.expand(len(work.batch.seeds), -1, -1)
    draw = noise_stream(work.batch.seeds, *data.shape[1:])
    times = grid_from(edit.strength, sampling)
    velocity = long_velocity(model, work.batch, sampling, data.shape[1], times)
    if edit.kind == "reword":
        said = (edit.source_prompt,) * len(work.batch.seeds)
        of_source = dataclasses.replace(work.batch, prompts=said)
        before = long_velocity(model, of_source, sampling, data.shape[1], times)
        z = edit_directly(
            before, velocity, data, lambda: draw().to(data), times, 1, work.on_step,
            make_step(sampling.solver),
        )  # fmt: skip
    else:
        start = noised(data, draw().to(data), times[:1].to(data).expand(len(data)))
        z = integrate(velocity, start, times, work.on_step, make_step(sampling.solver))
    num_samples = round(source.duration_s * rate_hz)
    return [peak_safe(row) for row in decode(model, z, num_samples)]


# A part of a source, made anew; everything else stays its own samples.


def in_place(model: Stations, work: Work, source: Audio) -> Rows:
    """Replace stretches of a source, add to its ends, or close it to a loop."""
    edit, rate_hz, length = work.edit, source.sample_rate_hz, len(source.samples)
    if edit.kind == "replace":
        return fill(model, work, source, in_samples(edit.spans_s, rate_hz))
    if edit.kind == "extend":
        before, after = round(edit.before_s * rate_hz), round(edit.after_s * rate_hz)
        longer = Audio(carried_on(source, before, after), rate_hz)
        spans = [(0, before), (before + length, before + length + after)]
        return fill(model, work, longer, [span for span in spans if span[0] < span[1]])
    # Both ends meet in the middle, the middle is made anew, and everything goes back.
    assert edit.seam_s is not None
    half, seam = length // 2, max(1, round(edit.seam_s * rate_hz))
    turned = Audio(np.roll(source.samples, half), rate_hz)
    spans = [(half - seam // 2, half - seam // 2 + seam)]
    rows = fill(model, work, turned, spans, SEAM_CONTEXT_S)
    return [(np.roll(row, -half), gain) for row, gain in rows]


def in_samples(spans_s: Sequence[tuple[float, float]], rate_hz: int) -> list[tuple[int, int]]:
    """Stretches as first and last (excluded) samples, rising; those that touch are one."""
    spans: list[tuple[int, int]] = []
    for start_s, stop_s in sorted(spans_s):
        start, stop = round(start_s * rate_hz), round(stop_s * rate_hz)
        if spans and spans[-1][1] == start:
            start = spans.pop()[0]
        spans.append((start, stop))
    return spans


def carried_on(source: Audio, before: int, after: int) -> Samples:
    """A source with room on either side: a little of how it would go on, then silence."""
    reach = round(GO_ON_S * source.sample_rate_hz)
    head = go_on(source.samples[::-1], source.sample_rate_hz, min(reach, before))[::-1]
    tail = go_on(source.samples, source.sample_rate_hz, min(reach, after))
    head, tail = np.clip(head, -1, 1), np.clip(tail, -1, 1)  # a prediction knows no full scale
    room = [np.zeros(n, np.float32) for n in (before - len(head), after - len(tail))]
    return np.concatenate([room[0], head, source.samples, tail, room[1]])


def fill(
    model: Stations,
    work: Work,
    source: Audio,
    spans: Sequence[tuple[int, int]],
    context_s: float = CONTEXT_S,
) -> Rows:
    """Make stretches of a source anew, one take a row.

    Every latent frame that a stretch touches is solved, the others are held; the model hears
    ``context_s`` on either side, and everything between two stretches.

    Args:
        model: whose front end, networks and rate are used.
        work: prompts, seeds and settings.
        source: at its own rate.
        spans: first and last (excluded) sample of each stretch, rising.
        context_s: seconds.

    Returns:
        The source with its stretches made anew, at its own rate, and the gain of the new sound.
    """
    config, sampling = model.config, work.sampling
    rate_hz, frame = config.mel.sample_rate_hz, config.frame_samples
    wave = resample(source.samples, source.sample_rate_hz, rate_hz)
    is_free = touched(spans, rate_hz / source.sample_rate_hz / frame, -(-len(wave) // frame))
    first, last = region(is_free, math.ceil(context_s * config.frame_rate_hz))
    data = encode(model, wave[first * frame : last * frame])
    data = data.expand(len(work.batch.seeds), -1, -1)
    draw = noise_stream(work.batch.seeds, *data.shape[1:])
    z = solve_masked(
        long_velocity(model, work.batch, sampling, data.shape[1]),
        data,
        is_free[first:last],
        lambda: draw().to(data),
        grid_of(sampling),
        ROUNDS,
        REPEAT_ABOVE,
        work.on_step,
        lambda: make_step(sampling.solver),
    )
    rows = []
    for made in decode(model, z, (last - first) * frame):
        safe, gain = peak_safe(made)
        whole = np.zeros(len(is_free) * frame, np.float32)
        whole[first * frame : last * frame] = safe
        new = np.clip(resample(whole, rate_hz, source.sample_rate_hz), -1, 1)
        rows.append((put_in(source, new, spans), gain))
    return rows


def put_in(source: Audio, new: Samples, spans: Sequence[tuple[int, int]]) -> Samples:
    """Put the stretches of ``new`` in their place; see `paste`."""
    made, passage = source.samples, round(PASSAGE_S * source.sample_rate_hz)
    for start, stop in spans:
        made = paste(made, new[start:stop], start, passage)
    return made


def touched(
    spans: Sequence[tuple[int, int]], frames_per_sample: float, num_frames: int
) -> Bool[Tensor, " frame"]:
    """True for the latent frames that hold any sample of a stretch."""
    is_free = torch.zeros(num_frames, dtype=torch.bool)
    for start, stop in spans:
        first, last = math.floor(start * frames_per_sample), math.ceil(stop * frames_per_sample)
        is_free[min(first, num_frames - 1) : last] = True  # resampling may round the end away
    return is_free


def region(is_free: Bool[Tensor, " frame"], context: int) -> tuple[int, int]:
    """First and last (excluded) frame of what is solved: what is free, and its context."""
    places = is_free.nonzero().flatten()
    first, last = int(places[0]) - context, int(places[-1]) + 1 + context
    return max(0, first), min(len(is_free), last)


def long_velocity(
    model: Stations,
    batch: Batch,
    sampling: Sampling,
    num_frames: int,
    times: Float[Tensor, " time"] | None = None,
) -> Velocity:
    """The guided velocity of a state of any length; ``times`` as in `Stations.velocity`."""
    velocity = one_prompt(model.velocity(batch, sampling, times))
    return windowed(velocity, window_places(model.config, num_frames))


def encode(model: Stations, wave: Samples) -> Float[Tensor, "1 frame channel"]:
    """Samples at the model's rate to normalised latents; silence fills the last frame."""
    config = model.config
    least = -(-(config.mel.pad_samples + 1) // config.frame_samples) * config.frame_samples
    padded = np.pad(wave, (0, max(least - len(wave), -len(wave) % config.frame_samples)))
    latents = model.encode(Waveform(torch.from_numpy(padded)[None], config.mel.sample_rate_hz))
    num_frames = -(-len(wave) // config.frame_samples)
    return model.transformer.normalize(latents.values)[:, :num_frames]


def decode(
    model: Stations, z: Float[Tensor, "row frame channel"], num_samples: int
) -> list[Samples]:
    """Normalised latents to the first samples of each row, at the model's rate."""
    latents = Latents(model.transformer.unnormalize(z), model.config.frame_rate_hz)
    samples = model.to_waveform(latents).samples[:, :num_samples]
    return [np.ascontiguousarray(row.numpy()) for row in samples]
