"""Can editing be told from making, and does it do what it says?

    python benchmarks/edit_quality.py [--prompts 50] [--only loop windows replace extend vary …]

All numbers are of `nano` in the steps it takes itself, a few for a sound and more where a source is
changed (``--edit-steps``), prompts from ``fresh.jsonl``, which nothing was chosen by.

* **flux** at a sample: ‖|S after| − |S before|‖, S the spectra of the 16 ms on either side;
  **jump**: the difference of two neighbouring samples. Given for a joint: the median over joints of
  (there / median of other places of the same sound), and the mean rank among those places: a joint
  that cannot be told has the rank 0.5. **Inside** takes the whole sound for other places, so a
  joint in a loud stretch of a sound that is mostly silent stands out whatever it is like;
  **beside** takes the quarter of a second on either side.
* **follows**: what nano-eval says of the stretch that was made anew under its new prompt, beside a
  free take of the same seed and length.
* **similarity**: correlation of log-mels with the source as the codec gives it back.
* **error** of inversion: ‖there and back − latents‖ / ‖latents − their mean‖.
* **memory**: the most that the process held, beyond what it held with the model loaded; time is
  processor time.
* **stereo**: two takes of `vary` from one sound as left and right. Their mean, what a mono speaker
  plays, lies 10·log10((1 + c)/2) dB under them, c their correlation.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from resonate_audio import Audio, Resonate
from resonate_audio.audio.mel import MelFrontEnd
from resonate_audio.core.types import Waveform
from resonate_audio.flow.inversion import invert
from resonate_audio.flow.ode import integrate
from resonate_audio.flow.times import uniform_grid
from resonate_audio.flow.windows import WANDER
from resonate_audio.model import presets
from resonate_audio.pipeline.remake import encode, window_places
from resonate_audio.pipeline.request import Batch

PROMPTS = (
    Path(__file__).resolve().parents[1] / "resonate_audio" / "nano" / "prompts" / "fresh.jsonl"
)
WINDOW = 704
"""Sixteen milliseconds at nano's rate."""
STRIDE = 101
STRENGTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
NEAR_STRENGTHS = (0.05, 0.1, 0.2, 0.3, 0.5)
STEPS, REFINEMENTS = (4, 12, 25), (0, 1, 3, 8)
LENGTHS_S = (15, 30, 60, 120)
LONG_S = 12.0
RESAMPLINGS = 2_000
BESIDE_SAMPLES = 11_025
"""A quarter of a second at nano's rate: what a joint is heard beside."""


