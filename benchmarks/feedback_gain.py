"""How much better is what feedback taught, by every judge and form of prompt?

    recipes/nano/write_prompts --corpus CORPUS --drawn 20261202 20261203 20261204 --to work
    python benchmarks/feedback_gain.py work/drawn-2026120[34].jsonl [--taught ADAPTER[:weight] ...]

`nano` and what was taught (`nano-grpo`, or adapters of single runs, each a system) make two takes
of five seconds of every prompt from the same seeds. Means over takes are compared in pairs;
intervals are 95 % bootstraps over prompts, and of several runs over runs and prompts. ``guard``
below −0.05 is a take that is silent, drowned or clipped.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from resonate_audio import Resonate
from resonate_audio.core.documents.json_text import read_json_lines
from resonate_audio.rewards.catalogue import open_judge, parse_spec
from resonate_audio.rewards.desk import score_sounds

JUDGES = ("nano-eval", "nano-lalm", "nano-clap", "guard")
BAD_BELOW = -0.05
TAKES, DURATION_S = 2, 5.0
ROWS, FIRST_SEED, SEEDS_EACH = 6, 7000, 8
"""Prompts of one batch, and how seeds are spread over prompts: none is used twice."""
RESAMPLINGS = 10_000


def main() -> None:
    """Make, judge, compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("prompts", nargs="+", type=Path, help="files of write_prompts")
    parser.add_argument("--taught", nargs="+", default=["nano-grpo"], help="adapters, or nano-grpo")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [[line for _, line in read_json_lines(path)] for path in options.prompts]
    forms = np.array([line["form"] for file in lines for line in file])
    before = judged(Resonate.from_pretrained("nano", device="cpu"), lines)
    print(f"nano: {told(before)}", flush=True)
    gains = []
    for name in options.taught:
        taught = taught_model(name)
        after = judged(taught, lines)
        gains.append(after.mean(1) - before.mean(1))
        print(f"{name}: {told(after)}")
        print(f"  all {len(forms)}: {intervals(gains[-1:])}")
        for form in dict.fromkeys(forms.tolist()):
            chosen = forms == form
            print(f"  {form} {chosen.sum()}: {intervals([gains[-1][chosen]])}", flush=True)
    if len(gains) > 1:
        print(f"a run, over {len(gains)} runs and the prompts: {intervals(gains)}")


def taught_model(name: str) -> Resonate:
    """``nano-grpo``, or `nano` with an adapter."""
    if name == "nano-grpo":
        return Resonate.from_pretrained(name, device="cpu")
    return Resonate.from_pretrained("nano", device="cpu", adapters=[name])


def judged(
    model: Resonate,
    files: list[list[dict[str, str]]],
    num_steps: int | None = None,
    wording: Callable[[str], str] = str,
) -> np.ndarray:
    """Scores (prompt, take, judge); a file's seeds begin anew, so that it can be judged alone.

    Args:
        model: makes `TAKES` of each prompt.
        files: lines with a prompt.
        num_steps: of the sampler; None takes the model's own.
        wording: how the model is asked; the judges hear for the prompt as it is.
    """
    judges = [open_judge(parse_spec(name), torch.device("cpu")) for name in JUDGES]
    rows = []
    for lines in files:
        texts = [line["prompt"] for line in lines]
        for start in range(0, len(texts), ROWS):
            group = texts[start : start + ROWS]
            asked, takes = [wording(text) for text in group], []
            for take in range(TAKES):
                seeds = [FIRST_SEED + (start + n) * SEEDS_EACH + take for n in range(len(group))]
                sounds = model.generate(
                    asked, duration_s=DURATION_S, seeds=seeds, num_inference_steps=num_steps
                )
                takes.append([score_sounds(one, sounds, group).total.numpy() for one in judges])
            rows.append(np.array(takes).transpose(2, 0, 1))
    return np.concatenate(rows)


def told(scores: np.ndarray) -> str:
    """Mean of every judge, and the share of bad takes."""
    means = ", ".join(
        f"{name} {mean:.3f}" for name, mean in zip(JUDGES, scores.mean((0, 1)), strict=True)
    )
    return f"{means}; {(scores[..., -1] < BAD_BELOW).mean():.1%} bad takes"


def intervals(gains: list[np.ndarray]) -> str:
    """Mean difference of every judge with its interval, over runs (if several) and prompts."""
    runs, rng = np.stack(gains), np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLINGS):
        chosen = runs[rng.integers(0, len(runs), len(runs))]
        drawn.append(chosen[:, rng.integers(0, runs.shape[1], runs.shape[1])].mean((0, 1)))
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return ", ".join(
        f"{name} {mean:+.3f} [{a:.3f}, {b:.3f}]"
        for name, mean, a, b in zip(JUDGES, runs.mean((0, 1)), low, high, strict=True)
    )


if __name__ == "__main__":
    main()
