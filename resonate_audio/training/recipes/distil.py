"""The recipe that makes a flow transformer need few steps and no guidance."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, model_validator

from resonate_audio.core.config import GivenPath
from resonate_audio.core.errors import ConfigError
from resonate_audio.data.shards.read import LatentShards
from resonate_audio.model.checkpoint import State, load_strict, read_weights
from resonate_audio.model.flow_transformer import FlowTransformer, with_second_time
from resonate_audio.model.linear_vae import AnyVAE
from resonate_audio.model.presets import MAX_MEAN_STEPS, with_few_steps
from resonate_audio.training.loop.distributed import current_ranks
from resonate_audio.training.loop.start import train
from resonate_audio.training.loop.trainer import RunResult
from resonate_audio.training.pretrain.distil import GuidedConfig, GuidedTask
from resonate_audio.training.pretrain.mean_flow import (
    MeanFlowConfig,
    MeanFlowTask,
    MeanVelocityTask,
)
from resonate_audio.training.pretrain.shards import ShardPretrainTask
from resonate_audio.training.pretrain.task import PretrainTask
from resonate_audio.training.recipes.model import (
    Say,
    load_text_encoder,
    load_vae,
    open_waves,
    weights_file,
)
from resonate_audio.training.recipes.pretrain import (
    PretrainRecipe,
    check_shards,
    check_vae,
    encode_data,
    make_listener,
    write_model,
)

SECOND_TIME = "end_timestep."
"""How the names of weights begin that only networks of mean velocities have."""

NEAR = 0.05
"""Of a deviation: statistics of the same latents, drawn with other clips, differ by less."""


class DistilRecipe(PretrainRecipe):
    """Teach a trained flow transformer to predict mean velocities.

    ``objective: meanflow`` alone stands for that objective with its own defaults.
    """

    default_steps: int = Field(4, ge=1, le=MAX_MEAN_STEPS)
    """Steps that the model takes when nobody says how many."""
    objective: Annotated[GuidedConfig | MeanFlowConfig, Field(discriminator="kind")] = (
        GuidedConfig()
    )
    student: GivenPath | None = None
    """Where the student of a teacher begins: an earlier one, or nano's transformer; as its teacher
    if None."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("objective"), str):
            return values | {"objective": {"kind": values["objective"]}}
        return values

    @model_validator(mode="after")
    def _starts_from_a_flow(self) -> DistilRecipe:
        if self.weights.transformer is None:
            raise ValueError("weights.transformer is not set: a flow that was trained before")
        for name in ("channel_exponent", "latent_scale"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name}: the latents keep the statistics of weights.transformer")
        if self.mean_flow is not None:
            raise ValueError("mean_flow: put it into objective, with kind: meanflow")
        if self.lora is not None:
            raise ValueError("lora: a student is trained whole")
        if self.student is not None and isinstance(self.objective, MeanFlowConfig):
            raise ValueError("student: without a teacher it begins as weights.transformer")
        return self