def read_prompts(number: int) -> list[str]:
    """Prompts spread evenly over the file."""
    lines = PROMPTS.read_text(encoding="utf-8").splitlines()
    return [json.loads(lines[i * len(lines) // number])["prompt"] for i in range(number)]


def flux(circle: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Change of the magnitude spectrum at each place of a sound whose end meets its beginning."""
    index = np.asarray(places)[:, None] + np.arange(WINDOW)
    window = np.hanning(WINDOW)
    after = np.abs(np.fft.rfft(circle[index % len(circle)] * window))
    before = np.abs(np.fft.rfft(circle[(index - WINDOW) % len(circle)] * window))
    return np.sqrt(((after - before) ** 2).mean(axis=1))


Row = tuple[float, ...]


def at_joints(samples: np.ndarray, joints: Sequence[int]) -> list[Row]:
    """Of each joint: flux over median, its rank, jump and its rank; inside, then beside."""
    others = np.arange(2 * WINDOW, len(samples) - 2 * WINDOW, STRIDE)
    joint = np.asarray(joints) % len(samples)
    others = others[(np.abs(others[:, None] - joint[None]) > 2 * WINDOW).all(axis=1)]
    return [
        against(samples, place, others) + against(samples, place, near(place)) for place in joint
    ]


def near(place: int) -> np.ndarray:
    """Places around a joint, on a circle, that do not hear it."""
    reach = np.arange(2 * WINDOW, BESIDE_SAMPLES, STRIDE)
    return np.concatenate([place - reach, place + reach])


def against(samples: np.ndarray, place: int, others: np.ndarray) -> Row:
    """Flux and jump at a place over their medians at others, each with its rank among them."""
    jumps = np.abs(samples - np.roll(samples, 1))
    here, there = flux(samples, np.array([place]))[0], flux(samples, others)
    jump, other_jumps = jumps[place], jumps[others % len(samples)]
    return (
        here / max(np.median(there), 1e-9),
        rank(here, there),
        jump / max(np.median(other_jumps), 1e-9),
        rank(jump, other_jumps),
    )


def rank(value: float, others: np.ndarray) -> float:
    """Share of the others below; ties count half."""
    return float((others < value).mean() + 0.5 * (others == value).mean())


def say_joints(name: str, rows: Sequence[Row]) -> None:
    """One line of the table of joints; medians with 95 % bootstraps over joints."""
    table = np.array(rows)
    medians, ranks = np.median(table, axis=0), table.mean(axis=0)
    drawn = np.random.default_rng(0).integers(0, len(table), (RESAMPLINGS, len(table)))
    low, high = np.quantile(np.median(table[drawn], axis=1), [0.025, 0.975], axis=0)
    cells = (
        f"{medians[n]:.2f} [{low[n]:.2f}, {high[n]:.2f}] | {ranks[n + 1]:.2f}"
        for n in range(0, table.shape[1], 2)
    )
    print(f"| {name} | {len(table)} | {' | '.join(cells)} |", flush=True)


def head_of_joints() -> None:
    """Head of the table of joints."""
    measured = ("flux / inside", "jump / inside", "flux / beside", "jump / beside")
    print(f"| joint | joints | {' | '.join(f'{one} | rank' for one in measured)} |")
    print("|---|---" + "|---|---" * len(measured) + "|")


def measure_loops(model: Resonate, prompts: Sequence[str]) -> None:
    """The seam of loops, of plain sounds played in a loop, and of sounds closed to one."""
    plain, solved, closed = [], [], []
    for seed, prompt in enumerate(prompts):
        [sound] = model.generate(prompt, duration_s=4.0, seeds=seed)
        plain += at_joints(sound.samples, [0])
        solved += at_joints(model.loop(prompt, 4.0, seeds=seed)[0].samples, [0])
        closed += at_joints(model.loop(sound, seeds=seed)[0].samples, [0])
    head_of_joints()
    say_joints("a plain sound, played in a loop", plain)
    say_joints("`loop(prompt)`", solved)
    say_joints("`loop(audio)`", closed)


def measure_joints_of_windows(model: Resonate, prompts: Sequence[str]) -> None:
    """Ends of windows in long sounds, where they lay at the last step."""
    frame = model.config.frame_samples
    windows = window_places(model.config, model.config.num_frames(LONG_S))
    turn = float(uniform_grid(model.config.default_steps)[-2]) * WANDER
    starts = windows.starts(turn)
    ends = {s * frame for s in starts} | {(s + windows.size) * frame for s in starts}
    joints = sorted(ends - {0, windows.num_frames * frame})
    rows = []
    for seed, prompt in enumerate(prompts):
        samples = model.generate(prompt, duration_s=LONG_S, seeds=seed)[0].samples
        rows += at_joints(samples, joints)
    head_of_joints()
    say_joints(f"ends of windows in {LONG_S:g} s", rows)


def measure_length() -> None:
    """Time and memory by length, each in a process of its own."""
    print("| length | time | a second of sound | memory |\n|---|---|---|---|")
    for seconds in LENGTHS_S:
        command = [sys.executable, __file__, "--one-length", str(seconds)]
        took_s, grown_mb = json.loads(
            subprocess.run(command, capture_output=True, check=True).stdout
        )
        print(
            f"| {seconds} s | {took_s:.1f} s | {took_s / seconds:.3f} s | {grown_mb:.0f} MB |",
            flush=True,
        )


def one_length(seconds: float) -> None:
    """Make one sound; prints the time and the growth of memory."""
    model = Resonate.from_pretrained("nano")
    model.generate("rain", seeds=1, num_inference_steps=1)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts from here
    before_kb, begun_s = held_kb("VmRSS"), time.process_time()
    model.generate("rain falls", duration_s=seconds, seeds=1)
    took_s = time.process_time() - begun_s
    print(json.dumps([took_s, (held_kb("VmHWM") - before_kb) / 1024]))


def held_kb(name: str) -> int:
    """Memory of this process: now (VmRSS), or at its most (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(name)))


def measure_replacing(model: Resonate, prompts: Sequence[str]) -> None:
    """Joints of mended stretches, and whether new prompts are followed inside."""
    score = judge()
    untouched, mended, changed, inside, free, before = [], [], [], [], [], []
    for seed, prompt in enumerate(prompts):
        new = prompts[(seed + 7) % len(prompts)]
        [source] = model.generate(prompt, duration_s=5.0, seeds=seed)
        rate_hz, joints = source.sample_rate_hz, [44_100, 4 * 44_100]
        untouched += at_joints(source.samples, joints)
        other_seed = 1000 + seed
        [same] = model.replace(source, [(1.0, 4.0)], seeds=other_seed)
        mended += at_joints(same.samples, joints)
        [made] = model.replace(source, [(1.0, 4.0)], new, seeds=other_seed)
        changed += at_joints(made.samples, joints)
        outside = np.r_[0 : joints[0], joints[1] : len(source.samples)]
        assert np.array_equal(made.samples[outside], source.samples[outside])
        stretch = slice(*joints)
        [take] = model.generate(new, duration_s=3.0, seeds=other_seed)
        inside.append(score(Audio(made.samples[stretch], rate_hz), new))
        free.append(score(take, new))
        before.append(score(Audio(source.samples[stretch], rate_hz), new))
    head_of_joints()
    say_joints("the same places before", untouched)
    say_joints("replaced, same prompt", mended)
    say_joints("replaced, another prompt", changed)
    difference = np.array(inside) - np.array(free)
    error = difference.std(ddof=1) / len(difference) ** 0.5
    print("\n| nano-eval of 3 s under the new prompt | mean |\n|---|---|")
    print(f"| the source there | {np.mean(before):.3f} |")
    print(f"| a free take | {np.mean(free):.3f} |")
    print(f"| replaced | {np.mean(inside):.3f} |")
    print(f"| replaced less free, paired | {difference.mean():+.3f} ± {error:.3f} |", flush=True)


def measure_extending(model: Resonate, prompts: Sequence[str]) -> None:
    """Where a source ends and its continuation begins."""
    untouched, after, before = [], [], []
    for seed, prompt in enumerate(prompts):
        [source] = model.generate(prompt, duration_s=5.0, seeds=seed)
        cut = 2 * source.sample_rate_hz
        untouched += at_joints(source.samples, [cut])
        head, tail = (
            Audio(part, source.sample_rate_hz, source.recipe)
            for part in (source.samples[:cut], source.samples[cut:])
        )
        [longer] = model.extend(head, 0.0, 3.0, seeds=1000 + seed)
        assert np.array_equal(longer.samples[:cut], head.samples)
        after += at_joints(longer.samples, [cut])
        [earlier] = model.extend(tail, 2.0, 0.0, seeds=1000 + seed)
        assert np.array_equal(earlier.samples[cut:], tail.samples)
        before += at_joints(earlier.samples, [cut])
    head_of_joints()
    say_joints("the same place before", untouched)
    say_joints("extended after its first 2 s", after)
    say_joints("extended before its last 3 s", before)


def measure_varying(model: Resonate, prompts: Sequence[str]) -> None:
    """How much of a source is left, by strength."""
    front_end = MelFrontEnd(model.config.mel)
    rows = []
    for seed, prompt in enumerate(prompts):
        [source] = model.generate(prompt, duration_s=2.0, seeds=seed)
        made = [model.vary(source, s, seeds=1000 + seed)[0].samples for s in STRENGTHS]
        mels = [front_end(torch.from_numpy(x)[None]).numpy().ravel() for x in made]
        rows.append([np.corrcoef(mels[0], mel)[0, 1] for mel in mels])
    print("| strength | median similarity | 10 % | 90 % |\n|---|---|---|---|")
    for strength, column in zip(STRENGTHS, np.array(rows).T, strict=True):
        low, middle, high = np.quantile(column, [0.1, 0.5, 0.9])
        print(f"| {strength:g} | {middle:.3f} | {low:.3f} | {high:.3f} |", flush=True)


def measure_inversion(model: Resonate, prompts: Sequence[str]) -> None:
    """From data to noise and back, by steps and refinements."""
    table: dict[tuple[int, int], list[float]] = {}
    for seed, prompt in enumerate(prompts[:10]):
        [source] = model.generate(prompt, duration_s=2.0, seeds=seed)
        data = encode(model, source.samples)
        batch = Batch((prompt,), ("",), (seed,))
        spread = (data - data.mean()).norm()
        for steps in STEPS:
            times = uniform_grid(steps)
            velocity = model.velocity(batch, model.config.sampling(2.0, steps), times)
            for refinements in REFINEMENTS:
                noise = invert(velocity, data, times, refinements)
                error = (integrate(velocity, noise, times) - data).norm() / spread
                table.setdefault((steps, refinements), []).append(float(error))
    print("| steps | " + " | ".join(f"{r} refinements" for r in REFINEMENTS) + " |")
    print("|---" * (len(REFINEMENTS) + 1) + "|")
    for steps in STEPS:
        cells = (f"{np.median(table[steps, r]):.2g}" for r in REFINEMENTS)
        print(f"| {steps} | " + " | ".join(cells) + " |", flush=True)


def measure_stereo(model: Resonate, prompts: Sequence[str]) -> None:
    """Whether two takes that share all but their finest can be a left and a right."""
    rows: dict[float, list[tuple[float, float]]] = {}
    for seed, prompt in enumerate(prompts):
        [source] = model.generate(prompt, duration_s=2.0, seeds=seed)
        for strength in NEAR_STRENGTHS:
            left, right = (
                one.samples.astype(np.float64)
                for one in model.vary(source, strength, takes=2, seeds=1000 + 2 * seed)
            )
            powers = (left**2).mean(), (right**2).mean()
            apart_db = 10 * np.log10(((left + right) ** 2).mean() / 4 / np.mean(powers))
            related = (left * right).mean() / np.sqrt(np.prod(powers))
            rows.setdefault(strength, []).append((related, apart_db))
    print("| strength | correlation | mean of both | sounds within 1 dB |\n|---|---|---|---|")
    for strength, row in rows.items():
        (related, apart_db), inside = np.median(row, axis=0), sum(x[1] >= -1 for x in row)
        print(f"| {strength:g} | {related:.2f} | {apart_db:+.1f} dB | {inside} of {len(row)} |")


def judge() -> Callable[[Audio, str], float]:
    """nano-eval as a function of a sound and a text."""
    from resonate_audio.rewards import open_judge, parse_spec
    from resonate_audio.rewards.desk import score_now

    reward = open_judge(parse_spec("nano-eval"), torch.device("cpu"))

    def score(audio: Audio, text: str) -> float:
        wave = Waveform(torch.from_numpy(audio.samples.copy())[None], audio.sample_rate_hz)
        return float(score_now(reward, wave, [text]).total[0])

    return score


def main() -> None:
    """Measure what is asked for."""
    parts: dict[str, Callable[[Resonate, Sequence[str]], None]] = {
        "loop": measure_loops,
        "windows": measure_joints_of_windows,
        "replace": measure_replacing,
        "extend": measure_extending,
        "vary": measure_varying,
        "inversion": measure_inversion,
        "stereo": measure_stereo,
        "length": lambda model, prompts: measure_length(),
    }
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--only", nargs="+", choices=list(parts), default=list(parts))
    parser.add_argument("--edit-steps", type=int, default=presets.MEAN_EDIT_STEPS)
    parser.add_argument("--one-length", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_length:
        one_length(options.one_length)
        return
    presets.MEAN_EDIT_STEPS = options.edit_steps
    model, prompts = Resonate.from_pretrained("nano"), read_prompts(options.prompts)
    for name in options.only:
        print(f"\n{name}\n", flush=True)
        parts[name](model, prompts)


if __name__ == "__main__":
    main()
