"""What a judge is examined on while it learns: pairs of a right and a wrong text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from resonate_audio.nano.judges.questions import WRONG_KINDS
from resonate_audio.nano.judges.scenes import ExamItem

Score = Callable[[Float[Tensor, "row sample"], list[str]], Float[Tensor, " row"]]
EXAM_SEED = 77
EXAM_BATCH = 16


@torch.no_grad()
def exam_scores(score: Score, exam: Sequence[ExamItem]) -> Float[Tensor, "item 2"]:
    """Scores of the right and the wrong text of each item."""
    rows = []
    for start in range(0, len(exam), EXAM_BATCH):
        items = exam[start : start + EXAM_BATCH]
        right = score(stacked([i.samples for i in items]), [i.right for i in items])
        wrong = score(stacked([i.wrong_samples for i in items]), [i.wrong for i in items])
        rows.append(torch.stack([right, wrong], dim=1).float())
    return torch.cat(rows)


def stacked(waves: Sequence[np.ndarray]) -> Float[Tensor, "row sample"]:
    """Sounds of one length as one tensor."""
    return torch.from_numpy(np.stack(waves))


def pair_accuracy(exam: Sequence[ExamItem], scores: Float[Tensor, "item 2"]) -> dict[str, float]:
    """Share of pairs in which the right text scores higher; a tie is half a hit."""
    hits = (scores[:, 0] > scores[:, 1]).float() + 0.5 * (scores[:, 0] == scores[:, 1]).float()
    return {
        f"pairs/{kind}": float(hits[[item.kind == kind for item in exam]].mean())
        for kind in WRONG_KINDS
    }
