"""What a training costs on machines that are not here: work, memory, bytes and hours.

Everything that follows from the sizes of the networks is computed; what depends on the machine is
a field of `Machine`. The formulas stand in docs/scale.md, whose tables this module makes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from pydantic import Field

from resonate_audio.core.config import FrozenConfig
from resonate_audio.model.blocks import BLOCK_KERNEL, END_KERNEL, gated_mlp_width
from resonate_audio.model.embeddings import TIMESTEP_FEATURES
from resonate_audio.model.flow_transformer import FlowTransformer, FlowTransformerConfig
from resonate_audio.model.presets import ModelConfig

FLOAT32 = 4
STATE_BYTES = 5 * FLOAT32
"""Per parameter: weight, gradient, two moments, average."""
CHECKPOINT_BYTES = 4 * FLOAT32
"""Per parameter: the same without the gradient."""
BACKWARD = 2.0
"""Backward over forward work: a matrix product has two gradients of its own size."""
ACTIVATION_BYTES = {"float32": (74, 16), "bf16": (43, 8)}
"""Kept for the backward pass, a position and a block, for each channel of ``hidden`` and of the
MLP; counted with saved_tensors_hooks, see tests/training/test_plan.py."""
LAUNCHES_JOINT, LAUNCHES_SINGLE, LAUNCHES_ENDS = 139, 71, 60
"""Kernels of a forward pass under autocast, views left out; the backward has 1.4 times as many."""
LAUNCHES_BACKWARD = 1.4
TEXT_PARAMETERS = {"t5": 308e6, "minilm": 10.6e6}
"""Of the layers that every token passes: FLAN-T5 large's encoder, six layers of MiniLM."""


class Machine(FrozenConfig):
    """GPUs and what lies between them; the defaults are an H100 node of eight."""

    peak_tflops: float = Field(989.0, gt=0)
    """Dense bfloat16 matrix products of one GPU, from its data sheet."""
    utilisation: float = Field(0.35, gt=0, le=1)
    """Part of the peak that large batches reach."""
    launch_us: float = Field(6.0, ge=0)
    """Time of the smallest kernel: what a pass takes at least is this times their number."""
    memory_gb: float = Field(80.0, gt=0)
    gpus_per_node: int = Field(8, ge=1)
    node_gb_s: float = Field(300.0, gt=0)
    """What a GPU sends to its neighbours in the node, while it receives as much."""
    network_gb_s: float = Field(40.0, gt=0)
    """The same between nodes, for one GPU: 400 Gb/s at 80 %."""
    latency_us: float = Field(15.0, ge=0)
    """Of one message."""


class PretrainJob(FrozenConfig):
    """A pre-training; the defaults are the paper's, sec. 3.1 and 3.2."""

    audio_hours: float = Field(10_000, gt=0)
    clips: int = Field(3_700_000, ge=1)
    clip_s: float = Field(10.0, gt=0)
    batch: int = Field(256, ge=1)
    num_steps: int = Field(500_000, ge=1)


class ReinforceJob(FrozenConfig):
    """A Flow-GRPO run; the defaults are the paper's with the official code's settings."""

    prompts_per_step: int = Field(64, ge=1)
    takes: int = Field(24, ge=2)
    """G."""
    clip_s: float = Field(10.0, gt=0)
    sampling_steps: int = Field(10, ge=1)
    trained_steps: int = Field(9, ge=1)
    guidance: bool = True
    """Two rows of work for each, in the rollout and in training."""
    reference: bool = True
    """A pull to the model before training: one more forward pass for each trained step."""
    num_steps: int = Field(1000, ge=1)
    judge_parameters: float = Field(7.6e9, ge=0)
    """Of the language model that judges: Qwen2.5-Omni's thinker."""
    judge_tokens: int = Field(330, ge=0)
    """25 a second of sound, and the question."""
    judge_gb: float = Field(18.0, ge=0)
    """Memory of the judge beside the policy."""

    @property
    def rows(self) -> int:
        """Takes of a step."""
        return self.prompts_per_step * self.takes


# --- work --------------------------------------------------------------------------------------


@cache
def count_parameters(config: FlowTransformerConfig) -> int:
    """Weights of the flow transformer, none of which is allocated."""
    with torch.device("meta"):
        return sum(value.numel() for value in FlowTransformer(config).parameters())


