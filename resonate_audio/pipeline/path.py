"""Prompt to waveform: the only place where model meets flow.

Stations: texts → ``encode_text`` → ``TextFeatures`` → ``sample_latents`` → ``Latents`` →
``decode`` → ``Mel`` → ``vocode`` → ``Waveform`` → peak-safe ``Audio`` with its recipe.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from resonate_audio.audio.finish import finish_sound
from resonate_audio.audio.io import peak_safe
from resonate_audio.audio.mel import MelFrontEnd
from resonate_audio.core.edit import LONGEST_S, Edit
from resonate_audio.core.errors import InputError
from resonate_audio.core.noise import seeded_noise
from resonate_audio.core.paths import given_path
from resonate_audio.core.sampling import MAX_ROWS, FurtherSettings, Sampling
from resonate_audio.core.threads import cpu_threads
from resonate_audio.core.types import Audio, Latents, Mel, Recipe, TextFeatures, Waveform
from resonate_audio.flow.guidance import needs_empty
from resonate_audio.flow.mean_flow import sampling_velocity
from resonate_audio.flow.ode import OnStep, solve
from resonate_audio.flow.path import Velocity
from resonate_audio.flow.windows import one_prompt, windowed
from resonate_audio.model.adapter import Adapter, add_adapters, read_adapter
from resonate_audio.model.bigvgan import BigVGAN
from resonate_audio.model.checkpoint import fingerprint_weights
from resonate_audio.model.fast_flow import release_weights
from resonate_audio.model.flow_transformer import FlowEnds
from resonate_audio.model.folder import (
    BUNDLED,
    TEXT_ENCODER,
    Networks,
    Storage,
    Vocoder,
    own_version,
    part_folder,
    read_config,
    read_networks,
    read_part,
    write_networks,
)
from resonate_audio.model.hub import bundled_models, find_model, find_text_encoder
from resonate_audio.model.hub_client import upload
from resonate_audio.model.linear_vae import AnyVAE
from resonate_audio.model.presets import ModelConfig
from resonate_audio.model.published.names import published_model
from resonate_audio.model.text_encoder import BorrowedTextEncoder, TextEncoder
from resonate_audio.model.vae import MelVAE
from resonate_audio.pipeline.device import (
    choose_device,
    choose_dtype,
    count_weights,
    for_inference,
    vocoder_for_inference,
)
from resonate_audio.pipeline.edit import Editing, Source, replay_edit
from resonate_audio.pipeline.remake import window_places
from resonate_audio.pipeline.request import (
    Batch,
    PromptCutWarning,
    make_batch,
    warn_of_idle_negatives,
)

BATCH_SIZE = 16
"""Rows of one batch unless the caller says otherwise; twice that with guidance."""
SHELVE_FROM_WEIGHTS = 10_000_000
"""Half of a VAE this large stays on the disk until a sound is encoded: most only make sounds."""
TILE_FRAMES = 1024
"""Latent frames that are decoded at once; longer sounds are decoded in tiles of this."""
TILE_HOPS = 1024
"""Mel hops that are vocoded at once."""
HOPS_PER_GROUP = {"cpu": 1024, "mps": 2048}
"""Hops of all rows that go through VAE and vocoder together: memory over speed on small devices."""
HOPS_PER_GROUP_CUDA = 16_384


class Resonate(Editing):
    """A text-to-audio model, ready to generate.

    Example::

        resonate = Resonate.from_pretrained("nano")
        [audio] = resonate.generate("a rooster crows, then rain falls", seeds=7)
    """

    def __init__(
        self,
        networks: Networks,
        text_encoder: TextEncoder | BorrowedTextEncoder,
        name: str | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        folder: Path | None = None,
        transformer: FlowEnds | None = None,
        adapters: Sequence[Adapter] = (),
    ) -> None:
        """Take networks that are in memory.

        Args:
            networks: flow transformer, VAE and vocoder, in float32 on the CPU. VAE and vocoder are
                prepared for inference in place; the transformer is copied, unless ``folder`` says
                where it can be read again: then its weights are taken, to spare memory.
            text_encoder: texts to features.
            name: what recipes call the model; its configuration's name by default.
            device: cpu, cuda, cuda:1 or mps; the fastest there is by default.
            dtype: number format of the flow transformer; everything else stays in float32, but
                for a large BigVGAN beside a flow in bfloat16 on a CPU that is fast in it.
            folder: model folder that the networks were read from, unchanged.
            transformer: a flow transformer to use as it is, where it is, such as one that is being
                trained; by default an inference form of the one in ``networks``.
            adapters: added to the weights of the transformer in ``networks``.

        Raises:
            InputError: no such device here, or a number format that is not trusted on it.
            CheckpointError: an adapter is of another model.
        """
        self.config: ModelConfig = networks.config
        self.name = name or networks.config.name
        self.device = choose_device(device)
        num_weights = 0 if transformer else count_weights(networks.transformer)
        self.dtype = choose_dtype(dtype, self.device, num_weights=num_weights)
        self.adapters = tuple(adapters)
        add_adapters(networks.transformer, adapters, self.name)
        networks.vae.fold_weight_norm()
        self.fingerprint = fingerprint_weights(
            [*networks.states().values(), *text_encoder.states()]
        )
        self._networks, self._folder = networks, folder
        self.vae: AnyVAE = networks.vae.to(self.device)
        self.vocoder: Vocoder = vocoder_for_inference(networks.vocoder, self.device, self.dtype)
        if folder is not None and self.vocoder is not networks.vocoder:
            networks.vocoder.to("meta")
        self.text_encoder = text_encoder.to(self.device)
        for network in (self.vae, self.vocoder):
            network.eval().requires_grad_(False)
        self.transformer: FlowEnds = transformer or for_inference(
            networks.transformer, self.device, self.dtype, release=folder is not None
        ).eval().requires_grad_(False)
        half = self.vae.encoder if folder is not None and isinstance(self.vae, MelVAE) else None
        if half is not None and count_weights(half) >= SHELVE_FROM_WEIGHTS:
            release_weights(half)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = "nano",
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        low_memory: bool = False,
        adapters: Sequence[str | Path] = (),
        on_config: Callable[[ModelConfig], None] | None = None,
    ) -> Resonate:
        """Load a model.

        Args:
            name: a bundled model (``nano``), a published one (``resonate``), a model folder, or a
                hub id ``owner/name``.
            device: cpu, cuda, cuda:1 or mps; the fastest there is by default.
            dtype: number format of the flow transformer; by default float32, on CUDA bfloat16, and
                for a large model bfloat16 on a CPU that is measured to be twice as fast in it.
            revision: commit, branch or tag of a hub repository.
            local_files_only: never use the network.
            low_memory: give back the text encoder's memory after each use, and take bfloat16
                where the device has it and no ``dtype`` is asked for.
            adapters: files of low-rank changes that are added to it, as ``FILE`` or
                ``FILE:weight``.
            on_config: told what the model is before its weights are read; what it raises ends that.

        Raises:
            ModelNotFoundError: no such model; lists what exists.
            CheckpointError: its weights are broken; names the file and the first bad key. Or an
                adapter is of another model; names both.
            InputError: no such device here, or a number format that is not trusted on it.
        """
        device = choose_device(device)
        if dtype is not None or low_memory:
            dtype = choose_dtype(dtype, device, smallest=low_memory)
        several = [adapters] if isinstance(adapters, str | Path) else adapters
        changes = [read_adapter(one) for one in several]
        folder = find_model(name, revision, local_files_only)
        if on_config is not None:
            on_config(read_config(folder))
        networks = read_networks(folder)
        config = networks.config.text_encoder
        encoder_folder = find_text_encoder(config, folder, local_files_only)
        read = BorrowedTextEncoder if low_memory else TextEncoder.from_folder
        return cls(
            networks,
            read(config, encoder_folder),
            name=recorded_name(name, revision),
            device=device,
            dtype=dtype,
            folder=folder,
            adapters=changes,
        )

    def save_pretrained(
        self, folder: str | Path, storage: Storage = "float32", overwrite: bool = False
    ) -> None:
        """Write the model as a folder that ``from_pretrained`` reads; whole or not at all.

        The weights are those that this object was made from, its adapters added, whatever number
        format it runs in: with ``storage="float32"`` they come back bit-equal.

        Raises:
            OutputError: the folder exists (and ``overwrite`` is false) or cannot be written.
            CheckpointError: a weight does not fit into ``storage``, or the folder that the model
                was read from is gone.
        """
        networks, encoder = self._networks, None
        if self._folder is not None:
            networks = read_networks(self._folder)
            add_adapters(networks.transformer, self.adapters, self.name)
            inside = part_folder(self._folder, TEXT_ENCODER)
            encoder = inside if inside.is_dir() else None
        write_networks(given_path(folder), networks, encoder, storage, overwrite)

    def push_to_hub(
        self,
        repo_id: str,
        private: bool = False,
        message: str = "Upload model",
        storage: Storage = "float32",
        revision: str | None = None,
    ) -> str:
        """Send the model to a Hugging Face repository, made if need be; returns its address.

        Raises:
            ResonateError: no token, no right to write, or no network.
        """
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "model"
            self.save_pretrained(folder, storage)
            return upload(folder, repo_id, private, message, revision)

    def generate(
        self,
        prompts: str | Sequence[str],
        negative_prompt: str | Sequence[str] | None = None,
        duration_s: float | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        seeds: int | Sequence[int] | None = None,
        on_step: OnStep | None = None,
        batch_size: int = BATCH_SIZE,
        **further: Unpack[FurtherSettings],
    ) -> list[Audio]:
        """Make one sound per prompt.

        The same seed gives the same latents in any batch, at any position and on any device, up to
        the rounding of the kernels; the recipe records the whole batch, so that ``replay`` gives
        the same bits. Sounds are cut to exactly ``round(duration_s · rate)`` samples: the official
        code leaves up to one latent frame more (441,344 instead of 441,000 for 10 s).

        Args:
            prompts: a text, or one a row.
            negative_prompt: what not to hear, for all rows or one a row; empty: nothing.
            duration_s: seconds; the model's default if None. What is longer than the model takes
                at once is solved in windows that overlap, up to ten minutes.
            num_inference_steps: solver steps; the model's default if None.
            guidance_scale: 1 follows the model as it is, more follows the prompt harder; the
                model's default if None.
            seeds: one a row, or the first of consecutive ones; random (and recorded) if None.
            on_step: told (steps done, steps in all); returning False cancels.
            batch_size: rows computed together.
            further: more of `Sampling`, such as ``solver="ab2"``.

        Returns:
            Peak-safe sounds, each with the recipe that makes it again.

        Raises:
            InputError: a value is out of range; nothing was computed.
            Cancelled: ``on_step`` returned False.
        """
        batch = make_batch(prompts, negative_prompt, seeds)
        sampling = self.config.sampling(duration_s, num_inference_steps, guidance_scale, **further)
        self.config.check_negative(batch.negatives)
        self.config.check_duration(sampling.duration_s, LONGEST_S)
        if not 1 <= batch_size <= MAX_ROWS:
            raise InputError(f"batch size {batch_size}: expected 1 to {MAX_ROWS:,}")
        self.warn_of_cut_prompts(batch.prompts + batch.negatives)
        warn_of_idle_negatives(batch, sampling)
        starts = range(0, len(batch.prompts), batch_size)
        sounds: list[Audio] = []
        for index, start in enumerate(starts):
            num_steps = sampling.num_inference_steps
            told = _shifted(on_step, index * num_steps, len(starts) * num_steps)
            sounds += self._generate(batch.part(start, start + batch_size), sampling, told)
        return sounds

    def replay(
        self, recipe: Recipe, on_step: OnStep | None = None, source: Source | None = None
    ) -> Audio:
        """Make a sound again from its recipe: bit-equal on the same machine.

        The whole batch it came from is computed, with the number of CPU threads it records.

        Args:
            recipe: of the sound.
            on_step: told (steps done, steps in all); returning False cancels.
            source: what an edited sound was made from; the recipe holds its hash.

        Raises:
            InputError: the recipe is of other weights, its values are out of range, or it is of
                another source.
            Cancelled: ``on_step`` returned False.
        """
        if recipe.model_fingerprint != self.fingerprint:
            way = "give the model that made it"
            if recipe.adapters or self.adapters:
                way = "give the model and the adapters that made it, each with its weight"
            elif recipe.model == self.name and self.name in BUNDLED:
                way = f"its weights have changed since; version {recipe.version} has those"
            raise InputError(
                f"the sound was made by weights {recipe.model_fingerprint} of {made_by(recipe)}, "
                f"but {self.name} has {self.fingerprint}; {way}"
            )
        with cpu_threads(recipe.num_threads or torch.get_num_threads()):
            if recipe.edit is not None:
                audio = replay_edit(self, recipe, recipe.edit, source, on_step)
            else:
                audio = self._replay_plain(recipe, on_step)
        return audio if recipe.finish is None else finish_sound(audio, recipe.finish)

    def _replay_plain(self, recipe: Recipe, on_step: OnStep | None) -> Audio:
        batch = make_batch(
            recipe.batch_prompts or (recipe.prompt,),
            recipe.batch_negative_prompts or (recipe.negative_prompt,),
            recipe.batch_seeds or (recipe.seed,),
        )
        if not 0 <= recipe.row < len(batch.prompts):
            raise InputError(f"row {recipe.row} of a batch of {len(batch.prompts)}: broken recipe")
        sampling = recipe.sampling()
        self.config.check_sampling(sampling)
        self.config.check_duration(sampling.duration_s, LONGEST_S)
        return self._generate(batch, sampling, on_step, not recipe.one_branch)[recipe.row]

    def cut_prompts(self, prompts: Sequence[str]) -> list[str]:
        """The prompts that are longer than the text encoder reads."""
        cut = self.text_encoder.num_cut(prompts)
        return [prompt for prompt, is_cut in zip(prompts, cut, strict=True) if is_cut]

    def encode_text(self, texts: Sequence[str]) -> TextFeatures:
        """Station 2: features of each text; equal texts are encoded once.

        Raises:
            InputError: there is no text.
        """
        unique = list(dict.fromkeys(texts))
        features = self.text_encoder.encode(unique)
        rows = torch.tensor([unique.index(text) for text in texts], device=self.device)
        return features.rows(rows)

    def encode_negative(self, texts: Sequence[str]) -> TextFeatures:
        """Features of what not to hear; an empty text stands for the learned empty prompt."""
        empty = self.transformer.empty_features(len(texts))
        if not any(texts):
            return empty
        encoded = self.encode_text(texts)
        is_empty = torch.tensor([not text for text in texts], device=self.device)
        return TextFeatures(
            torch.where(is_empty[:, None, None], empty.tokens, encoded.tokens),
            torch.where(is_empty[:, None], empty.pooled, encoded.pooled),
        )

    def velocity(
        self,
        batch: Batch,
        sampling: Sampling,
        times: Float[Tensor, " time"] | None = None,
    ) -> Velocity:
        """The guided velocity under each row's prompts; an empty prompt is the learned one.

        Args:
            batch: the prompts.
            sampling: guidance and number of steps.
            times: noise levels that the solver visits, where they are not those of ``sampling``;
                mean velocities depend on them.
        """
        negative = None
        if needs_empty(sampling.guidance_scale):
            negative = self.encode_negative(batch.negatives)
        return self._velocity(self.encode_negative(batch.prompts), negative, sampling, times)

    def _velocity(
        self,
        features: TextFeatures,
        negative: TextFeatures | None,
        sampling: Sampling,
        times: Float[Tensor, " time"] | None = None,
        both_at_one: bool = False,
    ) -> Velocity:
        network, is_wanted = self.transformer, needs_empty(sampling.guidance_scale, both_at_one)
        empty = network.condition(negative) if negative is not None and is_wanted else None
        is_mean = network.config.mean_velocity
        prompt = network.condition(features)
        return sampling_velocity(network, prompt, empty, sampling, is_mean, times, both_at_one)

    @torch.no_grad()
    def encode(self, wave: Waveform) -> Latents:
        """From station 5 back to 3: samples to the means of their latents.

        Args:
            wave: at the model's rate, whole latent frames.
        """
        assert wave.sample_rate_hz == self.config.mel.sample_rate_hz, wave.sample_rate_hz
        mel = MelFrontEnd(self.config.mel).to(self.device)(wave.samples.to(self.device))
        return Latents(self._whole_vae().encode(mel).mean, self.config.frame_rate_hz)

    def _whole_vae(self) -> AnyVAE:
        if isinstance(self.vae, MelVAE) and next(self.vae.encoder.parameters()).is_meta:
            assert self._folder is not None
            vae: MelVAE = read_part(self._folder, self.config, "vae")
            vae.fold_weight_norm()
            self.vae.encoder = vae.encoder.to(self.device).requires_grad_(False)
        return self.vae

    @torch.no_grad()
    def sample_latents(
        self,
        features: TextFeatures,
        negative: TextFeatures,
        seeds: Sequence[int],
        sampling: Sampling,
        on_step: OnStep | None = None,
        both_at_one: bool = False,
    ) -> Latents:
        """Station 3: noise of each seed, carried to data by a solver, with guidance.

        ``both_at_one``: as in `guided`, to make older sounds again.

        Raises:
            InputError: a seed is out of range, or the latents became NaN.
            Cancelled: ``on_step`` returned False.
        """
        self.config.check_duration(sampling.duration_s, LONGEST_S)
        num_frames = self.config.num_frames(sampling.duration_s)
        noise = seeded_noise(seeds, num_frames, self.config.vae.latent_channels)
        velocity = self._velocity(features, negative, sampling, both_at_one=both_at_one)
        # A sound that the model takes at once is one window, and this the plain velocity.
        velocity = windowed(one_prompt(velocity), window_places(self.config, num_frames))
        z = solve(velocity, noise.to(self.device), sampling, on_step)
        _check_finite(z, "the latents")
        return Latents(self.transformer.unnormalize(z), self.config.frame_rate_hz)

    @torch.no_grad()
    def decode(self, latents: Latents) -> Mel:
        """Station 4: latents to log-mels, long ones in tiles."""
        return Mel(self.vae.decode_tiled(latents.values, TILE_FRAMES), self.config.mel.hop_rate_hz)

    @torch.no_grad()
    def vocode(self, mel: Mel) -> Waveform:
        """Station 5: log-mels to samples, long ones in tiles; a loud one may pass ±1."""
        # BigVGAN chooses its own, smaller tiles in host memory.
        tiles_itself = isinstance(self.vocoder, BigVGAN) and self.device.type == "cpu"
        if tiles_itself or mel.values.shape[-1] <= TILE_HOPS:
            samples = self.vocoder(mel.values)
        else:
            samples = self.vocoder.vocode_tiled(mel.values, TILE_HOPS)
        return Waveform(samples.float(), self.config.mel.sample_rate_hz)

    def _generate(
        self, batch: Batch, sampling: Sampling, on_step: OnStep | None, both_at_one: bool = False
    ) -> list[Audio]:
        features = self.encode_text(batch.prompts)
        negative = self.encode_negative(batch.negatives)
        latents = self.sample_latents(
            features, negative, batch.seeds, sampling, on_step, both_at_one
        )
        num_samples = round(sampling.duration_s * self.config.mel.sample_rate_hz)
        samples = self.to_waveform(latents).samples[:, :num_samples]
        return [
            self.finish(row_samples, batch, row, sampling)
            for row, row_samples in enumerate(samples)
        ]

    def to_waveform(self, latents: Latents) -> Waveform:
        """Stations 4 and 5 a few rows at a time, so that memory does not grow with the batch.

        Returns:
            Samples on the CPU; a loud row may pass ±1.

        Raises:
            InputError: the samples of a row became NaN.
        """
        hops = latents.values.shape[1] * self.vae.hops_per_frame
        most = HOPS_PER_GROUP.get(self.device.type, HOPS_PER_GROUP_CUDA)
        groups = torch.split(latents.values, max(1, most // hops))
        made = [
            self.vocode(self.decode(Latents(rows, latents.frame_rate_hz))).samples.cpu()
            for rows in groups
        ]
        samples = torch.cat(made)
        _check_finite(samples, "the waveform")
        return Waveform(samples, self.config.mel.sample_rate_hz)

    def finish(
        self, samples: Float[Tensor, " sample"], batch: Batch, row: int, sampling: Sampling
    ) -> Audio:
        """Bring one row's peak into range and write down how it was made."""
        safe, gain = peak_safe(np.ascontiguousarray(samples.numpy()))
        recipe = self.recipe(batch, row, sampling, gain)
        return Audio(safe, self.config.mel.sample_rate_hz, recipe)

    def recipe(
        self, batch: Batch, row: int, sampling: Sampling, gain: float, edit: Edit | None = None
    ) -> Recipe:
        """How one row of a batch was made."""
        return Recipe(
            prompt=batch.prompts[row],
            negative_prompt=batch.negatives[row],
            seed=batch.seeds[row],
            **sampling.model_dump(),
            model=self.name,
            model_fingerprint=self.fingerprint,
            device=str(self.device),
            dtype=str(self.dtype).removeprefix("torch."),
            version=software_version(),
            row=row,
            batch_prompts=batch.prompts,
            batch_negative_prompts=batch.negatives,
            batch_seeds=batch.seeds,
            gain=gain,
            num_threads=torch.get_num_threads(),
            one_branch=True,
            edit=edit,
            adapters=tuple(map(str, self.adapters)),
        )

    def warn_of_cut_prompts(self, texts: Sequence[str]) -> None:
        """Say which texts are longer than the text encoder reads."""
        num_tokens = self.config.text_encoder.num_tokens
        for text in self.cut_prompts(list(dict.fromkeys(texts))):
            warnings.warn(
                f"prompt cut at {num_tokens} tokens, the rest is not heard: {text[:60]!r}…",
                PromptCutWarning,
                stacklevel=3,
            )


def made_by(recipe: Recipe) -> str:
    """The model of a recipe, with its adapters."""
    return " with ".join((recipe.model, *recipe.adapters))


def software_version() -> str:
    """Versions that decide the bits of a sound."""
    return f"{own_version()} (torch {torch.__version__})"


def _check_finite(values: Float[Tensor, "row ..."], what: str) -> None:
    broken = (~values.isfinite()).flatten(1).any(dim=1).nonzero().flatten().tolist()
    if broken:
        raise InputError(
            f"{what} of row {broken[0] + 1} became NaN or infinite: try a smaller guidance scale, "
            "or dtype float32"
        )


def recorded_name(name: str | Path, revision: str | None = None) -> str:
    """How a recipe calls the model: folders in full, so that replay works from anywhere."""
    given = given_path(name)
    is_name = str(name) in bundled_models() or published_model(str(name)) is not None
    if not is_name and os.path.isdir(given):
        return str(given.resolve())
    return str(name) if revision is None else f"{name}@{revision}"


def _shifted(on_step: OnStep | None, done: int, in_all: int) -> OnStep | None:
    """Report the steps of one batch as part of all of them."""
    if on_step is None:
        return None
    return lambda step, _: on_step(done + step, in_all)
