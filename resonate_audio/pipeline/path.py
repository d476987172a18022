"""Prompt to waveform: the only place where model meets flow.

Stations: texts → ``encode_text`` → ``TextFeatures`` → ``sample_latents`` → ``Latents`` →
``decode`` → ``Mel`` → ``vocode`` → ``Waveform`` → peak-safe ``Audio`` with its recipe.
"""

from __future__ import annotations

import copy
import math
import secrets
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from resonate_audio.audio.io import peak_safe
from resonate_audio.core.errors import InputError
from resonate_audio.core.noise import MAX_SEED, seeded_noise
from resonate_audio.core.threads import cpu_threads
from resonate_audio.core.types import Audio, Latents, Mel, Recipe, TextFeatures, Waveform
from resonate_audio.flow.guidance import guided
from resonate_audio.flow.ode import OnStep, integrate
from resonate_audio.flow.times import uniform_grid
from resonate_audio.model.bigvgan import BigVGAN
from resonate_audio.model.checkpoint import fingerprint_weights
from resonate_audio.model.fast_flow import FastFlowTransformer
from resonate_audio.model.flow_transformer import FlowEnds, FlowTransformer
from resonate_audio.model.folder import (
    TEXT_ENCODER,
    Networks,
    Storage,
    Vocoder,
    part_folder,
    read_networks,
    write_networks,
)
from resonate_audio.model.hub import bundled_models, find_model, find_text_encoder, upload
from resonate_audio.model.linear_vae import AnyVAE
from resonate_audio.model.presets import ModelConfig
from resonate_audio.model.text_encoder import TextEncoder

BATCH_SIZE = 16
"""Rows of one batch unless the caller says otherwise; twice that with guidance."""
RANDOM_SEEDS = 2**31
"""Drawn seeds stay short enough to be read aloud."""
TILE_FRAMES = 1024
"""Latent frames that are decoded at once; longer sounds are decoded in tiles of this."""
COMPILE_FROM_WEIGHTS = 100_000_000
"""Compiling takes a minute, which small models never earn back."""
TILE_HOPS = 1024
"""Mel hops that are vocoded at once."""
HOPS_PER_GROUP = {"cpu": 1024, "mps": 2048}
"""Hops of all rows that go through VAE and vocoder together: memory over speed on small devices."""
HOPS_PER_GROUP_CUDA = 16_384
DTYPES = {
    "cpu": ("float32", "bfloat16"),
    "cuda": ("bfloat16", "float32", "float16"),
    "mps": ("float32",),  # half precision gives silent garbage there
}
"""Number formats of the flow transformer by device, the default first."""


class PromptCutWarning(UserWarning):
    """A prompt is longer than the text encoder reads; its end was ignored."""


@dataclass(frozen=True)
class Sampling:
    """What shapes a sound besides its prompt and seed."""

    duration_s: float
    num_inference_steps: int = 25
    guidance_scale: float = 4.5

    def check(self, config: ModelConfig) -> None:
        """Refuse what the model cannot do.

        Raises:
            InputError: names the value and the range.
        """
        low, high = config.min_duration_s, config.max_duration_s
        if not low <= self.duration_s <= high:
            raise InputError(
                f"duration of {self.duration_s} s: {config.name} makes {low:g} to {high:g} s"
            )
        if self.num_inference_steps < 1:
            raise InputError(f"{self.num_inference_steps} inference steps: expected 1 or more")
        if not math.isfinite(self.guidance_scale) or self.guidance_scale < 0:
            raise InputError(
                f"guidance scale {self.guidance_scale}: expected a number from 0 up, such as 4.5"
            )


@dataclass(frozen=True)
class Batch:
    """Rows that are computed together."""

    prompts: tuple[str, ...]
    negatives: tuple[str, ...]
    seeds: tuple[int, ...]

    def part(self, start: int, stop: int) -> Batch:
        """Some neighbouring rows."""
        rows = slice(start, stop)
        return Batch(self.prompts[rows], self.negatives[rows], self.seeds[rows])