def forward_flops(config: FlowTransformerConfig, num_frames: int) -> float:
    """Floating-point operations of one velocity of one row, conditions included.

    A product of (n × a) and (a × b) is 2·n·a·b; what is not a matrix product is left out.
    """
    hidden, tokens = config.hidden, config.num_text_tokens
    joint = _stream(config, num_frames, BLOCK_KERNEL) + _attention(num_frames + tokens, hidden)
    text, read_only = _stream(config, tokens, 1), _read_only_stream(config)
    single = _stream(config, num_frames, BLOCK_KERNEL) + _attention(num_frames, hidden)
    blocks = config.num_joint_blocks * joint + config.num_single_blocks * single
    ends = _ends(config, num_frames)
    return float(blocks + (config.num_joint_blocks - 1) * text + read_only + ends)


def train_flops(config: FlowTransformerConfig, num_frames: int) -> float:
    """Forward and backward of one row."""
    return (1 + BACKWARD) * forward_flops(config, num_frames)


def _stream(config: FlowTransformerConfig, positions: int, kernel: int) -> int:
    hidden = config.hidden
    heads = 2 * positions * hidden * 3 * hidden
    out = 2 * positions * kernel * hidden * hidden
    return heads + out + _mlp(config, positions, kernel) + 2 * hidden * 6 * hidden


def _read_only_stream(config: FlowTransformerConfig) -> int:
    hidden = config.hidden
    return 2 * config.num_text_tokens * hidden * 3 * hidden + 2 * hidden * 2 * hidden


def _attention(positions: int, hidden: int) -> int:
    return 4 * positions * positions * hidden


def _mlp(config: FlowTransformerConfig, positions: int, kernel: int) -> int:
    width = gated_mlp_width(config.hidden, config.mlp_ratio)
    return 2 * positions * kernel * 3 * config.hidden * width


def _ends(config: FlowTransformerConfig, num_frames: int) -> int:
    hidden, tokens, channels = config.hidden, config.num_text_tokens, config.latent_channels
    convolutions = 2 * (2 * num_frames * END_KERNEL * channels * hidden)
    latents = convolutions + _mlp(config, num_frames, END_KERNEL)
    text = 2 * tokens * config.text_dim * hidden + _mlp(config, tokens, 1)
    pooled = 2 * config.pooled_dim * hidden + _mlp(config, 1, 1)
    condition = 2 * TIMESTEP_FEATURES * hidden + 2 * hidden * hidden + 2 * hidden * 2 * hidden
    return latents + text + pooled + condition


@cache
def sound_flops(config: ModelConfig, num_frames: int) -> float:
    """Operations that make a row's latents audible: VAE decoder and vocoder, counted by torch."""
    from torch.utils.flop_counter import FlopCounterMode

    from resonate_audio.model.folder import build_vocoder
    from resonate_audio.model.linear_vae import build_vae

    with torch.device("meta"):  # the shapes alone: nothing is allocated, nothing computed
        vae, vocoder = build_vae(config.vae), build_vocoder(config.vocoder)
        mel = torch.empty(1, config.mel.num_bands, num_frames * config.vae.hops_per_frame)
        latents = torch.empty(1, num_frames, config.transformer.latent_channels)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        vae.decode(latents)
        vocoder(mel)
    return float(counter.get_total_flops())


@cache
def encoding_flops(config: ModelConfig, num_frames: int) -> float:
    """Operations that make latents and text features of a row, the text's attention left out."""
    from torch.utils.flop_counter import FlopCounterMode

    from resonate_audio.model.linear_vae import build_vae

    with torch.device("meta"):
        vae = build_vae(config.vae)
        mel = torch.empty(1, config.mel.num_bands, num_frames * config.vae.hops_per_frame)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        vae.encode(mel)
    text = config.text_encoder
    return float(counter.get_total_flops()) + 2 * TEXT_PARAMETERS[text.kind] * text.num_tokens


# --- memory ------------------------------------------------------------------------------------


def activation_bytes(
    config: FlowTransformerConfig,
    num_frames: int,
    precision: Literal["float32", "bf16"] = "bf16",
    recompute: bool = False,
) -> float:
    """Kept for the backward pass of one row; with ``recompute`` only what enters each block."""
    per_hidden, per_width = ACTIVATION_BYTES[precision]
    width = gated_mlp_width(config.hidden, config.mlp_ratio)
    full = per_hidden * config.hidden + per_width * width
    frames = (config.num_joint_blocks + config.num_single_blocks) * num_frames
    positions = frames + (config.num_joint_blocks - 1) * config.num_text_tokens
    ends = (num_frames + config.num_text_tokens) * per_width * width
    if recompute:
        one_block = (num_frames + config.num_text_tokens) * full
        return float(positions * FLOAT32 * config.hidden + one_block + ends)
    return float(positions * full + ends)


