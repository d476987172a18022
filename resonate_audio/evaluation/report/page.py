"""A report as one HTML page that needs nothing from elsewhere, and the files beside it."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import combinations, groupby
from pathlib import Path
from string import Template

import numpy as np
from pydantic import Field

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.files import atomic_path
from resonate_audio.core.page import (
    anchor,
    format_number,
    play_button,
    read_asset,
    render_page,
    tidy_number,
)
from resonate_audio.evaluation.report.clips import HeardClip, hear_clips
from resonate_audio.evaluation.report.make import (
    SINGLE,
    Cell,
    Change,
    GridCell,
    Report,
    ReportSystem,
    ScoredFolder,
    check_metric,
    make_report,
    sign_title,
)
from resonate_audio.evaluation.report.pictures import (
    Cloud,
    Scatter,
    reach_of,
    render_move,
    render_scatter,
)
from resonate_audio.evaluation.report.tables import render_csv, render_latex
from resonate_audio.evaluation.scores.scored import MetricCard, SystemScores
from resonate_audio.evaluation.statistics import DEFAULT, Estimate, StatisticsConfig

NUM_SCATTERS = 3
NOTHING = "\N{EN DASH}"
"""In a cell without a number."""
BETTER = '<abbr class="mark up" title="better than the baseline, {p}">▲</abbr>'
WORSE = '<abbr class="mark down" title="worse than the baseline, {p}">▼</abbr>'
REWARD = '<abbr class="mark" title="a reward of this system\'s training">R</abbr>'


class PageConfig(FrozenConfig):
    """What the page shows beside the numbers."""

    num_players: int = Field(3, ge=0)
    """Best and worst clips of each system that can be heard; 0: none."""
    rank_by: str | None = None
    """Metric that ranks them; None: the first that no training used."""
    link_audio: bool = False
    """Link the files where they lie, so that the page is small, instead of holding the sounds."""


def write_report(
    path: Path,
    folders: Sequence[ScoredFolder],
    baseline: str | None = None,
    title: str = "Evaluation",
    page: PageConfig | None = None,
    config: StatisticsConfig = DEFAULT,
) -> Report:
    """Write the page, and beside it the same numbers as ``.json``, ``.csv`` and ``.tex``.

    Args:
        path: of the page, such as ``report.html``.
        folders: systems, in the order of rows.
        baseline: name of the system that the others are compared with; None: the first.
        title: headline.
        page: what is shown beside the numbers.
        config: draws and seed.

    Raises:
        InputError: as `make_report`.
        ManifestError: as `make_report`, or ``rank_by`` is no column.
        OutputError: a file cannot be written, or the disk is full.
    """
    report = make_report(folders, baseline, title, config)
    text = render_report(report, folders, page or PageConfig(), path.absolute().parent)
    outputs = {
        ".html": text,
        ".json": report.model_dump_json(indent=2) + "\n",
        ".csv": render_csv(report),
        ".tex": render_latex(report),
    }
    for suffix, content in outputs.items():
        place = path if suffix == ".html" else path.with_suffix(suffix)
        with atomic_path(place) as temporary:
            temporary.write_bytes(content.encode("utf-8", errors="replace"))
    return report


def render_report(
    report: Report, folders: Sequence[ScoredFolder], page: PageConfig, page_folder: Path
) -> str:
    """The page's HTML; every text that comes from outside is escaped.

    Args:
        report: the numbers.
        folders: the systems that they are of.
        page: what is shown beside them.
        page_folder: where the page will lie; links to sounds start from it.

    Raises:
        ManifestError: ``rank_by`` is no column.
    """
    systems = [one.scores for one in folders]
    sections = [
        ("Results", _results(report)),
        ("Training judge and held-out judges", _panel(report)),
        ("By number of events", _grid(report)),
        ("Judge against judge", _scatters(report, systems)),
        ("Listen", _listen(report, folders, page, page_folder)),
        ("How it was measured", _measured(report)),
        ("Missing and failed clips", _failures(report.systems)),
        ("Tables to take away", _take_away(report)),
    ]
    shown = [(title, body) for title, body in sections if body]
    body = "".join(_section(title, inside) for title, inside in shown)
    warnings = "".join(
        f'<p class="warning" role="note">{html.escape(text)}</p>' for text in report.warnings
    )
    links = "".join(f'<a href="#{anchor(title)}">{html.escape(title)}</a>' for title, _ in shown)
    inside = f'{_facts(report)}{warnings}<nav aria-label="Sections">{links}</nav>{body}'
    style = (files("resonate_audio.evaluation.report") / "report.css").read_text(encoding="utf-8")
    return render_page(
        title=report.title,
        headline=report.title,
        summary=summarize(report),
        body=f'<main class="report">{inside}</main>',
        style=read_asset("charts.css") + style,
    )


def summarize(report: Report) -> str:
    """One or two sentences on what was compared and how many differences hold."""
    num_clips = sum(system.num_clips for system in report.systems)
    what = f"{_count(len(report.systems), 'system')}, {_count(num_clips, 'clip')}"
    if report.baseline is None:
        return f"{what}. Intervals are from drawing prompts."
    tested = [cell for cell in report.cells if cell.p_holm is not None]
    clear = sum(cell.is_better is not None for cell in tested)
    return (
        f"{what}. Of {_count(len(tested), 'difference')} from {report.title_of(report.baseline)}, "
        f"{clear} {'is' if clear == 1 else 'are'} more than chance explains."
    )


def choose_ranking(report: Report, wanted: str | None) -> str | None:
    """The metric that ranks clips: the given one, else the first that was no reward.

    Raises:
        ManifestError: the given one is no column of clips.
    """
    if wanted is not None:
        check_metric(report, wanted)
        return wanted
    rewards = {cell.metric for cell in report.cells if cell.is_reward}
    names = [card.name for card in report.cards if _of_clips(report, card.name)]
    return next((name for name in names if name not in rewards), names[0] if names else None)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}".replace(",", "\u202f") + "s" * (number != 1)


def _section(title: str, inside: str) -> str:
    return f'<section><h2 id="{anchor(title)}">{html.escape(title)}</h2>{inside}</section>'


def _facts(report: Report) -> str:
    known = {
        "Baseline": report.title_of(report.baseline) if report.baseline else "",
        "Prompts": report.protocol.get("prompt_set", ""),
        "Takes of each prompt": report.protocol.get("takes", ""),
        "Failed clips": str(sum(_num_failed(system) for system in report.systems)),
    }
    items = "".join(
        f"<div><dt>{name}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in known.items()
        if value
    )
    return f'<dl class="facts">{items}</dl>'


def _num_failed(system: ReportSystem) -> int:
    return sum(len(names) for names in system.failures.values())


def _of_clips(report: Report, metric: str) -> bool:
    return any(cell.metric == metric and cell.mean is not None for cell in report.cells)


def _results(report: Report) -> str:
    extra = [
        title
        for title, has in (
            ("Params", any("params" in system.facts for system in report.systems)),
            ("NFE", any("nfe" in system.facts for system in report.systems)),
            ("s per s", any(s.real_time_factor is not None for s in report.systems)),
        )
        if has
    ]
    metrics = "".join(_metric_head(card) for card in report.cards)
    head, last = (
        "".join(f'<th scope="col">{title}</th>' for title in titles)
        for titles in (("System", "Clips"), extra)
    )
    rows = "".join(_result_row(report, system, extra) for system in report.systems)
    table = _table(head + metrics + last, rows, "Mean of every metric by system", "results")
    return table + f'<p class="note">{_legend(report)}</p>'


def _table(head: str, rows: str, caption: str, kind: str = "") -> str:
    """A table of HTML cells; `render_table` takes plain ones."""
    label = html.escape(caption)
    return (
        f'<div class="scroll sheet" tabindex="0" role="region" aria-label="{label}">'
        f'<table class="{kind}"><caption>{label}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _metric_head(card: MetricCard) -> str:
    way = "" if card.higher_is_better else ' <abbr title="lower is better">↓</abbr>'
    return f'<th scope="col">{html.escape(card.title or card.name)}{way}</th>'


def _result_row(report: Report, system: ReportSystem, extra: Sequence[str]) -> str:
    base = ' <span class="tag">baseline</span>' if system.name == report.baseline else ""
    factor = system.real_time_factor
    known = {
        "Params": system.facts.get("params", NOTHING),
        "NFE": system.facts.get("nfe", NOTHING),
        "s per s": NOTHING if factor is None else format_number(round(factor, 4)),
    }
    failed = _num_failed(system)
    told = f'<small class="failed">{failed} failed</small>' if failed else ""
    facts = "".join(f"<td>{html.escape(known[name])}</td>" for name in extra)
    numbers = "".join(
        _number(report, report.cell(system.name, card.name), failed) for card in report.cards
    )
    return (
        f'<tr><th scope="row">{html.escape(system.title)}{base}</th>'
        f"<td>{system.num_clips}{told}</td>{numbers}{facts}</tr>"
    )


def _number(report: Report, cell: Cell, num_failed: int) -> str:
    if cell.value is None:
        return f'<td class="none">{NOTHING}</td>'
    shown = _fixed(cell.value)
    if cell.system in report.best(cell.metric):
        shown = f"<b>{shown}</b>"
    if cell.is_better is not None:
        mark = BETTER if cell.is_better else WORSE
        shown += mark.format(p=_p_text(cell.p_holm))
    if cell.is_reward:
        shown += REWARD
    return f"<td>{shown}{_interval(cell, num_failed)}</td>"


def _interval(cell: Cell, num_failed: int) -> str:
    """What stands under a number: its interval, and how many clips it does not hold."""
    mean = cell.mean
    num_out = num_failed if mean is None else len(mean.left_out)
    gone = f"<small>{num_out} left out</small>" if num_out else ""
    if mean is None:
        return f"<small>whole set</small>{gone}"
    return f"<small>{_fixed(mean.low)} to {_fixed(mean.high)}</small>{gone}"


def _fixed(value: float) -> str:
    """Three decimals, as papers print them; fewer for large numbers."""
    if 0 < abs(value) < 0.0005:
        return tidy_number(f"{value:.1g}")
    if abs(value) >= 1000:
        return format_number(value)
    return f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def _p_text(p: float | None) -> str:
    if p is None:
        return "not tested"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _legend(report: Report) -> str:
    parts = [
        f"Under each mean is its {100 * report.statistics.confidence:g} % interval, from drawing "
        "prompts, then takes. The best of a column is bold."
    ]
    if report.baseline is not None:
        parts.append(
            f"{BETTER.format(p='p < 0.05')} better and {WORSE.format(p='p < 0.05')} worse than "
            f"{html.escape(report.title_of(report.baseline))} on the same prompts and takes, by "
            "sign flips over prompts, corrected for all differences of the table (Holm), p < 0.05."
        )
    if any(cell.is_reward for cell in report.cells):
        parts.append(f"{REWARD} the judge was a reward of that system's training.")
    if any(system.real_time_factor is not None for system in report.systems):
        parts.append("s per s: seconds of work for a second of sound.")
    return " ".join(parts)


def _panel(report: Report) -> str:
    if not report.changes:
        return ""
    reach = reach_of(report.changes)
    cards = [
        _moves(report, system, list(changes), reach)
        for system, changes in groupby(report.changes, key=lambda change: change.system)
    ]
    intro = (
        "How far each system moved from the baseline, in standard deviations of the baseline's "
        "clips. A training judge that moves alone, or together with loudness, silence or clipping, "
        "is a sign that the judge was pleased and the sound is no better."
    )
    if not any(change.role == "training judge" for change in report.changes):
        intro += " No metric here is marked as a reward of training (--trained-on marks one)."
    return f'<p class="intro">{intro}</p><div class="moves">{"".join(cards)}</div>'


def _moves(report: Report, system: str, changes: Sequence[Change], reach: float) -> str:
    titles = {card.name: card.title or card.name for card in report.cards}
    order = {"training judge": 0, "held-out judge": 1, "sound": 2}
    rows = []
    for change in sorted(changes, key=lambda change: order[change.role]):
        is_sign = change.role == "sound"
        name = sign_title(change.quantity) if is_sign else titles[change.quantity]
        rows.append(
            f'<tr><th scope="row">{html.escape(name)}<small>{change.role}</small></th>'
            f"<td>{render_move(change, reach)}</td><td>{_signed(change.change.value)}"
            f"<small>{_range(change.change)}</small></td></tr>"
        )
    head = (
        '<th scope="col">Quantity</th>'
        f'<th scope="col" class="axis"><div><span>\N{MINUS SIGN}{reach:.2g} sd</span><span>0</span>'
        f'<span>+{reach:.2g} sd</span></div></th><th scope="col">Change</th>'
    )
    title = report.title_of(system)
    table = _table(head, "".join(rows), f"Changes of {title} from the baseline", "bars-table")
    return f'<article class="card chart"><h3>{html.escape(title)}</h3>{table}</article>'


def _signed(value: float) -> str:
    return "+" * (value > 0) + _fixed(value)


def _range(estimate: Estimate) -> str:
    return f"{_signed(estimate.low)} to {_signed(estimate.high)}"


def _grid(report: Report) -> str:
    if not report.grid:
        return ""
    metrics = [card for card in report.cards if any(c.metric == card.name for c in report.grid)]
    folds = [
        f"<details{' open' * (number == 0)}><summary>{html.escape(card.title or card.name)}"
        f"</summary>{_grid_table(report, card)}</details>"
        for number, card in enumerate(metrics)
    ]
    note = (
        "Mean ± 95 % half-width (1.96 standard errors over prompts) by number of events in the "
        "prompt and how they go together; the stronger its colour, the better a cell."
    )
    return f'<p class="intro">{note}</p>{"".join(folds)}'


def _grid_table(report: Report, card: MetricCard) -> str:
    cells = [cell for cell in report.grid if cell.metric == card.name]
    by_place = {(cell.count, cell.relation, cell.system): cell for cell in cells}
    means = [cell.mean for cell in cells]
    low, span = min(means), (max(means) - min(means)) or 1.0
    systems = [s for s in report.systems if any(c.system == s.name for c in cells)]
    rows = []
    for count, relation in sorted({(cell.count, cell.relation) for cell in cells}):
        found = [by_place.get((count, relation, system.name)) for system in systems]
        number = max(cell.num_prompts for cell in found if cell is not None)
        inside = "".join(_shade(cell, low, span, card.higher_is_better) for cell in found)
        name = _count(count, "event") + f", {html.escape(relation)}" * (relation != SINGLE)
        rows.append(f'<tr><th scope="row">{name}</th><td>{number}</td>{inside}</tr>')
    names = ["Events", "Prompts", *(system.title for system in systems)]
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in names)
    return _table(head, "".join(rows), f"{card.title or card.name} by number of events", "grid")


def _shade(cell: GridCell | None, low: float, span: float, higher_is_better: bool) -> str:
    if cell is None:
        return f'<td class="none">{NOTHING}</td>'
    share = (cell.mean - low) / span
    share = share if higher_is_better else 1 - share
    half = "" if cell.half_width is None else f"<small>± {_fixed(cell.half_width)}</small>"
    return f'<td style="--share: {share * 100:.0f}%">{_fixed(cell.mean)}{half}</td>'


def _scatters(report: Report, systems: Sequence[SystemScores]) -> str:
    titles = {card.name: card.title or card.name for card in report.cards}
    shown = [
        render_scatter(
            Scatter(
                titles[x],
                titles[y],
                tuple(_cloud(report, scores, x, y) for scores in systems),
            )
        )
        for x, y in choose_pairs(report)
    ]
    return f'<div class="charts">{"".join(shown)}</div>' if any(shown) else ""


def choose_pairs(report: Report, most: int = NUM_SCATTERS) -> list[tuple[str, str]]:
    """Pairs of metrics by different judges, those with a judge of training first."""
    rewards = {cell.metric for cell in report.cells if cell.is_reward}
    first_columns: dict[str, str] = {}
    for card in report.cards:
        if _of_clips(report, card.name):
            first_columns.setdefault(card.fingerprint, card.name)
    names = sorted(first_columns.values(), key=lambda name: name not in rewards)
    return list(combinations(names, 2))[:most]


def _cloud(report: Report, scores: SystemScores, x: str, y: str) -> Cloud:
    pairs = [
        (clip.values[x], clip.values[y])
        for clip in scores.clips
        if clip.failure is None and x in clip.values and y in clip.values
    ]
    table = np.array(pairs, float).reshape(-1, 2)
    return Cloud(report.title_of(scores.system), table[:, 0], table[:, 1])


def _listen(
    report: Report, folders: Sequence[ScoredFolder], page: PageConfig, page_folder: Path
) -> str:
    metric = choose_ranking(report, page.rank_by)
    if metric is None or page.num_players == 0:
        return ""
    card = next(card for card in report.cards if card.name == metric)
    start = page_folder if page.link_audio else None
    heard = hear_clips(folders, metric, page.num_players, card.higher_is_better, start)
    groups = [
        f"<h3>{html.escape(report.title_of(system))}</h3>"
        f'<div class="cards">{"".join(_player(report, clip) for clip in clips)}</div>'
        for system, clips in groupby(heard, key=lambda clip: clip.system)
    ]
    where = "; the sounds lie beside this page and are not in it" if page.link_audio else ""
    note = f"Best and worst clips of each system by {card.title or card.name}{where}."
    return f'<p class="intro">{html.escape(note)}</p>{"".join(groups)}' if groups else ""


def _player(report: Report, heard: HeardClip) -> str:
    clip = heard.clip
    titles = {card.name: card.title or card.name for card in report.cards}
    label = f"{heard.rank} of {report.title_of(heard.system)}: {clip.prompt}"
    scores = [f"{titles[name]} {_fixed(value)}" for name, value in clip.values.items()]
    for answers in clip.items.values():
        scores += [f"“{item}” {_fixed(value)}" for item, value in answers.items()]
    scores += [heard.trouble] * bool(heard.trouble)
    return _template("report_clip.html").substitute(
        kind="card player" if heard.sound else "card",
        rank=heard.rank,
        prompt=html.escape(clip.prompt),
        place=html.escape(f"{clip.id}, seed {clip.seed}"),
        button=play_button(label) if heard.sound else "",
        clock=f'<output class="clock">{clip.seconds or 0:.1f} s</output>' if heard.sound else "",
        position=_position(heard, html.escape(label)),
        scores="".join(f"<span>{html.escape(score)}</span>" for score in scores),
    )


def _position(heard: HeardClip, label: str) -> str:
    """Seek bar and sound; over the picture if there is one."""
    if not heard.sound:
        return ""
    source = html.escape(heard.sound)
    seek = f'type="range" min="0" max="1000" value="0" aria-label="Position in: {label}"'
    bar = f'<input class="seek plain" {seek}>'
    if heard.picture:
        bar = (
            f'<div class="picture small" style="--left: 0; --width: 1"><img src="{heard.picture}" '
            f'alt="Spectrogram of: {label}"><span class="head" aria-hidden="true"></span>'
            f'<input class="seek" {seek}></div>'
        )
    return f'{bar}<audio src="{source}" preload="metadata"></audio>'


def _template(name: str) -> Template:
    return Template((files("resonate_audio.evaluation.report") / name).read_text(encoding="utf-8"))


def _measured(report: Report) -> str:
    cards = "".join(_card(report, card) for card in report.cards)
    protocol = _list(report.protocol) if report.protocol else "<p>None said.</p>"
    systems = "".join(
        f"<details><summary>{html.escape(system.title)}</summary>"
        f"{_list({'name': system.name, 'folder': system.folder, **system.facts})}</details>"
        for system in report.systems
    )
    drawn = report.statistics
    note = (
        f"{drawn.num_resamples} bootstrap draws, {drawn.num_flips} sign patterns, seed "
        f"{drawn.seed}. Numbers of two reports may be compared where protocol and fingerprint are "
        "the same."
    )
    return (
        f'<p class="intro">{note}</p><h3>Protocol</h3>{protocol}<h3>Metrics</h3>{cards}'
        f"<h3>Systems</h3>{systems}"
    )


def _card(report: Report, card: MetricCard) -> str:
    rewarded = [
        report.title_of(cell.system)
        for cell in report.cells
        if cell.metric == card.name and cell.is_reward
    ]
    fields = {
        "column": card.name,
        "mode": card.mode,
        "better": "higher" if card.higher_is_better else "lower",
        "failed clip": "left out" if card.worst is None else f"counts as {card.worst:g}",
        **card.details,
    }
    if rewarded:
        fields["reward of"] = ", ".join(rewarded)
    return (
        f"<details><summary>{html.escape(card.title or card.name)} "
        f"<code>{html.escape(card.fingerprint)}</code></summary>{_list(fields)}</details>"
    )


def _list(fields: dict[str, str]) -> str:
    items = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in fields.items()
    )
    return f'<dl class="details">{items}</dl>'


def _failures(systems: Sequence[ReportSystem]) -> str:
    rows = [
        f"<details><summary>{html.escape(system.title)}: {len(names)} {html.escape(kind)}"
        f'</summary><p class="names">{html.escape(" · ".join(names))}</p></details>'
        for system in systems
        for kind, names in system.failures.items()
    ]
    return "".join(rows) or "<p>None: every clip of every system is there and was scored.</p>"


def _take_away(report: Report) -> str:
    return "".join(_fold(name, text) for name, text in _texts(report))


def _texts(report: Report) -> Iterator[tuple[str, str]]:
    yield "LaTeX", render_latex(report)
    yield "CSV", render_csv(report)


def _fold(name: str, text: str) -> str:
    shown = html.escape(text)
    return (
        f'<details><summary>{name}</summary><button class="copy" type="button" '
        f'data-text="{shown}">Copy</button><pre tabindex="0">{shown}</pre></details>'
    )
