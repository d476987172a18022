"""Metrics: the judges that train, opened by name, with a card that says how they measure.

A metric is a `Reward` and the columns that come from its score and its parts. ``deterministic``
mode hears exactly the first ten seconds of every sound, resampled by soxr. ``paper`` mode hears
what the published scripts hear: the whole clip, resampled as torchaudio does, with their question.
A judge without a published script has no paper mode and says so in its card.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from resonate_audio.core.errors import ConfigError
from resonate_audio.core.types import Waveform
from resonate_audio.evaluation.scores.scored import MetricCard, Mode
from resonate_audio.evaluation.scores.sinc_resample import sinc_resample
from resonate_audio.rewards.base import Reward
from resonate_audio.rewards.catalogue import (
    JUDGES,
    AQAOptions,
    JudgeSpec,
    judge_options,
    open_judge,
    open_rubric_model,
    parse_spec,
)
from resonate_audio.rewards.fingerprints import (
    fingerprint,
    hash_code,
    hash_folder,
    hash_weights,
    number_formats,
)
from resonate_audio.rewards.pretrained import find_pretrained

WINDOW_S = 10.0
"""What deterministic mode hears of a sound: official clips are 10.008 s long, just over the
windows of the judges, which then hear two of them or a random part."""
TOTAL = "total"
"""Name under which a judge's score itself is kept beside its parts."""
HEARD = 0.5
"""An event counts as heard from this probability on."""
_LABEL = re.compile(r"(?P<label>[A-Za-z][\w-]*)=(?P<spec>.+)")


@dataclass(frozen=True)
class Column:
    """One number that a metric gives of each clip."""

    card: MetricCard
    part: str = TOTAL
    """Which part of the judge's answer it is."""


@dataclass(frozen=True)
class Metric:
    """A judge, its columns, and what it is given to hear."""

    judge: Reward
    columns: tuple[Column, ...]
    fingerprint: str
    kind: str = ""
    """Which of `METRICS` it is; empty for a judge that is none of them."""
    window_s: float | None = WINDOW_S
    """Seconds from the start that it hears; None: all."""
    rate_hz: int | None = None
    """Resampled to this rate as torchaudio does; None: the judge resamples."""
    asks_about: tuple[str, ...] = ()
    """Fields that may hold a prompt's items, the first that is there: asked about each of them
    instead of the prompt."""
    batch_size: int = 16

    @property
    def is_per_event(self) -> bool:
        """Whether it is asked about a prompt's items one by one."""
        return bool(self.asks_about)

    @property
    def name(self) -> str:
        """How messages call it: its first column."""
        return self.columns[0].card.name

    def prepare(self, audio: Waveform) -> Waveform:
        """What the judge hears of sounds.

        The cut comes first, so that nothing rings from what is not heard.
        """
        return prepare_for(audio, self.window_s, self.rate_hz)


def prepare_for(audio: Waveform, window_s: float | None, rate_hz: int | None) -> Waveform:
    """The first seconds of sounds, at another rate if one is given."""
    length = None if window_s is None else round(window_s * audio.sample_rate_hz)
    samples = audio.samples[:, :length]
    if rate_hz is None:
        return Waveform(samples, audio.sample_rate_hz)
    return Waveform(sinc_resample(samples, audio.sample_rate_hz, rate_hz), rate_hz)


@dataclass(frozen=True)
class Plan:
    """One column before its judge is opened."""

    suffix: str
    """Behind the metric's name; the name itself if empty."""
    part: str
    title: str = ""
    worst: float | None = None
    in_front: bool = True
    """Whether the metric's name comes before the suffix."""


@dataclass(frozen=True)
class Opened:
    """A judge that is ready, and what its card needs beyond its weights and code."""

    judge: Reward
    plans: tuple[Plan, ...]
    files: Path | None = None
    """Folder or file of the weights; None: they are hashed where they are in memory."""
    paper_rate_hz: int | None = None
    """Rate of the published script's resampler; None: the judge has no paper mode."""
    question: str = ""
    asks_about: tuple[str, ...] = ()
    """As in `Metric`."""


