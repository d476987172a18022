"""Judges by name: how a specification becomes a judge or a weighted sum of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar
from urllib.parse import unquote

import torch
from pydantic import Field

from resonate_audio.core.config import FrozenConfig, GivenPath, parse_config
from resonate_audio.core.errors import ConfigError, ModelNotFoundError
from resonate_audio.model.hub_client import NotHereError
from resonate_audio.rewards.base import Reward
from resonate_audio.rewards.ensemble import Ensemble, Member

if TYPE_CHECKING:
    from resonate_audio.rewards.audio_llm.aqascore import AQAReward

BUNDLED = ("nano-lalm", "nano-clap", "nano-eval")
"""Judges whose weights come with this package."""
_SPEC = re.compile(
    r"(?:(?P<weight>[^*:#/]+)\*)?(?P<kind>[^:#]+)(?::(?P<source>[^#]+))?(?P<options>#.*)?"
)


@dataclass(frozen=True)
class JudgeSpec:
    """One judge as a command line or a recipe names it: ``weight*kind:source#option=value``."""

    kind: str
    source: str | None
    options: str
    weight: float = 1.0

    @property
    def text(self) -> str:
        """As it was written, but for the weight."""
        source = "" if self.source is None else f":{self.source}"
        return f"{self.kind}{source}{self.options}"


class LocalOptions(FrozenConfig):
    """What may follow ``#`` behind a judge that computes here, divided by ``&``."""

    batch_size: int = Field(8, ge=1, le=100_000)
    """Rows in one forward pass."""


class MSClapOptions(LocalOptions):
    """The same for ``ms-clap`` and ``pam``."""

    mode: Literal["deterministic", "paper"] = "deterministic"
    """Which seconds of a sound are heard."""


OptionsT = TypeVar("OptionsT", bound=FrozenConfig)


class AQAOptions(LocalOptions):
    """The same for ``aqa``."""

    dtype: str | None = None
    """float32, bfloat16 or float16; by default float32 on a CPU, else bfloat16."""
    question: str = "paper"
    """``paper``, ``official``, or a text with ``{c}`` where the caption goes."""


class RubricOptions(AQAOptions):
    """The same for ``rubric``."""

    items: GivenPath | None = None
    """JSON lines with ``prompt`` and its list of items in ``rubric`` or ``event_list``."""
    field: str = ""
    """Another name of that list."""


class AestheticsOptions(LocalOptions):
    """The same for ``aesthetics``."""

    axis: Literal["mean", "CE", "CU", "PC", "PQ"] = "mean"
    """Which grade is the score; all four are reported."""
    mode: Literal["deterministic", "paper"] = "deterministic"
    """Paper mode hears a rest under 0.1 s behind the last window of 10 s, too."""


def open_reward(
    spec: str | Sequence[str], device: str | torch.device = "cpu", timeout_s: float = 300.0
) -> Ensemble:
    """Load the judges that a line of text names.

    ``clap`` · ``aqa:Qwen/Qwen2.5-Omni-7B#question=official`` · ``nano-clap,0.5*my_mod:brightness``

    Args:
        spec: judges divided by commas, or a list of them; each a kind of `JUDGES` or the
            ``module:name`` of a function, with a weight before ``*``, a model behind ``:`` and
            options behind ``#``.
        device: where local judges compute.
        timeout_s: seconds that each judge has for a batch.

    Raises:
        ConfigError: an unknown judge, weight or option; lists the judges that exist.
        ModelNotFoundError: a judge's weights are not here and cannot be fetched.
        CheckpointError: a judge's files are broken.
    """
    specs = parse_specs(spec)
    return Ensemble(
        [
            Member(label, open_judge(one, torch.device(device)), one.weight)
            for label, one in zip(short_labels(specs), specs, strict=True)
        ],
        timeout_s,
    )


def short_labels(specs: Sequence[JudgeSpec]) -> list[str]:
    """The shortest names that tell judges apart: by kind, else by model, else by options too."""
    choices = [(one.kind, one.text.partition("#")[0], one.text) for one in specs]
    return [
        next(
            (
                label
                for level, label in enumerate(own)
                if [c[level] for c in choices].count(label) == 1
            ),
            own[-1],
        )
        for own in choices
    ]


