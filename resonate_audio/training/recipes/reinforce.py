"""The recipe of a reinforcement run, and the run it describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Float
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor

from resonate_audio.core.config import GivenPath
from resonate_audio.core.errors import ConfigError
from resonate_audio.data.prompts import read_prompts
from resonate_audio.flow.times import uniform_grid
from resonate_audio.model.checkpoint import fingerprint_weights
from resonate_audio.model.folder import TEXT_ENCODER, Networks, part_folder, read_networks
from resonate_audio.model.hub import find_model, find_text_encoder
from resonate_audio.model.text_encoder import TextEncoder
from resonate_audio.pipeline.guests.guest import Guest
from resonate_audio.pipeline.path import Resonate
from resonate_audio.rewards.base import Reward
from resonate_audio.rewards.catalogue import open_reward, parse_specs
from resonate_audio.rewards.desk import JudgeDesk
from resonate_audio.rewards.fingerprints import hash_judge
from resonate_audio.training.algorithms.awm import AWMConfig, awm_step
from resonate_audio.training.algorithms.best_of_n import RAFTConfig, RWRConfig, best_of_n_step
from resonate_audio.training.algorithms.dpo import DPOConfig, dpo_step
from resonate_audio.training.algorithms.dppo import DPPOConfig, dppo_step
from resonate_audio.training.algorithms.grpo import GRPOConfig, grpo_step
from resonate_audio.training.algorithms.guard import GuardConfig, guard_step
from resonate_audio.training.algorithms.nft import NFTConfig, nft_step
from resonate_audio.training.loop.distributed import current_ranks, joined_ranks
from resonate_audio.training.loop.run_config import TrainerConfig
from resonate_audio.training.loop.start import resolve_device, settle_precision, train
from resonate_audio.training.loop.trainer import RunResult
from resonate_audio.training.reinforce.advantage import AdvantageConfig
from resonate_audio.training.reinforce.evaluate import EvaluationConfig, Evaluator, TakeKeeper
from resonate_audio.training.reinforce.experience import TakeMaker
from resonate_audio.training.reinforce.lora import LoraSettings
from resonate_audio.training.reinforce.policy import Policy
from resonate_audio.training.reinforce.rollout import SamplerConfig
from resonate_audio.training.reinforce.trainer import (
    EVALUATION_LOG,
    HELD_OUT,
    LearningStep,
    PolicyTask,
    ReinforcePlan,
    ReinforceTask,
    ReinforceTrainer,
)

Say = Callable[[str], None]
AlgorithmConfig = Annotated[
    GRPOConfig
    | GuardConfig
    | DPPOConfig
    | NFTConfig
    | AWMConfig
    | DPOConfig
    | RWRConfig
    | RAFTConfig,
    Field(discriminator="kind"),
]
BY_LIKELIHOOD = (GRPOConfig, GuardConfig, DPPOConfig)
"""Algorithms that need stochastic steps with a density."""
BY_TOTAL = (DPOConfig, RWRConfig, RAFTConfig)
"""Algorithms that rank the takes of a prompt by the judge's total."""


class PolicyRecipe(TrainerConfig):
    """What runs that teach a trained model have in common."""

    model: str = "nano"
    """What to teach: a bundled model, a model folder, a hub id, ``tangoflux:FOLDER`` or
    ``stable-audio:FOLDER``."""
    duration_s: PositiveFloat | None = None
    """Length of a sound; the model's default if None."""
    reward_timeout_s: PositiveFloat = 300.0
    lora: LoraSettings | None = None
    """Train adapters instead of every weight."""
    train_only: str | None = None
    """Train only the weights whose whole name matches this regular expression; None trains all."""
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _no_micro_batches(self) -> PolicyRecipe:
        if self.run.micro_batches != 1:
            raise ValueError(
                f"run.micro_batches {self.run.micro_batches}: expected 1; an update that is too "
                "large for the memory is divided by sampler.rows_per_batch, or pairs_per_batch"
            )
        return self


class ReinforceRecipe(PolicyRecipe):
    """Everything that a reinforcement run is made of."""

    prompts: GivenPath
    """File of texts to practise on: one a line, or JSON lines."""
    prompts_per_step: int = Field(4, ge=1, le=100_000)
    takes: int = Field(8, ge=2, le=10_000)
    """Takes of each prompt: the group that a take is compared with."""
    updates_per_step: int = Field(1, ge=1, le=10_000)
    """Optimiser updates from one rollout, each from its share of the takes."""
    reward: str
    """Judge or judges, as `resonate_audio.rewards.open_reward` reads them."""
    sampler: SamplerConfig = SamplerConfig()
    advantage: AdvantageConfig = AdvantageConfig()
    algorithm: AlgorithmConfig
    takes_every: int = Field(10, ge=0)
    """Steps between takes that are kept to be heard; 0 keeps none."""

    @model_validator(mode="before")
    @classmethod
    def _no_pairs(cls, values: Any) -> Any:
        if isinstance(values, dict) and "pairs" in values:
            raise ValueError("pairs: only `resonate train dpo` learns from pairs of sounds")
        return values

    @model_validator(mode="after")
    def _algorithm_fits_sampler(self) -> ReinforceRecipe:
        if isinstance(self.algorithm, BY_LIKELIHOOD) and self.sampler.kind == "ode":
            raise ValueError(
                f"sampler.kind ode has no density, which {self.algorithm.kind} needs; "
                "use ou, flow_sde, dance_sde or cps"
            )
        return self

    @model_validator(mode="after")
    def _algorithm_fits_takes(self) -> ReinforceRecipe:
        algorithm = self.algorithm
        if isinstance(algorithm, RAFTConfig) and algorithm.keep > self.takes:
            raise ValueError(
                f"algorithm.keep {algorithm.keep}: expected at most takes, {self.takes}"
            )
        if isinstance(algorithm, BY_TOTAL) and self.advantage.combine == "gdpo":
            raise ValueError(
                f"advantage.combine gdpo: expected total, by which {algorithm.kind} ranks takes"
            )
        return self


