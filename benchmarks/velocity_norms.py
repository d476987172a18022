"""Does feedback make velocities larger than they were?

    python benchmarks/velocity_norms.py [--taught ADAPTER[:weight] ...]

`nano` and what was taught (`nano-grpo`, or adapters of single runs) are asked for the mean velocity
at the same states: those that `nano` passes in its own four steps, prompts of ``held-out.jsonl``,
five seconds, one seed each. Means of ‖v‖ / ‖v_nano‖ over prompts with 95 % bootstraps, by step.
Learning from judged takes by regression is said to inflate it by 5 to 15 % [NormGuard,
arXiv:2606.27771].
"""

from __future__ import annotations

import argparse
from itertools import pairwise

import numpy as np
import torch
from feedback_gain import taught_model

from resonate_audio import Resonate
from resonate_audio.core.documents.json_text import read_json_lines
from resonate_audio.core.noise import noise_stream
from resonate_audio.core.sampling import Sampling
from resonate_audio.flow.times import grid_of
from resonate_audio.nano.bundle import PROMPTS_FOLDER
from resonate_audio.pipeline.request import make_batch
from resonate_audio.training.reinforce.divergence import norm_ratio

DURATION_S, ROWS, RESAMPLINGS = 5.0, 20, 10_000


def main() -> None:
    """Ask both at the same states, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--taught", nargs="+", default=["nano-grpo"], help="adapters, or nano-grpo")
    options = parser.parse_args()
    torch.set_num_threads(1)
    nano = Resonate.from_pretrained("nano", device="cpu")
    prompts = [line["prompt"] for _, line in read_json_lines(PROMPTS_FOLDER / "held-out.jsonl")]
    rng = np.random.default_rng(0)
    for name in options.taught:
        taught = taught_model(name)
        ratios = np.concatenate(
            [
                ratios_by_step(nano, taught, prompts[start : start + ROWS], start)
                for start in range(0, len(prompts), ROWS)
            ]
        )
        print(f"{name}, {len(ratios)} prompts")
        for step, column in enumerate((*ratios.T, ratios.mean(1))):
            drawn = rng.choice(column, (RESAMPLINGS, len(column))).mean(1)
            low, high = np.quantile(drawn, [0.025, 0.975])
            label = f"step {step + 1}" if step < ratios.shape[1] else "all"
            print(f"  {label}: {column.mean():.3f} [{low:.3f}, {high:.3f}]", flush=True)


@torch.no_grad()
def ratios_by_step(
    nano: Resonate, taught: Resonate, prompts: list[str], first_seed: int
) -> np.ndarray:
    """‖v‖ / ‖v_nano‖ (prompt, step) along the way of `nano`."""
    steps, guidance = nano.config.default_steps, nano.config.default_guidance
    sampling = Sampling(DURATION_S, num_inference_steps=steps, guidance_scale=guidance)
    batch = make_batch(prompts, seeds=first_seed)
    frames = nano.config.num_frames(DURATION_S)
    z = noise_stream(batch.seeds, frames, nano.config.vae.latent_channels)()
    times, found = grid_of(sampling), []
    before, after = nano.velocity(batch, sampling), taught.velocity(batch, sampling)
    for t, t_next in pairwise(times):
        velocity = before(z, t.expand(len(z)))
        found.append(norm_ratio(after(z, t.expand(len(z))), velocity))
        z = z + (t_next - t) * velocity
    return torch.stack(found, dim=1).double().numpy()


if __name__ == "__main__":
    main()
