"""The page of a reinforcement run: curves, warnings, and the takes themselves."""

from __future__ import annotations

import html
import statistics
from collections.abc import Iterable, Sequence
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

from resonate_audio.core.charts import Chart, Line, Points, render_chart
from resonate_audio.core.files import atomic_path
from resonate_audio.core.page import (
    anchor,
    format_number,
    play_button,
    read_asset,
    render_page,
    render_table,
)
from resonate_audio.rewards.detectors import rewards_diverge
from resonate_audio.training.reinforce.run_log import KeptTake, RunLog, read_run

STEPS_OPEN = 3
"""Steps whose takes are on show; those of earlier ones are folded away."""

POLICY = (
    ("kl", "Distance from the first model", "KL divergence per dimension."),
    ("velocity_kl", "Distance in velocity", "Mean squared difference to the first model's."),
    (
        "velocity_norm",
        "Size of velocities",
        "Over the first model's; above 1, few steps overshoot.",
    ),
    (
        "advantage/frac_zero_std",
        "Prompts without a difference",
        "Share whose takes all score alike: nothing is learnt from them.",
    ),
    ("grad_norm", "Gradient norm", "Before clipping."),
    ("loss", "Loss", "Not a measure of success here; the reward is."),
    ("learning_rate", "Learning rate", ""),
)
DETECTORS = (
    ("detect/clipped_share", "Clipping", "Share of samples at full scale; more is harsher."),
    ("detect/silent_share", "Silence", "Share of frames under -60 dB; more is emptier."),
    ("detect/loudness_lufs", "Loudness (LUFS)", "A steady climb or fall can please by itself."),
    ("detect/energy_above_8k_share", "Above 8 kHz", "Energy where most judges hear nothing."),
    ("detect/diversity_db", "Diversity (dB)", "Less means that the takes of a prompt grow alike."),
)
SECTIONS = ("Reward", "Policy", "Sound checks", "Time", "Takes", "Other numbers", "Recipe")
SPEED = (("steps_per_s", "Steps per second", "Since the run was last started."),)
PHASES = ("rollout", "decode", "reward", "update")


def write_run_page(folder: Path) -> Path:
    """Write ``index.html`` into the folder of a reinforcement run, from the files beside it.

    It may be called at any time, also while the run goes on or before its first number.

    Returns:
        The page.

    Raises:
        InputError: there is no such folder.
        OutputError: the page cannot be written, or the disk is full.
    """
    page = folder / "index.html"
    text = render_run(read_run(folder), folder.resolve().name)
    with atomic_path(page) as temporary:
        temporary.write_bytes(text.encode("utf-8", errors="replace"))
    return page


def render_run(log: RunLog, name: str) -> str:
    """The page's HTML; every text that comes from outside is escaped.

    Args:
        log: what the run wrote.
        name: how the page calls the run.
    """
    sections = (
        _section("Reward", _reward_charts(log)),
        _section("Policy", _policy_charts(log)),
        _section("Sound checks", _small_charts(log, DETECTORS)),
        _section("Time", [_time_chart(log), *_small_charts(log, SPEED)]),
        _takes(log.takes),
        _section("Other numbers", _other_charts(log)),
        _tables(log),
    )
    inside = "".join(sections)
    style = (files("resonate_audio.training.reinforce") / "run_page.css").read_text(
        encoding="utf-8"
    )
    return render_page(
        title=name,
        headline=name,
        summary=summarize(log),
        body=f'<main class="run">{_facts(log)}{_warnings(log)}{_links(inside)}{inside}</main>',
        style=read_asset("charts.css") + style,
        script=read_asset("charts.js"),
    )


def summarize(log: RunLog) -> str:
    """One sentence or two on how far the run is and how the reward went."""
    if log.last_step is None:
        return "No numbers yet: the run has not logged a step. Load this page again later."
    total = log.setting("run.num_steps")
    reached = f"Step {log.last_step}" + (f" of {total}" if isinstance(total, int) else "") + "."
    reward = log.series.get("reward/mean", ())
    if len(reward) < 2:
        return reached
    start, end = (statistics.fmean(values) for values in _ends(reward))
    went = f"{format_number(start)} at the beginning, {format_number(end)} now"
    return f"{reached} Training reward: {went} (means of a tenth of the run)."