class Resonate:
    """A text-to-audio model, ready to generate.

    Example::

        resonate = Resonate.from_pretrained("nano")
        [audio] = resonate.generate("a dog barks twice, then rain starts", seeds=7)
    """

    def __init__(
        self,
        networks: Networks,
        text_encoder: TextEncoder,
        name: str | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        folder: Path | None = None,
        transformer: FlowEnds | None = None,
    ) -> None:
        """Take networks that are in memory.

        Args:
            networks: flow transformer, VAE and vocoder, in float32 on the CPU. VAE and vocoder are
                prepared for inference in place; the transformer is copied, unless ``folder`` says
                where it can be read again: then its weights are taken, to spare memory.
            text_encoder: texts to features.
            name: what recipes call the model; its configuration's name by default.
            device: cpu, cuda, cuda:1 or mps; the fastest there is by default.
            dtype: number format of the flow transformer; everything else stays in float32.
            folder: model folder that the networks were read from, unchanged.
            transformer: a flow transformer to use as it is, where it is, such as one that is being
                trained; by default an inference form of the one in ``networks``.

        Raises:
            InputError: no such device here, or a number format that is not trusted on it.
        """
        self.config: ModelConfig = networks.config
        self.name = name or networks.config.name
        self.device = choose_device(device)
        self.dtype = choose_dtype(dtype, self.device)
        networks.vae.fold_weight_norm()
        self.fingerprint = fingerprint_weights(
            [*networks.states().values(), text_encoder.network.state_dict()]
        )
        self._networks, self._folder = networks, folder
        self.vae: AnyVAE = networks.vae.to(self.device)
        self.vocoder: Vocoder = networks.vocoder.to(self.device)
        self.text_encoder = text_encoder.to(self.device)
        for network in (self.vae, self.vocoder):
            network.eval().requires_grad_(False)
        self.transformer: FlowEnds = transformer or for_inference(
            networks.transformer, self.device, self.dtype, release=folder is not None
        ).eval().requires_grad_(False)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = "nano",
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> Resonate:
        """Load a model.

        Args:
            name: a bundled model (``nano``), a model folder, or a hub id ``owner/name``.
            device: cpu, cuda, cuda:1 or mps; the fastest there is by default.
            dtype: number format of the flow transformer; by default float32, on CUDA bfloat16.
            revision: commit, branch or tag of a hub repository.
            local_files_only: never use the network.

        Raises:
            ModelNotFoundError: no such model; lists what exists.
            CheckpointError: its weights are broken; names the file and the first bad key.
            InputError: no such device here, or a number format that is not trusted on it.
        """
        device, dtype = choose_device(device), choose_dtype(dtype, choose_device(device))
        folder = find_model(name, revision, local_files_only)
        networks = read_networks(folder)
        config = networks.config.text_encoder
        encoder_folder = find_text_encoder(config, folder, local_files_only)
        return cls(
            networks,
            TextEncoder.from_folder(config, encoder_folder),
            name=_recorded_name(name, revision),
            device=device,
            dtype=dtype,
            folder=folder,
        )

    def save_pretrained(
        self, folder: str | Path, storage: Storage = "float32", overwrite: bool = False
    ) -> None:
        """Write the model as a folder that ``from_pretrained`` reads; whole or not at all.

        The weights are those that this object was made from, whatever number format it runs in:
        with ``storage="float32"`` they come back bit-equal.

        Raises:
            OutputError: the folder exists (and ``overwrite`` is false) or cannot be written.
            CheckpointError: a weight does not fit into ``storage``, or the folder that the model
                was read from is gone.
        """
        networks, encoder = self._networks, None
        if self._folder is not None:
            networks = read_networks(self._folder)
            inside = part_folder(self._folder, TEXT_ENCODER)
            encoder = inside if inside.is_dir() else None
        write_networks(Path(folder), networks, encoder, storage, overwrite)

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
        num_inference_steps: int = 25,
        guidance_scale: float = 4.5,
        seeds: int | Sequence[int] | None = None,
        on_step: OnStep | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> list[Audio]:
        """Make one sound per prompt.

        The same seed gives the same latents in any batch, at any position and on any device, up to
        the rounding of the kernels; the recipe records the whole batch, so that ``replay`` gives
        the same bits. Sounds are cut to exactly ``round(duration_s · rate)`` samples: the official
        code leaves up to one latent frame more (441,344 instead of 441,000 for 10 s).

        Args:
            prompts: a text, or one a row.
            negative_prompt: what not to hear, for all rows or one a row; empty: nothing.
            duration_s: seconds; the model's default if None.
            num_inference_steps: Euler steps.
            guidance_scale: 1 follows the model as it is, more follows the prompt harder.
            seeds: one a row, or the first of consecutive ones; random (and recorded) if None.
            on_step: told (steps done, steps in all); returning False cancels.
            batch_size: rows computed together.

        Returns:
            Peak-safe sounds, each with the recipe that makes it again.

        Raises:
            InputError: a value is out of range; nothing was computed.
            Cancelled: ``on_step`` returned False.
        """
        batch = make_batch(prompts, negative_prompt, seeds)
        duration_s = self.config.default_duration_s if duration_s is None else float(duration_s)
        sampling = Sampling(duration_s, num_inference_steps, guidance_scale)
        sampling.check(self.config)
        if batch_size < 1:
            raise InputError(f"batch size {batch_size}: expected 1 or more")
        self._warn_of_cut_prompts(batch)
        starts = range(0, len(batch.prompts), batch_size)
        sounds: list[Audio] = []
        for index, start in enumerate(starts):
            told = _shifted(on_step, index * num_inference_steps, len(starts) * num_inference_steps)
            sounds += self._generate(batch.part(start, start + batch_size), sampling, told)
        return sounds

    def replay(self, recipe: Recipe, on_step: OnStep | None = None) -> Audio:
        """Make a sound again from its recipe: bit-equal on the same machine.

        The whole batch it came from is computed, with the number of CPU threads it records.

        Raises:
            InputError: the recipe is of other weights, or its values are out of range.
            Cancelled: ``on_step`` returned False.
        """
        if recipe.model_fingerprint != self.fingerprint:
            raise InputError(
                f"the sound was made by weights {recipe.model_fingerprint} of {recipe.model}, "
                f"but {self.name} has {self.fingerprint}; give the model that made it"
            )
        batch = make_batch(
            recipe.batch_prompts or (recipe.prompt,),
            recipe.batch_negative_prompts or (recipe.negative_prompt,),
            recipe.batch_seeds or (recipe.seed,),
        )
        if not 0 <= recipe.row < len(batch.prompts):
            raise InputError(f"row {recipe.row} of a batch of {len(batch.prompts)}: broken recipe")
        sampling = Sampling(recipe.duration_s, recipe.num_inference_steps, recipe.guidance_scale)
        sampling.check(self.config)
        with cpu_threads(recipe.num_threads or torch.get_num_threads()):
            return self._generate(batch, sampling, on_step)[recipe.row]

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
        return TextFeatures(features.tokens[rows], features.pooled[rows])

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

    @torch.no_grad()
    def sample_latents(
        self,
        features: TextFeatures,
        negative: TextFeatures,
        seeds: Sequence[int],
        sampling: Sampling,
        on_step: OnStep | None = None,
    ) -> Latents:
        """Station 3: noise of each seed, carried to data by Euler steps with guidance.

        Raises:
            InputError: a seed is out of range, or the latents became NaN.
            Cancelled: ``on_step`` returned False.
        """
        sampling.check(self.config)
        num_frames = self.config.num_frames(sampling.duration_s)
        noise = seeded_noise(seeds, num_frames, self.config.vae.latent_channels)
        velocity = guided(
            self.transformer,
            self.transformer.condition(features),
            self.transformer.condition(negative),
            sampling.guidance_scale,
        )
        times = uniform_grid(sampling.num_inference_steps)
        z = integrate(velocity, noise.to(self.device), times, on_step)
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

    def _generate(self, batch: Batch, sampling: Sampling, on_step: OnStep | None) -> list[Audio]:
        features = self.encode_text(batch.prompts)
        negative = self.encode_negative(batch.negatives)
        latents = self.sample_latents(features, negative, batch.seeds, sampling, on_step)
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
        recipe = Recipe(
            prompt=batch.prompts[row],
            negative_prompt=batch.negatives[row],
            seed=batch.seeds[row],
            duration_s=sampling.duration_s,
            num_inference_steps=sampling.num_inference_steps,
            guidance_scale=sampling.guidance_scale,
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
        )
        return Audio(safe, self.config.mel.sample_rate_hz, recipe)

    def _warn_of_cut_prompts(self, batch: Batch) -> None:
        num_tokens = self.config.text_encoder.num_tokens
        for text in self.cut_prompts(list(dict.fromkeys(batch.prompts + batch.negatives))):
            warnings.warn(
                f"prompt cut at {num_tokens} tokens, the rest is not heard: {text[:60]!r}…",
                PromptCutWarning,
                stacklevel=3,
            )