def train_reinforce(recipe: ReinforceRecipe, say: Say) -> RunResult:
    """Run a reinforcement recipe, or go on with the run it began.

    Raises:
        ConfigError: a judge or setting is unknown.
        ManifestError: a prompt file is broken.
        RewardError: a judge failed; the last whole step was saved.
    """
    check_held_out(recipe)
    texts = read_prompts(recipe.prompts)
    if len(texts) < recipe.prompts_per_step:
        raise ConfigError(
            f"prompts_per_step {recipe.prompts_per_step}: {recipe.prompts} has only {len(texts)}"
        )
    count, takes = recipe.prompts_per_step, recipe.takes
    with joined_ranks(recipe.run.device) as ranks:
        recipe = settle_precision(recipe, ranks)
        ranks.say(say)(f"{len(texts)} prompts, {count} of them a step, {takes} takes each")
        with JudgeDesk(compute_beside=resolve_device(recipe.run.device).type != "cpu") as desk:
            return train(partial(build_task, recipe, texts, desk), recipe, ReinforceTrainer)


def check_held_out(recipe: ReinforceRecipe) -> None:
    """Refuse a held-out judge that trains.

    Raises:
        ConfigError: names the judge, or one of them is unknown.
    """
    if recipe.evaluation.held_out is None:
        return
    training = {(one.kind, one.source) for one in parse_specs(recipe.reward) if one.weight}
    for judge in parse_specs(recipe.evaluation.held_out):
        if (judge.kind, judge.source) in training:
            raise ConfigError(
                f"evaluation.held_out {judge.text}: expected a judge that does not train, but "
                f"reward is {recipe.reward}"
            )


def build_task(
    recipe: ReinforceRecipe, texts: tuple[str, ...], desk: JudgeDesk, device: torch.device
) -> ReinforceTask:
    """Load model and judges, and put the task together."""
    levels = recipe.sampler.schedule(range(0)).levels
    pupil = load_pupil(recipe, recipe.sampler.guidance_scale, device, levels)
    maker = TakeMaker(
        pupil.policy, pupil.resonate, recipe.sampler, pupil.num_frames, recipe.run.seed, desk,
        current_ranks(),
    )  # fmt: skip
    reward = open_reward(recipe.reward, device=device, timeout_s=recipe.reward_timeout_s)
    plan = make_plan(recipe, texts)
    task = ReinforceTask(maker, reward, plan, pupil.networks, pupil.text_encoder)
    task.contents = pupil.contents() | {"reward (its code and weights)": hash_judge(reward)}
    task.observe = TakeKeeper(recipe.run.output, recipe.takes_every).keep
    listen_in(task, recipe, pupil, reward, device)
    return task


@dataclass(frozen=True)
class Pupil:
    """A trained model, set up to be taught further."""

    networks: Networks | Guest
    policy: Policy
    resonate: Resonate | Guest
    """Around the policy's model."""
    text_encoder: Path | None
    """Its folder, if it travels with the model."""
    duration_s: float

    @property
    def num_frames(self) -> int:
        """Latent frames of a sound."""
        return self.networks.config.num_frames(self.duration_s)

    def contents(self) -> dict[str, str]:
        """Hash of the model that the run starts from, whatever its name or place."""
        others = fingerprint_weights(self._frozen_states())
        return {"model": f"{self.policy.start:x} {others}"}

    def _frozen_states(self) -> Sequence[Mapping[str, Tensor]]:
        if isinstance(self.networks, Guest):
            return self.networks.states()
        assert isinstance(self.resonate, Resonate)
        parts = (self.networks.vae, self.networks.vocoder)
        return [*(dict(p.state_dict()) for p in parts), *self.resonate.text_encoder.states()]