def parse_specs(spec: str | Sequence[str]) -> list[JudgeSpec]:
    """Read what `open_reward` opens, and open nothing.

    Raises:
        ConfigError: an unknown judge, or a weight that is none; lists the judges that exist.
    """
    texts = spec.split(",") if isinstance(spec, str) else list(spec)
    specs = [parse_spec(text) for text in texts]
    for one in specs:
        if one.kind not in JUDGES and (":" not in one.kind or one.options):
            raise no_such_judge(one)
    return specs


def parse_spec(text: str) -> JudgeSpec:
    """Read one judge's weight, kind, source and options.

    Raises:
        ConfigError: it is not of that form.
    """
    found = _SPEC.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"judge {text!r}: expected weight*kind:source, such as 0.5*clap")
    try:
        weight = float(found["weight"] or 1.0)
    except ValueError as error:
        raise ConfigError(f"judge {text!r}: {found['weight']!r} is no weight") from error
    kind, source = found["kind"].strip(), found["source"]
    if kind not in JUDGES and source is not None:  # module:name keeps its colon as its kind
        kind, source = f"{kind}:{source}", None
    return JudgeSpec(kind, source, found["options"] or "", weight)


def open_judge(spec: JudgeSpec, device: torch.device) -> Reward:
    """Load one judge.

    Raises:
        ConfigError: there is none of that kind; lists those that exist.
        ModelNotFoundError: its weights are not here and cannot be fetched; lists the bundled ones.
    """
    if spec.kind in JUDGES:
        try:
            return JUDGES[spec.kind](spec, device)
        except NotHereError as error:
            raise ModelNotFoundError(
                f"judge {spec.text}: needs its weights once from the hub; offline there are "
                f"{', '.join(BUNDLED)}; {error}"
            ) from error
    if ":" in spec.kind and not spec.options:
        from resonate_audio.rewards.function import open_function

        return open_function(spec.kind)
    raise no_such_judge(spec)


def no_such_judge(spec: JudgeSpec) -> ConfigError:
    """The line that lists those that exist."""
    return ConfigError(
        f"judge {spec.text}: there is no such judge; there are {', '.join(JUDGES)}, and your own "
        "function as module:name"
    )


def _open_clap(spec: JudgeSpec, device: torch.device) -> Reward:
    from resonate_audio.rewards.clap.laion import DEFAULT_SOURCE, CLAPReward

    options = judge_options(spec, LocalOptions)
    return CLAPReward.from_pretrained(spec.source or DEFAULT_SOURCE, device, options.batch_size)


def _open_aqa(spec: JudgeSpec, device: torch.device) -> Reward:
    from resonate_audio.rewards.audio_llm.aqascore import AQAReward

    if spec.source is None:
        raise ConfigError("judge aqa: which model? such as aqa:Qwen/Qwen2.5-Omni-7B, or a folder")
    options = judge_options(spec, AQAOptions)
    return AQAReward.from_pretrained(
        spec.source, device, options.dtype, options.question, batch_size=options.batch_size
    )


def _open_rubric(spec: JudgeSpec, device: torch.device) -> Reward:
    from resonate_audio.rewards.audio_llm.rubric import RubricReward, read_items

    options = judge_options(spec, RubricOptions)
    if options.items is None:
        raise ConfigError(
            f"judge {spec.text}: which items? such as rubric:MODEL#items=prompts.jsonl, whose "
            "lines hold prompt and rubric or event_list"
        )
    items = read_items(options.items, options.field)
    return RubricReward(open_rubric_model(spec, options, device), items)


def open_rubric_model(spec: JudgeSpec, options: AQAOptions, device: torch.device) -> AQAReward:
    """The judge that is asked about the items of a rubric.

    Raises:
        ConfigError: no model is named, or an option has a bad value.
        ResonateError: as of its loading.
    """
    from resonate_audio.rewards.audio_llm.aqascore import AQAReward

    if spec.source is None:
        raise ConfigError("judge rubric: which model? such as rubric:nano-lalm, or as aqa takes it")
    if spec.source == "nano-lalm":
        judge = _open_nano_lalm(JudgeSpec("nano-lalm", None, ""), device)
        assert isinstance(judge, AQAReward)
        return judge
    return AQAReward.from_pretrained(
        spec.source, device, options.dtype, options.question, batch_size=options.batch_size
    )


