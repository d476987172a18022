"""Pictures of prompts, one seed each, nothing chosen.

    python benchmarks/prompt_pictures.py [--model nano nano-grpo] [--output docs/images/nano.png]

Every model makes each prompt from the same seed, 5 s, in its own steps; a row of pictures a model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from resonate_audio import Resonate
from resonate_audio.audio.spectrogram import levels_db

PROMPTS = (
    "a dog barks", "rain falling", "a rooster crows", "a church bell rings",
    "a piano plays a short melody", "a dog barks, then rain starts", "footsteps on gravel",
    "thunder rolls", "glass breaks", "a man says hello", "a violin plays a long note", "wind blows",
)  # fmt: skip
COLUMNS, DURATION_S = 4, 5.0


def main() -> None:
    """Make the sounds and draw them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["nano"])
    parser.add_argument("--output", type=Path, default=Path("docs/images/nano.png"))
    options = parser.parse_args()
    rows = len(PROMPTS) // COLUMNS * len(options.model)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(12, 1.9 * rows), layout="constrained")
    for number, name in enumerate(options.model):
        model = Resonate.from_pretrained(name, device="cpu")
        sounds = model.generate(PROMPTS, seeds=0, duration_s=DURATION_S)
        for index, (prompt, sound) in enumerate(zip(PROMPTS, sounds, strict=True)):
            row = index // COLUMNS * len(options.model) + number
            place = axes[row, index % COLUMNS]
            levels = levels_db(sound.samples, sound.sample_rate_hz)
            place.imshow(levels, origin="lower", aspect="auto", cmap="magma", vmin=-70, vmax=0)
            title = prompt if len(options.model) == 1 else f"{prompt} ({name})"
            place.set_title(title, fontsize=9)
            place.set_xticks([])
            place.set_yticks([])
    figure.savefig(options.output, dpi=60)


if __name__ == "__main__":
    main()