def load_pupil(
    recipe: PolicyRecipe,
    guidance_scale: float | None,
    device: torch.device,
    times: Float[Tensor, " time"] | None = None,
) -> Pupil:
    """Load what a recipe teaches.

    Args:
        recipe: names the model and what of it is trained.
        guidance_scale: of rollout, training, evaluation and the exported model; None trains
            without any, and leaves the model's default. The form of a guest has no place for one.
        device: where to compute.
        times: as `Policy` takes them; None: of the steps that the model takes by default.

    Raises:
        ModelNotFoundError: there is no such model.
        InputError: the model makes no sounds of that length.
    """
    precision = torch.bfloat16 if recipe.run.precision == "bf16" else None
    taught_with = 1.0 if guidance_scale is None else guidance_scale
    guest = open_guest(recipe.model, recipe.duration_s)
    if guest is not None:
        guest.to(device)
        policy = Policy(
            guest.network.train(), taught_with, recipe.lora, precision, recipe.train_only, times
        )
        return Pupil(guest, policy, guest, None, guest.duration_s)
    with current_ranks().first_alone():  # it may have to download
        folder = find_model(recipe.model, None, False)
    networks, encoder = load_model(folder)
    duration_s = recipe.duration_s or networks.config.default_duration_s
    networks.config.check_duration(duration_s)
    networks.config.sampling(duration_s, guidance_scale=taught_with)  # it may take none
    if guidance_scale is not None:
        used = networks.config.model_copy(update={"default_guidance": guidance_scale})
        networks = replace(networks, config=used)
    model = networks.transformer.to(device).train()
    times = uniform_grid(networks.config.default_steps) if times is None else times
    policy = Policy(model, taught_with, recipe.lora, precision, recipe.train_only, times)
    resonate = Resonate(networks, encoder, device=device, transformer=model)
    inside = part_folder(folder, TEXT_ENCODER)
    return Pupil(networks, policy, resonate, inside if inside.is_dir() else None, duration_s)


def open_guest(model: str, duration_s: float | None) -> Guest | None:
    """The foreign generator that a recipe names; None where it names one of ours.

    Raises:
        ResonateError: as the ``from_folder`` of each guest says.
    """
    match model.partition(":")[0]:
        case "tangoflux":
            from resonate_audio.pipeline.guests.tangoflux import TangoFlux

            return TangoFlux.from_folder(model, duration_s)
        case "stable-audio":
            from resonate_audio.pipeline.guests.stable_audio import StableAudio

            return StableAudio.from_folder(model, duration_s)
    return None


def load_model(folder: Path) -> tuple[Networks, TextEncoder]:
    """Networks to train and their text encoder, in float32 on the CPU."""
    networks = read_networks(folder)
    config = networks.config.text_encoder
    return networks, TextEncoder.from_folder(config, find_text_encoder(config, folder, False))


def make_plan(recipe: ReinforceRecipe, texts: tuple[str, ...]) -> ReinforcePlan:
    """What the task repeats."""
    algorithm = recipe.algorithm
    return ReinforcePlan(
        texts=texts,
        prompts_per_step=recipe.prompts_per_step,
        takes=recipe.takes,
        updates_per_step=recipe.updates_per_step,
        advantage=recipe.advantage,
        learn=choose_step(algorithm, recipe.sampler.rows_per_batch),
        from_reference=isinstance(algorithm, DPOConfig) and not algorithm.online,
        remember_decay=remember_decay(algorithm),
    )


def remember_decay(algorithm: AlgorithmConfig) -> float | None:
    """How much of older weights an algorithm's old policy keeps; None if it needs none."""
    if isinstance(algorithm, NFTConfig):
        return algorithm.old_decay
    return 0.0 if isinstance(algorithm, AWMConfig) else None


def choose_step(algorithm: AlgorithmConfig, rows: int) -> LearningStep:
    """The learning step of an algorithm, its settings bound."""
    match algorithm:
        case GRPOConfig():
            return partial(grpo_step, config=algorithm, rows_per_batch=rows)
        case GuardConfig():
            return partial(guard_step, config=algorithm, rows_per_batch=rows)
        case DPPOConfig():
            return partial(dppo_step, config=algorithm, rows_per_batch=rows)
        case NFTConfig():
            return partial(nft_step, config=algorithm, rows_per_batch=rows)
        case AWMConfig():
            return partial(awm_step, config=algorithm, rows_per_batch=rows)
        case DPOConfig():
            return partial(dpo_step, config=algorithm, rows_per_batch=rows)
        case RWRConfig() | RAFTConfig():
            return partial(best_of_n_step, config=algorithm, rows_per_batch=rows)


def listen_in(
    task: PolicyTask, recipe: PolicyRecipe, pupil: Pupil, reward: Reward, device: torch.device
) -> None:
    """Have the run's prompts made and judged on the way, if the recipe has any."""
    config = recipe.evaluation
    if config.prompts is None:
        return
    judges = {f"evaluation/{reward.name}": reward}
    if config.held_out is not None:
        timeout_s = recipe.reward_timeout_s
        held_out = open_reward(config.held_out, device=device, timeout_s=timeout_s)
        judges[f"{HELD_OUT}{held_out.name}"] = held_out
    log = recipe.run.output / EVALUATION_LOG
    prompts = read_prompts(config.prompts)
    evaluator = Evaluator(pupil.resonate, prompts, judges, config, pupil.duration_s, log)
    evaluator.tell = lambda text: task.tell(text)  # which the trainer sets later
    evaluator.is_stopping = lambda: task.is_stopping()
    task.evaluate = evaluator