def _open_aesthetics(spec: JudgeSpec, device: torch.device) -> Reward:
    from resonate_audio.rewards.aesthetics import DEFAULT_SOURCE, AestheticsReward

    options = judge_options(spec, AestheticsOptions)
    return AestheticsReward.from_pretrained(
        spec.source or DEFAULT_SOURCE, device, options.axis, options.batch_size, options.mode
    )


def _open_ms_clap(spec: JudgeSpec, device: torch.device) -> Reward:
    from resonate_audio.rewards.clap.microsoft import DEFAULT_SOURCE, MSClapReward

    options = judge_options(spec, MSClapOptions)
    source = spec.source or DEFAULT_SOURCE
    return MSClapReward.from_pretrained(source, device, options.mode, options.batch_size)


def _open_pam(spec: JudgeSpec, device: torch.device) -> Reward:
    from resonate_audio.rewards.clap.microsoft import DEFAULT_SOURCE
    from resonate_audio.rewards.clap.pam import PAMReward

    options = judge_options(spec, MSClapOptions)
    source = spec.source or DEFAULT_SOURCE
    return PAMReward.from_pretrained(source, device, options.mode, options.batch_size)


def _open_remote(spec: JudgeSpec, _: torch.device) -> Reward:
    from resonate_audio.rewards.remote.judge import open_remote

    if spec.source is None:
        raise ConfigError("judge remote: at which URL? such as remote:http://host:8000/v1#model=…")
    return open_remote(spec.source + spec.options)


def _open_nano_clap(spec: JudgeSpec, device: torch.device) -> Reward:
    from resonate_audio.rewards.small.two_tower import TwoTowerReward

    return TwoTowerReward.from_folder(_bundled(spec), device=device)


def _open_nano_lalm(spec: JudgeSpec, device: torch.device) -> Reward:
    from resonate_audio.rewards.audio_llm.aqascore import AQAReward
    from resonate_audio.rewards.audio_llm.model import AudioLLM

    llm = AudioLLM.from_folder(_bundled(spec), device, torch.float32)
    return AQAReward(llm, "bundled", name=spec.kind)


def _open_nano_eval(spec: JudgeSpec, device: torch.device) -> Reward:
    from resonate_audio.rewards.small.matcher import MatcherReward

    return MatcherReward.from_folder(_bundled(spec), device=device)


def _open_guard(spec: JudgeSpec, _: torch.device) -> Reward:
    from resonate_audio.rewards.guard import GuardReward

    if spec.source is not None or spec.options:
        raise ConfigError(f"judge {spec.text}: guard takes no model or option")
    return GuardReward()


JUDGES: dict[str, Callable[[JudgeSpec, torch.device], Reward]] = {
    "clap": _open_clap,
    "aqa": _open_aqa,
    "rubric": _open_rubric,
    "aesthetics": _open_aesthetics,
    "ms-clap": _open_ms_clap,
    "pam": _open_pam,
    "remote": _open_remote,
    "nano-clap": _open_nano_clap,
    "nano-lalm": _open_nano_lalm,
    "nano-eval": _open_nano_eval,
    "guard": _open_guard,
}
"""Every kind of judge that comes with this package."""


def _bundled(spec: JudgeSpec) -> Path:
    if spec.source is not None or spec.options:
        raise ConfigError(f"judge {spec.text}: {spec.kind} is bundled and takes no model or option")
    folder = Path(str(files("resonate_audio"))) / "nano" / "judges" / spec.kind
    if not folder.is_dir():
        raise ModelNotFoundError(f"{folder}: judge {spec.kind} is not part of this installation")
    return folder


def judge_options(spec: JudgeSpec, cls: type[OptionsT]) -> OptionsT:
    """What stands behind ``#``.

    Raises:
        ConfigError: an option is unknown or has a bad value.
    """
    values: dict[str, str] = {}
    for option in filter(None, spec.options.removeprefix("#").split("&")):
        field, _, value = option.partition("=")
        values[field] = unquote(value)
    return parse_config(cls, values, f"judge {spec.text}")
