"""The systems of the paper's Table 1, and how their clips are brought in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from resonate_audio.core.errors import ConfigError

Way = Literal["model", "diffusers", "command", "clips"]


@dataclass(frozen=True)
class Baseline:
    """One row of Table 1 [Resonate, arXiv:2603.11661]."""

    title: str
    """As the table prints it."""
    params: str
    nfe: int
    """Steps of its solver: the table lists 25 for Resonate, whose guidance doubles the calls."""
    way: Way
    """``model`` and ``diffusers``: loaded here. ``command``: its own program, once a prompt.
    ``clips``: its own code makes a folder of files named by prompt id."""
    place: str
    """Model, hub id, command template, or where its code lies."""
    note: str = ""

    @property
    def facts(self) -> dict[str, str]:
        """What a table says of it: size and NFE as the paper lists them."""
        return {"title": self.title, "params": self.params, "nfe": str(self.nfe)}


def _tango(title: str, place: str) -> Baseline:
    note = f"Tango('{place}').generate(prompt, steps=200) gives 16 kHz samples"
    return Baseline(title, "866M", 200, "clips", place, note)


_CONVERTED = "give the folder of the converted weights with --model (resonate convert)"
TABLE_1 = {
    "audioldm-l-full": Baseline(
        "AudioLDM-L-Full", "739M", 200, "diffusers", "cvssp/audioldm-l-full"
    ),
    "audioldm2-large": Baseline(
        "AudioLDM-2-Large", "718M", 200, "diffusers", "cvssp/audioldm2-large"
    ),
    "tango-full": _tango("Tango-Full", "declare-lab/tango-full"),
    "tango2-full": _tango("Tango-2-Full", "declare-lab/tango2-full"),
    "meanaudio-l-full": Baseline(
        "MeanAudio-L-Full", "480M", 25, "clips", "https://github.com/xiquan-li/MeanAudio",
        "demo.py and infer.py name their files by prompt; eval.py takes a list of prompts",
    ),
    "ezaudio-xl": Baseline(
        "EzAudio-XL", "857M", 200, "clips", "https://github.com/haidog-yaqub/EzAudio",
        "api/ezaudio.py makes one sound a call",
    ),
    "genau-l-full": Baseline(
        "GenAU-L-Full", "1253M", 200, "clips", "https://github.com/snap-research/GenAU",
        "scripts/text_to_audio.py --ddim_steps 200 --n_cand 1; by default it makes three "
        "candidates and keeps the one CLAP likes best, which the paper does not mention",
    ),
    "tangoflux": Baseline(
        "TangoFlux", "516M", 50, "command",
        "tangoflux {prompt} {file} --duration 10 --steps 50",
        "pip install from https://github.com/declare-lab/TangoFlux; it takes no seed, so a "
        "second run gives other sounds; 10 s are ours, the paper names no length",
    ),
    "resonate-pt": Baseline("Resonate-PT", "470M", 25, "model", "", _CONVERTED),
    "resonate-grpo": Baseline("Resonate-GRPO", "470M", 25, "model", "", _CONVERTED),
}  # fmt: skip
"""By the name that ``--preset`` takes. The paper says nothing of any row's guidance, seconds or
sample rate, so none stands here: they are what each system's own code does by default."""


def find_baseline(name: str) -> Baseline:
    """A row of the table by its name here.

    Raises:
        ConfigError: there is none of that name; lists those that there are.
    """
    if name not in TABLE_1:
        raise ConfigError(f"preset {name}: expected one of {', '.join(TABLE_1)}")
    return TABLE_1[name]