Opener = Callable[[JudgeSpec, Mode, torch.device], Opened]

GRADES = tuple(
    Plan(axis.lower(), axis, axis, 1.0, in_front=False) for axis in ("CE", "CU", "PC", "PQ")
)
COSINE = (Plan("", TOTAL, worst=-1.0),)
ANSWERS = (
    Plan("", TOTAL, worst=0.0),
    Plan("log-odds", "log_odds"),
    Plan("answer-mass", "answer_mass"),
)
MATCH = (Plan("", TOTAL, worst=0.0), Plan("log-odds", "log_odds"))
RUBRIC = (
    Plan("", "mean", worst=0.0),
    Plan("worst", "worst", worst=0.0),
    Plan("share", "share", worst=0.0),
)
PROBABILITY = (Plan("", TOTAL, worst=0.0),)


def open_metric(
    text: str,
    mode: Mode = "deterministic",
    device: str | torch.device = "cpu",
    batch_size: int = 16,
) -> Metric:
    """Open a metric by name.

    ``aes`` · ``laion-clap:FOLDER`` · ``aqa:Qwen/Qwen2.5-Omni-7B`` · ``nano-eval`` ·
    ``my_module:function`` · ``strict=aqa:FOLDER#question=official``

    Args:
        text: one of `METRICS` with its model, or a judge as `open_reward` takes it; ``name=`` in
            front gives its columns that name.
        mode: what it hears; a judge without a published script stays deterministic.
        device: where it computes.
        batch_size: sounds given to it at once.

    Raises:
        ConfigError: there is no such metric.
        ResonateError: as of the judge's loading.
    """
    label, spec = _parse(text)
    if spec.weight != 1.0:
        raise ConfigError(f"metric {text}: a weight says nothing here; leave it out")
    opened = _opener(spec)(spec, mode, torch.device(device))
    name = label or (spec.kind if spec.kind in METRICS else spec.text)
    is_paper = mode == "paper" and opened.paper_rate_hz is not None
    details = _details(spec, opened, "paper" if is_paper else "deterministic")
    return Metric(
        judge=opened.judge,
        columns=_columns(name, opened, details),
        fingerprint=fingerprint(details),
        window_s=None if is_paper else WINDOW_S,
        rate_hz=opened.paper_rate_hz if is_paper else None,
        batch_size=batch_size,
        kind=spec.kind if spec.kind in METRICS else "",
        asks_about=opened.asks_about,
    )


def ask_per_event(metric: Metric) -> Metric:
    """The same judge, asked about each event of a prompt: mean of its answers, and share heard.

    Raises:
        ConfigError: its score is no probability.
    """
    if metric.kind not in PER_EVENT:
        raise ConfigError(
            f"metric {metric.name}: gives no probability, so it cannot be asked per event; "
            f"{', '.join(PER_EVENT)} can"
        )
    card = metric.columns[0].card
    details = card.details | {"asked": "each event of event_list"}
    columns = tuple(
        Column(card.model_copy(update={"name": f"{card.name}-{suffix}", "details": details}), part)
        for suffix, part in (("event-mean", "mean"), ("event-share", "share"))
    )
    return replace(metric, columns=columns, asks_about=("event_list",))


def check_columns(metrics: Sequence[Metric]) -> None:
    """Refuse two columns of one name.

    Raises:
        ConfigError: names it.
    """
    seen: set[str] = set()
    for column in (column for metric in metrics for column in metric.columns):
        if column.card.name in seen:
            raise ConfigError(
                f"metric {column.card.name} is given twice; name one of them: other=METRIC"
            )
        seen.add(column.card.name)


