"""What a judge that chooses is worth: the best of N takes, heard by a judge that did not choose.

    python benchmarks/best_of.py [--prompts 100] [--takes 8] [--judges nano-lalm nano-clap]

Prompts of ``held-out.jsonl``, spread evenly; sounds of five seconds in the steps that the model
takes itself. For each N the mean over all choices of N among a prompt's takes of what ``nano-eval``
says of the one that the judge likes most; N = 1 is a take without a choice. Intervals are 95 %
bootstraps over prompts of the difference to N = 1. *itself* lets nano-eval choose, which is the
most that could be had.
"""

from __future__ import annotations

import argparse
from itertools import combinations

import numpy as np

from resonate_audio import Resonate
from resonate_audio.core.documents.json_text import read_json_lines
from resonate_audio.evaluation.statistics import bootstrap_mean
from resonate_audio.nano.bundle import PROMPTS_FOLDER
from resonate_audio.rewards import open_reward
from resonate_audio.rewards.desk import score_sounds

HELD_OUT = "nano-eval"
DURATION_S = 5.0


def main() -> None:
    """Make takes, let every judge score them, and print a table by kind of prompt."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--takes", type=int, default=8)
    parser.add_argument("--judges", nargs="+", default=["nano-lalm", "nano-clap"])
    options = parser.parse_args()
    lines = [line for _, line in read_json_lines(PROMPTS_FOLDER / "held-out.jsonl")]
    step = len(lines) / min(options.prompts, len(lines))
    chosen = [lines[int(n * step)] for n in range(min(options.prompts, len(lines)))]
    scores = score_takes(options.model, chosen, options.takes, [*options.judges, HELD_OUT])
    forms = np.array([line["form"] for line in chosen])
    sizes = [n for n in (1, 2, 4, 8, 16, 32) if n <= options.takes]
    print("| prompts | chosen by | " + " | ".join(f"best of {n}" for n in sizes) + " | gain |")
    print("|---|---" + "|---" * (len(sizes) + 1) + "|")
    for form in [*dict.fromkeys(forms), "all"]:
        rows = np.ones(len(forms), bool) if form == "all" else forms == form
        for judge in (*options.judges, HELD_OUT):
            table = np.stack(
                [expected_best(scores[judge][rows], scores[HELD_OUT][rows], n) for n in sizes], 1
            )
            gain = bootstrap_mean(table[:, -1] - table[:, 0], [1] * len(table))
            cells = " | ".join(f"{value:.3f}" for value in table.mean(0))
            name = "itself" if judge == HELD_OUT else judge
            shown = f"{gain.value:+.3f} [{gain.low:.3f}, {gain.high:.3f}]"
            print(f"| {form} ({rows.sum()}) | {name} | {cells} | {shown} |")


def score_takes(
    name: str, lines: list[dict[str, str]], takes: int, judges: list[str]
) -> dict[str, np.ndarray]:
    """Scores of every judge, prompt × take."""
    model, rewards = Resonate.from_pretrained(name), {one: open_reward(one) for one in judges}
    scores: dict[str, list[np.ndarray]] = {one: [] for one in judges}
    for number, line in enumerate(lines):
        texts = [line["prompt"]] * takes
        sounds = model.generate(texts, seeds=number * takes, duration_s=DURATION_S)
        for one, reward in rewards.items():
            scores[one].append(score_sounds(reward, sounds, texts).total.numpy())
    return {one: np.stack(rows) for one, rows in scores.items()}


def expected_best(choosing: np.ndarray, heard: np.ndarray, size: int) -> np.ndarray:
    """Of each prompt: mean of ``heard`` where ``choosing`` is largest, over all sets of takes."""
    sets = np.array(list(combinations(range(choosing.shape[1]), size)))
    best = choosing[:, sets].argmax(2)
    places = sets[np.arange(len(sets))[None], best]
    picked: np.ndarray = np.take_along_axis(heard, places, 1).mean(1)
    return picked


if __name__ == "__main__":
    main()
