"""How good and how long are sounds of `nano` in 1, 2, 4, 8 and 25 steps?

    python benchmarks/nano_steps.py [--steps 1 2 4 8 25] [--model nano]

Two takes of five seconds of each prompt of ``fresh.jsonl`` (150: one sound, two together, two in
order), judged by all judges, with 95 % intervals of the difference to the model's own steps over
prompts; and seconds of one thread for a sound of ten seconds, best of three, in the same process.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from feedback_gain import BAD_BELOW, JUDGES, intervals, judged

from resonate_audio import Resonate
from resonate_audio.core.documents.json_text import read_json_lines
from resonate_audio.nano.bundle import PROMPTS_FOLDER

REPEATS = 3


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 8, 25])
    parser.add_argument("--model", default="nano")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = Resonate.from_pretrained(options.model, device="cpu")
    lines = [line for _, line in read_json_lines(PROMPTS_FOLDER / "fresh.jsonl")]
    own = model.config.default_steps
    usual = judged(model, [lines], own)
    print(f"| steps | {' | '.join(JUDGES[:-1])} | bad takes | seconds of 10 s |")
    print("|---" * (len(JUDGES) + 2) + "|")
    for steps in options.steps:
        scores = usual if steps == own else judged(model, [lines], steps)
        means = " | ".join(f"{mean:.3f}" for mean in scores.mean((0, 1))[:-1])
        bad = (scores[..., -1] < BAD_BELOW).mean()
        print(f"| {steps} | {means} | {bad:.1%} | {seconds(model, steps):.2f} |")
        print(f"  less {own} steps: {intervals([scores.mean(1) - usual.mean(1)])}", flush=True)


def seconds(model: Resonate, steps: int) -> float:
    """Processor time of one sound of ten seconds."""
    took = []
    for _ in range(REPEATS):
        begin = time.process_time()
        model.generate("a dog barks", seeds=0, duration_s=10.0, num_inference_steps=steps)
        took.append(time.process_time() - begin)
    return float(np.min(took))


if __name__ == "__main__":
    main()
