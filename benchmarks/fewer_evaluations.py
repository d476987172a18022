"""What fewer evaluations of a flow cost: error against a fine solution, and what judges hear.

    python benchmarks/fewer_evaluations.py --model nano-flow --corpus corpus [--prompts 100]

A sound of each prompt (evenly spread over ``fresh.jsonl``) is made in every way, from the same
noise. A guided evaluation counts as two, for it computes two branches.

* **error**: ‖latents − latents of `FINE` ab2 steps‖ / ‖those − their mean‖, guided alike, median
  over prompts: what the solver and the short cuts change, of whatever use that is.
* **nano-eval**, **nano-clap**: mean over prompts of what the judges say (log-odds, cosine), minus
  what they say of 25 guided Euler steps, with a 95 % interval of the paired difference.
* **FAD**: Fréchet distance of `nano-clap`'s embeddings to the corpus's held-out recordings, with a
  95 % bootstrap interval over prompts. With 100 clips it is biased upwards, alike for all ways.

Two ways are measured here and are not in the library: the unguided branch at every second step
only, its difference kept in between; and the middle blocks' update kept from the step before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from rich.progress import track
from torch import Tensor, nn

from resonate_audio import Resonate
from resonate_audio.core.noise import seeded_noise
from resonate_audio.core.sampling import Sampling
from resonate_audio.core.types import Latents, Waveform
from resonate_audio.evaluation.distances.embeddings import TwoTowerHearing
from resonate_audio.evaluation.distances.formulas import frechet_audio_distance
from resonate_audio.flow.mean_flow import sampling_velocity
from resonate_audio.flow.ode import solve
from resonate_audio.model.folder import read_networks
from resonate_audio.model.hub import find_model
from resonate_audio.rewards.small.matcher import MatcherReward
from resonate_audio.rewards.small.two_tower import TwoTowerReward

PACKAGE = Path(__file__).resolve().parents[1] / "resonate_audio" / "nano"
FINE = 100
ROWS = 10


@dataclass(frozen=True)
class Way:
    """One way from noise to latents."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    guide_every: int = 1
    reuse: bool = False


STEPS_8 = {"num_inference_steps": 8, "solver": "ab2"}
STEPS_12 = {"num_inference_steps": 12, "solver": "ab2"}
WAYS = (
    Way("25 Euler steps"),
    Way("16 Euler steps", {"num_inference_steps": 16}),
    Way("10 Euler steps", {"num_inference_steps": 10}),
    Way("6 Heun steps", {"num_inference_steps": 6, "solver": "heun"}),
    Way("12 ab2 steps", STEPS_12),
    Way("8 ab2 steps", STEPS_8),
    Way("8 ab2 steps, shift 2", {**STEPS_8, "time_shift": 2.0}),
    Way("8 ab2 steps, shift 0.5", {**STEPS_8, "time_shift": 0.5}),
    Way("12 ab2 steps, guided above 0.3", {**STEPS_12, "guidance_low": 0.3}),
    Way("12 ab2 steps, guided above 0.5", {**STEPS_12, "guidance_low": 0.5}),
    Way("12 ab2 steps, guided below 0.9", {**STEPS_12, "guidance_high": 0.9}),
    Way(
        "12 ab2 steps, guided from 0.3 to 0.9",
        {**STEPS_12, "guidance_low": 0.3, "guidance_high": 0.9},
    ),
    Way("12 ab2 steps, guidance every 2nd step", STEPS_12, guide_every=2),
    Way("25 Euler steps, middle blocks every 2nd step", reuse=True),
)


