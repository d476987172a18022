"""Lessons that judges share: another microphone, classes of frames, names of what sounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from resonate_audio.nano.judges.questions import TOO_ALIKE, Classes, Scene
from resonate_audio.nano.judges.scenes import SceneBatch, activity
from resonate_audio.rewards.small.matcher import Matcher
from resonate_audio.rewards.small.two_tower import TwoTower
from resonate_audio.training.loop.task import Losses, full_precision


def pictures_of(
    network: TwoTower | Matcher, waves: Float[Tensor, "row sample"]
) -> Float[Tensor, "row band hop"]:
    """The log-mel that a network hears, whatever the precision of the run."""
    with torch.no_grad(), full_precision(waves.device):
        return network.pictures(waves)


def altered(
    pictures: Float[Tensor, "row band hop"], rng: np.random.Generator, strength: float
) -> Float[Tensor, "row band hop"]:
    """Another microphone: a smooth curve over the bands is added; and one row of bands goes."""
    rows, bands, _ = pictures.shape
    knots = torch.from_numpy(rng.normal(0, strength, (rows, 1, 6))).float()
    curve = F.interpolate(knots, size=bands, mode="linear", align_corners=True)
    changed = pictures + curve.transpose(1, 2).to(pictures)
    widths, starts = rng.integers(0, bands // 6, rows), rng.uniform(0, 1, rows)
    places = torch.arange(bands)
    begin = torch.from_numpy((starts * (bands - widths)).astype(int))[:, None]
    gone = (places >= begin) & (places < begin + torch.from_numpy(widths)[:, None])
    floor = pictures.amin(dim=(1, 2), keepdim=True)
    return torch.where(gone[..., None].to(pictures.device), floor, changed)


def soft_cross_entropy(
    logits: Float[Tensor, "row frame class"], targets: Float[Tensor, "row frame class"]
) -> Float[Tensor, ""]:
    """Cross-entropy with shares of classes, mean over frames."""
    return -(targets * logits.float().log_softmax(dim=2)).sum(dim=2).mean()


def naming_loss(
    frames: Float[Tensor, "scene frame dim"],
    words: Float[Tensor, "event dim"],
    scenes: Sequence[Scene],
    classes: Classes,
) -> Float[Tensor, ""]:
    """Cross-entropy of each sounding frame's choice among a caption of every event.

    Captions of one class are equally right; those of classes that are too alike are no choice.

    Args:
        frames: what is heard.
        words: what one caption of each event says, scene by scene.
        scenes: what lies where.
        classes: which labels are alike.
    """
    active = [torch.from_numpy(activity(scene, frames.shape[1])).float() for scene in scenes]
    heard = torch.block_diag(*active).T.to(frames.device)  # type: ignore[no-untyped-call]
    rows = torch.tensor([classes.index[e.label] for scene in scenes for e in scene.events])
    alike = torch.from_numpy(classes.similarity)[rows][:, rows].to(frames.device) >= TOO_ALIKE
    same = (rows[:, None] == rows[None]).to(frames.device)
    sounding = heard.any(dim=1)
    targets = heard[sounding] @ same.float()
    unfair = (heard[sounding] @ (alike & ~same).float() > 0) & (targets == 0)
    logits = frames.flatten(0, 1)[sounding] @ words.T / frames.shape[2] ** 0.5
    shares = targets / targets.sum(dim=1, keepdim=True)
    return soft_cross_entropy(logits.masked_fill(unfair, -1e4)[None], shares[None])


def detached(losses: Mapping[str, Tensor]) -> Losses:
    """For the log."""
    return {name: value.detach() for name, value in losses.items()}


def by_kind(right: Float[Tensor, " question"], batch: SceneBatch) -> dict[str, Tensor]:
    """Share of right answers to yes and to each kind of no."""
    kinds = [question.kind for asked in batch.questions for question in asked]
    groups: dict[str, list[int]] = {}
    for index, kind in enumerate(kinds):
        groups.setdefault(kind, []).append(index)
    return {f"right/{kind}": right[indices].mean() for kind, indices in groups.items()}
