"""From a judge's recipe to a finished run."""

from __future__ import annotations

from collections.abc import Callable

import torch

from resonate_audio.nano.judges.scenes import draw_exam, open_scenes
from resonate_audio.nano.judges.training.captions import open_reader
from resonate_audio.nano.judges.training.clap import ClapRecipe, ClapTask
from resonate_audio.nano.judges.training.eval import EvalModules, EvalRecipe, EvalTask
from resonate_audio.nano.judges.training.exam import EXAM_SEED
from resonate_audio.nano.judges.training.lalm import LalmRecipe, make_lalm_task
from resonate_audio.nano.judges.training.task import start_from
from resonate_audio.rewards.small.two_tower import TwoTower
from resonate_audio.training.loop.start import train
from resonate_audio.training.loop.task import Task
from resonate_audio.training.loop.trainer import RunResult

Say = Callable[[str], None]


def train_judge(recipe: ClapRecipe | EvalRecipe | LalmRecipe, say: Say) -> RunResult:
    """Run a judge's recipe to its end, or to its time limit."""
    scenes = open_scenes(recipe.data, "train", say)
    exam = draw_exam(open_scenes(recipe.data, "val", say), recipe.exam_each, EXAM_SEED)

    def build(device: torch.device) -> Task:
        if isinstance(recipe, ClapRecipe):
            return ClapTask(recipe, TwoTower(recipe.network), open_reader(), scenes, exam)
        if isinstance(recipe, EvalRecipe):
            modules = EvalModules(recipe.network, len(scenes.classes.labels))
            if recipe.start is not None:
                start_from(modules, recipe.start)
            return EvalTask(recipe, modules, open_reader(), scenes, exam)
        return make_lalm_task(recipe, scenes, exam)

    return train(build, recipe)
