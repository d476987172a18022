"""Learning from pairs of sounds that people compared: DPO without a judge."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

from resonate_audio.audio.mel import MelFrontEnd
from resonate_audio.core.config import GivenPath
from resonate_audio.core.errors import ConfigError, TrainingError
from resonate_audio.data.batches import BatchPlan
from resonate_audio.pipeline.guests.guest import Guest
from resonate_audio.rewards.catalogue import open_reward
from resonate_audio.training.algorithms.dpo import DPOConfig, learn_from_pairs
from resonate_audio.training.algorithms.pairs import (
    PairList,
    PairSet,
    encode_files,
    make_pair_set,
    read_pairs,
)
from resonate_audio.training.loop.distributed import Ranks, check_split, current_ranks, joined_ranks
from resonate_audio.training.loop.run_config import TrainerConfig
from resonate_audio.training.loop.start import settle_precision, train
from resonate_audio.training.loop.trainer import RunResult
from resonate_audio.training.recipes.reinforce import (
    PolicyRecipe,
    Pupil,
    listen_in,
    load_pupil,
)
from resonate_audio.training.reinforce.experience import Metrics
from resonate_audio.training.reinforce.trainer import PolicyTask, PolicyTrainer, Update

Say = Callable[[str], None]
PAIRS = "pairs"
"""Where a checkpoint says which pairs the run learns from."""
OF_TAKES = ("prompts", "prompts_per_step", "takes", "updates_per_step", "sampler", "advantage")


class PairRecipe(PolicyRecipe):
    """Everything that a run on given pairs is made of."""

    pairs: GivenPath
    """``pairs.jsonl`` of a listening test; its sounds are cut or padded to ``duration_s``."""
    pairs_per_step: int = Field(8, ge=1, le=100_000)
    pairs_per_batch: int = Field(8, ge=1, le=100_000)
    """Pairs that are computed together, over all processes."""
    algorithm: DPOConfig = DPOConfig()
    reward: str | None = None
    """Judge of ``evaluation.prompts``; no judge has a part in what is learnt."""

    @model_validator(mode="before")
    @classmethod
    def _no_takes(cls, values: Any) -> Any:
        found = [name for name in OF_TAKES if isinstance(values, dict) and name in values]
        if found:
            raise ValueError(
                f"{found[0]}: pairs bring their own texts and sounds, so that no take is made; "
                f"leave out {', '.join(found)}, as recipes/nano/dpo-pairs.yaml does, or pairs"
            )
        return values

    @model_validator(mode="after")
    def _fits_pairs(self) -> PairRecipe:
        if self.algorithm.online:
            raise ValueError("algorithm.online: pairs are given, so there is nothing to be online")
        if (self.reward is None) != (self.evaluation.prompts is None):
            raise ValueError(
                "reward and evaluation.prompts: expected both, the judge and what it is to judge, "
                "or neither"
            )
        return self


class PairTask(PolicyTask):
    """Pairs of a list, some a step; the policy moves towards what people prefer."""

    def __init__(self, pupil: Pupil, pairs: PairSet, recipe: PairRecipe) -> None:
        """Put together what a run needs.

        Args:
            pupil: what is taught.
            pairs: what it is taught from, on the pupil's device.
            recipe: how many pairs, how often, how firmly.
        """
        super().__init__(pupil.policy, pupil.networks, pupil.text_encoder)
        self.pairs = pairs
        self.recipe = recipe
        sizes, rows = [len(pairs.winners)], [recipe.pairs_per_step]
        self.batches = BatchPlan(sizes, rows, recipe.run.seed)

    def check_ranks(self, ranks: Ranks) -> None:
        """Refuse batches of pairs that the processes cannot share evenly."""
        check_split(self.recipe.pairs_per_batch, ranks, "pairs_per_batch")

    def learn(self, update: Update) -> Metrics:
        """Gradients of an update over the pairs that are its rows."""
        rows = update.rows.to(self.policy.device)
        pairs = self.pairs.draw(rows, self.policy.model.normalize, update.generator)
        config, size = self.recipe.algorithm, self.recipe.pairs_per_batch
        return learn_from_pairs(self.policy, pairs, update, config, size)

    def extra_state(self) -> dict[str, Tensor]:
        """Which model is the reference, and which pairs are learnt from."""
        return super().extra_state() | {PAIRS: torch.tensor(self.pairs.fingerprint)}

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        """Compare with what `extra_state` gave.

        Raises:
            TrainingError: the model that the run started from, or a pair, is another now.
        """
        others = {name: value for name, value in state.items() if name != PAIRS}
        if int(state[PAIRS]) != self.pairs.fingerprint:
            raise TrainingError(
                f"{self.recipe.pairs}: the pairs or their sounds have changed since the last "
                "checkpoint; put them back, or choose another run.output"
            )
        super().load_extra_state(others)


class PairTrainer(PolicyTrainer):
    """A `Trainer` whose step is one update from some pairs."""

    task: PairTask

    def __init__(self, task: PairTask, config: TrainerConfig, device: torch.device) -> None:
        super().__init__(task, config, device)
        self.task = task

    def update(self) -> None:
        """Draw pairs, learn, average."""
        began = time.perf_counter()
        self.set_rate(self.optimizers["model"])
        rows = self.task.batches.batch(self.step).rows
        metrics = self.learn_once(rows, 0, self.task.learn)
        seconds = torch.tensor(time.perf_counter() - began)
        self.pending.add(self.step, metrics | {"seconds/update": seconds})
        self.advance()


def train_on_pairs(recipe: PairRecipe, say: Say) -> RunResult:
    """Run a recipe of pairs, or go on with the run it began.

    Raises:
        ManifestError: the list of pairs or the evaluation's prompts are broken.
        AudioError: a sound of a pair cannot be used.
        ConfigError: a judge or setting is unknown.
    """
    listed = read_pairs(recipe.pairs)
    with joined_ranks(recipe.run.device) as ranks:
        recipe = settle_precision(recipe, ranks)
        return train(partial(build_pair_task, recipe, listed, ranks.say(say)), recipe, PairTrainer)


def build_pair_task(
    recipe: PairRecipe, listed: PairList, say: Say, device: torch.device
) -> PairTask:
    """Load the model, encode the pairs, put the task together."""
    pupil = load_pupil(recipe, None, device)
    resonate, files = pupil.resonate, listed.files()
    if isinstance(resonate, Guest):
        raise ConfigError(
            f"model {recipe.model}: pairs of sounds teach models of this package; a guest learns "
            "from its own takes, as in `resonate train grpo`"
        )
    mel = MelFrontEnd(resonate.config.mel).to(device)
    with current_ranks().first_alone():  # the others read files that are in memory by then
        sounds = encode_files(files, resonate.vae, mel, pupil.num_frames)
    say(
        f"{len(listed.pairs)} pairs of {len(files)} sounds, {recipe.pairs_per_step} of them a "
        f"step, {pupil.duration_s:g} s each: {sounds.num_cut} are longer and lose their end, "
        f"{sounds.num_padded} shorter and followed by silence"
    )
    task = PairTask(pupil, make_pair_set(listed, sounds, resonate.encode_text), recipe)
    task.contents = pupil.contents() | {"pairs": f"{task.pairs.fingerprint:x}"}
    if recipe.reward is not None:
        reward = open_reward(recipe.reward, device=device, timeout_s=recipe.reward_timeout_s)
        listen_in(task, recipe, pupil, reward, device)
    return task