def _parse(text: str) -> tuple[str, JudgeSpec]:
    """Label, if there is one, and judge."""
    found = _LABEL.fullmatch(text.strip())
    label, rest = (found["label"], found["spec"]) if found else ("", text)
    spec = parse_spec(rest)
    kind, colon, source = spec.kind.partition(":")
    if colon and kind in METRICS:  # parse_spec knows the judges only
        spec = replace(spec, kind=kind, source=source)
    return label, spec


def _opener(spec: JudgeSpec) -> Opener:
    if spec.kind in METRICS:
        return METRICS[spec.kind]
    if spec.kind in JUDGES or (":" in spec.kind and not spec.options):
        return _open_any
    raise ConfigError(
        f"metric {spec.text}: there is no such metric; there are {', '.join(METRICS)}, "
        f"{', '.join(kind for kind in JUDGES if kind not in METRICS)}, and your own function as "
        "module:name"
    )


def _details(spec: JudgeSpec, opened: Opened, mode: Mode) -> dict[str, str]:
    """What numbers depend on, in words and hashes; where files lie is no part of it."""
    if opened.files is None:
        weights = hash_weights(opened.judge)
    else:
        weights = f"{hash_folder(opened.files)} {number_formats(opened.judge)}"
    details = {
        "judge": spec.text if weights is None else f"{spec.kind}{spec.options}",
        "weights": weights or "none that could be seen",
        "code": hash_code([opened.judge, prepare_for, sinc_resample]),
        "mode": mode,
        "window": f"first {WINDOW_S:g} s" if mode == "deterministic" else "all",
        "resampler": "soxr VHQ",
        "question": opened.question,
        "asked": f"each item of {' or '.join(opened.asks_about)}" if opened.asks_about else "",
    }
    if mode == "paper":
        details["resampler"] = f"windowed sinc to {opened.paper_rate_hz} Hz, as torchaudio"
    return {name: value for name, value in details.items() if value}


def _columns(name: str, opened: Opened, details: dict[str, str]) -> tuple[Column, ...]:
    mode: Mode = "paper" if details["mode"] == "paper" else "deterministic"
    columns = []
    for plan in opened.plans:
        if not plan.suffix:
            full = name
        elif plan.in_front or name not in METRICS:
            full = f"{name}-{plan.suffix}"
        else:
            full = plan.suffix
        card = MetricCard(
            name=full,
            fingerprint=fingerprint(details),
            mode=mode,
            title=plan.title,
            details=details,
            worst=plan.worst,
        )
        columns.append(Column(card, plan.part))
    return tuple(columns)


def _open_aes(spec: JudgeSpec, mode: Mode, device: torch.device) -> Opened:
    from resonate_audio.rewards.aesthetics import DEFAULT_SOURCE, SAMPLE_RATE_HZ

    if mode == "paper":
        spec = _with_option(spec, "mode=paper")
    source = spec.source or DEFAULT_SOURCE
    judge = open_judge(replace(spec, kind="aesthetics", source=source), device)
    return Opened(judge, GRADES, find_pretrained(source), SAMPLE_RATE_HZ)


def _open_laion_clap(spec: JudgeSpec, _: Mode, device: torch.device) -> Opened:
    from resonate_audio.rewards.clap.laion import DEFAULT_SOURCE

    source = spec.source or DEFAULT_SOURCE
    judge = open_judge(replace(spec, kind="clap", source=source), device)
    return Opened(judge, COSINE, find_pretrained(source))


def _open_aqa(spec: JudgeSpec, mode: Mode, device: torch.device) -> Opened:
    from resonate_audio.rewards.audio_llm.aqascore import AQAReward
    from resonate_audio.rewards.audio_llm.model import SAMPLE_RATE_HZ

    if mode == "paper" and "question=" not in spec.options:
        spec = _with_option(spec, "question=official")
    judge = open_judge(spec, device)
    assert isinstance(judge, AQAReward)
    assert spec.source is not None, "open_judge refuses aqa without a model"
    question = f"{judge.llm.question.name} {judge.llm.question.fingerprint}"
    return Opened(judge, ANSWERS, find_pretrained(spec.source), SAMPLE_RATE_HZ, question)


