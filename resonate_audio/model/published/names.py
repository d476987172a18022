"""What each published model is made of: every file, where it lives, its size and its licence.

Sizes and hashes are those of the publishers in 2026; ``docs/published-models.md`` says where each
number comes from. What is fetched is held to the size and the SHA-256 that the hub gives for it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from resonate_audio.model import presets
from resonate_audio.model.presets import ModelConfig
from resonate_audio.model.text_encoder import ENCODER_FILES

RESONATE_HUB = "AndreasXi/Resonate"


@dataclass(frozen=True)
class HubFile:
    """One file of a hub repository."""

    repo_id: str
    name: str
    num_bytes: int
    """Published size, about where the publisher gives only a rounded one."""
    licence: str
    part: Literal["network", "text_encoder", "clap", "clap_tokenizer"] = "network"


@dataclass(frozen=True)
class PublishedModel:
    """A name and what stands behind it."""

    name: str
    files: tuple[HubFile, ...]
    """The flow transformer first, then VAE, vocoder and the files of the text encoder."""
    family: ModelConfig
    """Preset of its mel, lengths, steps and text encoder; sizes are read from the files."""
    licence: str
    num_bytes: int
    """Size of the ready folder."""
    memory_bytes: int
    """Memory that a sound of ten seconds takes on a CPU in float32: an estimate, not measured."""
    summary: str

    @property
    def flow(self) -> HubFile:
        """The checkpoint that tells this model from others of its family."""
        return self.files[0]

    def of_part(self, part: str) -> tuple[HubFile, ...]:
        """Its files of one kind."""
        return tuple(file for file in self.files if file.part == part)


VAE_44K_FILE = HubFile(RESONATE_HUB, "v1-44.pth", 1_221_942_998, "MIT")
BIGVGAN_FILE = HubFile(
    "nvidia/bigvgan_v2_44khz_128band_512x", "bigvgan_generator.pt", 489_041_291, "MIT"
)
FLAN_T5 = "google/flan-t5-large"
_T5_BYTES = {"config.json": 1_000, "tokenizer.json": 2_420_000, "model.safetensors": 3_130_000_000}
FLAN_T5_FILES = tuple(
    HubFile(FLAN_T5, name, _T5_BYTES[name], "Apache-2.0", "text_encoder") for name in ENCODER_FILES
)

RESONATE = PublishedModel(
    name="resonate",
    files=(
        HubFile(RESONATE_HUB, "Resonate_GRPO.pth", 937_000_000, "MIT"),
        VAE_44K_FILE,
        BIGVGAN_FILE,
        *FLAN_T5_FILES,
    ),
    family=presets.RESONATE,
    licence="MIT; text encoder Apache-2.0",
    num_bytes=4_950_000_000,
    memory_bytes=7_500_000_000,
    summary="468 M parameters, taught with GRPO",
)
RESONATE_PT = replace(
    RESONATE,
    name="resonate-pt",
    files=(HubFile(RESONATE_HUB, "Resonate_PT.pth", 1_873_000_000, "MIT"), *RESONATE.files[1:]),
    summary="the same before reinforcement",
)
MEANAUDIO_HUB = "AndreasXi/MeanAudio"
MEANAUDIO_SHARED = (
    HubFile(MEANAUDIO_HUB, "v1-16.pth", 687_000_000, "MIT"),
    HubFile(MEANAUDIO_HUB, "best_netG.pt", 449_000_000, "MIT"),
    *FLAN_T5_FILES,
    HubFile(
        MEANAUDIO_HUB,
        "music_speech_audioset_epoch_15_esc_89.98.pt",
        2_350_000_000,
        "CC0-1.0",
        "clap",
    ),
    HubFile("FacebookAI/roberta-base", "tokenizer.json", 1_360_000, "MIT", "clap_tokenizer"),
)
"""Of LAION-CLAP the text half is kept; RoBERTa's tokens are its own."""
MEANAUDIO_S = PublishedModel(
    name="meanaudio-s",
    files=(
        HubFile(MEANAUDIO_HUB, "meanaudio_s_full.pth", 482_000_000, "MIT"),
        *MEANAUDIO_SHARED,
    ),
    family=presets.MEANAUDIO_S,
    licence="MIT; text encoders Apache-2.0, CC0-1.0",
    num_bytes=3_460_000_000,
    memory_bytes=4_500_000_000,
    summary="120 M parameters, one to 25 steps, no guidance",
)
MEANAUDIO_S_AC = replace(
    MEANAUDIO_S,
    name="meanaudio-s-ac",
    files=(HubFile(MEANAUDIO_HUB, "meanaudio_s_ac.pth", 482_000_000, "MIT"), *MEANAUDIO_SHARED),
    family=presets.MEANAUDIO_S_AC,
    summary="the same, trained on AudioCaps alone",
)
MEANAUDIO_L = replace(
    MEANAUDIO_S,
    name="meanaudio-l",
    files=(HubFile(MEANAUDIO_HUB, "meanaudio_l_full.pth", 1_918_000_000, "MIT"), *MEANAUDIO_SHARED),
    family=presets.MEANAUDIO_L,
    num_bytes=4_900_000_000,
    memory_bytes=6_900_000_000,
    summary="480 M parameters, one to 25 steps, no guidance",
)
FLUXAUDIO_S = replace(
    MEANAUDIO_S,
    name="fluxaudio-s",
    files=(HubFile(MEANAUDIO_HUB, "fluxaudio_s_full.pth", 481_000_000, "MIT"), *MEANAUDIO_SHARED),
    family=presets.FLUXAUDIO_S,
    summary="120 M parameters, the flow that MeanAudio began with",
)
PUBLISHED = (RESONATE, RESONATE_PT, MEANAUDIO_S, MEANAUDIO_S_AC, MEANAUDIO_L, FLUXAUDIO_S)
"""Every published model; the first of a repository is what its hub id means."""

_WITH_FILE = re.compile(r"^(?P<repo>[\w.-]+/[\w.-]+)(:(?P<file>[\w.-]+))?$")


def published_model(name: str) -> PublishedModel | None:
    """The model that a name means: ``resonate``, a hub id, or ``owner/name:file.pth``.

    A file that is not in the table is taken for another checkpoint of its repository's family.
    """
    for model in PUBLISHED:
        if name == model.name:
            return model
    asked = _WITH_FILE.match(name)
    family = [m for m in PUBLISHED if asked and m.flow.repo_id.lower() == asked["repo"].lower()]
    if asked is None or not family:
        return None
    if asked["file"] is None:
        return family[0]
    for model in family:
        if model.flow.name == asked["file"]:
            return model
    flow = replace(family[0].flow, name=asked["file"])
    own_name = f"{flow.repo_id.replace('/', '--')}--{flow.name}"
    return replace(family[0], name=own_name, files=(flow, *family[0].files[1:]), summary="")