# --- time --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """One update on some GPUs."""

    gpus: int
    busy: int
    """GPUs that have a row to work on."""
    tflop: float
    """Work of the whole update, all GPUs together."""
    memory_gb: float
    """On the fullest GPU."""
    sent_gb: float
    """By each GPU."""
    compute_s: float
    network_s: float
    hidden_s: float
    """Part of the work during which gradients are summed at the same time."""
    num_steps: int
    limit: str
    """What the time goes to."""

    @property
    def step_s(self) -> float:
        """Time of one update."""
        return self.compute_s + self.waiting_s

    @property
    def waiting_s(self) -> float:
        """What the network adds to the work."""
        return max(0.0, self.network_s - self.hidden_s)

    @property
    def hours(self) -> float:
        """Time of the whole run."""
        return self.step_s * self.num_steps / 3600

    def speed_up(self, one: Cost) -> float:
        """How many times as fast as ``one``."""
        return one.hours / self.hours


def pass_seconds(machine: Machine, flops: float, launches: float) -> float:
    """Time of some passes: their work at the usual rate, but never less than their launches."""
    rate = machine.peak_tflops * machine.utilisation * 1e12
    return max(flops / rate, launches * machine.launch_us * 1e-6)


def forward_launches(config: FlowTransformerConfig) -> float:
    """Kernels of one forward pass, whatever the batch."""
    joint, single = config.num_joint_blocks, config.num_single_blocks
    return float(joint * LAUNCHES_JOINT + single * LAUNCHES_SINGLE + LAUNCHES_ENDS)


def reduce_bytes(num_parameters: int, gpus: int) -> float:
    """Sent by each GPU to sum the gradients in a ring: 2·(N − 1)/N of them, float32."""
    return 2 * (gpus - 1) / gpus * FLOAT32 * num_parameters


def link_seconds(machine: Machine, sent_bytes: float, gpus: int) -> float:
    """Time to send it over the slowest link that a ring of these GPUs crosses."""
    if gpus == 1:
        return 0.0
    within = gpus <= machine.gpus_per_node
    rate = (machine.node_gb_s if within else machine.network_gb_s) * 1e9
    return sent_bytes / rate + 2 * (gpus - 1) * machine.latency_us * 1e-6


def rows_at_once(machine: Machine, fixed_gb: float, row_bytes: float, rows: int) -> int:
    """Rows that fit beside the weights, at least one."""
    room = (machine.memory_gb * 0.9 - fixed_gb) * 1e9
    return max(1, min(rows, int(room / row_bytes)))