def train_distil(recipe: DistilRecipe, say: Say) -> RunResult:
    """Run a distillation recipe, or go on with the run it began.

    Raises:
        ConfigError: the flow to start from has other latents, or is distilled itself; or the
            student to start from is not of it.
        TrainingError: the run was begun with another teacher.
    """
    state = read_start(recipe)
    flow = recipe.flow.model_copy(update={"condition_dropout": 0.0})
    waves = None if recipe.data.shards is not None else open_waves(recipe, say)

    def build(device: torch.device) -> MeanVelocityTask:
        model = make_student(recipe, state).to(device)
        encoder = load_text_encoder(recipe, device)
        vae = None
        if waves is not None or recipe.listen.prompts or recipe.weights.vae:
            vae = load_vae(recipe, device)
        listener = None if vae is None else make_listener(recipe, encoder, vae, device)
        source: PretrainTask
        if waves is None:
            assert recipe.data.shards is not None
            shards = LatentShards(recipe.data.shards, say)
            check_shards(recipe, shards)
            if vae is not None:
                check_vae(vae, shards)
            source = ShardPretrainTask(
                model, shards, flow, recipe.run.seed, current_ranks(), listener,
                recipe.data.shuffle_window,
            )  # fmt: skip
            contents = {"data.shards": shards.shards.content()}
        else:
            assert vae is not None
            data = encode_data(recipe, waves, vae, encoder, say).to(device)
            source = PretrainTask(model, data, flow, recipe.run.seed, listener)
            contents = {"data.manifest": waves.content()}
        dropout, objective = recipe.flow.condition_dropout, recipe.objective
        task: MeanVelocityTask
        if isinstance(objective, MeanFlowConfig):
            task = MeanFlowTask(source, dropout, objective)
        else:
            teacher = load_plain(recipe, state).to(device)
            task = GuidedTask(source, dropout, objective, teacher, recipe.default_steps)
        if vae is not None and recipe.weights.vocoder is not None:
            task.finish = partial(write_student, recipe, vae)
        task.contents = contents
        return task

    return train(build, recipe)


def read_start(recipe: DistilRecipe) -> State:
    """The weights to start from.

    Raises:
        ConfigError: their latents are not the recipe's, or a teacher is distilled itself.
    """
    assert recipe.weights.transformer is not None
    file = weights_file(recipe.weights.transformer)
    state = read_weights(file)
    channels, expected = state.get("latent_mean"), recipe.model.transformer.latent_channels
    if channels is not None and channels.shape[-1] != expected:
        raise ConfigError(
            f"weights.transformer {file}: its latents have {channels.shape[-1]} channels, those "
            f"of {recipe.model.name} {expected}; a student has its teacher's latents"
        )
    if isinstance(recipe.objective, GuidedConfig) and is_distilled(state):
        raise ConfigError(
            f"weights.transformer {file}: is distilled itself, so it has no guided way to teach; "
            "give the flow that it came from, or set objective: meanflow to train it further"
        )
    return state


def is_distilled(state: State) -> bool:
    """Whether the weights are those of a network that predicts mean velocities."""
    return any(name.startswith(SECOND_TIME) for name in state)


def write_student(
    recipe: DistilRecipe, vae: AnyVAE, student: FlowTransformer, folder: Path
) -> None:
    """Put the student beside the VAE and the vocoder that the recipe names: a model to be used."""
    config = with_few_steps(recipe.model, recipe.default_steps)
    write_model(recipe, config, vae, student, folder)


def load_plain(recipe: DistilRecipe, state: State, file: Path | None = None) -> FlowTransformer:
    """The network that weights hold; of ``weights.transformer`` unless they are of another file."""
    config = recipe.model.transformer.model_copy(update={"mean_velocity": is_distilled(state)})
    model = FlowTransformer(config)
    load_strict(model, state, str(file or recipe.weights.transformer))
    return model


def make_student(recipe: DistilRecipe, state: State) -> FlowTransformer:
    """A network of mean velocities that begins as an earlier one, or else as what the weights hold.

    It takes the latent statistics of what it is taught by.

    Raises:
        ConfigError: the earlier one predicts no mean velocities, or has other latents.
    """
    if recipe.student is None:
        model = load_plain(recipe, state)
        return model if is_distilled(state) else with_second_time(model)
    file = weights_file(recipe.student)
    own = read_weights(file)
    if not is_distilled(own):
        raise ConfigError(
            f"student {file}: predicts no mean velocities; leave it out to begin as the teacher"
        )
    student = load_plain(recipe, own, file)
    for name in ("latent_mean", "latent_std"):
        here, there = getattr(student, name), state.get(name)
        if there is None:
            continue
        if (here - there).abs().gt(NEAR * student.latent_std).any():
            raise ConfigError(f"student {file}: its {name} is not that of its teacher's latents")
        here.copy_(there)
    return student
