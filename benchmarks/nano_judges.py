"""How well do nano's judges tell right texts from wrong ones, by kind of mistake?

    python benchmarks/nano_judges.py --corpus corpus [--each 300] [--judges clap lalm eval]

Scenes are mixed from the recordings of the **test** split, which no judge has met, and each comes
with two pairs of sound and text that differ in one respect: an event is missing from the sound, an
event of the text is another one, two events are swapped, or a count is wrong. Recordings are not
augmented. Three numbers a kind:

* **pairs**: how often the right pair scores higher than its own wrong one (chance 50 %), which is
  what a reward is used for;
* **AUC**: how often a right pair scores higher than any wrong one of the kind (chance 50 %);
* **accuracy** of yes and no, at one threshold a judge for all kinds, chosen on the *val* split.

Intervals are 95 % bootstraps over recordings, not over scenes: scenes with the same first recording
are drawn together, since there are only about a hundred recordings. The control, ``deaf``, lets
nano-lalm answer about the sound of another scene: what is above 50 % there, the texts give away.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from resonate_audio.core.errors import ResonateError
from resonate_audio.core.types import Waveform
from resonate_audio.nano.judges.questions import WRONG_KINDS
from resonate_audio.nano.judges.scenes import ExamItem, JudgeData, draw_exam, open_scenes
from resonate_audio.nano.judges.sounds import RATE_HZ
from resonate_audio.nano.judges.training.exam import Score, exam_scores
from resonate_audio.rewards.audio_llm.model import AudioLLM
from resonate_audio.rewards.base import Reward
from resonate_audio.rewards.desk import score_now
from resonate_audio.rewards.small.matcher import MatcherReward
from resonate_audio.rewards.small.two_tower import TwoTowerReward

PACKAGE = Path(__file__).resolve().parents[1] / "resonate_audio" / "nano" / "judges"
CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus"
NUM_BOOTSTRAPS = 1000
TEST_SEED, VAL_SEED = 20261124, 20261125


def open_judge(name: str, folder: Path) -> Score:
    """A judge as a function of sounds and texts."""
    if name == "lalm":
        llm = AudioLLM.from_folder(folder, torch.device("cpu"), torch.float32)
        return lambda waves, texts: llm.answers(llm.prepare(waves, texts)).log_odds
    reward: Reward = (
        TwoTowerReward.from_folder(folder) if name == "clap" else MatcherReward.from_folder(folder)
    )
    return lambda waves, texts: score_now(reward, Waveform(waves, RATE_HZ), texts).total


def pairs(scores: np.ndarray) -> float:
    """Share of rows whose first score is higher; ties count half."""
    return float(np.mean((scores[:, 0] > scores[:, 1]) + 0.5 * (scores[:, 0] == scores[:, 1])))


def auc(scores: np.ndarray) -> float:
    """Chance that any first score exceeds any second one."""
    right, wrong = np.sort(scores[:, 0]), scores[:, 1]
    above = len(right) - np.searchsorted(right, wrong, side="right")
    equal = np.searchsorted(right, wrong, side="right") - np.searchsorted(right, wrong, side="left")
    return float(np.mean(above + 0.5 * equal) / len(right))


def accuracy(scores: np.ndarray, threshold: float) -> float:
    """Share of right answers when yes is said above ``threshold``."""
    return float(np.mean([scores[:, 0] > threshold, scores[:, 1] <= threshold]))


def best_threshold(scores: np.ndarray) -> float:
    """Where most answers are right; the middle between two neighbouring scores."""
    values = np.unique(scores)
    middles = (values[1:] + values[:-1]) / 2
    if not len(middles):
        return float(values[0])
    return float(max(middles, key=lambda threshold: accuracy(scores, threshold)))


def interval(
    measure: Callable[[np.ndarray], float], scores: np.ndarray, groups: np.ndarray
) -> tuple[float, float]:
    """95 % bootstrap of a measure over groups of rows."""
    chooser, names = np.random.default_rng(0), np.unique(groups)
    members = [np.flatnonzero(groups == name) for name in names]
    values = [
        measure(scores[np.concatenate([members[i] for i in drawn])])
        for drawn in chooser.integers(len(names), size=(NUM_BOOTSTRAPS, len(names)))
    ]
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def cell(measure: Callable[[np.ndarray], float], scores: np.ndarray, groups: np.ndarray) -> str:
    """A measure with its interval, in percent."""
    low, high = interval(measure, scores, groups)
    return f"{measure(scores):.1%} [{low:.0%}, {high:.0%}]"


def table(
    exam: Sequence[ExamItem], results: dict[str, np.ndarray], thresholds: dict[str, float]
) -> list[str]:
    """One line a kind and measure, one column a judge."""
    groups = np.array([item.scene.placements[0].source for item in exam])
    kinds = np.array([item.kind for item in exam])
    lines = [
        "| kind of mistake | measure | " + " | ".join(results) + " |",
        "| --- " * (len(results) + 2) + "|",
    ]
    for kind in (*WRONG_KINDS, "all"):
        rows = np.ones(len(exam), bool) if kind == "all" else kinds == kind
        measured: dict[str, list[str]] = {"pairs": [], "AUC": [], "accuracy": []}
        for judge, scores in results.items():
            at_threshold = partial(accuracy, threshold=thresholds[judge])
            for name, of in zip(measured, (pairs, auc, at_threshold), strict=True):
                measured[name].append(cell(of, scores[rows], groups[rows]))
        for name, cells in measured.items():
            lines.append(f"| {kind} ({rows.sum()}) | {name} | " + " | ".join(cells) + " |")
    return lines


def count_lines(exam: Sequence[ExamItem], scores: np.ndarray, words: Sequence[str]) -> list[str]:
    """Pairs by how far a wrong count is off."""
    by_distance: dict[int, list[int]] = {}
    for index, item in enumerate(exam):
        if item.kind == "wrong count":
            said = next(n for n, w in enumerate(words, 1) if item.wrong.endswith(tuple(w)))
            by_distance.setdefault(abs(said - item.scene.events[0].count), []).append(index)
    return [
        f"count off by {distance}: pairs {pairs(scores[rows]):.1%} of {len(rows)}"
        for distance, rows in sorted(by_distance.items())
    ]


def deaf(exam: Sequence[ExamItem], score: Score) -> np.ndarray:
    """Scores with every sound exchanged for that of an item half the exam away.

    Both texts get the same one: of "missing event" nothing is left to tell, and it ties.
    """
    far = [exam[(index + len(exam) // 2) % len(exam)] for index in range(len(exam))]
    moved = [
        ExamItem(item.kind, item.scene, other.samples, item.right, other.samples, item.wrong)
        for item, other in zip(exam, far, strict=True)
    ]
    return exam_scores(score, moved).double().numpy()


def read_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--cache", type=Path, default=Path("work/judges/cache"))
    parser.add_argument("--folder", type=Path, default=PACKAGE, help="holds nano-clap, nano-lalm …")
    parser.add_argument("--judges", nargs="+", default=["clap", "lalm", "eval"])
    parser.add_argument("--each", type=int, default=300, help="scenes of each kind")
    parser.add_argument("--decoded", action="store_true", help="recordings after nano's decoder")
    parser.add_argument("--json", type=Path, help="write the scores there")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Print the table; exit 2 with one line on a mistake of the caller."""
    options = read_options(arguments)
    data = JudgeData(corpus=options.corpus, cache=options.cache)
    try:
        test = open_scenes(data, "test", print)
        exam = draw_exam(test, options.each, TEST_SEED, options.decoded)
        val = draw_exam(open_scenes(data, "val", print), options.each // 2, VAL_SEED)
        results, thresholds = {}, {}
        for name in options.judges:
            begun = time.perf_counter()
            score = open_judge(name, options.folder / f"nano-{name}")
            thresholds[name] = best_threshold(exam_scores(score, val).double().numpy())
            results[name] = exam_scores(score, exam).double().numpy()
            print(f"{name}: threshold {thresholds[name]:.3f}, {time.perf_counter() - begun:.0f} s")
            if name == "lalm":
                results["deaf"], thresholds["deaf"] = deaf(exam, score), thresholds[name]
    except ResonateError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    sources = {p.source for item in exam for p in item.scene.placements}
    print(f"\n{len(exam)} scenes of {len(sources)} test recordings\n")
    print("\n".join(table(exam, results, thresholds)))
    words = [[" once"], [" twice", " two times"], [" three times"], [" four times"]]
    for name in options.judges:
        print(
            f"\n{name}: " + "; ".join(count_lines(exam, results[name], [*words, [" five times"]]))
        )
    if options.json:
        options.json.write_text(json.dumps({n: s.tolist() for n, s in results.items()}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