def make_batch(
    prompts: str | Sequence[str],
    negative_prompt: str | Sequence[str] | None = None,
    seeds: int | Sequence[int] | None = None,
) -> Batch:
    """Spell out one prompt, negative prompt and seed a row.

    Raises:
        InputError: a prompt is empty, or the numbers of rows differ.
    """
    texts = (prompts,) if isinstance(prompts, str) else tuple(prompts)
    if not texts:
        raise InputError("no prompt: give at least one text")
    for row, text in enumerate(texts):
        if not text.strip():
            raise InputError(f"prompt {row + 1} of {len(texts)} is empty: describe a sound")
    negatives = _one_per_row(negative_prompt or "", len(texts))
    if len(negatives) != len(texts):
        raise InputError(f"{len(negatives)} negative prompts for {len(texts)} prompts")
    return Batch(texts, negatives, _row_seeds(seeds, len(texts)))


def _one_per_row(text: str | Sequence[str], num_rows: int) -> tuple[str, ...]:
    if isinstance(text, str):
        return (text.strip(),) * num_rows
    return tuple(item.strip() for item in text)


def _row_seeds(seeds: int | Sequence[int] | None, num_rows: int) -> tuple[int, ...]:
    if seeds is None:
        return tuple(secrets.randbelow(RANDOM_SEEDS) for _ in range(num_rows))
    given = range(seeds, seeds + num_rows) if isinstance(seeds, int) else seeds
    if len(given) != num_rows:
        raise InputError(f"{len(given)} seeds for {num_rows} prompts: give one a prompt")
    for seed in given:
        if not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
            raise InputError(f"seed {seed}: expected a whole number from 0 to {MAX_SEED}")
    return tuple(given)


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or the fastest one here.

    Raises:
        InputError: it is not a device, or this machine or this torch does not have it.
    """
    if device is None:
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device {device}: expected cpu, cuda, cuda:1 or mps") from error
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (found.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(found.type, False):
        here = ", ".join(name for name, is_here in available.items() if is_here)
        raise InputError(f"device {device}: not available here; there is {here}")
    return found


def choose_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The number format asked for, or the one that is fast and trusted on the device.

    Raises:
        InputError: it is not known, or known to go wrong on the device.
    """
    trusted = DTYPES[device.type]
    if dtype is None:
        old_gpu = device.type == "cuda" and not torch.cuda.is_bf16_supported()
        name = "float32" if old_gpu else trusted[0]
    else:
        name = str(dtype).removeprefix("torch.")
    if name not in trusted:
        raise InputError(f"dtype {name} on {device.type}: expected {' or '.join(trusted)}")
    chosen: torch.dtype = getattr(torch, name)
    return chosen