def _ends(points: Points) -> tuple[list[float], list[float]]:
    count = max(1, len(points) // 10)
    values = [value for _, value in points]
    return values[:count], values[-count:]


def _facts(log: RunLog) -> str:
    settings = (
        ("Model", "model"),
        ("Algorithm", "algorithm.kind"),
        ("Judge", "reward"),
        ("Held-out judge", "evaluation.held_out"),
        ("Prompts per step", "prompts_per_step"),
        ("Takes per prompt", "takes"),
    )
    known = [(label, log.setting(path)) for label, path in settings]
    items = "".join(
        f"<div><dt>{label}</dt><dd>{html.escape(str(value))}</dd></div>"
        for label, value in known
        if isinstance(value, str | int | float)
    )
    return f'<dl class="facts">{items}</dl>' if items else ""


def _warnings(log: RunLog) -> str:
    texts = []
    reward = log.series.get("reward/mean", ())
    for judge, scores in _judges(log, "held_out/"):
        if rewards_diverge(reward, scores):
            texts.append(
                f"The training reward rose while the held-out judge {judge} went down: the model "
                "may be learning the judge's weaknesses. Listen to the newest best takes before "
                "you believe the curve."
            )
    for name, count in log.not_finite.items():
        texts.append(f"{name} was NaN or infinite on {_lines(count)} and is left out there.")
    if log.num_unreadable:
        texts.append(f"{_lines(log.num_unreadable)} of the run's files could not be read.")
    return "".join(f'<p class="warning" role="note">{html.escape(text)}</p>' for text in texts)


def _lines(count: int) -> str:
    return f"{count} line" + "s" * (count != 1)


def _section(title: str, charts: Iterable[str]) -> str:
    inside = "".join(charts)
    body = f'<h2 id="{anchor(title)}">{title}</h2><div class="charts">{inside}</div>'
    return f"<section>{body}</section>" * bool(inside)


def _links(inside: str) -> str:
    """Jumps to the sections that ``inside`` has."""
    links = [
        f'<a href="#{anchor(title)}">{title}</a>'
        for title in SECTIONS
        if f'id="{anchor(title)}"' in inside
    ]
    return f'<nav aria-label="Sections">{"".join(links)}</nav>' if links else ""


def _judges(log: RunLog, prefix: str) -> list[tuple[str, Points]]:
    """Series whose name begins with ``prefix``, by the rest of their name."""
    return [
        (name.removeprefix(prefix), points)
        for name, points in log.series.items()
        if name.startswith(prefix)
    ]


def _reward_charts(log: RunLog) -> list[str]:
    """Reward and held-out scores above each other on one axis of steps, then the parts."""
    mean, spread = (log.series.get(f"reward/{name}", ()) for name in ("mean", "std"))
    held_out, evaluated = _judges(log, "held_out/"), _judges(log, "evaluation/")
    together = [mean, *(points for _, points in held_out + evaluated)]
    steps = [step for points in together for step, _ in points]
    span = (min(steps), max(steps)) if steps else None
    note = "The band is one standard deviation among the takes of a prompt."
    charts = [
        Chart(
            "Training reward",
            (Line("reward", mean, spread),),
            note=note if spread else "",
            wide=True,
            steps=span,
        )
    ]
    for title, judges in (("Held-out judge", held_out), ("Training judge, new prompts", evaluated)):
        charts += [
            Chart(f"{title}: {judge}", (Line("score", points),), wide=True, steps=span)
            for judge, points in judges
        ]
    parts = [pair for pair in _judges(log, "reward/") if pair[0] not in ("mean", "std")]
    charts += [Chart(f"Part of the reward: {name}", (Line(name, x),)) for name, x in parts]
    return [render_chart(chart) for chart in charts]


def _policy_charts(log: RunLog) -> list[str]:
    deviation = (
        Line("largest", log.series.get("ratio/max_abs_dev", ())),
        Line("noise floor", log.series.get("ratio/noise_floor", ()), dashed=True),
    )
    clipped = (
        Line("above", log.series.get("clip/high", ())),
        Line("below", log.series.get("clip/low", ()), dashed=True),
    )
    less_one = tuple((step, value - 1) for step, value in log.series.get("ratio/mean", ()))
    charts = (
        Chart(
            "Ratio, largest distance from 1",
            deviation,
            note="How far an update moved any take's likelihood; at the noise floor it did not.",
        ),
        Chart("Clipped share", clipped, note="Ratios that the trust region holds back."),
        Chart("Mean ratio minus 1", (Line("mean", less_one),)),
    )
    first, *others = _small_charts(log, POLICY)
    return [first, *(render_chart(chart) for chart in charts), *others]


def _small_charts(log: RunLog, wanted: Sequence[tuple[str, str, str]]) -> list[str]:
    return [
        render_chart(Chart(title, (Line(_last_word(name), log.series.get(name, ())),), note=note))
        for name, title, note in wanted
    ]


def _last_word(name: str) -> str:
    return name.rpartition("/")[2].replace("_", " ")


def _time_chart(log: RunLog) -> str:
    found = dict(_judges(log, "seconds/"))
    names = [name for name in PHASES if name in found]
    names += [name for name in found if name not in PHASES]
    lines = tuple(Line(name, found[name]) for name in names)
    return render_chart(Chart("Seconds per step", lines, " s", stacked=True, wide=True))


def _other_charts(log: RunLog) -> list[str]:
    """Numbers that this page knows nothing about are shown under their own names."""
    known = {name for name, _, _ in POLICY + DETECTORS + SPEED}
    known |= {"ratio/max_abs_dev", "ratio/noise_floor", "ratio/mean", "clip/low", "clip/high"}
    groups = ("reward/", "held_out/", "evaluation/", "seconds/")
    return [
        render_chart(Chart(name, (Line(name, points),)))
        for name, points in log.series.items()
        if name not in known and not name.startswith(groups)
    ]


def _takes(takes: Sequence[KeptTake]) -> str:
    if not takes:
        return ""
    groups = groupby(takes, key=lambda take: take.step)
    cards = [(step, "".join(_take_card(take) for take in group)) for step, group in groups]
    steps = [f'<h3>Step {step}</h3><div class="cards">{inside}</div>' for step, inside in cards]
    shown, folded = "".join(steps[:STEPS_OPEN]), "".join(steps[STEPS_OPEN:])
    count = len(steps) - STEPS_OPEN
    earlier = f"<details><summary>Earlier takes ({count} steps)</summary>{folded}</details>"
    title = '<h2 id="takes">Best and worst takes</h2>'
    return f'<section class="takes">{title}{shown}{earlier if folded else ""}</section>'


def _take_card(take: KeptTake) -> str:
    prompt, kind = html.escape(take.prompt), html.escape(take.kind)
    label = f"{take.kind} of step {take.step}, take {take.take + 1}: {take.prompt}"
    player = clock = position = ""
    if take.file:
        player, clock = play_button(label), '<output class="clock">0.0 s</output>'
        source = html.escape(quote(take.file))
        position = (
            '<input class="seek plain" type="range" min="0" max="1000" value="0" '
            f'aria-label="Position in: {html.escape(label)}">'
            f'<audio src="{source}" preload="metadata"></audio>'
            f'<noscript><audio controls src="{source}"></audio></noscript>'
        )
    scores = [f"reward {format_number(take.reward)}"]
    scores += [f"{name} {format_number(value)}" for name, value in take.parts.items()]
    scores += ["the sound is not there"] * (not take.file)
    spans = "".join(f"<span>{html.escape(score)}</span>" for score in scores)
    return (
        f'<article class="card{" player" if take.file else ""}"><header>{player}'
        f'<h4>{prompt}</h4>{clock}</header>{position}<footer><b class="kind {kind}">{kind}</b>'
        f"<span>take {take.take + 1}</span>{spans}</footer></article>"
    )


def _tables(log: RunLog) -> str:
    folds = []
    if log.series:
        columns = ["name", "first", "last", "lowest", "highest", "lines"]
        rows = [_row(name, [value for _, value in x]) for name, x in log.series.items()]
        folds.append(("All numbers", render_table(columns, rows, "Every number of the run")))
    if log.recipe_text:
        text = html.escape(log.recipe_text)
        folds.append(("Recipe", f'<pre tabindex="0" aria-label="Resolved recipe">{text}</pre>'))
    return "".join(
        f'<details id="{anchor(title)}"><summary>{title}</summary>{inside}</details>'
        for title, inside in folds
    )


def _row(name: str, values: list[float]) -> list[str]:
    shown = (values[0], values[-1], min(values), max(values))
    return [name, *(format_number(value) for value in shown), str(len(values))]
