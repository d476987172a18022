"""The systems of the paper's Table 1, and how their clips are brought in."""

from __future__ import annotations

from typing import Literal

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import ConfigError

Way = Literal["model", "diffusers", "command", "clips"]


class Baseline(FrozenConfig):
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


TABLE_1 = {
    "audioldm-l-full": Baseline(
        title="AudioLDM-L-Full",
        params="739M",
        nfe=200,
        way="diffusers",
        place="cvssp/audioldm-l-full",
    ),
    "audioldm2-large": Baseline(
        title="AudioLDM-2-Large",
        params="718M",
        nfe=200,
        way="diffusers",
        place="cvssp/audioldm2-large",
    ),
    "tango-full": Baseline(
        title="Tango-Full",
        params="866M",
        nfe=200,
        way="clips",
        place="declare-lab/tango-full",
        note="Tango('declare-lab/tango-full').generate(prompt, steps=200) gives 16 kHz samples",
    ),
    "tango2-full": Baseline(
        title="Tango-2-Full",
        params="866M",
        nfe=200,
        way="clips",
        place="declare-lab/tango2-full",
        note="Tango('declare-lab/tango2-full').generate(prompt, steps=200) gives 16 kHz samples",
    ),
    "meanaudio-l-full": Baseline(
        title="MeanAudio-L-Full",
        params="480M",
        nfe=25,
        way="clips",
        place="https://github.com/xiquan-li/MeanAudio",
        note="demo.py and infer.py name their files by prompt; eval.py takes a list of prompts",
    ),
    "ezaudio-xl": Baseline(
        title="EzAudio-XL",
        params="857M",
        nfe=200,
        way="clips",
        place="https://github.com/haidog-yaqub/EzAudio",
        note="api/ezaudio.py makes one sound a call",
    ),
    "genau-l-full": Baseline(
        title="GenAU-L-Full",
        params="1253M",
        nfe=200,
        way="clips",
        place="https://github.com/snap-research/GenAU",
        note="scripts/text_to_audio.py --ddim_steps 200 --n_cand 1; by default it makes three "
        "candidates and keeps the one CLAP likes best, which the paper does not mention",
    ),
    "tangoflux": Baseline(
        title="TangoFlux",
        params="516M",
        nfe=50,
        way="command",
        place="tangoflux {prompt} {file} --duration 10 --steps 50",
        note="pip install from https://github.com/declare-lab/TangoFlux; it takes no seed, so a "
        "second run gives other sounds; 10 s are ours, the paper names no length",
    ),
    "resonate-pt": Baseline(
        title="Resonate-PT",
        params="470M",
        nfe=25,
        way="model",
        place="",
        note="give the folder of the converted weights with --model (resonate convert)",
    ),
    "resonate-grpo": Baseline(
        title="Resonate-GRPO",
        params="470M",
        nfe=25,
        way="model",
        place="",
        note="give the folder of the converted weights with --model (resonate convert)",
    ),
}
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
