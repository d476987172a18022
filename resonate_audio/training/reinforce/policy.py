"""The generator that is being taught, and what it was before."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from resonate_audio.core.errors import ConfigError
from resonate_audio.core.types import TextFeatures
from resonate_audio.flow.guidance import guided, needs_empty
from resonate_audio.flow.mean_flow import MeanVelocity, in_steps, level_below, mean_flow_target
from resonate_audio.flow.path import Velocity
from resonate_audio.flow.times import logit_normal_times
from resonate_audio.model.checkpoint import fingerprint_weights
from resonate_audio.model.flow_transformer import FlowTransformer
from resonate_audio.pipeline.guests.guest import GuestNetwork
from resonate_audio.training.loop.distributed import like
from resonate_audio.training.reinforce.lora import LoraSettings, add_lora, without_lora

Taught = FlowTransformer | GuestNetwork
"""A network that can be taught."""


class Policy:
    """Velocities of the model in training and of the reference it started from.

    Rollout and training go through the same method of the same module in the same number format,
    which is what makes the probability ratio of an on-policy step exactly 1.
    """

    def __init__(
        self,
        model: Taught,
        guidance_scale: float = 1.0,
        lora: LoraSettings | None = None,
        precision: torch.dtype | None = None,
        train_only: str | None = None,
        times: Float[Tensor, " time"] | None = None,
    ) -> None:
        """Take a model, which is changed in place.

        Args:
            model: float32 weights to start from.
            guidance_scale: w of classifier-free guidance, in rollout and training alike; 1 trains
                the prompted branch alone at half the cost.
            lora: train adapters of this size; None trains every weight, and the reference is a
                frozen copy.
            precision: number format of the forward pass under autocast; None is float32.
            train_only: regular expression for whole names of the weights to train, without
                adapters; None trains all.
            times: noise levels of the sampler. A model of mean velocities gives, at each, the
                one that leads to the next, so that what is taught is what such a model is used
                for; asked with a guidance scale of its own, or without levels, it gives the
                velocity at any level.

        Raises:
            ConfigError: no weight has such a name, or adapters are asked for, too.
        """
        self.model = model
        self.guidance_scale = guidance_scale
        self.precision = precision
        self.times: Float[Tensor, " time"] | None = None
        """Rising levels, of a model of mean velocities alone."""
        if times is not None and model.config.mean_velocity:
            self.times = times.sort().values
        self.fingerprint = fingerprint_weights([model.state_dict()])
        """Of the weights that the reference has."""
        self.start = int(self.fingerprint[:15], 16)
        """The same as a number."""
        self.frozen: Taught | None = None
        self.remembered: dict[str, Tensor] = {}
        if lora is None:
            self.frozen = copy.deepcopy(model).eval().requires_grad_(False)
        else:
            add_lora(model, lora)
        if train_only is not None:
            freeze_others(model, train_only, lora)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def regressed_guidance(self) -> float | None:
        """What regression losses bind with: the prompted branch alone, whatever made the takes.

        Of mean velocities it is those between the levels of `times`, which are what is used.
        """
        return 1.0 if self.times is None else None

    def regressed_levels(self, generator: torch.Generator, rows: int) -> Float[Tensor, " row"]:
        """Noise levels at which regression losses are taken, one a row.

        As in pre-training; of mean velocities those of `times` that a step begins at.
        """
        device = generator.device
        if self.times is None:
            return logit_normal_times(torch.randn(rows, generator=generator, device=device))
        starts = self.times[1:].to(device)
        return starts[torch.randint(len(starts), (rows,), generator=generator, device=device)]

    def regressed_target(
        self,
        features: TextFeatures,
        z: Float[Tensor, "row frame channel"],
        t: Float[Tensor, " row"],
        velocity: Float[Tensor, "row frame channel"],
    ) -> Float[Tensor, "row frame channel"]:
        """What a regression on data aims at: their velocity, or the mean one that goes with it.

        Args:
            features: of the prompts.
            z: noised data.
            t: noise levels.
            velocity: noise minus data.
        """
        if self.times is None:
            return velocity

        def bind(part: Int[Tensor, " part"]) -> MeanVelocity:
            conditions = self.model.condition(features.rows(part))
            return lambda z, t, r: self.model(z, t, conditions, r)

        return mean_flow_target(bind, z, t, level_below(t, self.times), velocity)

    def bind(self, features: TextFeatures, guidance_scale: float | None = None) -> Velocity:
        """Velocity of (z, t) for prompts, one a row; with a gradient where one is wanted.

        Args:
            features: the prompts'.
            guidance_scale: another w than the policy's own.
        """
        return self._bind(self.model, features, guidance_scale)

    def bind_reference(
        self, features: TextFeatures, guidance_scale: float | None = None
    ) -> Velocity:
        """The same of the model before training, without a gradient."""
        return self._bind_within(self.as_reference, features, guidance_scale)

    def bind_remembered(
        self, features: TextFeatures, guidance_scale: float | None = None
    ) -> Velocity:
        """The same of the weights that `remember` kept, without a gradient.

        They are put into the model while it computes, so this comes before the forward pass that
        is differentiated, never between that and its backward.
        """
        return self._bind_within(self.as_remembered, features, guidance_scale)

    def remember(self, decay: float = 0.0) -> None:
        """Keep the weights as they are now, or move those kept before: d·old + (1−d)·new."""
        current = trained_weights(self.model)
        if decay and self.remembered:
            for name, value in current.items():
                value.lerp_(like(self.remembered[name], value), decay)
        self.remembered = current

    @contextmanager
    def as_reference(self) -> Iterator[Taught]:
        """The model before training: the frozen copy, or this one with its adapters off."""
        if self.frozen is not None:
            yield self.frozen
            return
        with without_lora(self.model):
            yield self.model

    @contextmanager
    def as_remembered(self) -> Iterator[Taught]:
        """The model with the weights that were kept, for a while."""
        now = trained_weights(self.model)
        load_weights(self.model, self.remembered)
        try:
            yield self.model
        finally:
            load_weights(self.model, now)

    def _bind_within(
        self,
        weights: Callable[[], AbstractContextManager[Taught]],
        features: TextFeatures,
        guidance_scale: float | None,
    ) -> Velocity:
        """Velocity of a model that is there only while it computes."""

        @torch.no_grad()
        def velocity(
            z: Float[Tensor, "row frame channel"], t: Float[Tensor, " row"]
        ) -> Float[Tensor, "row frame channel"]:
            with weights() as model:
                return self._bind(model, features, guidance_scale)(z, t)

        return velocity

    def _bind(
        self, model: Taught, features: TextFeatures, guidance_scale: float | None
    ) -> Velocity:
        scale = self.guidance_scale if guidance_scale is None else guidance_scale
        with self.autocast():
            prompt = model.condition(features)
            empty = None
            if needs_empty(scale):
                empty = model.condition(model.empty_features(len(features.pooled)))
        if self.times is not None and guidance_scale is None:
            velocity = in_steps(lambda z, t, r: model(z, t, prompt, r), self.times)
        else:
            velocity = guided(model, prompt, empty, scale)

        def in_float32(
            z: Float[Tensor, "row frame channel"], t: Float[Tensor, " row"]
        ) -> Float[Tensor, "row frame channel"]:
            with self.autocast():
                return velocity(z, t).float()

        return in_float32

    def autocast(self) -> torch.autocast:
        """A stretch in the number format of training."""
        dtype = self.precision or torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.precision is not None)


def freeze_others(model: nn.Module, train_only: str, lora: LoraSettings | None) -> None:
    """Let only the weights be trained whose whole name matches.

    Raises:
        ConfigError: there are none, the expression is broken, or adapters are asked for, too.
    """
    if lora is not None:
        raise ConfigError("train_only: has no meaning beside lora, which has its own targets")
    try:
        pattern = re.compile(train_only)
    except re.error as error:
        raise ConfigError(f"train_only {train_only!r}: no regular expression ({error})") from error
    chosen = [name for name, _ in model.named_parameters() if pattern.fullmatch(name)]
    if not chosen:
        raise ConfigError(f"train_only {train_only!r}: no weight has such a name")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the parameters that want a gradient."""
    return {
        name: parameter.detach().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


@torch.no_grad()
def load_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy some weights into a model, in place."""
    parameters = dict(model.named_parameters())
    for name, value in weights.items():
        parameters[name].copy_(like(value, parameters[name]))
