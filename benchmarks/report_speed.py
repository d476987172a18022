"""Seconds that a report takes by number of clips: numbers, then the page with linked sounds.

    python benchmarks/report_speed.py [--systems 5] [--metrics 7]

Scores are drawn; a fiftieth of the clips failed. One line a size, up to TTA-Bench's accuracy set.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from resonate_audio.evaluation.report.make import ScoredFolder, make_report
from resonate_audio.evaluation.report.page import PageConfig, render_report
from resonate_audio.evaluation.scores.scored import ClipScore, MetricCard, SystemScores

SIZES = (100, 500, 1500)


def made_system(number: int, num_clips: int, num_metrics: int) -> ScoredFolder:
    """A system with random scores, the later the better."""
    draw = np.random.default_rng(number)
    names = [f"metric-{k}" for k in range(num_metrics)]
    values = draw.normal(0.05 * number, 1, (num_clips, num_metrics))
    failed = draw.random(num_clips) < 0.02
    clips = tuple(
        ClipScore(
            id=f"{row:04d}",
            prompt=f"sound number {row}",
            file=f"{row:04d}.flac",
            values={} if failed[row] else dict(zip(names, values[row].tolist(), strict=True)),
            failure="silent" if failed[row] else None,
            signs={} if failed[row] else {"loudness_lufs": -23.0 + float(values[row, 0])},
        )
        for row in range(num_clips)
    )
    cards = tuple(MetricCard(name=name, fingerprint=name, worst=-3.0) for name in names)
    return ScoredFolder(
        Path(f"system-{number}"), SystemScores(system=f"system-{number}", cards=cards, clips=clips)
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--systems", type=int, default=5)
    parser.add_argument("--metrics", type=int, default=7)
    options = parser.parse_args()
    print(f"{'clips':>6} {'systems':>8} {'numbers s':>10} {'page s':>8} {'page kB':>8}")
    for size in SIZES:
        folders = [made_system(k, size, options.metrics) for k in range(options.systems)]
        began_s = time.perf_counter()
        report = make_report(folders)
        made_s = time.perf_counter()
        page = render_report(report, folders, PageConfig(link_audio=True), Path())
        done_s = time.perf_counter()
        print(
            f"{size:6} {options.systems:8} {made_s - began_s:10.2f} {done_s - made_s:8.2f} "
            f"{len(page) // 1000:8}"
        )


if __name__ == "__main__":
    main()