def plan_pretraining(model: ModelConfig, job: PretrainJob, machine: Machine, gpus: int) -> Cost:
    """Cost of one update of flow matching, replicas on every GPU."""
    config = model.transformer
    frames, count = model.num_frames(job.clip_s), count_parameters(config)
    busy = min(gpus, job.batch)
    rows = -(-job.batch // busy)
    fixed_gb, row_bytes = STATE_BYTES * count / 1e9, activation_bytes(config, frames)
    at_once = rows_at_once(machine, fixed_gb, row_bytes, rows)
    passes = -(-rows // at_once)
    launches = passes * forward_launches(config) * (1 + LAUNCHES_BACKWARD)
    flops = rows * train_flops(config, frames)
    compute_s, sent = pass_seconds(machine, flops, launches), reduce_bytes(count, gpus)
    floor_s = launches * machine.launch_us * 1e-6
    network_s = link_seconds(machine, sent, gpus)
    hidden_s = compute_s / passes * BACKWARD / (1 + BACKWARD)  # the last backward pass
    return Cost(
        gpus=gpus,
        busy=busy,
        tflop=job.batch * train_flops(config, frames) / 1e12,
        memory_gb=fixed_gb + at_once * row_bytes / 1e9,
        sent_gb=sent / 1e9,
        compute_s=compute_s,
        network_s=network_s,
        hidden_s=hidden_s,
        num_steps=job.num_steps,
        limit=name_limit(compute_s > floor_s, network_s - hidden_s > compute_s / 2, busy < gpus),
    )


def plan_reinforcement(model: ModelConfig, job: ReinforceJob, machine: Machine, gpus: int) -> Cost:
    """Cost of one GRPO step: rollout, sound, judge, update; the judge shares the GPU."""
    config = model.transformer
    frames, count = model.num_frames(job.clip_s), count_parameters(config)
    busy = min(gpus, job.rows)
    rows, branches = -(-job.rows // busy), 2 if job.guidance else 1
    fixed_gb = (STATE_BYTES + job.reference * FLOAT32) * count / 1e9 + job.judge_gb
    row_bytes = branches * activation_bytes(config, frames)
    at_once = rows_at_once(machine, fixed_gb, row_bytes, rows)
    per_row = reinforcement_flops(model, job)
    passes = -(-rows // at_once)
    trained = 1 + LAUNCHES_BACKWARD + job.reference
    launches = (
        passes * forward_launches(config) * (job.sampling_steps + job.trained_steps * trained)
    )
    compute_s = pass_seconds(machine, rows * sum(per_row.values()), launches)
    sent = reduce_bytes(count, gpus) + gathered_bytes(model, job, frames, gpus)
    network_s = link_seconds(machine, sent, gpus)
    return Cost(
        gpus=gpus,
        busy=busy,
        tflop=job.rows * sum(per_row.values()) / 1e12,
        memory_gb=fixed_gb + at_once * row_bytes / 1e9,
        sent_gb=sent / 1e9,
        compute_s=compute_s,
        network_s=network_s,
        hidden_s=0.0,
        num_steps=job.num_steps,
        limit=name_limit(
            compute_s > launches * machine.launch_us * 1e-6, network_s > compute_s / 2, busy < gpus
        ),
    )


def reinforcement_flops(model: ModelConfig, job: ReinforceJob) -> dict[str, float]:
    """Work for one take, stage by stage."""
    frames = model.num_frames(job.clip_s)
    forward = (2 if job.guidance else 1) * forward_flops(model.transformer, frames)
    return {
        "rollout": job.sampling_steps * forward,
        "sound": sound_flops(model, frames),
        "judge": 2 * job.judge_parameters * job.judge_tokens,
        "update": job.trained_steps * forward * (1 + BACKWARD + job.reference),
    }


def gathered_bytes(model: ModelConfig, job: ReinforceJob, num_frames: int, gpus: int) -> float:
    """Received by the first process in a step: sound of all rows, latents, one reward each."""
    sound = model.num_frames(job.clip_s) * model.frame_samples * FLOAT32
    latents = num_frames * model.transformer.latent_channels * FLOAT32
    return job.rows * (sound + latents + 8) * (gpus - 1) / gpus


def name_limit(by_work: bool, by_network: bool, idle: bool) -> str:
    """What the time of an update goes to, in a few words."""
    if idle:
        return "more GPUs than rows"
    if by_network:
        return "summing gradients"
    return "arithmetic" if by_work else "kernel launches"


# --- storage -----------------------------------------------------------------------------------


def storage_gb(model: ModelConfig, job: PretrainJob) -> dict[str, float]:
    """Sizes on disk of what pre-training reads and writes, by stage."""
    seconds, config = job.audio_hours * 3600, model.transformer
    latent = 2 * 2 * model.frame_rate_hz * config.latent_channels  # mean and deviation, float16
    text = 2 * (config.num_text_tokens * config.text_dim + config.pooled_dim)
    return {
        "sound, 16 bits": seconds * model.mel.sample_rate_hz * 2 / 1e9,
        "latents, mean and deviation": seconds * latent / 1e9,
        "text features, float16": job.clips * text / 1e9,
        "a checkpoint": CHECKPOINT_BYTES * count_parameters(config) / 1e9,
    }


def row_bytes_read(model: ModelConfig, clip_s: float) -> int:
    """Latents and text features of one clip, as training reads them."""
    config, frames = model.transformer, model.num_frames(clip_s)
    latent = 2 * 2 * frames * config.latent_channels
    return latent + 2 * (config.num_text_tokens * config.text_dim + config.pooled_dim)


def reading_mb_s(model: ModelConfig, job: PretrainJob, step_s: float) -> float:
    """What all processes together read while they train from latents."""
    return job.batch * row_bytes_read(model, job.clip_s) / step_s / 1e6


@dataclass(frozen=True)
class Stage:
    """One stage of the whole way, all machines together."""

    name: str
    reads_gb: float
    writes_gb: float
    pflop: float


def list_stages(model: ModelConfig, job: PretrainJob, reinforce: ReinforceJob) -> list[Stage]:
    """What encoding, pre-training and GRPO read, write and compute; one checkpoint each."""
    sizes, frames = storage_gb(model, job), model.num_frames(job.clip_s)
    sound, latents, text, checkpoint = sizes.values()
    rows = job.batch * job.num_steps
    learn = (
        reinforce.rows * reinforce.num_steps * sum(reinforcement_flops(model, reinforce).values())
    )
    encode = job.clips * encoding_flops(model, frames)
    train = rows * train_flops(model.transformer, frames)
    read_gb = rows * row_bytes_read(model, job.clip_s) / 1e9
    return [
        Stage("encode", sound, latents + text, encode / 1e15),
        Stage("pre-train", read_gb, checkpoint, train / 1e15),
        Stage("GRPO", checkpoint, checkpoint, learn / 1e15),
    ]


def steps_within(cost: Cost, hours: float) -> int:
    """Updates that fit into some hours."""
    return int(hours * 3600 / cost.step_s)
