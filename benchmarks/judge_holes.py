"""What do nano's judges say of sounds that nobody would keep?

    python benchmarks/judge_holes.py --corpus corpus [--scenes 120] [--judges clap lalm eval]

Scenes of recordings of the **test** split, which no judge has met, each with a text that describes
it, and the same sound spoiled in every way of `nano.judges.spoiling`: cut off, one click in
silence, noise, far too quiet, clipped, glued. For each way and judge: how often the sound scores
higher than its spoiled self under the same text (50 % is a coin), and the mean score of the spoiled
one, as a share of the way from another scene's text (0 %) to the sound itself (100 %).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from nano_judges import CORPUS, PACKAGE, open_judge, pairs

from resonate_audio.core.errors import ResonateError
from resonate_audio.nano.judges.scenes import JudgeData, open_scenes
from resonate_audio.nano.judges.spoiling import SPOILED, spoil
from resonate_audio.nano.judges.training.exam import Score

SEED = 20261129
ROWS = 16


def main() -> int:
    """Print one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--cache", type=Path, default=Path("work/judges/cache"))
    parser.add_argument("--folder", type=Path, default=PACKAGE, help="where nano-… judges lie")
    parser.add_argument("--judges", nargs="+", default=["clap", "lalm", "eval"])
    parser.add_argument("--scenes", type=int, default=120)
    options = parser.parse_args()
    try:
        table(options)
    except ResonateError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def table(options: argparse.Namespace) -> None:
    """Score every scene and all that is made of it."""
    data = JudgeData(corpus=options.corpus, cache=options.cache)
    source = open_scenes(data, "test", lambda line: print(line, file=sys.stderr))
    rng = np.random.default_rng(SEED)
    scenes = [source.maker.scene(rng) for _ in range(options.scenes)]
    texts = [source.maker.question(scene, "described", rng).text for scene in scenes]
    sounds = [source.render(scene, None) for scene in scenes]
    made = {how: [spoil(sound, how, rng) for sound in sounds] for how in SPOILED}
    print(f"{len(scenes)} scenes of recordings of the test split; higher than spoiled · score kept")
    print("| judge | " + " | ".join(SPOILED) + " |")
    print("| --- |" + " --- |" * len(SPOILED))
    for name in options.judges:
        judge = open_judge(name, options.folder / f"nano-{name}")
        right = scored(judge, sounds, texts)
        other = scored(judge, sounds, texts[1:] + texts[:1])
        cells = []
        for how in SPOILED:
            kept = scored(judge, made[how], texts)
            share = (kept.mean() - other.mean()) / (right.mean() - other.mean())
            cells.append(f"{pairs(np.stack([right, kept], axis=1)):.0%} · {share:.0%}")
        print(f"| nano-{name} | " + " | ".join(cells) + " |", flush=True)


@torch.no_grad()
def scored(judge: Score, sounds: list[np.ndarray], texts: list[str]) -> np.ndarray:
    """Scores of pairs, some at a time."""
    parts = [
        judge(torch.from_numpy(np.stack(sounds[at : at + ROWS])), texts[at : at + ROWS])
        for at in range(0, len(sounds), ROWS)
    ]
    return torch.cat(parts).float().numpy()


if __name__ == "__main__":
    sys.exit(main())