class Kept(nn.Module):
    """Blocks whose update is computed at every second evaluation, and kept in between."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.update: Tensor | None = None
        self.is_on = False

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        """Run the blocks, or add what they added the time before."""
        if self.is_on and self.update is not None:
            x, self.update = x + self.update, None
            return x
        out = x
        for block in self.blocks:
            out = block(out, *others)
        self.update = out - x if self.is_on else None
        return out


class Maker:
    """Latents of a batch in any of the ways, and how many evaluations they took."""

    def __init__(self, model: Resonate, duration_s: float) -> None:
        self.model, self.duration_s = model, duration_s
        network: Any = model.transformer
        blocks = list(network.single_blocks)
        self.kept = Kept(blocks[1:-1])
        network.single_blocks = nn.ModuleList([blocks[0], self.kept, blocks[-1]])
        self.evaluations = 0.0

    def sampling(self, way: Way) -> Sampling:
        """The settings of a way."""
        return self.model.config.sampling(self.duration_s, **way.settings)

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], seeds: Sequence[int], way: Way) -> Tensor:
        """Latents (row, frame, channel), normalised as the flow has them."""
        model, sampling = self.model, self.sampling(way)
        features, rows = model.encode_text(prompts), len(prompts)
        prompt = model.transformer.condition(features)
        empty = model.transformer.condition(model.transformer.empty_features(rows))
        self.evaluations, self.kept.update, self.kept.is_on = 0.0, None, way.reuse

        def network(z: Tensor, t: Tensor, conditions: Any) -> Tensor:
            self.evaluations += len(z) / rows
            out: Tensor = model.transformer(z, t, conditions)
            return out

        frames = model.config.num_frames(self.duration_s)
        noise = seeded_noise(seeds, frames, model.config.vae.latent_channels)
        if way.guide_every == 1:
            velocity = sampling_velocity(network, prompt, empty, sampling, False)
        else:
            velocity = now_and_then(network, prompt, empty, sampling.guidance_scale)
        return solve(velocity, noise, sampling)


def now_and_then(
    network: Callable[..., Tensor], prompt: Any, empty: Any, scale: float
) -> Callable[[Tensor, Tensor], Tensor]:
    """Guidance whose difference is computed at every second evaluation."""
    both = prompt.followed_by(empty)
    kept: Tensor | None = None

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        nonlocal kept
        if kept is not None:
            difference, kept = kept, None
            return network(z, t, prompt) + (scale - 1) * difference
        first, second = network(torch.cat([z, z]), torch.cat([t, t]), both).chunk(2)
        kept = first - second
        return first + (scale - 1) * kept

    return velocity


def read_prompts(number: int) -> list[str]:
    """Prompts spread evenly over the file."""
    lines = (PACKAGE / "prompts" / "fresh.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(lines[i * len(lines) // number])["prompt"] for i in range(number)]


def read_recordings(corpus: Path, hearing: TwoTowerHearing) -> np.ndarray:
    """Embeddings of the held-out recordings."""
    lines = (corpus / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    clips = [clip for clip in map(json.loads, lines) if clip["split"] != "train"]
    rows = []
    for shard in sorted({clip["shard"] for clip in clips}):
        samples, rate_hz = soundfile.read(corpus / "shards" / shard, dtype="float32")
        for clip in (clip for clip in clips if clip["shard"] == shard):
            part = samples[clip["start"] : clip["start"] + clip["frames"]]
            rows.append(hearing(Waveform(torch.from_numpy(part)[None], rate_hz)))
    return np.concatenate(rows)


def interval(values: np.ndarray) -> str:
    """Mean, and 95 % bootstrap interval."""
    drawn = np.random.default_rng(0).choice(values, (2000, len(values))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{values.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def distance(recordings: np.ndarray, rows: np.ndarray) -> str:
    """FAD, and 95 % bootstrap interval over clips."""
    generator = np.random.default_rng(0)
    drawn = [
        frechet_audio_distance(recordings, rows[generator.integers(len(rows), size=len(rows))])
        for _ in range(200)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{frechet_audio_distance(recordings, rows):.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    """Make, judge and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True, help="a flow with guidance, not distilled")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--duration", type=float, default=3.0)
    options = parser.parse_args()
    networks = read_networks(find_model(options.model))
    opened = Resonate.from_pretrained(options.model, "cpu")
    model = Resonate(networks, opened.text_encoder, device="cpu", transformer=networks.transformer)
    maker, prompts = Maker(model, options.duration), read_prompts(options.prompts)
    judge = MatcherReward.from_folder(PACKAGE / "judges" / "nano-eval")
    clap = TwoTowerReward.from_folder(PACKAGE / "judges" / "nano-clap")
    assert isinstance(clap, TwoTowerReward)
    hearing = TwoTowerHearing(clap)
    recordings = read_recordings(options.corpus, hearing)

    def make(way: Way) -> tuple[Tensor, dict[str, np.ndarray]]:
        latents: list[Tensor] = []
        heard: dict[str, list[np.ndarray]] = {"eval": [], "clap": [], "rows": []}
        for start in range(0, len(prompts), ROWS):
            texts = prompts[start : start + ROWS]
            z = maker(texts, range(start, start + len(texts)), way)
            latents.append(z)
            values = Latents(model.transformer.unnormalize(z), model.config.frame_rate_hz)
            wave = model.to_waveform(values)
            heard["eval"].append(asyncio.run(judge.score(wave, texts)).total.numpy())
            heard["clap"].append(asyncio.run(clap.score(wave, texts)).total.numpy())
            heard["rows"].append(hearing(wave))
        return torch.cat(latents), {name: np.concatenate(found) for name, found in heard.items()}

    print(f"| way | evaluations | error | nano-eval | nano-clap | FAD |\n|{' --- |' * 6}")
    fine: dict[float, Tensor] = {}
    base: dict[str, np.ndarray] = {}
    for way in track(WAYS, "ways"):
        scale = maker.sampling(way).guidance_scale
        if scale not in fine:
            fine[scale], _ = make(Way("fine", {"num_inference_steps": FINE, "solver": "ab2"}))
        z, heard = make(way)
        off = (z - fine[scale]).flatten(1).norm(dim=1)
        spread = (fine[scale] - fine[scale].mean()).flatten(1).norm(dim=1)
        base = base or heard
        cells = [
            way.name,
            f"{maker.evaluations:g}",
            f"{(off / spread).median():.3f}",
            interval(heard["eval"] - base["eval"]),
            interval(heard["clap"] - base["clap"]),
            distance(recordings, heard["rows"]),
        ]
        print(f"| {' | '.join(cells)} |", flush=True)
    print(f"\nof 25 steps: nano-eval {interval(base['eval'])}, nano-clap {interval(base['clap'])}")


if __name__ == "__main__":
    main()