def _open_rubric(spec: JudgeSpec, mode: Mode, device: torch.device) -> Opened:
    from resonate_audio.rewards.audio_llm.model import SAMPLE_RATE_HZ
    from resonate_audio.rewards.audio_llm.rubric import FIELDS

    if mode == "paper" and "question=" not in spec.options:
        spec = _with_option(spec, "question=official")
    judge = open_rubric_model(spec, judge_options(spec, AQAOptions), device)
    question = f"{judge.llm.question.name} {judge.llm.question.fingerprint}"
    files = None if spec.source == "nano-lalm" else find_pretrained(str(spec.source))
    rate = None if files is None else SAMPLE_RATE_HZ
    return Opened(judge, RUBRIC, files, rate, question, FIELDS)


def _open_nano_lalm(spec: JudgeSpec, _: Mode, device: torch.device) -> Opened:
    from resonate_audio.rewards.audio_llm.aqascore import AQAReward

    judge = open_judge(spec, device)
    assert isinstance(judge, AQAReward)
    question = f"{judge.llm.question.name} {judge.llm.question.fingerprint}"
    return Opened(judge, ANSWERS, question=question)


def _open_nano_clap(spec: JudgeSpec, _: Mode, device: torch.device) -> Opened:
    return Opened(open_judge(spec, device), COSINE)


def _open_nano_eval(spec: JudgeSpec, _: Mode, device: torch.device) -> Opened:
    return Opened(open_judge(spec, device), MATCH)


def _open_ms_clap(spec: JudgeSpec, mode: Mode, device: torch.device) -> Opened:
    from resonate_audio.rewards.clap.microsoft import DEFAULT_SOURCE, MSClapReward
    from resonate_audio.rewards.clap.microsoft_network import SAMPLE_RATE_HZ

    _refuse_options(spec)
    judge = MSClapReward.from_pretrained(spec.source or DEFAULT_SOURCE, device, mode)
    return Opened(judge, COSINE, paper_rate_hz=SAMPLE_RATE_HZ)


def _open_pam(spec: JudgeSpec, mode: Mode, device: torch.device) -> Opened:
    from resonate_audio.rewards.clap.microsoft import DEFAULT_SOURCE
    from resonate_audio.rewards.clap.microsoft_network import SAMPLE_RATE_HZ
    from resonate_audio.rewards.clap.pam import PAMReward

    _refuse_options(spec)
    judge = PAMReward.from_pretrained(spec.source or DEFAULT_SOURCE, device, mode)
    return Opened(judge, PROBABILITY, paper_rate_hz=SAMPLE_RATE_HZ)


def _open_any(spec: JudgeSpec, _: Mode, device: torch.device) -> Opened:
    return Opened(open_judge(spec, device), (Plan("", TOTAL),))


def _with_option(spec: JudgeSpec, option: str) -> JudgeSpec:
    before = f"{spec.options}&" if spec.options else "#"
    return replace(spec, options=before + option)


def _refuse_options(spec: JudgeSpec) -> None:
    if spec.options:
        raise ConfigError(f"metric {spec.text}: {spec.kind} takes no options")


METRICS: dict[str, Opener] = {
    "aes": _open_aes,
    "laion-clap": _open_laion_clap,
    "ms-clap": _open_ms_clap,
    "aqa": _open_aqa,
    "rubric": _open_rubric,
    "pam": _open_pam,
    "nano-clap": _open_nano_clap,
    "nano-lalm": _open_nano_lalm,
    "nano-eval": _open_nano_eval,
}
"""Every metric of single clips by its kind."""
PER_EVENT = ("aqa", "nano-lalm", "nano-eval")
"""Those whose score is the probability that something is heard."""