def software_version() -> str:
    """Versions that decide the bits of a sound."""
    try:
        own = version("resonate-audio")
    except PackageNotFoundError:
        own = "unknown"
    return f"{own} (torch {torch.__version__})"


def for_inference(
    transformer: FlowTransformer, device: torch.device, dtype: torch.dtype, release: bool = False
) -> FlowEnds:
    """Bring a flow transformer into the form that is fast on a device.

    Latent statistics and the empty prompt keep their float32 in any number format.

    Args:
        transformer: in float32 on the CPU.
        device: where it will run.
        dtype: number format of its weights.
        release: take the weights of ``transformer``, which cannot be used after that.
    """
    if device.type == "cpu":
        num_weights = sum(parameter.numel() for parameter in transformer.parameters())
        compile = num_weights >= COMPILE_FROM_WEIGHTS
        fast: FlowEnds = FastFlowTransformer.from_model(transformer, dtype, compile, release)
    else:
        fast = transformer if release else copy.deepcopy(transformer)
    kept = {name: value.float().clone() for name, value in transformer.named_buffers()}
    fast = fast.to(device, dtype)
    for name, value in kept.items():
        setattr(fast, name, value.to(device))
    return fast


def _check_finite(values: Float[Tensor, "row ..."], what: str) -> None:
    broken = (~values.isfinite()).flatten(1).any(dim=1).nonzero().flatten().tolist()
    if broken:
        raise InputError(
            f"{what} of row {broken[0] + 1} became NaN or infinite: try a smaller guidance scale, "
            "or dtype float32"
        )


def _recorded_name(name: str | Path, revision: str | None) -> str:
    """How a recipe calls the model: folders in full, so that replay works from anywhere."""
    if str(name) not in bundled_models() and Path(name).is_dir():
        return str(Path(name).resolve())
    return str(name) if revision is None else f"{name}@{revision}"


def _shifted(on_step: OnStep | None, done: int, in_all: int) -> OnStep | None:
    """Report the steps of one batch as part of all of them."""
    if on_step is None:
        return None
    return lambda step, _: on_step(done + step, in_all)
